"""Explaining policies: what each of many agents contributes."""

from jaxrl.explain.coalitions import Coalition, another, coalition, coalition_returns, no_op, uniform
from jaxrl.explain.shapley import all_coalitions, shapley_exact, shapley_monte_carlo

__all__ = [
    "Coalition",
    "all_coalitions",
    "another",
    "coalition",
    "coalition_returns",
    "no_op",
    "shapley_exact",
    "shapley_monte_carlo",
    "uniform",
]
