"""Maps of the mazes, and exact distances in them."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jaxrl.envs import grids
from jaxrl.types import Array

# Walls are #, the goal is G; rows from the top. Three maps of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219)
# and the giant one of OGBench (Park et al. 2024, https://arxiv.org/abs/2410.20092).
MAZES = {
    "umaze": ("#####", "#GOO#", "###O#", "#OOO#", "#####"),
    "medium": ("########", "#OO##OO#", "#OO#OOO#", "##OOO###", "#OO#OOO#", "#O#OO#O#", "#OOO#OG#", "########"),
    "large": (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OGO#",
        "############",
    ),
    "giant": (
        "################",
        "#O#OOOOOO##OOOO#",
        "#O#O##O#O#OO##O#",
        "#OOO#OO#OOO#OOO#",
        "#O###O######O#O#",
        "#OOO#OOO#OOOO#O#",
        "###O#O#OO#O#O###",
        "#OOO#OO#OOO#OOO#",
        "#O#O#O######O#O#",
        "#O###OOO#OOO##O#",
        "#OOOOO#OOO#OOOG#",
        "################",
    ),
}

# Starts and goals of OGBench's evaluation tasks, cells (row, column); the smallest maze is not among its mazes.
TASKS = {
    "umaze": (((3, 1), (1, 1)),),
    "medium": (((1, 1), (6, 6)), ((6, 1), (1, 6)), ((5, 3), (4, 2)), ((6, 5), (6, 1)), ((2, 6), (1, 1))),
    "large": (((1, 1), (7, 10)), ((5, 4), (7, 1)), ((7, 4), (1, 10)), ((3, 8), (5, 4)), ((1, 1), (5, 4))),
    "giant": (((1, 1), (10, 14)), ((1, 14), (10, 1)), ((8, 14), (1, 1)), ((8, 3), (5, 12)), ((5, 9), (3, 8))),
}


def rows(size: str) -> tuple[str, ...]:
    """The map.

    Raises:
      ValueError: for an unknown size.
    """
    if size not in MAZES:
        raise ValueError(f"point_maze: size is {size!r}, allowed: {', '.join(map(repr, MAZES))}")
    return MAZES[size]


def walls(size: str) -> np.ndarray:
    """[rows, columns] bool."""
    return grids.walls(rows(size))


def free_cells(size: str) -> np.ndarray:
    """[C, 2] rows and columns."""
    return grids.free_cells(rows(size))


def corners(size: str) -> np.ndarray:
    """[C', 2]: free cells but those of a straight corridor, with free cells on two opposite sides and walls beside."""
    solid = walls(size)
    beside = [np.roll(solid, 1, axis) & np.roll(solid, -1, axis) for axis in (0, 1)]
    open_to = [~np.roll(solid, 1, axis) & ~np.roll(solid, -1, axis) for axis in (0, 1)]
    return np.argwhere(~solid & ~(open_to[0] & beside[1]) & ~(open_to[1] & beside[0]))


def distances(size: str) -> np.ndarray:
    """[cells, cells] int32: steps between neighbors from one cell to another, -1 if a wall is one of them.

    A cell's number is row * columns + column.
    """
    return grids.shortest_paths(rows(size))[0]


def next_cells(size: str) -> np.ndarray:
    """[cells, cells, 2]: the cell after one, on a shortest path to another."""
    return grids.shortest_paths(rows(size))[1]


def cell_index(size: str, position: Array) -> Array:
    """Numbers [...] of the cells that positions [..., 2] are in."""
    cell = jnp.floor(position).astype(jnp.int32)
    return cell[..., 0] * len(rows(size)[0]) + cell[..., 1]


def grid_distance(size: str) -> Callable[[Array, Array], Array]:
    """A function (position [..., 2], goal [..., 2]) -> int32 [...], steps between the cells that they are in.

    Raises:
      ValueError: for an unknown size.
    """
    table = distances(size)
    return lambda position, goal: jnp.asarray(table)[cell_index(size, position), cell_index(size, goal)]
