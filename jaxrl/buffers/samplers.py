"""How a buffer chooses where to read: uniformly, or in proportion to priorities."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.buffers import tree
from jaxrl.buffers.ring import Ring, oldest
from jaxrl.keys import integers
from jaxrl.types import Array, PyTree


class Sampler(NamedTuple):
    """How `replay` chooses rows.

    Attributes:
      init: (ring) -> state.
      added: (state, ring, count, most, length) -> state, after the newest `count` rows, at most `most`, were written;
        `length`: rows that there must be from a start on, see `Reader`.
      sample: (key, hparams, state, ring, batch_size, length) -> time [B], column [B], extras {} or {"index", "weight"}.
      prioritize: (hparams, state, index [B], priority [B]) -> state.
      hparams: defaults.
    """

    init: Any
    added: Any
    sample: Any
    prioritize: Any = lambda hparams, state, index, priority: state
    hparams: PyTree = ()


def uniform() -> Sampler:
    """Every stored row is as likely as any other; with replacement."""

    def sample(key: Array, hparams, state, ring: Ring, batch_size: int, length: int):
        rows, columns = ring.data.reward.shape[:2]
        starts = jnp.maximum(ring.size - length + 1, 1) * columns
        index = integers(key, (batch_size,), starts)
        return (oldest(ring) + index // columns) % rows, index % columns, {}

    return Sampler(lambda ring: (), lambda state, ring, count, most, length: state, sample)


class PrioritizedHparams(NamedTuple):
    """Numbers of `prioritized`."""

    priority_exponent: float = 0.6  # alpha >= 0: 0 samples uniformly
    importance_exponent: float = 0.4  # beta in [0, 1]: 1 corrects all of the bias


class PrioritizedState(NamedTuple):
    """State of `prioritized`: sums over priorities ** alpha, and the largest priority ** alpha so far."""

    sums: tuple[Array, ...]
    largest: Array


def prioritized(hparams: PrioritizedHparams = PrioritizedHparams()) -> Sampler:
    """P(i) = p_i^alpha / sum_j p_j^alpha (Schaul et al. 2016, https://arxiv.org/abs/1511.05952, proportional).

    Batches are stratified. `extras["weight"]` gains the importance weight (n P(i))^-beta over its largest in the batch;
    losses that are `weighted_mean`s normalise by its sum. `extras["index"]` asks learners for priorities; until then
    a row has the largest priority so far.
    """

    def init(ring: Ring) -> PrioritizedState:
        rows, columns = ring.data.reward.shape[:2]
        return PrioritizedState(tree.init_sums(rows * columns), jnp.ones(()))

    def added(state: PrioritizedState, ring: Ring, count: Array, most: int, length: int) -> PrioritizedState:
        rows, columns = ring.data.reward.shape[:2]
        # Backwards from the newest row: starts that are still too short, then those that the new rows made whole.
        back = jnp.arange(min(rows, most + length - 1))
        time = (ring.head - 1 - back) % rows
        whole = (back >= length - 1) & (back < ring.size)
        there = jnp.broadcast_to(whole[:, None], (len(back), columns))
        if "weight" in ring.data.extras:
            weight = ring.data.extras["weight"][time]
            there = there & (weight.reshape(*there.shape, -1).max(axis=-1) > 0)
        index = time[:, None] * columns + jnp.arange(columns)
        changed = back < count + length - 1  # others keep what they have
        index = jnp.where(changed[:, None], index, tree.NO_INDEX)
        value = jnp.where(there, state.largest, 0.0)
        return state._replace(sums=tree.put(state.sums, index.reshape(-1), value.reshape(-1)))

    def sample(key: Array, hparams: PrioritizedHparams, state: PrioritizedState, ring: Ring, batch_size, length):
        columns = ring.data.reward.shape[1]
        index = tree.stratified(key, state.sums, batch_size)
        # The factor n of the paper cancels against the largest weight; so does the sum, but for that of other shards.
        log_sum = jnp.log(jnp.maximum(tree.total(state.sums), 1e-30))
        log_share = jnp.log(jnp.maximum(tree.get(state.sums, index), 1e-30)) - (log_sum - parallel.mean(log_sum))
        log_weight = -hparams.importance_exponent * log_share
        importance = jnp.exp(log_weight - parallel.max(jnp.max(log_weight)))
        return index // columns, index % columns, {"index": index, "weight": importance}

    def prioritize(hparams: PrioritizedHparams, state: PrioritizedState, index: Array, priority: Array):
        value = (priority + 1e-6) ** hparams.priority_exponent
        # A row of priority 0 is none that may be drawn: it stays so.
        value = jnp.where(tree.get(state.sums, index) > 0, value, 0.0)
        return PrioritizedState(tree.put(state.sums, index, value), jnp.maximum(state.largest, jnp.max(value)))

    return Sampler(init, added, sample, prioritize, hparams)
