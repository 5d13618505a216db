"""Unique pairs against Python sets; HyperLogLog against exact counts; scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.toydata import chain

from jaxrl import data as d
from jaxrl.data import measures
from jaxrl.types import Transition


def of(observation, action=None, reward=None):
    count = len(observation)
    action = np.zeros(count, np.int32) if action is None else action
    reward = np.zeros(count, np.float32) if reward is None else reward
    ends = np.arange(count) == count - 1
    return d.Dataset(Transition(observation, action, reward, ends, ends & False, observation), {})


def test_unique_pairs_are_counted_exactly():
    random = np.random.default_rng(0)
    for dtype in (np.uint8, np.int32, np.float32, np.bool_):
        observation, action = random.integers(0, 3, (500, 4)).astype(dtype), random.integers(0, 2, 500)
        expected = len({(*o, a) for o, a in zip(observation.tolist(), action.tolist())})
        assert d.unique_pairs(of(observation, action)) == expected
    zeros = np.array([[0.0], [-0.0], [1.0]], np.float32)
    assert d.unique_pairs(of(zeros)) == 2
    tree = {"a": random.integers(0, 2, (64, 2)), "b": (random.integers(0, 2, 64).astype(np.uint8),)}
    assert d.unique_pairs(of(tree["a"], tree)) == len(
        {(*x, y) for x, y in zip(tree["a"].tolist(), tree["b"][0].tolist())}
    )


def test_bins_are_those_of_the_reference():
    reference = of(np.linspace(0, 1, 101, dtype=np.float32)[:, None])
    bins = measures.bin_edges(reference, 10)
    assert d.unique_pairs(reference, bins) == 10  # the greatest value has no bin of its own
    wider = of(np.array([[0.01], [0.05], [0.15], [-0.05], [1.25]], np.float32))
    assert d.unique_pairs(wider, bins) == 4
    assert d.saco(wider, reference, num_bins=10) == 0.4
    assert d.saco(reference, reference) == 1.0
    constant = of(np.ones((5, 1), np.float32))
    assert d.unique_pairs(constant, measures.bin_edges(constant, 4)) == 1
    with pytest.raises(ValueError, match="num_bins is 0"):
        d.saco(reference, reference, num_bins=0)


def test_murmur_is_murmur():
    """Published vectors of MurmurHash3_x86_32, for whole words."""
    words = np.frombuffer(b"test" + b"abcd", np.uint32).reshape(2, 1)
    found = np.asarray(measures.hash_rows(jnp.asarray(words), 0))
    assert found[0] == 0xBA6BD213 and found[1] == 0x43ED676A
    assert np.asarray(measures.hash_rows(jnp.asarray(words), 0x9747B28C))[0] == 0x704B81DC
    assert np.asarray(measures.hash_rows(jnp.zeros((1, 1), jnp.uint32), 0))[0] == 0x2362F9DE


@pytest.mark.parametrize("count", [1, 30, 1000, 20_000, 100_000, 300_000])
def test_hyperloglog_is_within_2_percent(count):
    """Also around 2.5 registers' worth, 164 thousand, where the estimator of 2007 needs corrections; each row twice."""
    random = np.random.default_rng(count)
    observation = random.permutation(np.repeat(np.arange(count, dtype=np.int32), 2))
    dataset = of(observation[:, None], observation % 3)
    assert d.unique_pairs(dataset) == count
    assert abs(d.approximate_unique_pairs(dataset) / count - 1) < 0.02


def test_hyperloglog_has_the_error_that_it_should():
    """24 independent counts by 2**10 registers: the standard error is 1.04 / 32 = 3.25 %, without bias."""
    errors = []
    for seed in range(24):
        rows = np.arange(7000, dtype=np.int32) + 100_000 * seed
        errors.append(d.approximate_unique_pairs(of(rows[:, None]), precision=10) / 7000 - 1)
    assert abs(np.mean(errors)) < 3 * 0.0325 / np.sqrt(24) and 0.6 * 0.0325 < np.std(errors) < 1.5 * 0.0325


def test_sketches_of_parts_make_the_sketch_of_the_whole():
    words = jax.random.bits(jax.random.key(0), (2000, 3), jnp.uint32)
    empty = np.zeros(1 << 8, np.int32)
    whole = measures.sketch(jnp.asarray(empty), words)
    parts = [measures.sketch(jnp.asarray(empty), words[i::2]) for i in range(2)]
    np.testing.assert_array_equal(whole, jnp.maximum(*parts))
    assert measures.estimate(empty) == 0.0


@pytest.mark.parametrize("bits", [3, 8])
def test_the_estimator_is_that_of_the_paper(bits):
    """Also where registers are full: sigma, tau and the weights of Ertl's equation, summed term by term."""
    registers = np.random.default_rng(0).integers(0, bits + 2, 64)
    count, m = np.bincount(registers, minlength=bits + 2), 64
    x, y = count[0] / m, 1 - count[-1] / m
    sigma = x + sum(x ** (2**k) * 2 ** (k - 1) for k in range(1, 40))
    tau = (1 - y - sum((1 - y ** (2.0**-k)) ** 2 * 2.0**-k for k in range(1, 60))) / 3
    inverse = m * sigma + sum(count[k] * 2.0**-k for k in range(1, bits + 1)) + m * tau * 2.0**-bits
    np.testing.assert_allclose(measures.estimate(registers, bits), m**2 / (2 * np.log(2)) / inverse, rtol=1e-12)


def test_saco_by_either_count():
    random = np.random.default_rng(1)
    small, large = (of(random.integers(0, n, (40_000, 2)).astype(np.float32)) for n in (60, 150))
    exact = d.saco(small, large)
    assert exact == d.unique_pairs(small) / d.unique_pairs(large) < 0.3
    np.testing.assert_allclose(d.saco(small, large, approximate=True), exact, rtol=0.02)


def test_scores():
    assert d.normalized_score(5.0, 1.0, 9.0) == 50.0
    np.testing.assert_allclose(d.normalized_score(np.array([1, 9, 13]), 1, 9), [0, 100, 150])
    dataset = chain()
    mean = d.episode_returns(dataset).mean()
    np.testing.assert_allclose(d.tq(dataset), (mean + 1) / 4)
    np.testing.assert_allclose(d.tq(dataset, minimum=mean - 1, expert=mean + 1), 0.5)
    assert d.reference_scores(d.with_scores(dataset, -5.0, 2.0)) == (-5.0, 2.0)
    for random, expert in ((1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ValueError, match="normalized_score"):
            d.with_scores(dataset, random, expert)
    with pytest.raises(ValueError, match="with_scores"):
        d.tq(dataset._replace(metadata={}))
