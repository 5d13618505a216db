"""The part of `check_env` that plays: random actions in one compiled program, judged on the host.

Whether a step resets by itself cannot be seen for certain from outside. Only a state (or observation) that gives it
away counts, so that well-formed environments are never accused:

1. Every end leads back to where that episode began, no other step does, and there are two or more places from which it
   does; and an end is a truncation, or a clock that otherwise only counts jumps back from different times. (A lap that
   ends at home is terminated, without such a jump.) In observations: by truncation from four or more places.
2. Every end leads to a state that depends on nothing but the key (the same for different states and actions, another
   for another key), that agrees with fresh states wherever these agree among themselves, and other steps are not so.

Episodes of one step, or none that ends within the run, tell nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import check_silent
from jaxrl.types import Array, Env, PyTree, TimeStep, is_last

_NUM_ENVS = 4
_HIDES = "at the end of an episode: must return the true successor (the loop resets)"


class Rows(NamedTuple):
    """Everything about every step of a run; leaves [T, N, ...]."""

    first: PyTree  # (state, observation) with which the episode began
    fresh: PyTree  # (state, observation) of a reset that was made at this step, needed or not
    before: PyTree  # (state, observation)
    action: PyTree
    after: PyTree  # state
    timestep: TimeStep
    age: Array  # steps in the episode before this one


def problems(env: Env, num_steps: int, key: Array) -> list[str]:
    play = jax.jit(lambda *arguments: _play(env, num_steps, *arguments), compiler_options=_options())
    held = check_silent.nothing_held(jax.eval_shape(env.reset, key, env.params)[0])
    rows, again = (play(key, env.params, held) for _ in range(2))
    if any(_array(a).tobytes() != _array(b).tobytes() for a, b in zip(jax.tree.leaves(rows), jax.tree.leaves(again))):
        return ["reset or step gives two results for the same key (a host callback with its own state?)"]
    found = [
        *_values("reset", env.observation_space, rows.fresh[1], np.asarray(rows.age)),
        *_values("step", env.observation_space, rows.timestep.observation, np.asarray(rows.age)),
    ]
    reward = np.asarray(rows.timestep.reward)
    if not np.all(np.isfinite(reward)):
        index = tuple(np.argwhere(~np.isfinite(reward))[0])
        found.append(f"step: reward is {reward[index]} at step {rows.age[index[:2]] + 1} of an episode, must be finite")
    found = found or _resets(env, rows, key)
    last = None if found else check_silent.last_counts(rows)
    if last is not None:
        runs = (play(key, env.params, held) for held in (last, check_silent.one_less(last)))
        found = check_silent.counters(*runs, last)
    return found or check_silent.indices(env, rows, key)


def _play(env: Env, num_steps: int, key: Array, params: PyTree, held: list) -> Rows:
    """Random actions in `_NUM_ENVS` environments; resets where an episode ended, as a rollout does.

    Args:
      held: leaves of the state that are set to a value before every step.
    """
    start_key, *keys = jax.random.split(key, 4)
    reset = jax.vmap(env.reset, in_axes=(0, None))
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def one(carry, keys):
        first, (state, observation), age = carry
        before = check_silent.hold(state, held), observation
        action_keys, step_keys, reset_keys = keys
        action = jax.vmap(lambda k, o: _action(env.action_space, k, o))(action_keys, before[1])
        after, timestep = step(step_keys, before[0], action, params)
        fresh = reset(reset_keys, params)
        ended = is_last(timestep).reshape(_NUM_ENVS, -1).all(axis=1)
        rows = Rows(first, fresh, before, action, after, timestep, age)

        def select(new, old):
            where = lambda n, o: jnp.where(ended.reshape(-1, *(1,) * (n.ndim - 1)), n, o)  # noqa: E731
            return jax.tree.map(where, new, old)

        carry = (select(fresh, first), select(fresh, (after, timestep.observation)), jnp.where(ended, 0, age + 1))
        return carry, rows

    started = reset(jax.random.split(start_key, _NUM_ENVS), params)
    keys = tuple(jax.random.split(k, (num_steps, _NUM_ENVS)) for k in keys)
    return jax.lax.scan(one, (started, started, jnp.zeros(_NUM_ENVS, jnp.int32)), keys)[1]


def _options() -> dict:
    """Compile fast: the program runs for milliseconds."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}


