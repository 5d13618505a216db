"""Learners of one agent, lifted to environments that many act in; what learners of all see."""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl import networks
from jaxrl.combinators.multi_agent import as_team, independent, shared, teams
from jaxrl.combinators.observations import joined_space
from jaxrl.factory.parts import actor_space, default_torso, vector_view
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


def own_torso(
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
        Box(-INF, INF, (flat_size(space) + num,)), widths, activation, channels, layer_norm=layer_norm
    )
    return networks.view(torso, lambda x: identified(flat(get(x))))


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
    return Box(-INF, INF, (num_agents * flat_size(space),)), networks.side_by_side(vector_view(space))


def _without_alive(space: Dict, num_agents: int) -> tuple[Space, Callable[[PyTree], Array]]:
    others = {name: x for name, x in space.items if name != "alive"}
    if others.keys() != {"observation"}:
        return central_view(Dict(others), num_agents)
    whole, joint = central_view(others["observation"], num_agents)
    return whole, lambda x: joint(x["observation"])


def identified(x: Array) -> Array:
    """[..., A, D] -> [..., A, D + A]: with who each is, one-hot."""
    num = x.shape[-2]
    return jnp.concatenate([x, jnp.broadcast_to(jnp.eye(num), (*x.shape[:-1], num))], -1)


def flat_size(space: Space) -> int:
    return jax.eval_shape(lambda: vector_view(space)(zeros(space))).shape[-1]
