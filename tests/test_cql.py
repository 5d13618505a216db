"""CQL's regularizer against numerical integration and plain loops; its fixed point; Cal-QL's bound."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from actor_critics import (
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
    quadratic_critic,
    start,
)

from jaxrl import networks
from jaxrl.agents.cql import CQLHparams, conservative
from jaxrl.agents.sac import SACHparams, sac
from jaxrl.distributions import tanh_gaussian
from jaxrl.factory import actor_critic
from jaxrl.spaces import Box
from jaxrl.types import Policy

HP = CQLHparams(conservative_weight=jnp.float32(2.0))


def squashed(mean, std, shape=(1,)):
    """sample(key, observation) of a squashed Gaussian of deviation std around mean + 0.3 of the first observation."""
    distribution = tanh_gaussian(LOW, HIGH, shape)

    def sample(key, observation):
        center = jnp.broadcast_to(mean + 0.3 * observation[..., :1], (*observation.shape[:-1], *shape))
        params = jnp.concatenate([center, jnp.full_like(center, np.log(std))], -1)
        raw = distribution.sample(key, params)
        return distribution.transform(raw), distribution.log_prob(params, raw)

    return sample


def landscape(observation, action):
    """Two critics [2, B] of actions [B, 1]."""
    a, s = action[..., 0], observation[..., 0]
    return jnp.stack([jnp.sin(3 * a) + s, -((a - s) ** 2)])


def test_the_estimate_against_numerical_integration():
    """With many samples it is log of the integral of exp Q over the box, for any policy that they come from."""
    data = batch(3, dims=(1, 1))
    regularizer = conservative(LOW, HIGH, (1,), num_samples=20_000)
    value = landscape(data.observation, data.action)
    actions = np.linspace(LOW, HIGH, 4001)
    density = np.exp(landscape(data.observation[:, None], jnp.asarray(actions)[None, :, None]))
    expected = np.log(np.trapezoid(density, actions, axis=-1))
    for mean, std in ((0.0, 1.4), (0.4, 1.0)):  # narrow ones have weights of infinite variance
        found = jax.jit(lambda key: regularizer(key, HP, squashed(mean, std), landscape, value, data))(KEY)
        np.testing.assert_allclose(found, 2.0 * (expected - value), atol=0.08)


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_penalty_by_plain_loops(calibrated):
    """A few samples, each counted by hand; calibrated, only those of the policy are bounded from below."""
    data = batch(4, dims=(1, 2), mc_return=[0.0, 2.0, -1.0, np.nan], weight=[1.0, 1.0, 1.0, 0.0])
    sample, num_samples = squashed(0.3, 0.8, (2,)), 3

    def q(observation, action):
        return landscape(observation, action) + action[..., 1]

    regularizer = conservative(LOW, HIGH, (2,), num_samples=num_samples, calibrated=calibrated)
    value = q(data.observation, data.action)
    found = jax.jit(lambda key: regularizer(key, HP, sample, q, value, data))(KEY)
    assert np.isfinite(found).all()
    key_uniform, key_here, key_next = jax.random.split(KEY, 3)
    uniform = LOW + (HIGH - LOW) * jax.random.uniform(key_uniform, (num_samples * 4 * 2,)).reshape(num_samples, 4, 2)
    for row in range(3):
        for i in range(2):
            terms = [float(q(data.observation[row], uniform[m, row])[i]) + 2 * np.log(3.0) for m in range(num_samples)]
            for source, observation in ((key_here, data.observation), (key_next, data.next_observation)):
                for key in jax.random.split(source, num_samples):
                    action, log_prob = sample(key, observation)
                    worth = float(q(data.observation[row], action[row])[i])
                    if calibrated:
                        worth = max(worth, float(data.extras["mc_return"][row]))
                    terms.append(worth - float(log_prob[row]))
            expected = np.log(np.mean(np.exp(terms))) - float(value[i, row])
            np.testing.assert_allclose(found[i, row], 2.0 * expected, rtol=1e-4)


def test_it_is_added_to_the_loss_of_each_critic():
    """The step of SAC's critics with the regularizer is the one without it and the gradient of the regularizer."""
    data = batch(5, weight=[1.0, 2.0, 0.5, 1.0, 0.0])
    critic = action_critic()
    policy = networks.policy(networks.mlp((4,)), tanh_gaussian(LOW, HIGH, (2,)), state_dependent_scale=True)
    regularizer = conservative(LOW, HIGH, (2,), num_samples=2)
    hp = SACHparams(learning_rate=1.0, regularizer=HP)
    agents = [
        sac(policy, critic, regularizer=part, optimizer=lambda hp: optax.sgd(hp.learning_rate))
        for part in (None, regularizer)
    ]
    state = start(agents[0], data, hp)
    plain, full = (jax.jit(agent.update)(KEY, state, data) for agent in agents)

    def sample(key, observation):
        outputs = policy.network.apply(state.params["policy"], (), observation)[1]
        raw = policy.distribution.sample(key, outputs)
        return policy.distribution.transform(raw), policy.distribution.log_prob(outputs, raw)

    def penalty(params):
        def q(observation, action):
            return jnp.stack([critic.apply(member(params, i), (), (observation, action))[1] for i in range(2)])

        rows = regularizer(jax.random.split(KEY, 3)[1], HP, sample, q, q(data.observation, data.action), data)
        return jnp.sum(rows * data.extras["weight"]) / jnp.sum(data.extras["weight"])

    value, gradient = jax.jit(jax.value_and_grad(penalty))(state.params["critic"])
    assert_close(difference(plain[0].params["critic"], full[0].params["critic"]), gradient)
    np.testing.assert_allclose(full[1]["critic_loss"] - plain[1]["critic_loss"], value, rtol=1e-4)
    assert_close(plain[0].params["policy"], full[0].params["policy"], 1e-6)


