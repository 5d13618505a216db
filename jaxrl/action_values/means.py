"""Action values that are one number an action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl import losses
from jaxrl.action_values.core import ActionValues, Head, bundle, check, linear_head, masked, scaling, take
from jaxrl.types import Array, Network


def scalar(
    torso: Network,
    num_actions: int,
    *,
    dueling: bool = False,
    loss: Callable[[Array], Array] = losses.squared,
    rescale: bool = False,
    scale: float = 1.0,
    dtype: Any = jnp.int32,
) -> ActionValues:
    """Q(s, a), one number an action.

    Args:
      torso: outputs features [..., D]; recurrent if it has memory.
      dueling: see the module; D must be even.
      loss: of the TD error: `losses.squared`, whose fixed point is the mean, or `losses.huber` (Mnih et al. 2015).
      rescale: learn h(Q) for h = `losses.signed_hyperbolic`; targets are h(r + discount h^-1(Q')).
      scale: gain of the head.
      dtype: of actions.

    Raises:
      ValueError: if num_actions < 1; from `init`, if dueling and D is odd.
    """
    head = linear_head("scalar", num_actions, 0, dueling, scale)
    return _of_samples(torso, head, num_actions, dtype, loss, rescale)


def random_mixture(
    torso: Network,
    num_actions: int,
    *,
    num_heads: int = 200,
    loss: Callable[[Array], Array] = losses.huber,
    scale: float = 1.0,
    dtype: Any = jnp.int32,
) -> ActionValues:
    """REM: Q = sum_k alpha_k Q_k, alpha random and convex in each update (Agarwal et al. 2020,
    https://arxiv.org/abs/1907.04543); the mean of the heads for acting. Arguments as in `scalar`.

    alpha_k = u_k / sum_j u_j, u uniform, the same for predictions, targets and the choice of the next action.

    Raises:
      ValueError: if num_actions or num_heads is < 1.
    """
    check("random_mixture", num_actions=num_actions, num_heads=num_heads)
    heads = linear_head("random_mixture", num_actions, num_heads, False, scale)

    def apply(key, params, features):
        values = heads.apply(None, params, features)[0]
        if key is None:
            return jnp.mean(values, -1), ()
        u = jax.random.uniform(key, (num_heads,))
        return values @ (u / jnp.sum(u)), ()

    values = _of_samples(torso, Head(heads.init, apply), num_actions, dtype, loss, False)
    return values._replace(keys=lambda key: (key, jax.random.clone(key), jax.random.clone(key)))  # the same on purpose


def _of_samples(torso, head, num_actions, dtype, loss, rescale):
    """Values that are one number [..., A]."""
    squeeze, expand = scaling(rescale)
    return bundle(
        torso,
        head,
        num_actions,
        dtype,
        mean=lambda outputs: masked(expand(outputs.values), outputs),
        select=lambda outputs, action: take(outputs.values, action),
        target=lambda selected, reward, bootstrap: squeeze(reward + bootstrap * expand(selected)),
        loss=lambda selected, target: loss(selected - target),
        error=lambda selected, target: jnp.abs(selected - target),
    )
