"""Shapley values: what each of n players contributes to what all of them earn (Shapley 1953).

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! * (v(S + i) - v(S))

The one division that is efficient (sum phi = v(all) - v(none)), the same for players that add the same, 0 for who adds
nothing, and additive in v. With v(S) the return of a team of which only S act by their policies, it is the contribution
of each agent (Heuillet et al. 2022, https://arxiv.org/abs/2110.01307; `jaxrl.explain.coalitions`).
"""

from __future__ import annotations

import math
from typing import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Array

LARGEST = 16  # players of an exact value: 65,536 coalitions


def all_coalitions(num_players: int) -> np.ndarray:
    """[2 ** n, n] bool: row m has player i where bit i of m is set.

    Raises:
      ValueError: if num_players is not in [1, 16].
    """
    if not 1 <= num_players <= LARGEST:
        raise ValueError(f"all_coalitions: num_players is {num_players}, must be in [1, {LARGEST}]")
    return (np.arange(2**num_players)[:, None] >> np.arange(num_players) & 1).astype(bool)


def shapley_exact(values: Array) -> Array:
    """[..., 2 ** n] -> [..., n]: values of all coalitions, in the order of `all_coalitions`.

    Raises:
      ValueError: if the number of values is no power of two, or 1.
    """
    count = jnp.shape(values)[-1]
    num = count.bit_length() - 1
    if count < 2 or count != 2**num:
        raise ValueError(f"shapley_exact: there are {count} values, must be 2 ** n for n >= 1 players")
    masks = all_coalitions(num)
    sizes = masks.sum(1)
    share = np.array([math.factorial(k) * math.factorial(num - k - 1) for k in range(num)]) / math.factorial(num)
    # Of v(S): (|S| - 1)! (n - |S|)! / n! for who is in S, and -|S|! (n - |S| - 1)! / n! for who is not.
    inside, outside = share[np.maximum(sizes - 1, 0)], share[np.minimum(sizes, num - 1)]
    weights = np.where(masks, inside[:, None], -outside[:, None])
    return jnp.asarray(values) @ jnp.asarray(weights, jnp.float32)


def shapley_monte_carlo(
    key: Array, value: Callable[[Array, Array], Array], num_players: int, num_permutations: int
) -> tuple[Array, Array]:
    """Estimates from random orders in which players join (Castro et al. 2009, https://doi.org/10.1016/j.cor.2008.04.004).

    Each order gives every player one marginal contribution, without bias; their sum over players is v(all) - v(none) in
    every order.

    Args:
      value: (key, coalitions [K, n] bool) -> [K], exact or a sample of each.
      num_permutations: M >= 2 orders, (n + 1) M coalitions.

    Returns:
      estimates [n], and their standard errors [n].

    Raises:
      ValueError: if num_players < 1 or num_permutations < 2.
    """
    if num_players < 1:
        raise ValueError(f"shapley_monte_carlo: num_players is {num_players}, must be >= 1")
    if num_permutations < 2:
        raise ValueError(f"shapley_monte_carlo: num_permutations is {num_permutations}, must be >= 2")
    order_key, value_key = jax.random.split(key)
    place = jnp.argsort(jax.random.uniform(order_key, (num_permutations, num_players)), axis=1)  # when each joins
    joined = place[:, None] < jnp.arange(num_players + 1)[:, None]  # [M, n + 1, n]
    found = value(value_key, joined.reshape(-1, num_players)).reshape(num_permutations, num_players + 1)
    gain = jnp.take_along_axis(jnp.diff(found, axis=1), place, axis=1)  # [M, n]
    return gain.mean(0), gain.std(0, ddof=1) / math.sqrt(num_permutations)
