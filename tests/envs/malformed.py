"""Malformed environments, each a small change to a well-formed one, with a phrase that `check_env` must say.

`CASES` is name -> (factory, phrase).
"""

import collections
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.types import Env, TimeStep


class State(NamedTuple):
    position: jax.Array
    time: jax.Array


class Params(NamedTuple):
    size: jax.Array


def walk() -> Env:
    """A well-formed random walk: terminates at +-size, truncates after 12 steps."""

    def observe(state, params):
        return jnp.stack([state.position / params.size, state.time / 12])

    def reset(key, params):
        state = State(jax.random.uniform(key, minval=-1.0, maxval=1.0), jnp.int32(0))
        return state, observe(state, params)

    def step(key, state, action, params):
        position = state.position + (action - 1) + 0.1 * jax.random.uniform(key)
        position = jnp.clip(position, -params.size, params.size)
        state = State(position, state.time + 1)
        terminated = jnp.abs(position) >= params.size
        truncated = (state.time >= 12) & ~terminated
        return state, TimeStep(observe(state, params), jnp.float32(position), terminated, truncated)

    return Env(reset, step, Params(jnp.float32(2.0)), spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3))


def after_reset(change):
    """`walk` with `change(key, state, observation)` for what a reset returns."""
    env = walk()
    return env._replace(reset=lambda key, params: change(key, *env.reset(key, params)))


def after_step(change, before=lambda state: state):
    """`walk` with `change(key, state, timestep)` for what a step returns."""
    env = walk()

    def step(key, state, action, params):
        return change(key, *env.step(key, before(state), action, params))

    return env._replace(step=step)


def timestep(**fields):
    """`walk` with other fields in the time step; a function is given the old time step."""

    def change(key, state, ts):
        return state, ts._replace(**{name: f(ts) if callable(f) else f for name, f in fields.items()})

    return after_step(change)


def extended(extra, change):
    """`walk` whose state is `(state, extra(key))`; `change(key, extra, timestep) -> extra, timestep` at a step."""
    env = walk()

    def reset(key, params):
        state, observation = env.reset(key, params)
        return (state, extra(key)), observation

    def step(key, state, action, params):
        inner, ts = env.step(key, state[0], action, params)
        extra, ts = change(key, state[1], ts)
        return (inner, extra), ts

    return env._replace(reset=reset, step=step)


def reward_from(draw):
    return timestep(reward=lambda ts: ts.reward + draw())


def auto_reset(env, state_too=True, observation_too=True):
    """What many libraries do inside of a step."""

    def step(key, state, action, params):
        reset_key, step_key = jax.random.split(key)
        then, ts = env.step(step_key, state, action, params)
        fresh, observation = env.reset(reset_key, params)
        ended = ts.terminated | ts.truncated
        if state_too:
            then = jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, then)
        if observation_too:
            ts = ts._replace(observation=jnp.where(ended, observation, ts.observation))
        return then, ts

    return env._replace(step=step)


def fixed_start(env):
    return env._replace(reset=lambda key, params: env.reset(jax.random.key(3), params))


def without_clock(env):
    """The walk's position alone, observed alone; it ends by termination."""

    def reset(key, params):
        state, observation = env.reset(key, params)
        return state.position, observation[:1]

    def step(key, position, action, params):
        state, ts = env.step(key, State(position, jnp.int32(0)), action, params)
        return state.position, ts._replace(observation=ts.observation[:1])

    return Env(reset, step, env.params, spaces.Box(-1.0, 1.0, (1,)), env.action_space)


def first_state_cached(env):
    """The first state and observation of the episode are kept, and come back at its end; a counter runs on."""

    def reset(key, params):
        state, observation = env.reset(key, params)
        return (state, observation, state, jnp.int32(0)), observation

    def step(key, state, action, params):
        now, first_observation, first, count = state
        then, ts = env.step(key, now, action, params)
        ended = ts.terminated | ts.truncated
        then = jax.tree.map(lambda new, old: jnp.where(ended, new, old), first, then)
        observation = jnp.where(ended, first_observation, ts.observation)
        return (then, first_observation, first, count + 1), ts._replace(observation=observation)

    return env._replace(reset=reset, step=step)


