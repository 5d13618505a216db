"""Shuffling data into minibatches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrl.keys import integers
from jaxrl.types import Array, PyTree

SMALLEST = 32  # rows for which six rounds mix well


def permutation(key: Array, n: int) -> Array:
    """A random permutation of 0 .. n - 1, [n] int32, for shuffling.

    `jax.random.permutation` sorts pairs, which is slow on a CPU. Where n is a product of two
    numbers >= 32, this is Feistel's network (Luby & Rackoff 1988, https://doi.org/10.1137/0217022), without a sort:
    with i = columns * r + c and tables f, g of random numbers,

        r <- r + f[c] mod rows,   c <- c + g[r] mod columns,   three times with new tables.

    Each element is equally likely to be in each place; how pairs and halves of them fall is not to be told from chance
    (the test looks). Elsewhere it sorts one uint32 an element, random high bits over the index in the low bits:
    elements whose random bits agree stay in order, with 32 - log2(n) bits about one pair in 2 ** (32 - log2(n)).
    """
    rows = next(rows for rows in range(math.isqrt(n), 0, -1) if n % rows == 0)
    return _feistel(key, rows, n // rows) if rows >= SMALLEST else _sorted(key, n)


def _feistel(key: Array, rows: int, columns: int) -> Array:
    f_key, g_key = jax.random.split(key)
    f = integers(f_key, (3, columns), rows)
    g = integers(g_key, (3, rows), columns)
    r, c = (jnp.broadcast_to(x, (rows, columns)) for x in jnp.ogrid[:rows, :columns])
    for i in range(3):
        r = _wrap(r + f[i].at[c].get(mode="promise_in_bounds"), rows)
        c = _wrap(c + g[i].at[r].get(mode="promise_in_bounds"), columns)
    return (columns * r + c).reshape(-1).astype("int32")


def _wrap(x: Array, n: int) -> Array:
    """x mod n, for 0 <= x < 2 n."""
    return jnp.where(x >= n, x - n, x)


def _sorted(key: Array, n: int) -> Array:
    bits = max(1, (n - 1).bit_length())
    noise = jax.random.bits(key, (n,), "uint32")
    packed = (noise << bits) | jnp.arange(n, dtype="uint32")
    return (jax.lax.sort(packed, is_stable=False) & ((1 << bits) - 1)).astype("int32")


@jax.named_scope("shuffle")
def minibatches(key: Array, data: PyTree, num_minibatches: int, axis: int = 0) -> PyTree:
    """Shuffles along `axis` and splits it: [..., B, ...] becomes [num_minibatches, ..., B / num_minibatches, ...].

    Raises:
      ValueError: if B is not divisible by `num_minibatches`.
    """
    size = jax.tree.leaves(data)[0].shape[axis]
    if size % num_minibatches:
        raise ValueError(f"num_minibatches is {num_minibatches}, must divide the {size} rows of a batch")
    index = permutation(key, size)

    def split(x: Array) -> Array:
        shape = (*x.shape[:axis], num_minibatches, size // num_minibatches, *x.shape[axis + 1 :])
        shuffled = x.at[*[slice(None)] * axis, index].get(mode="promise_in_bounds", unique_indices=True)
        return jnp.moveaxis(shuffled.reshape(shape), axis, 0)

    return jax.tree.map(split, data)
