"""Keys are typed: `jax.random.key(seed)`, not an array of uint32, whose reuse nothing can see."""

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
