"""`ActionValues`, and what its families are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses
from jaxrl.distributions import mask_logits
from jaxrl.networks.core import example_outputs
from jaxrl.networks.feedforward import linear
from jaxrl.networks.initializers import orthogonals
from jaxrl.types import Array


class ActionValues(NamedTuple):
    """A network and what its outputs mean.

    `key` may be None: then nothing is random, as for acting.

    Attributes:
      init: (key, observation [B, ...]) -> params.
      init_memory: (params, observation) -> memory; () if feed-forward.
      apply: (key, params, memory, observation [..., obs]) -> memory, outputs [...].
      unroll: (key, params, memory [N, m], observation [T, N, ...], is_first [T, N]) -> outputs [T, N].
      keys: (key) -> three keys or Nones: for the outputs that learn, for those of the target, and for those that choose
        the next action.
      mean: (outputs) -> Q [..., A]; -1e9 where an action is illegal.
      select: (outputs, action [...]) -> the representation of that action's return, leaves [..., *].
      target: (selected, reward [...], bootstrap [...]) -> the representation of reward + bootstrap * return, as `loss`
        wants it. With bootstrap 0 it is that of a known return.
      loss: (selected, target) -> [...], to be minimized.
      error: (selected, target) -> [...] >= 0, what prioritized replay calls the absolute TD error.
      num_actions: A.
      dtype: of actions.
    """

    init: Any
    init_memory: Any
    apply: Any
    unroll: Any
    keys: Any
    mean: Any
    select: Any
    target: Any
    loss: Any
    error: Any
    num_actions: int
    dtype: Any


class Outputs(NamedTuple):
    """What a network says about all actions."""

    values: Array  # [..., A], or [..., A, M] for distributions
    levels: Any  # [..., M], those of implicit quantiles; () otherwise
    legal: Any  # [..., A] bool, or ()


class Head(NamedTuple):
    """The layers behind a torso."""

    init: Callable  # (key, size of the features) -> params
    apply: Callable  # (key, params, features [..., D]) -> values, levels


def take(x: Array, action: Array) -> Array:
    """x [..., A] or [..., A, M] at action [...]: a masked sum, since a gather's gradient is slow on CPUs."""
    axis = action.ndim
    chosen = action[..., None] == jnp.arange(x.shape[axis])
    return jnp.sum(jnp.where(chosen if x.ndim == axis + 1 else chosen[..., None], x, 0.0), axis)


def bundle(torso, head, num_actions, dtype, mean, select, target, loss, error):
    def init(key, observation):
        torso_key, head_key = jax.random.split(key)
        params = torso.init(torso_key, observation)
        size = example_outputs(torso, params, observation).shape[-1]
        return {"torso": params, "head": head.init(head_key, size)}

    def outputs(key, params, features, observation) -> Outputs:
        has_mask = isinstance(observation, dict) and "action_mask" in observation
        values, levels = head.apply(key, params["head"], features)
        return Outputs(values, levels, observation["action_mask"] if has_mask else ())

    def init_memory(params, observation):
        return torso.init_memory(params["torso"], observation)

    def apply(key, params, memory, observation):
        memory, features = torso.apply(params["torso"], memory, observation)
        return memory, outputs(key, params, features, observation)

    def unroll(key, params, memory, observation, is_first):
        return outputs(key, params, torso.unroll(params["torso"], memory, observation, is_first), observation)

    keys = lambda key: (None, None, None)  # noqa: E731
    return ActionValues(
        init, init_memory, apply, unroll, keys, mean, select, target, loss, error, num_actions, jnp.dtype(dtype)
    )


def linear_head(name, num_actions, num_values, dueling, scale) -> Head:
    """[..., D] -> [..., A], or [..., A, M] for num_values M > 0; two streams if dueling."""
    check(name, num_actions=num_actions)
    rows = (num_values,) if num_values else ()
    sizes = {"value": math.prod(rows)} if dueling else {}
    sizes["action"] = math.prod(rows) * num_actions

    def init(key, size):
        if size % len(sizes):
            raise ValueError(f"{name}: dueling halves the features, of which there are {size}: an odd number")
        kernels = orthogonals(key, [(size // len(sizes), n) for n in sizes.values()], scale)
        return {name: {"kernel": kernel, "bias": jnp.zeros(n)} for (name, n), kernel in zip(sizes.items(), kernels)}

    def apply(key, params, features):
        del key
        batch, parts = features.shape[:-1], jnp.split(features, len(sizes), -1)
        *value, action = (linear(params[name], x) for name, x in zip(sizes, parts))
        action = action.reshape(*batch, num_actions, *rows)
        if not value:
            return action, ()
        mean = jnp.mean(action, len(batch), keepdims=True)
        return value[0].reshape(*batch, 1, *rows) + action - mean, ()

    return Head(init, apply)


def masked(q: Array, outputs: Outputs) -> Array:
    return q if isinstance(outputs.legal, tuple) else mask_logits(q, outputs.legal)


def scaling(rescale: bool) -> tuple[Callable, Callable]:
    return (losses.signed_hyperbolic, losses.signed_parabolic) if rescale else (lambda x: x, lambda x: x)


def check(name: str, **counts: int) -> None:
    for argument, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: {argument} is {value}, must be >= 1")
