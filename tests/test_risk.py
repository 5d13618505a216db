"""Mean-variance rewards: by hand, against a plain loop, and what learners do with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import networks
from jaxrl.distributions import for_space
from jaxrl.risk import MeanVarianceHparams, mean_variance_return, mean_variance_reward
from jaxrl.spaces import Box, Discrete
from jaxrl.tree import as_arrays
from jaxrl.types import Env, TimeStep, Transition

KEY = jax.random.key(0)


def rows(reward, last=None, weight=None):
    """Data [T, N] of rewards [T, N]."""
    reward = jnp.asarray(reward, jnp.float32)
    last = jnp.zeros(reward.shape, bool) if last is None else jnp.asarray(last, bool)
    extras = {} if weight is None else {"weight": jnp.asarray(weight, jnp.float32)}
    return Transition((), (), reward, last, jnp.zeros_like(last), (), extras)


def start(transform, data, **numbers):
    return transform.init(KEY, transform.hparams._replace(**numbers), data)


def test_the_mean_is_that_of_rewards():
    """The first rollouts are averaged, later ones count with the rate; what is not there does not count."""
    transform = mean_variance_reward()
    state = start(transform, rows([[0.0, 0.0]]), mean_rate=0.25)
    for reward, mean in (([4.0, 0.0], 2.0), ([8.0, 8.0], 5.0), ([2.0, 2.0], 4.0), ([0.0, 0.0], 3.0), ([7.0, 7.0], 4.0)):
        state, metrics = transform.observe(KEY, state, rows([reward]))
        assert state.mean.value == pytest.approx(mean) and metrics["risk/mean"] == pytest.approx(mean)
    absent = rows([[1e9, jnp.nan], [8.0, 8.0]], weight=[[0, 0], [1, 1]])
    assert transform.observe(KEY, state, absent)[0].mean.value == pytest.approx(5.0)
    nobody = rows([[1e9]], weight=[[0]])
    jax.tree.map(np.testing.assert_array_equal, transform.observe(KEY, state, nobody)[0], state)
    draws = 3.0 + jax.random.normal(KEY, (400, 8, 32))
    many = jax.lax.scan(lambda s, x: (transform.observe(KEY, s, rows(x))[0], None), state, draws)[0]
    assert many.mean.value == pytest.approx(3.0, abs=0.1)


def test_rewards_by_hand():
    transform = mean_variance_reward()
    state = transform.observe(KEY, start(transform, rows([[0.0]]), risk_aversion=0.5), rows([[1.0, 5.0]]))[0]
    found = transform.apply(KEY, state, rows([[1.0, 5.0, -2.0]])).reward
    np.testing.assert_allclose(found[0], [1 - 0.5 + 3, 5 - 12.5 + 15, -2 - 2 - 6])  # r - r^2 / 2 + 3 r, as y = 3
    neutral = state._replace(hparams=state.hparams._replace(risk_aversion=jnp.float32(0)))
    np.testing.assert_array_equal(transform.apply(KEY, neutral, rows([[1.0, 5.0]])).reward, [[1.0, 5.0]])


def episodes(reward, last, weight):
    """Rows before which an episode of column n had got so much, and returns of those that ended, by a plain loop."""
    so_far, before, ended = np.zeros(reward.shape[1]), np.zeros(reward.shape), []
    for t in range(len(reward)):
        for n in range(reward.shape[1]):
            before[t, n] = so_far[n]
            if weight[t, n] > 0:
                so_far[n] += reward[t, n]
                ended += [(t, so_far[n])] if last[t, n] else []
            if last[t, n]:
                so_far[n] = 0.0
    return before, ended


def test_returns_against_a_loop():
    """Episodes go on from one rollout to the next; over each, rewards add up to R - lambda (R - y)^2 + lambda y^2."""
    draws = np.random.default_rng(0)
    reward, last = draws.normal(1.0, 1.0, (60, 3)), draws.random((60, 3)) < 0.15
    weight = (draws.random((60, 3)) < 0.8).astype("f4")
    before, ended = episodes(reward, last, weight)
    transform, means = mean_variance_return(), []
    state = start(transform, rows(reward[:12]), risk_aversion=0.7, mean_rate=0.4)
    for k in range(5):
        part = slice(12 * k, 12 * k + 12)
        data = rows(reward[part], last[part], weight[part])
        state, metrics = transform.observe(KEY, state, data)
        there = np.mean([r for t, r in ended if part.start <= t < part.stop])
        means.append(there if k == 0 else means[-1] + max(0.4, 1 / (k + 1)) * (there - means[-1]))
        assert metrics["risk/mean"] == pytest.approx(means[-1], rel=1e-4)
        found, r, y = np.asarray(transform.apply(KEY, state, data).reward), reward[part], means[-1]
        score = lambda x: x - 0.7 * (x - y) ** 2  # noqa: E731, B023
        want = score(before[part] + r) - score(before[part])
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-3)
    nobody = rows(np.ones((12, 3)))  # none ended
    assert transform.observe(KEY, state, nobody)[0].mean.value == state.mean.value
    neutral = state._replace(hparams=state.hparams._replace(risk_aversion=jnp.float32(0)))
    np.testing.assert_array_equal(transform.apply(KEY, neutral, data).reward, data.reward)
    with pytest.raises(ValueError, match=r"mean_variance_return: rewards are \(3,\), needs rollouts \[T, N\]"):
        start(transform, rows(np.ones(3)))


def test_sums_over_an_episode_by_hand():
    """Returns 3 and 1, y = 2, lambda = 2: R - 2 (R - 2)^2 + 8 = 9 and 7, whatever the steps were."""
    data = rows([[1.0, 0.5], [1.5, 0.0], [0.5, 0.5]], [[0, 0], [0, 0], [1, 1]])
    transform = mean_variance_return()
    state = transform.observe(KEY, start(transform, data, risk_aversion=2.0), data)[0]
    assert state.mean.value == pytest.approx(2.0)
    np.testing.assert_allclose(transform.apply(KEY, state, data).reward.sum(0), [9.0, 7.0], rtol=1e-6)


def bandit(means, deviations):
    """One step, two arms; an arm pays its mean plus or minus its deviation."""
    means, deviations = jnp.float32(means), jnp.float32(deviations)

    def step(key, state, action, params):
        sign = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        reward = means[action] + deviations[action] * sign
        return state, TimeStep(jnp.ones(1), reward, jnp.bool_(True), jnp.bool_(False))

    return Env(lambda key, params: (jnp.zeros(()), jnp.ones(1)), step, (), Box(0.0, 1.0, (1,)), Discrete(2))


@pytest.mark.parametrize("make", [mean_variance_reward, mean_variance_return])
def test_values_of_arms_change_order_where_theory_says(make):
    """For y at the mean of arm a, arm b is worth mu_b - lambda (v_b + (mu_b - y)^2) + lambda y^2: exact enumeration.

    Means 1 and 0.8, variances 0.9 and 0.1. Who plays the risky arm leaves it when lambda > 0.2 / (0.8 - 0.04), who
    plays the safe one stays when lambda > 0.2 / (0.8 + 0.04); E - lambda Var changes at 0.2 / 0.8, in between.
    """
    arms = np.array([[1 + 0.9**0.5, 1 - 0.9**0.5], [0.8 + 0.1**0.5, 0.8 - 0.1**0.5]])

    def best(lambda_, played):
        transform = make(MeanVarianceHparams(lambda_))
        data = rows(arms[played][None], np.ones((1, 2)))
        state = transform.observe(KEY, start(transform, data), data)[0]
        values = [transform.apply(KEY, state, rows(x[None], np.ones((1, 2)))).reward.mean() for x in arms]
        return int(np.argmax(values))

    leaves, stays = 0.2 / 0.76, 0.2 / 0.84
    assert [best(x * leaves, 0) for x in (0.98, 1.02)] == [0, 1]
    assert [best(x * stays, 1) for x in (0.98, 1.02)] == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("make", [mean_variance_reward, mean_variance_return])
def test_a_learner_takes_the_arm_of_its_aversion(make):
    """Arms of the test above: PPO takes the risky one at half of the threshold and the safe one at twice as much."""
    env = bandit([1.0, 0.8], [0.9**0.5, 0.1**0.5])
    policy = networks.policy(networks.mlp((4,)), for_space(env.action_space))
    inner = jaxrl.ppo(policy, networks.critic(networks.mlp((4,))), num_minibatches=1)
    agent = jaxrl.with_transform(inner, make())
    loop = jaxrl.online(agent, env, num_envs=64, unroll_length=16)

    @jax.jit
    @jax.vmap
    def learn(lambda_):
        hp = agent.hparams._replace(own=MeanVarianceHparams(lambda_))
        hp = hp._replace(agent=hp.agent._replace(learning_rate=0.02, entropy_coefficient=0.0))
        state, metrics = jaxrl.run(loop, loop.init(KEY, as_arrays(hp)), 60)
        sampled = agent.act(
            KEY, state.agent, agent.init_memory(KEY, state.agent, jnp.ones((500, 1))), jnp.ones((500, 1))
        )
        return sampled[1].mean(), metrics["risk/mean"][-1]

    safe, mean = learn(jnp.float32([0.0, 0.125, 0.5]))
    assert safe[0] < 0.1 and safe[1] < 0.1 and safe[2] > 0.9, safe
    np.testing.assert_allclose(mean, [1.0, 1.0, 0.8], atol=0.1)
