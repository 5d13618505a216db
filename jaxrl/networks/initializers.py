"""Initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def orthogonal(scale: float = 1.0) -> Callable[[jax.Array, tuple[int, ...], Any], jax.Array]:
    """An initialiser of (semi-)orthogonal matrices times `scale` (Saxe et al. 2014, https://arxiv.org/abs/1312.6120).

    Q R = G with G normal, the signs of Q corrected by those of R, so that Q is uniform (Haar) over orthogonal matrices.

    Returns:
      (key, shape, dtype=float32) -> array. All axes but the last are one: the rows of the [prod(shape[:-1]), shape[-1]]
      matrix are orthogonal, or its columns where there are fewer of them. Unlike `jax.nn.initializers.orthogonal` it is
      safe under `vmap` on CPU.
    """
    return lambda key, shape, dtype=jnp.float32: orthogonals(key, [shape], scale)[0].astype(dtype)


def orthogonals(key: jax.Array, shapes: Sequence[tuple[int, ...]], scale: float = 1.0) -> list[jax.Array]:
    """Independent arrays of the given shapes, as from `orthogonal(scale)`, with one draw of random numbers for all.

    A random draw is among the costliest things to compile (0.4 s of CPU for a [4096], and twice as much for a [64, 64],
    against 0.1 s for a QR decomposition), hence one flat draw a network.
    """
    sizes = [math.prod(shape) for shape in shapes]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    normal = jax.random.normal(key, (ends[-1],))
    tall = []
    for shape, size, end in zip(shapes, sizes, ends):
        columns = min(size // shape[-1], shape[-1])
        tall.append(normal[end - size : end].reshape(size // columns, columns))
    return [scale * _shape(q, shape) for q, shape in zip(_haar(tall), shapes)]


@jax.custom_batching.sequential_vmap
def _haar(matrices):
    # A batched LAPACK call deadlocks in jaxlib 0.10.2 on CPU, so `vmap` over seeds runs the decompositions in turn.
    def haar(matrix):
        q, r = jnp.linalg.qr(matrix)
        return q * jnp.where(jnp.diagonal(r) < 0, -1.0, 1.0)

    return [haar(matrix) for matrix in matrices]


def _shape(q, shape):
    return (q if q.shape[1] == shape[-1] else q.T).reshape(shape)
