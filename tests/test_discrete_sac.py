"""Discrete SAC: the soft optimum of tabular MDPs, one update against plain loops, the temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
import toys

import jaxrl
from jaxrl import action_values, networks
from jaxrl.agents.discrete_sac import DiscreteSACHparams, discrete_sac
from jaxrl.distributions import categorical, diagonal_gaussian
from jaxrl.envs import diagnostic
from jaxrl.factory.value_based import build_discrete_sac
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)
S, A = 5, 3


def one_hot():
    return networks.feed_forward(lambda key, observation: {}, lambda params, s: jnp.eye(S)[s])


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_soft_optimum(temperature):
    """V = temperature log sum exp(Q / temperature), and pi = exp((Q - V) / temperature)."""
    mdps = [tabular.random_mdp(seed, S, A, 0.8) for seed in range(4)]
    data = tabular.stack([tabular.rows(m, np.full((S, A), 1 / (S * A))) for m in mdps])
    values = action_values.scalar(one_hot(), A)
    num_updates = 6000

    def optimizer(hp):
        return optax.adam(lambda t: hp.learning_rate * jnp.minimum(1.0, 1e-3 ** ((t / num_updates - 0.3) / 0.7)))

    agent = discrete_sac(Policy(tabular.logits_table(S, A), categorical(A)), values, optimizer=optimizer)
    hp = DiscreteSACHparams(0.05, 0.05, 0.0, temperature, discount=0.8, target_rate=0.05)

    def train(data):
        state = agent.init(KEY, hp, data)
        step = lambda state, key: (agent.update(key, state, data)[0], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(KEY, num_updates))[0]

    states = jax.jit(jax.vmap(train))(data)
    q = lambda p: values.mean(values.apply(None, p, (), jnp.arange(S))[1])  # noqa: E731
    learned = jax.vmap(jax.vmap(q))(states.params["critic"])
    policy = np.asarray(jax.nn.softmax(states.params["policy"]))
    for i, mdp in enumerate(mdps):

        def backup(q):
            top = q.max(1)
            return top + temperature * np.log(np.exp((q - top[:, None]) / temperature).sum(1))

        value = tabular.solve_backup(mdp, backup)
        exact = tabular.q_of(mdp, value)
        for member in range(2):
            np.testing.assert_allclose(learned[i, member], exact, atol=2e-3)
        np.testing.assert_allclose(policy[i], np.exp((exact - value[:, None]) / temperature), atol=5e-3)
    state = jax.tree.map(lambda x: x[0], states)
    _, action, extras = agent.act_greedy(KEY, state, (), jnp.arange(S))
    np.testing.assert_array_equal(action, policy[0].argmax(-1))
    expected = (policy[0] * np.asarray(learned[0]).min(0)).sum(-1)
    np.testing.assert_allclose(extras["value"], expected, rtol=1e-4, atol=1e-4)


def random_data(batch_size=8, seed=0, **extras):
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, batch_size)) < 0.4
    numbers = rng.normal(size=(2, batch_size, 4))
    return Transition(
        jnp.asarray(numbers[0], jnp.float32),
        jnp.asarray(rng.integers(0, A, batch_size), jnp.int32),
        jnp.asarray(rng.normal(size=batch_size), jnp.float32),
        jnp.asarray(terminated),
        jnp.asarray(truncated & ~terminated),
        jnp.asarray(numbers[1], jnp.float32),
        extras,
    )


def make(**static):
    values = action_values.scalar(networks.mlp((8,)), A)
    policy = networks.policy(networks.mlp((8,)), categorical(A), scale=1.0)
    return values, policy, discrete_sac(policy, values, **static)


def test_one_update_against_a_reference():
    """Losses by sums over rows and actions: their gradients are the three steps."""
    values, policy, agent = make(optimizer=lambda hp: optax.sgd(hp.learning_rate))
    weight = np.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 0.25, 1.0])
    data = random_data(weight=jnp.asarray(weight, jnp.float32), num_steps=jnp.array([1, 3, 2, 1, 1, 2, 1, 3]))
    hp = DiscreteSACHparams(1.0, 0.5, 0.25, 0.3, 0.7, 0.9, 0.2)
    state = jax.jit(agent.init)(KEY, hp, data)
    state = state._replace(target_params=jax.jit(agent.init)(jax.random.key(1), hp, data).params["critic"])

    def q(params, i, observation):
        return values.mean(values.apply(None, jax.tree.map(lambda x: x[i], params), (), observation)[1])

    def log_pi(params, observation):
        return jax.nn.log_softmax(policy.network.apply(params, (), observation)[1])

    def row_losses(params, b):
        """Of critics, policy and log temperature."""
        frozen, now, later = state.params, data.observation[b], data.next_observation[b]
        log_p, next_value = log_pi(frozen["policy"], later), 0.0
        for a in range(A):
            least = min(float(q(state.target_params, i, later)[a]) for i in range(2))
            next_value += float(jnp.exp(log_p[a])) * (least - 0.3 * float(log_p[a]))
        decay = 0.0 if data.terminated[b] else 0.9 ** float(data.extras["num_steps"][b])
        target = float(data.reward[b]) + decay * next_value
        critic = sum(0.5 * (q(params["critic"], i, now)[data.action[b]] - target) ** 2 for i in range(2))
        log_p = log_pi(params["policy"], now)
        least = jnp.minimum(q(frozen["critic"], 0, now), q(frozen["critic"], 1, now))
        actor = sum(jnp.exp(log_p[a]) * (0.3 * log_p[a] - least[a]) for a in range(A))
        log_p = log_pi(frozen["policy"], now)
        entropy = -jnp.sum(jnp.exp(log_p) * log_p)
        dual = jnp.exp(params["log_temperature"]) * (entropy - 0.7 * np.log(A))
        return critic + actor + dual

    def reference(params):
        return sum(w * row_losses(params, b) for b, w in enumerate(weight)) / weight.sum()

    gradient = jax.grad(reference)(state.params)
    after, metrics = jax.jit(agent.update)(KEY, state, data)
    for name, rate in (("critic", 1.0), ("policy", 0.5), ("log_temperature", 0.25)):
        for new, old, g in zip(*(jax.tree.leaves(x[name]) for x in (after.params, state.params, gradient))):
            np.testing.assert_allclose(old - new, rate * g, atol=3e-6)
    for new, old, now in zip(*map(jax.tree.leaves, (after.params["critic"], state.target_params, after.target_params))):
        np.testing.assert_allclose(now, 0.8 * old + 0.2 * new, atol=1e-6)
    assert "priority" not in metrics


def test_the_temperature_finds_the_entropy():
    """Where actions are worth 1, 0 and -1, the policy's entropy becomes the wanted share of log 3."""
    _, _, agent = make()
    data = random_data(64)
    data = data._replace(reward=1.0 - data.action.astype(jnp.float32), terminated=jnp.ones(64, bool))
    hp = DiscreteSACHparams(3e-3, 3e-3, 3e-3, target_entropy_share=0.6)
    state = agent.init(KEY, hp, data)
    step = lambda state, key: agent.update(key, state, data)  # noqa: E731
    state, metrics = jax.jit(lambda: jax.lax.scan(step, state, jax.random.split(KEY, 3000)))()
    np.testing.assert_allclose(metrics["entropy"][-1], 0.6 * np.log(3), atol=0.02)
    assert (state.params["log_temperature"] != jnp.log(hp.initial_temperature)).all()


