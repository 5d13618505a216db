"""Builders of agents made of agents."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxrl import distributions, networks
from jaxrl.agents.ppo import ppo
from jaxrl.combinators.hierarchy import gate_policy, hierarchical, option_space, options
from jaxrl.factory.parts import default_policy, default_torso
from jaxrl.spaces import Box, Dict, Discrete, Space
from jaxrl.types import Agent, Array, Env, Network, PyTree, Transition


def build_hierarchical(
    env: Env,
    *,
    manager: str = "ppo",
    worker: str = "ppo",
    period: int = 8,
    goal_entries: tuple[int, ...] = (),
    goal_range: float = 1.0,
    goal_radius: float = 0.0,
    goal_grid: int = 0,
    num_goals: int = 4,
    widths: tuple[int, ...] = (64, 64),
    num_epochs: int = 4,
    num_minibatches: int = 4,
    buffer_size: int = 100_000,
    min_buffer_size: int = 1_000,
    batch_size: int = 256,
    updates_per_step: int = 1,
) -> Agent:
    """A manager that chooses goals and a worker that pursues them, each an agent by name with its own replay.

    Args:
      manager: name of an agent, for what goals are: finitely many, or a box.
      worker: name of an agent, for the actions of the environment.
      period: steps after which the manager chooses again.
      goal_entries: entries of the observation, a vector, that goals are about: the manager says by how much they are to
        change, and the worker is paid the negative distance that is left. None: goals are `num_goals` signs, and the
        worker is paid what the environment pays.
      goal_range: how far goals reach, in each of these entries.
      goal_radius: distance at which a goal is reached, and the manager chooses again; 0: goals last for a period.
      goal_grid: with goal_entries: the manager chooses among so many values of each, instead of any; 0: any.
      num_goals: how many signs.
      widths: of the hidden layers of both.
      num_epochs: passes over each rollout, where a part learns from rollouts.
      num_minibatches: per epoch.
      buffer_size: transitions kept, where a part learns from replay.
      min_buffer_size: transitions before there is learning.
      batch_size: transitions a gradient step.
      updates_per_step: gradient steps for each rollout.
    """
    sizes = dict(
        widths=widths,
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        buffer_size=buffer_size,
        min_buffer_size=min_buffer_size,
        batch_size=batch_size,
        updates_per_step=updates_per_step,
    )
    choose = dict(entries=goal_entries, reach=goal_range, radius=goal_radius, grid=goal_grid, num=num_goals)
    space, goals, parts = env.observation_space, *_goals(env.observation_space, **choose)
    seen = Dict({"observation": space, "goal": Box(-jnp.inf, jnp.inf, (len(goal_entries) or num_goals,))})
    return hierarchical(
        _part("manager", manager, env._replace(action_space=goals), sizes),
        _part("worker", worker, env._replace(observation_space=seen), sizes),
        goal_space=goals,
        period=period,
        **parts,
    )


def build_option_critic(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    num_options: int = 4,
    num_epochs: int = 4,
    num_minibatches: int = 4,
) -> Agent:
    """Options with learned policies and terminations: PPO for the gate, and PPO for the options.

    Args:
      widths: of the hidden layers of each network.
      activation: tanh, relu, elu, swish or gelu.
      num_options: how many.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides num_envs * unroll_length.
    """
    seen = option_space(env.observation_space, num_options)
    sizes = dict(num_epochs=num_epochs, num_minibatches=num_minibatches)

    def torso(space: Space) -> Network:
        return default_torso(space, widths, activation, (16,))

    gate = ppo(gate_policy(torso(env.observation_space), num_options), networks.critic(torso(seen)), **sizes)
    policy = default_policy(seen, torso(seen), distributions.for_space(env.action_space))
    return options(ppo(policy, networks.critic(torso(seen)), **sizes), gate, num_options)


def _part(role: str, name: str, env: Env, sizes: dict[str, Any]) -> Agent:
    """An agent by name, with the sizes that it has, and its own hyperparameters."""
    from jaxrl.factory import AGENTS, make_agent, static_arguments

    if name not in AGENTS or AGENTS[name].learner in (build_hierarchical, build_option_critic):
        raise ValueError(f"hierarchical: {role} is {name!r}, must be an agent of one level, such as ppo, sac or dqn")
    if AGENTS[name].online is None:
        raise ValueError(f"hierarchical: {role} is {name!r}, which learns from a dataset alone")
    allowed = static_arguments(AGENTS[name])
    agent, hparams = make_agent(name, env, **{k: v for k, v in sizes.items() if k in allowed})
    return agent._replace(hparams=hparams)


def _goals(
    space: Space, entries: tuple[int, ...], reach: float, radius: float, grid: int, num: int
) -> tuple[Space, dict[str, Any]]:
    """The space of goals, and what `hierarchical` is to do with them."""
    if not entries:

        def sign(observation: PyTree, goal: Array) -> dict[str, PyTree]:
            return {"observation": observation, "goal": jnp.eye(num)[goal]}

        return Discrete(num), dict(embed=sign)
    if not (isinstance(space, Box) and len(space.shape) == 1 and max(entries) < space.shape[0] and min(entries) >= 0):
        raise ValueError(
            f"hierarchical: goal_entries is {entries}, must be entries of a vector; observations are {space}"
        )
    if grid == 1 or grid < 0:
        raise ValueError(f"hierarchical: goal_grid is {grid}, must be 0 or >= 2")
    size, place = len(entries), lambda observation: observation[..., jnp.array(entries)]
    goals = Discrete(grid**size) if grid else Box(-reach, reach, (size,))

    def resolve(start: Array, action: Array) -> Array:
        if grid:
            digits = jnp.stack([action // grid**i % grid for i in range(size)], -1)
            action = reach * (2.0 * digits / (grid - 1) - 1.0)
        return place(start) + action

    def distance(observation: Array, goal: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(place(observation) - goal), -1) + 1e-12)

    def embed(observation: Array, goal: Array) -> dict[str, Array]:
        return {"observation": observation, "goal": goal - place(observation)}

    def paid(step: Transition, goal: Array) -> Array:
        return -distance(step.next_observation, goal)

    stop = (lambda observation, goal: distance(observation, goal) < radius) if radius > 0 else None
    return goals, dict(embed=embed, resolve=resolve, intrinsic=paid, stop=stop)
