"""Equilibria by repeated play, as scans: fictitious play, regret matching, replicator dynamics.

In two-player zero-sum games the averages converge to a Nash equilibrium; in others they may cycle, which
`nash_conv` of what is returned tells. Payoffs [A, n_1, ..., n_A]; all take any number of players.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.game_theory.simplex import project
from jaxrl.game_theory.strategies import Array, Profile, action_values, best_response, uniform


def fictitious_play(payoffs: Array, num_steps: int = 10_000, start: Profile | None = None) -> list[Array]:
    """Each plays a best response to what the others played so far on average (Brown 1951).

    sigma_i <- sigma_i + (BR_i(sigma_-i) - sigma_i) / (t + 1). Its exploitability falls like 1 / sqrt(t) as a rule.
    """

    def step(sigma: list[Array], t: Array):
        answers = [best_response(payoffs, sigma, i) for i in range(len(sigma))]
        return [s + (b - s) / (t + 1.0) for s, b in zip(sigma, answers)], None

    return jax.lax.scan(step, _first(payoffs, start), jnp.arange(1.0, num_steps + 1.0))[0]


def regret_matching(payoffs: Array, num_steps: int = 10_000, start: Profile | None = None) -> list[Array]:
    """Regret matching+ with alternating updates and averages that weigh step t by t (Tammelin 2014,
    https://arxiv.org/abs/1407.5042), which converges much faster than regret matching (Hart and Mas-Colell 2000).

    R_i <- max(R_i + u_i(., sigma_-i) - u_i(sigma), 0), sigma_i in proportion to R_i.
    """

    def step(carry: tuple, t: Array):
        regrets, sigma, mean = (list(x) for x in carry)
        for i in range(len(sigma)):
            values = action_values(payoffs, sigma, i)
            regrets[i] = jnp.maximum(regrets[i] + values - values @ sigma[i], 0.0)
            total = jnp.sum(regrets[i])
            sigma[i] = jnp.where(total > 0, regrets[i] / jnp.maximum(total, 1e-30), sigma[i])
        mean = [m + (s - m) * 2.0 / (t + 1.0) for m, s in zip(mean, sigma)]
        return (regrets, sigma, mean), None

    first = _first(payoffs, start)
    carry = ([jnp.zeros_like(s) for s in first], first, first)
    return jax.lax.scan(step, carry, jnp.arange(1.0, num_steps + 1.0))[0][2]


def replicator(
    payoffs: Array, num_steps: int = 50_000, step_size: float = 1e-2, floor: float = 0.0, start: Profile | None = None
) -> list[Array]:
    """Averages over time of the replicator dynamics d sigma_i[a] / dt = sigma_i[a] (u_i(a, sigma_-i) - u_i(sigma)).

    In steps that are exact for constant values, sigma_i[a] in proportion to sigma_i[a] exp(step_size u_i(a)), so that
    strategies stay on the simplex. Payoffs are divided by half of their range first: what they are measured in does not
    matter.

    Args:
      floor: no action becomes less likely; > 0 is projected replicator dynamics, the meta-solver of PSRO's paper
        (Lanctot et al. 2017, https://arxiv.org/abs/1711.00832).
      start: interior; what it gives no probability stays without.

    Raises:
      ValueError: if floor is outside of [0, 1 / n_i].
    """
    largest = max(s.shape[0] for s in uniform(payoffs))
    if not 0.0 <= floor <= 1.0 / largest:
        raise ValueError(f"replicator: floor is {floor}, must be in [0, {1.0 / largest:.4g}], 1 / number of actions")
    scaled = payoffs / jnp.maximum((jnp.max(payoffs) - jnp.min(payoffs)) / 2.0, 1e-30)

    def step(carry: tuple, t: Array):
        sigma, mean = carry
        sigma = [_grow(s, step_size * action_values(scaled, sigma, i)) for i, s in enumerate(sigma)]
        if floor:
            sigma = [project(s, floor) for s in sigma]
        return (sigma, [m + (s - m) / t for m, s in zip(mean, sigma)]), None

    first = _first(payoffs, start)
    return jax.lax.scan(step, (first, first), jnp.arange(1.0, num_steps + 1.0))[0][1]


def _grow(strategy: Array, log_growth: Array) -> Array:
    grown = strategy * jnp.exp(log_growth - jnp.max(log_growth))
    return grown / jnp.sum(grown)


def _first(payoffs: Array, start: Profile | None) -> list[Array]:
    return uniform(payoffs) if start is None else [jnp.asarray(s, jnp.float32) for s in start]
