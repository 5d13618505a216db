"""Conservative Q-learning for continuous actions (Kumar et al. 2020, https://arxiv.org/abs/2006.04779): what it adds to
the critics of SAC, as a `regularizer` of `jaxrl.agents.sac.sac`; and its calibrated variant.

The critics are pushed down on all actions and up on those of the data, so that they bound the policy's value from below
and an offline policy does not run after errors of Q. Cal-QL (Nakamoto et al. 2023, https://arxiv.org/abs/2303.05479)
does not push them below the return that the data reached, so that learning goes on online without a first collapse.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import losses
from jaxrl.types import Array, PyTree, Transition, weight


class CQLHparams(NamedTuple):
    """Numbers of CQL's regularizer, all traced."""

    conservative_weight: float = 5.0  # alpha: of the regularizer, beside 0.5 of the squared error


def conservative(
    low: Any, high: Any, shape: tuple[int, ...], *, num_samples: int = 10, calibrated: bool = False
) -> Callable[..., Array]:
    """alpha (log of the integral of exp Q(s, a) over actions - Q(s, a_data)), CQL(H) of the paper's equation 4.

        log integral exp Q(s, a) da ~ log 1/3M sum_m exp(Q(s, a_m) - log p_m(a_m))

    over M actions that are uniform, M from pi(s) and M from pi(s'), of density p_m (appendix F); the exponential of the
    right side has the mean of that on the left. Calibrated, Q of the policy's actions is max(Q, extras["mc_return"]).
    The authors' code has no 1/3M, which is a constant, and halves nothing, so that its weight is twice this one.

    Args:
      low, high: finite bounds of actions, numbers or (nested) sequences of `shape`.
      shape: of one action.
      num_samples: M.
      calibrated: needs data with the discounted return from each row on, `extras["mc_return"]` [B].

    Returns:
      A `regularizer` for `sac`, whose hparams need `regularizer=CQLHparams()`.

    Raises:
      ValueError: if num_samples < 1 or a bound is not finite; while tracing, if there is no "mc_return".
    """
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), shape) for bound in (low, high))
    if num_samples < 1:
        raise ValueError(f"conservative: num_samples is {num_samples}, must be >= 1")
    if not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
        raise ValueError(f"conservative: low is {low.tolist()}, high {high.tolist()}; needs finite low < high")
    uniform_log_prob = -float(np.sum(np.log(high - low)))

    def regularizer(key: Array, hp: CQLHparams, sample: Callable, q: Callable, value: Array, data: Transition) -> Array:
        key_uniform, key_here, key_next = jax.random.split(key, 3)
        batch = data.reward.shape
        noise = jax.random.uniform(key_uniform, (num_samples * data.reward.size * low.size,))
        uniform = low + (high - low) * noise.reshape(num_samples, *batch, *shape)

        def draw(key: Array, observation: PyTree) -> tuple[Array, Array]:
            return jax.vmap(sample, (0, None))(jax.random.split(key, num_samples), observation)

        drawn, log_prob = zip(draw(key_here, data.observation), draw(key_next, data.next_observation))
        evaluate = jax.vmap(lambda action: q(data.observation, action), out_axes=-1)
        drawn_value, uniform_value = evaluate(jnp.concatenate(drawn)), evaluate(uniform)  # [num_critics, B, M]
        if calibrated:
            drawn_value = jnp.maximum(drawn_value, returns(data)[..., None])
        drawn_value = drawn_value - jnp.moveaxis(jnp.concatenate(log_prob), 0, -1)
        weighted = jnp.concatenate([drawn_value, uniform_value - uniform_log_prob], -1)
        return hp.conservative_weight * (losses.conservative(weighted, value) - np.log(3 * num_samples))

    return regularizer


def returns(data: Transition) -> Array:
    """`extras["mc_return"]`, 0 in rows of weight 0.

    Raises:
      ValueError: if the data has none.
    """
    if "mc_return" not in data.extras:
        raise ValueError(
            f'conservative: calibrated=True needs data.extras["mc_return"]; there are {sorted(data.extras) or "none"}'
        )
    return jnp.where(weight(data) > 0, data.extras["mc_return"], 0.0)
