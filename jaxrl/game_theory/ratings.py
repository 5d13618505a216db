"""Ratings of players from what they won against each other: Elo, and Nash averaging."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.game_theory.nash import maximin

POINTS = 400.0 / float(np.log(10.0))  # Elo points of one natural unit: 10 to 1 for 400 points


def win_probability(ratings: jax.Array) -> jax.Array:
    """1 / (1 + 10^((e_j - e_i) / 400)): what Elo ratings say that i wins against j, [n, n]."""
    return jax.nn.sigmoid((ratings[:, None] - ratings[None, :]) / POINTS)


def elo(win_rates: jax.Array, games: jax.Array | None = None, *, clip: float = 1e-3, num_steps: int = 100) -> jax.Array:
    """Elo ratings [n] with a mean of 0 that make the given results most likely (Elo 1978; Bradley and Terry 1952).

    maximises sum_ij g_ij p_ij log sigmoid(r_i - r_j) by damped Newton steps. Where strength is one number it explains
    all win rates; where A beats B beats C beats A it cannot, and all may come out alike.

    Args:
      win_rates: p [n, n] in [0, 1]; draws count 1/2; the diagonal is not looked at.
      games: [n, n], how many were played of each; None: as many of all.
      clip: win rates are kept within [clip, 1 - clip]: who always won would have an infinite rating.

    Raises:
      ValueError: if win_rates is no square matrix, or clip is outside of (0, 0.5).
    """
    win_rates = jnp.asarray(win_rates, jnp.float32)
    n = win_rates.shape[0]
    if win_rates.ndim != 2 or win_rates.shape[1] != n or not 0 < clip < 0.5:
        raise ValueError(f"elo: win_rates have shape {win_rates.shape} and clip is {clip}, must be [n, n], in (0, 0.5)")
    played = (jnp.ones((n, n)) if games is None else jnp.asarray(games, jnp.float32)) * (1.0 - jnp.eye(n))
    wins = played * jnp.clip(win_rates, clip, 1.0 - clip)

    def step(r: jax.Array, _):
        expected = jax.nn.sigmoid(r[:, None] - r[None, :])
        missing = wins - played * expected
        slope = jnp.sum(missing, 1) - jnp.sum(missing, 0)
        information = (played + played.T) * expected * (1.0 - expected)
        hessian = jnp.diag(jnp.sum(information, 1)) - information
        move = jnp.linalg.solve(hessian + 1.0 / n, slope)  # ones: ratings keep their mean
        return r + move / (1.0 + 0.5 * jnp.max(jnp.abs(move))), None

    ratings = jax.lax.scan(step, jnp.zeros(n), length=num_steps)[0]
    return POINTS * (ratings - jnp.mean(ratings))


def nash_average(win_rates: np.ndarray, *, clip: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Ratings that neither copies of players nor players that are beaten change (Balduzzi et al. 2018,
    https://arxiv.org/abs/1806.02643).

    The logits a_ij = log(p_ij / p_ji) are a symmetric zero-sum game; p is its Nash equilibrium of largest entropy, and
    player i is worth sum_j a_ij p_j, which is 0 for all that matter and negative for the others.

    Args:
      win_rates: as for `elo`, with p_ji = 1 - p_ij.

    Returns:
      p [n], ratings [n] in natural units. On the host.
    """
    from scipy.optimize import minimize

    rates = np.clip(np.asarray(win_rates, np.float64), clip, 1.0 - clip)
    logits = np.log(rates) - np.log(rates.T)
    n = len(logits)
    found = minimize(
        lambda p: np.sum(p * np.log(p + 1e-12)),
        maximin(logits)[0],
        jac=lambda p: np.log(p + 1e-12) + p / (p + 1e-12),
        bounds=[(0.0, 1.0)] * n,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1.0, "jac": lambda p: np.ones(n)},
            {"type": "ineq", "fun": lambda p: -logits @ p, "jac": lambda p: -logits},
        ],
        options={"maxiter": 1000, "ftol": 1e-12},
    )
    if not found.success:
        raise RuntimeError(f"nash_average: the equilibrium of largest entropy was not found: {found.message}")
    strategy = np.maximum(found.x, 0.0) / np.maximum(found.x, 0.0).sum()
    return strategy, logits @ strategy
