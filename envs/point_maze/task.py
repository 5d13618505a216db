"""The environment: a point mass in a maze, its physics and its ends. Distances are in cells, times in steps of 0.1."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import pictures
from jaxrl.envs.point_maze.maps import MAZES, TASKS, free_cells, walls
from jaxrl.types import Array, Env, PyTree, TimeStep

MAX_STEPS = {"umaze": 100, "medium": 200, "large": 400, "giant": 600}
TIME_STEP = 0.1
DRAG = 2.0  # velocity lost per unit of time, so that full thrust of 4 reaches a speed of 2
THRUST = 4.0
MAX_SPEED = 2.0
RADIUS = 0.5  # of the goal
START_NOISE = 0.2  # a start is drawn from the square of this half-width about its cell's center


class PointMazeParams(NamedTuple):
    goal: Array  # [2] position of the goal
    max_steps: Array  # [] int32
    random_goal: Array  # [] bool, a new goal in any free cell at every reset
    start: Array  # [2] center of the start's cell, unless random_start
    random_start: Array  # [] bool
    thrust: Array  # [] acceleration at action 1; a half of it is the speed that it leads to


class PointMazeState(NamedTuple):
    position: Array  # [2]
    velocity: Array  # [2]
    goal: Array  # [2]
    time: Array  # [] int32


def point_maze(
    size: str = "umaze",
    *,
    reward: str = "sparse",
    view: str = "flat",
    random_goal: bool = False,
    random_start: bool = True,
    max_steps: int | None = None,
    thrust: float = THRUST,
) -> Env:
    """Steer a point mass from a random free cell to the goal.

    Actions [2] in [-1, 1] are thrust along rows and columns. Observations [6] are position, velocity and the goal's
    position. Sparse reward: 1 and termination within 0.5 of the goal, else 0. Dense: exp(-distance to the goal) at
    every step, no termination. The clock truncates after `max_steps`.

    Args:
      size: "umaze" (7 free cells), "medium" (26), "large" (46) or "giant" (86).
      reward: "sparse" or "dense".
      view: "flat", or "goal": a dict of "observation" [4] (position, velocity), "achieved_goal" and "desired_goal" [2]
        (positions), for learners that are given goals.
      random_goal, random_start, max_steps, thrust: `Env.params`, traced. Without `random_start`, episodes start about
        `Env.params.start`, the center of a cell. `max_steps` None: 100, 200, 400 or 600. Thrust is at most 4; with 1 a
        cell takes 20 steps, as for the point of OGBench (give it more steps then).

    Raises:
      ValueError: for an unknown size, reward or view, max_steps < 1, or thrust outside of (0, 4].
    """
    solid, cells = walls(size), free_cells(size)
    for name, value, allowed in (("reward", reward, ("sparse", "dense")), ("view", view, ("flat", "goal"))):
        if value not in allowed:
            raise ValueError(f"point_maze: {name} is {value!r}, allowed: {', '.join(map(repr, allowed))}")
    max_steps = MAX_STEPS[size] if max_steps is None else max_steps
    if max_steps < 1:
        raise ValueError(f"point_maze: max_steps is {max_steps}, must be >= 1")
    if not 0 < thrust <= THRUST:
        raise ValueError(f"point_maze: thrust is {thrust}, must be in (0, {THRUST:g}]")
    centers = (cells + 0.5).astype(np.float32)
    goal = next((r + 0.5, c + 0.5) for r, row in enumerate(MAZES[size]) for c, x in enumerate(row) if x == "G")
    start = np.array(TASKS[size][0][0]) + 0.5

    def observe(state: PointMazeState) -> PyTree:
        return observation(view, state.position, state.velocity, state.goal)

    def reset(key, params):
        start_key, noise_key, goal_key = jax.random.split(key, 3)
        choices = jax.random.choice(goal_key, jnp.asarray(centers))
        target = jnp.where(params.random_goal, choices, params.goal)
        # A start within the goal's reach would end at once: such cells are not drawn.
        far = jnp.sqrt(jnp.sum((centers - target) ** 2, -1)) > 1.5 * RADIUS
        center = jax.random.choice(start_key, jnp.asarray(centers), p=far / jnp.sum(far))
        center = jnp.where(params.random_start, center, params.start)
        position = center + jax.random.uniform(noise_key, (2,), minval=-START_NOISE, maxval=START_NOISE)
        state = PointMazeState(position, jnp.zeros(2), target, jnp.int32(0))
        return state, observe(state)

    def step(key, state, action, params):
        del key
        position, velocity = move(solid, state.position, state.velocity, action, params.thrust)
        state = PointMazeState(position, velocity, state.goal, state.time + 1)
        paid, terminated = outcome(reward, state.position, state.goal)
        truncated = ~terminated & (state.time >= params.max_steps)
        return state, TimeStep(observe(state), paid, terminated, truncated)

    params = PointMazeParams(
        jnp.float32(goal),
        jnp.int32(max_steps),
        jnp.bool_(random_goal),
        jnp.float32(start),
        jnp.bool_(random_start),
        jnp.float32(thrust),
    )

    def render(state, params):
        del params
        return picture(solid, state.position, state.goal)

    return Env(reset, step, params, space(solid.shape, view), spaces.Box(-1.0, 1.0, (2,)), render)


def picture(solid: np.ndarray, position: Array, goal: Array) -> Array:
    """The maze from above, with the goal's reach and the point."""
    drawn = pictures.disc(pictures.board(solid), goal, RADIUS, pictures.GOAL)
    return pictures.disc(drawn, position, 0.2, pictures.AGENT)


