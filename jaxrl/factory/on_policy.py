"""Builders of on-policy agents."""

from __future__ import annotations

from jaxrl import distributions, networks
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.combinators.normalize import normalize_observations as with_normalized_observations
from jaxrl.combinators.props import props
from jaxrl.combinators.transform import with_transform
from jaxrl.factory.parts import actor_space, critic_space, default_policy, default_torso
from jaxrl.policy_losses import mirror_descent
from jaxrl.spaces import Space
from jaxrl.transforms import normalize_reward as reward_normalizer
from jaxrl.types import Agent, Env, Network, Policy


def build_ppo(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    channels: tuple[int, ...] = (16,),
    recurrent: bool = False,
    memory_size: int = 64,
    squash: bool = False,
    normalize_observation: bool = False,
    normalize_reward: bool = False,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    normalize_advantage: str = "minibatch",
    kl_early_stop: bool = False,
) -> Agent:
    """PPO with separate actor and critic networks.

    Args:
      widths: of the hidden layers of the actor and of the critic.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      recurrent: put a GRU after the hidden layers of both.
      memory_size: of the GRU.
      squash: continuous actions through tanh, instead of clipping.
      normalize_observation: standardise observations by running moments.
      normalize_reward: divide rewards by the running deviation of returns.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides num_envs * unroll_length, or num_envs where recurrent.
      normalize_advantage: over each minibatch, over the batch, or none.
      kl_early_stop: skip the rest of an update past hparams.target_kl.
    """

    policy, critic = _actor_and_critic(env, widths, activation, channels, squash, memory_size if recurrent else 0)
    agent = ppo(
        policy,
        critic,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        kl_early_stop=kl_early_stop,
    )
    return normalized(agent, normalize_observation, normalize_reward)


def build_mdpo(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    channels: tuple[int, ...] = (16,),
    recurrent: bool = False,
    memory_size: int = 64,
    squash: bool = False,
    normalize_observation: bool = False,
    normalize_reward: bool = False,
    num_epochs: int = 10,
    num_minibatches: int = 1,
    normalize_advantage: str = "batch",
) -> Agent:
    """On-policy MDPO: PPO with mirror descent in place of the clip, num_epochs * num_minibatches gradients a step.

    Args:
      widths: of the hidden layers of the actor and of the critic.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      recurrent: put a GRU after the hidden layers of both.
      memory_size: of the GRU.
      squash: continuous actions through tanh, instead of clipping.
      normalize_observation: standardise observations by running moments.
      normalize_reward: divide rewards by the running deviation of returns.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides num_envs * unroll_length, or num_envs where recurrent.
      normalize_advantage: over each minibatch, over the batch, or none.
    """
    policy, critic = _actor_and_critic(env, widths, activation, channels, squash, memory_size if recurrent else 0)
    loss = mirror_descent()
    agent = ppo(
        policy,
        critic,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        policy_loss=loss,
        hparams=PPOHparams(learning_rate=3e-4, entropy_coefficient=0.0, policy_loss=loss.hparams),
    )
    return normalized(agent, normalize_observation, normalize_reward)


def build_props(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    channels: tuple[int, ...] = (16,),
    squash: bool = False,
    normalize_observation: bool = False,
    normalize_reward: bool = False,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    normalize_advantage: str = "minibatch",
    kl_early_stop: bool = False,
    num_batches: int = 2,
    update_period: int = 4,
    refit_epochs: int = 16,
    refit_minibatches: int = 1,
    error_steps: int = 0,
) -> Agent:
    """PROPS around PPO: a second policy acts, and corrects the sampling error of the last rollouts.

    Args:
      widths: of the hidden layers of the actor and of the critic.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      squash: continuous actions through tanh, instead of clipping.
      normalize_observation: standardise observations by running moments.
      normalize_reward: divide rewards by the running deviation of returns.
      num_epochs: passes over the buffer.
      num_minibatches: per epoch; divides num_batches * update_period * num_envs * unroll_length.
      normalize_advantage: over each minibatch, over the batch, or none.
      kl_early_stop: skip the rest of an update past hparams.target_kl.
      num_batches: updates that each rollout takes part in.
      update_period: rollouts, each with a refit of the policy that acts, between updates of PPO.
      refit_epochs: passes over the buffer in each refit; 0 is PPO on a buffer.
      refit_minibatches: per pass; divides (num_batches * update_period - 1) * num_envs * unroll_length.
      error_steps: > 0: report the sampling error, from a fit of so many steps.
    """
    policy, critic = _actor_and_critic(env, widths, activation, channels, squash)
    agent = ppo(
        policy,
        critic,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        kl_early_stop=kl_early_stop,
    )
    agent = props(
        agent,
        policy,
        num_batches=num_batches,
        update_period=update_period,
        refit_epochs=refit_epochs,
        refit_minibatches=refit_minibatches,
        error_steps=error_steps,
    )
    return normalized(agent, normalize_observation, normalize_reward)


def _actor_and_critic(
    env: Env,
    widths: tuple[int, ...],
    activation: str,
    channels: tuple[int, ...],
    squash: bool,
    memory_size: int = 0,
) -> tuple[Policy, Network]:
    """Separate networks; with a memory_size a GRU after the hidden layers of both."""

    space = env.observation_space

    def torso(seen: Space) -> Network:
        encoder = default_torso(seen, widths, activation, channels)
        return networks.sequential(encoder, networks.gru(memory_size)) if memory_size else encoder

    distribution = distributions.for_space(env.action_space, squash=squash)
    policy = default_policy(space, torso(actor_space(space)), distribution)
    return policy, networks.critic(torso(critic_space(space)))


def normalized(agent: Agent, normalize_observation: bool, normalize_reward: bool) -> Agent:
    if normalize_reward:
        agent = with_transform(agent, reward_normalizer())
    return with_normalized_observations(agent) if normalize_observation else agent
