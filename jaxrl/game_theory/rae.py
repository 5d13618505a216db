"""Risk-averse equilibria (Slumbers et al. 2023, "A game-theoretic framework for managing risk in multi-agent systems",
https://arxiv.org/abs/2205.15434): what others do makes rewards vary, and players avoid that.

    r_i(sigma) = sigma_i' u_i(sigma_-i) - lambda sigma_i' S_i(sigma_-i) sigma_i
    S_i(sigma_-i)[a, b] = Cov(M_i[a, a_-i], M_i[b, a_-i]),  a_-i ~ sigma_-i

An equilibrium is a profile with sigma_i in argmax r_i(., sigma_-i) for all players, among strategies that tremble: each
action has a probability of at least epsilon, so that the unlikely counts. It exists, as r_i is concave in sigma_i.
Payoffs [A, n_1, ..., n_A].

S_i is about expected payoffs M_i. Where a profile pays by chance (episodes of learned policies), let V_i be the
variance of what it pays: with `noise` = V, r_i is less by lambda sigma_i' V_i sigma_-i (ours). Both together are the
variance of what player i gets, by the law of total variance, but for what its own dice add, which the paper leaves out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.game_theory.simplex import maximize_quadratic, project
from jaxrl.game_theory.strategies import Array, Profile, action_values, num_actions, uniform


def covariance_under(payoffs: Array, strategies: Profile, player: int) -> Array:
    """S_i(sigma_-i), [n_i, n_i]: how what the actions of `player` get varies together with what the others do."""
    others = [s for j, s in enumerate(strategies) if j != player]
    rows = jnp.moveaxis(payoffs[player], player, 0)
    chance = jnp.ones(())
    for strategy in others:
        chance = chance[..., None] * strategy
    rows, chance = rows.reshape(rows.shape[0], -1), chance.reshape(-1)
    centred = rows - (rows @ chance)[:, None]
    return (centred * chance) @ centred.T


def variances(payoffs: Array, strategies: Profile) -> Array:
    """sigma_i' S_i(sigma_-i) sigma_i, [A]: the variance, by what the others do, of what each player's mixture gets."""
    return jnp.stack([s @ covariance_under(payoffs, strategies, i) @ s for i, s in enumerate(strategies)])


def risk_averse_payoff(
    payoffs: Array, strategies: Profile, player: int, lambda_: Array | float, noise: Array | None = None
) -> Array:
    """r_i(sigma), []. Noise: V [A, n_1, ..., n_A], the variances of what profiles pay; None: they pay the payoffs."""
    sigma = strategies[player]
    risk = sigma @ covariance_under(payoffs, strategies, player) @ sigma
    return sigma @ action_values(_less(payoffs, lambda_, noise), strategies, player) - lambda_ * risk


def _less(payoffs: Array, lambda_: Array | float, noise: Array | None) -> Array:
    """The part of r_i that is linear in sigma_i: payoffs M - lambda V."""
    return payoffs if noise is None else payoffs - lambda_ * noise


def risk_averse_response(
    payoffs: Array,
    strategies: Profile,
    player: int,
    lambda_: Array | float,
    *,
    floor: float = 0.0,
    num_steps: int = 100,
    start: Array | None = None,
    noise: Array | None = None,
) -> Array:
    """argmax over {sigma >= floor} of r_i(sigma, sigma_-i), [n_i]: a quadratic program on the simplex.

    Args:
      lambda_: >= 0; 0 is a best response.
      floor: epsilon.
      num_steps: of projected gradients.
      start: [n_i]; None: what the player plays.
      noise: V [A, n_1, ..., n_A]; None: 0.
    """
    linear = action_values(_less(payoffs, lambda_, noise), strategies, player)
    covariance = lambda_ * covariance_under(payoffs, strategies, player)
    start = strategies[player] if start is None else start
    return maximize_quadratic(linear, covariance, start, floor=floor, num_steps=num_steps)


def rae(
    payoffs: Array,
    lambda_: Array | float,
    *,
    floor: float = 1e-3,
    num_steps: int = 3000,
    response_steps: int = 30,
    start: Profile | None = None,
    noise: Array | None = None,
) -> list[Array]:
    """A risk-averse equilibrium by stochastic fictitious play: sigma <- sigma + eta_t (response(sigma) - sigma).

    eta_t = 2 / (t + 1), where the paper has 1 / t: averages that weigh step t by t, and so forget the start sooner.
    With lambda = 0 and floor -> 0 a Nash equilibrium, where fictitious play finds one. `rae_residual` says how near the
    fixed point is.

    Args:
      lambda_: >= 0, in units of 1 / payoff; may be traced.
      floor: epsilon, in (0, 1 / n_i); 0 leaves out what nobody does.
      num_steps: of fictitious play.
      response_steps: of the quadratic program within each, which goes on from the last answer.
      start: who has several equilibria goes to one near it; None: uniform.
      noise: V [A, n_1, ..., n_A], the variances of what profiles pay; None: 0.

    Raises:
      ValueError: if floor is outside of [0, 1 / n_i).
    """
    num_actions(payoffs)
    first = [project(jnp.asarray(s, jnp.float32), floor) for s in (uniform(payoffs) if start is None else start)]

    def step(carry: tuple, t: Array):
        sigma, last = carry
        answers = [
            risk_averse_response(
                payoffs, sigma, i, lambda_, floor=floor, num_steps=response_steps, start=last[i], noise=noise
            )
            for i in range(len(sigma))
        ]
        return ([s + (b - s) * 2.0 / (t + 1.0) for s, b in zip(sigma, answers)], answers), None

    return jax.lax.scan(step, (first, first), jnp.arange(1.0, num_steps + 1.0))[0][0]


def rae_residual(
    payoffs: Array,
    strategies: Profile,
    lambda_: Array | float,
    *,
    floor: float = 1e-3,
    num_steps: int = 1000,
    noise: Array | None = None,
) -> Array:
    """max_i [max_sigma r_i(sigma, sigma_-i) - r_i(sigma)]: what anybody gains by a better response, 0 at equilibria."""

    def gain(player: int) -> Array:
        steps = dict(floor=floor, num_steps=num_steps, noise=noise)
        best = risk_averse_response(payoffs, strategies, player, lambda_, **steps)
        turned = [best if i == player else s for i, s in enumerate(strategies)]
        there = risk_averse_payoff(payoffs, turned, player, lambda_, noise)
        return there - risk_averse_payoff(payoffs, strategies, player, lambda_, noise)

    return jnp.max(jnp.stack([gain(i) for i in range(len(strategies))]))
