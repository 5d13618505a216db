"""Builders of learners of all agents together, for agents that are alike: MAPPO, VDN and QMIX, MADDPG, COMA."""

from __future__ import annotations

from jaxrl import distributions, networks
from jaxrl.action_values import ActionValues, additive, mixed, monotonic
from jaxrl.agents.coma import coma
from jaxrl.agents.dqn import dqn
from jaxrl.agents.ppo import ppo
from jaxrl.agents.r2d2 import r2d2
from jaxrl.agents.td3 import td3
from jaxrl.bayesian_network import bayesian_network, density, mask_params
from jaxrl.factory.actor_critic import bounded_mode, scale_of
from jaxrl.factory.multi_agent import central_view, own_torso, require_alike
from jaxrl.factory.on_policy import normalized
from jaxrl.factory.parts import default_policy, default_torso, vector_view
from jaxrl.factory.value_based import default_action_values
from jaxrl.networks.core import map_outputs
from jaxrl.policy_losses import PolicyLoss, clipped, sparse
from jaxrl.spaces import Dict, Discrete, Space
from jaxrl.types import Agent, Array, Env, Network, Policy


def build_mappo(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    channels: tuple[int, ...] = (16,),
    recurrent: bool = False,
    memory_size: int = 64,
    squash: bool = False,
    identify: bool = False,
    normalize_observation: bool = False,
    normalize_reward: bool = False,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    normalize_advantage: str = "minibatch",
    kl_early_stop: bool = False,
    correlated: bool = False,
    message_size: int = 16,
    apart: bool = False,
) -> Agent:
    """PPO for agents that are alike, who share a policy of what each sees; the critic sees all of it.

    Args:
      widths: of the hidden layers of the actor and of the critic.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      recurrent: put a GRU after the hidden layers of both.
      memory_size: of the GRU.
      squash: continuous actions through tanh, instead of clipping.
      identify: whether the policy sees whose it is, one-hot.
      normalize_observation: standardise observations by running moments.
      normalize_reward: divide rewards by the running deviation of returns.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides num_envs * unroll_length, or num_envs where recurrent.
      normalize_advantage: over each minibatch, over the batch, or none.
      kl_early_stop: skip the rest of an update past hparams.target_kl.
      correlated: whether agents see what some of the others do before they act, in a graph that is learned.
      message_size: of what an agent tells with its action, where correlated.
      apart: whether what was learned so acts without edges, for itself.
    """
    require_alike("mappo", env)
    num, space, actions = env.action_space.num, env.observation_space.space, env.action_space.space
    whole, joint = central_view(space, num)

    def remembering(torso: Network) -> Network:
        return networks.sequential(torso, networks.gru(memory_size)) if recurrent else torso

    own = remembering(own_torso("mappo", env, identify, widths, activation, channels))
    if correlated:
        policy, loss = _correlated_policy(space, own, actions, num, message_size, apart)
    else:
        policy, loss = default_policy(space, own, distributions.for_space(actions, squash=squash)), clipped()
    agent = ppo(
        policy,
        networks.central_critic(remembering(default_torso(whole, widths, activation, channels)), num, joint),
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        kl_early_stop=kl_early_stop,
        policy_loss=loss,
    )
    return normalized(agent, normalize_observation, normalize_reward)


def build_mixed_dqn(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    layer_norm: bool = False,
    identify: bool = False,
    mixer: str = "monotonic",
    mixing_size: int = 32,
    dueling: bool = False,
    double: bool = True,
    target_period: int = 1,
) -> Agent:
    """Double Q-learning of the team's value, which is made of those of agents that are alike and share a network.

    Args:
      widths: of the hidden layers.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      layer_norm: normalise the layers before their activation.
      identify: whether the network sees whose value it is, one-hot.
      mixer: additive (VDN), or monotonic with weights of all observations (QMIX).
      mixing_size: of the hidden layer of a monotonic mixer.
      dueling: value and advantage streams.
      double: choose the next actions by the learning network.
      target_period: updates between two of the target.
    """
    torso = own_torso("a mixer", env, identify, widths, activation, channels, layer_norm)
    values = _mixed_values(env, torso, mixer, mixing_size, dueling)
    return dqn(values, double=double, target_period=target_period)


def build_mixed_r2d2(
    env: Env,
    *,
    widths: tuple[int, ...] = (64,),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    layer_norm: bool = False,
    memory_size: int = 64,
    identify: bool = False,
    mixer: str = "monotonic",
    mixing_size: int = 32,
    dueling: bool = False,
    td_steps: int = 1,
    burn_in: int = 0,
    target_period: int = 1,
) -> Agent:
    """The same of a recurrent network, on sequences.

    Args:
      widths: of the hidden layers before the GRU.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      layer_norm: normalise the hidden layers before their activation.
      memory_size: of the GRU.
      identify: whether the network sees whose value it is, one-hot.
      mixer: additive (VDN), or monotonic with weights of all observations (QMIX).
      mixing_size: of the hidden layer of a monotonic mixer.
      dueling: value and advantage streams, each reading one half of the memory.
      td_steps: rewards in a target, within its sequence.
      burn_in: rows at the start of a sequence that only refresh the memory.
      target_period: updates between two of the target.
    """
    torso = own_torso("a mixer", env, identify, widths, activation, channels, layer_norm)
    values = _mixed_values(env, networks.sequential(torso, networks.gru(memory_size)), mixer, mixing_size, dueling)
    return r2d2(values, num_steps=td_steps, burn_in=burn_in, target_period=target_period)


