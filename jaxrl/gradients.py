"""What keeps gradients finite and apart from each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.tree import select
from jaxrl.types import Array, PyTree, Transition


def blank(data: Transition) -> Transition:
    """`data` with zeros in the rows of weight 0.

    `weighted_mean` keeps what such rows hold out of a loss, but not out of its gradient, where 0 * NaN is NaN.

    Args:
      data: any leading axes, those of the reward; extras are left as they are.
    """
    if "weight" not in data.extras:
        return data
    rows = data._replace(extras={})
    return select(data.extras["weight"] > 0, rows, jax.tree.map(jnp.zeros_like, rows))._replace(extras=data.extras)


def dot(a: PyTree, b: PyTree) -> Array:
    """The inner product of two pytrees of one structure, as if each were one flat vector."""
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def cosine(a: PyTree, b: PyTree, eps: float = 1e-10) -> Array:
    """a . b / (|a| |b|), 0 where one of them is (almost) 0."""
    return dot(a, b) * jax.lax.rsqrt(jnp.maximum(dot(a, a) * dot(b, b), eps))


def project_out(vector: PyTree, direction: PyTree, eps: float = 1e-10) -> PyTree:
    """v - (v . d) / max(|d|^2, eps) d: what is left of v at a right angle to d.

    Gradient surgery (Yu et al. 2020, https://arxiv.org/abs/2001.06782) and the orthogonal-gradient update (Mao et al.
    2024, https://arxiv.org/abs/2402.00348, whose code has the same guard against a direction of 0) are made of it.

    Args:
      vector, direction: pytrees of one structure; each counts as one flat vector.
    """
    share = dot(vector, direction) / jnp.maximum(dot(direction, direction), eps)
    return jax.tree.map(lambda v, d: v - share * d, vector, direction)
