"""ODICE: the projection, the three gradients against loops, the tabular dual."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import tabular

from jaxrl import divergences, gradients, networks
from jaxrl.agents.odice import ODICEHparams, odice
from jaxrl.distributions import categorical, diagonal_gaussian
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)


def sgd(hp):
    return optax.sgd(hp.learning_rate)


def test_project_out():
    """On pytrees: zero inner product with the direction, the rest untouched; a direction of 0 takes nothing away."""
    rng = np.random.default_rng(0)
    v, d = ({"a": jnp.asarray(rng.normal(size=(3, 2))), "b": [jnp.asarray(rng.normal(size=4))]} for _ in range(2))
    flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])  # noqa: E731
    left = gradients.project_out(v, d)
    np.testing.assert_allclose(gradients.dot(left, d), 0.0, atol=1e-6)
    np.testing.assert_allclose(flat(left) - flat(v), -(flat(v) @ flat(d) / (flat(d) @ flat(d))) * flat(d), atol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, d)
    jax.tree.map(np.testing.assert_array_equal, gradients.project_out(v, zero), v)
    cosine = flat(v) @ flat(d) / np.linalg.norm(flat(v)) / np.linalg.norm(flat(d))
    np.testing.assert_allclose(gradients.cosine(v, d), cosine, rtol=1e-5)
    assert gradients.cosine(v, zero) == 0.0


def test_blank():
    data = Transition(
        jnp.float32([[1, jnp.nan], [3, 4]]), jnp.int32([5, 6]), jnp.float32([jnp.nan, 1]), *(jnp.ones(2, bool),) * 2, ()
    )
    assert gradients.blank(data) is data
    out = gradients.blank(data._replace(extras={"weight": jnp.float32([0, 2]), "index": jnp.int32([7, 8])}))
    np.testing.assert_array_equal(out.observation, [[0, 0], [3, 4]])
    np.testing.assert_array_equal(out.action, [0, 6])
    np.testing.assert_array_equal(out.reward, [0, 1])
    np.testing.assert_array_equal(out.terminated, [False, True])
    np.testing.assert_array_equal(out.extras["index"], [7, 8])


def make(gradient):
    policy = networks.policy(networks.mlp((6,)), diagonal_gaussian((2,), -1.0, 1.0), scale=1.0)
    one = networks.critic(networks.mlp((6,)))
    hp = ODICEHparams(learning_rate=1.0, discount=0.9, backward_weight=0.7, max_weight=1.5, target_rate=0.3)
    return odice(policy, networks.ensemble(one, 2), gradient=gradient, optimizer=sgd, hparams=hp), policy, one


def batch(size=12):
    rng = np.random.default_rng(0)
    observation, following = rng.normal(size=(2, size, 3))
    terminated, truncated = rng.random((2, size)) < 0.3
    extras = {
        "weight": np.array([0.5, 2.0, 0.0, 1.0] * (size // 4), np.float32),
        "num_steps": rng.integers(1, 4, size),
        "index": np.arange(size),
    }
    data = Transition(
        observation, rng.uniform(-1, 1, (size, 2)), 2 * rng.normal(size=size), terminated, truncated, following
    )
    data = jax.tree.map(lambda x: np.asarray(x, np.float32) if x.dtype == np.float64 else x, data)
    return jax.tree.map(jnp.asarray, data._replace(extras=extras))


def reference(kind, state, policy, one, data, hp):
    """The steps of value and policy by loops over rows and members, from the paper's equations."""
    weight, num_steps = np.asarray(data.extras["weight"]), np.asarray(data.extras["num_steps"])
    rows = np.flatnonzero(weight)
    v = lambda params, i, o: one.apply(jax.tree.map(lambda x: x[i], params), (), o)[1]  # noqa: E731
    low = lambda o: min(float(v(state.target_params, i, o)) for i in (0, 1))  # noqa: E731
    decay = {b: 0.0 if data.terminated[b] else hp.discount ** num_steps[b] for b in rows}

    def chi2(e):  # f*_p
        return e + e * e / 4 if e > -2 else -1.0 + 0.0 * e

    def mean(term):
        return sum(weight[b] * 0.5 * (term(b, 0) + term(b, 1)) for b in rows) / weight.sum()

    now, after, reward = data.observation, data.next_observation, data.reward
    forward = lambda p, b, i: reward[b] + decay[b] * low(after[b]) - v(p, i, now[b])  # noqa: E731
    backward = lambda p, b, i: reward[b] + decay[b] * v(p, i, after[b]) - low(now[b])  # noqa: E731
    both = lambda p, b, i: reward[b] + decay[b] * v(p, i, after[b]) - v(p, i, now[b])  # noqa: E731

    def slope(residual):
        return jax.grad(lambda p: hp.value_lambda * mean(lambda b, i: chi2(residual(p, b, i))))(state.params["value"])

    push = jax.grad(lambda p: (1 - hp.value_lambda) * mean(lambda b, i: v(p, i, now[b])))(state.params["value"])
    used = both if kind == "true" else forward
    g = slope(used)
    if kind == "orthogonal":
        g_b = slope(backward)
        flat_f, flat_b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (g, g_b))
        share = flat_f @ flat_b / (flat_f @ flat_f)
        g = jax.tree.map(lambda f, b: f + hp.backward_weight * (b - share * f), g, g_b)

    def policy_loss(params):
        total = 0.0
        for b in rows:
            rated = np.mean([np.clip(float(used(state.params["value"], b, i)), 0, hp.max_weight) for i in (0, 1)])
            outputs = policy.network.apply(params, (), now[b])[1]
            total -= weight[b] * rated * policy.distribution.log_prob(outputs, data.action[b])
        return total / weight.sum()

    return {"policy": jax.grad(policy_loss)(state.params["policy"]), "value": jax.tree.map(jnp.add, push, g)}


