"""What a cook sees: a stack of layers over the grid, or a vector; both hold all of the state, itself first."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl.envs.kitchen import layouts
from jaxrl.envs.kitchen.contents import all_contents, contents
from jaxrl.envs.kitchen.layouts import Layout
from jaxrl.envs.kitchen.rules import COOKING_STEPS, DISH, ONION, SOUP, SOUP_ONIONS, KitchenState
from jaxrl.types import Array

LAYERS = (
    *("self", "other"),
    *(f"self_{way}" for way in ("up", "down", "left", "right")),  # at the cook's cell, the way it faces
    *(f"other_{way}" for way in ("up", "down", "left", "right")),
    *("pot", "counter", "onion_dispenser", "dish_dispenser", "serving"),
    *("onions_in_pot", "steps_cooked"),  # 0 .. 3 and 0 .. 20
    *("soup", "dish", "onion"),  # on counters and in hands
)
_STATIONS = {
    layouts.POT: "pot",
    layouts.COUNTER: "counter",
    layouts.ONIONS: "onion_dispenser",
    layouts.DISHES: "dish_dispenser",
    layouts.SERVING: "serving",
}
_ITEMS = {ONION: "onion", DISH: "dish", SOUP: "soup"}


def grid(layout: Layout, state: KitchenState) -> Array:
    """[2, height, width, len(LAYERS)] int8."""
    seen = jnp.asarray(_TABLE)[contents(layout, state)]
    return seen.reshape(2, layout.height, layout.width, len(LAYERS))


def vector(layout: Layout, state: KitchenState) -> Array:
    """[2, vector_size(layout)] float32: the cook, the other, the pots, the counters within reach.

    A cook is its cell among those of the floor, the way that it faces, and what it holds, one-hot; a pot is 1, 2 or 3
    onions, one-hot, the share of its cooking that is done, and whether all is; a counter is what lies on it, one-hot.
    """
    floor, items = np.flatnonzero(layout.kinds == layouts.FLOOR), np.array(list(_ITEMS))
    cooks = [
        state.position[:, None] == floor,
        state.facing[:, None] == np.arange(4),
        state.held[:, None] == items,
    ]
    cooks = jnp.concatenate(cooks, 1).astype(jnp.float32)  # [2, ...]
    pots = [
        state.onions[:, None] == np.arange(1, SOUP_ONIONS + 1),
        (state.cooked / COOKING_STEPS)[:, None],
        (state.cooked == COOKING_STEPS)[:, None],
    ]
    pots = jnp.concatenate([x.astype(jnp.float32) for x in pots], 1).reshape(-1)
    lying = (state.counters[layout.within_reach][:, None] == items).astype(jnp.float32).reshape(-1)
    shared = jnp.tile(jnp.concatenate([pots, lying]), (2, 1))
    return jnp.concatenate([cooks, cooks[::-1], shared], 1)


def vector_size(layout: Layout) -> int:
    """How long a vector is."""
    floor = int(np.sum(layout.kinds == layouts.FLOOR))
    return 2 * (floor + 7) + 5 * len(layout.pots) + 3 * len(layout.within_reach)


def _table() -> np.ndarray:
    """[NUM_CONTENTS, L] int8: the layers of a cell, by what it holds."""
    table = []
    for content in all_contents():
        layers = {"onions_in_pot": content.onions, "steps_cooked": content.cooked}
        if content.kind in _STATIONS:
            layers[_STATIONS[content.kind]] = 1
        if content.item in _ITEMS:
            layers[_ITEMS[content.item]] = 1
        if content.cook is not None:
            who = ("self", "other")[content.cook]
            layers[who] = layers[f"{who}_{('up', 'down', 'left', 'right')[content.facing]}"] = 1
        table.append([layers.get(name, 0) for name in LAYERS])
    return np.array(table, np.int8)


_TABLE = _table()
