"""Initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_batching.sequential_vmap
def _qr(matrix):
    # A batched LAPACK call deadlocks in jaxlib 0.10.2 on CPU, so `vmap` over seeds runs the decompositions in turn.
    return jnp.linalg.qr(matrix)


def orthogonal(scale: float = 1.0) -> Callable[[jax.Array, tuple[int, ...], Any], jax.Array]:
    """An initialiser of (semi-)orthogonal matrices times `scale` (Saxe et al. 2014, https://arxiv.org/abs/1312.6120).

    Q R = G with G normal, the signs of Q corrected by those of R, so that Q is uniform (Haar) over orthogonal matrices.

    Returns:
      (key, shape, dtype=float32) -> array. All axes but the last are one: the rows of the [prod(shape[:-1]), shape[-1]]
      matrix are orthogonal, or its columns where there are fewer of them. Unlike `jax.nn.initializers.orthogonal` it is
      safe under `vmap` on CPU.
    """

    def init(key, shape, dtype=jnp.float32):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = _qr(jax.random.normal(key, (max(rows, columns), min(rows, columns)), jnp.float32))
        q = q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)
        q = q if rows >= columns else q.T
        return (scale * q.reshape(shape)).astype(dtype)

    return init
