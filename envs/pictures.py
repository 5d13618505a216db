"""Pictures of states: parts for `Env.render`, files of them, and a text for where no picture can be shown.

A picture is uint8 [H, W, 3], rows from the top. `Env.render` is a function of state and params like all others, so
`vmap` draws an episode at once.
"""

from __future__ import annotations

import os
import struct
import zlib

import jax.numpy as jnp
import numpy as np

from jaxrl.types import Array

SCALE = 16  # pixels a cell
FLOOR, WALL = (245, 245, 240), (70, 75, 85)
AGENT, GOAL, KEY = (30, 90, 200), (225, 85, 60), (235, 180, 40)
_SHADES = np.array(list("@%#*+=-:. "))  # dark to light


def board(solid: np.ndarray, scale: int = SCALE) -> Array:
    """Walls [rows, columns] as a picture [rows * scale, columns * scale, 3]."""
    cells = np.where(solid[..., None], np.uint8(WALL), np.uint8(FLOOR))
    return jnp.asarray(np.repeat(np.repeat(cells, scale, 0), scale, 1))


def frame(rows: int, columns: int) -> np.ndarray:
    """Walls [rows, columns] of a room that is empty but for its border."""
    return np.pad(np.zeros((rows - 2, columns - 2), bool), 1, constant_values=True)


def disc(picture: Array, center: Array, radius: float, color: tuple[int, int, int], scale: int = SCALE) -> Array:
    """The picture with a disc on it; `center` [2] (row, column) and `radius` are in cells."""
    row, column = ((jnp.arange(n) + 0.5) / scale for n in picture.shape[:2])
    inside = (row[:, None] - center[0]) ** 2 + (column - center[1]) ** 2 < radius**2
    return jnp.where(inside[..., None], jnp.asarray(color, jnp.uint8), picture)


def write_png(path: str | os.PathLike, frames: np.ndarray, frames_per_second: int = 20) -> int:
    """Writes one picture [H, W, 3], or several [T, H, W, 3] as an animated PNG (browsers play it). Returns its bytes.

    The first picture is what viewers without animation show. After the PNG specification, third edition
    (https://www.w3.org/TR/png-3/).

    Raises:
      ValueError: if the pictures are not uint8 of such a shape, or frames_per_second is outside of [1, 1000].
    """
    frames = np.asarray(frames)
    frames = frames[None] if frames.ndim == 3 else frames
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        raise ValueError(f"write_png: frames are {frames.dtype}{list(frames.shape)}, must be uint8 [T, H, W, 3]")
    if not 1 <= frames_per_second <= 1000:
        raise ValueError(f"write_png: frames_per_second is {frames_per_second}, must be in [1, 1000]")
    count, height, width, _ = frames.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    if count > 1:
        parts.append(chunk(b"acTL", struct.pack(">II", count, 0)))  # played for ever
    number = 0  # of the chunk, over fcTL and fdAT
    for i, picture in enumerate(frames):
        rows = np.concatenate([np.zeros((height, 1), np.uint8), picture.reshape(height, -1)], axis=1)  # no filter
        body = zlib.compress(rows.tobytes(), 6)
        if count > 1:
            size = (number, width, height, 0, 0, 1, frames_per_second, 0, 0)
            parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", *size)))
            number += 1
        if i == 0:
            parts.append(chunk(b"IDAT", body))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", number) + body))
            number += 1
    data = b"".join([*parts, chunk(b"IEND", b"")])
    with open(path, "wb") as file:
        file.write(data)
    return len(data)


def text(picture: np.ndarray, columns: int = 78) -> str:
    """A picture [H, W, 3] as lines of characters, the darker the denser; a character is twice as high as wide."""
    height, width, _ = np.shape(picture)
    light = np.asarray(picture, np.float64) @ [0.299, 0.587, 0.114]
    columns = min(columns, width)
    rows = max(1, round(columns * height / width / 2))
    down, across = (np.arange(n) * size // n for n, size in ((rows, height), (columns, width)))
    light = np.add.reduceat(np.add.reduceat(light, down, 0), across, 1)
    light /= np.outer(np.diff([*down, height]), np.diff([*across, width]))
    shades = _SHADES[np.minimum(light / 256 * len(_SHADES), len(_SHADES) - 1).astype(int)]
    return "\n".join("".join(row).rstrip() for row in shades)
