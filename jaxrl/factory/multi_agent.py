"""Agents for environments that many act in: learners of one, lifted, and learners of all together."""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl import distributions, networks
from jaxrl.action_values import ActionValues, additive, mixed, monotonic
from jaxrl.agents.dqn import dqn
from jaxrl.agents.ppo import ppo
from jaxrl.agents.r2d2 import r2d2
from jaxrl.combinators.multi_agent import as_team, independent, shared, teams
from jaxrl.combinators.observations import joined_space
from jaxrl.factory.on_policy import normalized
from jaxrl.factory.parts import actor_space, default_policy, default_torso, vector_view
from jaxrl.factory.value_based import default_action_values
from jaxrl.spaces import Box, Dict, Repeated, Space, Tuple, zeros
from jaxrl.types import Agent, Array, Env, Network, PyTree

INF = float("inf")


def has_many(env: Env) -> bool:
    """Whether many agents act in an environment: actions are `Repeated`, or a `Tuple` with an entry an agent."""
    return isinstance(env.action_space, (Repeated, Tuple))


def lifted(env: Env, make: Callable[[Env], Agent], *, sharing: str = "shared", identify: bool = False) -> Agent:
    """A learner of one agent for all agents of an environment; where they are unlike, one for each kind.

    Args:
      make: (environment of one agent) -> learner; only its spaces are looked at.
      sharing: parameters, among agents that are alike: shared, or independent for a learner each.
      identify: whether agents that share parameters see who they are, one-hot.
    """
    if sharing not in ("shared", "independent"):
        raise ValueError(f"sharing is {sharing!r}, allowed: 'shared', 'independent'")

    def of_kind(observation_space: Space, action_space: Space, num: int) -> Agent:
        if num > 1 and identify and sharing == "shared":
            observation_space = joined_space(observation_space, "agent", Box(0.0, 1.0, (num,)))
        agent = make(env._replace(observation_space=observation_space, action_space=action_space))
        if num == 1:
            return agent
        return shared(agent, num, identify=identify) if sharing == "shared" else independent(agent, num)

    if isinstance(env.action_space, Repeated):
        return of_kind(env.observation_space.space, env.action_space.space, env.action_space.num)
    kinds: dict[tuple[Space, Space], list[int]] = {}
    for i, spaces in enumerate(zip(env.observation_space.spaces, env.action_space.spaces)):
        kinds.setdefault(spaces, []).append(i)
    parts = [(of_kind(*kind, len(who)), tuple(who) if len(who) > 1 else who[0]) for kind, who in kinds.items()]
    return teams(parts, env.action_space)


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
    """
    num, space = env.action_space.num, env.observation_space.space
    whole, joint = central_view(space, num)

    def remembering(torso: Network) -> Network:
        return networks.sequential(torso, networks.gru(memory_size)) if recurrent else torso

    own = remembering(_own_torso("mappo", env, identify, widths, activation, channels))
    agent = ppo(
        default_policy(space, own, distributions.for_space(env.action_space.space, squash=squash)),
        networks.central_critic(remembering(default_torso(whole, widths, activation, channels)), num, joint),
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        kl_early_stop=kl_early_stop,
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
    torso = _own_torso("a mixer", env, identify, widths, activation, channels, layer_norm)
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
    torso = _own_torso("a mixer", env, identify, widths, activation, channels, layer_norm)
    values = _mixed_values(env, networks.sequential(torso, networks.gru(memory_size)), mixer, mixing_size, dueling)
    return r2d2(values, num_steps=td_steps, burn_in=burn_in, target_period=target_period)


def for_team(agent: Agent, env: Env, *, team_reward: str = "mean") -> Agent:
    """A learner of the team's value, for the agents of an environment.

    Args:
      team_reward: mean of the agents' rewards (their reward, where all get the same), or their sum.
    """
    return as_team(agent, env.action_space.num, team_reward=team_reward)


def require_alike(name: str, env: Env) -> None:
    """Raises ValueError if agents are unlike, or there is one."""
    if not isinstance(env.action_space, Repeated):
        raise ValueError(f"{name} needs agents that are alike, whose actions are Repeated; they are {env.action_space}")


def _mixed_values(env: Env, torso: Network, mixer: str, size: int, dueling: bool) -> ActionValues:
    space, actions, num = env.observation_space.space, env.action_space.space, env.action_space.num
    mixers = {"additive": additive, "monotonic": lambda: monotonic(central_view(space, num)[1], num, size=size)}
    if mixer not in mixers:
        raise ValueError(f"mixer is {mixer!r}, allowed: {', '.join(map(repr, mixers))}")
    return mixed(default_action_values(torso, actions, "scalar", dueling=dueling), mixers[mixer]())


def _own_torso(
    name: str,
    env: Env,
    identify: bool,
    widths: tuple[int, ...],
    activation: str,
    channels: tuple[int, ...],
    layer_norm: bool = False,
) -> Network:
    """A torso for what each agent sees, and who it is if asked; "alive" is for mixers."""
    require_alike(name, env)
    num, space = env.action_space.num, actor_space(env.observation_space.space)
    own = {k: x for k, x in space.items if k != "alive"} if isinstance(space, Dict) else {}
    if own.keys() == {"observation"}:
        space = own["observation"]
        get = lambda x: x["observation"]  # noqa: E731
    else:
        space = Dict(own) if own else space
        get = lambda x: x  # noqa: E731
    if not identify:
        return networks.view(default_torso(space, widths, activation, channels, layer_norm=layer_norm), get)
    flat = vector_view(space)
    torso = default_torso(
        Box(-INF, INF, (_flat_size(space) + num,)), widths, activation, channels, layer_norm=layer_norm
    )
    return networks.view(torso, lambda x: _identified(flat(get(x))))


def central_view(space: Space, num_agents: int) -> tuple[Space, Callable[[PyTree], Array]]:
    """What a critic of all agents sees, and how it is made of the observations [..., A, obs], each of `space`.

    The global state, where each has it as a part "privileged"; images behind each other as channels; or one vector.
    """
    if isinstance(space, Dict) and "alive" in space.spaces:
        return _without_alive(space, num_agents)
    if isinstance(space, Dict) and "privileged" in space.spaces:
        state = space.spaces["privileged"]
        rank = len(state.shape)
        return state, lambda x: jnp.take(x["privileged"], 0, axis=x["privileged"].ndim - rank - 1)
    if isinstance(space, Box) and len(space.shape) == 3:
        height, width, depth = space.shape

        def channels(x: Array) -> Array:
            x = jnp.moveaxis(x, -4, -2)
            return x.reshape(*x.shape[:-2], num_agents * depth)

        return Box(-INF, INF, (height, width, num_agents * depth), "float32"), channels
    return Box(-INF, INF, (num_agents * _flat_size(space),)), networks.side_by_side(vector_view(space))


def _without_alive(space: Dict, num_agents: int) -> tuple[Space, Callable[[PyTree], Array]]:
    others = {name: x for name, x in space.items if name != "alive"}
    if others.keys() != {"observation"}:
        return central_view(Dict(others), num_agents)
    whole, joint = central_view(others["observation"], num_agents)
    return whole, lambda x: joint(x["observation"])


def _identified(x: Array) -> Array:
    """[..., A, D] -> [..., A, D + A]: with who each is, one-hot."""
    num = x.shape[-2]
    return jnp.concatenate([x, jnp.broadcast_to(jnp.eye(num), (*x.shape[:-1], num))], -1)


def _flat_size(space: Space) -> int:
    return jax.eval_shape(lambda: vector_view(space)(zeros(space))).shape[-1]
