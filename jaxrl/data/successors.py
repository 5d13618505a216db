"""Observations stored once: the successor of a row is the next row, except where an episode ends."""

from __future__ import annotations

from typing import Any

import numpy as np


class Successors:
    """An array-like [D, ...] of successors that are looked up when they are asked for.

    It is indexed along its first axis, as in `x[rows]`, and `np.asarray(x)` fills all of them in. So a memory-mapped
    observation is not read, or held, twice.

    Args:
      observation: [D, ...], the rows.
      last: [E] int, the rows that end an episode, in order; the last of them is D - 1.
      final: [E, ...], the successors of those rows.
    """

    def __init__(self, observation: np.ndarray, last: np.ndarray, final: np.ndarray):
        self._observation, self._last, self._final = observation, last, final
        self.shape, self.dtype, self.ndim = observation.shape, observation.dtype, observation.ndim
        self.nbytes = 0  # of its own

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        index, rest = (index[0], index[1:]) if isinstance(index, tuple) else (index, ())
        rows = np.arange(len(self))[index]
        found = np.array(self._observation[np.minimum(rows + 1, len(self) - 1)])
        episode = np.minimum(np.searchsorted(self._last, rows), len(self._last) - 1)
        ends = self._last[episode] == rows
        found[ends] = self._final[episode[ends] if np.ndim(rows) else episode]
        return found[(slice(None),) * np.ndim(rows) + rest] if rest else found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return fill(self._observation, self._last, self._final).astype(dtype or self.dtype, copy=False)


def fill(observation: np.ndarray, last: np.ndarray, final: np.ndarray) -> np.ndarray:
    """The successors of all rows, as an array."""
    found = np.empty(observation.shape, observation.dtype)
    found[:-1] = observation[1:]
    found[last] = final
    return found


def is_shifted(observation: Any, following: Any, last: np.ndarray, rows: int = 1 << 14) -> bool:
    """Whether `following[i]` is `observation[i + 1]`, to the bit, in all rows but those in `last`."""
    if isinstance(following, Successors) and following._observation is observation:
        return bool(np.array_equal(following._last, last))
    inside = np.ones(observation.shape[0], bool)
    inside[last] = False
    inside[-1] = False
    for start in range(0, len(inside) - 1, rows):
        stop = min(start + rows, len(inside) - 1)
        keep = inside[start:stop]
        left = np.ascontiguousarray(np.asarray(following[start:stop])[keep])
        right = np.ascontiguousarray(np.asarray(observation[start + 1 : stop + 1])[keep])
        if left.tobytes() != right.tobytes():
            return False
    return True
