"""The point maze: its physics by hand, its walls, its two rewards, and the controller that solves it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import point_maze as maze
from jaxrl.envs.check import check_env

KEY = jax.random.key(0)


def drive(env, controller, num, num_steps, goal=None, seed=0):
    """Follows the controller to `goal` (the observation's if None). Returns the steps [T, num] and observations."""
    reset_key, step_key = jax.random.split(jax.random.key(seed))
    state, observation = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num), env.params)

    def step(carry, key):
        state, observation = carry
        action = controller(observation, observation[:, 4:] if goal is None else goal)
        state, ts = jax.vmap(env.step, (0, 0, 0, None))(jax.random.split(key, num), state, action, env.params)
        return (state, ts.observation), ts

    play = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(step_key, num_steps))[1])
    return play((state, observation)), observation


@pytest.mark.parametrize("reward", ["sparse", "dense"])
def test_it_is_a_proper_environment(reward):
    for size in maze.MAZES:
        check_env(maze.point_maze(size, reward=reward, max_steps=20))


def test_physics_by_hand():
    """v' = v + 0.1 (4 a - 2 v), x' = x + 0.1 v'; a wall stops the axis that meets it and leaves the other."""
    env = maze.point_maze("umaze")
    state = maze.PointMazeState(jnp.float32([1.5, 2.5]), jnp.float32([1.0, -0.5]), env.params.goal, jnp.int32(3))
    after, ts = env.step(KEY, state, jnp.float32([0.5, -2.0]), env.params)
    velocity = np.array([1.0 + 0.1 * (2.0 - 2.0), -0.5 + 0.1 * (-4.0 + 1.0)])
    np.testing.assert_allclose(after.velocity, velocity, rtol=1e-6)
    np.testing.assert_allclose(after.position, [1.5 + 0.1 * velocity[0], 2.5 + 0.1 * velocity[1]], rtol=1e-6)
    np.testing.assert_allclose(ts.observation, [*after.position, *after.velocity, 1.5, 1.5], rtol=1e-6)
    state = state._replace(position=jnp.float32([1.05, 2.5]), velocity=jnp.float32([-1.0, 0.5]))
    after, _ = env.step(KEY, state, jnp.float32([-1.0, 0.0]), env.params)  # the wall above
    np.testing.assert_allclose(after.velocity, [0.0, 0.4], rtol=1e-6)
    np.testing.assert_allclose(after.position, [1.05, 2.54], rtol=1e-6)


def test_no_walk_leaves_the_free_cells():
    env = maze.point_maze("large", max_steps=10_000)
    walls = np.array([[x == "#" for x in row] for row in maze.MAZES["large"]])
    noise = jax.random.normal(KEY, (64, 2))
    steps, _ = drive(env, lambda o, goal: jnp.sign(jnp.sin(7.0 * o[:, :2] + 3.0 * noise)), 64, 2000)
    cells = np.floor(np.asarray(steps.observation[..., :2])).astype(int).reshape(-1, 2)
    assert not walls[cells[:, 0], cells[:, 1]].any()
    assert len(np.unique(cells, axis=0)) > 10


def test_rewards_and_ends():
    sparse, dense = (maze.point_maze("umaze", reward=reward, max_steps=5) for reward in ("sparse", "dense"))
    at = lambda x, time=0: maze.PointMazeState(jnp.float32(x), jnp.zeros(2), sparse.params.goal, jnp.int32(time))  # noqa: E731
    still = jnp.zeros(2)
    _, ts = sparse.step(KEY, at([1.5, 1.99]), still, sparse.params)
    assert (ts.reward, ts.terminated, ts.truncated) == (1.0, True, False)
    _, ts = sparse.step(KEY, at([1.5, 2.01], time=4), still, sparse.params)
    assert (ts.reward, ts.terminated, ts.truncated) == (0.0, False, True)
    _, ts = sparse.step(KEY, at([1.5, 1.99], time=4), still, sparse.params)
    assert (ts.terminated, ts.truncated) == (True, False)
    _, ts = dense.step(KEY, at([1.5, 2.5], time=4), still, dense.params)
    np.testing.assert_allclose(ts.reward, np.exp(-1.0), rtol=1e-6)
    assert (ts.terminated, ts.truncated) == (False, True)
    _, ts = dense.step(KEY, at([1.5, 1.5]), still, dense.params)
    assert (ts.reward, ts.terminated, ts.truncated) == (1.0, False, False)


def test_starts_and_goals():
    """All free cells but the goal's are starts; with random goals every cell is one, and never the start's."""
    env = maze.point_maze("medium", random_goal=True)
    _, fixed = drive(maze.point_maze("medium"), lambda o, g: 0.0 * g, 2000, 1)
    _, random = drive(env, lambda o, g: 0.0 * g, 2000, 1)
    free = sum(x != "#" for row in maze.MAZES["medium"] for x in row)
    assert len(np.unique(np.floor(fixed[:, :2]), axis=0)) == free - 1
    np.testing.assert_array_equal(np.unique(fixed[:, 4:], axis=0), [[6.5, 6.5]])
    assert len(np.unique(np.floor(random[:, 4:]), axis=0)) == free
    assert not np.all(np.floor(random[:, :2]) == np.floor(random[:, 4:]), axis=1).any()


@pytest.mark.parametrize("size", maze.MAZES)
def test_the_controller_reaches_the_goal(size):
    """From every start and in time, also to goals of its own."""
    env = maze.point_maze(size)
    steps, _ = drive(env, maze.waypoint_controller(size), 256, maze.MAX_STEPS[size])
    assert steps.terminated.any(0).all()
    steps, _ = drive(maze.point_maze(size, random_goal=True), maze.waypoint_controller(size), 256, maze.MAX_STEPS[size])
    assert steps.terminated.any(0).all()
    corner = jnp.float32([1.5, 2.5])
    steps, _ = drive(
        env, maze.waypoint_controller(size), 64, maze.MAX_STEPS[size], goal=jnp.broadcast_to(corner, (64, 2))
    )
    assert (jnp.sqrt(jnp.sum((steps.observation[-1, :, :2] - corner) ** 2, -1)) < 0.2).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(size="huge"), "size is 'huge', allowed: 'umaze', 'medium', 'large'"),
        (dict(reward="none"), "reward is 'none', allowed"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        maze.point_maze(**arguments)
