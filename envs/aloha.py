"""Senders on a grid share a channel: slotted ALOHA, in which neighbours that send at once lose both packets.

After the task of Chen and Zhang 2023 (https://arxiv.org/abs/2306.01920) and its rewards in
https://github.com/dchen48/BNPG; here neighbours are exactly those on the grid, and who has no packet is silent. Good
joint actions are those of a random independent set, which agents that act apart can only agree on once and for all.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.types import Array, Env, TimeStep

WAIT, SEND = 0, 1


class AlohaParams(NamedTuple):
    arrival: Array  # [] probability of a new packet for each sender, in a step
    success: Array  # [] reward of a packet that arrives
    collision: Array  # [] reward of a packet that does not
    max_steps: Array  # [] int32


class AlohaState(NamedTuple):
    backlog: Array  # [A] int32, packets that wait
    sent: Array  # [A] int32: 1 where a packet has just arrived, -1 where it has collided, else 0
    time: Array  # [] int32


def aloha(
    *,
    rows: int = 2,
    columns: int = 5,
    max_backlog: int = 5,
    arrival: float = 0.6,
    success: float = 0.1,
    collision: float = -10.0,
    max_steps: int = 25,
) -> Env:
    """Each of rows * columns senders waits (0) or sends a packet of its backlog (1).

    A packet arrives where no neighbour on the grid (above, below, beside) sends in the same step: `success`, and the
    backlog is one less; else it stays, and costs `collision`. Who has none sends nothing. The reward is the sum over
    all senders, the same for all. Then each gets a new packet with probability `arrival`, up to `max_backlog`. All
    start with one. An observation [1] is the share of its own backlog.

    Args:
      arrival, success, collision, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if rows, columns, max_backlog or max_steps is < 1, there is one sender, or arrival is not in [0, 1].
    """
    for name, value in (("rows", rows), ("columns", columns), ("max_backlog", max_backlog), ("max_steps", max_steps)):
        parts.require(value, lambda x: x >= 1, f"aloha: {name}", "must be >= 1")
    parts.require(rows * columns, lambda x: x >= 2, "aloha: rows * columns", "must be >= 2")
    parts.require(arrival, lambda x: 0 <= x <= 1, "aloha: arrival", "must be in [0, 1]")
    num = rows * columns
    place = np.stack(np.divmod(np.arange(num), columns), 1)
    beside = (np.abs(place[:, None] - place).sum(-1) == 1).astype(np.int32)  # [A, A]

    def observe(state: AlohaState) -> Array:
        return (state.backlog / max_backlog)[:, None].astype(jnp.float32)

    def reset(key: Array, params: AlohaParams):
        del key, params
        state = AlohaState(jnp.ones(num, jnp.int32), jnp.zeros(num, jnp.int32), jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: AlohaState, action: Array, params: AlohaParams):
        sends = (action == SEND) & (state.backlog > 0)
        lost = sends & (beside @ sends.astype(jnp.int32) > 0)
        arrived = sends & ~lost
        reward = params.success * jnp.sum(arrived) + params.collision * jnp.sum(lost)
        new = jax.random.bernoulli(key, params.arrival, (num,))
        backlog = jnp.minimum(state.backlog - arrived + new, max_backlog)
        state = AlohaState(backlog, arrived.astype(jnp.int32) - lost, state.time + 1)
        late = jnp.broadcast_to(state.time >= params.max_steps, (num,))
        step = TimeStep(observe(state), jnp.broadcast_to(reward, (num,)), jnp.zeros(num, bool), late)
        return state, step

    def render(state: AlohaState, params: AlohaParams) -> Array:
        """A disc a sender, larger with its backlog; green where a packet has just arrived, red where it was lost."""
        del params
        picture = pictures.board(np.zeros((rows, columns), bool))
        colors = jnp.uint8([[90, 90, 90], pictures.GOAL, [200, 40, 40]])
        for i in range(num):
            radius = 0.1 + 0.35 * state.backlog[i] / max_backlog
            picture = pictures.disc(picture, place[i] + 0.5, radius, colors[state.sent[i]])
        return picture

    numbers = (jnp.float32(x) for x in (arrival, success, collision))
    params = AlohaParams(*numbers, jnp.int32(max_steps))
    space = spaces.Box(0.0, 1.0, (1,))
    return Env(reset, step, params, spaces.Repeated(space, num), spaces.Repeated(spaces.Discrete(2), num), render)
