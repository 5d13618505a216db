"""`seated`: policies of all agents that were trained apart meet in one environment, each in some of its seats."""

from __future__ import annotations

from typing import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxrl.combinators.lift import salted
from jaxrl.loop import merge_metrics
from jaxrl.spaces import Space, Tuple
from jaxrl.types import Agent, Array, PyTree, Transition, nothing

SALT = 0x500


def seated(agents: Sequence[Agent], who: Sequence[int], action_space: Space) -> Agent:
    """Seat a of an environment is played by `agents[who[a]]`, each of which could play all seats by itself.

    Everyone acts for all seats, from all observations and with a memory of its own, and only the actions of its own
    seats are played: so any agent of many will do, whatever its state is (one set of parameters, a learner each, a
    team). States and memories are tuples with an entry an agent. It does not learn.

    Args:
      who: an index of `agents` for each of A seats.
      action_space: of the environment: a `Tuple` where actions are one an agent, else a `Repeated`.

    Raises:
      ValueError: if `who` has an entry that is no index of `agents`.
    """
    if not all(0 <= i < len(agents) for i in who):
        raise ValueError(f"seated: who is {list(who)}, must be indices of {len(agents)} agents")

    def keys(key: Array) -> list[Array]:
        return [key, *(salted(key, SALT + i) for i in range(1, len(agents)))]

    def put(actions: Sequence[PyTree]) -> PyTree:
        if isinstance(action_space, Tuple):
            return tuple(actions[i][seat] for seat, i in enumerate(who))
        return jax.tree.map(lambda *x: jnp.stack([x[i][:, seat] for seat, i in enumerate(who)], 1), *actions)

    def init(key: Array, hparams: tuple, example: Transition) -> tuple:
        return tuple(agent.init(k, hp, example) for agent, k, hp in zip(agents, keys(key), hparams))

    def init_memory(key: Array, state: tuple, observation: PyTree) -> tuple:
        return tuple(agent.init_memory(k, s, observation) for agent, k, s in zip(agents, keys(key), state))

    def forward(name: str) -> Callable:
        def acting(key: Array, state: tuple, memory: tuple, observation: PyTree):
            each = zip(agents, keys(key), state, memory)
            then, actions, extras = zip(*(getattr(agent, name)(k, s, m, observation) for agent, k, s, m in each))
            return then, put(actions), {"seated": extras}

        return acting

    def remember(state: tuple, memory: tuple, step: Transition) -> tuple:
        others = {name: x for name, x in step.extras.items() if name != "seated"}
        each = zip(agents, state, memory, step.extras["seated"])
        return tuple(a.remember(s, m, step._replace(extras=merge_metrics(others, own))) for a, s, m, own in each)

    return Agent(
        init,
        init_memory,
        forward("act"),
        forward("act_greedy"),
        nothing,
        remember,
        actor=lambda state: tuple(agent.actor(s) for agent, s in zip(agents, state)),
        hparams=tuple(agent.hparams for agent in agents),
    )
