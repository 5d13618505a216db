"""Several members of one agent side by side, as a `vmap` over their states and over their parts of the data."""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp

from jaxrl.combinators.lift import salted
from jaxrl.types import Agent, Array, PyTree, Transition


def members(agent: Agent, size: int, split: Callable[[PyTree], PyTree], rows: Callable, join: Callable) -> Agent:
    """P members with parameters and hyperparameters of their own; states, hparams and metrics have an axis [P].

    Member 0 gets the caller's keys.

    Args:
      split: (leaves [N, ...]) -> [P, ...], what each member acts on.
      rows: (data) -> [P, ...], what each learns from.
      join: the inverse of `split`.
    """

    def keys(key: Array) -> Array:
        return jnp.stack([key, *(salted(key, i) for i in range(1, size))])

    def init(key: Array, hparams: PyTree, example: Transition) -> PyTree:
        hparams = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (size,)), hparams)
        return jax.vmap(agent.init)(keys(key), hparams, rows(example))

    def init_memory(key: Array, state: PyTree, observation: PyTree) -> PyTree:
        return join(jax.vmap(agent.init_memory)(keys(key), state, split(observation)))

    def lifted(act: Any) -> Callable:
        return lambda key, state, memory, observation: join(
            jax.vmap(act)(keys(key), state, split(memory), split(observation))
        )

    def remember(state: PyTree, memory: PyTree, step: Transition) -> PyTree:
        return join(jax.vmap(agent.remember)(state, split(memory), split(step)))

    def learn(update: Any) -> Callable:
        return lambda key, state, data: jax.vmap(update)(keys(key), state, rows(data))

    return Agent(
        init,
        init_memory,
        lifted(agent.act),
        lifted(agent.act_greedy),
        learn(agent.update),
        remember,
        learn(agent.observe),
        agent.actor,
        agent.hparams,
    )
