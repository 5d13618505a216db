"""Senders on a grid: rules against plain Python, a step by hand, a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs.aloha import AlohaState, aloha
from jaxrl.envs.check import check_env

ENV = aloha()
QUIET = ENV.params._replace(arrival=jnp.float32(0.0))


def at(backlog):
    return AlohaState(jnp.array(backlog, jnp.int32), jnp.zeros(len(backlog), jnp.int32), jnp.int32(0))


def test_it_is_a_proper_environment():
    check_env(aloha(rows=2, columns=2, max_steps=5), num_steps=12)


def test_a_step_by_hand():
    """0 and 1 stand beside each other, 0 and 5 above each other; 4 and 5 do not, though their numbers do."""
    backlog = [2, 1, 0, 1, 3, 1, 1, 0, 1, 1]
    action = np.array([1, 1, 1, 0, 1, 0, 0, 0, 0, 0])
    state, ts = jax.jit(ENV.step)(jax.random.key(0), at(backlog), action, QUIET)
    # 0 and 1 collide; 2 has nothing to send, and so 1 does not collide with it; 4 gets through.
    np.testing.assert_array_equal(state.sent, [-1, -1, 0, 0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(state.backlog, [2, 1, 0, 1, 2, 1, 1, 0, 1, 1])
    np.testing.assert_allclose(ts.reward, np.full(10, 0.1 - 20.0), rtol=1e-6)
    np.testing.assert_allclose(ts.observation[:, 0], np.array(state.backlog) / 5)
    action = np.array([0, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(ENV.step(jax.random.key(0), at(backlog), action, QUIET)[0].sent.nonzero()[0], [4, 5])


def test_episodes_follow_the_rules():
    def play(key):
        reset_key, key = jax.random.split(key)
        start, _ = ENV.reset(reset_key, ENV.params)

        def body(state, key):
            action_key, key = jax.random.split(key)
            action = ENV.action_space.sample(action_key)
            state, ts = ENV.step(key, state, action, ENV.params)
            return state, (action, state, ts)

        return start, jax.lax.scan(body, start, jax.random.split(key, 25))[1]

    start, (actions, states, ts) = jax.device_get(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), 64)))
    grown = []
    for n in range(64):
        backlog = list(start.backlog[n])
        for t in range(25):
            sends = {(i // 5, i % 5): i for i in range(10) if actions[n, t, i] == 1 and backlog[i] > 0}
            reward = 0.0
            for (r, c), i in sends.items():
                if any(x in sends for x in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1))):
                    reward -= 10
                else:
                    reward, backlog[i] = reward + 0.1, backlog[i] - 1
            np.testing.assert_allclose(ts.reward[n, t], np.full(10, reward), atol=1e-4)
            more = states.backlog[n, t] - np.array(backlog)
            assert set(more) <= {0, 1}
            grown += [m for m, b in zip(more, backlog) if b < 5]
            assert all(m == 0 for m, b in zip(more, backlog) if b == 5)
            backlog = list(states.backlog[n, t])
            assert not ts.terminated[n, t].any() and ts.truncated[n, t].all() == (t == 24)
    np.testing.assert_allclose(np.mean(grown), 0.6, atol=4 * np.sqrt(0.24 / len(grown)))


def test_a_picture():
    picture = np.asarray(ENV.render(at([0] * 9 + [5]), ENV.params))
    assert picture.dtype == np.uint8 and picture.ndim == 3
    gray = (picture == 90).all(-1)
    middle = picture.shape[1] // 5
    assert gray[picture.shape[0] // 2 :, -middle:].sum() > 5 * gray[: picture.shape[0] // 2, :middle].sum()


@pytest.mark.parametrize("wrong", [dict(rows=0), dict(rows=1, columns=1), dict(arrival=1.5), dict(max_steps=0)])
def test_errors(wrong):
    with pytest.raises(ValueError, match="aloha: "):
        aloha(**wrong)
