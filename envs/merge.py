"""Two cars merge into one lane, and a crash is costly: the traffic of risk averse agents.

After the driving task of Slumbers et al. 2023 (https://arxiv.org/abs/2205.15434), where risk aversion prevents crashes
that an equilibrium of expected rewards accepts. Road, dynamics and numbers are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.types import Array, Env, TimeStep

START, JOIN, END = -30.0, 0.0, 20.0  # m, along either lane; from JOIN on they are one
CAR = 5.0  # m, its length
MAX_SPEED = 15.0  # m/s
DT = 0.25  # s
_SPEED = 8.0  # m/s, at the start, give or take 1
_SPACE = 4.0  # m, how much further ahead or behind a car may start
_SIDE = 2.5  # m, from the middle of the road to a lane, before the lanes come together


class Merge2Params(NamedTuple):
    crash: Array  # [] reward of a crash, for both
    time_cost: Array  # [] what a step on the road costs
    acceleration: Array  # [] m/s^2, of an action; braking is twice as strong
    noise: Array  # [] m/s^2, standard deviation of what is added to it
    max_steps: Array  # [] int32


class Merge2State(NamedTuple):
    position: Array  # [2] m, of the front; END where a car has left the road
    speed: Array  # [2] m/s, in [0, MAX_SPEED]
    crashed: Array  # [] bool
    time: Array  # [] int32


def merge2(
    *,
    crash: float = -2.0,
    time_cost: float = 0.02,
    acceleration: float = 3.0,
    noise: float = 1.0,
    max_steps: int = 80,
) -> Env:
    """Two cars drive from their ramps over the join to the end of the road; three actions (brake, keep, speed up).

    A car's reward in a step is the share of its way of 50 m that it drove, less `time_cost`; `crash` for both where
    they crash, that is where both are beyond the join (less a car's length) and less than a car's length apart. Then
    the episode terminates for both; a car that reaches the end is out, and the other drives on. Against a car
    that keeps its speed, racing ahead is worth a little more on average than letting it go first, and ends in a crash
    in one of 16 drives, because of the noise, against one in 200: a heavy tail.

    Cars start 30 m before the join, give or take 4 m, at 8 m/s, give or take 1. Within a step of 0.25 s a car keeps
    the mean of its old and new speed. An observation [7]: its own position (from -1 at the start to 1 at the end) and
    speed (of MAX_SPEED), those of the other, how far it is ahead of the other in units of 10 m, whether the other is on
    the road, and the share of time that passed. Extras: "crash" [2], 1 in the step of a crash, else 0.

    Args:
      crash, time_cost, acceleration, noise, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if crash > 0, time_cost or noise < 0, acceleration <= 0, or max_steps < 1.
    """
    parts.require(crash, lambda x: x <= 0, "merge2: crash", "must be <= 0")
    parts.require(time_cost, lambda x: x >= 0, "merge2: time_cost", "must be >= 0")
    parts.require(acceleration, lambda x: x > 0, "merge2: acceleration", "must be > 0")
    parts.require(noise, lambda x: x >= 0, "merge2: noise", "must be >= 0")
    parts.require(max_steps, lambda x: x >= 1, "merge2: max_steps", "must be >= 1")

    def observe(state: Merge2State, params: Merge2Params) -> Array:
        place = (state.position - START) / (END - START) * 2.0 - 1.0
        speed = state.speed / MAX_SPEED
        ahead = (state.position - state.position[::-1]) / 10.0
        there = (state.position < END).astype(jnp.float32)[::-1]
        passed = jnp.broadcast_to(state.time / params.max_steps, (2,))
        return jnp.stack([place, speed, place[::-1], speed[::-1], ahead, there, passed], 1)

    def reset(key: Array, params: Merge2Params):
        position, speed = jax.random.uniform(key, (2, 2), minval=-1.0, maxval=1.0)
        state = Merge2State(START + _SPACE * position, _SPEED + speed, jnp.bool_(False), jnp.int32(0))
        return state, observe(state, params)

    def step(key: Array, state: Merge2State, action: Array, params: Merge2Params):
        gone = state.position >= END
        push = params.acceleration * jnp.where(action == 0, -2.0, action - 1.0)
        push += params.noise * jax.random.normal(key, (2,))
        speed = jnp.clip(state.speed + push * DT, 0.0, MAX_SPEED)
        position = jnp.minimum(state.position + (state.speed + speed) / 2.0 * DT, END)
        moves = ~(gone | state.crashed)
        position, speed = jnp.where(moves, position, state.position), jnp.where(moves, speed, state.speed)
        joined = jnp.all((position > JOIN - CAR) & (position < END))
        hit = joined & (jnp.abs(position[0] - position[1]) < CAR) & ~state.crashed
        reward = jnp.where(moves, (position - state.position) / (END - START) - params.time_cost, 0.0)
        reward += jnp.where(hit, params.crash, 0.0)
        state = Merge2State(position, speed, state.crashed | hit, state.time + 1)
        terminated = state.crashed | (position >= END)
        truncated = ~terminated & (state.time >= params.max_steps)
        extras = {"crash": jnp.broadcast_to(hit.astype(jnp.float32), (2,))}
        return state, TimeStep(observe(state, params), reward, terminated, truncated, extras)

    def render(state: Merge2State, params: Merge2Params) -> Array:
        """A meter is 8 pixels; cars are drawn at their middle, and dark after a crash."""
        del params
        scale, rows, columns = 8, 12, int(END - START) + 10
        across = np.arange(columns) + 0.5 + START - 5
        lane = np.where(across < JOIN - CAR, _SIDE, np.clip(JOIN - across, 0, CAR) * _SIDE / CAR)
        down = np.arange(rows)[:, None] + 0.5 - rows / 2
        off = np.minimum(np.abs(down - lane), np.abs(down + lane)) > 1.5
        picture = pictures.board(off, scale)
        for i, side in enumerate((-1.0, 1.0)):
            middle = state.position[i] - CAR / 2
            beside = side * _SIDE * jnp.clip((JOIN - middle) / CAR, 0.0, 1.0)
            center = jnp.stack([rows / 2 + beside, middle - START + 5])
            color = jnp.where(state.crashed, jnp.uint8([20] * 3), jnp.uint8((pictures.AGENT, pictures.GOAL)[i]))
            picture = pictures.disc(picture, center, 1.2, color, scale)
        return picture

    numbers = (jnp.float32(x) for x in (crash, time_cost, acceleration, noise))
    params = Merge2Params(*numbers, jnp.int32(max_steps))
    far = (END - START + 2 * _SPACE) / 10.0
    edge = 1.0 + 2.0 * _SPACE / (END - START)
    space = spaces.Box((-edge, 0.0, -edge, 0.0, -far, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0, far, 1.0, 1.0), (7,))
    return Env(reset, step, params, spaces.Repeated(space, 2), spaces.Repeated(spaces.Discrete(3), 2), render)
