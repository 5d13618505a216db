"""`population`: several members of one agent, side by side, each with its own share of the environments."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.combinators.lift import salted
from jaxrl.types import Agent, Array, PyTree, Transition


def population(agent: Agent, size: int) -> Agent:
    """P members with their own parameters and hyperparameters; N environments are split into P blocks of N / P.

    States, hparams and metrics have a leading axis [P]. Member 0 gets the caller's keys, so that `population(agent, 1)`
    equals `agent` up to rounding.

    Raises:
      ValueError: if size < 1; while tracing, if N is not divisible by it.
    """
    if size < 1:
        raise ValueError(f"population: size is {size}, must be >= 1")

    def keys(key: Array) -> Array:
        return jnp.stack([key, *(salted(key, i) for i in range(1, size))])

    def split(tree: PyTree, axis: int) -> PyTree:
        """[..., N, ...] -> [P, ..., N / P, ...]"""

        def leaf(x):
            n = x.shape[axis]
            if n % size:
                raise ValueError(f"population: size is {size}, must divide the {n} environments")
            return jnp.moveaxis(x.reshape(*x.shape[:axis], size, n // size, *x.shape[axis + 1 :]), axis, 0)

        return jax.tree.map(leaf, tree)

    def join(tree: PyTree) -> PyTree:
        """[P, N / P, ...] -> [N, ...]"""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)

    def init(key: Array, hparams: PyTree, example: Transition) -> PyTree:
        hparams = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (size,)), hparams)
        return jax.vmap(agent.init)(keys(key), hparams, split(example, 1))

    def init_memory(key: Array, state: PyTree, observation: PyTree) -> PyTree:
        return join(jax.vmap(agent.init_memory)(keys(key), state, split(observation, 0)))

    def lifted(act):
        return lambda key, state, memory, observation: join(
            jax.vmap(act)(keys(key), state, split(memory, 0), split(observation, 0))
        )

    def remember(state: PyTree, memory: PyTree, step: Transition) -> PyTree:
        return join(jax.vmap(agent.remember)(state, split(memory, 0), split(step, 0)))

    def learn(update):
        return lambda key, state, data: jax.vmap(update)(keys(key), state, split(data, 1))

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