def python_branch():
    env = walk()

    def step(key, state, action, params):
        if state.position > 0:
            action = 0
        return env.step(key, state, action, params)

    return env._replace(step=step)


def python_number():
    return timestep(reward=lambda ts: float(ts.reward))


def numpy_inside():
    return timestep(observation=lambda ts: np.clip(np.asarray(ts.observation), -1, 1))


def bool_index():
    return timestep(observation=lambda ts: ts.observation[ts.observation > 0])


def size_from_params():
    env = walk()

    def reset(key, params):
        jnp.zeros(params.size.astype(int))
        return env.reset(key, params)

    return env._replace(reset=reset)


def leaked_tracer():
    kept = []

    def change(key, state, ts):
        kept.append(ts.reward)
        return state, ts._replace(reward=ts.reward + kept[0])

    return after_step(change)


def counts_calls():
    calls = collections.Counter()

    def draw():
        calls["step"] += 1
        return calls["step"]

    return reward_from(draw)


def host_state():
    generator = np.random.default_rng(0)

    def draw():
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda: np.float32(generator.uniform()), shape, vmap_method="sequential")

    return reward_from(draw)


def not_vmappable():
    def ask(x):
        return jax.pure_callback(lambda v: np.asarray(v), jax.ShapeDtypeStruct((), jnp.float32), x)

    return timestep(reward=lambda ts: ask(ts.reward))


def step_key_twice():
    env = walk()

    def step(key, state, action, params):
        state, ts = env.step(key, state, action, params)
        return state, ts._replace(reward=ts.reward + jax.random.normal(key))

    return env._replace(step=step)


def swapped_reset():
    return after_reset(lambda key, state, observation: (observation, state))


def box(*arguments, **keywords):
    return walk()._replace(observation_space=spaces.Box(*arguments, **keywords))


def counting(dtype, limit=jnp.inf):
    """A walk that goes nowhere, with a counter of its own."""
    env = walk()._replace(params=Params(jnp.float32(1e6)))

    def change(key, count, ts):
        count = count + jnp.ones((), dtype)
        return count, ts._replace(truncated=count.astype(jnp.float32) >= limit, observation=jnp.zeros(2))

    def reset(key, params):
        (state, count), observation = wrapped.reset(key, params)
        return (state, count), observation * 0

    wrapped = extended(lambda key: jnp.zeros((), dtype), change)
    return wrapped._replace(reset=reset, params=env.params)


def table(entries, actions):
    """A reward from a table that is too short for some actions."""
    env = walk()

    def step(key, state, action, params):
        state, ts = env.step(key, state, jnp.minimum(action, 2), params)
        return state, ts._replace(reward=jnp.arange(entries, dtype=jnp.float32)[action])

    return env._replace(step=step, action_space=spaces.Discrete(actions))


def lookup(read):
    """`read(time)` of a state whose time is at most 12."""

    def change(key, state, ts):
        return state, ts._replace(reward=ts.reward + read(state.time))

    return after_step(change)


def written(where):
    """A visit count that is written at a place that is out of the array."""
    return extended(lambda key: jnp.zeros(4), lambda key, seen, ts: (seen.at[where].add(1.0), ts))


def continuous(reward=lambda a: a, observation=None):
    """The walk with actions in [-1, 1]."""
    env = walk()

    def step(key, state, action, params):
        state, ts = env.step(key, state, 1 + action, params)
        ts = ts._replace(reward=jnp.float32(reward(action)))
        return state, ts if observation is None else ts._replace(observation=observation(action, ts.observation))

    return env._replace(step=step, action_space=spaces.Box(-1.0, 1.0))


def batched():
    """Eight walks in one: what a vectorised environment returns."""
    env = walk()
    eight = jax.vmap(env.reset, (0, None)), jax.vmap(env.step, (0, 0, None, None))

    def reset(key, params):
        return eight[0](jax.random.split(key, 8), params)

    def step(key, state, action, params):
        state, ts = eight[1](jax.random.split(key, 8), state, action, params)
        return state, ts._replace(reward=ts.reward[:, None])

    return env._replace(reset=reset, step=step, observation_space=spaces.Box(-1.0, 1.0, (8, 2)))


