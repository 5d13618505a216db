"""Payoffs of mixed strategies, best responses to them, and how far a profile is from an equilibrium.

A game of A players is an array of payoffs [A, n_1, ..., n_A]: entry [i, a_1, ..., a_A] is what player i gets. A profile
is a sequence of A mixed strategies, sigma_i [n_i], each on the simplex. All of it can be traced.
"""

from __future__ import annotations

from typing import Sequence

import jax
import jax.numpy as jnp

Array = jax.Array
Profile = Sequence[Array]


def num_actions(payoffs: Array) -> tuple[int, ...]:
    """n_1, ..., n_A.

    Raises:
      ValueError: if the array does not have as many axes behind the first as that has entries.
    """
    shape = jnp.shape(payoffs)
    if len(shape) < 2 or shape[0] != len(shape) - 1 or 0 in shape:
        raise ValueError(f"payoffs have shape {shape}, must be [A, n_1, ..., n_A]: an axis of actions for each of A")
    return shape[1:]


def two_player(matrix: Array, other: Array | None = None) -> Array:
    """[2, n, m] of the row player's payoffs [n, m] and the column player's; without them the sum of both is zero."""
    matrix = jnp.asarray(matrix)
    return jnp.stack([matrix, -matrix if other is None else jnp.asarray(other)])


def symmetric(matrix: Array) -> Array:
    """[2, n, n] of a game in which both players get the same from the same: M and its transpose."""
    matrix = jnp.asarray(matrix)
    return two_player(matrix, matrix.T)


def uniform(payoffs: Array) -> list[Array]:
    """Each plays all of its actions alike."""
    return [jnp.full(n, 1.0 / n) for n in num_actions(payoffs)]


def action_values(payoffs: Array, strategies: Profile, player: int) -> Array:
    """u_i(a, sigma_-i) = E[M_i[a, a_-i]], a_-i ~ sigma_-i: what each action of `player` gets, [n_i]."""
    others = [j for j in range(len(strategies)) if j != player]
    values = payoffs[player].transpose((player, *others))  # of NumPy's arrays, too, which then are not compiled
    for j in reversed(others):
        values = values @ strategies[j]
    return values


def expected_payoffs(payoffs: Array, strategies: Profile) -> Array:
    """u_i(sigma) = sigma_i' u_i(., sigma_-i), [A]."""
    return jnp.stack([action_values(payoffs, strategies, i) @ sigma for i, sigma in enumerate(strategies)])


def best_response(payoffs: Array, strategies: Profile, player: int) -> Array:
    """The pure strategy, [n_i], that gets most against what the others play; the first one of several."""
    values = action_values(payoffs, strategies, player)
    return jax.nn.one_hot(jnp.argmax(values), values.shape[0], dtype=values.dtype)


def gains(payoffs: Array, strategies: Profile) -> Array:
    """max_a u_i(a, sigma_-i) - u_i(sigma) >= 0: what each player gains by turning to a best response, [A]."""
    best = jnp.stack([jnp.max(action_values(payoffs, strategies, i)) for i in range(len(strategies))])
    return best - expected_payoffs(payoffs, strategies)


def nash_conv(payoffs: Array, strategies: Profile) -> Array:
    """sum_i max_a u_i(a, sigma_-i) - u_i(sigma): 0 at Nash equilibria and nowhere else (Lanctot et al. 2017,
    https://arxiv.org/abs/1711.00832).
    """
    return jnp.sum(gains(payoffs, strategies))


def exploitability(payoffs: Array, strategies: Profile) -> Array:
    """`nash_conv` a player: in two-player zero-sum games, what a strategy loses on average to its best response."""
    return nash_conv(payoffs, strategies) / len(strategies)
