"""A kitchen drawn: one sprite for each thing that a cell may show."""

from __future__ import annotations

import numpy as np

from jaxrl.envs import sprites
from jaxrl.envs.kitchen import layouts
from jaxrl.envs.kitchen.contents import Content, all_contents, contents
from jaxrl.envs.kitchen.layouts import Layout
from jaxrl.envs.kitchen.rules import COOKING_STEPS, DISH, ONION, SOUP, KitchenState
from jaxrl.types import Array

SIZE = 32  # pixels a cell
COOKS = ((30, 90, 200), (40, 150, 80))
WOOD, STOVE, POT, WINDOW = (190, 150, 110), (90, 90, 100), (45, 45, 50), (150, 200, 225)
ONION_COLOR, BROTH, DONE = (235, 180, 40), (215, 120, 50), (60, 200, 90)


def picture(layout: Layout, state: KitchenState) -> Array:
    """[height * SIZE, width * SIZE, 3] uint8.

    The first cook is blue, the second green; their noses say where they face, and they hold onions (yellow), dishes
    (white) or soups (brown in white). A pot shows its onions, and a bar that grows as it cooks; broth and a green bar
    when it is done. Four onions or dishes are a dispenser; the serving window is light blue.
    """
    return sprites.board(_SPRITES, contents(layout, state)[0].reshape(layout.height, layout.width))


def _item(sprite: np.ndarray, item: int, center: tuple[float, float], scale: float = 1.0) -> np.ndarray:
    if item == ONION:
        return sprites.disc(sprite, 0.17 * scale, ONION_COLOR, center)
    if item in (DISH, SOUP):
        sprite = sprites.disc(sprite, 0.25 * scale, sprites.LIGHT, center)
    return sprites.disc(sprite, 0.16 * scale, BROTH, center) if item == SOUP else sprite


def _tray(item: int) -> np.ndarray:
    sprite = _station(WOOD)
    for row in (0.3, 0.7):
        for column in (0.3, 0.7):
            sprite = _item(sprite, item, (row, column), 0.7)
    return sprite


def _station(color: sprites.Color) -> np.ndarray:
    """A block with an edge, so that neighbors can be told apart."""
    return sprites.box(sprites.plain(tuple(x * 4 // 5 for x in color), SIZE), color, 0.04, 0.04, 0.96, 0.96)


def _pot(onions: int, cooked: int) -> np.ndarray:
    sprite = sprites.disc(_station(STOVE), 0.38, POT, (0.45, 0.5))
    if cooked == COOKING_STEPS:
        sprite = sprites.disc(sprite, 0.3, BROTH, (0.45, 0.5))
    for i in range(onions):
        sprite = sprites.disc(sprite, 0.09, ONION_COLOR, (0.45, 0.27 + 0.23 * i))
    bar = DONE if cooked == COOKING_STEPS else sprites.LIGHT
    return sprites.box(sprite, bar, 0.86, 0.06, 0.94, 0.06 + 0.88 * cooked / COOKING_STEPS)


def _cook(cook: int, facing: int, held: int) -> np.ndarray:
    row, column = ((-1, 0), (1, 0), (0, -1), (0, 1))[facing]
    sprite = sprites.disc(sprites.plain(size=SIZE), 0.36, COOKS[cook])
    sprite = sprites.disc(sprite, 0.12, sprites.DARK, (0.5 + 0.36 * row, 0.5 + 0.36 * column))
    return _item(sprite, held, (0.5 + 0.06 * row, 0.5 + 0.06 * column))


def _sprite(content: Content) -> np.ndarray:
    if content.cook is not None:
        return _cook(content.cook, content.facing, content.item)
    if content.kind == layouts.FLOOR:
        return sprites.plain(size=SIZE)
    if content.kind == layouts.POT:
        return _pot(content.onions, content.cooked)
    trays = {layouts.ONIONS: ONION, layouts.DISHES: DISH}
    if content.kind in trays:
        return _tray(trays[content.kind])
    return _item(_station(WINDOW if content.kind == layouts.SERVING else WOOD), content.item, (0.5, 0.5))


_SPRITES = np.stack([_sprite(content) for content in all_contents()])
