"""Builders of agents that learn skills without a reward, on SAC in either of its forms."""

from __future__ import annotations

from jaxrl import networks
from jaxrl.combinators.skills import joined_space, with_skills
from jaxrl.factory.actor_critic import build_sac
from jaxrl.factory.parts import default_torso
from jaxrl.factory.value_based import build_discrete_sac
from jaxrl.rewards import SkillModel, diayn, metra, one_hot, sphere
from jaxrl.spaces import Box, Dict
from jaxrl.types import Agent, Env, Network


def build_metra(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_skills: int = 0,
    skill_size: int = 2,
    num_model_updates: int = 1,
) -> Agent:
    """METRA on SAC; on its discrete form where actions are.

    Args:
      widths: of the hidden layers of the policy, of each critic and of phi.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      num_skills: finitely many skills, each with a dimension of phi of its own; 0: directions of `skill_size`.
      skill_size: dimensions of phi and of skills, which then are directions.
      num_model_updates: steps of phi for each update of the policy.
    """
    skills = one_hot(num_skills) if num_skills else sphere(skill_size)
    phi = _head(env, widths, activation, num_skills or skill_size, 1.0)
    return _skilled("metra", env, metra(phi, skills), num_model_updates, widths, activation, layer_norm)


def build_diayn(
    env: Env,
    *,
    widths: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    layer_norm: bool = False,
    num_skills: int = 16,
    num_model_updates: int = 1,
) -> Agent:
    """DIAYN on SAC; on its discrete form where actions are.

    Args:
      widths: of the hidden layers of the policy, of each critic and of the discriminator.
      activation: tanh, relu, elu, swish or gelu.
      layer_norm: in the critics.
      num_skills: how many.
      num_model_updates: steps of the discriminator for each update of the policy.
    """
    model = diayn(_head(env, widths, activation, num_skills, 0.01), num_skills)
    return _skilled("diayn", env, model, num_model_updates, widths, activation, layer_norm)


def _head(env: Env, widths: tuple[int, ...], activation: str, size: int, scale: float) -> Network:
    torso = default_torso(env.observation_space, widths, activation, (16,))
    return networks.sequential(torso, networks.dense(size, scale=scale))


def _skilled(
    name: str, env: Env, model: SkillModel, num_model_updates: int, widths: tuple[int, ...], activation: str, norm: bool
) -> Agent:
    """`with_skills` around SAC for the actions of `env`."""
    space = env.observation_space
    if isinstance(space, Dict) and "privileged" in space.spaces:
        raise ValueError(f"{name}: the observation has a part 'privileged', which hides skills from critics")
    env = env._replace(observation_space=joined_space(space, model.skills.space))
    build = build_sac if isinstance(env.action_space, Box) else build_discrete_sac
    agent = build(env, widths=widths, activation=activation, layer_norm=norm)
    return with_skills(agent, model, num_model_updates=num_model_updates)
