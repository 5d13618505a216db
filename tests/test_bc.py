"""Behavior cloning: counts, closed forms, one update by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular

from jaxrl import networks
from jaxrl.agents.bc import BCHparams, bc
from jaxrl.distributions import categorical, diagonal_gaussian, tanh_gaussian
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)


def batch(observation, action, **extras):
    none = jnp.zeros(observation.shape[0], bool)
    reward = jnp.full(observation.shape[0], jnp.nan)  # not read
    return Transition(observation, action, reward, none, none, observation, extras)


def descend(agent, data, num_updates, hparams):
    state = agent.init(KEY, hparams, data)
    return jax.lax.scan(lambda s, _: agent.update(KEY, s, data), state, None, num_updates)


def sgd(hp):
    return optax.sgd(hp.learning_rate)


def test_a_table_learns_the_frequencies():
    """Logits of a table converge to the (weighted) frequencies of actions; the loss to their conditional entropy."""
    rng = np.random.default_rng(0)
    state, action = rng.integers(0, 3, 200), rng.choice(4, 200, p=[0.4, 0.3, 0.2, 0.1])
    weight = rng.integers(0, 3, 200)
    counts = np.zeros((3, 4))
    np.add.at(counts, (state, action), weight)
    data = batch(jnp.asarray(state), jnp.asarray(action), weight=jnp.asarray(weight, jnp.float32))
    agent = bc(Policy(tabular.logits_table(3, 4), categorical(4)), optimizer=sgd)
    after, metrics = jax.jit(lambda: descend(agent, data, 1000, BCHparams(learning_rate=5.0)))()
    frequency = counts / counts.sum(1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(after.params), frequency, atol=1e-3)
    entropy = -np.sum(counts * np.log(frequency)) / counts.sum()
    np.testing.assert_allclose(metrics["policy_loss"][-1], entropy, atol=1e-4)
    greedy = agent.act_greedy(KEY, after, (), jnp.arange(3))[1]
    np.testing.assert_array_equal(greedy, counts.argmax(1))
    _, sampled, extras = agent.act(KEY, agent.actor(after), (), jnp.zeros(20_000, jnp.int32))
    np.testing.assert_allclose(np.bincount(sampled, minlength=4) / 20_000, frequency[0], atol=0.02)
    assert extras == {}


def constant(size):
    """The same outputs whatever the observation: params [size]."""
    return networks.feed_forward(
        lambda key, observation: jnp.zeros(size),
        lambda params, observation: jnp.broadcast_to(params, (*observation.shape[:-1], size)),
    )


@pytest.mark.parametrize("squash", [False, True])
def test_a_gaussian_learns_mean_and_deviation(squash):
    """Of the actions in raw units: bounds of -4 and 0 are -1 and 1; through tanh, of arctanh."""
    raw = np.random.default_rng(0).normal([0.3, -0.2], [0.2, 0.5], (500, 2)).astype(np.float32)
    action = -2.0 + 2.0 * (np.tanh(raw) if squash else raw)
    distribution = tanh_gaussian(-4.0, 0.0, (2,)) if squash else diagonal_gaussian((2,), -4.0, 0.0)
    agent = bc(Policy(constant(4), distribution), optimizer=sgd)
    data = batch(jnp.zeros((500, 1)), jnp.asarray(action))
    after, _ = jax.jit(lambda: descend(agent, data, 1500, BCHparams(learning_rate=0.03)))()
    np.testing.assert_allclose(after.params[:2], raw.mean(0), atol=1e-3)
    np.testing.assert_allclose(jnp.exp(after.params[2:]), raw.std(0), atol=1e-3)


def test_squared_error_learns_the_mean_and_entropy_widens():
    raw = np.random.default_rng(0).normal([0.5, 2.0], 0.3, (200, 2)).astype(np.float32)  # one mean is out of bounds
    data = batch(jnp.zeros((200, 1)), jnp.asarray(2.0 * raw))
    policy = Policy(constant(4), diagonal_gaussian((2,), -2.0, 2.0))
    agent = bc(policy, loss="squared", optimizer=sgd)
    after, metrics = jax.jit(lambda: descend(agent, data, 300, BCHparams(learning_rate=0.1)))()
    np.testing.assert_allclose(after.params, [*raw.mean(0), 0.0, 0.0], atol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"][-1], 0.5 * raw.var(0).sum(), rtol=1e-4)
    np.testing.assert_allclose(
        agent.act_greedy(KEY, after, (), jnp.zeros((1, 1)))[1], [[2 * raw.mean(0)[0], 2.0]], 1e-5
    )
    # log_std minimizes c^2 / (2 s^2) + (1 - k) log s: the variance is c^2 / (1 - k)
    agent = bc(policy, optimizer=sgd)
    after, _ = jax.jit(lambda: descend(agent, data, 3000, BCHparams(learning_rate=0.02, entropy_coefficient=0.5)))()
    np.testing.assert_allclose(jnp.exp(2 * after.params[2:]), raw.var(0) / 0.5, rtol=1e-2)


def test_rows_of_weight_zero_may_hold_anything():
    rng = np.random.default_rng(0)
    observation, action = jnp.asarray(rng.normal(size=(2, 6, 3)), jnp.float32)
    policy = networks.policy(networks.mlp((8,)), diagonal_gaussian((3,), -1.0, 1.0))
    agent = bc(policy)
    clean = batch(observation, action)
    state = agent.init(KEY, agent.hparams, clean)
    padded = batch(
        *(jnp.concatenate([x, jnp.full((2, 3), jnp.nan)]) for x in (observation, action)),
        weight=jnp.float32([1] * 6 + [0] * 2),
    )
    update = jax.jit(agent.update)
    (expected, metrics), (actual, padded_metrics) = update(KEY, state, clean), update(KEY, state, padded)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), actual.params, expected.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), padded_metrics, metrics)


def test_bad_arguments():
    policy = Policy(tabular.logits_table(3, 4), categorical(4))
    with pytest.raises(ValueError, match="loss is 'mse', allowed: 'likelihood', 'squared'"):
        bc(policy, loss="mse")
    with pytest.raises(ValueError, match="needs continuous actions"):
        bc(policy, loss="squared")
