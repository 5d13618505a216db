"""`as_team`: all agents of an environment as one, for learners of a joint action and of the team's reward."""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl.combinators.multi_agent.rows import axis_of_agents, every_agent
from jaxrl.combinators.observations import join, joined_space
from jaxrl.spaces import Box, Repeated
from jaxrl.types import Agent, Env, PyTree, Transition, is_last, weight

REWARDS = ("mean", "sum")


def as_team(agent: Agent, num_agents: int, *, team_reward: str = "mean") -> Agent:
    """A agents that are alike as one that acts for all: rewards, ends and weights [T, N, A] become the team's, [T, N].

    `agent` sees observations with leaves [N, A, ...] and a part "alive" [N, A], 0 for who is out (acting, all are 1),
    and gives actions [N, A, ...]; so it may be made for `team_env(env)`: with replay, exploration, n-step rows inside,
    all of them of the team. The team's episode ends with the last agent's: by truncation if anybody was truncated then.

    Args:
      team_reward: "mean" over those who are there, which is the reward where all are given the same; or "sum".

    Raises:
      ValueError: if num_agents < 2, or for an unknown `team_reward`; while tracing, if rewards are not [..., A].
    """
    if num_agents < 2:
        raise ValueError(f"as_team: num_agents is {num_agents}, must be >= 2")
    if team_reward not in REWARDS:
        raise ValueError(f"as_team: team_reward is {team_reward!r}, allowed: {', '.join(map(repr, REWARDS))}")

    def view(data: Transition) -> Transition:
        axis_of_agents(data, "as_team", num_agents)
        data = every_agent(data)
        there = weight(data)
        count = jnp.sum(there, -1)
        total = jnp.sum(jnp.where(there > 0, there * data.reward, 0.0), -1)
        ends = jnp.all(is_last(data) | (there == 0), -1)
        truncated = ends & jnp.any(data.truncated & (there > 0), -1)
        extras = {k: x for k, x in data.extras.items() if k not in ("num_steps", "weight")}
        if "num_steps" in data.extras:
            extras["num_steps"] = jnp.max(jnp.where(there > 0, data.extras["num_steps"], 0), -1)
        return data._replace(
            observation=join(data.observation, "alive", (there > 0).astype(jnp.float32)),
            next_observation=join(data.next_observation, "alive", ((there > 0) & ~data.terminated).astype(jnp.float32)),
            reward=total / jnp.maximum(count, 1e-6) if team_reward == "mean" else total,
            terminated=ends & ~truncated,
            truncated=truncated,
            extras=extras | {"weight": (count > 0).astype(jnp.float32)},
        )

    def seen(observation: PyTree) -> PyTree:
        axes = jax.tree.leaves(observation)[0].shape[:1]
        return join(observation, "alive", jnp.ones((*axes, num_agents)))

    def forward(act: Callable) -> Callable:
        return lambda key, state, memory, observation: act(key, state, memory, seen(observation))

    def learn(learn: Callable) -> Callable:
        return lambda key, state, data: learn(key, state, view(data))

    return agent._replace(
        init=lambda key, hparams, example: agent.init(key, hparams, view(example)),
        init_memory=lambda key, state, observation: agent.init_memory(key, state, seen(observation)),
        act=forward(agent.act),
        act_greedy=forward(agent.act_greedy),
        update=learn(agent.update),
        remember=lambda state, memory, step: agent.remember(state, memory, view(step)),
        observe=learn(agent.observe),
    )


def team_env(env: Env) -> Env:
    """What an agent inside of `as_team` is made for."""
    space = env.observation_space
    alive = Box(0.0, 1.0)
    return env._replace(observation_space=Repeated(joined_space(space.space, "alive", alive), space.num))
