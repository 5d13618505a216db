"""`population`: several members of one agent, side by side, each with its own share of the environments."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.combinators.members import members
from jaxrl.types import Agent, PyTree


def population(agent: Agent, size: int) -> Agent:
    """P members with their own parameters and hyperparameters; N environments are split into P blocks of N / P.

    States, hparams and metrics have a leading axis [P]. Member 0 gets the caller's keys, so that `population(agent, 1)`
    equals `agent` up to rounding.

    Raises:
      ValueError: if size < 1; while tracing, if N is not divisible by it.
    """
    if size < 1:
        raise ValueError(f"population: size is {size}, must be >= 1")

    def split(tree: PyTree, axis: int = 0) -> PyTree:
        """[..., N, ...] -> [P, ..., N / P, ...]"""

        def leaf(x):
            n = x.shape[axis]
            if n % size:
                raise ValueError(f"population: size is {size}, must divide the {n} environments")
            return jnp.moveaxis(x.reshape(*x.shape[:axis], size, n // size, *x.shape[axis + 1 :]), axis, 0)

        return jax.tree.map(leaf, tree)

    def join(tree: PyTree) -> PyTree:
        """[P, N / P, ...] -> [N, ...]"""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

    return members(agent, size, split, lambda data: split(data, 1), join)
