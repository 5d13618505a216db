"""`jaxrl.returns` against float64 sums, hand-computed arrays, and the law of weight 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import returns

SHAPES = [(1,), (7,), (16, 3), (5, 2, 2)]  # few, so that there are few compilations
DISCOUNT, LAMBDA = 0.9, 0.8
CLIPS = {"clip_rho": 1.2, "clip_c": 0.9, "clip_pg_rho": 1.5}

# name -> (function of jaxrl, its reference, names of the arguments)
CASES = {
    "gae": (returns.gae, reference.gae, "reward value next_value discount trace"),
    "lambda_returns": (returns.lambda_returns, reference.lambda_returns, "reward next_value discount trace"),
    "discounted_returns": (returns.discounted_returns, reference.discounted_returns, "reward next_value discount last"),
    "n_step_1": (
        functools.partial(returns.n_step_returns, n=1),
        functools.partial(reference.n_step_returns, n=1),
        "reward next_value discount last",
    ),
    "n_step_3": (
        functools.partial(returns.n_step_returns, n=3),
        functools.partial(reference.n_step_returns, n=3),
        "reward next_value discount last",
    ),
    "vtrace": (
        functools.partial(returns.vtrace, **CLIPS),
        functools.partial(reference.vtrace, **CLIPS),
        "reward value next_value discount trace ratio",
    ),
    "retrace": (
        functools.partial(returns.retrace, clip_c=0.9),
        functools.partial(reference.retrace, clip_c=0.9),
        "reward value next_value discount trace ratio",
    ),
}
jitted = {name: jax.jit(fn) for name, (fn, _, _) in CASES.items()}


def draw(seed, shape):
    """Random trajectories: episodes end by termination or truncation, steps span 1 to 3 primitive ones."""
    rng = np.random.default_rng(seed)
    terminated = rng.random(shape) < rng.choice([0.0, 0.1, 0.5])
    last = terminated | (rng.random(shape) < rng.choice([0.0, 0.1, 0.5]))
    gamma, lambda_ = rng.choice([0.0, 0.9, 1.0]), rng.choice([0.0, 0.8, 1.0])
    steps = rng.integers(1, 4, shape)
    scale = rng.choice([1e-3, 1.0, 100.0])
    data = {name: scale * rng.normal(size=shape) for name in ("reward", "value", "next_value")}
    data["discount"] = gamma**steps * (1.0 - terminated)
    data["trace"] = gamma**steps * lambda_ * (1.0 - last)
    data["ratio"] = np.exp(rng.normal(size=shape))
    data = {name: x.astype(np.float32) for name, x in data.items()} | {"last": last}
    return data, (rng.random(shape) < rng.choice([0.3, 0.8, 1.0])).astype(np.float32)


def compare(actual, expected, tolerance=1e-5, scale=1e-3):
    """Error scaled by the largest number, of what goes in (`scale`: a sum may cancel) or of what comes out.

    Rows that are NaN in `expected` are not there.
    """
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        there = ~np.isnan(e)
        if there.any():
            assert np.max(np.abs(np.asarray(a) - e)[there]) <= tolerance * max(scale, np.max(np.abs(e[there])))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=500, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES), weighted=st.booleans())
def test_against_reference(name, seed, shape, weighted):
    _, expected, arguments = CASES[name]
    data, weight = draw(seed, shape)
    weight = weight if weighted else None
    inputs = [data[a] for a in arguments.split()]
    scale = max(np.max(np.abs(data[a])) for a in ("reward", "value", "next_value"))
    actual, exact = jitted[name](*inputs, weight=weight), reference.columns(expected, *inputs, weight=weight)
    compare(actual, exact, scale=scale)


@pytest.mark.parametrize("name", CASES)
def test_inserted_rows_of_weight_0_change_nothing(name):
    arguments = CASES[name][2].split()
    rng = np.random.default_rng(0)
    for seed in range(20):
        data, _ = draw(seed, (9,))
        garbage, _ = draw(1000 + seed, (16,))
        rows = np.sort(rng.choice(16, 9, replace=False))
        weight = np.zeros(16, np.float32)
        weight[rows] = 1.0
        padded = {k: 1e6 * v if v.dtype == np.float32 else v for k, v in garbage.items()}
        for k, v in padded.items():
            v[rows] = data[k]
        plain = jitted[name](*(data[a] for a in arguments))
        actual = jitted[name](*(padded[a] for a in arguments), weight=weight)
        compare(jax.tree.map(lambda x, rows=rows: x[rows], actual), jax.tree.map(np.asarray, plain), 1e-6)


# An episode that ends at t = 1, then the first step of another one. V(s) = 10, 20, 30; V(s') = 20, 25, 40.
REWARD = np.array([1.0, 2.0, 3.0], np.float32)
VALUE = np.array([10.0, 20.0, 30.0], np.float32)
NEXT_VALUE = np.array([20.0, 25.0, 40.0], np.float32)
LAST = np.array([False, True, False])
TERMINATION, TRUNCATION = np.array([0.9, 0.0, 0.9], np.float32), np.array([0.9, 0.9, 0.9], np.float32)
TRACE = np.array([0.72, 0.0, 0.72], np.float32)


def test_gae_by_hand():
    # delta = 1 + 18 - 10 = 9, then 2 - 20 = -18 or 2 + 22.5 - 20 = 4.5, then 3 + 36 - 30 = 9
    terminated = returns.gae(REWARD, VALUE, NEXT_VALUE, TERMINATION, TRACE)
    np.testing.assert_allclose(terminated, [9 - 0.72 * 18, -18, 9], rtol=1e-6)
    truncated = returns.gae(REWARD, VALUE, NEXT_VALUE, TRUNCATION, TRACE)
    np.testing.assert_allclose(truncated, [9 + 0.72 * 4.5, 4.5, 9], rtol=1e-6)


def test_lambda_returns_by_hand():
    terminated = returns.lambda_returns(REWARD, NEXT_VALUE, TERMINATION, TRACE)
    np.testing.assert_allclose(terminated, [1 + 0.9 * 20 + 0.72 * (2 - 20), 2, 39], rtol=1e-6)
    truncated = returns.lambda_returns(REWARD, NEXT_VALUE, TRUNCATION, TRACE)
    np.testing.assert_allclose(truncated, [1 + 0.9 * 20 + 0.72 * (24.5 - 20), 24.5, 39], rtol=1e-6)


def test_discounted_and_n_step_returns_by_hand():
    for discount, second in ((TERMINATION, 2.0), (TRUNCATION, 24.5)):
        expected = [1 + 0.9 * second, second, 39.0]
        np.testing.assert_allclose(returns.discounted_returns(REWARD, NEXT_VALUE, discount, LAST), expected, rtol=1e-6)
        np.testing.assert_allclose(returns.n_step_returns(REWARD, NEXT_VALUE, discount, LAST, 2), expected, rtol=1e-6)
        one = returns.n_step_returns(REWARD, NEXT_VALUE, discount, LAST, 1)
        np.testing.assert_allclose(one, [19.0, second, 39.0], rtol=1e-6)


def test_n_step_bootstraps_after_n_steps():
    ones, discount = jnp.ones(4), jnp.full(4, 0.5)
    actual = returns.n_step_returns(ones, jnp.arange(4) * 8.0, discount, jnp.zeros(4, bool), 2)
    np.testing.assert_allclose(actual, [1.5 + 2, 1.5 + 4, 1.5 + 6, 1 + 12])


def test_vtrace_by_hand():
    ratio = np.array([2.0, 0.5, 0.1], np.float32)
    # x_2 = 0.1 * 9, x_1 = 0.5 * 4.5, x_0 = 9 + 0.72 * 1 * x_1
    targets, advantage = returns.vtrace(REWARD, VALUE, NEXT_VALUE, TRUNCATION, TRACE, ratio)
    np.testing.assert_allclose(targets, [10 + 9 + 0.72 * 2.25, 20 + 2.25, 30 + 0.9], rtol=1e-6)
    np.testing.assert_allclose(advantage, [9 + 0.72 * 2.25, 0.5 * 4.5, 0.1 * 9], rtol=1e-6)


def test_vtrace_on_policy_is_the_lambda_return():
    data, _ = draw(3, (16, 3))
    # V(s'_t) = V(s_{t+1}) within an episode, as in data where every row is the successor of the last
    next_value = np.where(data["last"], data["next_value"], np.roll(data["value"], -1, 0))
    targets, _ = returns.vtrace(
        data["reward"], data["value"], next_value, data["discount"], data["trace"], np.ones_like(data["reward"])
    )
    expected = reference.columns(reference.lambda_returns, data["reward"], next_value, data["discount"], data["trace"])
    compare(targets, expected)


def test_retrace_by_hand():
    ratio = np.array([100.0, 0.5, 7.0], np.float32)
    # c_1 = 0.5 enters row 0; the ratio of row 0 enters nothing; row 1 ends its episode, so c_2 is not used
    actual = returns.retrace(REWARD, VALUE, NEXT_VALUE, TRUNCATION, TRACE, ratio)
    np.testing.assert_allclose(actual, [10 + 9 + 0.72 * 0.5 * 4.5, 24.5, 39], rtol=1e-6)


def test_constant_reward_and_truncation_have_the_value_of_the_endless_task():
    """r = 1 for ever, cut every 4 steps: with V = 1 / (1 - gamma) all advantages are 0; terminated, they are not."""
    value = jnp.full(12, 10.0)
    last = jnp.arange(12) % 4 == 3
    trace = DISCOUNT * LAMBDA * (1.0 - last)
    truncated = returns.gae(jnp.ones(12), value, value, jnp.full(12, DISCOUNT), trace)
    np.testing.assert_allclose(truncated, 0.0, atol=1e-5)
    terminated = returns.gae(jnp.ones(12), value, value, DISCOUNT * (1.0 - last), trace)
    np.testing.assert_allclose(terminated[3], -9.0, rtol=1e-6)
    np.testing.assert_allclose(terminated[2], -9.0 * DISCOUNT * LAMBDA, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_vmap_gradients_and_dtype(name):
    fn, _, arguments = CASES[name]
    data, _ = draw(5, (16, 3))
    inputs = [data[a] for a in arguments.split()]
    mapped = jax.jit(jax.vmap(fn, in_axes=1, out_axes=1))(*inputs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), mapped, jitted[name](*inputs))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(mapped))

    def total(reward):
        return sum(jnp.sum(x) for x in jax.tree.leaves(fn(reward, *inputs[1:])))

    gradient = jax.jit(jax.grad(total))(inputs[0])
    # The functions are affine in the reward: the gradient is the exact change under a change of any size.
    direction = draw(6, (16, 3))[0]["reward"]
    change = total(inputs[0] + direction) - total(inputs[0])
    np.testing.assert_allclose(np.sum(gradient * direction), change, rtol=1e-3, atol=1e-3)


def test_errors():
    with pytest.raises(ValueError, match="n is 0"):
        returns.n_step_returns(jnp.ones(3), jnp.ones(3), jnp.ones(3), jnp.zeros(3, bool), 0)
