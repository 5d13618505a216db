"""One program on several shards: what they exchange.

`shard(loop, mesh)` runs a loop on every shard under an axis called `SHARDS`. There these functions reduce over shards;
where the axis is not bound, each returns what it was given, so that on one device nothing changes, to the bit.

Gradients are exchanged in one place, `optim.descend`. Nothing here may be applied to what is differentiated: only to
gradients, and to constants beside the parameters (counts, moments, statistics). A loss is a mean over a shard's own
rows whose denominator is the mean of all shards' (`types.weighted_mean`); the mean of its gradients is that of all
rows.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

Array = jax.Array

SHARDS = "shards"
_AGENTS = contextvars.ContextVar("agents", default=1)  # set and read while tracing, as axes are bound


def num_shards() -> int:
    """How many shards there are; 1 outside of `shard`."""
    return jax.lax.axis_size(SHARDS) if _is_bound() else 1


def rollout_steps(reward: Array) -> int:
    """Environment steps in a rollout with rewards [T, N, ...], those of all shards together.

    Where columns are those of agents (`columns_of_agents`), a step of an environment is one of all of its agents.
    """
    return reward.shape[0] * reward.shape[1] // _AGENTS.get() * num_shards()


@contextlib.contextmanager
def columns_of_agents(num_agents: int) -> Iterator[None]:
    """What is traced within has rollouts [T, N * num_agents], of N environments."""
    token = _AGENTS.set(_AGENTS.get() * num_agents)
    try:
        yield
    finally:
        _AGENTS.reset(token)


def mean(tree: Any) -> Any:
    """The mean over shards of every leaf."""
    return _reduce(jax.lax.pmean, tree)


def sum(tree: Any) -> Any:
    """The sum over shards of every leaf."""
    return _reduce(jax.lax.psum, tree)


def max(tree: Any) -> Any:
    """The maximum over shards of every leaf."""
    return _reduce(jax.lax.pmax, tree)


def all(condition: Array) -> Array:
    """Whether it is so on every shard: what a branch that exchanges something depends on must agree."""
    return jax.lax.pmin(condition.astype("int32"), SHARDS) > 0 if _is_bound() else condition


def own(key: Array) -> Array:
    """A key of this shard's own, from one that all shards have."""
    return jax.random.fold_in(key, jax.lax.axis_index(SHARDS)) if _is_bound() else key


def first_row(row: Array, num_columns: int) -> Array:
    """The first of all shards' rows t * N + n (-1: none), as a row of [T, D * N] with their columns side by side."""
    if not _is_bound():
        return row
    columns = num_columns * num_shards()
    mine = row // num_columns * columns + jax.lax.axis_index(SHARDS) * num_columns + row % num_columns
    largest = jnp.iinfo(row.dtype).max
    found = jax.lax.pmin(jnp.where(row < 0, largest, mine), SHARDS)
    return jnp.where(found == largest, -1, found)


def _reduce(reduction: Callable[..., Array], tree: Any) -> Any:
    """All leaves of a dtype at once, as one exchange of many numbers takes hardly longer than one of few."""
    if not _is_bound():
        return tree
    leaves, structure = jax.tree.flatten(tree)
    if len(leaves) > 1 and len({x.dtype for x in leaves}) == 1:
        flat, unravel = ravel_pytree(tree)
        return unravel(reduction(flat, SHARDS))
    return structure.unflatten([reduction(x, SHARDS) for x in leaves])


def _is_bound() -> bool:
    try:
        jax.lax.axis_size(SHARDS)
        return True
    except NameError:
        return False
