"""Builders of off-policy actor-critics for continuous actions."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxrl import distributions, networks
from jaxrl.agents.awac import awac
from jaxrl.agents.cql import CQLHparams, conservative
from jaxrl.agents.sac import SACHparams, sac
from jaxrl.agents.td3 import td3
from jaxrl.factory.parts import actor_space, critic_space, default_torso, vector_view
from jaxrl.networks.core import map_outputs
from jaxrl.spaces import Box
from jaxrl.types import Agent, Array, Env, Network, Policy, PyTree


def build_sac(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    num_target_critics: int | None = None,
    policy_value: str = "min",
    policy_period: int = 1,
    backup_entropy: bool = True,
) -> Agent:
    """SAC with a squashed Gaussian policy; its target entropy is -dim(A) nats for actions scaled to [-1, 1].

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics (RLPD).
      num_critics: of which each has a target.
      num_target_critics: targets take the minimum over a random subset of so many (REDQ); None: over all.
      policy_value: what the policy climbs: the min (SAC) or the mean (REDQ) over the critics.
      policy_period: updates of the critics for each of the policy.
      backup_entropy: whether targets contain the entropy of the next action.
    """
    return sac(
        _squashed_policy("sac", env, widths, activation),
        default_action_critic(env, widths, activation, layer_norm=layer_norm),
        num_critics=num_critics,
        num_target_critics=num_target_critics,
        policy_value=policy_value,
        policy_period=policy_period,
        backup_entropy=backup_entropy,
        hparams=SACHparams(target_entropy=usual_target_entropy(env.action_space)),
    )


def build_redq(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 10,
    num_target_critics: int = 2,
    policy_period: int = 20,
    backup_entropy: bool = True,
) -> Agent:
    """REDQ, for a replay of 20 updates a step; with `layer_norm` and demonstrations in each batch it is RLPD.

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      num_critics: of which each has a target.
      num_target_critics: targets take the minimum over a random subset of so many.
      policy_period: updates of the critics for each of the policy: the updates a step.
      backup_entropy: whether targets contain the entropy of the next action.
    """
    return build_sac(
        env,
        widths=widths,
        activation=activation,
        layer_norm=layer_norm,
        num_critics=num_critics,
        num_target_critics=num_target_critics,
        policy_value="mean",
        policy_period=policy_period,
        backup_entropy=backup_entropy,
    )


def build_mdpo_off(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    reference_period: int = 1000,
) -> Agent:
    """Off-policy MDPO with hard values: SAC's critics without an entropy bonus, a policy near its own past.

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      reference_period: updates between one reference policy and the next.
    """
    hparams = SACHparams(initial_temperature=0.0, temperature_learning_rate=0.0)
    return sac(
        _squashed_policy("mdpo_off", env, widths, activation),
        default_action_critic(env, widths, activation),
        reference_period=reference_period,
        hparams=hparams,
    )


def build_cql(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_samples: int = 10,
    calibrated: bool = False,
    backup_entropy: bool = False,
) -> Agent:
    """CQL on SAC; calibrated it is Cal-QL, for data with returns.

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      num_samples: actions a state from each of three distributions that the regularizer compares with the data's.
      calibrated: do not push values below the data's returns (Cal-QL).
      backup_entropy: whether targets contain the entropy of the next action.
    """
    policy, space = _squashed_policy("cql", env, widths, activation), env.action_space
    regularizer = conservative(space.low, space.high, space.shape, num_samples=num_samples, calibrated=calibrated)
    target_entropy = usual_target_entropy(space)
    return sac(
        policy,
        default_action_critic(env, widths, activation, layer_norm=layer_norm),
        backup_entropy=backup_entropy,
        regularizer=regularizer,
        hparams=SACHparams(policy_learning_rate=1e-4, target_entropy=target_entropy, regularizer=CQLHparams()),
    )


def build_td3(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    policy_period: int = 2,
) -> Agent:
    """TD3; with hparams.bc_coefficient 0.4 and a dataset it is TD3+BC. Online it needs exploration around it.

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      num_critics: targets take their minimum.
      policy_period: updates of the critics for each of the policy and of the targets.
    """
    _check("td3", env)
    distribution = distributions.for_space(env.action_space)
    torso = default_torso(actor_space(env.observation_space), widths, activation, ())
    head = networks.dense(distribution.num_params - distribution.num_scale, scale=0.01)
    return td3(
        Policy(map_outputs(networks.sequential(torso, head), bounded_mode), distribution),
        default_action_critic(env, widths, activation, layer_norm=layer_norm),
        num_critics=num_critics,
        policy_period=policy_period,
    )


def build_ddpg(env: Env, *, widths: tuple[int, ...] = (256, 256), activation: str = "relu") -> Agent:
    """DDPG: TD3 with one critic, no noise in targets and no delay. Online it needs exploration around it.

    Args:
      widths: of the hidden layers of the policy and of the critic.
      activation: tanh, relu, elu, swish or gelu.
    """
    agent = build_td3(env, widths=widths, activation=activation, num_critics=1, policy_period=1)
    return agent._replace(hparams=agent.hparams._replace(target_noise=0.0))


def build_awac(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_critics: int = 2,
    squash: bool = False,
) -> Agent:
    """AWAC, by default with a Gaussian of free deviation whose actions are clipped, as in the paper.

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      num_critics: targets and advantages take their minimum.
      squash: actions through tanh, instead of clipping.
    """
    _check("awac", env)
    torso = default_torso(actor_space(env.observation_space), widths, activation, ())
    return awac(
        networks.policy(torso, distributions.for_space(env.action_space, squash=squash)),
        default_action_critic(env, widths, activation, layer_norm=layer_norm),
        num_critics=num_critics,
    )


def default_action_critic(env: Env, widths: tuple[int, ...], activation: str, *, layer_norm: bool = False) -> Network:
    """Values of `(observation, action)`: an MLP on both as one vector, actions scaled to [-1, 1] where bounded."""
    observed = vector_view(critic_space(env.observation_space))
    center, half_range = scale_of(env.action_space)
    rank = len(env.action_space.shape)

    def joined(inputs: tuple[PyTree, PyTree]):
        observation, action = inputs
        scaled = (action - center) / half_range
        return jnp.concatenate([observed(observation), scaled.reshape(*scaled.shape[: scaled.ndim - rank], -1)], -1)

    return networks.critic(networks.view(networks.mlp(widths, activation=activation, layer_norm=layer_norm), joined))


def usual_target_entropy(space: Box) -> float:
    """-dim(A) nats for actions scaled to [-1, 1], as a differential entropy of the actions as they are."""
    _, half_range = scale_of(space)
    return float(np.sum(np.log(half_range) - 1.0))


def _squashed_policy(name: str, env: Env, widths: tuple[int, ...], activation: str) -> Policy:
    _check(name, env)
    torso = default_torso(actor_space(env.observation_space), widths, activation, ())
    distribution = distributions.for_space(env.action_space, squash=True)
    return networks.policy(torso, distribution, state_dependent_scale=True)


def bounded_mode(mean: Array, observation: PyTree) -> Array:
    """Parameters of a Gaussian whose mode is tanh(mean), inside the box of raw actions; its scale is not used."""
    del observation
    return jnp.concatenate([jnp.tanh(mean), jnp.zeros_like(mean)], -1)


def _check(name: str, env: Env) -> None:
    """Raises ValueError for spaces that these agents have no default networks for."""
    space, observation = env.action_space, env.observation_space
    if not (isinstance(space, Box) and space.bounded and jnp.issubdtype(space.dtype, jnp.floating)):
        raise ValueError(f"{name}: the action space is {space}, needs a bounded Box of floats")
    if isinstance(observation, Box) and len(observation.shape) == 3:
        raise ValueError(f"{name}: observations are images of {observation}, the default networks need vectors")


def scale_of(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """Center and half range of a bounded Box."""
    low, high = (np.broadcast_to(np.asarray(bound, np.float32), space.shape) for bound in (space.low, space.high))
    return (low + high) / 2, (high - low) / 2
