"""A controller that solves the mazes, and data of it: what offline learners of goals learn from.

The three ways of OGBench (Park et al. 2024, https://arxiv.org/abs/2410.20092; data_gen_scripts/generate_locomaze.py of
its repository), with its noise and its lengths of episodes, in the physics of our point mass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.point_maze.maps import cell_index, corners, distances, free_cells, next_cells, walls
from jaxrl.envs.point_maze.task import START_NOISE, THRUST, move
from jaxrl.types import Array, Transition

ARRIVED = 0.25  # cells: how near the navigator comes to a goal before it turns to the next


def waypoint_controller(size: str, *, gain: float = 3.0, damping: float = 1.5) -> Callable[[Array, Array], Array]:
    """A controller (observation [..., >= 4], goal [..., 2]) -> action [..., 2] that follows shortest paths of cells.

    It pushes toward the center of the next cell on a shortest path (breadth-first search, four neighbors), against its
    velocity, and toward the goal itself once in the goal's cell. Data that only parts of which lead to the task's goal
    comes from other goals than the observation's.

    Raises:
      ValueError: for an unknown size.
    """
    following = next_cells(size)

    def act(observation, goal):
        position, velocity = observation[..., :2], observation[..., 2:4]
        here, there = (cell_index(size, x) for x in (position, goal))
        target = jnp.asarray(following)[here, there] + 0.5  # the center of the next cell
        target = jnp.where((here == there)[..., None], goal, target)
        return jnp.clip(gain * (target - position) - damping * velocity, -1.0, 1.0)

    return act


def collect_navigate(
    key: Array,
    size: str,
    num_steps: int,
    *,
    noise: float = 0.5,
    episode_length: int | None = None,
    thrust: float = THRUST,
) -> Transition:
    """Episodes that go from goal to goal, each in a random corner or crossing of the maze: long and near optimal.

    Args:
      num_steps: D, rows of the data, exactly; the last episode is cut there.
      noise: standard deviation of the Gaussian that is added to actions before they are clipped to [-1, 1].
      episode_length: steps; None: 1000, and 2000 in the giant maze.
      thrust: of the environment that it is for.

    Returns:
      Transitions [D] on the device, episode after episode: observations [D, 4] are position and velocity, actions
      [D, 2]. Rewards are 0 and nothing terminates: a goal is what the learner makes one. `jaxrl.data.Dataset` holds
      them as well as `offline` takes them. The same key gives the same bits.

    Raises:
      ValueError: for an unknown size, num_steps or episode_length < 1, noise that is negative or not
        finite, or thrust outside of (0, 4].
    """
    episode_length = (2000 if size == "giant" else 1000) if episode_length is None else episode_length
    return _collect(key, size, "navigate", num_steps, noise, thrust, episode_length, 0)


def collect_stitch(
    key: Array,
    size: str,
    num_steps: int,
    *,
    noise: float = 0.5,
    episode_length: int = 200,
    distance: int = 4,
    thrust: float = THRUST,
) -> Transition:
    """Episodes that go to a cell exactly `distance` cells away and stay there: no one shows a whole way.

    Arguments, results and errors are those of `collect_navigate`. From a cell that has none at that distance, an
    episode stays where it is.
    """
    if distance < 1:
        raise ValueError(f"collect_stitch: distance is {distance}, must be >= 1")
    return _collect(key, size, "stitch", num_steps, noise, thrust, episode_length, distance)


def collect_explore(
    key: Array,
    size: str,
    num_steps: int,
    *,
    noise: float = 1.0,
    episode_length: int = 500,
    hold: int = 10,
    thrust: float = THRUST,
) -> Transition:
    """Episodes that push in a random direction for `hold` steps, then in another: wide and aimless.

    Arguments, results and errors are those of `collect_navigate`.
    """
    if hold < 1:
        raise ValueError(f"collect_explore: hold is {hold}, must be >= 1")
    return _collect(key, size, "explore", num_steps, noise, thrust, episode_length, hold)


def _collect(key, size, kind, num_steps, noise, thrust, episode_length, number) -> Transition:
    walls(size)
    for name, value in (("num_steps", num_steps), ("episode_length", episode_length)):
        if value < 1:
            raise ValueError(f"collect_{kind}: {name} is {value}, must be >= 1")
    if not 0 <= noise < np.inf:
        raise ValueError(f"collect_{kind}: noise is {noise}, must be finite and >= 0")
    if not 0 < thrust <= THRUST:
        raise ValueError(f"collect_{kind}: thrust is {thrust}, must be in (0, {THRUST:g}]")
    numbers = (jnp.float32(noise), jnp.float32(thrust))
    return _play(key, size, kind, num_steps, numbers, min(episode_length, num_steps), number)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 5, 6))
def _play(key, size, kind, num_steps, numbers, episode_length, number) -> Transition:
    noise, thrust = numbers
    num_episodes = -(-num_steps // episode_length)
    solid, cells, controller = walls(size), free_cells(size), waypoint_controller(size)
    start_key, goal_key, play_key = jax.random.split(key, 3)

    def near(key, centers, shape):
        """Positions about the centers of random cells."""
        cell_key, noise_key = jax.random.split(key)
        chosen = jax.random.choice(cell_key, jnp.asarray(centers, jnp.float32) + 0.5, shape[:-1])
        return chosen + jax.random.uniform(noise_key, shape, minval=-START_NOISE, maxval=START_NOISE)

    def step(carry, key):
        position, velocity, aim, time = carry
        aim_key, noise_key = jax.random.split(key)
        moving = jnp.concatenate([position, velocity], -1)
        if kind == "explore":
            drawn = jax.random.normal(aim_key, aim.shape)
            drawn = drawn * jax.lax.rsqrt(jnp.sum(drawn**2, -1, keepdims=True) + 1e-12)
            aim = action = jnp.where(time % number == 0, drawn, aim)
        else:
            action = controller(moving, aim)
        action = jnp.clip(action + noise * jax.random.normal(noise_key, aim.shape), -1.0, 1.0)
        position, velocity = move(solid, position, velocity, action, thrust)
        if kind == "navigate":
            arrived = jnp.sum((position - aim) ** 2, -1, keepdims=True) < ARRIVED**2
            aim = jnp.where(arrived, near(aim_key, corners(size), aim.shape), aim)
        return (position, velocity, aim, time + 1), (moving, action)

    shape = (num_episodes, 2)
    position = near(start_key, cells, shape)
    aim = _goals_at(goal_key, size, position, number) if kind == "stitch" else near(goal_key, corners(size), shape)
    first = (position, jnp.zeros(shape), aim, jnp.int32(0))
    last, (moving, action) = jax.lax.scan(step, first, jax.random.split(play_key, episode_length))
    following = jnp.concatenate([moving[1:], jnp.concatenate(last[:2], -1)[None]])
    ends = jnp.arange(1, num_episodes * episode_length + 1) % episode_length == 0
    observation, action, following = (
        jnp.swapaxes(x, 0, 1).reshape(-1, x.shape[-1])[:num_steps] for x in (moving, action, following)
    )
    none = jnp.zeros(num_steps, bool)
    return Transition(observation, action, jnp.zeros(num_steps), none, ends[:num_steps].at[-1].set(True), following, {})


def _goals_at(key: Array, size: str, position: Array, distance: int) -> Array:
    """[N, 2] about the centers of random cells that are exactly `distance` away; where there is none, the own one."""
    cell_key, noise_key = jax.random.split(key)
    here = cell_index(size, position)
    fits = jnp.asarray(distances(size) == distance)[here]  # [N, cells]
    there = jax.random.categorical(cell_key, jnp.where(fits, 0.0, -jnp.inf))
    there = jnp.where(jnp.any(fits, -1), there, here)
    row, column = jnp.divmod(there, walls(size).shape[1])
    center = jnp.stack([row, column], -1) + 0.5
    return center + jax.random.uniform(noise_key, center.shape, minval=-START_NOISE, maxval=START_NOISE)
