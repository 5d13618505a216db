"""Losses: pure functions of arrays, elementwise unless said otherwise; the caller takes the (weighted) mean.

All arguments of a function have one shape, or broadcast to one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl import parallel

Array = jax.Array


def per_row(x, rank) -> Array:
    """Means over what is behind the first `rank` axes: x [..., A] of the agents of a team as [...]."""
    return x if x.ndim == rank else jnp.mean(x, tuple(range(rank, x.ndim)))


def clipped_surrogate(log_prob, old_log_prob, advantage, clip) -> Array:
    """PPO's policy loss, to be minimised (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7).

    -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A),  ratio = exp(log_prob - old_log_prob)

    Ratios are capped at e^20, where a policy is lost anyway, so that one of them cannot overflow into NaN gradients.
    """
    ratio = jnp.exp(jnp.minimum(log_prob - old_log_prob, 20.0))
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def clipped_value(value, old_value, target, clip) -> Array:
    """PPO's value loss (https://github.com/openai/baselines ppo2; Engstrom et al. 2020, https://arxiv.org/abs/2005.12729).

    max(0.5 (v - target)^2, 0.5 (v_old + clip(v - v_old, -clip, clip) - target)^2)

    Args:
      clip: infinity gives 0.5 (v - target)^2 exactly, and its gradient.
    """
    moved = value - old_value
    # Where nothing is clipped `value` itself is used: v_old + (v - v_old) is not v in floating point.
    near = jnp.where(jnp.abs(moved) <= clip, value, old_value + jnp.clip(moved, -clip, clip))
    return jnp.maximum(squared(value - target), squared(near - target))


def approx_kl(log_prob, old_log_prob) -> Array:
    """(ratio - 1) - log(ratio), ratio = exp(log_prob - old_log_prob).

    It is >= 0, and its mean over actions of the old policy estimates KL(old || new) without bias:
    the estimator k3 of Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    log_ratio = log_prob - old_log_prob
    return jnp.expm1(log_ratio) - log_ratio


def squared(x) -> Array:
    """0.5 x^2."""
    return 0.5 * x * x


def huber(x, delta=1.0) -> Array:
    """0.5 x^2 where |x| <= delta, else delta (|x| - 0.5 delta) (Huber 1964, https://doi.org/10.1214/aoms/1177703732)."""
    return _huber(x, delta)


@jax.custom_jvp
def _huber(x, delta):
    near = jnp.clip(x, -delta, delta)
    return near * (x - 0.5 * near)


@_huber.defjvp
def _huber_jvp(primals, tangents):
    # What the chain rule through the clip comes to, in a third of its time on large arrays.
    x, delta = primals
    near = jnp.clip(x, -delta, delta)
    return _huber(x, delta), near * tangents[0] + (jnp.abs(x) - jnp.abs(near)) * tangents[1]


def normalize(advantage, weight=None, eps=1e-8) -> Array:
    """(x - mean) / sqrt(var + eps) over all axes, mean and (population) variance weighted.

    eps is inside of the root, so that the gradient is finite where x is constant. Across shards the moments are those
    of all rows, and x has to be a constant to gradients.

    Args:
      weight: None, or shape of x; rows of weight 0 do not count and come out as 0.
    """
    if weight is None:
        centred = advantage - parallel.mean(jnp.mean(advantage))
        return centred * jax.lax.rsqrt(parallel.mean(jnp.mean(centred * centred)) + eps)
    total = jnp.maximum(parallel.mean(jnp.sum(weight)), jnp.finfo(advantage.dtype).tiny)
    # A row that is not there may hold anything; a NaN times 0 would still be one.
    x = jnp.where(weight > 0, advantage, 0.0)
    centred = jnp.where(weight > 0, x - parallel.mean(jnp.sum(weight * x)) / total, 0.0)
    return centred * jax.lax.rsqrt(parallel.mean(jnp.sum(weight * centred * centred)) / total + eps)


def expectile(x, tau) -> Array:
    """|tau - 1(x < 0)| x^2 (Newey and Powell 1987, https://doi.org/10.2307/1911031; Kostrikov et al. 2021,
    https://arxiv.org/abs/2110.06169, equation 5).

    The v that minimizes its mean over x = q - v is the tau-expectile of q: 0.5 is the mean, 1 the maximum.
    """
    return jnp.where(x < 0, 1.0 - tau, tau) * x * x


def pinball(x, tau) -> Array:
    """(tau - 1(x < 0)) x (Koenker and Bassett 1978, https://doi.org/10.2307/1913643).

    The v that minimizes its mean over x = q - v is the tau-quantile of q.
    """
    return jnp.where(x < 0, tau - 1.0, tau) * x


