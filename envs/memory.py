"""Tasks that need memory: a recurrent policy reaches a return of 1, no feed-forward policy more than 0 on average.

`memory_chain` asks for recall alone; in `t_maze` the agent must also walk to where its memory pays.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.types import Array, Env, TimeStep


class ChainParams(NamedTuple):
    length: Array  # [] int32, steps in an episode
    distraction: Array  # [] probability that a step between the first and the last shows a random symbol


class ChainState(NamedTuple):
    cue: Array  # [] int32
    time: Array  # [] int32


def memory_chain(length: int = 10, num_cues: int = 2, *, distraction: float = 0.0) -> Env:
    """Name, in the last of `length` steps, the symbol that the first observation showed.

    Observations [num_cues + 2] are a one-hot symbol (or zeros), a flag for the first step (the symbol is the cue) and
    one for the last (the action counts). In between, a random symbol distracts with probability `distraction`.
    The last action pays 1 if it names the cue and -1 / (num_cues - 1) if not, all others pay 0; then termination.
    After bsuite's memory length experiment (Osband et al. 2020, https://arxiv.org/abs/1908.03568).

    Args:
      length, distraction: `Env.params`: traced, so that a curriculum may lengthen the chain.
      num_cues: how many symbols and actions there are.

    Raises:
      ValueError: length < 2, num_cues < 2, or distraction outside [0, 1].
    """
    if length < 2:
        raise ValueError(f"memory_chain: length is {length}, must be >= 2")
    if num_cues < 2:
        raise ValueError(f"memory_chain: num_cues is {num_cues}, must be >= 2")
    if not 0.0 <= distraction <= 1.0:
        raise ValueError(f"memory_chain: distraction is {distraction}, must be in [0, 1]")

    def observe(symbol, time, params):
        flags = jnp.stack([time == 0, time == params.length - 1])
        return jnp.concatenate([jax.nn.one_hot(symbol, num_cues), flags.astype(jnp.float32)])

    def reset(key, params):
        state = ChainState(jax.random.randint(key, (), 0, num_cues), jnp.int32(0))
        return state, observe(state.cue, state.time, params)

    def step(key, state, action, params):
        show_key, symbol_key = jax.random.split(key)
        last = state.time >= params.length - 1
        reward = jnp.float32(jnp.where(last, jnp.where(action == state.cue, 1.0, -1.0 / (num_cues - 1)), 0.0))
        state = state._replace(time=state.time + 1)
        shown = jax.random.bernoulli(show_key, params.distraction) & (state.time < params.length - 1)
        symbol = jnp.where(shown, jax.random.randint(symbol_key, (), 0, num_cues), -1)  # -1 is all zeros
        return state, TimeStep(observe(symbol, state.time, params), reward, last, jnp.bool_(False))

    params = ChainParams(jnp.int32(length), jnp.float32(distraction))
    return Env(reset, step, params, spaces.Box(0.0, 1.0, (num_cues + 2,)), spaces.Discrete(num_cues))


class MazeParams(NamedTuple):
    length: Array  # [] int32, cells from the start to the junction
    max_steps: Array  # [] int32


class MazeState(NamedTuple):
    cue: Array  # [] int32, 0: turn left pays, 1: turn right pays
    position: Array  # [] int32
    time: Array  # [] int32


def t_maze(length: int = 10, max_steps: int | None = None) -> Env:
    """Walk down a corridor and turn, at its end, to the side that the first observation showed.

    Actions: 0 forward, 1 back, 2 left, 3 right; a turn before the junction does nothing. Observations [4] are the cue
    as one-hot [left, right] (zeros after the reset, at the start cell too), a flag for the start cell and one for the
    junction. The right turn pays 1, the wrong one -1, and either terminates; so does the clock, which pays -1, as
    otherwise a policy without memory gains from standing still. (Bakker 2001,
    https://papers.nips.cc/paper/1953-reinforcement-learning-with-long-short-term-memory)

    Args:
      length, max_steps: `Env.params`, traced. `max_steps` None: 4 * length.

    Raises:
      ValueError: length < 1, or max_steps <= length (the junction is out of reach).
    """
    max_steps = 4 * length if max_steps is None else max_steps
    if length < 1:
        raise ValueError(f"t_maze: length is {length}, must be >= 1")
    if max_steps <= length:
        raise ValueError(f"t_maze: max_steps is {max_steps}, must be > length = {length}")

    def observe(state, params):
        cue = jnp.where(state.time == 0, jax.nn.one_hot(state.cue, 2), 0.0)
        flags = jnp.stack([state.position == 0, state.position == params.length])
        return jnp.concatenate([cue, flags.astype(jnp.float32)])

    def reset(key, params):
        state = MazeState(jax.random.randint(key, (), 0, 2), jnp.int32(0), jnp.int32(0))
        return state, observe(state, params)

    def step(key, state, action, params):
        turns = (action >= 2) & (state.position == params.length)
        move = jnp.where(action == 0, 1, jnp.where(action == 1, -1, 0))
        position = jnp.clip(state.position + move, 0, params.length)
        state = MazeState(state.cue, position, state.time + 1)
        late = state.time >= params.max_steps
        right = turns & (action - 2 == state.cue)
        reward = right.astype(jnp.float32) - (~right & (turns | late))
        return state, TimeStep(observe(state, params), reward, turns | late, jnp.bool_(False))

    params = MazeParams(jnp.int32(length), jnp.int32(max_steps))
    return Env(reset, step, params, spaces.Box(0.0, 1.0, (4,)), spaces.Discrete(4))
