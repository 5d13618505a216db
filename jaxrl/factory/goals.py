"""Builders of agents that learn from data what goals it could have had."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrl import distributions, networks
from jaxrl.agents.hiql import hiql
from jaxrl.combinators.transform import with_transform
from jaxrl.data.goals import option_targets, relabel_goals, subgoals
from jaxrl.factory.parts import vector_view
from jaxrl.spaces import Dict, Space
from jaxrl.transforms import chain
from jaxrl.types import Agent, Env, Network


def build_hiql(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = True,
    num_values: int = 2,
    representation_size: int = 10,
    option_value: bool = False,
    squash: bool = False,
) -> Agent:
    """HIQL or OTA, for observations with "achieved_goal" and "desired_goal" that are vectors.

    Args:
      widths: of the hidden layers of policies, values and the representation of goals.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: normalize the layers of values and representation.
      num_values: networks in the ensemble of each value.
      representation_size: entries of a subgoal, as the high level names it to the low one.
      option_value: OTA: the high level has a value of its own, which counts options instead of steps.
      squash: continuous actions through tanh, instead of clipping.
    """
    whole = _goal_space(env.observation_space)
    state = Dict({name: inner for name, inner in whole.items if name != "desired_goal"})
    low = distributions.for_space(env.action_space, squash=squash)
    high = distributions.diagonal_gaussian((representation_size,))

    def torso(layer_norm: bool) -> Network:
        return networks.mlp(widths, activation=activation, layer_norm=layer_norm)

    def of_subgoal(network: Network) -> Network:
        """Of a state and the representation of a goal."""
        view = vector_view(state)
        return networks.view(network, lambda inputs: jnp.concatenate([view(inputs[0]), inputs[1]], -1))

    def value() -> Network:
        return networks.ensemble(networks.critic(of_subgoal(torso(layer_norm))), num_values)

    goal_torso = networks.view(torso(layer_norm), vector_view(whole))
    return hiql(
        networks.policy(networks.view(torso(False), vector_view(whole)), high),
        networks.policy(of_subgoal(torso(False)), low),
        networks.sequential(goal_torso, networks.dense(representation_size)),
        value(),
        value() if option_value else None,
    )


def relabeled(agent: Agent, env: Env) -> Agent:
    """The learner, with goals that are drawn from the data."""
    _goal_space(env.observation_space)
    return with_transform(agent, relabel_goals())


def relabeled_in_levels(agent: Agent, env: Env, *, option_value: bool = False) -> Agent:
    """The learner, with goals and subgoals that are drawn from the data.

    Args:
      option_value: OTA: the high level has a value of its own, which counts options instead of steps.
    """
    _goal_space(env.observation_space)
    return with_transform(agent, chain(relabel_goals(), subgoals(), *[option_targets()] * option_value))


def _goal_space(space: Space) -> Dict:
    if isinstance(space, Dict) and {"achieved_goal", "desired_goal"} <= space.spaces.keys():
        return space
    raise ValueError(f"observations are {space}, need a Dict with 'achieved_goal' and 'desired_goal'")
