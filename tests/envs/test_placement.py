"""Drawing cells: every sequence as likely, free cells by exact enumeration, ranks against NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import placement


def test_distinct_cells_are_uniform():
    """All 5 * 4 * 3 sequences, each for exactly one of the 60 boxes of uniform numbers."""
    middles = [(np.arange(n) + 0.5) / n for n in (5, 4, 3)]
    uniform = jnp.array(list(itertools.product(*middles)), jnp.float32)
    drawn = np.asarray(jax.jit(jax.vmap(lambda u: placement.distinct(u, 5)))(uniform))
    assert drawn.dtype == np.int32
    assert sorted(map(tuple, drawn.tolist())) == sorted(itertools.permutations(range(5), 3))


def test_all_cells_may_be_taken():
    uniform = jax.random.uniform(jax.random.key(0), (500, 6))
    drawn = np.asarray(jax.vmap(lambda u: placement.distinct(u, 6))(uniform))
    np.testing.assert_array_equal(np.sort(drawn, 1), np.tile(np.arange(6), (500, 1)))
    with pytest.raises(ValueError, match="7 cells are wanted of num_cells 6"):
        placement.distinct(jnp.zeros(7), 6)


def test_one_of_the_free_cells():
    """The boxes of [0, 1) in the order in which rows are read, for grids that are full, crowded and empty."""
    rng = np.random.default_rng(0)
    one_of = jax.jit(jax.vmap(placement.one_of, (0, None)))
    for share in (0.0, 0.1, 0.5, 1.0):
        free = rng.random((7, 32)) < share
        words = jnp.array([sum(1 << c for c in range(32) if row[c]) for row in free.tolist()], jnp.uint32)
        cells = np.argwhere(free)
        num = max(len(cells), 1)
        uniform = jnp.concatenate([(jnp.arange(num) + 0.5) / num, jnp.zeros(7 * 32 - num)])  # one shape, one program
        drawn, found = one_of(uniform, words)
        assert np.all(np.asarray(found) == bool(len(cells)))
        if len(cells):
            np.testing.assert_array_equal(drawn[:num], cells)


def test_ranks():
    x = np.random.default_rng(0).integers(0, 5, (50, 7))
    found = np.asarray(jax.vmap(placement.ranks)(jnp.asarray(x)))
    expected = np.argsort(np.argsort(x, axis=1, kind="stable"), axis=1)
    np.testing.assert_array_equal(found, expected)
