"""The two-step game: every path by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs.check import check_env
from jaxrl.envs.two_step import two_step

ENV = two_step()


def test_it_is_a_proper_environment():
    check_env(ENV, num_steps=6)


@pytest.mark.parametrize("first, other", list(itertools.product(range(2), repeat=2)))
def test_all_paths(first, other):
    key = jax.random.key(0)
    state, observation = ENV.reset(key, ENV.params)
    np.testing.assert_array_equal(observation, [[1, 0, 0], [1, 0, 0]])
    state, ts = ENV.step(key, state, jnp.array([first, other]), ENV.params)
    np.testing.assert_array_equal(ts.observation, np.eye(3)[[1 + first] * 2])
    assert not (ts.reward.any() or ts.terminated.any() or ts.truncated.any())
    for joint in itertools.product(range(2), repeat=2):
        _, ts = ENV.step(key, state, jnp.array(joint), ENV.params)
        np.testing.assert_array_equal(ts.reward, [(8 if sum(joint) == 2 else sum(joint)) if first else 7] * 2)
        assert ts.terminated.all() and not ts.truncated.any()


def test_a_picture():
    state, _ = ENV.reset(jax.random.key(0), ENV.params)
    before = ENV.render(state, ENV.params)
    after = ENV.render(ENV.step(jax.random.key(0), state, jnp.array([1, 0]), ENV.params)[0], ENV.params)
    third = before.shape[1] // 3
    np.testing.assert_array_equal(before[:, third : 2 * third], after[:, third : 2 * third])
    np.testing.assert_array_equal(before[:, :third], after[:, -third:])
    assert (before != after).any()
