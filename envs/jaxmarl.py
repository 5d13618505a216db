"""Adapter for JaxMARL environments (Rutherford et al. 2023, https://arxiv.org/abs/2311.10090), version 0.2.

Only `reset` and `step_env` are called: JaxMARL's own `step` resets, which would hide the true successor. Dictionaries
keyed by agent become a leading axis where agents are alike, tuples where they are not; the order is that of
`env.agents`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs.adapter import cast, import_quietly
from jaxrl.types import Array, Env, PyTree, TimeStep

_CLOCKS = (("step", "max_steps"), ("outer_t", "num_outer_steps"))  # field of the state, attribute of the environment
_WHOLE = "world_state"  # where an observation holds the global state, beside those of agents


def make_jaxmarl(name: str, **options: Any) -> Env:
    """An environment of JaxMARL's registry: "MPE_simple_spread_v3", "HeuristicEnemySMAX", "overcooked", "hanabi", ...

    Args:
      **options: keyword arguments of the environment's class; `privileged` is that of `from_jaxmarl`.

    Raises:
      ImportError: if JaxMARL is not installed.
      ValueError: a name that it does not have.
    """
    try:
        jaxmarl = import_quietly("jaxmarl")
    except ModuleNotFoundError as error:
        raise ImportError(f"make: 'jaxmarl/{name}' needs JaxMARL: pip install jaxmarl six ({error})") from None
    if name not in jaxmarl.registered_envs:
        raise ValueError(f"make: JaxMARL has no {name!r}; it has {', '.join(sorted(jaxmarl.registered_envs))}")
    privileged = options.pop("privileged", False)
    return from_jaxmarl(jaxmarl.make(name, **options), privileged=privileged)


def from_jaxmarl(env: Any, *, privileged: bool = False) -> Env:
    """Wraps an environment object with `agents`, `reset`, `step_env`, `observation_space` and `action_space`.

    Agents whose spaces are the same are alike (`Repeated`), others are not (`Tuple`). Where an environment says which
    actions are available (SMAX, Hanabi), an observation is {"observation": own, "action_mask": bool [n]}. `Env.params`
    are (): JaxMARL keeps its numbers in the object.

    The two ends: JaxMARL has one `done` for each agent and one for all. Where its clock is over, what would be done
    without the clock terminates, and what is done only with it is truncated; before, every `done` terminates. So an
    agent may be out before the others. The clock is the counter `state.step` up to `env.max_steps` (the particle
    environments end a step after that), or `outer_t` up to `num_outer_steps`; an environment without either has none.
    (The coin game and storm begin their inner games anew within a step; that is taken as it is.)

    Args:
      privileged: gives each agent the global state ("world_state" in JaxMARL's observations) as well, as "privileged".

    Raises:
      ValueError: if `env` lacks one of these, has one agent, has a space of an unknown kind, or has no global state
        although `privileged` asks for it.
    """
    for attribute in ("agents", "reset", "step_env", "observation_space", "action_space"):
        if not hasattr(env, attribute):
            raise ValueError(f"from_jaxmarl: {type(env).__name__} has no {attribute!r}")
    agents = list(env.agents)
    if len(agents) < 2:
        raise ValueError(f"from_jaxmarl: {type(env).__name__} has {len(agents)} agent, must have two or more")
    if privileged and _WHOLE not in jax.eval_shape(env.reset, jax.random.key(0))[0]:
        raise ValueError(f"from_jaxmarl: privileged is True, but {type(env).__name__} has no {_WHOLE!r}")
    actions = [_space(env.action_space(agent)) for agent in agents]
    masks = _masks(env, agents, actions)

    def rows(observation: PyTree, state: PyTree) -> list[PyTree]:
        """What each agent sees."""
        found = [observation[agent] for agent in agents]
        if not (masks or privileged):
            return found
        found = [{"observation": own} for own in found]
        if masks:
            available = masks(state)
            found = [{**row, "action_mask": available[agent].astype(bool)} for row, agent in zip(found, agents)]
        return [{**row, "privileged": observation[_WHOLE]} for row in found] if privileged else found

    seen, types = jax.eval_shape(lambda key: _first(rows, *env.reset(key)), jax.random.key(0))
    observations = [_row_space(_space(env.observation_space(agent)), row) for agent, row in zip(agents, seen)]
    alike = len(set(zip(observations, actions))) == 1

    def observe(observation: PyTree, state: PyTree) -> PyTree:
        found = [_value(space, row) for space, row in zip(observations, rows(observation, state))]
        return jax.tree.map(lambda *x: jnp.stack(x), *found) if alike else tuple(found)

    def reset(key: Array, params: PyTree):
        del params
        observation, state = env.reset(key)
        state = cast(state, types)
        return state, observe(observation, state)

    def step(key: Array, state: PyTree, action: PyTree, params: PyTree):
        del params
        action = {agent: action[i] for i, agent in enumerate(agents)}
        observation, after, reward, done, _ = env.step_env(key, state, action)
        after = cast(after, types)
        over = natural = _ends(done, agents)
        clock = _clock(env, state)
        if clock:
            late = getattr(clock.holder(after), clock.field) >= clock.limit
            # The same step, at the start of the clock: compilers merge what does not depend on it.
            unclocked = env.step_env(jax.random.clone(key), clock.started(state), action)[3]
            natural = jnp.where(late, _ends(unclocked, agents), over)
        reward = jnp.stack([jnp.asarray(reward[agent], jnp.float32).reshape(()) for agent in agents])
        return after, TimeStep(observe(observation, after), reward, over & natural, over & ~natural)

    def space_of(all_: list[spaces.Space]) -> spaces.Space:
        return spaces.Repeated(all_[0], len(agents)) if alike else spaces.Tuple(tuple(all_))

    return Env(reset, step, (), space_of(observations), space_of(actions))


class _Clock(NamedTuple):
    """Where a step counter is, and its limit. `nested`: in a state within the state, as in SMAX with enemies."""

    field: str
    limit: int
    nested: bool

    def holder(self, state: PyTree) -> PyTree:
        return state.state if self.nested else state

    def started(self, state: PyTree) -> PyTree:
        """The state with its counter at 0."""
        inner = self.holder(state)
        inner = inner.replace(**{self.field: jnp.zeros_like(getattr(inner, self.field))})
        return state.replace(state=inner) if self.nested else inner


def _clock(env: Any, state: PyTree) -> _Clock | None:
    for field, limit in _CLOCKS:
        for nested, holder in ((False, state), (True, getattr(state, "state", None))):
            for keeper in (env, getattr(env, "_env", None)):
                if hasattr(holder, field) and hasattr(keeper, limit):
                    return _Clock(field, getattr(keeper, limit), nested)
    return None


def _first(rows: Any, observation: PyTree, state: PyTree) -> tuple[list[PyTree], PyTree]:
    return rows(observation, state), state


def _ends(done: dict, agents: list[str]) -> Array:
    """[A] bool: agents that are out, which all are where "__all__" says so."""
    whole = jnp.asarray(done["__all__"], bool).reshape(())
    return jnp.stack([jnp.asarray(done.get(agent, whole), bool).reshape(()) | whole for agent in agents])


def _masks(env: Any, agents: list[str], actions: list[spaces.Space]) -> Any:
    """The method that tells which actions are available, None where there is none, or actions are not discrete."""
    if not all(isinstance(space, spaces.Discrete) for space in actions):
        return None
    for name in ("get_avail_actions", "get_legal_moves"):
        try:
            available = jax.eval_shape(lambda key: getattr(env, name)(env.reset(key)[1]), jax.random.key(0))  # noqa: B023
        except (AttributeError, NotImplementedError):  # the base class of all has the first one and raises
            continue
        if all(available[agent].shape == (space.n,) for agent, space in zip(agents, actions)):
            return getattr(env, name)
    return None


def _space(space: Any) -> spaces.Space:
    """A JaxMARL space as ours; recognised by class name, since environments bring copies of their own."""
    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(int(space.n), jnp.dtype(space.dtype).name)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(tuple(int(n) for n in space.num_categories), jnp.dtype(space.dtype).name)
    if kind == "Box":
        low, high = (np.asarray(b, np.float32) for b in (space.low, space.high))
        low, high = (b.item() if b.ndim == 0 else np.broadcast_to(b, space.shape) for b in (low, high))
        return spaces.Box(low, high, tuple(np.atleast_1d(space.shape).astype(int)), space.dtype)
    if kind in ("Dict", "dict"):
        return spaces.Dict({name: _space(s) for name, s in getattr(space, "spaces", space).items()})
    if kind == "Tuple":
        return spaces.Tuple(tuple(_space(s) for s in space.spaces))
    raise ValueError(
        f"from_jaxmarl: cannot convert the space {space!r}; Discrete, MultiDiscrete, Box, Dict and Tuple are known"
    )


def _row_space(declared: spaces.Space, types: PyTree) -> spaces.Space:
    """The space of what an agent sees, whose own observation is declared."""
    if not (isinstance(types, dict) and types.keys() & {"action_mask", "privileged"}):
        return _like(declared, types)
    found = {"observation": _like(declared, types["observation"])}
    if "action_mask" in types:
        found["action_mask"] = spaces.Box(0, 1, types["action_mask"].shape, "bool")
    if "privileged" in types:
        found["privileged"] = _like(None, types["privileged"])
    return spaces.Dict(found)


def _like(space: spaces.Space | None, types: PyTree) -> spaces.Space:
    """The space that an environment declares, or an unbounded one of what it returns where that has another shape."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: _like(s, types[name]) for name, s in space.items})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(map(_like, space.spaces, types)))
    if space is not None and space.shape == types.shape:
        return space
    return spaces.Box(-np.inf, np.inf, types.shape)


def _value(space: spaces.Space, x: PyTree) -> PyTree:
    """An observation in the containers and dtypes of its space."""
    if isinstance(space, spaces.Dict):
        return {name: _value(s, x[name]) for name, s in space.items}
    if isinstance(space, spaces.Tuple):
        return tuple(map(_value, space.spaces, x))
    return jnp.asarray(x, space.dtype)
