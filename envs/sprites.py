"""Pictures of grids in which each cell shows one of a few small pictures: sprites, drawn once with NumPy.

A picture is then one gather, however many things stand on the grid.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl.envs.pictures import FLOOR, SCALE, WALL
from jaxrl.types import Array

Color = tuple[int, int, int]
DARK, LIGHT = (30, 30, 35), (255, 255, 255)


def plain(color: Color = FLOOR, size: int = SCALE) -> np.ndarray:
    """A sprite [size, size, 3] of one color."""
    return np.full((size, size, 3), color, np.uint8)


def disc(sprite: np.ndarray, radius: float, color: Color, center: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """The sprite with a disc on it; radius and center (row, column) are in cells."""
    rows, columns = _pixels(sprite)
    inside = (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < radius**2
    return np.where(inside[..., None], np.uint8(color), sprite)


def box(sprite: np.ndarray, color: Color, top: float, left: float, bottom: float, right: float) -> np.ndarray:
    """The sprite with a rectangle on it; its sides are in cells."""
    rows, columns = _pixels(sprite)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return np.where(inside[..., None], np.uint8(color), sprite)


def pips(sprite: np.ndarray, count: int, color: Color) -> np.ndarray:
    """The sprite with `count` dots, three in a row: a number that can be read at a few pixels. More than 9 are 9."""
    for i in range(min(count, 9)):
        sprite = disc(sprite, 0.085, color, (0.25 + 0.25 * (i // 3), 0.25 + 0.25 * (i % 3)))
    return sprite


def board(sprites: np.ndarray, shown: Array) -> Array:
    """Sprites [K, S, S, 3] as a picture [rows * S, columns * S, 3]; `shown` [rows, columns] says which is where."""
    rows, columns = shown.shape
    size = sprites.shape[1]
    tiles = jnp.asarray(sprites)[shown]  # [rows, columns, S, S, 3]
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def framed(shown: Array, wall: int) -> Array:
    """[rows, columns] -> [rows + 2, columns + 2] with the sprite `wall` all around."""
    return jnp.pad(shown, 1, constant_values=wall)


def wall(size: int = SCALE) -> np.ndarray:
    """The sprite of a wall."""
    return plain(WALL, size)


def _pixels(sprite: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [S, 1] and columns [1, S] of the pixels' centers, in cells."""
    center = (np.arange(sprite.shape[0]) + 0.5) / sprite.shape[0]
    return center[:, None], center[None]
