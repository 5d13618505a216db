"""Optimisers as functions of hyperparameters, so that sweeps and populations may edit the numbers in the state."""

from __future__ import annotations

from typing import Any

import optax

from jaxrl import parallel


def clipped_adam(hp) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) of step `hp.learning_rate`, eps 1e-5, on gradients clipped to norm `hp.max_grad_norm`."""
    return optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.adam(hp.learning_rate, eps=1e-5))


def adam(hp) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) of step `hp.learning_rate`, with the usual eps of 1e-8."""
    return optax.adam(hp.learning_rate)


def descend(optimizer: optax.GradientTransformation, gradient: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    """One step of `optimizer`, on the mean of the gradients of all shards. Returns `params, opt_state`.

    Every agent's gradients go through here, and nowhere else are they exchanged; clipping comes after the mean.
    """
    step, opt_state = optimizer.update(parallel.mean(gradient), opt_state, params)
    return optax.apply_updates(params, step), opt_state