def _action(space: spaces.Space, key: Array, observation: PyTree) -> PyTree:
    """A random action, a legal one where the observation (an agent's own, of several) has a mask for a discrete one."""
    if isinstance(space, spaces.Repeated) and not isinstance(observation, tuple):
        return jax.vmap(lambda k, o: _action(space.space, k, o))(jax.random.split(key, space.num), observation)
    if isinstance(space, spaces.Tuple) and isinstance(observation, tuple):
        keys = jax.random.split(key, len(space.spaces))
        return tuple(map(_action, space.spaces, keys, observation))
    if isinstance(space, spaces.Discrete) and isinstance(observation, dict) and "action_mask" in observation:
        legal = jnp.where(observation["action_mask"], 0.0, -1e9)
        return jax.random.categorical(key, legal).astype(space.dtype)
    return _sample(space, key)


def _sample(space: spaces.Space, key: Array) -> PyTree:
    """A random member of a space; an entry of a box is at a bound in one draw of four, where it has one."""
    if isinstance(space, spaces.Dict):
        return {name: _sample(s, k) for (name, s), k in zip(space.items, jax.random.split(key, len(space.items)))}
    if isinstance(space, spaces.Tuple):
        return tuple(_sample(s, k) for s, k in zip(space.spaces, jax.random.split(key, len(space.spaces))))
    if isinstance(space, spaces.Repeated):
        return jax.vmap(lambda k: _sample(space.space, k))(jax.random.split(key, space.num))
    if not isinstance(space, spaces.Box):
        return space.sample(key)
    key, corner_key = jax.random.split(key)
    low, high = space.bounds()
    draw = jax.random.randint(corner_key, space.shape, 0, 8)
    x = space.sample(key)
    x = jnp.where((draw == 0) & jnp.isfinite(low), low.astype(x.dtype), x)
    return jnp.where((draw == 1) & jnp.isfinite(high), high.astype(x.dtype), x)


# Values --------------------------------------------------------------------------------------------------------------


def _values(source: str, space: spaces.Space, x: PyTree, age: np.ndarray, path: str = "") -> list[str]:
    """Entries that are not finite or outside their space: the first of each leaf."""
    if isinstance(space, spaces.Dict):
        return [line for key, s in space.items for line in _values(source, s, x[key], age, f"{path}[{key!r}]")]
    if isinstance(space, spaces.Tuple):
        return [line for i, s in enumerate(space.spaces) for line in _values(source, s, x[i], age, f"{path}[{i}]")]
    if isinstance(space, spaces.Repeated):
        return _values(source, spaces.stacked(space), x, age, path)
    if isinstance(space, spaces.Box):
        low, high = (np.asarray(b) for b in space.bounds())
    else:
        low, high = (
            np.zeros(space.shape, int),
            np.asarray(space.n if isinstance(space, spaces.Discrete) else space.nvec) - 1,
        )

    def slack(bound):  # what rounding may do
        return 1e-6 * np.maximum(1.0, np.abs(np.where(np.isfinite(bound), bound, 0.0)))

    def describe(bad, rule):
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        entry = f"[{', '.join(map(str, index[2:]))}]" if index[2:] else ""
        when = "" if source == "reset" else f" at step {age[index[:2]] + 1} of an episode"
        return f"{source}: observation{path}{entry} is {x[index]}{when}, {rule(index[2:])}"

    x, found = np.asarray(x), []
    if not np.all(np.isfinite(x)):
        found.append(describe(~np.isfinite(x), lambda i: "must be finite"))
    outside = np.isfinite(x) & ((x < low - slack(low)) | (x > high + slack(high)))
    if np.any(outside):
        low, high = (np.broadcast_to(b, x.shape[2:]) for b in (low, high))
        found.append(describe(outside, lambda i: f"outside its space [{low[i]}, {high[i]}]"))
    return found


