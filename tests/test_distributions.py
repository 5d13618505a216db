"""`jaxrl.distributions`: densities, samples, entropies and divergences against each other and against float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import spaces
from jaxrl.distributions import (
    _expected_log_slope,
    categorical,
    diagonal_gaussian,
    for_space,
    mask_logits,
    multi_categorical,
    tanh_gaussian,
)

KEY = jax.random.key(0)
LOW, HIGH = (-1.0, 2.0), (3.0, 5.0)
FAMILIES = {
    "categorical": categorical(5),
    "multi_equal": multi_categorical((3, 3)),
    "multi_unequal": multi_categorical((2, 4, 1)),
    "gaussian": diagonal_gaussian((2,)),
    "gaussian_bounded": diagonal_gaussian((2,), LOW, HIGH),
    "tanh": tanh_gaussian(LOW, HIGH, (2,)),
}


def draw_params(distribution, batch=(), seed=0, scale=1.0):
    params = scale * np.random.default_rng(seed).normal(size=(*batch, distribution.num_params))
    return jnp.asarray(params, jnp.float32)


def samples(distribution, params, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return jax.jit(jax.vmap(distribution.sample, (0, None)))(keys, params)


def log_softmax64(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


# All families ---------------------------------------------------------------------------------------------------------


def everything(distribution, key, params, other):
    """All functions of a family, on one set of arguments."""
    raw = distribution.sample(key, params)
    return {
        "raw": raw,
        "mode": distribution.mode(params),
        "action": distribution.transform(raw),
        "log_prob": distribution.log_prob(params, raw),
        "entropy": distribution.entropy(params),
        "kl": distribution.kl(params, other),
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_leading_axes_and_vmap(name):
    distribution = FAMILIES[name]
    keys, params, other = (
        jax.random.split(KEY, 2),
        draw_params(distribution, (2, 3)),
        draw_params(distribution, (2, 3), seed=1),
    )

    @jax.jit
    def run(keys, params, other):
        evaluate = functools.partial(everything, distribution)
        rows = [evaluate(keys[i], params[i], other[i]) for i in range(2)]
        whole = everything(distribution, keys[0], params, other)
        return jax.vmap(evaluate)(keys, params, other), jax.tree.map(lambda *x: jnp.stack(x), *rows), whole

    # The same key and params make the same samples, alone or under vmap; densities do not depend on the leading axes.
    mapped, rows, whole = run(keys, params, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mapped, rows)
    np.testing.assert_allclose(whole["entropy"], rows["entropy"], rtol=1e-5)
    np.testing.assert_allclose(whole["kl"], rows["kl"], rtol=1e-5)
    assert whole["mode"].shape == whole["raw"].shape and whole["mode"].dtype == whole["raw"].dtype
    for fn in ("log_prob", "entropy", "kl"):
        assert whole[fn].shape == (2, 3) and whole[fn].dtype == jnp.float32
    assert whole["raw"].shape[:2] == (2, 3)
    assert whole["raw"].dtype == whole["action"].dtype == (jnp.float32 if distribution.num_scale else jnp.int32)


@pytest.mark.parametrize("name", FAMILIES)
def test_entropy_and_kl_against_monte_carlo(name):
    distribution = FAMILIES[name]
    params, other = draw_params(distribution, seed=1, scale=0.5), draw_params(distribution, seed=2, scale=0.5)
    raw = samples(distribution, params, 100_000)
    log_p = np.asarray(distribution.log_prob(params, raw), np.float64)
    log_q = np.asarray(distribution.log_prob(other, raw), np.float64)
    for estimate, exact in ((-log_p, distribution.entropy(params)), (log_p - log_q, distribution.kl(params, other))):
        assert abs(estimate.mean() - exact) < 5 * estimate.std() / np.sqrt(len(estimate)) + 1e-5
    np.testing.assert_allclose(distribution.kl(params, params), 0.0, atol=1e-6)
    assert distribution.kl(params, other) > 0.01


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_finite_and_right(name):
    distribution = FAMILIES[name]
    params, other = draw_params(distribution, seed=1), draw_params(distribution, seed=2)
    raw = distribution.sample(KEY, params)

    def total(params):
        return distribution.log_prob(params, raw) + distribution.entropy(params) + distribution.kl(params, other)

    step, size = 1e-2, distribution.num_params
    gradient = jax.jit(jax.grad(total))
    totals = jax.jit(jax.vmap(total))
    moves = step * jnp.eye(size)
    difference = (totals(params + moves) - totals(params - moves)) / (2 * step)
    np.testing.assert_allclose(gradient(params), difference, atol=2e-2, rtol=2e-2)
    # log_std itself stays moderate: a standard deviation of exp(1000) has no density.
    is_scale = jnp.arange(size) >= size - distribution.num_scale
    for scale in (0.0, 1e3):
        assert np.isfinite(gradient(jnp.where(is_scale, params, scale * params))).all()


# Categorical ----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 30.0, 1e4]), masked=st.booleans())
def test_categorical_against_float64(seed, scale, masked):
    rng = np.random.default_rng(seed)
    logits, other = (scale * rng.normal(size=(2, 5))).astype(np.float32)
    mask = rng.random(5) < 0.5 if masked else np.ones(5, bool)
    mask[rng.integers(5)] = True
    logits, other = (np.asarray(mask_logits(jnp.asarray(x), mask)) for x in (logits, other))
    log_p, log_q = log_softmax64(logits), log_softmax64(other)
    distribution = FAMILIES["categorical"]
    actual = np.asarray(_categorical_log_probs(logits))
    np.testing.assert_allclose(actual, log_p, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(actual.astype(np.float64)).sum(), 1.0, rtol=1e-5)
    assert (np.exp(actual)[~mask] == 0.0).all()
    p = np.exp(log_p)
    np.testing.assert_allclose(distribution.entropy(logits), -np.sum(p * log_p), rtol=1e-4, atol=1e-4)
    expected = np.sum(np.where(p > 0, p * (log_p - log_q), 0.0))
    np.testing.assert_allclose(distribution.kl(logits, other), expected, rtol=1e-4, atol=1e-4)
    assert distribution.mode(logits) == np.argmax(logits) and mask[distribution.mode(logits)]


@jax.jit
def _categorical_log_probs(logits):
    return jax.vmap(FAMILIES["categorical"].log_prob, (None, 0))(logits, jnp.arange(5))


def chi_square(counts, expected):
    """Asserts that counts are multinomial, at about 4 sigma (Wilson and Hilferty's cube root)."""
    keep = expected > 5
    statistic = np.sum((counts - expected)[keep] ** 2 / expected[keep]) + np.sum(counts[expected == 0]) * 1e9
    freedom = max(keep.sum() - 1, 1)
    z = ((statistic / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom))
    assert z < 4.0, (counts, expected)


@pytest.mark.parametrize("n", [1, 2, 5, 32, 33, 300])  # up to 32 actions are summed in order, more by cumsum
@pytest.mark.parametrize("masked", [False, True])
def test_categorical_samples_match_the_probabilities(n, masked):
    rng = np.random.default_rng(n)
    logits = rng.normal(size=n).astype(np.float32) * 2
    if masked:
        mask = rng.random(n) < 0.5
        mask[rng.integers(n)] = True
        logits = np.asarray(mask_logits(jnp.asarray(logits), mask))
    num = 200_000
    raw = np.asarray(categorical(n).sample(KEY, jnp.broadcast_to(logits, (num, n))))
    chi_square(np.bincount(raw, minlength=n), num * np.exp(log_softmax64(logits)) * (logits > -1e8))


@pytest.mark.parametrize("n", [3, 32, 33, 300])
def test_illegal_actions_are_never_drawn_whatever_the_uniform_number(n, monkeypatch):
    """The largest number below 1, 0, and numbers at the edges of the sums: where rounding could choose wrongly."""
    rng = np.random.default_rng(0)
    top = np.float32(1 - 2**-23)

    @jax.jit
    def sample(logits, u):
        monkeypatch.setattr(jax.random, "uniform", lambda key, shape: u)
        return categorical(n).sample(KEY, logits)

    for trial in range(30):
        mask = rng.random((200, n)) < rng.choice([0.1, 0.5, 0.9])
        mask[np.arange(200), rng.integers(0, n, 200)] = True
        logits = np.where(mask, (rng.normal(size=(200, n)) * rng.choice([0.0, 1.0, 20.0])).astype(np.float32), -1e9)
        p = np.exp(logits - logits.max(-1, keepdims=True)).astype(np.float32)
        edges = (np.cumsum(p, -1) / p.sum(-1, keepdims=True))[np.arange(200), rng.integers(0, n, 200)]
        u = np.minimum(rng.choice([edges, np.full(200, top), np.zeros(200)]), top).astype(np.float32)
        raw = np.asarray(sample(jnp.asarray(logits, jnp.float32), jnp.asarray(u)))
        assert mask[np.arange(200), raw].all(), trial
        highest = n - 1 - np.argmax((p > 1e-5 * p.sum(-1, keepdims=True))[:, ::-1], -1)
        if (u == top).all():
            assert (raw >= highest).all()
        lowest = np.argmax(p > 1e-37, -1)  # XLA may take numbers near the subnormal ones for 0
        if (u == 0).all():
            assert (raw <= lowest).all()


def test_uniform_numbers_stay_below_what_the_sampler_relies_on():
    u = jax.random.uniform(KEY, (2**22,))
    assert u.max() <= np.float32(1 - 2**-23) and u.min() >= 0


def test_all_illegal_is_uniform_and_in_range():
    logits = np.asarray(mask_logits(jnp.zeros((10_000, 3)), jnp.zeros((10_000, 3), bool)))
    chi_square(np.bincount(categorical(3).sample(KEY, logits), minlength=3), np.full(3, 10_000 / 3))
    family, logits = FAMILIES["multi_unequal"], np.full(7, -1e9, np.float32)
    raw = samples(family, logits, 1000)
    np.testing.assert_array_equal(np.max(raw, 0), [1, 3, 0])
    gradient = jax.jit(jax.grad(lambda p: family.entropy(p) + family.log_prob(p, raw[0])))(logits)
    assert np.isfinite(gradient).all()


def test_masked_gradients_are_zero_at_illegal_actions_and_finite():
    distribution = FAMILIES["categorical"]
    mask = jnp.array([True, False, True, False, True])

    def total(logits):
        logits = mask_logits(logits, mask)
        return distribution.log_prob(logits, jnp.int32(2)) + distribution.entropy(logits)

    gradient = jax.grad(total)(draw_params(distribution))
    assert np.isfinite(gradient).all() and (gradient[~mask] == 0).all() and (gradient[mask] != 0).all()


def test_multi_categorical_is_a_product():
    for family, nvec in ((FAMILIES["multi_equal"], (3, 3)), (FAMILIES["multi_unequal"], (2, 4, 1))):
        params = draw_params(family)
        parts = [log_softmax64(p) for p in np.split(params, np.cumsum(nvec)[:-1])]
        actions = np.stack(np.meshgrid(*(np.arange(n) for n in nvec), indexing="ij"), -1).reshape(-1, len(nvec))
        expected = np.array([sum(p[i] for p, i in zip(parts, a, strict=True)) for a in actions])
        actual = jax.vmap(family.log_prob, (None, 0))(params, jnp.asarray(actions))
        np.testing.assert_allclose(actual, expected, rtol=1e-5)
        np.testing.assert_allclose(np.exp(actual).sum(), 1.0, rtol=1e-5)
        raw = np.asarray(samples(family, params, 100_000))
        counts = np.array([(raw == a).all(-1).sum() for a in actions])
        assert counts.sum() == len(raw)
        chi_square(counts, len(raw) * np.exp(expected))


# Gaussian -------------------------------------------------------------------------------------------------------------


def kolmogorov_smirnov(x, cdf):
    """Asserts that x are samples of cdf (a false alarm once in ten thousand)."""
    x = np.sort(np.asarray(x, np.float64))
    steps = np.arange(len(x) + 1) / len(x)
    distance = max(np.max(steps[1:] - cdf(x)), np.max(cdf(x) - steps[:-1]))
    assert distance < 2.23 / np.sqrt(len(x))


def normal_cdf(x, mean, std):
    return 0.5 * (1 + np.vectorize(math.erf)((x - mean) / (std * math.sqrt(2))))


@pytest.mark.parametrize("name", ["gaussian", "tanh"])
def test_samples_match_the_gaussian(name):
    distribution = FAMILIES[name]
    params = jnp.array([0.5, -2.0, -1.0, 0.7])
    raw = samples(distribution, params, 20_000)
    for i in range(2):
        kolmogorov_smirnov(raw[:, i], lambda x, i=i: normal_cdf(x, float(params[i]), math.exp(params[2 + i])))
    assert abs(np.corrcoef(raw.T)[0, 1]) < 0.03


def test_gaussian_log_prob_integrates_to_one():
    distribution = diagonal_gaussian(())
    grid = jnp.linspace(-12.0, 12.0, 20_001)
    density = jnp.exp(distribution.log_prob(jnp.array([0.3, 0.2]), grid))
    np.testing.assert_allclose(np.trapezoid(np.asarray(density, np.float64), grid), 1.0, rtol=1e-5)


def test_tanh_log_prob_integrates_to_one_over_the_actions():
    distribution = tanh_gaussian(-1.0, 3.0, ())
    for log_std in (-1.0, 0.5):
        raw = np.linspace(-7.0, 7.0, 40_001)
        action = 1.0 + 2.0 * np.tanh(raw)
        density = np.exp(distribution.log_prob(jnp.array([0.3, log_std]), jnp.asarray(raw, jnp.float32)))
        np.testing.assert_allclose(np.trapezoid(density.astype(np.float64), action), 1.0, rtol=1e-3)


@pytest.mark.parametrize("raw", [0.0, -0.5, 3.0, 8.0, -8.0, 10.0, 40.0])
def test_tanh_log_prob_is_exact_at_saturation(raw):
    """log N(raw) - log |d action / d raw| with the derivative in float64; 1 - tanh(10)^2 is 0 in float32."""
    distribution = tanh_gaussian((-1.0, 2.0), (3.0, 5.0), (2,))
    params = jnp.array([raw - 0.5, 0.1, -0.3, 0.4])
    x = np.array([raw, 0.2])
    mean, std = np.array([raw - 0.5, 0.1]), np.exp(np.array([-0.3, 0.4]))
    slope = np.array([2.0, 1.5]) * 4 * np.exp(-2 * np.abs(x)) / (1 + np.exp(-2 * np.abs(x))) ** 2
    if abs(raw) <= 10:  # the closed form of the derivative is itself checked against a difference
        h = 1e-3
        np.testing.assert_allclose(slope, np.array([2.0, 1.5]) * (np.tanh(x + h) - np.tanh(x - h)) / (2 * h), rtol=1e-4)
    normal = -0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    actual, gradient = jax.value_and_grad(distribution.log_prob, argnums=1)(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(actual, np.sum(normal - np.log(slope)), rtol=1e-5)
    np.testing.assert_allclose(gradient, -(x - mean) / std**2 + 2 * np.tanh(x), rtol=1e-4, atol=1e-5)


expected_log_slope_and_grad = jax.jit(jax.value_and_grad(_expected_log_slope, argnums=(0, 1)))


def expected_log_slope64(mean, std):
    z = np.linspace(-12, 12, 100_001)
    x = np.abs(mean + std * z)
    values = 2 * (np.log(2) - x - np.log1p(np.exp(-2 * x)))
    return np.trapezoid(values * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi), z)


@pytest.mark.parametrize("mean", [0.0, 0.5, -2.0, 6.0])
@pytest.mark.parametrize(("std", "tolerance"), [(1e-3, 5e-5), (0.5, 5e-5), (2.0, 5e-5), (3.0, 1e-3), (7.389, 0.05)])
def test_tanh_entropy_is_as_near_as_documented(mean, std, tolerance):
    actual = expected_log_slope_and_grad(np.float32(mean), np.float32(std))
    np.testing.assert_allclose(actual[0], expected_log_slope64(mean, std), atol=tolerance, rtol=1e-5)
    h = 1e-3 * std
    by_mean = (expected_log_slope64(mean + h, std) - expected_log_slope64(mean - h, std)) / (2 * h)
    by_std = (expected_log_slope64(mean, std + h) - expected_log_slope64(mean, std - h)) / (2 * h)
    np.testing.assert_allclose(actual[1], (by_mean, by_std), atol=4 * tolerance)


def test_tanh_clips_log_std():
    distribution = FAMILIES["tanh"]
    raw = jnp.array([0.1, -0.4])
    for given_, used in ((5.0, 2.0), (-30.0, -20.0)):
        params, clipped = jnp.array([0.1, -0.4, given_, 0.0]), jnp.array([0.1, -0.4, used, 0.0])
        for fn in (
            lambda p: distribution.log_prob(p, raw),
            distribution.entropy,
            lambda p: distribution.sample(KEY, p),
        ):
            np.testing.assert_array_equal(fn(params), fn(clipped))


@pytest.mark.parametrize("name", ["gaussian_bounded", "tanh"])
def test_transform_stays_inside_and_inverse_inverts(name):
    distribution = FAMILIES[name]
    space = spaces.Box(LOW, HIGH, (2,))
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(1000, 2)) * 30, jnp.float32)
    action = distribution.transform(raw)
    assert jax.vmap(space.contains)(action).all()
    np.testing.assert_allclose(distribution.transform(distribution.inverse(action)), action, atol=1e-5)
    np.testing.assert_allclose(distribution.transform(jnp.zeros(2)), [1.0, 3.5])
    inside = jnp.linspace(-0.9, 0.9, 20).reshape(10, 2)
    np.testing.assert_allclose(distribution.inverse(distribution.transform(inside)), inside, rtol=1e-5, atol=1e-6)


