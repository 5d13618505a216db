"""What every combinator needs: forwarding acting through its own state."""

from __future__ import annotations

from typing import Any, Callable

import jax

from jaxrl.types import Agent, Array

SALT = 0x5EED_0000  # far from the small integers that `split` and users' `fold_in` use


def salted(key: Array, offset: int = 0) -> Array:
    """A key for a combinator's own use; the inner agent gets the caller's key untouched."""
    return jax.random.fold_in(key, SALT + offset)


def lift(agent: Agent, observation: Callable[[Any, Any], Any] = lambda state, observation: observation) -> Agent:
    """An `Agent` over wrapper states that hold the inner agent's state in a field `agent`.

    Acting, memory, `remember` and `actor` are forwarded; a combinator replaces `init`, `update`, `observe` and
    `hparams` (`lift(agent)._replace(init=..., ...)`), which here still are those of the inner agent.

    Args:
      observation: (wrapper state, observation) -> what the inner agent sees.
    """

    def forward(act):
        return lambda key, state, memory, obs: act(key, state.agent, memory, observation(state, obs))

    def remember(state, memory, step):
        step = step._replace(
            observation=observation(state, step.observation), next_observation=observation(state, step.next_observation)
        )
        return agent.remember(state.agent, memory, step)

    return agent._replace(
        init_memory=lambda key, state, obs: agent.init_memory(key, state.agent, observation(state, obs)),
        act=forward(agent.act),
        act_greedy=forward(agent.act_greedy),
        remember=remember,
        actor=lambda state: state._replace(agent=agent.actor(state.agent)),
    )