@pytest.mark.parametrize("kind", ["orthogonal", "semi", "true"])
def test_one_update_against_a_reference(kind):
    """Weights (0 with NaN beside), rows of several steps, both ends, a target that lags."""
    agent, policy, one = make(kind)
    data = batch()
    state = agent.init(KEY, agent.hparams, data)
    state = state._replace(target_params=jax.tree.map(lambda x: 1.2 * x + 0.1, state.params["value"]))
    exact = reference(kind, state, policy, one, data, agent.hparams)
    absent = data.extras["weight"] == 0
    fill = lambda x: jnp.where(absent.reshape(-1, *[1] * (x.ndim - 1)), jnp.nan, x) if x.dtype == jnp.float32 else x  # noqa: E731
    poisoned = jax.tree.map(fill, data._replace(extras={}))._replace(extras=data.extras)
    after, metrics = jax.jit(agent.update)(KEY, state, poisoned)
    step = jax.tree.map(lambda old, new: old - new, state.params, after.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), step, exact)
    moved = jax.tree.map(lambda t, p: t + 0.3 * (p - t), state.target_params, after.params["value"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.target_params, moved)
    assert metrics["priority"].shape == (12,) and np.isfinite(metrics["gradient_cosine"])


def test_the_true_gradient_solves_the_tabular_dual():
    """A deterministic MDP, so that one successor is the expectation: V is the minimizer that scipy finds."""
    states, actions, discount, lambda_ = 5, 3, 0.8, 0.6
    mdp = tabular.random_mdp(3, states, actions, discount, branching=1)
    behavior = tabular.random_policy(3, states, actions, np.ones((states, actions), bool)) / states
    divergence = divergences.soft_chi2()
    policy = Policy(tabular.logits_table(states, actions), categorical(actions))
    value = networks.ensemble(tabular.value_table(states), 1)
    hp = ODICEHparams(learning_rate=0.5, discount=discount, value_lambda=lambda_)
    agent = odice(policy, value, gradient="true", divergence=divergence, optimizer=sgd, hparams=hp)
    data = tabular.rows(mdp, behavior)

    def train():
        state = agent.init(KEY, hp, data)
        return jax.lax.scan(lambda s, _: (agent.update(KEY, s, data)[0], None), state, None, 20_000)[0]

    learned = jax.jit(train)()

    def objective(v):
        e = tabular.q_of(mdp, v) - v[:, None]
        conjugate = np.where(e < 0, np.expm1(np.minimum(e, 0)), e + 0.5 * e * e)
        return (1 - lambda_) * v.mean() + lambda_ * np.sum(behavior * conjugate)

    exact = scipy.optimize.minimize(objective, np.zeros(states), method="BFGS").x
    np.testing.assert_allclose(learned.params["value"][0], exact, atol=2e-3)
    # The policy is the data's, weighted by max(0, e), where there is any such weight.
    rated = behavior * np.clip(tabular.q_of(mdp, exact) - exact[:, None], 0, None)
    seen = rated.sum(1) > 1e-3
    assert seen.sum() >= 3
    probabilities = jax.nn.softmax(learned.params["policy"])
    np.testing.assert_allclose(probabilities[seen], rated[seen] / rated[seen].sum(1, keepdims=True), atol=1e-2)


def test_the_actor_and_bad_arguments():
    agent, policy, one = make("semi")
    data = batch()
    state = agent.init(KEY, agent.hparams, data)
    actor = agent.actor(state)
    assert actor.target_params == actor.opt_state == ()
    _, action, extras = agent.act_greedy(KEY, actor, (), data.observation)
    both = [
        one.apply(jax.tree.map(lambda x, i=i: x[i], state.params["value"]), (), data.observation)[1] for i in (0, 1)
    ]
    np.testing.assert_allclose(extras["value"], np.min(both, 0), rtol=1e-5)
    assert action.shape == (12, 2)
    with pytest.raises(ValueError, match="gradient is 'half', allowed: 'orthogonal', 'semi', 'true'"):
        odice(policy, one, gradient="half")