def test_masked_actions():
    """Never sampled; entropy is measured against the legal ones; targets and gradients stay finite."""
    env = diagnostic.masked_action_reward()
    agent = build_discrete_sac(env, widths=(16,))
    n = 64
    mask = jnp.tile(jnp.array([[True, True, False]]), (n, 1)).at[: n // 2].set(True)
    observation = {"observation": jnp.where(mask[:, 2:], 1.0, -1.0), "action_mask": mask}
    action = jax.random.categorical(KEY, jnp.where(mask, 0.0, -1e9)).astype(jnp.int32)
    over = jnp.zeros(n, bool)
    data = Transition(observation, action, 1.0 * action, over, ~over, observation)
    hp = DiscreteSACHparams(1e-2, 1e-2, 1e-2, 0.1, target_entropy_share=0.3, discount=0.5)
    state = agent.init(KEY, hp, data)
    step = lambda state, key: agent.update(key, state, data)  # noqa: E731
    state, metrics = jax.jit(lambda: jax.lax.scan(step, state, jax.random.split(KEY, 2000)))()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)))
    np.testing.assert_allclose(metrics["entropy"][-1], 0.3 * (np.log(3) + np.log(2)) / 2, atol=0.03)
    many = jax.vmap(lambda key: agent.act(key, state, (), observation)[1])(jax.random.split(KEY, 200))
    assert not (many[:, n // 2 :] == 2).any() and (many[:, : n // 2] == 2).mean() > 0.5
    greedy = agent.act_greedy(KEY, agent.actor(state), (), observation)[1]
    np.testing.assert_array_equal(greedy, jnp.where(mask[:, 2], 2, 1))


@pytest.mark.parametrize("distribution", ["scalar", "categorical", "quantile"])
def test_priorities_and_absent_rows(distribution):
    agent = build_discrete_sac(toys.clock(actions=A), widths=(8,), distribution=distribution)
    data = random_data()._replace(observation=jnp.ones((8, 2)), next_observation=jnp.ones((8, 2)))
    state = jax.jit(agent.init)(KEY, agent.hparams, data)
    update = jax.jit(agent.update)
    plain, metrics = update(KEY, state, data)
    assert all(x.shape == () for x in metrics.values())
    priority = update(KEY, state, data._replace(extras={"index": jnp.arange(8)}))[1]["priority"]
    assert priority.shape == (8,) and (priority > 0).any()
    absent = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, data)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), data, absent)
    both = both._replace(extras={"weight": (jnp.arange(16) < 8).astype(jnp.float32)})
    padded, _ = update(KEY, state, both)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, padded)


def test_bad_arguments():
    values, policy, _ = make()
    with pytest.raises(ValueError, match="num_critics is 0, must be >= 1"):
        discrete_sac(policy, values, num_critics=0)
    for distribution in (categorical(A + 1), diagonal_gaussian((2,))):
        with pytest.raises(ValueError, match="one logit for each of 3 actions"):
            discrete_sac(Policy(policy.network, distribution), values)
    with pytest.raises(ValueError, match="must be Discrete"):
        build_discrete_sac(jaxrl.envs.make("Pendulum-v1"))
