"""Bit flipping: the smallest task that needs hindsight, as almost no episode of random play ever sees a reward."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.types import Array, Env, PyTree, TimeStep


class BitFlipParams(NamedTuple):
    max_steps: Array  # [] int32


class BitFlipState(NamedTuple):
    bits: Array  # [num_bits] float32, 0 or 1
    goal: Array  # [num_bits]
    time: Array  # [] int32


def bit_flip(num_bits: int = 10, max_steps: int | None = None) -> Env:
    """Flip one of `num_bits` bits a step until they equal the goal (Andrychowicz et al. 2017, section 3.1,
    https://arxiv.org/abs/1707.01495).

    Observations are dicts with "achieved_goal" (the bits) and "desired_goal", [num_bits] float32 each. A step that
    reaches the goal pays 0 and terminates, every other one pays -1; an episode is truncated after `max_steps`.

    Args:
      max_steps: `Env.params`; None: num_bits, which is always enough.

    Raises:
      ValueError: if num_bits or max_steps is < 1.
    """
    max_steps = num_bits if max_steps is None else max_steps
    for name, value in (("num_bits", num_bits), ("max_steps", max_steps)):
        if value < 1:
            raise ValueError(f"bit_flip: {name} is {value}, must be >= 1")

    def observe(state: BitFlipState) -> dict[str, Array]:
        return {"achieved_goal": state.bits, "desired_goal": state.goal}

    def reset(key: Array, params: BitFlipParams):
        del params
        bits, goal = jax.random.bernoulli(key, 0.5, (2, num_bits)).astype(jnp.float32)
        state = BitFlipState(bits, goal, jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: BitFlipState, action: Array, params: BitFlipParams):
        del key
        flip = jax.nn.one_hot(action, num_bits)
        state = state._replace(bits=jnp.abs(state.bits - flip), time=state.time + 1)
        reward, terminated = goal_reward(state.bits, state.goal)
        truncated = ~terminated & (state.time >= params.max_steps)
        return state, TimeStep(observe(state), reward, terminated, truncated)

    bits = spaces.Box(0.0, 1.0, (num_bits,))
    space = spaces.Dict({"achieved_goal": bits, "desired_goal": bits})
    return Env(reset, step, BitFlipParams(jnp.int32(max_steps)), space, spaces.Discrete(num_bits))


def goal_reward(achieved: PyTree, desired: PyTree) -> tuple[Array, Array]:
    """reward, terminated of a step that reached `achieved` [..., num_bits] when `desired` was wanted."""
    reached = jnp.all(achieved == desired, axis=-1)
    return reached.astype(jnp.float32) - 1.0, reached
