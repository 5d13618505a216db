"""Predators that catch prey in pairs: the task of Boehmer et al. 2020, https://arxiv.org/abs/1910.00091, section 5.1.

It shows relative overgeneralization: where a lone attempt is punished, catching looks bad to whoever learns values of
its own actions alone. The rules are those of https://github.com/wendelinboehmer/dcg (its `rel_overgen` settings).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures, placement, sprites
from jaxrl.types import Array, Env, TimeStep

UP, DOWN, LEFT, RIGHT, STAY, CATCH = range(6)
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (0, 0), (0, 0)])
SLOW = (140, 175, 235)  # the color of a predator whose moves may fail


class PredatorPreyParams(NamedTuple):
    penalty: Array  # [] float32, what a lone attempt costs
    catch_reward: Array  # [] float32
    speeds: Array  # [A] float32, the probability that a predator's move is carried out
    prey_rest: Array  # [] float32, the probability that a prey that could move does not
    max_steps: Array  # [] int32


class PredatorPreyState(NamedTuple):
    predators: Array  # [A] int32, their cells: row * size + column
    prey: Array  # [M] int32
    hunting: Array  # [A] bool, False for predators that have caught
    alive: Array  # [M] bool
    time: Array  # [] int32


def predator_prey(
    *,
    size: int = 10,
    num_predators: int = 8,
    num_prey: int = 8,
    sight: int = 2,
    toroidal: bool = False,
    penalty: float = 2.0,
    catch_reward: float = 10.0,
    speeds: float | tuple[float, ...] = 1.0,
    prey_rest: float = 0.0,
    max_steps: int = 200,
    privileged: bool = False,
) -> Env:
    """Predators walk on a grid, and catch a prey where two or more of those beside it act "catch" at once.

    Six actions: up, down, left, right, stay, catch. In a step predators move one after the other, in a random order,
    each if nothing stands in the cell that it wants; then prey do, in a random order: one is caught if two or more
    predators beside it catch, else it moves to a free cell beside it, each as likely. A catch pays `catch_reward`, and
    who took part is removed with the prey; a single predator that catches beside a prey costs `penalty`. The reward is
    the team's. A predator that is removed is terminated, while the others hunt on; the episode terminates for all when
    no prey or no predator is left, and the clock truncates it.

    Observations {"observation": [2 * (2 * sight + 1) ** 2], "action_mask": [6]} of every predator: the cells around it
    that have predators (itself in the middle), then those that have prey; all 0 once it is removed, when "stay" alone
    is legal. A move is illegal off the grid, catching is where no prey is beside. (In the original a torus has seams:
    nobody catches across them. Here it has none.)

    Args:
      size: rows and columns.
      toroidal: whether who leaves the grid comes back on the other side; the paper's is bounded.
      speeds: of all predators, or of each: the probability that a move is carried out. The original's is 1; a
        handicapped one is what methods that assign credit should find.
      penalty, catch_reward, speeds, prey_rest, max_steps: `Env.params`, traced.
      privileged: observations have "privileged" [2 * size ** 2]: the cells of the grid that have predators, and prey.

    Raises:
      ValueError: if num_predators < 2; num_prey, sight or max_steps < 1; penalty < 0; a speed or prey_rest is outside
        of [0, 1]; speeds are of another number; or the grid is too small for all, or for what is seen of a torus.
    """
    total = num_predators + num_prey
    parts.require(num_predators, lambda x: x >= 2, "predator_prey: num_predators", "must be >= 2")
    for name, value in (("num_prey", num_prey), ("max_steps", max_steps)):
        parts.require(value, lambda x: x >= 1, f"predator_prey: {name}", "must be >= 1")
    parts.require(
        size, lambda x: x >= 3 and x * x >= total, "predator_prey: size", f"must be >= 3, of >= {total} cells"
    )
    window = 2 * sight + 1
    parts.require(sight, lambda x: 1 <= x <= 15, "predator_prey: sight", "must be in [1, 15]")
    if toroidal:
        parts.require(sight, lambda x: window <= size, "predator_prey: sight", f"a torus of size {size} is smaller")
    parts.require(penalty, lambda x: x >= 0, "predator_prey: penalty", "must be >= 0")
    parts.require(prey_rest, lambda x: 0 <= x <= 1, "predator_prey: prey_rest", "must be in [0, 1]")
    if np.ndim(speeds) and len(speeds) != num_predators:
        raise ValueError(f"predator_prey: speeds are {len(speeds)}, must be one, or num_predators = {num_predators}")
    for speed in np.ravel(speeds):
        parts.require(speed, lambda x: 0 <= x <= 1, "predator_prey: speeds has an entry that", "must be in [0, 1]")

    def around(cells: Array) -> tuple[Array, Array]:
        """Where each of `MOVES` leads from cells [...], [..., 6], and whether that is on the grid."""
        rows, columns = cells[..., None] // size + MOVES[:, 0], cells[..., None] % size + MOVES[:, 1]
        if toroidal:
            return rows % size * size + columns % size, jnp.ones(rows.shape, bool)
        return rows * size + columns, (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)

    def offsets(predators: Array, cells: Array) -> tuple[Array, Array]:
        """Rows and columns from each predator to each of K cells, [A, K]."""
        pairs = ((cells // size, predators // size), (cells % size, predators % size))
        away = [there - here[:, None] for there, here in pairs]
        return tuple((x + size // 2) % size - size // 2 if toroidal else x for x in away)

    def observe(state: PredatorPreyState) -> dict:
        down, across = offsets(state.predators, state.prey)
        seen = _seen(*offsets(state.predators, state.predators), state.hunting, sight)
        view = jnp.concatenate([seen, _seen(down, across, state.alive, sight)], 1)
        beside = jnp.any((jnp.abs(down) + jnp.abs(across) == 1) & state.alive, 1)
        legal = around(state.predators)[1] & (beside[:, None] | (np.arange(6) != CATCH))
        observation = {
            "observation": jnp.where(state.hunting[:, None], view, 0).astype(jnp.float32),
            "action_mask": jnp.where(state.hunting[:, None], legal, np.arange(6) == STAY),
        }
        if privileged:
            kinds = ((state.predators, state.hunting), (state.prey, state.alive))
            grid = [
                jnp.any(jnp.where(there, cells, -1)[:, None] == np.arange(size * size), 0) for cells, there in kinds
            ]
            observation["privileged"] = jnp.tile(jnp.concatenate(grid).astype(jnp.float32), (num_predators, 1))
        return observation

    def reset(key: Array, params: PredatorPreyParams):
        del params
        cells = placement.distinct(jax.random.uniform(key, (total,)), size * size)
        hunting, alive = jnp.ones(num_predators, bool), jnp.ones(num_prey, bool)
        state = PredatorPreyState(cells[:num_predators], cells[num_predators:], hunting, alive, jnp.int32(0))
        return state, observe(state)

    def move_predators(state: PredatorPreyState, action: Array, turns: Array, active: Array) -> Array:
        """The predators' cells [A] after their moves; turns [A] is their order, active [A] says who moves at all."""
        goals, on_grid = (jnp.sum(jnp.where(action[:, None] == np.arange(6), x, 0), 1) for x in around(state.predators))

        def one(predators: Array, turn: Array):
            moves = (turns == turn) & active & (on_grid > 0)
            goal = jnp.sum(jnp.where(moves, goals, 0))
            taken = _stands(predators, state.hunting, goal) | _stands(state.prey, state.alive, goal)
            return jnp.where(moves & ~taken, goal, predators), None

        return jax.lax.scan(one, state.predators, jnp.arange(num_predators))[0]

    def move_prey(state: PredatorPreyState, catches: Array, uniform: Array, params: PredatorPreyParams):
        """The state after prey are caught or moved, and the reward; uniform [3, M]: whose turn, whether, where to."""
        turns = placement.ranks(uniform[0])

        def one(carry, turn: Array):
            prey, hunting, alive, reward = carry
            moves = (turns == turn) & alive
            here, rests, choice = (jnp.sum(jnp.where(moves, x, 0)) for x in (prey, *uniform[1:]))
            beside, free = (x[:STAY] for x in around(here))
            by = jnp.any((state.predators[:, None] == beside) & free, 1) & catches & hunting  # [A]
            num = jnp.where(jnp.any(moves), jnp.sum(by), 0)
            caught = num >= 2
            reward = reward + jnp.where(caught, params.catch_reward, 0.0) - jnp.where(num == 1, params.penalty, 0.0)
            free = free & ~_stands(state.predators, hunting, beside) & ~_stands(prey, alive, beside)
            number = jnp.floor(choice * jnp.sum(free)).astype(jnp.int32)
            chosen = free & (jnp.sum(free & np.tri(4, k=-1, dtype=bool), 1) == number)
            goes = moves & ~caught & jnp.any(free) & (rests >= params.prey_rest)
            prey = jnp.where(goes, jnp.sum(jnp.where(chosen, beside, 0)), prey)
            return (prey, hunting & ~(by & caught), alive & ~(moves & caught), reward), None

        carry = (state.prey, state.hunting, state.alive, jnp.float32(0.0))
        (prey, hunting, alive, reward), _ = jax.lax.scan(one, carry, jnp.arange(num_prey))
        return state._replace(prey=prey, hunting=hunting, alive=alive), reward

    def step(key: Array, state: PredatorPreyState, action: Array, params: PredatorPreyParams):
        uniform = jax.random.uniform(key, (2 * num_predators + 3 * num_prey,))
        order, speed, prey = jnp.split(uniform, np.cumsum([num_predators, num_predators]))
        active = state.hunting & (action < STAY) & (speed < params.speeds)
        moved = state._replace(predators=move_predators(state, action, placement.ranks(order), active))
        after, reward = move_prey(moved, action == CATCH, prey.reshape(3, num_prey), params)
        after = after._replace(time=state.time + 1)
        terminated = ~after.hunting | ~jnp.any(after.alive) | ~jnp.any(after.hunting)
        truncated = ~terminated & (after.time >= params.max_steps)
        extras = {"caught": state.hunting & ~after.hunting}
        return after, TimeStep(observe(after), jnp.full(num_predators, reward), terminated, truncated, extras)

    floor = sprites.plain()
    tiles = [sprites.disc(floor, 0.4, color) for color in (pictures.AGENT, SLOW)]
    tiles = np.stack([floor, sprites.wall(), *tiles, sprites.box(floor, pictures.GOAL, 0.2, 0.2, 0.8, 0.8)])

    def render(state: PredatorPreyState, params: PredatorPreyParams) -> Array:
        """Predators are blue discs, pale where their moves may fail; prey are red squares."""
        shown = jnp.zeros(size * size, jnp.int32)
        shown = shown.at[state.prey].max(jnp.where(state.alive, 4, 0))
        shown = shown.at[state.predators].max(jnp.where(state.hunting, jnp.where(params.speeds < 1, 3, 2), 0))
        return sprites.board(tiles, sprites.framed(shown.reshape(size, size), 1))

    numbers = (jnp.float32(penalty), jnp.float32(catch_reward))
    speeds = jnp.broadcast_to(jnp.asarray(speeds, jnp.float32), (num_predators,))
    params = PredatorPreyParams(*numbers, speeds, jnp.float32(prey_rest), jnp.int32(max_steps))
    inner = {
        "observation": spaces.Box(0.0, 1.0, (2 * window**2,)),
        "action_mask": spaces.Box(0, 1, (6,), "bool"),
    }
    if privileged:
        inner["privileged"] = spaces.Box(0.0, 1.0, (2 * size**2,))
    space = spaces.Repeated(spaces.Dict(inner), num_predators)
    return Env(reset, step, params, space, spaces.Repeated(spaces.Discrete(6), num_predators), render)


def _stands(cells: Array, there: Array, where: Array) -> Array:
    """[...] bool: whether one of those that are there [K], in cells [K], is in a cell `where` [...]."""
    return jnp.any((cells == where[..., None]) & there, -1)


def _seen(down: Array, across: Array, there: Array, sight: int) -> Array:
    """[A, (2 * sight + 1) ** 2], 1 in the cells around A predators that have one of K things at offsets [A, K]."""
    ways = np.arange(-sight, sight + 1)
    bit = jnp.where((jnp.abs(across) <= sight) & there, 1 << jnp.clip(across + sight, 0, 2 * sight), 0)
    rows = jnp.sum(jnp.where(down[:, None] == ways[:, None], bit[:, None], 0), -1)  # a word of bits for each row
    return (rows[..., None] >> (ways + sight) & 1).reshape(rows.shape[0], -1)
