"""A matrix as a picture: a cell an entry, the larger the darker, with its number in it."""

from __future__ import annotations

import numpy as np

# Three columns by five rows, from the top, a bit a pixel.
_GLYPHS = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 2, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
    "e": (0, 7, 7, 4, 7),
    "+": (0, 2, 7, 2, 0),
    "-": (0, 0, 7, 0, 0),
    ".": (0, 0, 0, 0, 2),
}
_DOT = 3  # pixels of a dot of a glyph, each way
_LOW, _HIGH = np.array((240.0, 245.0, 250.0)), np.array((20.0, 70.0, 130.0))
_PAPER, _INK, _MISSING = (255, 255, 255), (30, 30, 35), (200, 200, 200)


def heat_map(matrix: np.ndarray) -> np.ndarray:
    """The picture, uint8 [H, W, 3]: rows and columns have their indices before them, the diagonal a frame.

    Colors go from the lowest to the highest finite entry; what is not finite is grey, without a number.

    Args:
      matrix: [n, n].
    """
    matrix = np.asarray(matrix, np.float64)
    shown = [[number(x) if np.isfinite(x) else "" for x in row] for row in matrix]
    labels = [str(i) for i in range(len(matrix))]
    width = _DOT * (4 * max(len(text) for row in [*shown, labels] for text in row) + 5)
    height = _DOT * 15
    finite = matrix[np.isfinite(matrix)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    margin = _DOT * (4 * len(labels[-1]) + 3), _DOT * 9  # left, top
    picture = np.full((margin[1] + height * len(matrix), margin[0] + width * len(matrix), 3), _PAPER, np.uint8)
    for i, label in enumerate(labels):
        top, left = margin[1] + i * height, margin[0] + i * width
        write(picture[top : top + height, : margin[0]], label, _INK)
        write(picture[: margin[1], left : left + width], label, _INK)
        for j, text in enumerate(shown[i]):
            cell = picture[top : top + height, margin[0] + j * width :][:, :width]
            share = (matrix[i, j] - low) / (high - low) if high > low else 0.0
            cell[:] = _INK if i == j else _PAPER
            cell[_DOT:-_DOT, _DOT:-_DOT] = np.rint(_LOW + share * (_HIGH - _LOW)) if text else _MISSING
            write(cell, text, _PAPER if share > 0.5 else _INK)
    return picture


def number(x: float) -> str:
    """A few digits of a number, of the characters that can be drawn."""
    return f"{x:.2f}" if abs(x) < 1000 else f"{x:.0f}" if abs(x) < 1e6 else f"{x:.1e}"


def write(picture: np.ndarray, text: str, color: tuple[int, int, int]) -> None:
    """Draws digits into the middle of a picture [H, W, 3], in place."""
    top, left = (picture.shape[0] - 5 * _DOT) // 2, (picture.shape[1] - (4 * len(text) - 1) * _DOT) // 2
    for i, character in enumerate(text):
        dots = np.array([[row >> bit & 1 for bit in (2, 1, 0)] for row in _GLYPHS[character]], bool)
        where = np.repeat(np.repeat(dots, _DOT, 0), _DOT, 1)
        at = left + 4 * _DOT * i
        picture[top : top + 5 * _DOT, at : at + 3 * _DOT][where] = color
