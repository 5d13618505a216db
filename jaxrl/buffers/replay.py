"""`replay`: a ring of transitions, a way of choosing where to read, and a way of reading there."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.buffers.readers import Reader, rows
from jaxrl.buffers.ring import Ring, init_ring, write
from jaxrl.buffers.samplers import Sampler, uniform
from jaxrl.tree import as_arrays
from jaxrl.types import Array, Buffer, PyTree, Transition, weight


class ReplayHparams(NamedTuple):
    """Numbers of the parts of `replay`; () where a part has none."""

    sampler: PyTree = ()
    reader: PyTree = ()


class ReplayState(NamedTuple):
    """State of `replay`."""

    hparams: ReplayHparams
    ring: Ring
    sampler: PyTree


def replay(
    capacity: int,
    batch_size: int,
    *,
    min_size: int | None = None,
    sampler: Sampler = uniform(),
    reader: Reader = rows(),
    store_next_observation: bool = True,
) -> Buffer:
    """The last `capacity` transitions, drawn in batches.

    Args:
      capacity: transitions; rounded up to whole rollouts [T, N].
      batch_size: B of what `sample` returns.
      min_size: transitions before there is learning; None: batch_size.
      sampler: `uniform()` or `prioritized()`.
      reader: `rows()`, `n_step(n)`, `sequences(length)` or `hindsight(relabel, horizon)`.
      store_next_observation: False stores each observation once, for half of the memory: successors are read from the
        next row, and the step at which an episode was truncated, whose true successor is then nowhere, gets weight 0.

    Returns:
      A `Buffer`; its hparams are `ReplayHparams(the sampler's, the reader's)`.

    Raises:
      ValueError: if a size is below 1 or they contradict each other; in `init`, if the reader needs more steps than
        the ring has rows.
    """
    min_size = min(batch_size, capacity) if min_size is None else min_size
    for name, value in (("capacity", capacity), ("batch_size", batch_size), ("min_size", min_size)):
        if value < 1:
            raise ValueError(f"replay: {name} is {value}, must be >= 1")
    if capacity > 2**30:
        raise ValueError(f"replay: capacity is {capacity}, must be <= 2**30, as sums of two indices are int32")
    if min_size > capacity:
        raise ValueError(f"replay: min_size is {min_size}, must be <= capacity, {capacity}, or learning never starts")

    def compacts(extras: dict, reward: Array) -> bool:
        return "weight" in extras and reader.single and store_next_observation and reward.ndim == 2

    def batched(x: Array, data: Transition) -> Array:
        """x [B] with the axes of a reward [B, ...], or [L, B, ...]."""
        behind = data.reward.ndim - 1 - reader.sequence
        return x.reshape(x.shape + (1,) * behind)

    def init(hparams: ReplayHparams, example: Transition) -> ReplayState:
        compact = compacts(example.extras, example.reward)
        ring = init_ring(example, capacity, store_next_observation, compact)
        length, (stored, columns) = reader.length, ring.data.reward.shape[:2]
        if length > stored:
            raise ValueError(
                f"replay: capacity is {capacity}, {stored} steps of {columns} environments; its reader needs {length}"
            )
        return ReplayState(as_arrays(hparams), ring, sampler.init(ring))

    def add(state: ReplayState, fresh: Transition) -> ReplayState:
        compact = compacts(fresh.extras, fresh.reward)
        ring, count = write(state.ring, fresh, compact)
        most = fresh.reward.shape[0] * (fresh.reward.shape[1] if compact else 1)
        return state._replace(ring=ring, sampler=sampler.added(state.sampler, ring, count, most, reader.length))

    def sample(key: Array, state: ReplayState) -> Transition:
        where_key, read_key = jax.random.split(key)
        ring, hp = state.ring, state.hparams
        time, column, chosen = sampler.sample(where_key, hp.sampler, state.sampler, ring, batch_size, reader.length)
        data = reader.read(read_key, hp.reader, ring, time, column)
        if not chosen:
            return data
        chosen = {name: jnp.broadcast_to(batched(x, data), data.reward.shape) for name, x in chosen.items()}
        return data._replace(extras={**data.extras, **chosen, "weight": chosen["weight"] * weight(data)})

    def is_ready(state: ReplayState) -> Array:
        rows, columns = state.ring.data.reward.shape[:2]
        needed = max(min(-(-min_size // columns), rows), reader.length)
        return state.ring.size >= needed

    def prioritize(state: ReplayState, data: Transition, priority: Array) -> ReplayState:
        if "index" not in data.extras:
            return state
        index, there = data.extras["index"], weight(data) > 0
        if reader.sequence:
            index, there = index[0], there.any(axis=0)
        if index.ndim > 1:  # agents share a row
            index, there = index[:, 0], there.any(axis=1)
        priority = jnp.where(there, priority, 0.0)
        return state._replace(sampler=sampler.prioritize(state.hparams.sampler, state.sampler, index, priority))

    return Buffer(init, add, sample, is_ready, prioritize, ReplayHparams(sampler.hparams, reader.hparams))


def num_bytes(state: PyTree) -> int:
    """The size of a buffer's state (or of the shapes that `jax.eval_shape` gives for it)."""
    leaves = [x for x in jax.tree.leaves(state) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return sum(int(x.size) * x.dtype.itemsize for x in leaves)
