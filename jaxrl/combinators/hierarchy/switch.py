"""`switch`: several agents, one of which acts: an option in the observation says who; `scripted`: a function as one."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import jax
import jax.numpy as jnp

from jaxrl.combinators.hierarchy.segments import prefixed
from jaxrl.combinators.lift import salted
from jaxrl.loop import merge_metrics
from jaxrl.tree import select
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, no_memory, nothing, weight

SALT = 0x200


def switch(agents: Sequence[Agent]) -> Agent:
    """K agents as one, for observations {"observation", "option": [..., K], one-hot}: the option's agent acts.

    Each sees the observation alone, and learns from the rows of its own option; where the next row is another's, its
    episode is truncated. States, memories, hyperparameters are tuples; metrics are under "0/", "1/", ...

    Raises:
      ValueError: without agents.
    """
    if not agents:
        raise ValueError("switch: needs at least one agent")

    def keys(key: Array) -> list[Array]:
        return [key, *(salted(key, SALT + i) for i in range(1, len(agents)))]

    def view(data: Transition, i: int) -> Transition:
        """What agent i learns from."""
        now, then = data.observation, data.next_observation
        recorded = data.extras["agents"][i] if "agents" in data.extras else {}
        others = {name: x for name, x in data.extras.items() if name != "agents"}
        return data._replace(
            observation=now["observation"],
            next_observation=then["observation"],
            truncated=data.truncated | (then["option"][..., i] == 0),
            extras={**others, **recorded, "weight": weight(data) * now["option"][..., i]},
        )

    def init(key: Array, hparams: tuple, example: Transition) -> tuple:
        each = enumerate(zip(agents, keys(key), hparams))
        return tuple(agent.init(k, hp, view(example, i)) for i, (agent, k, hp) in each)

    def init_memory(key: Array, state: tuple, observation: PyTree) -> tuple:
        seen = observation["observation"]
        return tuple(agent.init_memory(k, s, seen) for agent, k, s in zip(agents, keys(key), state))

    def forward(name: str) -> Callable:
        def acting(key: Array, state: tuple, memory: tuple, observation: PyTree):
            each = zip(agents, keys(key), state, memory)
            seen, option = observation["observation"], observation["option"]
            then, actions, extras = zip(*(getattr(agent, name)(k, s, m, seen) for agent, k, s, m in each))
            action = actions[0]
            for i in range(1, len(agents)):
                action = select(option[..., i] > 0, actions[i], action)
            return then, action, {"agents": extras}

        return acting

    def remember(state: tuple, memory: tuple, step: Transition) -> tuple:
        each = enumerate(zip(agents, state, memory))
        return tuple(agent.remember(s, m, view(step, i)) for i, (agent, s, m) in each)

    def learn(name: str) -> Callable:
        def learning(key: Array, state: tuple, data: Transition) -> tuple[tuple, Metrics]:
            each = enumerate(zip(agents, keys(key), state))
            states, metrics = zip(*(getattr(agent, name)(k, s, view(data, i)) for i, (agent, k, s) in each))
            priorities = [x.pop("priority", None) for x in map(dict, metrics)]
            named = [prefixed(str(i), {k: x for k, x in m.items() if k != "priority"}) for i, m in enumerate(metrics)]
            merged = merge_metrics(*named)
            if any(x is not None for x in priorities):
                option = data.observation["option"]
                merged["priority"] = sum(option[..., i] * x for i, x in enumerate(priorities) if x is not None)
            return states, merged

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


def scripted(policy: Callable[[Array, PyTree], Any]) -> Agent:
    """An agent of a function (key, observation [N]) -> action [N], that learns nothing."""

    def act(key: Array, state: PyTree, memory: PyTree, observation: PyTree):
        return memory, policy(key, observation), {}

    def act_greedy(key: Array, state: PyTree, memory: PyTree, observation: PyTree):
        return memory, policy(jax.random.key(0), observation), {}

    return Agent(lambda key, hparams, example: (), no_memory, act, act_greedy, nothing)


def one_hot(option: Array, num_options: int) -> Array:
    """[...] -> [..., K] float32."""
    return jax.nn.one_hot(option, num_options, dtype=jnp.float32)
