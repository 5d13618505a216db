"""Reaching into nested states; shuffles."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import minibatch, spaces, tree
from jaxrl.minibatch import minibatches, permutation


class Inner(NamedTuple):
    rate: jax.Array


class Outer(NamedTuple):
    agent: tuple
    inner: Inner


def nested():
    return {"a": Outer((Inner(jnp.float32(1)), Inner(jnp.float32(2))), Inner(jnp.float32(3))), "b": jnp.zeros(2)}


def test_find_and_edit():
    assert [float(x.rate) for x in tree.find(nested(), Inner)] == [1, 2, 3]
    doubled = tree.edit(nested(), Inner, lambda x: Inner(2 * x.rate))
    assert [float(x.rate) for x in tree.find(doubled, Inner)] == [2, 4, 6]
    assert len(tree.find(nested(), Outer)) == 1
    with pytest.raises(ValueError, match="there is no NoneType"):
        tree.edit(nested(), type(None), lambda x: x)


def test_edit_hparams_keeps_shape_and_dtype():
    changed = tree.edit_hparams(nested(), Inner, rate=0.5)
    assert all(x.rate == 0.5 and x.rate.dtype == jnp.float32 for x in tree.find(changed, Inner))
    stacked = {"p": Inner(jnp.zeros(3))}
    np.testing.assert_array_equal(tree.edit_hparams(stacked, Inner, rate=1)["p"].rate, np.ones(3))
    with pytest.raises(ValueError, match="Inner has no field 'speed'; it has rate"):
        tree.edit_hparams(nested(), Inner, speed=1.0)


def test_select_broadcasts_over_trailing_axes():
    condition = jnp.array([True, False])
    a, b = (
        {"x": jnp.ones((2, 3)), "k": jax.random.split(jax.random.key(0))},
        {
            "x": jnp.zeros((2, 3)),
            "k": jax.random.split(jax.random.key(1)),
        },
    )
    chosen = tree.select(condition, a, b)
    np.testing.assert_array_equal(chosen["x"], [[1, 1, 1], [0, 0, 0]])
    assert (chosen["k"][0] == a["k"][0]) and (chosen["k"][1] == b["k"][1])


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 1000, 1024, 1056, 4096])
def test_permutation_is_one(n):
    index = jax.jit(permutation, static_argnums=1)(jax.random.key(n), n)
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(index), np.arange(n))


def test_permutation_without_a_sort_is_fair():
    """Against what is known of random permutations: places, pairs, how a half spreads, how many neighbors ascend."""
    n, num_keys, parts = 1024, 4000, 4
    keys = jax.random.split(jax.random.key(2), num_keys)
    place = np.asarray(jax.jit(jax.vmap(lambda key: jnp.argsort(permutation(key, n))))(keys))  # of each element
    assert not np.array_equal(permutation(keys[0], n), minibatch._sorted(keys[0], n))
    counts = np.stack([np.bincount(x // 32, minlength=32) for x in place.T[::31]])
    chi_squared = ((counts - num_keys / 32) ** 2 / (num_keys / 32)).sum(1) / 31
    assert abs(chi_squared.mean() - 1) < 0.15
    part, expected = place // (n // parts), (n / parts - 1) / (n - 1)
    for apart in (1, 31, 32, 33, 512):
        together = (part[:, apart:] == part[:, :-apart]).mean(0)
        score = (together - expected) / np.sqrt(expected * (1 - expected) / num_keys)
        assert abs(score.std() - 1) < 0.15 and abs(score.mean()) < 0.25, apart
    half, share = (part[:, : n // 2] == 0).sum(1), 1 / parts
    assert abs(half.var() / (n / 2 * share * (1 - share) * (n / 2) / (n - 1)) - 1) < 0.15  # hypergeometric
    ascents = (np.diff(place) > 0).sum(1)
    assert abs(ascents.mean() - (n - 1) / 2) < 1 and abs(ascents.var() / ((n + 1) / 12) - 1) < 0.15


def test_permutation_is_fair():
    """Every element is equally likely in every place: chi-square of 24 orders of 4, and of places of 50."""
    keys = jax.random.split(jax.random.key(0), 24_000)
    orders = np.asarray(jax.vmap(lambda key: permutation(key, 4))(keys))
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24 and ((counts - 1000) ** 2 / 1000).sum() < 49.7  # 99.9 % of chi-square, 23 degrees
    places = np.asarray(jax.vmap(lambda key: permutation(key, 50))(keys))
    counts = np.array([np.bincount(places[:, i], minlength=50) for i in range(50)])
    statistic = ((counts - 480.0) ** 2 / 480).sum()
    assert abs(statistic - 49 * 49) < 5 * np.sqrt(2 * 49 * 49)


def test_minibatches():
    data = {"x": jnp.arange(24).reshape(2, 12), "y": jnp.arange(24).reshape(2, 12) * 10}
    split = minibatches(jax.random.key(0), data, 3, axis=1)
    assert split["x"].shape == (3, 2, 4)
    np.testing.assert_array_equal(split["y"], 10 * split["x"])  # rows stay together
    np.testing.assert_array_equal(np.sort(np.ravel(split["x"])), np.arange(24))
    np.testing.assert_array_equal(split["x"][:, 1] - split["x"][:, 0], np.full((3, 4), 12))  # so do columns
    with pytest.raises(ValueError, match="num_minibatches is 5, must divide the 12 rows"):
        minibatches(jax.random.key(0), data, 5, axis=1)


SPACES = [
    spaces.Discrete(4),
    spaces.MultiDiscrete((2, 5)),
    spaces.Box(-1.0, 2.0, (3,)),
    spaces.Box((0.0, -float("inf")), (float("inf"), 3.0), (2,)),
    spaces.Box(0, 255, (2, 2), "uint8"),
    spaces.Box(0, 1, (4,), "bool"),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Box(0.0, 1.0)}),
    spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_spaces(space):
    """Samples are contained and have the declared shapes; spaces are values."""
    samples = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 200))
    assert jax.vmap(space.contains)(samples).all()
    one = spaces.zeros(space)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == jax.tree.map(lambda x: (x.shape[1:], x.dtype), samples)
    assert space == type(space)(*(getattr(space, f) for f in space.__dataclass_fields__)) and hash(space) is not None


def test_samples_are_spread_out():
    """Both truth values, both ends of a range."""
    many = jax.vmap(spaces.Box(0, 1, (4,), "bool").sample)(jax.random.split(jax.random.key(0), 500))
    assert 0.45 < many.mean() < 0.55
    many = jax.vmap(spaces.Box(0, 255, (4,), "uint8").sample)(jax.random.split(jax.random.key(0), 2000))
    assert many.min() == 0 and many.max() == 255 and 120 < many.mean() < 135


def test_what_is_outside_of_a_space():
    assert not spaces.Discrete(3).contains(3) and not spaces.Discrete(3).contains(-1)
    assert not spaces.Box(-1.0, 1.0, (2,)).contains(jnp.array([0.0, 1.1]))
    assert not spaces.Box(-1.0, 1.0, (2,)).contains(jnp.array([0.0, jnp.nan]))
    assert not spaces.MultiDiscrete((2, 2)).contains(jnp.array([0, 2]))
    with pytest.raises(ValueError, match="n is 0, must be >= 1"):
        spaces.Discrete(0)
