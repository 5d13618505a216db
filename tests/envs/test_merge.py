"""Two cars: drives by hand, the rules against plain Python, crashes, ends one by one, noise, a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import pictures
from jaxrl.envs.check import check_env
from jaxrl.envs.merge import Merge2State, merge2

KEY = jax.random.key(0)
ENV = merge2()
QUIET = ENV.params._replace(noise=jnp.float32(0.0))
STEP = jax.jit(ENV.step)
MANY = jax.jit(jax.vmap(ENV.step, (0, 0, 0, None)))


def at(positions, speeds=(8.0, 8.0), crashed=False, time=0):
    return Merge2State(jnp.float32(positions), jnp.float32(speeds), jnp.bool_(crashed), jnp.int32(time))


def test_it_is_a_proper_environment():
    check_env(merge2(max_steps=12, time_cost=0.1), num_steps=30)


def test_a_drive_by_hand():
    """Speeding up by 3 m/s^2 for 0.25 s: 8.75 m/s, 2.09375 m. Braking by 6: 6.5 m/s, 1.8125 m."""
    state, ts = STEP(KEY, at([-30.0, -20.0]), jnp.array([2, 0]), QUIET)
    np.testing.assert_allclose(state.speed, [8.75, 6.5])
    np.testing.assert_allclose(state.position, [-27.90625, -18.1875])
    np.testing.assert_allclose(ts.reward, [2.09375 / 50 - 0.02, 1.8125 / 50 - 0.02], atol=1e-6)
    far, near = (27.90625 - 30) / -25 - 1, 11.8125 / 25 - 1
    np.testing.assert_allclose(ts.observation[0], [far, 8.75 / 15, near, 6.5 / 15, -0.971875, 1, 1 / 80], atol=1e-6)
    np.testing.assert_allclose(ts.observation[1], [near, 6.5 / 15, far, 8.75 / 15, 0.971875, 1, 1 / 80], atol=1e-6)
    for speed, action, after in ((14.9, 2, 15.0), (0.5, 0, 0.0), (7.0, 1, 7.0)):
        assert STEP(KEY, at([-30.0, 0.0], (speed, 3.0)), jnp.array([action, 1]), QUIET)[0].speed[0] == after


def test_drives_follow_the_rules():
    """Whole episodes of random actions without noise, by plain Python; some end in crashes, some one by one."""
    num, length = 64, 70

    def play(key):
        reset_key, key = jax.random.split(key)
        start, _ = ENV.reset(reset_key, QUIET)

        def body(state, key):
            action = jnp.maximum(ENV.action_space.sample(key), 1)  # keep, or speed up
            state, ts = ENV.step(key, state, action, QUIET)
            return state, (action, state, ts)

        return start, jax.lax.scan(body, start, jax.random.split(key, length))[1]

    start, (actions, states, ts) = jax.device_get(jax.jit(jax.vmap(play))(jax.random.split(KEY, num)))
    ends = []
    for n in range(num):
        places, speeds, crashed = list(map(float, start.position[n])), list(map(float, start.speed[n])), False
        for t in range(length):
            rewards, gone = [0.0, 0.0], [x >= 20 for x in places]
            for i in (0, 1):
                if not (gone[i] or crashed):
                    faster = min(max(speeds[i] + 0.25 * [-6, 0, 3][actions[n, t, i]], 0), 15)
                    before, places[i] = places[i], min(places[i] + 0.25 * (speeds[i] + faster) / 2, 20)
                    speeds[i], rewards[i] = faster, (places[i] - before) / 50 - 0.02
            together = all(-5 < x < 20 for x in places) and abs(places[0] - places[1]) < 5
            hit = together and not crashed
            crashed = crashed or hit
            np.testing.assert_allclose(states.position[n, t], places, atol=1e-3)
            np.testing.assert_allclose(states.speed[n, t], speeds, atol=1e-4)
            np.testing.assert_allclose(ts.reward[n, t], [r - 2 * hit for r in rewards], atol=1e-4)
            assert list(ts.terminated[n, t]) == [crashed or x >= 20 for x in places]
            assert (ts.extras["crash"][n, t] == hit).all()
            places, speeds = (list(map(float, x)) for x in (states.position[n, t], states.speed[n, t]))
        over = ts.terminated[n].argmax(0)
        ends.append("crash" if crashed else "one by one" if over[0] != over[1] else "at once")
        assert ts.terminated[n, -1].all()
    assert ends.count("crash") > 9 and ends.count("one by one") > 9, ends


def test_who_is_out_stays_out():
    state, ts = STEP(KEY, at([19.0, 0.0]), jnp.array([1, 1]), ENV.params)
    assert ts.terminated.tolist() == [True, False] and ts.reward[0] == pytest.approx(1 / 50 - 0.02)
    assert ts.observation[1, 5] == 0.0 and ts.observation[0, 5] == 1.0
    state, ts = STEP(KEY, state._replace(position=jnp.float32([20.0, 18.5])), jnp.array([2, 2]), ENV.params)
    assert state.position[0] == 20.0 and ts.reward[0] == 0.0 and ts.terminated.all()  # 1.5 m apart: no crash
    state, ts = STEP(KEY, at([3.0, 1.0], crashed=True), jnp.array([2, 2]), ENV.params)
    assert state.position.tolist() == [3.0, 1.0] and not ts.reward.any() and ts.terminated.all()
    assert not ts.extras["crash"].any()


def test_the_clock_is_for_those_on_the_road():
    for time, late in ((78, False), (79, True)):
        _, ts = STEP(KEY, at([20.0, -10.0], time=time), jnp.array([1, 1]), ENV.params)
        assert ts.terminated.tolist() == [True, False] and ts.truncated.tolist() == [False, late]


def test_noise_and_starts():
    num = 4000
    keys = jax.random.split(KEY, num)
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), at([-30.0, -20.0]))
    params = ENV.params._replace(noise=jnp.float32(2.0))
    speed = np.asarray(MANY(keys, state, jnp.ones((num, 2), jnp.int32), params)[0].speed) - 8.0
    assert np.abs(speed.mean(0)).max() < 0.04 and np.abs(speed.std(0) - 0.5).max() < 0.03
    assert abs(np.corrcoef(speed.T)[0, 1]) < 0.08
    start = jax.device_get(jax.jit(jax.vmap(ENV.reset, (0, None)))(keys, ENV.params)[0])
    for x, low, high in ((start.position, -34, -26), (start.speed, 7, 9)):
        assert (low <= x.min()) and x.max() <= high and np.ptp(x) > 0.98 * (high - low)
        assert np.abs(x.mean(0) - (low + high) / 2).max() < 0.04 * (high - low)


def test_a_picture_of_a_known_state():
    draw = jax.jit(ENV.render)
    picture = np.asarray(draw(at([-17.5, 12.5]), ENV.params))  # middles at -20, on its lane, and at 10
    assert picture.shape == (96, 480, 3)
    pixel = lambda p, x, y: tuple(p[int(8 * (y + 6)), int(8 * (x + 35))])  # noqa: E731
    assert pixel(picture, -20, -2.5) == pictures.AGENT and pixel(picture, 10, 0) == pictures.GOAL
    assert pixel(picture, -20, 2.5) == pictures.FLOOR and pixel(picture, -20, 0) == pictures.WALL
    assert pixel(picture, 10, 3) == pictures.WALL and pixel(picture, 5, 0) == pictures.FLOOR
    crashed = np.asarray(draw(at([12.5, 9.5], crashed=True), ENV.params))
    assert pixel(crashed, 10, 0) == (20, 20, 20)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(crash=1.0), "crash is 1.0, must be <= 0"),
        (dict(time_cost=-1), "time_cost is -1, must be >= 0"),
        (dict(acceleration=0), "acceleration is 0, must be > 0"),
        (dict(noise=-0.1), "noise is -0.1, must be >= 0"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge2(**arguments)
