"""What a dataset is worth: trajectory quality and state-action coverage.

Schweighofer et al. 2022, "A dataset perspective on offline reinforcement learning", section 3
(https://arxiv.org/abs/2111.04714). Unique pairs are counted exactly, or by HyperLogLog (Flajolet et al. 2007) with the
estimator of Ertl 2017, "New cardinality estimation algorithms for HyperLogLog sketches", algorithm 6
(https://arxiv.org/abs/1702.01284), which is unbiased from one to billions without a correction table.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.data.dataset import Dataset, episode_returns, num_transitions
from jaxrl.data.scores import normalized_score, reference_scores
from jaxrl.types import Array

PRECISION = 16  # 2**16 registers: the standard error of a count is 1.04 / 2**8 = 0.41 %
_CHUNK = 1 << 16  # rows hashed at a time


def tq(dataset: Dataset, minimum: float | None = None, expert: float | None = None) -> float:
    """Trajectory quality, (mean return - minimum) / (expert - minimum).

    Args:
      minimum: the return of the worst behavior at hand, mostly the random policy's.
      expert: the return of the best policy found. Both None: the reference scores of the metadata.

    Raises:
      ValueError: if there are no references, or they are equal.
    """
    if minimum is None or expert is None:
        minimum, expert = reference_scores(dataset)
    return normalized_score(episode_returns(dataset).mean(), minimum, expert) / 100


def saco(dataset: Dataset, reference: Dataset, *, num_bins: int | None = None, approximate: bool = False) -> float:
    """State-action coverage, u(D) / u(D_ref): the unique pairs of a dataset over those of a reference.

    The paper's reference is the replay of the online run that made the expert.

    Args:
      num_bins: floats count as equal within one of that many equal bins between the least and greatest value of each
        entry in the reference (outside of it, bins go on); None: only if they are the same number. The paper has
        discrete or exactly repeated states; bins for continuous ones are our choice, so report them.
      approximate: count by HyperLogLog, in a fixed memory, to about 0.4 %.
    """
    bins = None if num_bins is None else bin_edges(reference, num_bins)
    count = approximate_unique_pairs if approximate else unique_pairs
    return count(dataset, bins) / count(reference, bins)


def bin_edges(dataset: Dataset, num_bins: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Least and greatest value of each entry of every leaf of (observation, action), and `num_bins`.

    Raises:
      ValueError: if `num_bins` < 1.
    """
    if num_bins < 1:
        raise ValueError(f"bin_edges: num_bins is {num_bins}, must be >= 1")
    edges = []
    for x in _leaves(dataset):
        x = np.asarray(x)
        edges.append((x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64), num_bins))
    return edges


def unique_pairs(dataset: Dataset, bins: list | None = None) -> int:
    """u(D), exactly: the rows of (observation, action) are sorted as bytes, and those unlike their neighbor counted."""
    rows = np.concatenate([_bytes(x) for x in _codes(_leaves(dataset), bins, slice(None))], axis=1)
    return int(np.unique(np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")).size)


def approximate_unique_pairs(dataset: Dataset, bins: list | None = None, precision: int = PRECISION) -> float:
    """u(D) by HyperLogLog with 2**precision registers; the standard error is 1.04 / 2**(precision / 2)."""
    registers = jnp.zeros(1 << precision, jnp.int32)
    count = num_transitions(dataset)
    for start in range(0, count, _CHUNK):
        rows = np.minimum(np.arange(start, start + _CHUNK), count - 1)  # a row that is repeated is not counted twice
        codes = np.concatenate([_words(x) for x in _codes(_leaves(dataset), bins, rows)], axis=1)
        registers = sketch(registers, jnp.asarray(codes))
    return estimate(np.asarray(registers))


@functools.partial(jax.jit, donate_argnums=0)
def sketch(registers: Array, words: Array) -> Array:
    """Adds rows to a HyperLogLog sketch; the maximum of two sketches is that of the union.

    Args:
      registers: [2**precision] int32, zeros at first: the greatest rank seen, 1 + leading zeros of a 32-bit hash.
      words: [D, W] uint32, the rows.
    """
    precision = int(math.log2(registers.shape[0]))
    index = hash_rows(words, 0x9747B28C) >> (32 - precision)
    rank = jax.lax.clz(hash_rows(words, 0x3C6EF372)).astype(jnp.int32) + 1
    return registers.at[index].max(rank)


def hash_rows(words: Array, seed: int) -> Array:
    """[D] uint32: MurmurHash3 (x86, 32 bits) of each row of uint32 [D, W]."""

    def rotate(x, by):
        return (x << by) | (x >> (32 - by))

    def mix(h, word):
        word = rotate(word * jnp.uint32(0xCC9E2D51), 15) * jnp.uint32(0x1B873593)
        return rotate(h ^ word, 13) * jnp.uint32(5) + jnp.uint32(0xE6546B64), None

    h, _ = jax.lax.scan(mix, jnp.full(words.shape[0], seed, jnp.uint32), words.T)
    h = h ^ jnp.uint32(4 * words.shape[1])
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def estimate(registers: np.ndarray, hash_bits: int = 32) -> float:
    """How many unlike rows a sketch has seen: m^2 / (2 ln 2) / (m tau(1 - C_{q+1} / m) 2^-q + sum_k C_k 2^-k + ...).

    Ertl 2017, algorithm 6; q = `hash_bits` is the number of bits that ranks are taken from.
    """
    m = len(registers)
    counts = np.bincount(registers, minlength=hash_bits + 2).astype(np.float64)
    z = m * _tau(1 - counts[hash_bits + 1] / m)
    for k in range(hash_bits, 0, -1):
        z = 0.5 * (z + counts[k])
    z += m * _sigma(counts[0] / m)
    return m * m / (2 * math.log(2)) / z


def _sigma(x: float) -> float:
    """x + sum_k x^(2^k) 2^(k-1), k from 1."""
    if x == 1:
        return math.inf
    total, factor, before = x, 1.0, None
    while total != before:
        x, before = x * x, total
        total, factor = total + x * factor, 2 * factor
    return total


def _tau(x: float) -> float:
    """(1 - x - sum_k (1 - x^(2^-k))^2 2^-k) / 3, k from 1."""
    if x in (0.0, 1.0):
        return 0.0
    total, factor, before = 1 - x, 1.0, None
    while total != before:
        x, factor, before = math.sqrt(x), factor / 2, total
        total -= (1 - x) ** 2 * factor
    return total / 3


def _leaves(dataset: Dataset) -> list:
    return jax.tree.leaves((dataset.transitions.observation, dataset.transitions.action))


def _codes(leaves: list, bins: list | None, rows) -> list[np.ndarray]:
    """The rows [D, K] of each leaf; floats are cut into bins, or -0 becomes 0."""
    codes = []
    for i, x in enumerate(leaves):
        x = np.asarray(x[rows])
        if x.dtype.kind in "biu":
            code = x
        elif bins is None:
            code = x + x.dtype.type(0)
        else:
            low, high, num_bins = bins[i]
            width = np.where(high > low, (high - low) / num_bins, 1)
            code = np.floor((x.astype(np.float64) - low) / width).astype(np.int32)
            code -= (x == high) & (high > low)  # the greatest value belongs to the last bin
        codes.append(np.ascontiguousarray(code).reshape(len(x), -1))
    return codes


def _bytes(code: np.ndarray) -> np.ndarray:
    return code.view(np.uint8).reshape(len(code), -1)


def _words(code: np.ndarray) -> np.ndarray:
    """Rows as uint32, padded with zeros."""
    rows = _bytes(code)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return np.ascontiguousarray(padded).view(np.uint32)
