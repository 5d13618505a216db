"""`teams`: unlike agents, and groups of them that share parameters."""

from __future__ import annotations

from typing import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxrl.combinators.hierarchy.segments import prefixed
from jaxrl.combinators.lift import salted
from jaxrl.combinators.multi_agent.rows import every_agent
from jaxrl.loop import merge_metrics
from jaxrl.spaces import Space, Tuple
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition

SALT = 0x300
Members = int | tuple[int, ...]


def teams(parts: Sequence[tuple[Agent, Members]], action_space: Space) -> Agent:
    """Each agent of an environment is played by one of several learners.

    States, memories, hyperparameters are tuples, one entry a part; metrics are under "0/", "1/", ... Parts of all
    kinds mix: `teams([(ppo_of_speaker, 0), (shared(ppo, 2), (1, 2))], env.action_space)`.

    Args:
      parts: (learner, who it plays). For a number i the learner sees the data of agent i without an axis of agents; for
        numbers (i, j, ...) those of agents that are alike, with one: `shared`, `independent`, or what takes both.
      action_space: of the environment: a `Tuple` where actions are one an agent, else a `Repeated`.

    Raises:
      ValueError: if an agent is played by nobody, or twice.
    """
    members = [(i,) if isinstance(i, int) else tuple(i) for _, i in parts]
    alone = [isinstance(i, int) for _, i in parts]
    agents = [agent for agent, _ in parts]
    order = [i for group in members for i in group]
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"teams: plays agents {sorted(order)}, must play 0 to {len(order) - 1}, each once")
    place = [order.index(i) for i in range(len(order))]
    several = isinstance(action_space, Tuple)

    def keys(key: Array) -> list[Array]:
        return [key, *(salted(key, SALT + i) for i in range(1, len(agents)))]

    def take(tree: PyTree, part: int, axis: int) -> PyTree:
        """What is of a part's agents, in arrays with an axis of agents or in tuples with an entry an agent."""
        who = members[part]
        if type(tree) is tuple:
            if alone[part]:
                return tree[who[0]]
            return jax.tree.map(lambda *x: jnp.stack(x, axis), *(tree[i] for i in who))
        if alone[part]:
            return jax.tree.map(lambda x: jnp.take(x, who[0], axis=axis), tree)
        return jax.tree.map(lambda x: jnp.take(x, jnp.array(who), axis=axis), tree)

    def view(data: Transition, part: int) -> Transition:
        """What a part learns from."""
        data, axis = every_agent(data), data.reward.ndim - 1
        others = {name: take(x, part, axis) for name, x in data.extras.items() if name != "teams"}
        recorded = data.extras["teams"][part] if "teams" in data.extras else {}
        fields = {name: take(getattr(data, name), part, axis) for name in Transition._fields if name != "extras"}
        return Transition(**fields, extras=merge_metrics(others, recorded))

    def put(actions: Sequence[PyTree]) -> PyTree:
        """Actions of the parts as those of the environment."""
        rows = [
            jax.tree.map(lambda x, i=i: x if alone[part] else x[:, i], action)
            for part, action in enumerate(actions)
            for i in range(len(members[part]))
        ]
        rows = [rows[i] for i in place]
        return tuple(rows) if several else jax.tree.map(lambda *x: jnp.stack(x, 1), *rows)

    def init(key: Array, hparams: tuple, example: Transition) -> tuple:
        each = enumerate(zip(agents, keys(key), hparams))
        return tuple(agent.init(k, hp, view(example, i)) for i, (agent, k, hp) in each)

    def init_memory(key: Array, state: tuple, observation: PyTree) -> tuple:
        each = enumerate(zip(agents, keys(key), state))
        return tuple(agent.init_memory(k, s, take(observation, i, 1)) for i, (agent, k, s) in each)

    def forward(name: str) -> Callable:
        def acting(key: Array, state: tuple, memory: tuple, observation: PyTree):
            each = enumerate(zip(agents, keys(key), state, memory))
            done = [getattr(agent, name)(k, s, m, take(observation, i, 1)) for i, (agent, k, s, m) in each]
            then, actions, extras = zip(*done)
            return then, put(actions), {"teams": extras}

        return acting

    def remember(state: tuple, memory: tuple, step: Transition) -> tuple:
        each = enumerate(zip(agents, state, memory))
        return tuple(agent.remember(s, m, view(step, i)) for i, (agent, s, m) in each)

    def learn(name: str) -> Callable:
        def learning(key: Array, state: tuple, data: Transition) -> tuple[tuple, Metrics]:
            each = enumerate(zip(agents, keys(key), state))
            states, metrics = zip(*(getattr(agent, name)(k, s, view(data, i)) for i, (agent, k, s) in each))
            # Replay outside has one priority for all agents of a row.
            found = [x["priority"] for x in metrics if "priority" in x]
            priority = {"priority": sum(found) / len(found)} if found else {}
            others = [{k: x for k, x in part.items() if k != "priority"} for part in metrics]
            return states, merge_metrics(*(prefixed(str(i), x) for i, x in enumerate(others)), priority)

        return learning

    return Agent(
        init,
        init_memory,
        forward("act"),
        forward("act_greedy"),
        learn("update"),
        remember,
        learn("observe"),
        lambda state: tuple(agent.actor(s) for agent, s in zip(agents, state)),
        tuple(agent.hparams for agent in agents),
    )
