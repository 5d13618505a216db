"""A tree of sums over n priorities: draws proportional to them, and changes them, in O(log n)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Array

FANOUT = 8  # children of a node: few levels, and one gather of a contiguous row a level
NO_INDEX = 2**31 - 1  # `put` drops it: of rows that no buffer holds


def init_sums(n: int) -> tuple[Array, ...]:
    """Zeros: the priorities themselves first, padded to a multiple of the fanout, then sums of sums up to one row."""
    levels, size = [], n
    while True:
        blocks = -(-size // FANOUT)
        levels.append(jnp.zeros((blocks, FANOUT)))
        if blocks == 1:
            return tuple(levels)
        size = blocks


def total(sums: tuple[Array, ...]) -> Array:
    """[] the sum of all priorities."""
    return jnp.sum(sums[-1])


def get(sums: tuple[Array, ...], index: Array) -> Array:
    """Priorities at `index` [K]."""
    return sums[0].reshape(-1)[index]


def put(sums: tuple[Array, ...], index: Array, value: Array) -> tuple[Array, ...]:
    """Sets the priorities at `index` [K] to `value` [K]; indices beyond the last one are dropped.

    Nodes above are summed anew, never adjusted by differences, so that no rounding piles up. Where an index occurs
    twice, one of its values is taken, and the sums agree with it.
    """
    levels = []
    for level in sums:
        level = level.reshape(-1).at[index].set(value, mode="drop").reshape(level.shape)
        levels.append(level)
        index = index // FANOUT
        value = jnp.sum(level.at[index].get(mode="clip"), axis=-1)
    return tuple(levels)


def find(sums: tuple[Array, ...], mass: Array) -> Array:
    """The i with sum(p[:i]) <= mass < sum(p[:i + 1]), for each mass [K] in [0, total); never one of priority 0."""
    index, before_and_self = jnp.zeros(mass.shape, jnp.int32), jnp.triu(jnp.ones((FANOUT, FANOUT)))
    for level in reversed(sums):
        children = level[index]  # [K, FANOUT]
        upto = jnp.matmul(children, before_and_self, precision="highest")  # on a CPU twice as fast as cumsum
        # Rounding can leave the mass at or beyond the last sum: then it is the last child that has any.
        last = jnp.max(jnp.where(children > 0, jnp.arange(FANOUT), 0), axis=-1)
        child = jnp.minimum(jnp.sum(upto <= mass[:, None], axis=-1), last)
        before = jnp.max(jnp.where(jnp.arange(FANOUT) < child[:, None], upto, 0.0), axis=-1)
        mass, index = mass - before, index * FANOUT + child
    return index


def stratified(key: Array, sums: tuple[Array, ...], batch_size: int) -> Array:
    """Indices [B] proportional to priority, one from each of B equal parts of the total mass."""
    uniform = jax.random.uniform(key, (batch_size,))
    return find(sums, (jnp.arange(batch_size) + uniform) / batch_size * total(sums))
