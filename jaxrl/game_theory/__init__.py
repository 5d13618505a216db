"""Games as arrays of payoffs [A, n_1, ..., n_A]: equilibria, exploitability, ratings. Functions of arrays alone."""

from jaxrl.game_theory.alpha_rank import alpha_rank, marginals
from jaxrl.game_theory.dynamics import fictitious_play, regret_matching, replicator
from jaxrl.game_theory.meta import meta_solver, rectified
from jaxrl.game_theory.nash import maximin, zero_sum_nash
from jaxrl.game_theory.networks import network_gradient_ascent, network_strategy
from jaxrl.game_theory.rae import (
    covariance_under,
    rae,
    rae_residual,
    risk_averse_payoff,
    risk_averse_response,
    variances,
)
from jaxrl.game_theory.ratings import elo, nash_average, win_probability
from jaxrl.game_theory.simplex import maximize_quadratic, project
from jaxrl.game_theory.strategies import (
    action_values,
    best_response,
    expected_payoffs,
    exploitability,
    gains,
    nash_conv,
    num_actions,
    symmetric,
    two_player,
    uniform,
)

__all__ = [
    "action_values",
    "alpha_rank",
    "best_response",
    "covariance_under",
    "elo",
    "expected_payoffs",
    "exploitability",
    "fictitious_play",
    "gains",
    "marginals",
    "maximin",
    "maximize_quadratic",
    "meta_solver",
    "nash_average",
    "nash_conv",
    "network_gradient_ascent",
    "network_strategy",
    "num_actions",
    "project",
    "rae",
    "rae_residual",
    "rectified",
    "regret_matching",
    "replicator",
    "risk_averse_payoff",
    "risk_averse_response",
    "symmetric",
    "two_player",
    "uniform",
    "variances",
    "win_probability",
    "zero_sum_nash",
]
