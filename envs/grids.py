"""Mazes of square cells drawn as text, and exact shortest paths in them: NumPy on the host, computed once for each map.

Walls are #. Cells are (row, column), rows from the top; where one number names a cell it is row * columns + column. A
cell is centered at (row + 0.5, column + 0.5), and its neighbors are the four that share a side.
"""

from __future__ import annotations

import collections
import functools

import numpy as np


def walls(rows: tuple[str, ...]) -> np.ndarray:
    """[rows, columns] bool."""
    return np.array([[x == "#" for x in row] for row in rows])


def free_cells(rows: tuple[str, ...]) -> np.ndarray:
    """[C, 2] rows and columns."""
    return np.argwhere(~walls(rows))


@functools.cache
def shortest_paths(rows: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Breadth-first search to every free cell of a map that has walls all around.

    Returns:
      distance [cells, cells] int32, steps between neighbors from one cell to another, -1 where there is no way;
      following [cells, cells, 2] int32, the cell after one on a shortest path to another, (0, 0) where there is none.
      Both are read only.
    """
    solid = walls(rows)
    height, width = solid.shape
    distance = np.full((height * width, height * width), -1, np.int32)
    following = np.zeros((height * width, height * width, 2), np.int32)
    for goal in map(tuple, free_cells(rows)):
        index = goal[0] * width + goal[1]
        distance[index, index], following[index, index] = 0, goal
        queue = collections.deque([goal])
        while queue:
            row, column = queue.popleft()
            here = row * width + column
            for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                there = cell[0] * width + cell[1]
                if distance[there, index] < 0 and not solid[cell]:
                    queue.append(cell)
                    distance[there, index], following[there, index] = distance[here, index] + 1, (row, column)
    for table in (distance, following):
        table.flags.writeable = False  # one copy for everybody
    return distance, following
