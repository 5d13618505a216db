"""IQL, XQL and f-DVL: fixed points on tabular data, one update by loops, what a batch's rows mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular

from jaxrl import divergences, networks
from jaxrl.agents.iql import IQLHparams, iql
from jaxrl.distributions import categorical, diagonal_gaussian
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)
S, A = 5, 3


def sgd(hp):
    return optax.sgd(hp.learning_rate)


def solve(maximizer, numbers, num_mdps=6, discount=0.8, num_updates=12_000, support=((True,) * A,) * S, beta=1.0):
    """Learns tables from exact expectations over several random MDPs at once: (mdp, behavior, state after) of each.

    Steps shrink, since some value losses have a kink at their minimum.
    """
    mdps = [tabular.random_mdp(seed, S, A, discount) for seed in range(num_mdps)]
    behaviors = [tabular.random_policy(seed, S, A, support) for seed in range(num_mdps)]
    data = tabular.stack([tabular.rows(m, b / S) for m, b in zip(mdps, behaviors)])

    def decaying(hp):
        return optax.sgd(lambda t: hp.learning_rate * jnp.minimum(1.0, 1e-4 ** (t / num_updates - 0.1)))

    policy = Policy(tabular.logits_table(S, A), categorical(A))
    critic = tabular.critic_table(S, A, size=2)
    agent = iql(policy, tabular.value_table(S), critic, value_loss=maximizer, optimizer=decaying)
    hp = agent.hparams._replace(
        learning_rate=3.0, discount=discount, target_rate=0.2, inverse_temperature=beta, value=numbers
    )

    def train(data):
        state = agent.init(KEY, hp, data)
        return jax.lax.scan(lambda s, _: (agent.update(KEY, s, data)[0], None), state, None, num_updates)[0]

    states = jax.jit(jax.vmap(train))(data)
    return [(m, b, jax.tree.map(lambda x, i=i: x[i], states)) for i, (m, b) in enumerate(zip(mdps, behaviors))]


def check(results, backup):
    """Values against an independent iteration of V = backup(Q, behavior)."""
    for mdp, behavior, state in results:
        exact = tabular.solve_backup(mdp, lambda q, b=behavior: np.array([backup(*row) for row in zip(q, b)]), 60)
        np.testing.assert_allclose(state.params["value"], exact, atol=1e-3)
        q = tabular.q_of(mdp, exact)
        seen = behavior > 0
        np.testing.assert_allclose(state.params["critic"][1][seen], q[seen], atol=1e-3)


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9])
def test_fixed_point_of_the_expectile(tau):
    results = solve(divergences.expectile(), divergences.ExpectileHparams(tau))
    check(results, lambda q, b: tabular.expectile(q, b, tau))
    if tau == 0.5:  # the mean: the value of the behavior
        for mdp, behavior, state in results:
            np.testing.assert_allclose(state.params["value"], tabular.evaluate_policy(mdp, behavior), atol=1e-3)
    for mdp, behavior, state in results:  # the policy is b exp(beta A), beta = 1
        advantage = tabular.q_of(mdp, np.asarray(state.params["value"])) - np.asarray(state.params["value"])[:, None]
        exact = behavior * np.exp(advantage)
        probabilities = jax.nn.softmax(state.params["policy"])
        np.testing.assert_allclose(probabilities, exact / exact.sum(1, keepdims=True), atol=2e-3)


def test_expectiles_near_one_approach_the_best_policy_inside_the_data():
    """Not the best one at all: actions that the data lacks are never asked for."""
    support = np.array([[True, True, False]] * S)
    errors = {}
    for tau in (0.9, 0.99, 0.999):
        results = solve(divergences.expectile(), divergences.ExpectileHparams(tau), support=support)
        inside = [tabular.value_iteration(mdp, support) for mdp, _, _ in results]
        learned = [np.asarray(state.params["value"]) for _, _, state in results]
        errors[tau] = np.max(np.abs(np.array(inside) - learned))
    assert errors[0.99] < 0.3 * errors[0.9] and errors[0.999] < 0.02
    everywhere = [tabular.value_iteration(mdp) for mdp, _, _ in results]
    assert np.max(np.array(everywhere) - inside) > 0.5


def test_fixed_point_of_gumbel_regression():
    """V = T log E exp(Q / T), as long as nothing is clipped."""
    results = solve(divergences.gumbel(), divergences.GumbelHparams(1.0, np.inf))
    check(results, lambda q, b: np.log(b @ np.exp(q)))


def test_fixed_point_of_f_dvl():
    """E (1 + (Q - V) / 2) 1(Q > V) = (1 - lambda) / lambda, by bisection."""

    def backup(q, b, lambda_=0.7):
        low, high = q.min() - 10.0, q.max()
        for _ in range(60):
            v = 0.5 * (low + high)
            x = q - v
            low, high = (v, high) if np.sum(b * (1 + x / 2) * (x > 0)) > (1 - lambda_) / lambda_ else (low, v)
        return v

    results = solve(divergences.dual("pearson_chi2"), divergences.DualHparams(0.7), num_updates=30_000)
    for mdp, behavior, state in results:  # V rattles about the kink at Q = V, and Q follows slowly: less exact
        exact = tabular.solve_backup(mdp, lambda q, b=behavior: np.array([backup(*x) for x in zip(q, b)]), 60)
        np.testing.assert_allclose(state.params["value"], exact, atol=1e-2)


def continuous_agent(hparams, **keywords):
    policy = networks.policy(networks.mlp((6,)), diagonal_gaussian((2,), -2.0, 2.0), scale=1.0)
    value = networks.critic(networks.mlp((6,)))
    one = networks.critic(networks.view(networks.mlp((6,)), lambda x: jnp.concatenate(x, -1)))
    critic = networks.ensemble(one, 2)
    agent = iql(policy, value, critic, hparams=hparams, **keywords)
    return agent, policy, value, one


def transitions(size=10, seed=0, **extras):
    rng = np.random.default_rng(seed)
    observation, following = rng.normal(size=(2, size, 3)).astype(np.float32)
    action = rng.uniform(-2, 2, (size, 2)).astype(np.float32)
    terminated, truncated = rng.random((2, size)) < 0.3
    data = Transition(
        observation,
        action,
        rng.normal(size=size).astype(np.float32),
        terminated,
        truncated & ~terminated,
        following,
        extras,
    )
    return jax.tree.map(jnp.asarray, data)


def reference_loss(params, frozen, target, policy, value, one, data, hp):
    """The sum of IQL's losses row by row, from the paper; what is a constant to the gradient is a float of `frozen`."""
    weight, num_steps = np.asarray(data.extras["weight"]), np.asarray(data.extras["num_steps"])
    member = lambda tree, i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
    total = 0.0
    for b in np.flatnonzero(weight):
        row = jax.tree.map(lambda x, b=b: x[b], data._replace(extras={}))
        inputs = (row.observation, row.action)
        best = min(float(one.apply(member(target, i), (), inputs)[1]) for i in range(2))
        now, following = (
            float(value.apply(frozen["value"], (), o)[1]) for o in (row.observation, row.next_observation)
        )
        v = value.apply(params["value"], (), row.observation)[1]
        loss = (hp.value.expectile if best > now else 1 - hp.value.expectile) * (best - v) ** 2
        goal = float(row.reward) + (0.0 if row.terminated else hp.discount ** num_steps[b] * following)
        for i in range(2):
            loss += 0.5 * (goal - one.apply(member(params["critic"], i), (), inputs)[1]) ** 2
        mean, log_std = jnp.split(policy.network.apply(params["policy"], (), row.observation)[1], 2)
        z = (row.action / 2.0 - mean) * jnp.exp(-log_std)  # the box of 2 is 1 in raw units
        loss += min(np.exp(hp.inverse_temperature * (best - now)), hp.max_weight) * jnp.sum(0.5 * z**2 + log_std)
        total += weight[b] * loss
    return total / weight.sum()


