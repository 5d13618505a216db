"""What a cell of a kitchen may hold, as one number: observations and pictures are rows of tables, looked up by it."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl.envs.kitchen import layouts
from jaxrl.envs.kitchen.layouts import Layout
from jaxrl.envs.kitchen.rules import COOKING_STEPS, NOTHING, SOUP_ONIONS, KitchenState
from jaxrl.types import Array

_COUNTERS = 6  # after the kinds of cells: counters, by what lies there
_POTS = _COUNTERS + 4  # pots, by their onions, then by the steps that they have cooked
_COOKS = _POTS + SOUP_ONIONS + COOKING_STEPS + 1  # cooks, by who, the way that they face, and what they hold
NUM_CONTENTS = _COOKS + 2 * 4 * 4


class Content(NamedTuple):
    """One of the things that a cell may hold. What does not apply is 0."""

    kind: int  # layouts.FLOOR, COUNTER, ...
    item: int = NOTHING  # on the counter, or in the hand
    onions: int = 0
    cooked: int = 0
    cook: int | None = None  # 0 for the one who sees it, 1 for the other
    facing: int = 0


def all_contents() -> list[Content]:
    """Each of them, at its number."""
    kinds = [Content(kind) for kind in range(_COUNTERS)]
    counters = [Content(layouts.COUNTER, item) for item in range(4)]
    filling = [Content(layouts.POT, onions=onions) for onions in range(SOUP_ONIONS)]
    cooking = [Content(layouts.POT, onions=SOUP_ONIONS, cooked=cooked) for cooked in range(COOKING_STEPS + 1)]
    cooks = [
        Content(layouts.FLOOR, item, cook=cook, facing=facing)
        for cook in range(2)
        for facing in range(4)
        for item in range(4)
    ]
    return [*kinds, *counters, *filling, *cooking, *cooks]


def contents(layout: Layout, state: KitchenState) -> Array:
    """[2, C] int32: what each cook sees in each cell."""
    cells = np.arange(layout.kinds.size)
    seen = jnp.where(layout.kinds == layouts.COUNTER, _COUNTERS + state.counters, layout.kinds)
    for i, cell in enumerate(layout.pots):
        seen = jnp.where(cells == cell, _POTS + state.onions[i] + state.cooked[i], seen)
    here = cells == state.position[:, None]
    cooks = (_COOKS + 4 * state.facing + state.held)[:, None]
    return jnp.where(here, cooks, jnp.where(here[::-1], cooks[::-1] + 16, seen))
