"""Kitchens as text: X counter, O onions, D dishes, P pot, S serving window, space floor, 1 and 2 where the cooks start.

The grids are those of Carroll et al. 2019 (https://github.com/HumanCompatibleAI/overcooked_ai).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LAYOUTS = {
    "cramped_room": (
        "XXPXX",
        "O  2O",
        "X1  X",
        "XDXSX",
    ),
    "asymmetric_advantages": (
        "XXXXXXXXX",
        "O XSXOX S",
        "X   P 1 X",
        "X2  P   X",
        "XXXDXDXXX",
    ),
    "forced_coordination": (
        "XXXPX",
        "O X1P",
        "O2X X",
        "D X X",
        "XXXSX",
    ),
}
FLOOR, COUNTER, ONIONS, DISHES, POT, SERVING = range(6)
_KINDS = {" ": FLOOR, "1": FLOOR, "2": FLOOR, "X": COUNTER, "O": ONIONS, "D": DISHES, "P": POT, "S": SERVING}


class Layout(NamedTuple):
    """A kitchen of C = height * width cells, numbered in the order in which rows are read. NumPy, static."""

    height: int
    width: int
    kinds: np.ndarray  # [C] int32, FLOOR, COUNTER, ...
    pots: np.ndarray  # [P] int32, their cells
    starts: np.ndarray  # [2] int32, cells of the cooks
    steps: np.ndarray  # [4] int32, from a cell to the one above, below, left, right
    within_reach: np.ndarray  # [K] int32, counters beside some floor


def parse(rows: tuple[str, ...]) -> Layout:
    """The kitchen of a map.

    Raises:
      ValueError: if rows differ in length, a character is unknown, floor touches the border, or something is missing.
    """
    rows = tuple(rows)
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise ValueError(f"kitchen: layout is {rows}, must have rows of one length")
    text = "".join(rows)
    unknown = sorted(set(text) - set(_KINDS))
    if unknown:
        raise ValueError(f"kitchen: layout has {unknown}, allowed: {sorted(_KINDS)}")
    for character, rule in (("1", "once"), ("2", "once"), ("O", ""), ("D", ""), ("P", ""), ("S", "")):
        count = text.count(character)
        if count < 1 or rule and count > 1:
            raise ValueError(f"kitchen: layout has {character!r} {count} times, must have it {rule or 'at least once'}")
    height, width = len(rows), len(rows[0])
    kinds = np.array([_KINDS[character] for character in text], np.int32)
    floor = (kinds == FLOOR).reshape(height, width)
    if floor[0].any() or floor[-1].any() or floor[:, 0].any() or floor[:, -1].any():
        raise ValueError(f"kitchen: layout is {rows}, must have no floor at its border")
    steps = np.array([-width, width, -1, 1], np.int32)
    beside = np.unique(np.flatnonzero(kinds == FLOOR)[:, None] + steps)
    return Layout(
        height=height,
        width=width,
        kinds=kinds,
        pots=np.flatnonzero(kinds == POT).astype(np.int32),
        starts=np.array([text.index("1"), text.index("2")], np.int32),
        steps=steps,
        within_reach=beside[kinds[beside] == COUNTER].astype(np.int32),
    )
