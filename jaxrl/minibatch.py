"""Shuffling data into minibatches."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Array, PyTree


def permutation(key: Array, n: int) -> Array:
    """A random permutation of 0 .. n - 1, [n] int32.

    Sorts one uint32 an element, random high bits over the index in the low bits, where `jax.random.permutation` sorts
    pairs, which is several times slower on a CPU. Elements whose random bits agree
    stay in order: with 32 - log2(n) bits that is about one pair in 2 ** (32 - log2(n)).
    """
    bits = max(1, (n - 1).bit_length())
    noise = jax.random.bits(key, (n,), "uint32")
    packed = (noise << bits) | jnp.arange(n, dtype="uint32")
    return (jax.lax.sort(packed, is_stable=False) & ((1 << bits) - 1)).astype("int32")


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
