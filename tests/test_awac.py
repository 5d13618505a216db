"""AWAC against plain loops, and weighted regression in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from actor_critics import (
    CENTER,
    HALF_RANGE,
    HIGH,
    KEY,
    LOW,
    action_critic,
    assert_close,
    bandit,
    batch,
    constant,
    difference,
    learn,
    member,
    perturbed,
    quadratic_critic,
    start,
)

from jaxrl import networks
from jaxrl.agents.awac import AWACHparams, awac
from jaxrl.distributions import diagonal_gaussian
from jaxrl.factory import actor_critic
from jaxrl.spaces import Box
from jaxrl.types import Policy

CRITIC = action_critic()
POLICY = networks.policy(networks.mlp((4,)), diagonal_gaussian((2,), LOW, HIGH), scale=1.0)
HP = AWACHparams(1.0, discount=0.9, target_rate=0.1, inverse_temperature=3.0, max_weight=1.5)


def reference_loss(params, state, data, key):
    """Both losses row by row, with the definition of a Gaussian written out."""
    hp, count, total = state.hparams, data.reward.shape[0], float(data.extras["weight"].sum())
    frozen = jax.lax.stop_gradient(state.params)
    noises = [jax.random.normal(k, (count * 2,)).reshape(count, 2) for k in jax.random.split(key)]

    def gaussian(policy_params, observation):
        return jnp.split(POLICY.network.apply(policy_params, (), observation)[1], 2)

    def drawn(noise, observation):
        mean, log_std = gaussian(frozen["policy"], observation)
        return jnp.clip(CENTER + HALF_RANGE * (mean + jnp.exp(log_std) * noise), LOW, HIGH)

    def value(critic_params, i, observation, action):
        return CRITIC.apply(member(critic_params, i), (), (observation, action))[1]

    loss, weights = 0.0, []
    for i in range(count):
        share, observation, action = float(data.extras["weight"][i]) / total, data.observation[i], data.action[i]
        following = data.next_observation[i]
        next_action = drawn(noises[1][i], following)
        least = min(float(value(state.target_params, j, following, next_action)) for j in range(2))
        decay = 0.0 if data.terminated[i] else hp.discount ** float(data.extras["num_steps"][i])
        for j in range(2):
            loss += (
                share * 0.5 * (value(params["critic"], j, observation, action) - data.reward[i] - decay * least) ** 2
            )
        mine = drawn(noises[0][i], observation)
        here, there = (min(float(value(frozen["critic"], j, observation, a)) for j in range(2)) for a in (action, mine))
        weights.append(min(np.exp(hp.inverse_temperature * (here - there)), hp.max_weight))
        mean, log_std = gaussian(params["policy"], observation)
        z = ((action - CENTER) / HALF_RANGE - mean) / jnp.exp(log_std)
        loss += share * weights[-1] * jnp.sum(0.5 * z**2 + log_std + 0.5 * np.log(2 * np.pi))
    return loss, weights


def test_one_update_against_a_reference():
    """One step on rows of every kind: weights, several steps, termination, truncation, targets that differ."""
    data = batch(5, seed=2, weight=[1.0, 2.0, 0.5, 1.0, 0.0], num_steps=[1, 2, 3, 1, 1], index=range(5))
    agent = awac(POLICY, CRITIC, optimizer=lambda hp: optax.sgd(hp.learning_rate), hparams=HP)
    state = perturbed(start(agent, data))
    gradient, weights = jax.grad(reference_loss, has_aux=True)(state.params, state, data, KEY)
    assert min(weights[:4]) < 1.5 == max(weights[:4])  # some are bounded, some are not
    poisoned = data._replace(  # at the row of weight 0
        reward=data.reward.at[4].set(jnp.nan), action=data.action.at[4].set(jnp.nan)
    )
    after, metrics = jax.jit(agent.update)(KEY, state, poisoned)
    assert_close(difference(state.params, after.params), gradient)
    followed = jax.tree.map(lambda t, p: t + 0.1 * (p - t), state.target_params, after.params["critic"])
    assert_close(after.target_params, followed, 1e-6)
    np.testing.assert_allclose(metrics["advantage_weight"], np.dot([1, 2, 0.5, 1], weights[:4]) / 4.5, rtol=1e-4)
    assert metrics["priority"].shape == (5,) and (metrics["priority"][:4] > 0).all()
    _, metrics = jax.eval_shape(agent.update, KEY, state, data._replace(extras={}))
    assert "priority" not in metrics and all(m.shape == () for m in metrics.values())


@pytest.mark.parametrize("inverse_temperature", [0.0, 0.7])
def test_weighted_regression_in_closed_form(inverse_temperature):
    """In one state the policy has the moments of the data's actions, weighted by exp(r / lambda); 0 clones them."""
    data = bandit(lambda a: 2.0 * a)  # a steep quadratic one has weights of infinite variance
    policy = Policy(constant([0.0, 0.0]), diagonal_gaussian((1,)))
    hp = AWACHparams(0.02, inverse_temperature=inverse_temperature, max_weight=1e6)
    agent = awac(policy, quadratic_critic(), hparams=hp)
    state, _ = learn(agent, data, 1500)
    slow = state._replace(hparams=state.hparams._replace(learning_rate=jnp.float32(1e-3)))
    run = jax.jit(lambda s: jax.lax.scan(lambda s, k: agent.update(k, s, data), s, jax.random.split(KEY, 1500))[0])
    mean, log_std = run(slow).params["policy"]["outputs"]
    action, weight = np.asarray(data.action[:, 0]), np.exp(inverse_temperature * np.asarray(data.reward))
    expected = np.average(action, weights=weight)
    np.testing.assert_allclose(mean, expected, atol=0.02)
    deviation = np.sqrt(np.average((action - expected) ** 2, weights=weight))
    np.testing.assert_allclose(np.exp(log_std), deviation, rtol=0.05)


def test_acting():
    data = batch()
    agent = awac(POLICY, CRITIC, hparams=HP)
    state = start(agent, data)
    lean = agent.actor(state)
    for act in (agent.act, agent.act_greedy):
        actions = [act(KEY, s, (), data.observation)[1] for s in (state, lean)]
        np.testing.assert_array_equal(*actions)
    mean = POLICY.network.apply(state.params["policy"], (), data.observation)[1][..., :2]
    np.testing.assert_allclose(actions[0], np.clip(CENTER + HALF_RANGE * mean, LOW, HIGH), rtol=1e-5)
    value = agent.act_greedy(KEY, state, (), data.observation)[2]["value"]
    both = [CRITIC.apply(member(state.params["critic"], i), (), (data.observation, actions[0]))[1] for i in range(2)]
    np.testing.assert_allclose(value, np.minimum(*both), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("squash", [False, True])
def test_builder(squash):
    env = toys.clock()._replace(action_space=Box((-2.0, 0.0), (2.0, 1.0), (2,)))
    agent = actor_critic.build_awac(env, widths=(8,), squash=squash)
    data = batch(8, dims=(2, 2))
    state, metrics = jax.eval_shape(agent.update, KEY, start(agent, data), data)
    assert metrics["policy_loss"].shape == ()


def test_bad_count():
    with pytest.raises(ValueError, match="awac: num_critics is 0, must be >= 1"):
        awac(POLICY, CRITIC, num_critics=0)