def test_bounded_gaussian_clips_at_one_and_half_bounded_at_the_bound():
    distribution = diagonal_gaussian((2,), (-1.0, 0.0), (3.0, math.inf))
    np.testing.assert_allclose(distribution.transform(jnp.array([[0.5, 0.5], [2.0, -2.0]])), [[2.0, 0.5], [3.0, 0.0]])
    raw = jnp.array([7.0, -9.0])
    np.testing.assert_array_equal(diagonal_gaussian((2,)).transform(raw), raw)
    np.testing.assert_allclose(  # the density of raw does not know of the bounds
        distribution.log_prob(jnp.zeros(4), raw), diagonal_gaussian((2,)).log_prob(jnp.zeros(4), raw)
    )


def test_action_shapes_of_any_rank():
    for shape in ((), (1,), (2, 3)):
        for distribution in (diagonal_gaussian(shape, -1, 1), tanh_gaussian(-1, 1, shape)):
            size = math.prod(shape)
            assert (distribution.num_params, distribution.num_scale) == (2 * size, size)
            params = draw_params(distribution, (4,))
            result = jax.eval_shape(functools.partial(everything, distribution), KEY, params, params)
            assert result["raw"].shape == result["action"].shape == result["mode"].shape == (4, *shape)
            assert result["log_prob"].shape == result["entropy"].shape == result["kl"].shape == (4,)


