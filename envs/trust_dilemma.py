"""A stag hunt on a grid, again and again (Peysakhovich and Lerer 2018, https://arxiv.org/abs/1709.02865).

The trust dilemma in which risk averse agents settle on the safe prey (Slumbers et al. 2023,
https://arxiv.org/abs/2205.15434). Rules and numbers are those of a public version, Gym-Stag-Hunt
(https://github.com/NullDefault/Gym-Stag-Hunt); where it breaks ties one way, they are broken at random here.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.types import Array, Env, TimeStep

_PLANT, _STAG = (60, 160, 75), (140, 90, 50)


class TrustDilemmaParams(NamedTuple):
    stag: Array  # [] reward of both where they are on the stag together
    mauled: Array  # [] reward of who is there alone
    plant: Array  # [] reward of who is on a plant
    chase: Array  # [] probability that the stag goes to the nearest agent in a step, else anywhere
    flees: Array  # [] bool, the stag appears elsewhere after it mauled an agent
    max_steps: Array  # [] int32


class TrustDilemmaState(NamedTuple):
    agents: Array  # [2] int32, cells, row * size + column
    stag: Array  # [] int32
    plants: Array  # [K] int32
    time: Array  # [] int32


def trust_dilemma(
    size: int = 5,
    *,
    num_plants: int = 2,
    stag: float = 5.0,
    mauled: float = -5.0,
    plant: float = 1.0,
    chase: float = 1.0,
    flees: bool = False,
    max_steps: int = 100,
) -> Env:
    """Two agents on a square grid hunt a stag together, or gather plants alone; four moves (up, down, left, right).

    In a step the stag moves first, one cell: toward the nearest agent, along either axis that brings it nearer; one way
    or another where it stands on that agent. Then the agents move; walls stop all. Both on the stag catch it, `stag`
    for each, and it appears elsewhere. One alone on it is mauled. Who is not on the stag but on a plant gets `plant`,
    and the plant grows elsewhere: both are put where nothing is. Agents start in the upper corners, the stag in the
    middle. Nothing terminates; the clock truncates.

    Meeting at the stag or at plants is the stag hunt [[5, -5], [1, 1]]: plants are risk dominant. The observation
    [4 size^2] is four maps of the grid: the own cell, the other's, the stag's, those of plants.

    Args:
      size: of a side in cells, >= 3.
      num_plants: K, from 1 to size^2 - 4, so that there is always a free cell.
      stag, mauled, plant, chase, flees, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if size or num_plants is out of range, unless stag > plant > mauled, chase is outside of [0, 1], or
        max_steps < 1.
    """
    parts.require(size, lambda x: x >= 3, "trust_dilemma: size", "must be >= 3")
    most = size**2 - 4
    parts.require(num_plants, lambda x: 1 <= x <= most, "trust_dilemma: num_plants", f"must be in [1, {most}]")
    if not stag > plant > mauled:
        raise ValueError(f"trust_dilemma: payoffs are {stag}, {plant}, {mauled}, must be stag > plant > mauled")
    parts.require(chase, lambda x: 0 <= x <= 1, "trust_dilemma: chase", "must be in [0, 1]")
    parts.require(max_steps, lambda x: x >= 1, "trust_dilemma: max_steps", "must be >= 1")
    cells = jnp.arange(size**2)

    def covered(places: Array) -> Array:
        """[cells] bool: whether one of `places` [K] is there."""
        return jnp.any(cells == places[:, None], 0)

    def observe(state: TrustDilemmaState) -> Array:
        own, other = (cells == x[:, None] for x in (state.agents, state.agents[::-1]))
        shared = (jnp.broadcast_to(x, own.shape) for x in (cells == state.stag, covered(state.plants)))
        return jnp.concatenate([own, other, *shared], 1).astype(jnp.float32)

    def free(draw: Array, taken: Array) -> Array:
        """A cell out of those that are not `taken` [cells] bool, by one number from [0, 1)."""
        count = jnp.cumsum(~taken)
        return jnp.sum(count <= jnp.floor(draw * count[-1])).astype(jnp.int32)

    def shift(move: Array) -> Array:
        """[..., 2], rows and columns of up, down, left, right; no table to look them up in."""
        ups, downs, lefts, rights = ((move == i).astype(jnp.int32) for i in range(4))
        return jnp.stack([downs - ups, rights - lefts], -1)

    def walk(cell: Array, move: Array) -> Array:
        """The cell after a move [2], within walls."""
        row = jnp.clip(cell // size + move[..., 0], 0, size - 1)
        return row * size + jnp.clip(cell % size + move[..., 1], 0, size - 1)

    def reset(key: Array, params: TrustDilemmaParams):
        del params
        draws = jax.random.uniform(key, (num_plants,))
        agents, stag = jnp.int32([0, size - 1]), jnp.int32((size // 2) * (size + 1))
        taken, plants = covered(jnp.append(agents, stag)), []
        for draw in draws:
            plants.append(free(draw, taken))
            taken |= cells == plants[-1]
        state = TrustDilemmaState(agents, stag, jnp.stack(plants), jnp.int32(0))
        return state, observe(state)

    def hunt(draws: Array, state: TrustDilemmaState, params: TrustDilemmaParams) -> Array:
        """Where the stag goes, by three numbers from [0, 1)."""
        rows, columns = state.agents // size - state.stag // size, state.agents % size - state.stag % size
        far = rows**2 + columns**2
        second = (far[1] < far[0]) | ((far[1] == far[0]) & (draws[0] < 0.5))
        row, column = (jnp.where(second, x[1], x[0]) for x in (rows, columns))
        down = (column == 0) | ((row != 0) & (draws[1] < 0.5))
        nearer = jnp.where(down, jnp.stack([jnp.sign(row), 0]), jnp.stack([0, jnp.sign(column)]))
        lost = ((row == 0) & (column == 0)) | (draws[2] >= params.chase)
        anywhere = shift((draws[1] * 4).astype(jnp.int32))
        return walk(state.stag, jnp.where(lost, anywhere, nearer))

    def step(key: Array, state: TrustDilemmaState, action: Array, params: TrustDilemmaParams):
        draws = jax.random.uniform(key, (4 + num_plants,))
        stag, agents = hunt(draws, state, params), walk(state.agents, shift(action))
        there = agents == stag
        on = (agents[:, None] == state.plants) & ~there[:, None]  # [2, K]
        reward = jnp.where(there, jnp.where(jnp.all(there), params.stag, params.mauled), 0.0)
        reward += jnp.where(jnp.any(on, 1), params.plant, 0.0)
        taken = covered(jnp.concatenate([agents, stag[None], state.plants]))
        leaves = jnp.all(there) | (jnp.any(there) & params.flees)
        stag = jnp.where(leaves, free(draws[3], taken), stag)
        taken |= cells == stag
        plants = []
        for i, draw in enumerate(draws[4:]):
            plants.append(jnp.where(jnp.any(on[:, i]), free(draw, taken), state.plants[i]))
            taken |= cells == plants[i]
        state = TrustDilemmaState(agents, stag, jnp.stack(plants), state.time + 1)
        truncated = jnp.broadcast_to(state.time >= params.max_steps, (2,))
        return state, TimeStep(observe(state), reward, jnp.zeros(2, bool), truncated)

    def render(state: TrustDilemmaState, params: TrustDilemmaParams) -> Array:
        """Plants green, the stag brown, the agents small on top: blue and red."""
        del params
        picture = pictures.board(np.zeros((size, size), bool))
        colors = [_PLANT] * num_plants + [_STAG, pictures.AGENT, pictures.GOAL]
        radii = [0.25] * num_plants + [0.45, 0.3, 0.2]
        places = [*state.plants, state.stag, *state.agents]
        for place, radius, color in zip(places, radii, colors):
            picture = pictures.disc(picture, jnp.stack([place // size, place % size]) + 0.5, radius, color)
        return picture

    numbers = (jnp.float32(x) for x in (stag, mauled, plant, chase))
    params = TrustDilemmaParams(*numbers, jnp.bool_(flees), jnp.int32(max_steps))
    space = spaces.Repeated(spaces.Box(0.0, 1.0, (4 * size**2,)), 2)
    return Env(reset, step, params, space, spaces.Repeated(spaces.Discrete(4), 2), render)
