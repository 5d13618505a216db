"""Four rooms (Sutton, Precup and Singh 1999, section 2, https://doi.org/10.1016/S0004-3702(99)00052-1).

The grid world in which options are shown: what leads from room to room stays useful when the goal moves.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import grids, parts, pictures
from jaxrl.types import Array, Env, TimeStep

ROWS = (
    "#############",
    "#     #     #",
    "#     #     #",
    "#           #",
    "#     #     #",
    "#     #     #",
    "## ####     #",
    "#     ### ###",
    "#     #     #",
    "#     #     #",
    "#           #",
    "#     #     #",
    "#############",
)
CELLS = grids.free_cells(ROWS)  # [104, 2] rows and columns; an observation names a cell by its place here
HALLWAYS = ((3, 6), (6, 2), (7, 9), (10, 6))
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])  # up, down, left, right
_NUMBER = np.full((13, 13), -1)
_NUMBER[tuple(CELLS.T)] = np.arange(len(CELLS))


class FourRoomsParams(NamedTuple):
    slip: Array  # [] probability that a move goes in one of the three other directions, each as likely
    goal: Array  # [] int32, its cell's number in CELLS, unless random_goal
    random_goal: Array  # [] bool, a new goal at every reset
    max_steps: Array  # [] int32


class FourRoomsState(NamedTuple):
    cell: Array  # [] int32, number in CELLS
    goal: Array  # [] int32
    time: Array  # [] int32


def four_rooms(
    *,
    view: str = "goal",
    slip: float = 1 / 3,
    goal: tuple[int, int] = HALLWAYS[2],
    random_goal: bool = True,
    max_steps: int = 500,
) -> Env:
    """Walk from a random cell to the goal; four actions (up, down, left, right), walls stop a move.

    Reaching the goal pays 1 and terminates, everything else pays 0; the clock truncates after `max_steps`. With
    `random_goal` off, the goal is that of `Env.params`: moved between episodes, or by a curriculum.

    Args:
      view: "goal": observations [208] are the cell and the goal, one-hot; "cell": [104], the goal is hidden.
      slip: [0, 1].
      goal: row and column of a free cell.
      slip, goal, random_goal, max_steps: `Env.params`, traced.

    Raises:
      ValueError: for an unknown view, a slip out of range, a goal in a wall, or max_steps < 1.
    """
    if view not in ("goal", "cell"):
        raise ValueError(f"four_rooms: view is {view!r}, allowed: 'goal', 'cell'")
    parts.require(slip, lambda x: 0 <= x <= 1, "four_rooms: slip", "must be in [0, 1]")
    parts.require(max_steps, lambda x: x >= 1, "four_rooms: max_steps", "must be >= 1")
    num = len(CELLS)

    def observe(state: FourRoomsState) -> Array:
        cell, wanted = (jax.nn.one_hot(x, num) for x in (state.cell, state.goal))
        return jnp.concatenate([cell, wanted]) if view == "goal" else cell

    def reset(key: Array, params: FourRoomsParams):
        goal_key, start_key = jax.random.split(key)
        drawn = jax.random.randint(goal_key, (), 0, num)
        wanted = jnp.where(params.random_goal, drawn, params.goal)
        start = jax.random.randint(start_key, (), 0, num - 1)  # any cell but the goal's
        state = FourRoomsState(start + (start >= wanted), wanted, jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: FourRoomsState, action: Array, params: FourRoomsParams):
        slip_key, other_key = jax.random.split(key)
        other = (action + jax.random.randint(other_key, (), 1, 4)) % 4
        taken = jnp.where(jax.random.uniform(slip_key) < params.slip, other, action)
        there = jnp.asarray(transitions())[state.cell, taken]
        state = FourRoomsState(there, state.goal, state.time + 1)
        terminated = there == state.goal
        reward = terminated.astype(jnp.float32)
        return state, TimeStep(observe(state), reward, terminated, ~terminated & (state.time >= params.max_steps))

    def render(state: FourRoomsState, params: FourRoomsParams) -> Array:
        del params
        picture = pictures.board(grids.walls(ROWS))
        cell, wanted = (jnp.asarray(CELLS)[x] + 0.5 for x in (state.cell, state.goal))
        return pictures.disc(pictures.disc(picture, wanted, 0.45, pictures.GOAL), cell, 0.3, pictures.AGENT)

    params = FourRoomsParams(
        jnp.float32(slip), jnp.int32(cell_number(goal)), jnp.bool_(random_goal), jnp.int32(max_steps)
    )
    space = spaces.Box(0.0, 1.0, (2 * num if view == "goal" else num,))
    return Env(reset, step, params, space, spaces.Discrete(4), render)


def transitions() -> np.ndarray:
    """[104, 4] int32: the number of the cell that a move leads to, where it does not slip."""
    there = CELLS[:, None] + MOVES
    numbers = _NUMBER[there[..., 0], there[..., 1]]
    return np.where(numbers < 0, np.arange(len(CELLS))[:, None], numbers).astype(np.int32)


def cell_number(cell: tuple[int, int]) -> int:
    """The number of a free cell (row, column) in CELLS.

    Raises:
      ValueError: if it is a wall or outside.
    """
    row, column = (int(x) for x in cell)
    if not (0 <= row < 13 and 0 <= column < 13 and _NUMBER[row, column] >= 0):
        raise ValueError(f"four_rooms: ({row}, {column}) is no free cell; rows and columns are in [1, 11]")
    return int(_NUMBER[row, column])


def distances() -> np.ndarray:
    """[104, 104] int32: the number of moves from one cell to another on a shortest path, without slips."""
    index = CELLS[:, 0] * 13 + CELLS[:, 1]
    return grids.shortest_paths(ROWS)[0][np.ix_(index, index)]
