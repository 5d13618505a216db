"""Builders of agents that learn from fixed data."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl import distributions, divergences, networks
from jaxrl.agents.bc import bc
from jaxrl.agents.iql import iql
from jaxrl.agents.odice import odice
from jaxrl.combinators.recoil import recoil
from jaxrl.factory.actor_critic import default_action_critic
from jaxrl.factory.parts import actor_space, critic_space, default_policy, default_torso, vector_view
from jaxrl.spaces import Box
from jaxrl.types import Agent, Env, Network, Policy


def build_bc(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    squash: bool = False,
    loss: str = "likelihood",
) -> Agent:
    """Behavior cloning.

    Args:
      widths: of the hidden layers.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      squash: continuous actions through tanh, instead of clipping.
      loss: likelihood, or squared for a deterministic policy.
    """
    return bc(_policy(env, widths, activation, channels, squash), loss=loss)


def build_iql(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    squash: bool = False,
    value_loss: str = "expectile",
) -> Agent:
    """IQL for vector observations.

    Args:
      widths: of the hidden layers of policy, value and critics.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: normalize the layers of value and critics.
      num_critics: networks in the critic's ensemble, of which the least counts.
      squash: continuous actions through tanh, instead of clipping.
      value_loss: expectile, gumbel, pearson_chi2 or total_variation.
    """
    parts = _actor_critic(env, widths, activation, layer_norm, num_critics, squash)
    return iql(*parts, value_loss=_maximizer(value_loss))


def build_xql(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    squash: bool = False,
) -> Agent:
    """XQL: IQL with Gumbel regression.

    Args:
      widths: of the hidden layers of policy, value and critics.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: normalize the layers of value and critics.
      num_critics: networks in the critic's ensemble, of which the least counts.
      squash: continuous actions through tanh, instead of clipping.
    """
    return build_iql(
        env,
        widths=widths,
        activation=activation,
        layer_norm=layer_norm,
        num_critics=num_critics,
        squash=squash,
        value_loss="gumbel",
    )


def build_fdvl(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    squash: bool = False,
    divergence: str = "pearson_chi2",
) -> Agent:
    """f-DVL: IQL with the surrogate of an f-divergence.

    Args:
      widths: of the hidden layers of policy, value and critics.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: normalize the layers of value and critics.
      num_critics: networks in the critic's ensemble, of which the least counts.
      squash: continuous actions through tanh, instead of clipping.
      divergence: pearson_chi2 or total_variation.
    """
    divergences.dual(divergence)  # knows which are allowed
    return build_iql(
        env,
        widths=widths,
        activation=activation,
        layer_norm=layer_norm,
        num_critics=num_critics,
        squash=squash,
        value_loss=divergence,
    )


def build_odice(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = True,
    num_values: int = 2,
    squash: bool = False,
    gradient: str = "orthogonal",
    divergence: str = "pearson_chi2",
) -> Agent:
    """ODICE for vector observations.

    Args:
      widths: of the hidden layers of policy and values.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: normalize the layers of the values.
      num_values: networks in the value's ensemble, of which the least counts.
      squash: continuous actions through tanh, instead of clipping.
      gradient: orthogonal, semi or true.
      divergence: pearson_chi2, kl or soft_chi2.
    """
    allowed = [name for name in divergences.DIVERGENCES if name != "total_variation"]  # its conjugate is infinite
    if divergence not in allowed:
        raise ValueError(f"odice: divergence is {divergence!r}, allowed: {', '.join(allowed)}")
    value = networks.ensemble(_value(env, widths, activation, layer_norm), num_values)
    policy = _policy(env, widths, activation, (), squash)
    return odice(policy, value, gradient=gradient, divergence=divergences.DIVERGENCES[divergence]())


def build_recoil(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    squash: bool = False,
    value_loss: str = "gumbel",
) -> Agent:
    """ReCOIL for vector observations; learns from data whose expert rows are marked (`with_demonstrations`).

    Args:
      widths: of the hidden layers of policy, value and critics.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: normalize the layers of value and critics.
      num_critics: networks in the critic's ensemble, of which the least counts.
      squash: continuous actions through tanh, instead of clipping.
      value_loss: gumbel, expectile, pearson_chi2 or total_variation.
    """
    parts = _actor_critic(env, widths, activation, layer_norm, num_critics, squash)
    return recoil(*parts, value_loss=_maximizer(value_loss))


def _maximizer(name: str) -> divergences.ImplicitMaximizer:
    if name not in divergences.MAXIMIZERS:
        raise ValueError(f"value_loss is {name!r}, allowed: {', '.join(divergences.MAXIMIZERS)}")
    return divergences.MAXIMIZERS[name]()


def _actor_critic(env: Env, widths, activation, layer_norm, num_critics, squash) -> tuple[Policy, Network, Network]:
    """Policy, value and an ensemble of critics."""
    value = _value(env, widths, activation, layer_norm)
    critic = networks.ensemble(_critic(env, widths, activation, layer_norm), num_critics)
    return _policy(env, widths, activation, (), squash), value, critic


def _policy(env: Env, widths, activation, channels, squash) -> Policy:
    torso = default_torso(actor_space(env.observation_space), widths, activation, channels)
    return default_policy(env.observation_space, torso, distributions.for_space(env.action_space, squash=squash))


def _value(env: Env, widths, activation, layer_norm) -> Network:
    if isinstance(env.observation_space, Box) and len(env.observation_space.shape) == 3:
        raise ValueError(f"observations are images of {env.observation_space}, the default networks need vectors")
    torso = networks.mlp(widths, activation=activation, layer_norm=layer_norm)
    return networks.critic(networks.view(torso, vector_view(critic_space(env.observation_space))))


def _critic(env: Env, widths, activation, layer_norm) -> Network:
    """A critic of (observation, action): one vector of both, integers as one-hot, bounded actions in [-1, 1]."""
    if isinstance(env.action_space, Box) and env.action_space.bounded:
        return default_action_critic(env, widths, activation, layer_norm=layer_norm)
    views = [vector_view(space) for space in (critic_space(env.observation_space), env.action_space)]
    torso = networks.mlp(widths, activation=activation, layer_norm=layer_norm)

    def joined(inputs):
        return jnp.concatenate([view(x) for view, x in zip(views, inputs, strict=True)], -1)

    return networks.critic(networks.view(torso, joined))
