"""Meta-solvers: payoffs [A, n_1, ..., n_A] of populations -> what mixture of its own each player's is to be met by.

Where the variances of what is paid are known, they are a second argument, [A, n_1, ..., n_A].
"""

from __future__ import annotations

from typing import Callable, Sequence

import jax
import numpy as np

from jaxrl.game_theory.alpha_rank import alpha_rank, marginals
from jaxrl.game_theory.dynamics import regret_matching, replicator
from jaxrl.game_theory.nash import maximin, zero_sum_nash
from jaxrl.game_theory.rae import rae
from jaxrl.game_theory.strategies import uniform

MetaSolver = Callable[..., Sequence[np.ndarray]]


def meta_solver(name: str, **choices) -> MetaSolver:
    """One by its name.

    "nash" (linear programming; two players, zero-sum: the double oracle algorithm of McMahan et al. 2003), "uniform"
    (fictitious play), "regret_matching", "replicator" (`floor=` for the projected one of PSRO's paper), "alpha_rank",
    "rae" (`lambda_=`; variances are its `noise`, all others leave them alone). Choices are arguments of the function of
    that name.

    Raises:
      ValueError: for another name.
    """
    host = {"nash": zero_sum_nash, "alpha_rank": lambda x, **choices: marginals(alpha_rank(x, **choices))}
    traced = {"uniform": uniform, "regret_matching": regret_matching, "replicator": replicator, "rae": rae}
    if name in host:
        return lambda payoffs, variances=None: host[name](payoffs, **choices)
    if name not in traced:
        raise ValueError(f"meta_solver: {name!r} is not known, allowed: {', '.join(sorted(host | traced))}")
    solve = jax.jit(lambda payoffs, **more: traced[name](payoffs, **choices, **more))

    def solver(payoffs: np.ndarray, variances: np.ndarray | None = None) -> list[np.ndarray]:
        more = {"noise": np.asarray(variances, np.float32)} if name == "rae" and variances is not None else {}
        return [np.asarray(s, np.float64) for s in solve(np.asarray(payoffs, np.float32), **more)]

    return solver


def rectified(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whom each member of one population trains against, amplifying its strengths (Balduzzi et al. 2019,
    https://arxiv.org/abs/1901.08106).

    In a symmetric zero-sum game with Nash equilibrium p, member i trains against the members that it beats or ties
    with, j with probability in proportion to p_j 1[M_ij >= 0]; the learners are those with p_i > 0.

    Args:
      matrix: M [n, n], antisymmetric: what row i gets against column j.

    Returns:
      p [n], mixtures [n, n] with rows that add up to 1.

    Raises:
      ValueError: if the matrix is not antisymmetric.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape != matrix.T.shape or np.abs(matrix + matrix.T).max() > 1e-4:
        raise ValueError("rectified: the matrix is not antisymmetric, must be what i gets against j, and j loses")
    nash = maximin(matrix)[0]
    weights = nash * (matrix >= 0)
    weights = np.where(weights.sum(1, keepdims=True) > 0, weights, np.eye(len(matrix)))
    return nash, weights / weights.sum(1, keepdims=True)
