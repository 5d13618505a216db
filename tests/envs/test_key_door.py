"""The corridor: its shortest episode counted, the key and the door, clocks, lengths as parameters, a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import make, pictures
from jaxrl.envs.check import check_env
from jaxrl.envs.key_door import KeyDoorState, key_door

KEY = jax.random.key(0)
ENVS = {False: key_door(), True: key_door(continuous=True)}
STEPS = {continuous: jax.jit(env.step) for continuous, env in ENVS.items()}


def step(continuous, state, move, params, key=KEY):
    action = jnp.array([move], jnp.float32) if continuous else jnp.int32(move > 0)
    return STEPS[continuous](key, state, action, params)


def at(position, has_key=False, time=0):
    return KeyDoorState(jnp.float32(position), jnp.bool_(has_key), jnp.int32(time))


@pytest.mark.parametrize("continuous", ENVS)
def test_it_is_a_proper_environment(continuous):
    check_env(make("key_door", continuous=continuous, length=5, slip=0.1))


@pytest.mark.parametrize("continuous", ENVS)
@pytest.mark.parametrize("length", [3, 8, 33])
def test_the_shortest_episode(continuous, length):
    """To the key and back: floor((length - 1) / 2) + length - 1 steps; paid once, in the last. Length is traced."""
    env, params = ENVS[continuous], key_door(length).params
    state, observation = env.reset(KEY, params)
    middle, rewards = (length - 1) // 2, []
    nearer = max(0.0, 1.0 - (length - 1 - middle)) - max(0.0, 1.0 - middle)
    np.testing.assert_allclose(observation, [2 * middle / (length - 1) - 1, 0.0, nearer], atol=1e-6)
    for t in range(middle + length - 1):
        state, ts = step(continuous, state, -1 if t < middle else 1, params)
        rewards.append(float(ts.reward))
        assert ts.observation[1] == (t >= middle - 1)
        assert ts.terminated == (t == middle + length - 2) and not ts.truncated
    assert rewards == [0.0] * (middle + length - 2) + [1.0]
    np.testing.assert_allclose(ts.observation, [1.0, 1.0, 1.0])


def test_the_door_needs_the_key_and_walls_stop():
    params = ENVS[False].params
    state, ts = step(False, at(14.0), 1, params)
    assert state.position == 15.0 and (ts.reward, ts.terminated) == (0.0, False)
    state, _ = step(False, state, 1, params)
    assert state.position == 15.0
    state, ts = step(False, at(0.0, True), -1, params)
    assert state.position == 0.0 and not ts.terminated
    np.testing.assert_allclose(ts.observation, [-1.0, 1.0, -1.0])


def test_reach_is_half_a_cell():
    params = ENVS[True].params
    for start, has_key, picked in ((1.5, False, True), (1.51, False, False), (1.51, True, True)):
        assert step(True, at(start, has_key), -1, params)[0].has_key == picked
    for start, opened in ((13.5, True), (13.49, False)):
        assert step(True, at(start, True), 1, params)[1].terminated == opened
    state, ts = step(True, at(14.0, True), -9.0, params)  # clipped to a cell
    assert state.position == 13.0
    np.testing.assert_allclose(ts.observation[2], 0.0)
    np.testing.assert_allclose(step(True, at(1.5, True), -0.75, params)[1].observation[2], -0.25)


def test_the_clock():
    params = ENVS[False].params
    assert params.max_steps == 64
    for time, position, ends in ((63, 8.0, (False, True)), (62, 8.0, (False, False)), (63, 14.0, (True, False))):
        _, ts = step(False, at(position, True, time), 1, params)
        assert (ts.terminated, ts.truncated) == ends


@pytest.mark.parametrize("continuous", ENVS)
def test_slips(continuous):
    """With slip 1 moves are drawn: of two cells, or uniformly from [-1, 1]."""
    params = ENVS[continuous].params._replace(slip=jnp.float32(1.0))
    action = jnp.ones(1) if continuous else jnp.int32(1)
    many = jax.jit(jax.vmap(lambda key: ENVS[continuous].step(key, at(8.0), action, params)[0].position))
    moves = np.asarray(many(jax.random.split(KEY, 10_000))) - 8.0
    assert abs(moves.mean()) < 5 / np.sqrt(10_000)
    assert set(np.unique(moves)) == {-1.0, 1.0} if not continuous else abs(moves.var() - 1 / 3) < 0.02


def test_a_picture_of_a_known_state():
    env = ENVS[False]
    picture = np.asarray(env.render(at(15.0 / 37 * 7), env.params))  # in the ninth of forty cells
    assert picture.shape == (48, 640, 3)
    pixel = lambda p, column: tuple(p[24, 16 * column + 8])  # noqa: E731
    colors = [pixel(picture, c) for c in (0, 1, 8, 20, 38, 39)]
    assert colors == [getattr(pictures, x) for x in ("WALL", "KEY", "AGENT", "FLOOR", "GOAL", "WALL")]
    assert pixel(np.asarray(env.render(at(8.0, True), env.params)), 1) == pictures.FLOOR


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(length=2), "length is 2, must be >= 3"),
        (dict(slip=-0.1), r"slip is -0.1, must be in \[0, 1\]"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        key_door(**arguments)
