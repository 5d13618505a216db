"""alpha-rank: what evolution makes of pure strategies (Omidshafiei et al. 2019, https://arxiv.org/abs/1903.01373)."""

from __future__ import annotations

import itertools

import numpy as np

from jaxrl.game_theory.strategies import num_actions


def alpha_rank(payoffs: np.ndarray, alpha: float = 10.0, population_size: int = 50) -> np.ndarray:
    """The share of time that populations of players spend in each profile of pure strategies, [n_1, ..., n_A].

    From profile s, one player's population is invaded by another of its strategies, each with a chance of
    eta = 1 / sum_i (n_i - 1); the mutant takes over with probability

        rho = (1 - exp(-alpha d)) / (1 - exp(-alpha m d)),  1 / m where d = 0

    for what it gains, d, and populations of m. The stationary distribution of that chain is found by elimination
    without subtractions (Grassmann, Taksar and Heyman 1985), which also holds where probabilities are tiny. On the
    host, in float64; the number of profiles cubed is what it takes.

    Args:
      payoffs: [A, n_1, ..., n_A].
      alpha: > 0, how strongly payoffs select, in 1 / payoff; the larger, the more strictly profiles are ranked.
      population_size: m >= 2.

    Raises:
      ValueError: if alpha or population_size is outside of its range.
    """
    if alpha <= 0 or population_size < 2:
        raise ValueError(f"alpha_rank: alpha is {alpha} and population_size {population_size}, must be > 0 and >= 2")
    actions, payoffs = num_actions(payoffs), np.asarray(payoffs, np.float64)
    profiles = list(itertools.product(*map(range, actions)))
    place = {profile: i for i, profile in enumerate(profiles)}
    eta = 1.0 / max(sum(n - 1 for n in actions), 1)
    chain = np.zeros((len(profiles),) * 2)
    for profile in profiles:
        for player, n in enumerate(actions):
            for action in range(n):
                if action != profile[player]:
                    then = (*profile[:player], action, *profile[player + 1 :])
                    gain = payoffs[(player, *then)] - payoffs[(player, *profile)]
                    chain[place[profile], place[then]] = eta * _fixation(alpha * gain, population_size)
    return _stationary(chain).reshape(actions)


def marginals(joint: np.ndarray) -> list[np.ndarray]:
    """Each player's own strategy, [n_i], from a distribution over profiles [n_1, ..., n_A]."""
    axes = range(joint.ndim)
    return [joint.sum(tuple(j for j in axes if j != i)) for i in axes]


def _fixation(x: float, size: int) -> float:
    """(1 - exp(-x)) / (1 - exp(-size x)), never below 1e-300, so that the chain stays connected."""
    if x == 0:
        return 1.0 / size
    if x < 0:  # multiplied by exp(size x) above and below, where exponents are negative
        return max(float(np.exp((size - 1) * x) * np.expm1(x) / np.expm1(size * x)), 1e-300)
    return float(np.expm1(-x) / np.expm1(-size * x))


def _stationary(rates: np.ndarray) -> np.ndarray:
    """p with p' Q = 0 for the rates Q off the diagonal, which is not looked at."""
    rates = rates.copy()
    n = len(rates)
    for k in range(n - 1, 0, -1):
        rates[:k, k] /= rates[k, :k].sum()
        rates[:k, :k] += np.outer(rates[:k, k], rates[k, :k])
    share = np.ones(n)
    for k in range(1, n):
        share[k] = share[:k] @ rates[:k, k]
        share[: k + 1] /= share[: k + 1].max()  # what is 1e300 times as likely as another would overflow
    return share / share.sum()
