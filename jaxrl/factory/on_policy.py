"""Builders of on-policy agents."""

from __future__ import annotations

from jaxrl import distributions, networks
from jaxrl.agents.ppo import ppo
from jaxrl.combinators.normalize import normalize_observations as with_normalized_observations
from jaxrl.combinators.transform import with_transform
from jaxrl.factory.parts import default_policy, default_torso
from jaxrl.transforms import normalize_reward as reward_normalizer
from jaxrl.types import Agent, Env, Network


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

    def torso() -> Network:
        encoder = default_torso(env.observation_space, widths, activation, channels)
        return networks.sequential(encoder, networks.gru(memory_size)) if recurrent else encoder

    distribution = distributions.for_space(env.action_space, squash=squash)
    agent = ppo(
        default_policy(env.observation_space, torso(), distribution),
        networks.critic(torso()),
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        kl_early_stop=kl_early_stop,
    )
    if normalize_reward:
        agent = with_transform(agent, reward_normalizer())
    return with_normalized_observations(agent) if normalize_observation else agent
