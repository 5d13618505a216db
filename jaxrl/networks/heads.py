"""Heads that turn a torso into a policy or a critic."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.distributions import mask_logits
from jaxrl.networks.core import example_outputs, map_outputs, view
from jaxrl.networks.feedforward import linear, linear_init
from jaxrl.types import Distribution, Network, Policy


def policy(
    torso: Network, distribution: Distribution, *, scale: float = 0.01, state_dependent_scale: bool = False
) -> Policy:
    """A linear head on `torso` that makes the parameters of `distribution`.

    Params: {"torso": ..., "head": {"kernel", "bias"}} and, unless `state_dependent_scale`, {"log_scale": [num_scale]}
    for the scale parameters of the distribution: weights that start at 0 and do not depend on the observation
    (Schulman et al. 2015, https://arxiv.org/abs/1502.05477). The memory is the torso's.

    Args:
      scale: gain of the head; small, so that the first policy is near uniform (Andrychowicz et al. 2020,
        https://arxiv.org/abs/2006.05990).
    """
    num_free = 0 if state_dependent_scale else distribution.num_scale

    def outputs(params, features):
        parameters = linear(params["head"], features)
        if not num_free:
            return parameters
        log_scale = jnp.broadcast_to(params["log_scale"], (*parameters.shape[:-1], num_free))
        return jnp.concatenate([parameters, log_scale], -1)

    network = _head(torso, distribution.num_params - num_free, scale, outputs)
    if num_free:
        init = network.init
        network = network._replace(init=lambda key, obs: init(key, obs) | {"log_scale": jnp.zeros(num_free)})
    return Policy(network, distribution)


def critic(torso: Network, *, scale: float = 1.0) -> Network:
    """A linear head on `torso` that makes one value: outputs [...]. Params {"torso", "head"}; the torso's memory."""
    return _head(torso, 1, scale, lambda params, features: linear(params["head"], features)[..., 0])


def masked(policy: Policy, *, observation: str | None = "observation", mask: str = "action_mask") -> Policy:
    """A policy for observations that are dicts with the legal actions beside what the network sees.

    Args:
      policy: of a categorical or multi-categorical distribution.
      observation: key of what the network sees; None: the whole dict.
      mask: key of a bool array [..., num_params], True where legal; [sum(nvec)] for a multi-categorical one.

    Raises:
      ValueError: if the distribution is not over finitely many actions (it has scale parameters).
    """
    if policy.distribution.num_scale:
        raise ValueError("masked: the policy's distribution has scale parameters, needs one over finitely many actions")
    network = policy.network if observation is None else view(policy.network, lambda inputs: inputs[observation])
    return policy._replace(network=map_outputs(network, lambda logits, inputs: mask_logits(logits, inputs[mask])))


def _head(torso, size, scale, outputs):
    """A network {"torso", "head"} with outputs(params, features) and the torso's memory."""

    def init(key, observation):
        key_torso, key_head = jax.random.split(key)
        params = torso.init(key_torso, observation)
        features = example_outputs(torso, params, observation).shape[-1]
        return {"torso": params, "head": linear_init(key_head, features, size, scale)}

    def apply(params, memory, observation):
        memory, features = torso.apply(params["torso"], memory, observation)
        return memory, outputs(params, features)

    def init_memory(params, observation):
        return torso.init_memory(params["torso"], observation)

    def unroll(params, memory, observation, is_first):
        return outputs(params, torso.unroll(params["torso"], memory, observation, is_first))

    return Network(init, apply, init_memory, unroll)
