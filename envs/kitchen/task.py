"""The kitchen as an environment."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts
from jaxrl.envs.kitchen import rules, views
from jaxrl.envs.kitchen.layouts import LAYOUTS, parse
from jaxrl.envs.kitchen.picture import picture
from jaxrl.envs.kitchen.rules import COOKING_STEPS, DELIVERY_REWARD, UP, KitchenState
from jaxrl.types import Array, Env, TimeStep


class KitchenParams(NamedTuple):
    shaping: Array  # [] float32, the weight of shaped rewards; a schedule may take it to 0
    max_steps: Array  # [] int32


def kitchen(
    layout: str | tuple[str, ...] = "cramped_room",
    *,
    view: str = "grid",
    shaping: float = 0.0,
    credit: str = "team",
    max_steps: int = 400,
    privileged: bool = False,
) -> Env:
    """Two cooks make onion soups: three onions into a pot, 20 steps of cooking, onto a dish, out of the window.

    Six actions: up, down, left, right, stay, interact. A move turns a cook, and takes it there if that is floor, unless
    both want one cell or would swap: then neither moves. Interacting is with the cell that a cook faces: with empty
    hands it takes an onion or a dish from its dispenser, or what lies on a counter; what it holds it puts on an empty
    counter, an onion into a pot that has less than three (with the third, cooking begins), a dish into a pot that is
    done, which makes it a soup, a soup out of the window. Hands come before feet, and the first cook's before the
    second's. A delivery pays 20 to both. The clock truncates, nothing terminates.

    Shaped rewards are 3 for an onion into a pot, 3 for a dish from the dispenser that is of use (more pots have onions
    than cooks hold dishes, and none lies on a counter) and 5 for a soup out of a pot, times `shaping`. Extras: "soups"
    [2], whether each delivered one; "shaped_reward" [2], of each, unweighted.

    All is seen by both. Observations of the view "grid" are [height, width, 20] int8: the layers of the paper
    (`LAYERS`; its `lossless_state_encoding`, there with columns first and right before left), whole numbers, the cook's
    own first. Those of the view "vector" hold the same in fewer numbers, see `views.vector`.

    Args:
      layout: one of `LAYOUTS`, or rows of text (see `layouts`).
      shaping, max_steps: `Env.params`, traced. The paper takes the weight from 1 to 0 during training.
      credit: "team": shaped rewards are added up for both, as in the paper; "own": each cook has its own.
      privileged: observations have "privileged", what the first cook sees, beside "observation".

    Raises:
      ValueError: for an unknown layout, view or credit, a map that is no kitchen, shaping < 0, or max_steps < 1.
    """
    if isinstance(layout, str) and layout not in LAYOUTS:
        raise ValueError(f"kitchen: layout is {layout!r}, allowed: {', '.join(map(repr, LAYOUTS))}, or rows of text")
    if view not in ("grid", "vector"):
        raise ValueError(f"kitchen: view is {view!r}, allowed: 'grid', 'vector'")
    if credit not in ("team", "own"):
        raise ValueError(f"kitchen: credit is {credit!r}, allowed: 'team', 'own'")
    parts.require(shaping, lambda x: x >= 0, "kitchen: shaping", "must be >= 0")
    parts.require(max_steps, lambda x: x >= 1, "kitchen: max_steps", "must be >= 1")
    plan = parse(LAYOUTS[layout] if isinstance(layout, str) else layout)
    look = views.grid if view == "grid" else views.vector

    def observe(state: KitchenState):
        seen = look(plan, state)
        return {"observation": seen, "privileged": jnp.stack([seen[0]] * 2)} if privileged else seen

    def reset(key: Array, params: KitchenParams):
        del key, params
        state = KitchenState(
            position=jnp.asarray(plan.starts),
            facing=jnp.full(2, UP, jnp.int32),
            held=jnp.zeros(2, jnp.int32),
            counters=jnp.zeros(plan.kinds.size, jnp.int8),
            onions=jnp.zeros(len(plan.pots), jnp.int32),
            cooked=jnp.zeros(len(plan.pots), jnp.int32),
            time=jnp.int32(0),
        )
        return state, observe(state)

    def step(key: Array, state: KitchenState, action: Array, params: KitchenParams):
        del key
        state, events = rules.step(plan, state, action)
        state = state._replace(time=state.time + 1)
        shaped = rules.shaped_reward(events)
        credited = shaped if credit == "own" else jnp.full(2, jnp.sum(shaped))
        reward = DELIVERY_REWARD * jnp.sum(events.serves) + params.shaping * credited
        truncated = jnp.full(2, state.time >= params.max_steps)
        extras = {"soups": events.serves.astype(jnp.float32), "shaped_reward": shaped}
        return state, TimeStep(observe(state), reward, jnp.zeros(2, bool), truncated, extras)

    def render(state: KitchenState, params: KitchenParams) -> Array:
        del params
        return picture(plan, state)

    if view == "grid":
        high = [
            COOKING_STEPS if name == "steps_cooked" else 3 if name == "onions_in_pot" else 1 for name in views.LAYERS
        ]
        shape = (plan.height, plan.width, len(high))
        space = spaces.Box(0, np.broadcast_to(high, shape), shape, "int8")
    else:
        space = spaces.Box(0.0, 1.0, (views.vector_size(plan),))
    if privileged:
        space = spaces.Dict({"observation": space, "privileged": space})
    params = KitchenParams(jnp.float32(shaping), jnp.int32(max_steps))
    return Env(reset, step, params, spaces.Repeated(space, 2), spaces.Repeated(spaces.Discrete(6), 2), render)