def observation(view: str, position: Array, velocity: Array, goal: Array) -> PyTree:
    """What is seen: [6], or a dict for learners that are given goals."""
    if view == "flat":
        return jnp.concatenate([position, velocity, goal])
    moving = jnp.concatenate([position, velocity])
    return {"observation": moving, "achieved_goal": position, "desired_goal": goal}


def outcome(reward: str, position: Array, goal: Array) -> tuple[Array, Array]:
    """reward [], terminated [] at a position: sparse 1 and the end within reach of the goal, dense exp(-distance)."""
    distance = jnp.sqrt(jnp.sum((position - goal) ** 2))
    if reward == "dense":
        return jnp.exp(-distance), jnp.bool_(False)
    there = distance < RADIUS
    return there.astype(jnp.float32), there


def move(
    solid: np.ndarray, position: Array, velocity: Array, action: Array, thrust: Array | float = THRUST
) -> tuple[Array, Array]:
    """Position and velocity [..., 2] after a step: a unit mass with drag, and walls that stop the axis that meets them.

    v' = clip(v + 0.1 (thrust clip(a, -1, 1) - 2 v), -2, 2), x' = x + 0.1 v'.
    """
    velocity = velocity + TIME_STEP * (thrust * jnp.clip(action, -1.0, 1.0) - DRAG * velocity)
    velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
    for axis in (0, 1):  # one after the other, so that a point slides along a wall
        moved = position.at[..., axis].add(TIME_STEP * velocity[..., axis])
        cell = jnp.floor(moved).astype(jnp.int32)
        hit = jnp.asarray(solid)[cell[..., 0], cell[..., 1]]
        position = jnp.where(hit[..., None], position, moved)
        velocity = velocity.at[..., axis].multiply(jnp.where(hit, 0.0, 1.0))
    return position, velocity


def task_params(env: Env, size: str, episodes: int = 1) -> PointMazeParams:
    """OGBench's evaluation tasks as parameters [episodes * tasks] of the environment: starts, goals, `random_*` off.

    Example: `evaluate(key, agent, state, env, task_params(env, "giant", 20), num_episodes=100)`; row i is of task
    i // episodes.

    Raises:
      ValueError: for an unknown size, or episodes < 1.
    """
    walls(size)
    if episodes < 1:
        raise ValueError(f"task_params: episodes is {episodes}, must be >= 1")
    starts, goals = np.swapaxes(np.repeat(np.array(TASKS[size]), episodes, 0), 0, 1) + 0.5
    num = len(goals)
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), env.params)
    off = jnp.zeros(num, bool)
    return params._replace(goal=jnp.float32(goals), start=jnp.float32(starts), random_goal=off, random_start=off)


def space(shape: tuple[int, int], view: str) -> spaces.Space:
    """Of observations in a maze of that many rows and columns."""
    place, speed = (tuple(map(float, shape)), (MAX_SPEED, MAX_SPEED))
    moving = spaces.Box((0.0, 0.0, -MAX_SPEED, -MAX_SPEED), (*place, *speed), (4,))
    somewhere = spaces.Box((0.0, 0.0), place, (2,))
    if view == "goal":
        return spaces.Dict({"observation": moving, "achieved_goal": somewhere, "desired_goal": somewhere})
    return spaces.Box((0.0, 0.0, -MAX_SPEED, -MAX_SPEED, 0.0, 0.0), (*place, *speed, *place), (6,))
