"""The point maze: its physics by hand, its walls, its two rewards, and the controller that solves it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import data
from jaxrl.envs import pictures
from jaxrl.envs import point_maze as maze
from jaxrl.envs.check import check_env
from jaxrl.envs.point_maze.maps import corners
from jaxrl.envs.point_maze.task import move

KEY = jax.random.key(0)
OTHER = {"reward": "dense", "view": "goal", "random_goal": True, "random_start": False}
DATA = {
    "navigate": functools.partial(maze.collect_navigate, episode_length=100, noise=0.0),
    "stitch": functools.partial(maze.collect_stitch, episode_length=100, noise=0.0),
    "explore": functools.partial(maze.collect_explore, episode_length=100, noise=0.0),
}


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


@pytest.mark.parametrize("size, options", [*((s, {}) for s in maze.MAZES), ("umaze", OTHER)], ids=str)
def test_it_is_a_proper_environment(size, options):
    check_env(maze.point_maze(size, max_steps=20, **options))


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
    state = state._replace(position=jnp.float32([1.95, 3.05]), velocity=jnp.float32([1.0, -1.0]))
    after, _ = env.step(KEY, state, jnp.float32([0.5, -0.5]), env.params)  # a corner: down it goes, and left is a wall
    np.testing.assert_allclose(after.velocity, [1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(after.position, [2.05, 3.05], rtol=1e-6)


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
    corner = jnp.float32(maze.TASKS[size][0][0]) + 0.5
    steps, _ = drive(
        env, maze.waypoint_controller(size), 64, maze.MAX_STEPS[size], goal=jnp.broadcast_to(corner, (64, 2))
    )
    assert (jnp.sqrt(jnp.sum((steps.observation[-1, :, :2] - corner) ** 2, -1)) < 0.2).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(size="huge"), "size is 'huge', allowed: 'umaze', 'medium', 'large'"),
        (dict(reward="none"), "reward is 'none', allowed"),
        (dict(view="rgb"), "view is 'rgb', allowed: 'flat', 'goal'"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
        (dict(thrust=5.0), r"thrust is 5.0, must be in \(0, 4\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        maze.point_maze(**arguments)


def test_other_arguments():
    for message, call in {
        "size is 'huge', allowed": lambda: maze.distances("huge"),
        "task_params: episodes is 0": lambda: maze.task_params(maze.point_maze("umaze"), "umaze", 0),
        "collect_navigate: num_steps is 0": lambda: maze.collect_navigate(KEY, "umaze", 0),
        "collect_navigate: noise is nan": lambda: maze.collect_navigate(KEY, "umaze", 9, noise=float("nan")),
        "collect_explore: thrust is 0": lambda: maze.collect_explore(KEY, "umaze", 9, thrust=0),
        "collect_stitch: distance is 0": lambda: maze.collect_stitch(KEY, "umaze", 9, distance=0),
        "collect_explore: hold is 0": lambda: maze.collect_explore(KEY, "umaze", 9, hold=0),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


# Shortest paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, num_cells, longest", [("umaze", 7, 6), ("medium", 26, 11), ("large", 46, 19), ("giant", 86, 31)]
)
def test_distances_are_those_of_repeated_relaxation(size, num_cells, longest):
    """d(x, g) = min over neighbors y of 1 + d(y, g), from infinity on; next cells are one nearer."""
    walls, cells = maze.walls(size), maze.free_cells(size)
    width = walls.shape[1]
    index = cells[:, 0] * width + cells[:, 1]
    neighbors = np.abs(cells[:, None] - cells).sum(-1) == 1
    expected = np.where(np.eye(len(cells), dtype=bool), 0.0, np.inf)
    for _ in range(len(cells)):
        through = np.where(neighbors[:, :, None], 1 + expected, np.inf).min(1)
        expected = np.minimum(expected, through)
    table = maze.distances(size)
    np.testing.assert_array_equal(table[np.ix_(index, index)], expected)
    assert len(cells) == num_cells and expected.max() == longest
    others = np.setdiff1d(np.arange(walls.size), index)
    assert (table[others] == -1).all() and (table[:, others] == -1).all()
    following = maze.next_cells(size)[np.ix_(index, index)]
    following = following[..., 0] * width + following[..., 1]
    assert (table[following, index] == np.maximum(expected - 1, 0)).all()
    assert (np.abs(table[index[:, None], following]) == (expected > 0)).all()  # a neighbor, or the goal itself


def test_the_giant_maze_is_that_of_ogbench():
    """Distances of its five tasks, and where paths meet: counted on the map in ogbench/locomaze/maze.py."""
    starts, goals = (jnp.array(x) + 0.5 for x in zip(*maze.TASKS["giant"]))
    np.testing.assert_array_equal(maze.grid_distance("giant")(starts, goals), [30, 26, 30, 26, 17])
    assert len(corners("giant")) == 46
    straight = {(2, 1), (1, 4), (4, 14)}
    assert not straight & set(map(tuple, corners("giant"))) and (3, 1) in set(map(tuple, corners("giant")))


# What is seen, and tasks ---------------------------------------------------------------------------------------------


def test_the_view_of_goals_is_the_same_task():
    flat, goals = maze.point_maze("medium"), maze.point_maze("medium", view="goal")
    (state, seen), (_, parts) = (env.reset(KEY, env.params) for env in (flat, goals))
    for action in (jnp.array([1.0, 0.3]), jnp.array([-0.5, 1.0])):
        np.testing.assert_array_equal(seen, jnp.concatenate([parts["observation"], parts["desired_goal"]]))
        np.testing.assert_array_equal(parts["achieved_goal"], parts["observation"][:2])
        _, other = goals.step(KEY, state, action, goals.params)
        state, ts = flat.step(KEY, state, action, flat.params)
        seen, parts = ts.observation, other.observation
        assert (ts.reward, ts.terminated, ts.truncated) == (other.reward, other.terminated, other.truncated)


def test_tasks_are_starts_and_goals():
    env = maze.point_maze("giant", max_steps=7, random_goal=True)
    params = maze.task_params(env, "giant", 20)
    _, observation = jax.jit(jax.vmap(env.reset))(jax.random.split(KEY, 100), params)
    starts, goals = (np.repeat(np.array(x) + 0.5, 20, 0) for x in zip(*maze.TASKS["giant"]))
    np.testing.assert_array_equal(observation[:, 4:], goals)
    assert (np.abs(observation[:, :2] - starts) <= 0.2).all() and len(np.unique(observation[:, 0])) > 90
    assert (params.max_steps == 7).all()


def test_thrust_is_twice_the_speed():
    """v' = 0.8 v + 0.1 thrust a has its fixed point at thrust / 2."""
    env = maze.point_maze("large", thrust=1.0)
    state = maze.PointMazeState(jnp.float32([3.5, 1.5]), jnp.float32([0.0, 0.5]), env.params.goal, jnp.int32(0))
    after, _ = env.step(KEY, state, jnp.float32([0.0, 1.0]), env.params)
    np.testing.assert_allclose(after.velocity, [0.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(after.position, [3.5, 1.55], rtol=1e-6)


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DATA)
def test_data_is_episodes_of_the_physics(kind):
    """950 rows of episodes of 100: each row is a step, each successor the next row, and the last episode is cut."""
    rows = DATA[kind](KEY, "medium", 950)
    jax.tree.map(np.testing.assert_array_equal, rows, DATA[kind](KEY, "medium", 950))
    assert not np.array_equal(rows.action, DATA[kind](jax.random.key(1), "medium", 950).action)
    position, velocity = move(maze.walls("medium"), rows.observation[:, :2], rows.observation[:, 2:], rows.action)
    np.testing.assert_allclose(jnp.concatenate([position, velocity], -1), rows.next_observation, atol=1e-5)
    inside = ~rows.truncated
    np.testing.assert_array_equal(rows.next_observation[inside], rows.observation[1:][inside[:-1]])
    np.testing.assert_array_equal(np.flatnonzero(rows.truncated), [*range(99, 950, 100), 949])
    assert not rows.terminated.any() and not rows.reward.any()
    np.testing.assert_array_equal(rows.observation[::100, 2:], 0.0)  # episodes begin at rest, where they like
    assert len(np.unique(np.floor(rows.observation[::100, :2]), axis=0)) > 5
    data.check(jax.device_get(rows))


def test_stitching_goes_four_cells_and_stays():
    rows = DATA["stitch"](KEY, "giant", 20_000)
    path = np.asarray(rows.next_observation).reshape(200, 100, 4)
    distance = maze.grid_distance("giant")(path[:, :, :2], np.asarray(rows.observation).reshape(200, 100, 4)[:, :1, :2])
    assert (distance[:, -1] == 4).all() and distance.max() == 4
    assert len(np.unique(np.floor(path[:, -1, :2]), axis=0)) > 40
    assert np.abs(path[:, -1, 2:]).max() < 0.01
    noisy = maze.collect_stitch(KEY, "giant", 20_000, episode_length=100)
    assert 0.3 < np.std(noisy.action - rows.action) < 0.6 and np.abs(noisy.action).max() == 1
    small = DATA["stitch"](KEY, "umaze", 2000, distance=6)  # from five of its seven cells there is no such goal
    ends = maze.grid_distance("umaze")(small.next_observation[99::100, :2], small.observation[::100, :2])
    assert set(np.asarray(ends).tolist()) == {0, 6}


def test_navigating_goes_from_goal_to_goal():
    """Where it turns, it stood within a quarter of a cell of a goal; it is rarely at rest and comes everywhere."""
    rows = maze.collect_navigate(KEY, "giant", 40_000, noise=0.0)
    assert np.flatnonzero(rows.truncated).tolist() == [*range(1999, 40_000, 2000)]
    cells = np.floor(rows.observation[:, :2]).astype(int)
    assert len(np.unique(cells, axis=0)) == 86
    speed = np.linalg.norm(rows.observation[:, 2:], axis=-1)
    assert np.mean(speed < 0.1) < 0.05
    # Turns back are rare: where the cells are a, b, a in a row, b was the goal. So goals are many cells apart.
    entered = cells[:2000][np.append(True, (np.diff(cells[:2000], axis=0) != 0).any(-1))]
    turns = (entered[2:] == entered[:-2]).all(-1)
    assert 0 < turns.sum() < 0.15 * len(turns)


def test_exploring_holds_a_direction():
    rows = DATA["explore"](KEY, "large", 1000)
    held = np.asarray(rows.action).reshape(10, 10, 10, 2)  # episode, direction, step
    assert (held == held[:, :, :1]).all()
    np.testing.assert_allclose(np.linalg.norm(held[:, :, 0], axis=-1), 1.0, rtol=1e-5)
    assert len(np.unique(held[:, :, 0, 0])) == 100
    slow = DATA["explore"](KEY, "large", 1000, thrust=1.0)
    assert 0.4 < np.abs(slow.observation[:, 2:]).max() <= 0.5 < np.abs(rows.observation[:, 2:]).max()


# Pictures ------------------------------------------------------------------------------------------------------------


def test_a_picture_of_a_known_state():
    env = maze.point_maze("umaze")
    state = maze.PointMazeState(jnp.float32([3.5, 2.5]), jnp.zeros(2), env.params.goal, jnp.int32(0))
    picture = np.asarray(jax.jit(env.render)(state, env.params))
    assert picture.shape == (80, 80, 3) and picture.dtype == np.uint8
    pixel = lambda row, column: tuple(picture[int(16 * row), int(16 * column)])  # noqa: E731
    assert pixel(3.5, 2.5) == pixel(3.5, 2.35) == pictures.AGENT
    assert pixel(1.5, 1.5) == pixel(1.1, 1.5) == pictures.GOAL
    assert pixel(3.5, 2.75) == pixel(1.5, 2.1) == pixel(2.5, 3.5) == pictures.FLOOR
    assert pixel(0.5, 0.5) == pixel(2.5, 2.5) == pixel(4.9, 4.9) == pictures.WALL
    moved = np.asarray(env.render(state._replace(position=jnp.float32([3.5, 3.5])), env.params))
    agent = lambda p: (p == pictures.AGENT).all(-1)  # noqa: E731
    np.testing.assert_array_equal(np.roll(agent(picture), 16, axis=1), agent(moved))
