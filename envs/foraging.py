"""Level-based foraging (Papoudakis et al. 2021, https://arxiv.org/abs/2006.07869; Albrecht and Ramamoorthy 2013).

Rules and observations are those of https://github.com/semitable/lb-foraging (version 3), down to its corners, so that
returns compare with published ones.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures, placement, sprites
from jaxrl.types import Array, Env, TimeStep

NONE, NORTH, SOUTH, WEST, EAST, LOAD = range(6)
MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])
UNSEEN = np.array([-1, -1, 0])  # row, column and level of what an agent does not see


class ForagingParams(NamedTuple):
    penalty: Array  # [] float32, what each agent of an attempt pays whose levels do not add up to the food's
    max_steps: Array  # [] int32


class ForagingState(NamedTuple):
    agents: Array  # [A, 2] int32, row and column
    agent_levels: Array  # [A] int32
    foods: Array  # [F, 2] int32, in the order in which rows are read
    food_levels: Array  # [F] int32; 0 where it is loaded, or found no place
    spawned: Array  # [] int32, the sum of the foods' levels at the reset
    time: Array  # [] int32


def foraging(
    *,
    size: int = 8,
    num_agents: int = 2,
    num_foods: int = 2,
    force_coop: bool = False,
    sight: int | None = None,
    max_agent_level: int = 2,
    max_food_level: int | None = None,
    team_reward: bool = False,
    penalty: float = 0.0,
    max_steps: int = 50,
    privileged: bool = False,
) -> Env:
    """Agents walk on a grid and load the foods that lie on it; a food may need the levels of several agents at once.

    Six actions: none, north, south, west, east, load. A move is illegal off the grid or onto a food, loading is where
    no food is adjacent; what is illegal counts as none. Agents who want the same cell all stay (who stands in it wants
    it, too, unless it moves; one that then cannot leave shares it with the one that came, as in the original). A food
    is loaded when the levels of the adjacent agents that load add up to its level l or more; agent i of them earns
    level_i * l / (sum of their levels * sum of all foods' levels at the reset), so that an episode pays at most 1.

    Levels of agents are uniform in 1 .. max_agent_level; those of foods in 1 .. m, where m is `max_food_level`, or the
    sum of the three lowest levels of agents; exactly m under `force_coop`, which takes all of up to three agents.
    Agents start in any cells; foods lie off the border, where no other food touches their cell or is two straight
    steps away, so that nobody is adjacent to two. Those that find no place are left out. The episode terminates when
    all food is loaded; the clock truncates.

    Observations {"observation": [3 * (num_foods + num_agents)], "action_mask": [6]} of every agent: (row, column,
    level) of the foods that it sees, in the order in which rows are read, then of itself, then of the other agents that
    it sees; (-1, -1, 0) for the rest. Rows and columns count from the first cell in sight. As in the original, agents
    are seen up to 2 * sight rows below (columns right of) that cell, which is farther than `sight` where an agent
    stands near the north or west border.

    Args:
      size: rows and columns, up to 30.
      sight: in cells, in each direction; None: the whole grid, and positions are absolute.
      team_reward: every agent earns the sum of all rewards, as in the cooperative benchmark of the paper.
      penalty, max_steps: `Env.params`, traced.
      privileged: observations have "privileged" [3 * (num_foods + num_agents)]: all foods and agents, each in its own
        place, at absolute positions.

    Raises:
      ValueError: if num_agents < 2, num_foods, sight, max_agent_level, max_food_level or max_steps < 1, penalty < 0, or
        the grid is too small for a food to find a place.
    """
    sight = size if sight is None else sight
    highest = min(num_agents, 3) * max_agent_level if max_food_level is None else max_food_level
    parts.require(num_agents, lambda x: x >= 2, "foraging: num_agents", "must be >= 2")
    room = lambda x: 3 <= x <= 30 and (x - 2) ** 2 > num_agents  # noqa: E731
    parts.require(size, room, "foraging: size", f"must be in [3, 30], with (size - 2) ** 2 > num_agents = {num_agents}")
    for name, value in (
        ("num_foods", num_foods),
        ("sight", sight),
        ("max_agent_level", max_agent_level),
        ("max_food_level", highest),
        ("max_steps", max_steps),
    ):
        parts.require(value, lambda x: x >= 1, f"foraging: {name}", "must be >= 1")
    parts.require(penalty, lambda x: x >= 0, "foraging: penalty", "must be >= 0")
    # [A, A, A]: whether an agent lists another (last axis) before a third: itself first.
    order = np.where(np.eye(num_agents, dtype=bool), 0, np.arange(1, num_agents + 1))
    agents_before, foods_before = order[:, None] < order[..., None], np.tri(num_foods, k=-1, dtype=bool)

    def observe(state: ForagingState) -> dict:
        corner = jnp.maximum(state.agents - sight, 0)[:, None]
        seen = jnp.all(jnp.abs(state.foods - state.agents[:, None]) <= sight, -1) & (state.food_levels > 0)
        foods = _listed(state.foods - corner, state.food_levels, seen, foods_before)
        places = state.agents - corner
        seen = jnp.all((places >= 0) & (places <= 2 * sight), -1)
        agents = _listed(places, state.agent_levels, seen, agents_before)
        flat = jnp.concatenate([foods, agents], 1).reshape(num_agents, -1).astype(jnp.float32)
        observation = {"observation": flat, "action_mask": legal(state)}
        if privileged:
            levels = jnp.concatenate([state.food_levels, state.agent_levels])[:, None]
            everything = jnp.concatenate([jnp.concatenate([state.foods, state.agents]), levels], 1)
            everything = jnp.where(levels > 0, everything, UNSEEN).reshape(-1).astype(jnp.float32)
            observation["privileged"] = jnp.tile(everything, (num_agents, 1))
        return observation

    def legal(state: ForagingState) -> Array:
        """[A, 6] bool."""
        there = state.agents[:, None] + MOVES  # [A, 6, 2]
        food = jnp.any(jnp.all(there[:, :, None] == state.foods, -1) & (state.food_levels > 0), -1)
        beside = jnp.any(adjacent(state), 1)[:, None]
        return jnp.all((there >= 0) & (there < size), -1) & ~food & (beside | (np.arange(6) != LOAD))

    def adjacent(state: ForagingState) -> Array:
        """[A, F] bool: the agent stands beside a food that is there."""
        distance = jnp.sum(jnp.abs(state.agents[:, None] - state.foods), -1)
        return (distance == 1) & (state.food_levels > 0)

    def reset(key: Array, params: ForagingParams):
        del params
        uniform = jax.random.uniform(key, (2 * (num_agents + num_foods),))
        where_agents, which_agents, where_foods, which_foods = jnp.split(
            uniform, np.cumsum([num_agents, num_agents, num_foods])
        )
        cells = placement.distinct(where_agents, size * size)
        agents = jnp.stack([cells // size, cells % size], 1)
        agent_levels = 1 + jnp.floor(which_agents * max_agent_level).astype(jnp.int32)
        most = max_food_level
        if most is None:
            most = jnp.sum(jnp.where(placement.ranks(agent_levels) < 3, agent_levels, 0))
        least = most if force_coop else 1
        food_levels = least + jnp.floor(which_foods * (most - least + 1)).astype(jnp.int32)
        foods, placed = _place_foods(where_foods, agents, size)
        food_levels = jnp.where(placed, food_levels, 0)
        # In the order in which rows are read, so that what an agent sees is, too.
        row = placement.ranks(foods[:, 0] * size + foods[:, 1]) == jnp.arange(num_foods)[:, None]
        foods, food_levels = jnp.sum(row[..., None] * foods, 1), jnp.sum(row * food_levels, 1)
        state = ForagingState(agents, agent_levels, foods, food_levels, jnp.sum(food_levels), jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: ForagingState, action: Array, params: ForagingParams):
        del key
        taken = legal(state) & (action[:, None] == np.arange(6))  # [A, 6]; where nothing is, none is
        wanted = state.agents + jnp.sum(taken[..., None] * MOVES, 1)
        alone = jnp.sum(jnp.all(wanted[:, None] == wanted, -1), 1) == 1
        loads = adjacent(state) & taken[:, LOAD:]  # [A, F], one food at most for each
        loaded_levels = jnp.sum(loads * state.agent_levels[:, None], 0)
        loaded = (loaded_levels >= state.food_levels) & (loaded_levels > 0)  # [F]
        shares = jnp.where(loaded, state.food_levels / jnp.maximum(loaded_levels * state.spawned, 1), 0.0)
        failed = jnp.any(loads & ~loaded, 1)
        reward = state.agent_levels * jnp.sum(loads * shares, 1) - jnp.where(failed, params.penalty, 0.0)
        state = state._replace(
            agents=jnp.where(alone[:, None], wanted, state.agents),
            food_levels=jnp.where(loaded, 0, state.food_levels),
            time=state.time + 1,
        )
        if team_reward:
            reward = jnp.full(num_agents, jnp.sum(reward))
        terminated = jnp.all(state.food_levels == 0)
        ends = (terminated, ~terminated & (state.time >= params.max_steps))
        return state, TimeStep(observe(state), reward, *(jnp.full(num_agents, end) for end in ends))

    tiles = _sprites(max_agent_level, highest)

    def render(state: ForagingState, params: ForagingParams) -> Array:
        """Agents are blue, foods are red, both with as many dots as their levels."""
        del params
        row, column = state.foods.T
        shown = jnp.zeros((size, size), jnp.int32)
        shown = shown.at[row, column].max(jnp.where(state.food_levels > 0, 1 + max_agent_level + state.food_levels, 0))
        shown = shown.at[state.agents[:, 0], state.agents[:, 1]].set(1 + state.agent_levels)
        return sprites.board(tiles, sprites.framed(shown, 1))

    low = np.tile(UNSEEN, num_foods + num_agents)
    high = [size - 1, size - 1, highest] * num_foods + [size - 1, size - 1, max_agent_level] * num_agents
    box = spaces.Box(low, np.array(high), low.shape)
    inner = {"observation": box, "action_mask": spaces.Box(0, 1, (6,), "bool")}
    if privileged:
        inner["privileged"] = box
    params = ForagingParams(jnp.float32(penalty), jnp.int32(max_steps))
    space = spaces.Repeated(spaces.Dict(inner), num_agents)
    return Env(reset, step, params, space, spaces.Repeated(spaces.Discrete(6), num_agents), render)


def _listed(places: Array, levels: Array, seen: Array, before: np.ndarray) -> Array:
    """[A, K, 3]: what each agent sees of K things with places [A, K, 2] and levels [K], then UNSEEN for the rest.

    Args:
      seen: [A, K] bool.
      before: [K, K] or [A, K, K] bool, whether a thing (last axis) comes before another.
    """
    slot = jnp.sum(seen[:, None] & before, -1)
    chosen = seen[:, None] & (slot[:, None] == np.arange(seen.shape[1])[:, None])  # [A, slots, K]
    # Three numbers in the bits of one, each less UNSEEN: one sum moves them all.
    packed = (places[..., 0] + 1 << 26) + (places[..., 1] + 1 << 20) + levels
    packed = jnp.sum(jnp.where(chosen, packed[:, None], 0), 2)
    return jnp.stack([packed >> 26, packed >> 20 & 63, packed & 0xFFFFF], -1) + UNSEEN


def _place_foods(uniform: Array, agents: Array, size: int) -> tuple[Array, Array]:
    """Cells [F, 2] of the foods, one after the other, each uniform among those allowed; and [F] whether there was one.

    Args:
      uniform: [F] in [0, 1).
      agents: [A, 2], cells that are taken.
    """
    bit = lambda column: jnp.uint32(1) << column.astype(jnp.uint32)  # noqa: E731
    rows = jnp.arange(size)
    inside = jnp.where((rows > 0) & (rows < size - 1), jnp.uint32(2 ** (size - 1) - 2), 0)
    free = inside & ~jnp.sum(jnp.where(rows == agents[:, :1], bit(agents[:, 1:]), 0), 0)  # [rows] words of bits

    def place(free: Array, u: Array):
        (row, column), found = placement.one_of(u, free)
        near = jnp.array([0b11111, 0b01110, 0b00100, 0], jnp.uint32)[jnp.minimum(jnp.abs(rows - row), 3)]
        return free & ~(near << column.astype(jnp.uint32) >> 2), (jnp.stack([row, column]), found)

    return jax.lax.scan(place, free, uniform)[1]


def _sprites(max_agent_level: int, max_food_level: int) -> np.ndarray:
    """Floor, wall, agents of every level, foods of every level."""
    floor = sprites.plain()
    agent, food = (sprites.disc(floor, 0.45, color) for color in (pictures.AGENT, pictures.GOAL))
    agents = [sprites.pips(agent, level, sprites.LIGHT) for level in range(1, max_agent_level + 1)]
    foods = [sprites.pips(food, level, sprites.LIGHT) for level in range(1, max_food_level + 1)]
    return np.stack([floor, sprites.wall(), *agents, *foods])
