"""Returns and advantages of trajectories: pure functions of arrays [T, ...], time first, any further axes.

Common arguments, all of one shape unless said otherwise:
  reward: r_t.
  value, next_value: V(s_t) and V of the true successor of s_t, also at the end of an episode.
  discount: gamma ** num_steps * (1 - terminated): what multiplies the value of the successor.
  trace: gamma ** num_steps * lambda * (1 - is_last): what carries a recursion from t + 1 to t; 0 at the end of an
    episode, by termination or by truncation. At the end of the window every recursion starts from its bootstrap.
  weight: None, or rows of weight 0 are not there: a recursion passes over them as if they had been cut out.

Everything is float32, differentiable, and safe under `jit` and `vmap`. Truncation and termination differ in `discount`
alone: a truncated step bootstraps from its true successor.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def gae(reward, value, next_value, discount, trace, weight=None) -> Array:
    """Generalised advantage estimation (Schulman et al. 2016, https://arxiv.org/abs/1506.02438).

    delta_t = r_t + discount_t V(s'_t) - V(s_t);  A_t = delta_t + trace_t A_{t+1}
    """
    return _reverse(reward + discount * next_value - value, trace, weight)


def lambda_returns(reward, next_value, discount, trace, weight=None) -> Array:
    """TD(lambda) targets (Sutton and Barto 2018, http://incompleteideas.net/book/the-book-2nd.html, section 12.1).

    G_t = r_t + discount_t V(s'_t) + trace_t (G_{t+1} - V(s'_t));  G_{t+1} = V(s'_t) at the end of the window
    """
    trace = jnp.where(_is_end(reward, weight), 0.0, trace)
    return _reverse(reward + (discount - trace) * next_value, trace, weight)


def discounted_returns(reward, next_value, discount, is_last, weight=None) -> Array:
    """G_t = r_t + discount_t (V(s'_t) if the episode or the window ends with t, else G_{t+1}).

    Args:
      is_last: bool; the episode ended with this step, by termination or by truncation.
    """
    return lambda_returns(reward, next_value, discount, jnp.where(is_last, 0.0, discount), weight)


def n_step_returns(reward, next_value, discount, is_last, n: int, weight=None) -> Array:
    """G^n_t = r_t + discount_t (V(s'_t) if n = 1 or the episode or the window ends with t, else G^{n-1}_{t+1}).

    Args:
      is_last: bool; the episode ended with this step, by termination or by truncation.
      n: static, how many rows to sum before the bootstrap.

    Raises:
      ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"n_step_returns: n is {n}, must be >= 1")
    is_last = is_last | _is_end(reward, weight)
    weight = jnp.ones_like(reward) if weight is None else weight

    def step(returns, row):  # returns: G^1 .. G^n of the next row
        reward, next_value, discount, is_last, weight = row
        after = jnp.where(is_last, next_value, jnp.concatenate([next_value[None], returns[:-1]]))
        returns = jnp.where(weight > 0, reward + discount * after, returns)
        return returns, returns[-1]

    start = jnp.zeros((n, *reward.shape[1:]), jnp.result_type(reward, next_value, discount))
    rows = (reward, next_value, discount, is_last, weight)
    return jax.lax.scan(step, start, rows, reverse=True)[1]


def n_step_parts(reward, discount, is_last, n: int, weight=None) -> tuple[Array, Array, Array]:
    """What `n_step_returns` adds up: G^n_t = total_t + decay_t V(s'_k), k = row_t, for values that are no numbers.

    Arguments and errors as in `n_step_returns`.

    Returns:
      total, decay (the product of the discounts up to row k) and row, int32, each [T, ...].
    """
    if n < 1:
        raise ValueError(f"n_step_parts: n is {n}, must be >= 1")
    is_last = is_last | _is_end(reward, weight)
    weight = jnp.ones_like(reward) if weight is None else weight

    def step(parts, row):  # parts: those of G^1 .. G^n of the next row
        reward, discount, is_last, weight, index = row
        here = (jnp.zeros_like(reward), jnp.ones_like(reward), jnp.full_like(parts[2][0], index))
        after = [jnp.where(is_last, a, jnp.concatenate([a[None], x[:-1]])) for a, x in zip(here, parts)]
        new = (reward + discount * after[0], discount * after[1], after[2])
        return tuple(jnp.where(weight > 0, a, x) for a, x in zip(new, parts)), tuple(a[-1] for a in new)

    zeros = jnp.zeros((n, *reward.shape[1:]), jnp.result_type(reward, discount))
    rows = (reward, jnp.broadcast_to(discount, reward.shape), is_last, weight, jnp.arange(reward.shape[0]))
    return jax.lax.scan(step, (zeros, zeros, zeros.astype(jnp.int32)), rows, reverse=True)[1]


def vtrace(
    reward, value, next_value, discount, trace, ratio, *, clip_rho=1.0, clip_c=1.0, clip_pg_rho=1.0, weight=None
) -> tuple[Array, Array]:
    """V-trace targets and policy-gradient advantages (Espeholt et al. 2018, https://arxiv.org/abs/1802.01561).

    delta_t = min(clip_rho, ratio_t) (r_t + discount_t V(s'_t) - V(s_t))
    x_t = delta_t + trace_t min(clip_c, ratio_t) x_{t+1};  targets_t = V(s_t) + x_t
    advantage_t = min(clip_pg_rho, ratio_t) (r_t + discount_t V(s'_t) + trace_t x_{t+1} - V(s_t))

    With lambda = 1 these are the paper's, v_{t+1} = V(s'_t) + x_{t+1}; with lambda < 1 its remark 2.

    Args:
      ratio: pi(a_t | s_t) / mu(a_t | s_t), of the learner's policy to the one that acted.

    Returns:
      targets, advantage. Stop gradients where they are used as constants.
    """
    error = reward + discount * next_value - value
    x = _reverse(jnp.minimum(clip_rho, ratio) * error, trace * jnp.minimum(clip_c, ratio), weight)
    return value + x, jnp.minimum(clip_pg_rho, ratio) * (error + trace * _next(x))


def retrace(reward, q, next_v, discount, trace, ratio, *, clip_c=1.0, weight=None) -> Array:
    """Retrace(lambda) targets of Q(s_t, a_t) (Munos et al. 2016, https://arxiv.org/abs/1606.02647).

    delta_t = r_t + discount_t E_pi Q(s'_t, .) - Q(s_t, a_t)
    x_t = delta_t + trace_t min(clip_c, ratio_{t+1}) x_{t+1};  targets_t = Q(s_t, a_t) + x_t

    Args:
      q: Q(s_t, a_t) of the action that was taken.
      next_v: E_pi Q(s'_t, .) at the true successor.
      trace: 0 at the end of an episode, so that the ratio of another episode's first action is never used.
      ratio: pi(a_t | s_t) / mu(a_t | s_t) of the same row; the shift to t + 1 is done here.
    """
    error, c = reward + discount * next_v - q, jnp.minimum(clip_c, ratio)
    x = _reverse(c * error, c * trace, weight)  # min(clip_c, ratio_t) x_t
    return q + error + trace * _next(x)


def _reverse(base, decay, weight=None):
    """x_t = base_t + decay_t x_{t+1} backwards from x_T = 0; rows of weight 0 pass x_{t+1} on."""
    if weight is not None:
        base, decay = jnp.where(weight > 0, base, 0.0), jnp.where(weight > 0, decay, 1.0)

    # A plain scan: on a CPU `associative_scan` is slower for many columns and takes longer to compile, and unrolling
    # gains nothing; all of it is noise beside an update.
    def step(x, row):
        x = row[0] + row[1] * x
        return x, x

    return jax.lax.scan(step, jnp.zeros_like(base[0]), (base, decay), reverse=True)[1]


def _next(x):
    """x_{t+1}, and 0 after the last row."""
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])


def _is_end(reward, weight):
    """Whether a row is the last one of the window that is there, bool [T, ...] (or [T, 1, ...])."""
    if weight is None:
        shape = (-1,) + (1,) * (reward.ndim - 1)
        return (jnp.arange(reward.shape[0]) == reward.shape[0] - 1).reshape(shape)
    later = jax.lax.cumsum((weight > 0).astype(jnp.int32), axis=0, reverse=True)
    return (weight > 0) & (later == 1)