def test_fixed_point_in_one_state():
    """Where alpha (E_softmax - E_data) grad Q + E_data (Q - r) grad Q = 0, with E_softmax by numerical integration."""
    alpha = 0.5
    data = bandit(lambda a: -((a - 0.3) ** 2), low=-0.5, high=0.8, size=128)
    policy = Policy(constant([0.0, 0.0]), tanh_gaussian(-1.0, 1.0, (1,)))
    agent = sac(
        policy,
        quadratic_critic(),
        regularizer=conservative(-1.0, 1.0, (1,), num_samples=64),
        hparams=SACHparams(0.02, 0.0, 0.0, initial_temperature=0.2, regularizer=CQLHparams(alpha)),
    )
    state, _ = learn(agent, data, 800)
    hp = state.hparams._replace(learning_rate=jnp.float32(1e-3))
    run = jax.jit(lambda s: jax.lax.scan(lambda s, k: agent.update(k, s, data), s, jax.random.split(KEY, 800))[0])
    w = np.asarray(run(state._replace(hparams=hp)).params["critic"]["w"][0])

    def features(a):
        return np.stack([np.ones_like(a), a, a**2])

    grid, action = np.linspace(-1, 1, 2001), np.asarray(data.action[:, 0])
    density = np.exp(w @ features(grid))
    soft = np.trapezoid(features(grid) * density, grid, axis=-1) / np.trapezoid(density, grid)
    seen, error = features(action), w @ features(action) - np.asarray(data.reward)
    force = alpha * (soft - seen.mean(1)) + (seen * error).mean(1)
    np.testing.assert_allclose(force, 0.0, atol=0.015)
    assert abs(w[2] + 1.0) > 0.2  # far from the regression that alpha = 0 gives


def test_calibration_needs_returns():
    env = toys.clock()._replace(action_space=Box(LOW, HIGH, (2,)))
    agent = actor_critic.build_cql(env, widths=(8,), calibrated=True)
    data = batch(6, dims=(2, 2), cost=np.zeros(6))
    state = start(agent, data)
    with pytest.raises(
        ValueError,
        match=r"calibrated=True needs data.extras\["
        r'"mc_return"\]; there are \[\'cost\'\]',
    ):
        jax.eval_shape(agent.update, KEY, state, data)
    state, metrics = jax.eval_shape(agent.update, KEY, state, batch(6, dims=(2, 2), mc_return=np.zeros(6)))
    assert state.hparams.regularizer.conservative_weight.shape == () and metrics["critic_loss"].shape == ()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((LOW, HIGH, (2,), 0), "conservative: num_samples is 0, must be >= 1"),
        ((LOW, np.inf, (2,), 1), "conservative: low is .* needs finite low < high"),
        ((1.0, 1.0, (2,), 1), "conservative: low is .* needs finite low < high"),
    ],
)
def test_bad_arguments(arguments, message):
    low, high, shape, num_samples = arguments
    with pytest.raises(ValueError, match=message):
        conservative(low, high, shape, num_samples=num_samples)
