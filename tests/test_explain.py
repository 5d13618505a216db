"""Shapley values: their axioms, a sum over all orders, estimates within their errors; returns of coalitions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from jaxrl.explain import all_coalitions, another, coalition_returns, no_op, shapley_exact, shapley_monte_carlo, uniform
from jaxrl.types import Agent, no_memory

KEY = jax.random.key(0)
N = 4


def games(num=8):
    return np.random.default_rng(0).normal(size=(num, 2**N)).astype(np.float32)


def by_orders(values):
    """The mean marginal contribution over all n! orders, in plain Python."""
    total = np.zeros(N)
    for order in itertools.permutations(range(N)):
        mask = 0
        for i in order:
            total[i] += values[mask | 1 << i] - values[mask]
            mask |= 1 << i
    return total / math.factorial(N)


def test_exact_is_the_mean_over_all_orders():
    values = games()
    found = np.asarray(shapley_exact(values))
    np.testing.assert_allclose(found, [by_orders(v) for v in values], atol=1e-5)
    np.testing.assert_allclose(found.sum(1), values[:, -1] - values[:, 0], atol=1e-5)  # efficiency


def test_axioms():
    """Symmetric players get the same, a dummy what it adds alone, and sums of games sums of values."""
    masks, values = all_coalitions(N), games()
    swap = masks.copy()
    swap[:, [0, 1]] = swap[:, [1, 0]]
    swapped = (swap * 2 ** np.arange(N)).sum(1)
    symmetric = np.asarray(shapley_exact((values + values[:, swapped]) / 2))
    np.testing.assert_allclose(symmetric[:, 0], symmetric[:, 1], atol=1e-5)
    without = np.where(masks[:, 2], np.arange(2**N) - 4, np.arange(2**N))
    dummy = np.asarray(shapley_exact(values[:, without] + 3.0 * masks[:, 2]))
    np.testing.assert_allclose(dummy[:, 2], 3.0, atol=1e-5)
    two = np.asarray(shapley_exact(values[0] + 2 * values[1]))
    np.testing.assert_allclose(two, shapley_exact(values[0]) + 2 * shapley_exact(values[1]), atol=1e-5)


def test_estimates_are_within_their_errors_which_fall_as_the_root_of_their_number():
    values = jnp.asarray(games(1)[0])

    def value(key, members):
        return values[jnp.sum(members * 2 ** jnp.arange(N), -1)]

    @jax.jit
    def both(key):
        keys = jax.random.split(key, 200)
        few, errors = jax.vmap(lambda k: shapley_monte_carlo(k, value, N, 20))(keys)
        many, smaller = shapley_monte_carlo(key, value, N, 8000)
        return few, errors, many, smaller

    few, errors, many, smaller = map(np.asarray, both(KEY))
    exact = np.asarray(shapley_exact(values))
    assert (np.abs(many - exact) < 4 * smaller).all()
    np.testing.assert_allclose(few.std(0), errors.mean(0), rtol=0.2)
    np.testing.assert_allclose(errors.mean(0) / smaller, np.sqrt(8000 / 20), rtol=0.1)
    np.testing.assert_allclose(few.sum(1), float(values[-1] - values[0]), atol=1e-4)


def expert(env):
    """Agent i of the crowd does i mod 2, which is right."""

    def act(key, state, memory, observation):
        return memory, jnp.broadcast_to(state, observation.shape[:2]), {}

    return Agent(None, no_memory, act, act, None), jnp.arange(toys.CROWD) % 2


@pytest.mark.parametrize("name", ["no_op", "uniform", "another"])
def test_returns_of_coalitions(name):
    """In the crowd agent i earns +-(1 + i) in each of its 2 + i steps: values are additive, and known."""
    env = toys.crowd()
    agent, state = expert(env)
    right = np.arange(toys.CROWD) % 2
    chance = {"no_op": right == 0, "uniform": np.full(3, 0.5), "another": np.array([0.5, 0.0, 0.5])}[name]
    replace = {"no_op": no_op(0), "uniform": uniform(env.action_space), "another": another()}[name]

    @jax.jit
    def play(key, members):
        return coalition_returns(key, agent, state, env, members, replace, num_episodes=512)

    found = np.asarray(play(KEY, all_coalitions(toys.CROWD)))
    most = (1.0 + np.arange(3)) * (2 + np.arange(3))
    masks = all_coalitions(toys.CROWD)
    expected = (np.where(masks, 1.0, 2.0 * chance - 1.0) * most).sum(1)
    np.testing.assert_allclose(found, expected, atol=1e-4 if name == "no_op" else 1.5)
    contribution = np.asarray(shapley_exact(found))
    np.testing.assert_allclose(contribution, 2 * (1 - chance) * most, atol=1e-4 if name == "no_op" else 1.5)


def test_bad_arguments_end_in_a_line():
    with pytest.raises(ValueError, match=r"num_players is 17, must be in \[1, 16\]"):
        all_coalitions(17)
    with pytest.raises(ValueError, match=r"there are 6 values, must be 2 \*\* n"):
        shapley_exact(jnp.zeros(6))
    with pytest.raises(ValueError, match="num_permutations is 1, must be >= 2"):
        shapley_monte_carlo(KEY, lambda key, m: m.sum(-1), 3, 1)
    with pytest.raises(ValueError, match="num_players is 0, must be >= 1"):
        shapley_monte_carlo(KEY, lambda key, m: m.sum(-1), 0, 2)
