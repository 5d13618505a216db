"""A point mass in a maze, with a scripted controller that solves it: where data sets of many qualities come from.

After Maze2D of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219), whose maps it has, with dynamics of its own: a
unit mass with drag and walls that stop it, instead of a simulated ball. Distances are in cells, times in steps of 0.1.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.types import Array, Env, TimeStep

# Walls are #, the goal is G; rows from the top, a cell (row, column) is centered at (row + 0.5, column + 0.5).
MAZES = {
    "umaze": ("#####", "#GOO#", "###O#", "#OOO#", "#####"),
    "medium": ("########", "#OO##OO#", "#OO#OOO#", "##OOO###", "#OO#OOO#", "#O#OO#O#", "#OOO#OG#", "########"),
    "large": (
        "############",
        "#OOOO#OOOOO#",
        "#O##O#O#O#O#",
        "#OOOOOO#OOO#",
        "#O####O###O#",
        "#OO#O#OOOOO#",
        "##O#O#O#O###",
        "#OO#OOO#OGO#",
        "############",
    ),
}
MAX_STEPS = {"umaze": 100, "medium": 200, "large": 400}
TIME_STEP = 0.1
DRAG = 2.0  # velocity lost per unit of time, so that full thrust of 4 reaches a speed of 2
THRUST = 4.0
MAX_SPEED = 2.0
RADIUS = 0.5  # of the goal


class PointMazeParams(NamedTuple):
    goal: Array  # [2] position of the goal
    max_steps: Array  # [] int32
    random_goal: Array  # [] bool, a new goal in any free cell at every reset


class PointMazeState(NamedTuple):
    position: Array  # [2]
    velocity: Array  # [2]
    goal: Array  # [2]
    time: Array  # [] int32


def point_maze(
    size: str = "umaze", *, reward: str = "sparse", random_goal: bool = False, max_steps: int | None = None
) -> Env:
    """Steer a point mass from a random free cell to the goal.

    Actions [2] in [-1, 1] are thrust along rows and columns. Observations [6] are position, velocity and the goal's
    position. Sparse reward: 1 and termination within 0.5 of the goal, else 0. Dense: exp(-distance to the goal) at
    every step, no termination. The clock truncates after `max_steps`.

    Args:
      size: "umaze" (7 free cells), "medium" (26) or "large" (46).
      reward: "sparse" or "dense".
      random_goal, max_steps: `Env.params`, traced. `max_steps` None: 100, 200 or 400.

    Raises:
      ValueError: for an unknown size or reward, or max_steps < 1.
    """
    cells = _free_cells(size)
    if reward not in ("sparse", "dense"):
        raise ValueError(f"point_maze: reward is {reward!r}, allowed: 'sparse', 'dense'")
    max_steps = MAX_STEPS[size] if max_steps is None else max_steps
    if max_steps < 1:
        raise ValueError(f"point_maze: max_steps is {max_steps}, must be >= 1")
    walls, centers = _walls(size), (cells + 0.5).astype(np.float32)
    goal = next((r + 0.5, c + 0.5) for r, row in enumerate(MAZES[size]) for c, x in enumerate(row) if x == "G")

    def blocked(position):
        row, column = jnp.floor(position).astype(jnp.int32)
        return jnp.asarray(walls)[row, column]

    def observe(state):
        return jnp.concatenate([state.position, state.velocity, state.goal])

    def distance(state):
        return jnp.sqrt(jnp.sum((state.position - state.goal) ** 2))

    def reset(key, params):
        start_key, noise_key, goal_key = jax.random.split(key, 3)
        choices = jax.random.choice(goal_key, jnp.asarray(centers))
        target = jnp.where(params.random_goal, choices, params.goal)
        # A start within the goal's reach would end at once: such cells are not drawn.
        far = jnp.sqrt(jnp.sum((centers - target) ** 2, -1)) > 1.5 * RADIUS
        center = jax.random.choice(start_key, jnp.asarray(centers), p=far / jnp.sum(far))
        position = center + jax.random.uniform(noise_key, (2,), minval=-0.2, maxval=0.2)
        state = PointMazeState(position, jnp.zeros(2), target, jnp.int32(0))
        return state, observe(state)

    def step(key, state, action, params):
        del key
        thrust = THRUST * jnp.clip(action, -1.0, 1.0)
        velocity = state.velocity + TIME_STEP * (thrust - DRAG * state.velocity)
        velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
        position = state.position
        for axis in (0, 1):  # one after the other, so that a point slides along a wall
            moved = position.at[axis].add(TIME_STEP * velocity[axis])
            hit = blocked(moved)
            position = jnp.where(hit, position, moved)
            velocity = velocity.at[axis].multiply(jnp.where(hit, 0.0, 1.0))
        state = PointMazeState(position, velocity, state.goal, state.time + 1)
        late = state.time >= params.max_steps
        if reward == "dense":
            return state, TimeStep(observe(state), jnp.exp(-distance(state)), jnp.bool_(False), late)
        there = distance(state) < RADIUS
        return state, TimeStep(observe(state), there.astype(jnp.float32), there, late & ~there)

    params = PointMazeParams(jnp.float32(goal), jnp.int32(max_steps), jnp.bool_(random_goal))
    height, width = walls.shape
    low = (0.0, 0.0, -MAX_SPEED, -MAX_SPEED, 0.0, 0.0)
    high = (float(height), float(width), MAX_SPEED, MAX_SPEED, float(height), float(width))
    return Env(reset, step, params, spaces.Box(low, high, (6,)), spaces.Box(-1.0, 1.0, (2,)))


def waypoint_controller(size: str, *, gain: float = 3.0, damping: float = 1.5) -> Callable[[Array, Array], Array]:
    """A controller (observation [..., 6], goal [..., 2]) -> action [..., 2] that follows shortest paths of cells.

    It pushes toward the center of the next cell on a shortest path (breadth-first search, four neighbors), against its
    velocity, and toward the goal itself once in the goal's cell. Data that only parts of which lead to the task's goal
    comes from other goals than the observation's.

    Raises:
      ValueError: for an unknown size.
    """
    following = _next_cells(size)
    walls = _walls(size)

    def act(observation, goal):
        position, velocity = observation[..., :2], observation[..., 2:4]
        cell, last = (jnp.floor(x).astype(jnp.int32) for x in (position, goal))
        indices = [c[..., 0] * walls.shape[1] + c[..., 1] for c in (cell, last)]
        step = jnp.asarray(following)[indices[0], indices[1]]  # row and column of the next cell
        target = jnp.where(jnp.all(cell == last, -1, keepdims=True), goal, step + 0.5)
        return jnp.clip(gain * (target - position) - damping * velocity, -1.0, 1.0)

    return act


def _walls(size: str) -> np.ndarray:
    """[rows, columns] bool.

    Raises:
      ValueError: for an unknown size.
    """
    if size not in MAZES:
        raise ValueError(f"point_maze: size is {size!r}, allowed: {', '.join(map(repr, MAZES))}")
    return np.array([[x == "#" for x in row] for row in MAZES[size]])


def _free_cells(size: str) -> np.ndarray:
    """[C, 2] rows and columns."""
    return np.argwhere(~_walls(size))


@functools.cache
def _next_cells(size: str) -> np.ndarray:
    """[cells, cells, 2]: the cell after one, on a shortest path to another; cells are row * columns + column."""
    walls = _walls(size)
    height, width = walls.shape
    following = np.zeros((height * width, height * width, 2), np.int32)
    for goal in map(tuple, _free_cells(size)):
        index = goal[0] * width + goal[1]
        following[index, index] = goal
        seen, queue = {goal}, collections.deque([goal])
        while queue:
            row, column = queue.popleft()
            for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if cell not in seen and not walls[cell]:
                    seen.add(cell)
                    queue.append(cell)
                    following[cell[0] * width + cell[1], index] = row, column
    return following