def test_for_space():
    assert for_space(spaces.Discrete(3)).num_params == 3
    assert for_space(spaces.MultiDiscrete((2, 5))).num_params == 7
    box = spaces.Box(-2.0, 2.0, (3,))
    raw = jnp.array([5.0, -5.0, 0.5])
    np.testing.assert_allclose(for_space(box).transform(raw), [2.0, -2.0, 1.0])
    np.testing.assert_allclose(for_space(box, squash=True).transform(raw), 2 * np.tanh(raw), rtol=1e-6)
    for space in (spaces.Dict({"a": box}), spaces.Tuple((box,)), spaces.Box(0, 255, (3,), "uint8")):
        with pytest.raises(ValueError, match="for_space: no distribution for"):
            for_space(space)


def test_errors_name_the_argument():
    cases = [
        (lambda: categorical(0), "n is 0"),
        (lambda: multi_categorical(()), "nvec is"),
        (lambda: multi_categorical((3, 0)), "nvec is"),
        (lambda: diagonal_gaussian((2,), 1.0, -1.0), "low is"),
        (lambda: diagonal_gaussian((2,), (0.0, 0.0, 0.0), 1.0), "do not fit shape"),
        (lambda: tanh_gaussian(-1.0, math.inf, (2,)), "needs finite"),
        (lambda: tanh_gaussian(1.0, 1.0, (2,)), "needs finite"),
        (lambda: mask_logits(jnp.zeros(3), jnp.ones(1, bool)), "mask has shape"),
    ]
    for fn, message in cases:
        with pytest.raises(ValueError, match=message):
            fn()
