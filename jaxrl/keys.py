"""Keys are typed: `jax.random.key(seed)`, not an array of uint32, whose reuse nothing can see. Integers from them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def typed(key: Any, what: str) -> jax.Array:
    """`key` itself.

    Args:
      what: who asks, for the message.

    Raises:
      ValueError: if it is something other than one typed key.
    """
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        found = type(key).__name__ if dtype is None else f"an array {dtype}{list(shape)}"
        raise ValueError(f"{what}: key is {found}, must be a typed key: jax.random.key(seed)")
    if shape:
        raise ValueError(f"{what}: key has shape {list(shape)}, must be one key: use jax.vmap over several")
    return key


def is_key(leaf: Any) -> bool:
    """Whether an array, or what stands for one, holds typed keys."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def integers(key: jax.Array, shape: tuple[int, ...], n: Any) -> jax.Array:
    """Uniform in 0 .. n - 1, [*shape] int32, by one draw of random bits where `jax.random.randint` makes three.

    The high half of the 64-bit product of 32 random bits and n (Lemire 2019, https://arxiv.org/abs/1805.10941, without
    his rejection): no number is likelier than another by more than n / 2**32.

    Args:
      n: >= 1, integers that broadcast to `shape`.
    """
    a, b = jax.random.bits(key, shape, "uint32"), jnp.asarray(n).astype("uint32")
    (a_low, a_high), (b_low, b_high) = ((x & 0xFFFF, x >> 16) for x in (a, b))
    middle = a_high * b_low + (a_low * b_low >> 16)  # of the product, in units of 2**16; no sum here passes 2**32
    high = a_high * b_high + (middle >> 16) + (a_low * b_high + (middle & 0xFFFF) >> 16)
    return high.astype("int32")
