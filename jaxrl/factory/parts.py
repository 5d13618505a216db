"""Default networks for the spaces of an environment."""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp

from jaxrl import networks
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Space
from jaxrl.types import Network, Policy, PyTree


def default_torso(
    space: Space, widths: tuple[int, ...], activation: str, channels: tuple[int, ...], *, layer_norm: bool = False
) -> Network:
    """An MLP for vectors, a CNN for images [H, W, C]; Discrete is one-hot; Dict and Tuple of vectors are joined.

    A key "action_mask" of a Dict is for the policy's logits and is left out.
    """
    if isinstance(space, Box) and len(space.shape) == 3:
        return networks.cnn(channels=channels, widths=widths, activation=activation, layer_norm=layer_norm)
    return networks.view(networks.mlp(widths, activation=activation, layer_norm=layer_norm), vector_view(space))


def actor_space(space: Space) -> Space:
    """What a policy sees: a Dict without its "privileged" part, which only a simulator knows."""
    if not (isinstance(space, Dict) and "privileged" in space.spaces):
        return space
    return Dict({name: inner for name, inner in space.items if name != "privileged"})


def critic_space(space: Space) -> Space:
    """What critics see: the "privileged" part of a Dict where there is one, instead of all else.

    Asymmetric actor-critic (Pinto et al. 2018, https://arxiv.org/abs/1710.06542).
    """
    if not (isinstance(space, Dict) and "privileged" in space.spaces):
        return space
    return Dict({"privileged": space.spaces["privileged"]})


def default_policy(space: Space, torso: Network, distribution: Any) -> Policy:
    """A head on `torso`; logits are masked where observations have an "action_mask"."""
    policy = networks.policy(torso, distribution)
    if not (isinstance(space, Dict) and "action_mask" in space.spaces):
        return policy
    return networks.masked(policy, observation=None)


def vector_view(space: Space) -> Callable[[PyTree], jax.Array]:
    """observation [..., *space] -> vector [..., D].

    Raises:
      ValueError: for an image inside of a Dict or Tuple.
    """
    if isinstance(space, Discrete):
        return lambda x: jax.nn.one_hot(x, space.n)
    if isinstance(space, MultiDiscrete):
        return lambda x: jnp.concatenate([jax.nn.one_hot(x[..., i], n) for i, n in enumerate(space.nvec)], -1)
    if isinstance(space, Box):
        rank = len(space.shape)
        return lambda x: x.astype(jnp.float32).reshape(*x.shape[: x.ndim - rank], -1)
    items = space.items if isinstance(space, Dict) else tuple(enumerate(space.spaces))
    views = [(name, vector_view(inner)) for name, inner in items if name != "action_mask"]
    return lambda x: jnp.concatenate([view(x[name]) for name, view in views], -1)
