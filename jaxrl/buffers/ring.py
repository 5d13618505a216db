"""The memory of every buffer: the last L steps of N environments, written a rollout at a time, read by index."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.types import Array, PyTree, Transition, weight


class Ring(NamedTuple):
    """Rows in the order of time within each column, overwritten from the oldest on.

    Attributes:
      data: leaves [L, N, ...] in the dtypes of the environment; `next_observation` is () if it is not stored.
      head: [] int32, the row that is written next.
      size: [] int32, rows that hold data.
    """

    data: Transition
    head: Array
    size: Array


def init_ring(example: Transition, capacity: int, store_next_observation: bool, compact: bool) -> Ring:
    """Zeros for `capacity` transitions, rounded up to whole rollouts of the example's [T, N].

    Args:
      compact: keep only rows that are there (weight > 0), one after another in a single column, so that no memory goes
        to padding. What reads more than single rows needs the columns as they are.
    """
    length, columns = example.reward.shape[:2]
    if compact:
        rows, columns = capacity, 1
    else:
        rows = length * max(1, -(-capacity // (length * columns)))
    if not store_next_observation:
        example = example._replace(next_observation=())
    data = jax.tree.map(lambda x: jnp.zeros((rows, columns, *x.shape[2:]), x.dtype), example)
    return Ring(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def write(ring: Ring, fresh: Transition, compact: bool) -> tuple[Ring, Array]:
    """Puts a rollout [T, N, ...] over the oldest rows; `compact` as in `init_ring`. Returns how many rows too."""
    if not _stores_next(ring):
        fresh = fresh._replace(next_observation=())
    rows, length = ring.data.reward.shape[0], fresh.reward.shape[0]
    if compact:
        there = (weight(fresh) > 0).reshape(-1)
        count = jnp.minimum(jnp.sum(there, dtype=jnp.int32), rows)
        place = jnp.cumsum(there) - 1
        # Of more rows than the ring has, the last ones stay; what is not there falls outside and is dropped.
        there = there & (place >= place[-1] + 1 - rows)
        index = jnp.where(there, (ring.head + place) % rows, rows)
        store = lambda stored, x: stored.at[index, 0].set(x.reshape(-1, *x.shape[2:]), mode="drop")  # noqa: E731
    else:
        count = jnp.int32(length)
        # The head is a multiple of T and L is one too: a rollout never wraps.
        store = lambda stored, x: jax.lax.dynamic_update_slice_in_dim(stored, x, ring.head, 0)  # noqa: E731
    data = jax.tree.map(store, ring.data, fresh)
    return Ring(data, (ring.head + count) % rows, jnp.minimum(ring.size + count, rows)), count


def oldest(ring: Ring) -> Array:
    """[] int32, the row that holds the oldest data."""
    return jnp.where(ring.size < ring.data.reward.shape[0], 0, ring.head)


def rows_after(ring: Ring, time: Array) -> Array:
    """How many rows were written from row `time` on, itself included; 0 where it holds nothing."""
    rows = ring.data.reward.shape[0]
    age = (time - oldest(ring)) % rows
    return jnp.maximum(ring.size - age, 0)


def take(tree: PyTree, time: Array, column: Array) -> PyTree:
    """Leaves [L, N, ...] at rows `time` (modulo L) and columns `column`, int32 of one shape S: [*S, ...]."""

    def gather(x):
        flat = x.reshape(-1, *x.shape[2:])
        return flat.at[(time % x.shape[0]) * x.shape[1] + column].get(mode="promise_in_bounds")

    return jax.tree.map(gather, tree)


def read(ring: Ring, time: Array, column: Array) -> Transition:
    """Transitions at rows `time` and columns `column`.

    Where next observations are not stored, the successor is the observation of the next row, and a row has weight 0
    whose true successor is nowhere: the newest one, and one that was truncated (unless terminated too).
    """
    data = take(ring.data, time, column)
    if _stores_next(ring):
        return data
    data = data._replace(next_observation=take(ring.data.observation, time + 1, column))
    known = has_successor(ring, time, data)
    return data._replace(extras={**data.extras, "weight": jnp.where(known, weight(data), 0.0)})


def has_successor(ring: Ring, time: Array, data: Transition) -> Array:
    """Whether the true successors of rows `data` = take(data, time) are stored, or do not matter; bool."""
    if _stores_next(ring):
        return jnp.ones_like(data.terminated)
    newest = (ring.head - 1) % ring.data.reward.shape[0]
    unknown = data.truncated | (time % ring.data.reward.shape[0] == newest).reshape(
        time.shape + (1,) * (data.terminated.ndim - time.ndim)
    )
    return data.terminated | ~unknown


def _stores_next(ring: Ring) -> bool:
    return bool(jax.tree.leaves(ring.data.next_observation))
