"""Nash equilibria of two-player zero-sum games by linear programming. On the host, in float64."""

from __future__ import annotations

import numpy as np

from jaxrl.game_theory.strategies import num_actions


def maximin(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """max_x min_y x' M y on the simplex: a strategy of the row player and what it is sure to get.

    The linear program max v subject to M' x >= v, x >= 0, 1' x = 1 (von Neumann 1928; Dantzig 1951), solved exactly by
    the simplex method, also where fictitious play would take long.

    Args:
      matrix: [n, m], finite.

    Raises:
      ValueError: if it is not a matrix of finite numbers.
    """
    from scipy.optimize import linprog

    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all():
        raise ValueError(f"maximin: the matrix has shape {matrix.shape}, must be [n, m] of finite numbers")
    n, m = matrix.shape
    scale = np.abs(matrix).max() or 1.0
    solved = linprog(
        c=np.append(np.zeros(n), -1.0),
        A_ub=np.hstack([-matrix.T / scale, np.ones((m, 1))]),
        b_ub=np.zeros(m),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        method="highs-ds",
    )
    if not solved.success:
        raise RuntimeError(f"maximin: the linear program was not solved: {solved.message}")
    strategy = np.maximum(solved.x[:n], 0.0)
    return strategy / strategy.sum(), float(solved.x[n] * scale)


def zero_sum_nash(payoffs: np.ndarray, tolerance: float = 1e-4) -> list[np.ndarray]:
    """A Nash equilibrium [n], [m] of a two-player game whose payoffs add up to a constant.

    Args:
      payoffs: [2, n, m].
      tolerance: of the sums, beside the largest payoff.

    Raises:
      ValueError: if there are more players than two, or payoffs do not add up to a constant.
    """
    actions = num_actions(payoffs)
    first, second = np.asarray(payoffs, np.float64) if len(actions) == 2 else (None, None)
    if first is None:
        raise ValueError(f"zero_sum_nash: payoffs are those of {len(actions)} players, must be those of 2")
    total = first + second
    if np.ptp(total) > tolerance * max(np.abs(first).max(), np.abs(second).max()):
        raise ValueError(
            f"zero_sum_nash: the players' payoffs add up to {total.min():.4g} in one place and {total.max():.4g} in "
            "another, must add up to a constant; regret matching, replicator dynamics and rae take any game"
        )
    return [maximin(first)[0], maximin(-first.T)[0]]
