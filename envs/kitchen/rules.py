"""What happens in a kitchen: hands, then feet, then pots, in the order of the original.

Reading a cell is a sum over all cells with one that counts: no index, no loop, and a map over kitchens stays a plain
loop over numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl.envs.kitchen import layouts
from jaxrl.envs.kitchen.layouts import Layout
from jaxrl.types import Array

UP, DOWN, LEFT, RIGHT, STAY, INTERACT = range(6)
NOTHING, ONION, DISH, SOUP = range(4)
SOUP_ONIONS, COOKING_STEPS = 3, 20
FILL_REWARD, DISH_REWARD, SCOOP_REWARD, DELIVERY_REWARD = 3.0, 3.0, 5.0, 20.0


class KitchenState(NamedTuple):
    position: Array  # [2] int32, the cells of the cooks
    facing: Array  # [2] int32: UP, DOWN, LEFT, RIGHT
    held: Array  # [2] int32: NOTHING, ONION, DISH, SOUP
    counters: Array  # [C] int8, what lies on each cell
    onions: Array  # [P] int32, 0 .. 3 in each pot
    cooked: Array  # [P] int32, 0 .. 20 steps since it was full
    time: Array  # [] int32


class Events(NamedTuple):
    """Who did what in a step; [2] bool."""

    fills: Array  # an onion into a pot
    fetches: Array  # a dish that is of use
    scoops: Array  # a soup out of a pot
    serves: Array  # a soup out of the window


def shaped_reward(events: Events) -> Array:
    """[2]: what each cook did that may lead to a soup, weighed as in the original."""
    return FILL_REWARD * events.fills + DISH_REWARD * events.fetches + SCOOP_REWARD * events.scoops


def step(layout: Layout, state: KitchenState, action: Array) -> tuple[KitchenState, Events]:
    """One step without its clock. The first cook's hands are quicker than the second's."""
    # As in the original, what a dish could be of use for is looked up before anybody moves a hand.
    started = jnp.sum(state.onions > 0)
    state, first = _interact(layout, state, 0, action[0] == INTERACT, started)
    state, second = _interact(layout, state, 1, action[1] == INTERACT, started)
    state = _move(layout, state, action)
    cooked = jnp.where(state.onions == SOUP_ONIONS, jnp.minimum(state.cooked + 1, COOKING_STEPS), 0)
    return state._replace(cooked=cooked), Events(*(jnp.stack(pair) for pair in zip(first, second)))


def _interact(layout: Layout, state: KitchenState, cook: int, acts: Array, started: Array):
    held = state.held[cook]
    cell = state.position[cook] + _choose(layout.steps, state.facing[cook])
    at = cell == np.arange(layout.kinds.size)  # [C]
    at_pot = cell == layout.pots  # [P]
    kind = jnp.sum(jnp.where(at, layout.kinds.astype(np.int8), 0), dtype=jnp.int8)
    lying = jnp.sum(jnp.where(at, state.counters, 0), dtype=jnp.int8).astype(jnp.int32)
    inside, cooked = (jnp.sum(jnp.where(at_pot, x, 0)) for x in (state.onions, state.cooked))

    empty = held == NOTHING
    at_counter, at_fire = acts & (kind == layouts.COUNTER), acts & (kind == layouts.POT)
    puts, takes = at_counter & ~empty & (lying == NOTHING), at_counter & empty & (lying != NOTHING)
    grabs_onion = acts & (kind == layouts.ONIONS) & empty
    grabs_dish = acts & (kind == layouts.DISHES) & empty
    fills = at_fire & (held == ONION) & (inside < SOUP_ONIONS)
    scoops = at_fire & (held == DISH) & (cooked == COOKING_STEPS)
    serves = acts & (kind == layouts.SERVING) & (held == SOUP)
    of_use = (started > jnp.sum(state.held == DISH)) & ~jnp.any(state.counters == DISH)

    then = jnp.where(puts | fills | serves, NOTHING, held)
    then = jnp.where(takes, lying, then)
    then = jnp.where(grabs_onion, ONION, jnp.where(grabs_dish, DISH, jnp.where(scoops, SOUP, then)))
    moved = jnp.where(puts, held, NOTHING).astype(jnp.int8)
    state = state._replace(
        held=jnp.where(np.arange(2) == cook, then, state.held),
        counters=jnp.where(at & (puts | takes), moved, state.counters),
        onions=jnp.where(at_pot & scoops, 0, state.onions + (at_pot & fills)),
        cooked=jnp.where(at_pot & scoops, 0, state.cooked),
    )
    return state, Events(fills, grabs_dish & of_use, scoops, serves)


def _move(layout: Layout, state: KitchenState, action: Array) -> KitchenState:
    """Both turn; both stay where they are if one cell is wanted twice, or they would pass through each other."""
    here = state.position
    there = here + _choose(layout.steps, action)
    floor = layout.kinds == layouts.FLOOR
    there = jnp.where(jnp.any((there[:, None] == np.arange(floor.size)) & floor, 1), there, here)
    bump = (there[0] == there[1]) | ((there[0] == here[1]) & (there[1] == here[0]))
    return state._replace(
        position=jnp.where(bump, here, there),
        facing=jnp.where(action < STAY, action, state.facing),
    )


def _choose(table: np.ndarray, index: Array) -> Array:
    """table[index], 0 where the index is beyond the table."""
    return jnp.sum(jnp.where(index[..., None] == np.arange(table.size), table, 0), -1)
