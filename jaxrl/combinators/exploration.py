"""`with_exploration`: an agent whose actions are explored around; greedy acting stays as it is."""

from __future__ import annotations

from typing import NamedTuple

from jaxrl import counters, parallel
from jaxrl.combinators.lift import lift, salted
from jaxrl.counters import Count, advance
from jaxrl.exploration import Exploration
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, Wrapped


class WithExplorationState(NamedTuple):
    """State of `with_exploration`."""

    agent: PyTree
    hparams: PyTree
    num_steps: Count  # environment steps so far


class WithExplorationMemory(NamedTuple):
    """Memory of `with_exploration`."""

    agent: PyTree
    noise: PyTree


def with_exploration(agent: Agent, exploration: Exploration) -> Agent:
    """Explores around the actions of `act`. What `act` recorded is kept, and describes the agent's own action.

    Hyperparameters: `Wrapped(agent=the agent's, own=the exploration's)`.
    """

    def init(key: Array, hparams: Wrapped, example: Transition) -> WithExplorationState:
        agent_state = agent.init(key, hparams.agent, example)
        return WithExplorationState(agent_state, as_arrays(hparams.own), counters.zero())

    def init_memory(key: Array, state: WithExplorationState, observation: PyTree) -> WithExplorationMemory:
        memory = agent.init_memory(key, state.agent, observation)
        return WithExplorationMemory(memory, exploration.init_memory(salted(key), state.hparams, observation))

    def act(key: Array, state: WithExplorationState, memory: WithExplorationMemory, observation: PyTree):
        inner, action, extras = agent.act(key, state.agent, memory.agent, observation)
        elapsed = state.num_steps.rounded
        noise, action = exploration.apply(salted(key), state.hparams, elapsed, memory.noise, action, observation)
        return WithExplorationMemory(inner, noise), action, extras

    def act_greedy(key: Array, state: WithExplorationState, memory: WithExplorationMemory, observation: PyTree):
        inner, action, extras = agent.act_greedy(key, state.agent, memory.agent, observation)
        return memory._replace(agent=inner), action, extras

    def remember(state: WithExplorationState, memory: WithExplorationMemory, step: Transition):
        return memory._replace(agent=agent.remember(state.agent, memory.agent, step))

    def observe(key: Array, state: WithExplorationState, fresh: Transition) -> tuple[WithExplorationState, Metrics]:
        agent_state, metrics = agent.observe(key, state.agent, fresh)
        num_steps = advance(state.num_steps, parallel.rollout_steps(fresh.reward))
        return state._replace(agent=agent_state, num_steps=num_steps), metrics

    def update(key: Array, state: WithExplorationState, data: Transition) -> tuple[WithExplorationState, Metrics]:
        agent_state, metrics = agent.update(key, state.agent, data)
        return state._replace(agent=agent_state), metrics

    return lift(agent)._replace(
        init=init,
        init_memory=init_memory,
        act=act,
        act_greedy=act_greedy,
        remember=remember,
        observe=observe,
        update=update,
        hparams=Wrapped(agent.hparams, exploration.hparams),
    )
