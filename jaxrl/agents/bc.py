"""Behavior cloning (Pomerleau 1991, https://doi.org/10.1162/neco.1991.3.1.88): a policy fitted to the data's actions.

Nothing is read of the data but observations and actions, so they may come from replay, from a dataset or from a
rollout: `update` expects leaves [B], or any leading axes. What a row counts is its `weight`.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.gradients import blank
from jaxrl.optim import clipped_adam, descend
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, Policy, PyTree, Transition, item, no_memory, weighted_mean


class BCHparams(NamedTuple):
    """Numbers of behavior cloning, all traced."""

    learning_rate: float = 3e-4  # of Adam
    entropy_coefficient: float = 0.0  # [0, inf], keeps a policy wide that would collapse on few actions
    max_grad_norm: float = float("inf")


class BCState(NamedTuple):
    """State of behavior cloning."""

    hparams: BCHparams
    params: PyTree  # of the policy
    opt_state: PyTree


def bc(
    policy: Policy,
    *,
    loss: str = "likelihood",
    optimizer: Callable[[BCHparams], optax.GradientTransformation] = clipped_adam,
    hparams: BCHparams = BCHparams(),
) -> Agent:
    """Behavior cloning for any action space that has a `Distribution`.

        likelihood: -log pi(a | s), at the raw sample that `distribution.inverse(a)` gives
        squared:    0.5 |inverse(a) - mode pi(s)|^2, in raw units, where a clip at the bounds cannot stop the gradient

    Args:
      policy: network and distribution; the network is feed-forward.
      loss: "likelihood", or "squared" for continuous actions; the latter leaves the scale of the policy untrained, so
        that only `act_greedy` means something (a deterministic policy).
      optimizer: from the hparams.

    Returns:
      An `Agent` that learns from leaves [B]; `act` samples, `act_greedy` takes the mode.

    Raises:
      ValueError: for an unknown `loss`, or a squared one of a policy over finitely many actions.
    """
    if loss not in ("likelihood", "squared"):
        raise ValueError(f"bc: loss is {loss!r}, allowed: 'likelihood', 'squared'")
    network, distribution = policy
    if loss == "squared" and not distribution.num_scale:
        raise ValueError("bc: loss is 'squared', needs continuous actions (a distribution with scale parameters)")

    def init(key: Array, hparams: BCHparams, example: Transition) -> BCState:
        hp, params = as_arrays(hparams), network.init(key, item(example.observation))
        return BCState(hp, params, optimizer(hp).init(params))

    def act(key: Array, state: BCState, memory: PyTree, observation: PyTree):
        outputs = network.apply(state.params, (), observation)[1]
        return memory, distribution.transform(distribution.sample(key, outputs)), {}

    def act_greedy(key: Array, state: BCState, memory: PyTree, observation: PyTree):
        del key
        outputs = network.apply(state.params, (), observation)[1]
        return memory, distribution.transform(distribution.mode(outputs)), {}

    def policy_loss(outputs: Array, data: Transition) -> Array:
        raw = distribution.inverse(data.action)
        if loss == "likelihood":
            return -distribution.log_prob(outputs, raw)
        error = losses.squared(raw - distribution.mode(outputs))
        return jnp.sum(error.reshape(*data.reward.shape, -1), -1)

    def total_loss(params: PyTree, hp: BCHparams, data: Transition) -> tuple[Array, Metrics]:
        outputs = network.apply(params, (), data.observation)[1]
        fit = weighted_mean(policy_loss(outputs, data), data)
        entropy = weighted_mean(distribution.entropy(outputs), data)
        return fit - hp.entropy_coefficient * entropy, {"policy_loss": fit, "entropy": entropy}

    def update(key: Array, state: BCState, data: Transition) -> tuple[BCState, Metrics]:
        del key
        hp = state.hparams
        gradient, metrics = jax.grad(total_loss, has_aux=True)(state.params, hp, blank(data))
        return BCState(hp, *descend(optimizer(hp), gradient, state.opt_state, state.params)), metrics

    return Agent(
        init, no_memory, act, act_greedy, update, actor=lambda state: state._replace(opt_state=()), hparams=hparams
    )
