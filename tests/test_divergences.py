"""f-divergences: conjugates against their definition, the dual of regularized MDPs against the primal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import tabular

from jaxrl import divergences

ALPHA = 0.5

# f and f' written once more, apart from the library.
PRIMAL = {
    "pearson_chi2": (lambda w: (w - 1) ** 2, lambda w: 2 * (w - 1)),
    "kl": (lambda w: w * np.log(w), lambda w: np.log(w) + 1),
    "soft_chi2": (
        lambda w: np.where(w < 1, w * np.log(w) - w + 1, 0.5 * (w - 1) ** 2),
        lambda w: np.where(w < 1, np.log(w), w - 1),
    ),
}


@pytest.mark.parametrize("name", divergences.DIVERGENCES)
def test_conjugates_by_search(name):
    """f*_p(y) = max_w w y - f(w) over a fine grid of w >= 0, where it is bounded; w(y) attains it and is its slope."""
    divergence = divergences.DIVERGENCES[name]()
    y = np.array([-5.0, -3.0, -1.9, -0.6, -0.3, 0.0, 0.2, 0.45, 0.9, 2.0])
    w = np.linspace(0, 12, 120_001)
    if name == "total_variation":
        assert np.isinf(divergence.conjugate(jnp.float32(0.6)))
        y = y[y < 0.5]
    searched = (w * y[:, None] - np.asarray(divergence.f(jnp.asarray(w, jnp.float32)), np.float64)).max(1)
    conjugate, weight = (fn(jnp.asarray(y, jnp.float32)) for fn in (divergence.conjugate, divergence.weight))
    np.testing.assert_allclose(conjugate, searched, atol=2e-5)
    np.testing.assert_allclose(weight * y - divergence.f(weight), conjugate, atol=1e-5)
    slope = jax.vmap(jax.grad(divergence.conjugate))(jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(slope, weight, atol=1e-5)
    np.testing.assert_allclose(divergence.f(jnp.float32(1.0)), 0.0, atol=1e-7)
    if name in PRIMAL:
        inside = np.linspace(0.01, 4, 50)
        np.testing.assert_allclose(divergence.f(jnp.asarray(inside, jnp.float32)), PRIMAL[name][0](inside), atol=1e-5)


@pytest.mark.parametrize("name", PRIMAL)
def test_dual_v_equals_the_primal(name):
    """On 50 random MDPs the least (1 - gamma) E V + alpha E_data f*_p((r + gamma E V(s') - V) / alpha) is the primal's
    value, and w of its residual the ratio of the best occupancy to the data's."""
    divergence = divergences.DIVERGENCES[name]()

    def residual(value, transition, reward, discount):
        return (reward + discount * transition @ value - value[:, None]) / ALPHA

    @jax.jit
    def dual(value, transition, reward, start, discount, data):
        y = residual(value, transition, reward, discount)
        return (1 - discount) * start @ value + ALPHA * jnp.sum(data * divergence.conjugate(y))

    with jax.enable_x64(True):
        slope = jax.jit(jax.value_and_grad(dual))
        for seed in range(50):
            mdp = tabular.random_mdp(seed, num_states=4, num_actions=3)
            data = tabular.occupancy(mdp, tabular.random_policy(seed, 4, 3, np.ones((4, 3), bool)))

            def objective(value, mdp=mdp, data=data):
                loss, gradient = slope(value, *mdp[:3], mdp.discount, data)
                return float(loss), np.asarray(gradient)

            found = scipy.optimize.minimize(objective, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-9})
            primal, best = tabular.regularized_primal(mdp, *PRIMAL[name], ALPHA, data)
            np.testing.assert_allclose(found.fun, primal, atol=1e-4)
            ratio = divergence.weight(residual(found.x, mdp.transition, mdp.reward, mdp.discount))
            np.testing.assert_allclose(data * ratio, best, atol=2e-3)


def test_dual_v_of_total_variation_equals_the_primal():
    """The dual is a linear program too: conjugate max(y, -1/2) under the constraint y <= 1/2."""
    conjugate = divergences.total_variation().conjugate
    for seed in range(50):
        mdp = tabular.random_mdp(seed, num_states=4, num_actions=3)
        data = tabular.occupancy(mdp, tabular.random_policy(seed, 4, 3, np.ones((4, 3), bool)))
        shift = (mdp.discount * mdp.transition - np.eye(4)[:, None]).reshape(12, 4)  # gamma P V - V
        reward, q = mdp.reward.ravel(), data.ravel()
        result = scipy.optimize.linprog(  # variables V, c with c >= r + shift V, c >= -alpha / 2
            np.concatenate([(1 - mdp.discount) * mdp.start, q]),
            A_ub=np.block([[shift, -np.eye(12)], [shift, np.zeros((12, 12))]]),
            b_ub=np.concatenate([-reward, ALPHA / 2 - reward]),
            bounds=[(None, None)] * 4 + [(-ALPHA / 2, None)] * 12,
        )
        value = result.x[:4] + 1e-5  # a little inside of the constraint
        y = (reward + shift @ value) / ALPHA
        dual = (1 - mdp.discount) * mdp.start @ value + ALPHA * np.sum(q * np.asarray(conjugate(jnp.float32(y))))
        np.testing.assert_allclose(dual, tabular.total_variation_primal(mdp, ALPHA, data), atol=1e-4)


def minimizer(maximizer, q, probabilities, **numbers):
    """The V that minimizes E loss(Q - V), on a fine grid."""
    hp = maximizer.hparams._replace(**numbers)
    v = jnp.linspace(q.min() - 1.0, q.max() + 1.0, 40_001)
    loss = jax.vmap(lambda v: jnp.sum(probabilities * maximizer.loss(hp, q - v, None)))(v)
    return float(v[jnp.argmin(loss)])


def test_implicit_maximizers_against_closed_forms():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=7).astype(np.float32), rng.dirichlet(np.ones(7)).astype(np.float32)
    for tau in (0.5, 0.7, 0.95):
        exact = tabular.expectile(q.astype(np.float64), p, tau)
        np.testing.assert_allclose(minimizer(divergences.expectile(), q, p, expectile=tau), exact, atol=2e-3)
    np.testing.assert_allclose(tabular.expectile(q, p, 0.5), p @ q, atol=1e-6)
    for lambda_ in (0.6, 0.8, 0.95):  # the quantile (2 lambda - 1) / lambda
        order = np.argsort(q)
        quantile = q[order][np.searchsorted(np.cumsum(p[order]), (2 * lambda_ - 1) / lambda_)]
        found = minimizer(divergences.dual("total_variation"), q, p, value_lambda=lambda_)
        np.testing.assert_allclose(found, quantile, atol=2e-3)
        # E (1 + (Q - V) / 2) 1(Q > V) = (1 - lambda) / lambda, by bisection
        low, high = q.min() - 5.0, q.max()
        for _ in range(60):
            v = 0.5 * (low + high)
            x = q - v
            low, high = (v, high) if np.sum(p * (1 + x / 2) * (x > 0)) > (1 - lambda_) / lambda_ else (low, v)
        found = minimizer(divergences.dual("pearson_chi2"), q, p, value_lambda=lambda_)
        np.testing.assert_allclose(found, max(v, q.min() - 1), atol=2e-3)


def test_gumbel_regression_is_a_soft_maximum():
    """Not on a grid: the division by the batch's largest slope is a constant to the gradient only."""
    rng = np.random.default_rng(0)
    q, p = jnp.asarray(rng.normal(size=7), jnp.float32), jnp.asarray(rng.dirichlet(np.ones(7)), jnp.float32)
    maximizer = divergences.gumbel()
    hp = maximizer.hparams._replace(value_temperature=0.5)
    soft = 0.5 * jnp.log(jnp.sum(p * jnp.exp(q / 0.5)))
    slope = jax.grad(lambda v: jnp.sum(p * maximizer.loss(hp, q - v, None)))
    assert slope(soft - 0.01) < 0 < slope(soft + 0.01)
    np.testing.assert_allclose(slope(soft), 0.0, atol=1e-5)


def test_dual_needs_a_surrogate():
    with pytest.raises(ValueError, match="divergence is 'kl', allowed: 'pearson_chi2', 'total_variation'"):
        divergences.dual("kl")
