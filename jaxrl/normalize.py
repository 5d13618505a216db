"""Running mean and variance of pytrees, exact under batching (Chan, Golub & LeVeque 1979)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.types import Array, PyTree


class Statistics(NamedTuple):
    """Moments of everything seen.

    Attributes:
      count: [] float32; past 2**24 times the rows of a batch it stops growing, and the moments stand still.
      mean, var: pytrees of one item's shape; leaves that are not floating point are () and are left alone.
    """

    count: Array
    mean: PyTree
    var: PyTree


def init_statistics(one: PyTree) -> Statistics:
    """Mean 0 and variance 1, so that data passes unchanged until something has been seen."""
    mean = jax.tree.map(lambda x: jnp.zeros(x.shape) if _is_float(x) else (), one)
    var = jax.tree.map(lambda x: jnp.ones(x.shape) if _is_float(x) else (), one)
    return Statistics(jnp.zeros(()), mean, var)


def update_statistics(statistics: Statistics, batch: PyTree, weight: Array) -> Statistics:
    """Merges a batch, across shards those of all.

    With m rows of mean b and variance v, and count n, mean a, variance u so far:
      mean' = a + (b - a) m / (n + m),   var' = (n u + m v + (b - a)^2 n m / (n + m)) / (n + m).

    Args:
      batch: leaves [*weight.shape, ...].
      weight: rows of weight 0 are left out.
    """
    rows = parallel.sum(jnp.sum(weight))
    count = statistics.count + rows
    total = jnp.maximum(count, 1.0)
    axes = tuple(range(weight.ndim))

    def merge(x, mean, var):
        if not _is_float(x):
            return (), ()
        w = weight.reshape(weight.shape + (1,) * (x.ndim - weight.ndim))
        x = jnp.where(w > 0, x, 0.0)
        batch_mean = parallel.sum(jnp.sum(w * x, axes)) / jnp.maximum(rows, 1.0)
        batch_var = parallel.sum(jnp.sum(w * (x - batch_mean) ** 2, axes)) / jnp.maximum(rows, 1.0)
        delta = batch_mean - mean
        seen, new = statistics.count / total, rows / total
        merged = seen * var + new * batch_var + delta**2 * seen * new
        # Past 2**24 the count is rounded, so that seen + new is not 1: then the variance moves by a difference.
        merged = jnp.where(count > 2**24, var + new * (batch_var - var + delta**2 * seen), merged)
        return mean + delta * new, jnp.where(count > 0, merged, var)

    leaves, structure = jax.tree.flatten(batch)
    means, variances = structure.flatten_up_to(statistics.mean), structure.flatten_up_to(statistics.var)
    merged = [merge(*triple) for triple in zip(leaves, means, variances)]
    return Statistics(count, *(structure.unflatten([pair[i] for pair in merged]) for i in (0, 1)))


def normalize(statistics: Statistics, x: PyTree, clip: Array | float, eps: float = 1e-8) -> PyTree:
    """clip((x - mean) * rsqrt(var + eps), -clip, clip), floating-point leaves only, any leading axes."""

    def leaf(x, mean, var):
        return jnp.clip((x - mean) * jax.lax.rsqrt(var + eps), -clip, clip).astype(x.dtype) if _is_float(x) else x

    leaves, structure = jax.tree.flatten(x)
    means, variances = structure.flatten_up_to(statistics.mean), structure.flatten_up_to(statistics.var)
    return structure.unflatten([leaf(*triple) for triple in zip(leaves, means, variances)])


def _is_float(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
