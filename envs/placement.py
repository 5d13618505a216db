"""Where things stand when an episode begins: cells that differ, drawn by arithmetic alone.

No sorting and no table that is shuffled: both cost more than a step of a small grid, and a loop resets in every step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Array


def distinct(uniform: Array, num_cells: int) -> Array:
    """[n] int32, different numbers of 0 .. num_cells - 1; every sequence of them is as likely.

    Args:
      uniform: [n] in [0, 1), independent.

    Raises:
      ValueError: if n > num_cells.
    """
    num = uniform.shape[0]
    if num > num_cells:
        raise ValueError(f"distinct: {num} cells are wanted of num_cells {num_cells}, must be at most as many")
    places = np.arange(num)
    cells = jnp.floor(uniform * (num_cells - places)).astype(jnp.int32)  # counts only those that the ones before left
    for i in reversed(range(num)):  # now counting the cell that i took, too
        cells = cells + ((places > i) & (cells >= cells[i]))
    return cells


def one_of(uniform: Array, free: Array) -> tuple[Array, Array]:
    """One of the free cells of a grid, each as likely: its (row, column) [2] int32, and whether there is any.

    Args:
      uniform: [] in [0, 1).
      free: [rows] uint32, a word of bits for each row: bit c says that the cell in column c (up to 31) is free.
    """
    counts = jax.lax.population_count(free).astype(jnp.int32)
    places = jnp.arange(free.shape[0])
    before = jnp.sum(jnp.where(places[None] < places[:, None], counts[None], 0), 1)
    number = jnp.floor(uniform * jnp.sum(counts)).astype(jnp.int32)
    row = (before <= number) & (number < before + counts)
    word = jnp.sum(jnp.where(row, free, 0), dtype=jnp.uint32)
    bits = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    lower = jax.lax.population_count(word & (bits - 1)).astype(jnp.int32)
    column = ((word & bits) != 0) & (lower == number - jnp.sum(jnp.where(row, before, 0)))
    cell = jnp.stack([jnp.sum(row * places), jnp.sum(column * jnp.arange(32))])
    return cell.astype(jnp.int32), jnp.any(row)


def ranks(x: Array) -> Array:
    """[n] int32: the place of each of n numbers in ascending order; of equal ones the first comes first."""
    order = jnp.arange(x.shape[0])
    first = (x[None] < x[:, None]) | ((x[None] == x[:, None]) & (order[None] < order[:, None]))
    return jnp.sum(first, 1).astype(jnp.int32)
