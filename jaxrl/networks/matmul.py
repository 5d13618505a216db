"""Products and broadcasts whose gradients, sums over many rows, are fast on a CPU."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxrl.types import Array

BLOCK = 128  # rows
LARGEST = 128 * 128  # numbers in a W for which it is faster


@jax.custom_jvp
def matmul(x: Array, kernel: Array) -> Array:
    """x W: [..., in], [in, out] -> [..., out].

    The gradient with respect to W is X' G, a sum over rows. XLA computes one such product on one core of a CPU, however
    many rows it sums over, and takes long to read X across its rows. Here it is the sum of the products of blocks of
    128 rows, one after transposing the narrower of X and G; `benchmarks/roofline.py` measures both. Derivatives of any
    order and mode, and `vmap`, are those of `x @ kernel`.
    """
    return x @ kernel


def _jvp(primals: tuple, tangents: tuple):
    (x, kernel), (dx, d_kernel) = primals, tangents
    parts = []
    if not isinstance(dx, SymbolicZero):
        parts.append(matmul(dx, kernel))
    if not isinstance(d_kernel, SymbolicZero):
        parts.append((_blocked if _is_blocked(x, kernel) else jnp.matmul)(x, d_kernel))
    return matmul(x, kernel), sum(parts[1:], parts[0])


matmul.defjvp(_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def spread(x: Array, shape: tuple[int, ...]) -> Array:
    """`broadcast_to(x, shape)`, the gradient of which is a sum of the cotangents alone.

    What these are computed from XLA may compute again within the sum, one number after the other.
    """
    return jnp.broadcast_to(x, shape)


@spread.defjvp
def _spread_jvp(shape: tuple[int, ...], primals: tuple, tangents: tuple):
    wide = jax.lax.optimization_barrier(jnp.broadcast_to(tangents[0], shape))
    return jnp.broadcast_to(primals[0], shape), wide


def _is_blocked(x: Array, kernel: Array) -> bool:
    rows = math.prod(x.shape[:-1])
    return jax.default_backend() == "cpu" and kernel.size <= LARGEST and rows % BLOCK == 0 and rows > BLOCK


def _blocked(x: Array, kernel: Array) -> Array:
    """x W, written so that its transpose with respect to W is a batch of products of [out, rows] and [rows, in], or of
    [in, rows] and [rows, out], and their sum. Barriers keep XLA from turning these into what they are not to be."""
    barrier = jax.lax.optimization_barrier
    blocks = x.reshape(-1, BLOCK, x.shape[-1])
    if kernel.shape[0] < kernel.shape[1]:
        blocks, many = barrier(blocks.swapaxes(1, 2)), _repeat(kernel, len(blocks))
        y = jax.lax.dot_general(blocks, many, (((1,), (1,)), ((0,), (0,))))
    else:
        many = barrier(_repeat(kernel.T, len(blocks)))
        y = jax.lax.dot_general(many, blocks, (((2,), (2,)), ((0,), (0,))))
        y = barrier(y).swapaxes(1, 2)
    return y.reshape(*x.shape[:-1], kernel.shape[1])


def _repeat(x: Array, n: int) -> Array:
    """[n, ...]; its transpose is the sum over n."""
    return jnp.broadcast_to(x, (n, *x.shape))