def poison(data):
    """NaN in every float of the rows of weight 0."""
    absent = data.extras["weight"] == 0

    def fill(x):
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.where(absent.reshape(-1, *[1] * (x.ndim - 1)), jnp.nan, x) if floats else x

    return jax.tree.map(fill, data._replace(extras={}))._replace(extras=data.extras)


def test_one_update_against_a_reference():
    """Weights (0 with NaN beside), rows of several steps, both ends, two critics, the target's step, priorities."""
    hp = IQLHparams(learning_rate=1.0, inverse_temperature=2.0, max_weight=2.0, target_rate=0.3, discount=0.9)
    agent, *parts = continuous_agent(hp, optimizer=sgd)
    weight, num_steps = jnp.asarray([0.5, 2.0, 0.0, 1.0] * 3), jnp.asarray([1, 2, 3, 1, 3, 1] * 2)
    data = transitions(12, weight=weight, num_steps=num_steps, index=jnp.arange(12))
    kept = data.extras["weight"] > 0
    assert (data.terminated & kept).any() and (data.truncated & kept).any()
    state = agent.init(KEY, hp, data)
    target = jax.tree.map(lambda x: 1.1 * x + 0.05, state.params["critic"])
    gradient = jax.grad(reference_loss)(state.params, state.params, target, *parts, data, hp)
    after, metrics = jax.jit(agent.update)(KEY, state._replace(target_params=target), poison(data))
    step = jax.tree.map(lambda old, new: old - new, state.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), step, gradient)
    moved = jax.tree.map(lambda t, p: t + 0.3 * (p - t), target, after.params["critic"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.target_params, moved)

    _, value, one = parts
    q = np.array(
        [one.apply(jax.tree.map(lambda x, i=i: x[i], state.params["critic"]), (), data[:2])[1] for i in (0, 1)]
    )
    following = value.apply(state.params["value"], (), data.next_observation)[1]
    goal = data.reward + 0.9**num_steps * (1 - data.terminated) * following
    np.testing.assert_allclose(metrics["priority"][kept], np.abs(goal - q).max(0)[kept], rtol=1e-4)
    plain = data._replace(extras={"weight": weight})
    assert "priority" not in jax.eval_shape(agent.update, KEY, state, plain)[1]


@pytest.mark.parametrize("kind", ["gumbel", "pearson_chi2", "total_variation"])
def test_rows_of_weight_zero_are_not_there(kind):
    agent, *_ = continuous_agent(None, value_loss=divergences.MAXIMIZERS[kind]())
    weight = jnp.asarray([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    data = transitions(6, weight=weight)
    kept = jax.tree.map(lambda x: x[weight > 0], data)
    state = agent.init(KEY, agent.hparams, data)
    update = jax.jit(agent.update)
    (expected, _), (actual, metrics) = update(KEY, state, kept), update(KEY, state, poison(data))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), actual.params, expected.params)
    assert all(np.isfinite(x) and x.shape == () for x in metrics.values())


def test_the_actor_has_no_critic():
    agent, policy, value, _ = continuous_agent(None)
    data = transitions(4)
    state = agent.init(KEY, agent.hparams, data)
    actor = agent.actor(state)
    assert actor.params["critic"] == actor.target_params == actor.opt_state == ()
    _, action, extras = agent.act_greedy(KEY, actor, (), data.observation)
    mean = policy.network.apply(state.params["policy"], (), data.observation)[1][:, :2]
    np.testing.assert_allclose(action, jnp.clip(2 * mean, -2, 2), rtol=1e-5)
    np.testing.assert_allclose(extras["value"], value.apply(state.params["value"], (), data.observation)[1], rtol=1e-6)


def test_hparams_must_be_of_the_value_loss():
    agent, *_ = continuous_agent(None, value_loss=divergences.gumbel())
    assert agent.hparams.value == divergences.GumbelHparams()
    with pytest.raises(ValueError, match="hparams.value is ExpectileHparams, the value loss needs GumbelHparams"):
        agent.init(KEY, IQLHparams(), transitions(4))