# Steps that reset by themselves --------------------------------------------------------------------------------------


def _resets(env: Env, rows: Rows, key: Array) -> list[str]:
    ended, truncated = (np.asarray(x) for x in (is_last(rows.timestep), rows.timestep.truncated))
    ended, truncated = (x.reshape(*x.shape[:2], -1).all(axis=2).reshape(-1) for x in (ended, truncated))
    if not ended.any() or ended.all():
        return []
    first, fresh, before, after = (
        _matrix(x, len(ended)) for x in (rows.first[0], rows.fresh[0], rows.before[0], rows.after)
    )
    if _returns(first, before, after, ended, truncated, 2) or _fresh(env, rows, key, fresh, before, after, ended):
        return [f"step returns the state of a reset {_HIDES}"]
    first, before, after = (_matrix(x, len(ended)) for x in (rows.first[1], rows.before[1], rows.timestep.observation))
    if truncated.any() and _returns(first, before, after, ended, truncated, 4):
        return [f"step returns the observation of a reset {_HIDES}"]
    return []


def _returns(first, before, after, ended, truncated, places: int) -> bool:
    """Case 1: every end, and nothing else, leads back to where its episode began."""
    moving = _moving(before, after, ended)
    first, before, after = (x[:, moving] for x in (first, before, after))
    back = np.all(after == first, axis=1)
    if not moving.any() or not back[ended].all() or back[~ended].any() or _num_distinct(before[ended]) < places:
        return False
    change = (after - before)[~ended]
    clock = np.all(change == change[0], axis=0) & (before[ended].min(axis=0) < before[ended].max(axis=0))
    return bool(truncated.any() or clock.any())


def _fresh(env, rows: Rows, key: Array, fresh, before, after, ended) -> bool:
    """Case 2: every end, and nothing else, leads to a state that depends on the key alone and looks fresh."""
    moving = _moving(before, after, ended)
    fixed = np.all(fresh == fresh[0], axis=0)
    sure = moving & fixed  # what tells a fresh state from others
    looks = np.all(after[:, sure] == fresh[0, sure], axis=1)
    if not moving.any() or not looks[ended].all() or (sure.any() and looks[~ended].any()) or fixed.all():
        return False

    @jax.jit
    def again(key, state, action, params):  # the same steps with one key for all
        state, timestep = jax.vmap(env.step, in_axes=(None, 0, 0, None))(key, state, action, params)
        return state, is_last(timestep)

    state, action = (jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), x) for x in (rows.before[0], rows.action))
    drawn = []
    for k in jax.random.split(jax.random.fold_in(key, 1), 16):  # fresh states may be few
        then, last = again(k, state, action, env.params)
        then, last = _matrix(then, len(ended)), np.asarray(last).reshape(len(ended), -1).all(axis=1)
        if last.all() or _num_distinct(before[last][:, moving]) < 2:
            return False
        if _num_distinct(then[last]) > 1 or _num_distinct(then[~last][:, moving]) < 2:
            return False
        drawn.append(then[last][0])
    return _num_distinct(np.stack(drawn)) > 1


def _moving(before: np.ndarray, after: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Which entries change within an episode."""
    return np.any((after != before)[~ended], axis=0)


def _num_distinct(x: np.ndarray) -> int:
    return len(np.unique(x, axis=0))


def _matrix(tree: PyTree, num_rows: int) -> np.ndarray:
    """All numbers of a state or observation, a row for each step."""
    columns = [_array(x).reshape(num_rows, -1).astype(np.float64) for x in jax.tree.leaves(tree)]
    return np.nan_to_num(np.concatenate([np.zeros((num_rows, 0)), *columns], axis=1), nan=1e300)


def _array(x: Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
