"""A corridor with a key at one end and a door at the other: how far a learner of one level explores, by its length."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.types import Array, Env, TimeStep


class KeyDoorParams(NamedTuple):
    length: Array  # [] int32, cells; the key lies in the first, the door is in the last
    slip: Array  # [] probability that a step's move is drawn at random instead
    max_steps: Array  # [] int32


class KeyDoorState(NamedTuple):
    position: Array  # [] float32, in [0, length - 1]
    has_key: Array  # [] bool
    time: Array  # [] int32


def key_door(length: int = 16, *, continuous: bool = False, slip: float = 0.0, max_steps: int | None = None) -> Env:
    """Walk to the key, then to the door. Opening it pays 1 and terminates; nothing else pays anything.

    An episode starts in the middle. The key is picked up within half a cell, and the door opens within half a cell for
    those who have it: so the shortest way has about 3/2 length steps, while a random walk needs about length ** 2.
    Observations [3]: the position, from -1 (key) to 1 (door); 1 with the key, else 0; cells to the nearer end, up to
    1, with the sign of that end (0 in between), so that a network sees the last step in a corridor of any length.

    Args:
      length, slip, max_steps: `Env.params`, traced: a curriculum may lengthen the corridor. `max_steps` None:
        4 * length.
      continuous: actions [1] in [-1, 1] are moves in cells; else two actions, a cell to the left or to the right.

    Raises:
      ValueError: if length < 3, slip is outside of [0, 1], or max_steps < 1.
    """
    max_steps = 4 * length if max_steps is None else max_steps
    parts.require(length, lambda x: x >= 3, "key_door: length", "must be >= 3")
    parts.require(slip, lambda x: 0 <= x <= 1, "key_door: slip", "must be in [0, 1]")
    parts.require(max_steps, lambda x: x >= 1, "key_door: max_steps", "must be >= 1")

    def observe(state: KeyDoorState, params: KeyDoorParams) -> Array:
        last = params.length - 1.0
        left, right = (jnp.clip(1.0 - x, 0.0, 1.0) for x in (state.position, last - state.position))
        return jnp.stack([2.0 * state.position / last - 1.0, state.has_key.astype(jnp.float32), right - left])

    def reset(key: Array, params: KeyDoorParams):
        del key
        middle = jnp.floor((params.length - 1) / 2).astype(jnp.float32)
        state = KeyDoorState(middle, jnp.bool_(False), jnp.int32(0))
        return state, observe(state, params)

    def step(key: Array, state: KeyDoorState, action: Array, params: KeyDoorParams):
        slip_key, move_key = jax.random.split(key)
        if continuous:
            move = jnp.clip(action[0], -1.0, 1.0)
            drawn = jax.random.uniform(move_key, minval=-1.0, maxval=1.0)
        else:
            move = 2.0 * action - 1.0
            drawn = jax.random.rademacher(move_key, (), jnp.float32)
        move = jnp.where(jax.random.uniform(slip_key) < params.slip, drawn, move)
        last = params.length - 1.0
        position = jnp.clip(state.position + move, 0.0, last)
        has_key = state.has_key | (position <= 0.5)
        state = KeyDoorState(position, has_key, state.time + 1)
        terminated = has_key & (position >= last - 0.5)
        reward = terminated.astype(jnp.float32)
        truncated = ~terminated & (state.time >= params.max_steps)
        return state, TimeStep(observe(state, params), reward, terminated, truncated)

    def render(state: KeyDoorState, params: KeyDoorParams) -> Array:
        """Forty cells wide whatever the length: positions are drawn to scale."""
        place = lambda x: jnp.stack([1.5, 1.5 + 37.0 * x / (params.length - 1.0)])  # noqa: E731
        picture = pictures.board(pictures.frame(3, 40))
        picture = pictures.disc(picture, place(params.length - 1.0), 0.5, pictures.GOAL)
        picture = jnp.where(state.has_key, picture, pictures.disc(picture, place(0.0), 0.5, pictures.KEY))
        return pictures.disc(picture, place(state.position), 0.35, pictures.AGENT)

    params = KeyDoorParams(jnp.int32(length), jnp.float32(slip), jnp.int32(max_steps))
    space = spaces.Box((-1.0, 0.0, -1.0), (1.0, 1.0, 1.0), (3,))
    actions = spaces.Box(-1.0, 1.0, (1,)) if continuous else spaces.Discrete(2)
    return Env(reset, step, params, space, actions, render)
