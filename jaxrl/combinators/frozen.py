"""`frozen`: an agent that acts and does not learn; `decoder`: its policy as a function from a latent action."""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl.combinators.lift import salted
from jaxrl.types import Agent, Array, PyTree, nothing

SALT = 0x400


def frozen(agent: Agent, state: PyTree = None) -> Agent:
    """`agent` without learning: `update` and `observe` return the state as it is.

    Args:
      state: what `init` returns, of the agent trained elsewhere; its hyperparameters are then in it, and none are
        left to give. It acts with keys of its own, since combinators around it that salt theirs by what is inside no
        longer see that. None: what `agent.init` makes.
    """
    still = agent._replace(update=nothing, observe=nothing)
    if state is None:
        return still

    def init(key: Array, hparams: PyTree, example: PyTree) -> PyTree:
        del key, hparams, example
        return jax.tree.map(lambda x: jnp.array(x, copy=True), state)

    def with_own_key(call: Callable) -> Callable:
        return lambda key, *arguments: call(salted(key, SALT), *arguments)

    return still._replace(
        init=init,
        init_memory=with_own_key(agent.init_memory),
        act=with_own_key(agent.act),
        act_greedy=with_own_key(agent.act_greedy),
        hparams=(),
    )


def decoder(agent: Agent, join: Callable[[PyTree, PyTree], PyTree], *, greedy: bool = True) -> Callable:
    """decode(key, state, observation, latent) -> action for one environment, as `jaxrl.envs.latent_action` takes it.

    Args:
      agent: without memory; `state` is its state.
      join: (observation, latent) -> what the agent sees, such as `jaxrl.combinators.skills.join`.
      greedy: `act_greedy`, or else `act`.

    Raises:
      ValueError: in the decoder, if the agent has memory.
    """
    act = agent.act_greedy if greedy else agent.act

    def decode(key: Array, state: PyTree, observation: PyTree, latent: PyTree) -> PyTree:
        memory_key, act_key = jax.random.split(key)
        batch = jax.tree.map(lambda x: x[None], join(observation, latent))
        memory = agent.init_memory(memory_key, state, batch)
        if jax.tree.leaves(memory):
            raise ValueError("decoder: the agent has memory, needs one that acts on the observation alone")
        return jax.tree.map(lambda x: x[0], act(act_key, state, memory, batch)[1])

    return decode
