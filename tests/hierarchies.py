"""Agents that choose at random and keep what they are taught, and an environment with every kind of row: for tests."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.spaces import Box
from jaxrl.types import Agent, Env, TimeStep, no_memory


class KeptState(NamedTuple):
    hparams: tuple
    data: tuple


def keeper(num_actions, name):
    """Uniform actions; what `update` is given is its state afterwards. `act` records {name: a random number}."""

    def act(key, state, memory, observation):
        del state
        num = jax.tree.leaves(observation)[0].shape[0]
        key_action, key_mark = jax.random.split(key)
        action = jax.random.randint(key_action, (num,), 0, num_actions)
        return memory, action, {name: jax.random.uniform(key_mark, (num,))}

    def act_greedy(key, state, memory, observation):
        num = jax.tree.leaves(observation)[0].shape[0]
        return memory, jnp.zeros(num, jnp.int32), {"value": jnp.zeros(num)}

    def update(key, state, data):
        return KeptState(state.hparams, data), {}

    return Agent(lambda key, hp, example: KeptState(hp, ()), no_memory, act, act_greedy, update)


def weather(actions=2):
    """Random rewards and ends; steps that span 1 to 3 primitive ones; rows of weight 0 whose reward is NaN.

    Observations are (time in the episode, a number of the episode).
    """

    def observe(state):
        return jnp.stack([state[0], state[1]])

    def reset(key, params):
        state = jnp.stack([0.0, jax.random.uniform(key)])
        return state, observe(state)

    def step(key, state, action, params):
        keys = jax.random.split(key, 5)
        state = state.at[0].add(1.0)
        weight = (jax.random.uniform(keys[0]) > 0.2).astype(jnp.float32)
        there = weight > 0
        terminated, truncated = (there & (jax.random.uniform(k) < 0.1) for k in keys[1:3])
        reward = jnp.where(there, jax.random.normal(keys[3]), jnp.nan)
        extras = {"weight": weight, "num_steps": jax.random.randint(keys[4], (), 1, 4)}
        return state, TimeStep(observe(state), reward, terminated, truncated, extras)

    space = Box(0.0, float("inf"), (2,))
    return Env(reset, step, (), space, Box(0, actions - 1, (), "int32"))