CASES = {
    # what JAX does in silence
    "a counter of 8 bits": (lambda: counting(jnp.int8), "int8, which wraps from 127 to -128"),
    "a counter of 8 bits without a sign": (lambda: counting(jnp.uint8), "uint8, which wraps from 255 to 0"),
    "a counter of 16 bits": (lambda: counting(jnp.int16), "int16, which wraps from 32767 to -32768"),
    "a limit beyond what a counter can hold": (lambda: counting(jnp.int8, 200), "int8, which wraps from 127"),
    "a counter of float32": (lambda: counting(jnp.float32), "float32, which cannot count beyond 16777216"),
    "a limit that a float never reaches": (lambda: counting(jnp.float32, 2e7), "cannot count beyond 16777216"),
    "a counter of float16": (lambda: counting(jnp.float16), "float16, which cannot count beyond 2048"),
    "a counter of bfloat16": (lambda: counting(jnp.bfloat16), "bfloat16, which cannot count beyond 256"),
    "more actions than the table has": (lambda: table(3, 5), "step: indexes out of bounds, for array of shape (3,)"),
    "a table that is shorter than time": (lambda: lookup(lambda t: jnp.zeros(8)[t]), "step: indexes out of bounds"),
    "a slice beyond the end": (
        lambda: lookup(lambda t: jax.lax.dynamic_slice(jnp.zeros(8), (t,), (4,)).sum()),
        "step: indexes out of bounds",
    ),
    "a write beyond the end": (lambda: written(9), "step: indexes out of bounds, for array of shape (4,)"),
    "NaN where an action is at its bound": (
        lambda: continuous(reward=lambda a: a / jnp.sqrt(1 - a)),
        "of an episode, must be finite",
    ),
    "infinity where an action is at its bound": (lambda: continuous(reward=lambda a: 1 / (1 + a)), "reward is inf"),
    "an observation that leaves its space at a bound": (
        lambda: continuous(observation=lambda a, o: o.at[0].set(1.5 * a * (jnp.abs(a) >= 1))),
        "outside its space [-1.0, 1.0]",
    ),
    "reward of shape (8, 1)": (batched, "reward has shape (8, 1)"),
    # the bundle
    "not an environment": (lambda: object(), "must be a jaxrl.types.Env"),
    "a plain tuple": (lambda: tuple(walk()), "must be a jaxrl.types.Env"),
    "step is missing": (lambda: walk()._replace(step=None), "step is None, must be a function"),
    "reset takes a key alone": (lambda: walk()._replace(reset=lambda key: None), "must take (key, params)"),
    "gymnasium's step": (
        lambda: walk()._replace(step=lambda state, action: None),
        "must take (key, state, action, params)",
    ),
    "a string in params": (lambda: walk()._replace(params={"level": "easy"}), "params['level'] is 'easy'"),
    "an object as params": (lambda: walk()._replace(params=object()), "must be an array or a number"),
    "an object array in params": (
        lambda: walk()._replace(params=[np.array([None])]),
        "params[0] is of type numpy.ndarray",
    ),
    "no space": (lambda: walk()._replace(action_space=3), "action_space is 3, must be one of jaxrl.spaces"),
    "a dict as a space": (lambda: walk()._replace(observation_space={}), "observation_space is of type dict"),
    "a part that is no space": (
        lambda: walk()._replace(action_space=spaces.Tuple((spaces.Discrete(2), 5))),
        "action_space[1] is 5",
    ),
    "an array in a space": (
        lambda: walk()._replace(action_space=spaces.Discrete(jnp.int32(3))),
        "action_space cannot be hashed",
    ),
    "bounds the wrong way": (lambda: box(1.0, -1.0, (2,)), "must be low <= high"),
    "bounds of another shape": (lambda: box((0.0, 0.0, 0.0), 1.0, (2,)), "must be numbers or have the shape (2,)"),
    # tracing
    "a branch in reset": (
        lambda: after_reset(lambda key, s, o: (s, o) if s.position > 0 else (s, -o)),
        "reset cannot be traced: it branches in Python",
    ),
    "a branch in step": (python_branch, "step cannot be traced: it branches in Python"),
    "float() of an array": (python_number, "step cannot be traced: it needs a traced value as a Python or numpy"),
    "numpy on a traced array": (numpy_inside, "step cannot be traced: it needs a traced value as a Python or numpy"),
    "a bool mask as an index": (bool_index, "step cannot be traced: it indexes with a traced bool mask"),
    "a size from params": (size_from_params, "reset cannot be traced: it makes an array whose size is a traced value"),
    "a plain error": (lambda: timestep(reward=lambda ts: {}["speed"]), "it raises KeyError: 'speed'"),
    "an action that step cannot take": (
        lambda: walk()._replace(action_space=spaces.Tuple((spaces.Discrete(3), spaces.Discrete(3)))),
        "step cannot be traced: it raises TypeError",
    ),
    "a callback without vmap": (not_vmappable, "step cannot be vmapped: it raises NotImplementedError"),
    "a traced value in a list": (leaked_tracer, "step cannot be traced twice: it keeps a traced value in a global"),
    "a counter outside": (counts_calls, "step is not a function of its arguments"),
    "numpy.random in step": (lambda: reward_from(np.random.uniform), "step is not a function of its arguments"),
    "numpy.random in reset": (
        lambda: after_reset(lambda key, s, o: (s, o * np.random.uniform(size=2).astype("float32"))),
        "reset is not a function of its arguments",
    ),
    "random numbers of the host": (host_state, "two results for the same key"),
    # what is returned
    "reset returns the state alone": (lambda: after_reset(lambda key, s, o: s), "reset returns one value of type"),
    "reset returns three": (lambda: after_reset(lambda key, s, o: (s, o, {})), "reset returns 3 values"),
    "observation, state": (swapped_reset, "reset returns observation, state"),
    "gymnax's step": (
        lambda: after_step(lambda key, s, ts: (ts.observation, s, ts.reward, ts.terminated, {})),
        "step returns 5 values, must return 2: state, TimeStep",
    ),
    "step returns the time step alone": (lambda: after_step(lambda key, s, ts: ts), "step returns one value of type"),
    "a tuple for a TimeStep": (lambda: after_step(lambda key, s, ts: (s, tuple(ts))), "must return state, TimeStep"),
    "observation of another shape": (
        lambda: timestep(observation=lambda ts: ts.observation[:1]),
        "step: observation has shape (1,), its space says (2,)",
    ),
    "reset with another shape": (
        lambda: after_reset(lambda key, s, o: (s, o[None])),
        "reset: observation has shape (1, 2), its space says (2,)",
    ),
    "observation of another dtype": (
        lambda: timestep(observation=lambda ts: ts.observation.astype(jnp.float16)),
        "step: observation is float16, its space says float32",
    ),
    "integers for floats": (
        lambda: after_reset(lambda key, s, o: (s, jnp.zeros(2, int))),
        "reset: observation is int32, its space says float32",
    ),
    "observation without its dict": (
        lambda: walk()._replace(observation_space=spaces.Dict({"x": spaces.Box(-1, 1, (2,))})),
        "its space is a Dict of ['x']",
    ),
    "a dict for an array": (
        lambda: timestep(observation=lambda ts: {"x": ts.observation}),
        "step: observation is of type dict, must be one array",
    ),
    "observation without its tuple": (
        lambda: walk()._replace(observation_space=spaces.Tuple((spaces.Box(-1, 1), spaces.Box(-1, 1)))),
        "its space is a Tuple of 2",
    ),
    "reward of shape (1,)": (lambda: timestep(reward=lambda ts: ts.reward[None]), "reward has shape (1,)"),
    "reward as a matrix": (lambda: timestep(reward=jnp.zeros((2, 2))), "reward has shape (2, 2)"),
    "integer reward": (lambda: timestep(reward=lambda ts: ts.reward.astype(int)), "reward is int32, must be float32"),
    "no reward": (lambda: timestep(reward=None), "reward is None"),
    "float terminated": (
        lambda: timestep(terminated=lambda ts: ts.terminated.astype(jnp.float32)),
        "terminated is float32, must be bool",
    ),
    "integer truncated": (lambda: timestep(truncated=0), "truncated is int32, must be bool"),
    "no truncated": (lambda: timestep(truncated=None), "truncated is None, must be a bool array"),
    "terminated of shape (1,)": (
        lambda: timestep(terminated=lambda ts: ts.terminated[None]),
        "terminated has shape (1,), must have the shape of the reward",
    ),
    "ends of one agent of two": (
        lambda: timestep(reward=jnp.zeros(2)),
        "truncated has shape (), must have the shape of the reward, (2,)",
    ),
    "extras that are no dict": (lambda: timestep(extras=lambda ts: (ts.reward,)), "extras is of type tuple"),
    "extras with an agent's name": (
        lambda: timestep(extras=lambda ts: {"value": ts.reward}),
        "extras has 'value', which agents record",
    ),
    "a weight of another shape": (lambda: timestep(extras={"weight": jnp.ones(3)}), "extras['weight'] has shape (3,)"),
    "a string in extras": (lambda: timestep(extras={"task": "walk"}), "step cannot be traced: it raises TypeError"),
    # the state
    "state of another structure": (
        lambda: after_step(lambda key, s, ts: (s._asdict(), ts), lambda s: State(*s)),
        "state has another structure than after reset",
    ),
    "a part more after a step": (
        lambda: after_step(lambda key, s, ts: ((s, ts.reward), ts), lambda s: State(*jax.tree.leaves(s)[:2])),
        "state has another structure than after reset",
    ),
    "state of another dtype": (
        lambda: after_step(lambda key, s, ts: (s._replace(time=s.time * 1.0), ts)),
        "state.time is float32, after reset int32",
    ),
    "state of another shape": (
        lambda: after_step(lambda key, s, ts: (s._replace(position=s.position[None]), ts)),
        "state.position has shape (1,), after reset ()",
    ),
    "a Python number in the first state": (
        lambda: after_reset(lambda key, s, o: (s._replace(position=0.0), o)),
        "state.position is strongly typed, after reset weakly typed",
    ),
    # keys
    "reset uses its key twice": (
        lambda: after_reset(lambda key, s, o: (s._replace(position=jax.random.uniform(key)), o)),
        "reset uses a key twice",
    ),
    "step uses its key twice": (step_key_twice, "step uses a key twice"),
    "the key of the reset is kept and used": (
        lambda: extended(
            lambda key: key,
            lambda _, kept, ts: (kept, ts._replace(reward=ts.reward + jax.random.normal(kept))),
        ),
        "a key that was used before stays in the state",
    ),
    # values
    "NaN in an observation": (
        lambda: timestep(observation=lambda ts: jnp.sqrt(ts.observation)),
        "step: observation[0] is nan",
    ),
    "infinity in an observation": (
        lambda: timestep(observation=lambda ts: ts.observation / (ts.observation[1] != 0.5)),
        "at step 6 of an episode, must be finite",
    ),
    "NaN in the first observation": (
        lambda: after_reset(lambda key, s, o: (s, o.at[1].set(jnp.nan))),
        "reset: observation[1] is nan, must be finite",
    ),
    "NaN reward at the end": (
        lambda: timestep(reward=lambda ts: jnp.where(ts.terminated, jnp.nan, 0.0)),
        "of an episode, must be finite",
    ),
    "an observation outside its space": (
        lambda: box(-1.0, (1.0, 0.5), (2,)),
        "at step 7 of an episode, outside its space [-1.0, 0.5]",
    ),
    "a first observation outside its space": (
        lambda: box((-1.0, 0.5), 2.0, (2,)),
        "reset: observation[1] is 0.0, outside its space [0.5, 2.0]",
    ),
    "a discrete observation outside its space": (
        lambda: after_reset(lambda key, s, o: (s, s.time + 4))._replace(
            observation_space=spaces.Discrete(4),
            step=timestep(observation=jnp.int32(0)).step,
        ),
        "reset: observation is 4, outside its space [0, 3]",
    ),
    # steps that reset by themselves
    "auto-reset": (lambda: auto_reset(walk()), "step returns the state of a reset"),
    "auto-reset of the state alone": (lambda: auto_reset(walk(), observation_too=False), "the state of a reset"),
    "auto-reset to one start": (lambda: auto_reset(fixed_start(walk())), "step returns the state of a reset"),
    "auto-reset without a clock": (lambda: auto_reset(without_clock(walk())), "step returns the state of a reset"),
    "auto-reset to the cached first state": (
        lambda: first_state_cached(walk()._replace(params=Params(jnp.float32(40.0)))),
        "step returns the observation of a reset",
    ),
}
