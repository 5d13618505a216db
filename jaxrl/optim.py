"""Optimisers as functions of hyperparameters, so that sweeps and populations may edit the numbers in the state."""

from __future__ import annotations

import optax


def clipped_adam(hp) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015) of step `hp.learning_rate`, eps 1e-5, on gradients clipped to norm `hp.max_grad_norm`."""
    return optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.adam(hp.learning_rate, eps=1e-5))