def gumbel(x, clip=7.0, weight=None) -> Array:
    """e^z - z - 1, z = min(x, clip), over its largest slope in the batch (Garg et al. 2023,
    https://arxiv.org/abs/2301.02328, equation 11; the division is their code's, https://github.com/Div99/XQL).

        (e^z - z - 1) e^-m,   m = max(-1, max over the batch of z), a constant to the gradient

    The v that minimizes its mean over x = (q - v) / beta is beta log E e^(q / beta), a soft maximum, as long as nothing
    is clipped; a clipped row has no gradient. Not elementwise: m is over all axes.

    Args:
      weight: None, or shape of x; rows of weight 0 do not count in m.
    """
    z = jnp.minimum(x, clip)
    there = z if weight is None else jnp.where(weight > 0, z, -jnp.inf)
    m = jnp.maximum(parallel.max(jnp.max(jax.lax.stop_gradient(there))), -1.0)
    return jnp.exp(z - m) - (z + 1.0) * jnp.exp(-m)


def advantage_weight(advantage, inverse_temperature, max_weight=jnp.inf) -> Array:
    """min(exp(inverse_temperature A), max_weight): what a row counts in advantage-weighted regression, a constant
    (Peng et al. 2019, https://arxiv.org/abs/1910.00177).
    """
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(inverse_temperature * advantage), max_weight))


def categorical_projection(probability, value, atoms) -> Array:
    """C51's projection on fixed atoms (Bellemare et al. 2017, https://arxiv.org/abs/1707.06887, equation 7).

    m_i = sum_j p_j max(0, 1 - |clip(x_j, z_1, z_M) - z_i| / (z_2 - z_1)): the mass at x_j is shared by its neighbors,
    so that the mean stays where no x_j is clipped.

    Args:
      probability: p [..., K].
      value: x [..., K], where that mass lies.
      atoms: z [M], evenly spaced and rising, M >= 2.

    Returns:
      m [..., M].
    """
    near = jnp.clip(value, atoms[0], atoms[-1])[..., None]  # atoms along the last axis: 4 times as fast on a CPU
    share = jnp.maximum(1.0 - jnp.abs(near - atoms) / (atoms[1] - atoms[0]), 0.0)
    return jnp.sum(share * probability[..., None], -2)


def quantile_huber(quantile, level, target, kappa=1.0) -> Array:
    """Quantile regression of samples (Dabney et al. 2018, https://arxiv.org/abs/1710.10044, equation 10).

    sum_i mean_j |tau_i - 1{u_ij < 0}| huber_kappa(u_ij) / kappa,  u_ij = target_j - theta_i

    Args:
      quantile: theta [..., N], estimates of the quantiles at `level`.
      level: tau, [..., N] or [N], in (0, 1).
      target: [..., K] samples.
      kappa: static, >= 0; with 0 the loss is |tau_i - 1{u < 0}| |u|, whose minimum is at exact quantiles.

    Returns:
      [...].
    """
    u = target[..., None, :] - quantile[..., :, None]
    size = huber(u, kappa) / kappa if kappa else jnp.abs(u)
    return jnp.sum(jnp.mean(jnp.where(u < 0, 1.0 - level[..., :, None], level[..., :, None]) * size, -1), -1)


def signed_hyperbolic(x, eps=1e-3) -> Array:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + eps x, which squeezes returns (Pohlen et al. 2018,
    https://arxiv.org/abs/1805.11593)."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + eps * x


def signed_parabolic(x, eps=1e-3) -> Array:
    """The inverse of `signed_hyperbolic`: sign(x) (((sqrt(1 + 4 eps (|x| + 1 + eps)) - 1) / (2 eps))^2 - 1)."""
    # The root's difference from 1 would cancel in float32; (sqrt(1 + y) - 1) = y / (sqrt(1 + y) + 1).
    y = 4.0 * eps * (jnp.abs(x) + 1.0 + eps)
    root = y / (jnp.sqrt(1.0 + y) + 1.0) / (2.0 * eps)
    return jnp.sign(x) * (root * root - 1.0)


def conservative(q, chosen) -> Array:
    """Discrete CQL's penalty log sum_a exp Q(s, a) - Q(s, a_data) (Kumar et al. 2020, https://arxiv.org/abs/2006.04779).

    Args:
      q: [..., A]; actions of value -1e9 (illegal ones) do not count.
      chosen: [...], Q of the data's action.
    """
    return jax.nn.logsumexp(q, -1) - chosen


def penalized_surrogate(log_prob, old_log_prob, advantage, kl, coefficient) -> Array:
    """A policy loss with a penalty on the divergence from the policy that acted, to be minimised.

    -ratio A + coefficient kl,  ratio = exp(log_prob - old_log_prob)

    With kl = KL(new || old) and 1 / t_k it is MDPO's (Tomar et al. 2020, https://arxiv.org/abs/2005.09814), with
    KL(old || new) PPO's (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 8). Ratios are capped as in
    `clipped_surrogate`.
    """
    return coefficient * kl - jnp.exp(jnp.minimum(log_prob - old_log_prob, 20.0)) * advantage
