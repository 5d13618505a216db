"""`jaxrl.losses`: values and gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import losses


def value_and_grad(fn, *args):
    """Elementwise values and gradients with respect to the first argument."""
    args = [jnp.asarray(a, jnp.float32) for a in args]
    return jax.jit(jax.vmap(jax.value_and_grad(fn)))(*args)


def test_clipped_surrogate():
    # ratio 1.1 is inside of 1 +- 0.2; 1.5 and 0.5 are outside, and only the pessimistic side keeps its gradient.
    ratio = np.array([1.1, 1.5, 1.5, 0.5, 0.5])
    advantage = np.array([2.0, 2.0, -2.0, 2.0, -2.0])
    old = np.full(5, -1.0)
    value, grad = value_and_grad(
        lambda log_prob, old, adv: losses.clipped_surrogate(log_prob, old, adv, 0.2),
        old + np.log(ratio),
        old,
        advantage,
    )
    np.testing.assert_allclose(value, [-2.2, -2.4, 3.0, -1.0, 1.6], rtol=1e-6)
    # d/d log_prob of -ratio A is -ratio A
    np.testing.assert_allclose(grad, [-2.2, 0.0, 3.0, -1.0, 0.0], rtol=1e-6)


def test_clipped_surrogate_is_finite_at_huge_ratios():
    for advantage in (1.0, -1.0):
        value, grad = value_and_grad(lambda lp, a: losses.clipped_surrogate(lp, 0.0, a, 0.2), [200.0], [advantage])
        assert np.isfinite(value).all() and np.isfinite(grad).all()


def test_clipped_value():
    # Old value 0, target 1, clip 0.2: moved within; beyond, toward the target; beyond, past it; beyond, away from it.
    value, grad = value_and_grad(lambda v: losses.clipped_value(v, 0.0, 1.0, 0.2), [0.1, 0.5, 3.0, -0.5])
    np.testing.assert_allclose(value, [0.5 * 0.9**2, 0.5 * 0.8**2, 0.5 * 2**2, 0.5 * 1.5**2], rtol=1e-6)
    np.testing.assert_allclose(grad, [-0.9, 0.0, 2.0, -1.5], rtol=1e-6)


def test_clipped_value_without_clip_is_the_squared_error_to_the_bit():
    value, old, target = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32) * 10
    actual = value_and_grad(lambda v, o, t: losses.clipped_value(v, o, t, jnp.inf), value, old, target)
    expected = value_and_grad(lambda v, t: 0.5 * (v - t) * (v - t), value, target)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    assert np.abs(actual[1]).min() > 0


def test_approx_kl():
    value, grad = value_and_grad(losses.approx_kl, [np.log(2.0), 0.0, np.log(0.5)], [0.0, 0.0, 0.0])
    np.testing.assert_allclose(value, [1 - np.log(2), 0.0, -0.5 + np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(grad, [1.0, 0.0, -0.5], rtol=1e-6)  # ratio - 1
    small = losses.approx_kl(jnp.float32(1e-3), jnp.float32(0.0))
    np.testing.assert_allclose(small, 0.5e-6, rtol=1e-3)  # (exp(x) - 1) - x would be lost in rounding: 4.7e-7 .. 5.9e-7


def test_approx_kl_estimates_kl():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
    estimate = np.sum(p * losses.approx_kl(jnp.log(q), jnp.log(p)))
    np.testing.assert_allclose(estimate, np.sum(p * np.log(p / q)), rtol=1e-5)


def test_huber_and_squared():
    value, grad = value_and_grad(lambda x: losses.huber(x, 2.0), [0.0, 1.0, -2.0, 3.0, -5.0])
    np.testing.assert_allclose(value, [0.0, 0.5, 2.0, 4.0, 8.0])
    np.testing.assert_allclose(grad, [0.0, 1.0, -2.0, 2.0, -2.0])
    value, grad = value_and_grad(losses.squared, [3.0, -4.0])
    np.testing.assert_allclose((value, grad), ([4.5, 8.0], [3.0, -4.0]))


def test_normalize():
    x = jnp.array([1.0, 2.0, 3.0, 6.0])
    np.testing.assert_allclose(losses.normalize(x), (np.arange(4) + [-2, -2, -2, 0]) / np.sqrt(3.5), rtol=1e-5)
    # Weights 2, 1, 1 are the rows 1, 1, 2, 4: mean 2, variance 6 / 4.
    y = losses.normalize(jnp.array([1.0, 2.0, 4.0]), jnp.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(y, np.array([-1.0, 0.0, 2.0]) / np.sqrt(1.5), rtol=1e-5, atol=1e-6)


def test_normalize_ignores_rows_of_weight_0():
    x = jnp.array([1.0, jnp.nan, 2.0, 1e30, 3.0, 6.0])
    weight = jnp.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    actual = losses.normalize(x, weight)
    np.testing.assert_allclose(actual[weight > 0], losses.normalize(jnp.array([1.0, 2.0, 3.0, 6.0])), rtol=1e-5)
    np.testing.assert_array_equal(actual[weight == 0], 0.0)
    np.testing.assert_array_equal(losses.normalize(x, jnp.zeros(6)), 0.0)


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.5, 0.0, 1.0], np.float32)])
def test_normalize_has_finite_gradients_at_constants(weight):
    for constant in (0.0, 3.0):
        x = jnp.full(4, constant)
        jacobian = jax.jacobian(lambda x: losses.normalize(x, weight))(x)
        assert np.isfinite(jacobian).all()
        np.testing.assert_allclose(losses.normalize(x, weight), 0.0, atol=1e-4)


def test_expectile_and_pinball():
    value, grad = value_and_grad(lambda x: losses.expectile(x, 0.9), [2.0, -2.0])
    np.testing.assert_allclose((value, grad), ([3.6, 0.4], [3.6, -0.4]), rtol=1e-6)
    value, grad = value_and_grad(lambda x: losses.pinball(x, 0.9), [2.0, -2.0])
    np.testing.assert_allclose((value, grad), ([1.8, 0.2], [0.9, -0.1]), rtol=1e-5)


@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
def test_expectile_and_quantile_regression(tau):
    """What minimizes the mean over standard uniform numbers: the tau-quantile is tau, the tau-expectile solves
    tau (1 - v)^2 = (1 - tau) v^2."""
    q, v = (np.arange(1000) + 0.5) / 1000, jnp.linspace(0, 1, 1001)
    for loss, exact in ((losses.pinball, tau), (losses.expectile, np.sqrt(tau) / (np.sqrt(tau) + np.sqrt(1 - tau)))):
        mean = jax.vmap(lambda v, loss=loss: jnp.mean(loss(jnp.float32(q) - v, tau)))(v)
        np.testing.assert_allclose(v[jnp.argmin(mean)], exact, atol=2e-3)


def test_gumbel():
    """(e^z - z - 1) / e^m: its slope at the largest z is below 1, and a clipped row has none."""
    x = np.array([-3.0, 0.0, 1.0, 4.0, 9.0])
    z = np.minimum(x, 5.0)
    actual, pull = jax.vjp(lambda x: losses.gumbel(x, 5.0), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(actual, (np.exp(z) - z - 1) * np.exp(-5.0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(pull(jnp.ones(5))[0], (np.exp(z) - 1) * np.exp(-5.0) * (x < 5), rtol=1e-5, atol=1e-7)
    # Unclipped it does not overflow; the floor of m is -1; rows of weight 0 do not count in m.
    value, grad = jax.value_and_grad(lambda x: losses.gumbel(x, jnp.inf).sum())(jnp.float32([500.0, 0.0]))
    assert np.isfinite(value) and np.isfinite(grad).all()
    np.testing.assert_allclose(losses.gumbel(jnp.float32([-4.0])), [(np.exp(-4.0) + 3.0) * np.e], rtol=1e-5)
    weighted = losses.gumbel(jnp.float32([1.0, 6.0]), 7.0, jnp.float32([1.0, 0.0]))
    np.testing.assert_allclose(weighted[0], losses.gumbel(jnp.float32([1.0]))[0], rtol=1e-6)


def test_advantage_weight():
    weight, grad = value_and_grad(lambda a: losses.advantage_weight(a, 3.0, 100.0), [0.0, 1.0, -1.0, 50.0, 1e3])
    np.testing.assert_allclose(weight, [1.0, np.exp(3.0), np.exp(-3.0), 100.0, 100.0], rtol=1e-6)
    np.testing.assert_array_equal(grad, 0.0)


def test_categorical_projection():
    atoms = np.array([-1.0, 0.0, 1.0, 2.0])
    # 0.25 at -3 is clipped to -1; 0.25 at 0.5 is halved; 0.5 at 1.75 goes to 1 and 2 as 1 : 3.
    m = losses.categorical_projection(jnp.array([0.25, 0.25, 0.5]), jnp.array([-3.0, 0.5, 1.75]), atoms)
    np.testing.assert_allclose(m, [0.25, 0.125, 0.125 + 0.125, 0.375], rtol=1e-6)
    # Against the loop of the paper's algorithm 1, values on and outside of the atoms included.
    rng = np.random.default_rng(0)
    z = np.linspace(-2, 3, 11)
    p, x = rng.dirichlet(np.ones(11), 7), rng.normal(size=(7, 11)) * 3
    x[0] = z
    expected = np.zeros((7, 11))
    for row in range(7):
        for j in range(11):
            b = (np.clip(x[row, j], -2, 3) + 2) / 0.5
            low, high = int(np.floor(b)), int(np.ceil(b))
            expected[row, low] += p[row, j] * (high - b if high > low else 1.0)
            expected[row, high] += p[row, j] * (b - low)
    actual = losses.categorical_projection(jnp.asarray(p, jnp.float32), jnp.asarray(x, jnp.float32), z)
    np.testing.assert_allclose(actual, expected, atol=2e-6)
    rlax = pytest.importorskip("rlax")
    project = jax.vmap(rlax.categorical_l2_project, (0, 0, None))
    theirs = project(*(jnp.asarray(a, jnp.float32) for a in (x, p, z)))
    np.testing.assert_allclose(actual, theirs, atol=2e-6)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_quantile_huber(kappa):
    rng = np.random.default_rng(0)
    theta, target = rng.normal(size=(4, 3)), rng.normal(size=(4, 5))
    tau = np.array([0.1, 0.5, 0.8])
    loss, slope = np.zeros(4), np.zeros((4, 3))
    for row in range(4):
        for i in range(3):
            for j in range(5):
                u = target[row, j] - theta[row, i]
                weight = abs(tau[i] - (u < 0)) / 5
                small = abs(u) <= kappa
                loss[row] += weight * (0.5 * u * u / kappa if small else abs(u) - 0.5 * kappa)
                slope[row, i] -= weight * (u / kappa if small else np.sign(u))
    arguments = [jnp.asarray(a, jnp.float32) for a in (theta, np.tile(tau, (4, 1)), target)]
    value, grad = jax.vmap(jax.value_and_grad(lambda *x: losses.quantile_huber(*x, kappa)))(*arguments)
    np.testing.assert_allclose(value, loss, rtol=1e-5)
    np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses.quantile_huber(arguments[0], tau, arguments[2], kappa), loss, rtol=1e-5)
    if kappa == 0.5:
        return  # rlax does not divide by kappa
    rlax = pytest.importorskip("rlax")
    theirs = [rlax.quantile_regression_loss(q, t, y, kappa) for q, t, y in zip(*arguments)]
    np.testing.assert_allclose(value, theirs, rtol=1e-5)


def test_huber_has_all_its_derivatives():
    second = jax.vmap(jax.grad(jax.grad(losses.huber)))(jnp.array([0.5, -0.5, 3.0]))
    np.testing.assert_array_equal(second, [1.0, 1.0, 0.0])
    by_delta = jax.vmap(jax.grad(losses.huber, 1), (0, None))(jnp.array([0.5, -5.0]), 2.0)
    np.testing.assert_array_equal(by_delta, [0.0, 3.0])


def test_signed_hyperbolic_and_its_inverse():
    x = np.array([-3e4, -20.0, -0.5, 0.0, 1e-3, 3.0, 99.0, 1e5])
    h = np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x
    np.testing.assert_allclose(losses.signed_hyperbolic(jnp.asarray(x, jnp.float32)), h, rtol=1e-4)
    np.testing.assert_allclose(losses.signed_parabolic(jnp.asarray(h, jnp.float32)), x, rtol=1e-4, atol=1e-6)
    rlax = pytest.importorskip("rlax")
    np.testing.assert_allclose(losses.signed_hyperbolic(h.astype(np.float32)), rlax.signed_hyperbolic(jnp.float32(h)))


def test_conservative():
    q = jnp.array([[0.0, np.log(2.0), np.log(5.0)], [1.0, -1e9, -1e9]])
    value, grad = jax.vmap(jax.value_and_grad(losses.conservative))(q, jnp.array([np.log(2.0), 1.0]))
    np.testing.assert_allclose(value, [np.log(4.0), 0.0], rtol=1e-6)
    np.testing.assert_allclose(grad, [[1 / 8, 2 / 8, 5 / 8], [1.0, 0.0, 0.0]], rtol=1e-6)
