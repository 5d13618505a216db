"""`shared`: one learner whose parameters all agents act with, and whose data is that of all of them."""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.combinators.multi_agent.rows import axis_of_agents, every_agent, fold, unfold
from jaxrl.combinators.observations import join
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition


def shared(agent: Agent, num_agents: int, *, identify: bool = False) -> Agent:
    """One set of parameters for A agents that are alike: `agent` takes each of them for an environment of its own.

    Data [T, N, A] are data [T, N * A] inside, so that any learner will do, recurrent or with replay inside; who is out
    has rows of weight 0. It is what `agent` learns by itself from batches that were put together by hand, to the bit.
    States and hyperparameters are the agent's; schedules count steps of environments. With PPO this is IPPO with shared
    parameters (de Witt et al. 2020, https://arxiv.org/abs/2011.09533).

    Args:
      agent: for the observations and actions of one of them.
      identify: whether each sees who it is, one-hot, as the part "agent" of its observation (`joined_space` with a Box
        [A] has the space).

    Raises:
      ValueError: if num_agents < 2; while tracing, if rewards are not [..., A].
    """
    if num_agents < 2:
        raise ValueError(f"shared: num_agents is {num_agents}, must be >= 2")

    def seen(observation: PyTree) -> PyTree:
        if not identify:
            return observation
        axes = jax.tree.leaves(observation)[0].shape[:1]
        return join(observation, "agent", jnp.broadcast_to(jnp.eye(num_agents), (*axes, num_agents, num_agents)))

    def view(data: Transition) -> Transition:
        """What the agent learns from."""
        axis, data = axis_of_agents(data, "shared", num_agents), every_agent(data)
        if identify:
            who = jnp.broadcast_to(jnp.eye(num_agents), (*data.reward.shape, num_agents))
            observation, then = (join(x, "agent", who) for x in (data.observation, data.next_observation))
            data = data._replace(observation=observation, next_observation=then)
        return fold(data, axis - 1)

    def init_memory(key: Array, state: PyTree, observation: PyTree) -> PyTree:
        return unfold(agent.init_memory(key, state, fold(seen(observation))), num_agents)

    def forward(act: Callable) -> Callable:
        return lambda key, state, memory, observation: unfold(
            act(key, state, fold(memory), fold(seen(observation))), num_agents
        )

    def remember(state: PyTree, memory: PyTree, step: Transition) -> PyTree:
        return unfold(agent.remember(state, fold(memory), view(step)), num_agents)

    def update(key: Array, state: PyTree, data: Transition) -> tuple[PyTree, Metrics]:
        with parallel.columns_of_agents(num_agents):
            state, metrics = agent.update(key, state, view(data))
        if "priority" in metrics:  # replay outside has one for all agents of a row
            metrics["priority"] = jnp.mean(unfold(metrics["priority"], num_agents), -1)
        return state, metrics

    def observe(key: Array, state: PyTree, fresh: Transition) -> tuple[PyTree, Metrics]:
        with parallel.columns_of_agents(num_agents):
            return agent.observe(key, state, view(fresh))

    return Agent(
        lambda key, hparams, example: agent.init(key, hparams, view(example)),
        init_memory,
        forward(agent.act),
        forward(agent.act_greedy),
        update,
        remember,
        observe,
        agent.actor,
        agent.hparams,
    )
