"""Four rooms: the layout, moves and slips against the rule, moving goals, ends, shortest paths, a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import four_rooms as rooms
from jaxrl.envs import make, pictures
from jaxrl.envs.check import check_env

KEY = jax.random.key(0)
ENV = rooms.four_rooms()
STEP = jax.jit(jax.vmap(ENV.step, (0, 0, 0, None)))
RESET = jax.jit(jax.vmap(ENV.reset, (0, None)))


def at(cells, goal, time=0):
    goal, time = (jnp.full(np.shape(cells), x, jnp.int32) for x in (goal, time))
    return rooms.FourRoomsState(jnp.asarray(cells, jnp.int32), goal, time)


def test_it_is_a_proper_environment():
    check_env(rooms.four_rooms(max_steps=20))
    check_env(make("four_rooms", view="cell", random_goal=False, goal=(1, 1)))


def test_layout():
    """104 cells; each hallway is the only way between two rooms, so without it the way round is longer."""
    assert len(rooms.CELLS) == 104 and rooms.cell_number((7, 9)) == 62  # the goal of option-critic's experiments
    distance = rooms.distances()
    assert (distance >= 0).all() and (distance == distance.T).all()
    for row, column in rooms.HALLWAYS:
        beside = [tuple(c) for c in rooms.CELLS if abs(c[0] - row) + abs(c[1] - column) == 1]
        assert len(beside) == 2
    for i, row in enumerate(distance):  # d(x, g) = min over moves of 1 + d(y, g)
        there = np.delete(distance[:, i], i)
        np.testing.assert_array_equal(np.delete(distance[rooms.transitions()].min(1)[:, i] + 1, i), there)


def test_moves_follow_the_map():
    """Every action in every cell without slips, against the characters of the map."""
    cells, actions = np.meshgrid(np.arange(104), np.arange(4), indexing="ij")
    params = ENV.params._replace(slip=jnp.float32(0.0))
    # A goal far away: 103 is the last cell, and what ends there is looked at below.
    state, ts = STEP(jax.random.split(KEY, 416), at(cells.ravel(), 103), jnp.asarray(actions.ravel()), params)
    for cell, action, there in zip(cells.ravel(), actions.ravel(), np.asarray(state.cell)):
        row, column = rooms.CELLS[cell] + [(-1, 0), (1, 0), (0, -1), (0, 1)][action]
        expected = cell if rooms.ROWS[row][column] == "#" else rooms.cell_number((row, column))
        assert there == expected
    np.testing.assert_array_equal(ts.terminated, state.cell == 103)
    np.testing.assert_array_equal(ts.reward, ts.terminated.astype(np.float32))
    assert ts.terminated.sum() == 4  # two moves into the corner, two against its walls
    np.testing.assert_array_equal(ts.observation.argmax(1), state.cell)
    np.testing.assert_array_equal(ts.observation[:, 104:].argmax(1), 103)
    np.testing.assert_array_equal(ts.observation.sum(1), 2.0)


def test_slips():
    """From (2, 3), two cells from any wall, up: 2/3 up and 1/9 each other way; and never up with slip 1."""
    num, cell = 30_000, rooms.cell_number((3, 3))
    up, other = rooms.transitions()[cell][0], rooms.transitions()[cell][1:]
    keys = jax.random.split(KEY, num)
    there = np.asarray(STEP(keys, at([cell] * num, 103), jnp.zeros(num, jnp.int32), ENV.params)[0].cell)
    for cells, p in [([up], 2 / 3), *(([x], 1 / 9) for x in other)]:
        assert abs(np.isin(there, cells).mean() - p) < 5 * np.sqrt(p * (1 - p) / num)
    always = ENV.params._replace(slip=jnp.float32(1.0))
    there = np.asarray(STEP(keys, at([cell] * num, 103), jnp.zeros(num, jnp.int32), always)[0].cell)
    assert set(there) == set(other)


def test_starts_and_moving_goals():
    state, _ = RESET(jax.random.split(KEY, 5000), ENV.params)
    assert len(np.unique(state.cell)) == len(np.unique(state.goal)) == 104
    assert not (state.cell == state.goal).any()
    for goal in (0, 62, 103):  # traced: the same program
        fixed = ENV.params._replace(goal=jnp.int32(goal), random_goal=jnp.bool_(False))
        state, _ = RESET(jax.random.split(KEY, 5000), fixed)
        assert (state.goal == goal).all() and len(np.unique(state.cell)) == 103
        counts = np.bincount(state.cell, minlength=104)
        assert counts[goal] == 0 and np.delete(counts, goal).min() > 20


def test_ends():
    params = ENV.params._replace(slip=jnp.float32(0.0), max_steps=jnp.int32(9))
    beside = rooms.cell_number((7, 9)) - 1
    goal = rooms.transitions()[beside][3]
    for action, time, ends in ((3, 8, (1.0, True, False)), (2, 8, (0.0, False, True)), (2, 7, (0.0, False, False))):
        _, ts = ENV.step(KEY, jax.tree.map(lambda x: x[0], at([beside], goal, time)), jnp.int32(action), params)
        assert (ts.reward, ts.terminated, ts.truncated) == ends


def test_a_picture_of_a_known_state():
    state = jax.tree.map(lambda x: x[0], at([rooms.cell_number((1, 1))], rooms.cell_number((11, 11))))
    picture = np.asarray(ENV.render(state, ENV.params))
    assert picture.shape == (208, 208, 3)
    pixel = lambda row, column: tuple(picture[16 * row + 8, 16 * column + 8])  # noqa: E731
    assert (pixel(1, 1), pixel(11, 11)) == (pictures.AGENT, pictures.GOAL)
    assert all(pixel(*cell) == pictures.FLOOR for cell in rooms.HALLWAYS)
    assert pixel(0, 0) == pixel(6, 4) == pixel(7, 8) == pictures.WALL


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(view="rgb"), "view is 'rgb', allowed"),
        (dict(slip=1.5), r"slip is 1.5, must be in \[0, 1\]"),
        (dict(goal=(6, 4)), r"\(6, 4\) is no free cell"),
        (dict(goal=(-1, 4)), r"\(-1, 4\) is no free cell"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        rooms.four_rooms(**arguments)
