"""Interquartile mean and bootstrap intervals against definitions, closed forms and coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.statistics import bootstrap_interval, iqm


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 6.0], 3.0),  # fewer than 4: the mean
        ([0.0, 2.0, 4.0, 100.0], 3.0),
        ([100.0, 4.0, 0.0, 2.0], 3.0),  # order does not matter
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0),  # one cut on each side
        (range(8), 3.5),
        ([-1e9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e9], 1.0),
    ],
)
def test_iqm_of_known_arrays(x, expected):
    assert iqm(np.array(list(x))) == expected


def test_iqm_takes_all_axes_alike():
    x = np.random.default_rng(0).normal(size=(5, 7))
    assert iqm(x) == iqm(x.ravel())


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.floats(0.1, 10), st.floats(-100, 100))
def test_iqm_is_equivariant_and_within_the_middle_half(values, scale, shift):
    x = np.array(values)
    np.testing.assert_allclose(iqm(scale * x + shift), scale * iqm(x) + shift, rtol=1e-9, atol=1e-6)
    kept = sorted(values)[len(values) // 4 : len(values) - len(values) // 4]
    assert kept[0] - 1e-6 <= iqm(x) <= kept[-1] + 1e-6


def test_interval_of_the_mean_agrees_with_the_normal_one():
    x = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    half = 1.959964 * x.std() / np.sqrt(len(x))
    low, high = bootstrap_interval(x, np.mean, num_resamples=4000)
    np.testing.assert_allclose([low, high], [x.mean() - half, x.mean() + half], atol=0.1 * half)


def test_interval_of_two_scores_is_their_enumeration():
    # Two runs: the resampled mean is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_interval(np.array([0.0, 1.0]), np.mean, confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval(np.array([0.0, 1.0]), np.mean, confidence=0.3) == (0.5, 0.5)


def test_interval_is_stratified_over_tasks():
    """Runs of a task agree and tasks differ: a resample over everything would vary, a stratified one cannot."""
    x = np.tile([0.0, 10.0, 50.0], (6, 1))
    assert bootstrap_interval(x, np.mean) == (20.0, 20.0)
    # Tasks are drawn separately: with whole rows, the two columns would always cancel.
    opposite = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert bootstrap_interval(opposite, np.mean) == (-1.0, 1.0)


def test_interval_covers_at_its_confidence():
    """The share of 95 % intervals of the mean that hold the true one; sd of the share is 1.5 % for 200 of them."""
    generator = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_interval(generator.normal(size=40), np.mean, num_resamples=300, seed=seed)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_interval_is_reproducible_and_widens_with_confidence():
    x = np.random.default_rng(3).exponential(size=30)
    assert bootstrap_interval(x, seed=5) == bootstrap_interval(x, seed=5)
    assert bootstrap_interval(x, seed=5) != bootstrap_interval(x, seed=6)
    narrow, wide = bootstrap_interval(x, confidence=0.5), bootstrap_interval(x, confidence=0.99)
    assert wide[0] < narrow[0] <= iqm(x) <= narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (dict(x=[]), "shape"),
        (dict(x=np.zeros((2, 2, 2))), "shape"),
        (dict(x=[1.0], confidence=1.0), "confidence"),
        (dict(x=[1.0], num_resamples=0), "num_resamples"),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        bootstrap_interval(**arguments)
    with pytest.raises(ValueError, match="empty"):
        iqm([])
