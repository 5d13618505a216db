"""Counters for runs of any length: an int32 wraps around after 2**31 - 1, a float32 stands still from 2**24 on.

Two kinds. `increment` counts events in an int32 that stays among its largest values when it gets there, so that
schedules end where they should, and `count % period == 0` goes on as before. `Count` is exact up to 2**61.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

LARGEST = 2**31 - 1
_BASE = 2**30


def increment(count: jax.Array, period: int = 1) -> jax.Array:
    """count + 1; from 2**31 - 1 on, the next of the last `period` int32 values: `count % period` keeps its rhythm.

    Args:
      count: [] int32.
      period: what the count is taken modulo of: a number that all periods divide. 1: the count stands still at the end.

    Raises:
      ValueError: if the period is not in [1, 2**31).
    """
    if not 1 <= period <= LARGEST:
        raise ValueError(f"increment: period is {period}, must be in [1, 2**31)")
    return jnp.where(count == LARGEST, LARGEST - (period - 1), count + 1)


class Count(NamedTuple):
    """high * 2**30 + low, exact up to 2**61.

    Attributes:
      rounded: the count as a float32, for schedules.
    """

    high: jax.Array  # [] int32
    low: jax.Array  # [] int32, in [0, 2**30)
    rounded: jax.Array  # [] float32


def zero() -> Count:
    return Count(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32))


def advance(count: Count, n: int) -> Count:
    """count + n for a static n in [0, 2**30]."""
    low = count.low + n
    high, low = count.high + low // _BASE, low % _BASE
    return Count(high, low, high.astype(jnp.float32) * float(_BASE) + low.astype(jnp.float32))


def exact(count: Count) -> int:
    """On the host."""
    return int(count.high) * _BASE + int(count.low)