def build_maddpg(
    env: Env,
    *,
    widths: tuple[int, ...] = (128, 128),
    activation: str = "relu",
    layer_norm: bool = False,
    identify: bool = False,
    num_critics: int = 1,
    policy_period: int = 1,
) -> Agent:
    """DDPG of agents that are alike: a policy of what each sees, critics of what all see and do.

    With two critics and a policy_period of 2 it is MATD3. Online it needs exploration around it.

    Args:
      widths: of the hidden layers of the policy and of each critic.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      identify: whether the policy sees whose it is, one-hot.
      num_critics: targets take their minimum.
      policy_period: updates of the critics for each of the policy and of the targets.
    """
    torso = own_torso("maddpg", env, identify, widths, activation, ())
    actions, num = env.action_space.space, env.action_space.num
    distribution = distributions.for_space(actions)
    if not distribution.num_scale:
        raise ValueError(f"maddpg: needs continuous actions; they are {actions}")
    head = networks.dense(distribution.num_params - distribution.num_scale, scale=0.01)
    (whole, joint), (center, half_range) = central_view(env.observation_space.space, num), scale_of(actions)
    del whole

    def scaled(action: Array) -> Array:
        return ((action - center) / half_range).reshape(*action.shape[: action.ndim - len(actions.shape)], -1)

    critic = networks.central_action_critic(
        networks.mlp(widths, activation=activation, layer_norm=layer_norm), num, joint, scaled
    )
    policy = Policy(map_outputs(networks.sequential(torso, head), bounded_mode), distribution)
    agent = td3(policy, critic, num_critics=num_critics, policy_period=policy_period)
    return agent._replace(hparams=agent.hparams._replace(target_noise=0.2 if num_critics > 1 else 0.0))


def build_coma(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    channels: tuple[int, ...] = (16,),
    recurrent: bool = False,
    memory_size: int = 64,
    identify: bool = False,
    normalize_observation: bool = False,
    normalize_reward: bool = False,
    num_epochs: int = 4,
    num_minibatches: int = 4,
) -> Agent:
    """COMA for agents that are alike: a policy of what each sees, a critic of what all see and the others do.

    Args:
      widths: of the hidden layers of the policy and of the critic.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the policy's convolutions before them, where observations are images [H, W, C].
      recurrent: put a GRU after the hidden layers of the policy.
      memory_size: of the GRU.
      identify: whether the policy sees whose it is, one-hot.
      normalize_observation: standardise observations by running moments.
      normalize_reward: divide rewards by the running deviation of returns.
      num_epochs: passes of the critic over each rollout; the policy takes one step.
      num_minibatches: of the critic, per epoch; divides num_envs * unroll_length.
    """
    torso = own_torso("coma", env, identify, widths, activation, channels)
    space, actions, num = env.observation_space.space, env.action_space.space, env.action_space.num
    if not isinstance(actions, Discrete):
        raise ValueError(f"coma: needs finitely many actions; they are {actions}")
    whole, joint = central_view(space, num)
    flat = vector_view(whole)
    critic = networks.counterfactual_critic(
        networks.mlp(widths, activation=activation), num, actions.n, lambda x: flat(joint(x))
    )
    own = networks.sequential(torso, networks.gru(memory_size)) if recurrent else torso
    policy = default_policy(space, own, distributions.for_space(actions))
    agent = coma(policy, critic, num_epochs=num_epochs, num_minibatches=num_minibatches)
    return normalized(agent, normalize_observation, normalize_reward)


def _mixed_values(env: Env, torso: Network, mixer: str, size: int, dueling: bool) -> ActionValues:
    space, actions, num = env.observation_space.space, env.action_space.space, env.action_space.num
    mixers = {"additive": additive, "monotonic": lambda: monotonic(central_view(space, num)[1], num, size=size)}
    if mixer not in mixers:
        raise ValueError(f"mixer is {mixer!r}, allowed: {', '.join(map(repr, mixers))}")
    return mixed(default_action_values(torso, actions, "scalar", dueling=dueling), mixers[mixer]())


def _correlated_policy(
    space: Space, torso: Network, actions: Space, num: int, size: int, apart: bool
) -> tuple[Policy, PolicyLoss]:
    if not isinstance(actions, Discrete):
        raise ValueError(f"correlated: needs Discrete actions; they are {actions}")
    policy = networks.policy(torso, bayesian_network(num, actions.n, size=size, edges=not apart, dtype=actions.dtype))
    if isinstance(space, Dict) and "action_mask" in space.spaces:
        masked = map_outputs(policy.network, lambda params, seen: mask_params(params, seen["action_mask"]))
        policy = policy._replace(network=masked)
    return policy, sparse(lambda params: density(params, actions.n, size))
