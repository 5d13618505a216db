"""Interaction of an agent with N environments, compiled as one `lax.scan`.

This file holds the only reset in the library. A step never resets; where an episode ended, the scan selects a fresh
environment after the transition (with its true successor) has been recorded.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.buffers import num_bytes
from jaxrl.counters import LARGEST
from jaxrl.keys import integers
from jaxrl.spaces import zeros
from jaxrl.tree import select
from jaxrl.types import Agent, Array, Env, Metrics, PyTree, TimeStep, Transition, is_last, item


class Episode(NamedTuple):
    """Running statistics of the episodes under way; shape of the reward, [N] or [N, A]."""

    return_: Array  # float32
    length: Array  # int32, stays at its largest values


class Interaction(NamedTuple):
    """What N environments and an agent's memory of them carry from one rollout to the next.

    Attributes:
      params: environment parameters; leaves [N, ...], or shared without a leading axis (`params_axis` 0 or None).
      ended: [N] or [N, A] bool, who is out while the environment runs on (always False for one agent that is reset).
    """

    env_state: PyTree
    params: PyTree
    observation: PyTree
    memory: PyTree
    ended: Array
    episode: Episode


SampleParams = Callable[[Array, int], PyTree]  # (key, num_envs) -> params [num_envs]


def start(
    key: Array,
    agent: Agent,
    agent_state: PyTree,
    env: Env,
    params: PyTree,
    num_envs: int,
    params_axis: int | None = None,
) -> Interaction:
    """Resets N environments. `params` has a leading axis [N] if `params_axis` is 0, and is shared if it is None."""
    shape = (num_envs, *timestep_shape(env, params, params_axis).reward.shape)
    return _start(key, agent, agent_state, env, params, shape, params_axis)


def rollout(
    key: Array,
    agent: Agent,
    agent_state: PyTree,
    env: Env,
    interaction: Interaction,
    unroll_length: int,
    *,
    sample_params: SampleParams | None = None,
    episodic: bool = False,
    reset_pool: int = 0,
) -> tuple[Interaction, Transition, Metrics]:
    """Plays `unroll_length` steps in N environments.

    Args:
      interaction: from `start`, or from the previous rollout.
      sample_params: (key, n) -> params [n] for resets (a curriculum); None: `interaction.params` is shared by all.
      episodic: start at a reset and freeze a finished column at weight 0, instead of resetting it.
      reset_pool: if > 0, resets draw from that many fresh states, made once a rollout (for resets that cost more than
        a step).

    Returns:
      interaction, data (leaves [T, N, ...]), and `episode/return_sum`, `episode/length_sum`, `episode/count` over the
      episodes that ended (averaged over agents where there are several).
    """
    num_envs = interaction.ended.shape[0]
    params_axis = None if sample_params is None else 0
    act_key, step_key, reset_key, pool_key = jax.random.split(key, 4)

    def fresh(key: Array, n: int) -> Interaction:
        params_key, key = jax.random.split(key)
        params = interaction.params if sample_params is None else sample_params(params_key, n)
        return _start(key, agent, agent_state, env, params, (n, *interaction.ended.shape[1:]), params_axis)

    if episodic:
        interaction = fresh(pool_key, num_envs)
    pool = fresh(pool_key, reset_pool) if reset_pool and not episodic else None

    def choose(key: Array) -> tuple[Array, Array]:
        choice_key, memory_key = jax.random.split(key)
        return integers(choice_key, (num_envs,), reset_pool), memory_key

    def take(choice: tuple[Array, Array]) -> Interaction:
        index, memory_key = choice
        chosen = jax.tree.map(lambda x: x[index], pool._replace(params=() if params_axis is None else pool.params))
        return chosen._replace(memory=agent.init_memory(memory_key, agent_state, chosen.observation))

    def make(key: Array) -> Interaction:
        made = fresh(key, num_envs)
        return made._replace(params=() if params_axis is None else made.params)

    # A few random numbers take as long as many on a CPU: those of all resets are drawn before the scan.
    resets, reset = jax.random.split(reset_key, unroll_length), make
    if pool is not None:
        resets, reset = jax.vmap(choose)(resets), take
    elif not episodic and _is_small(jax.eval_shape(make, jax.random.key(0))):
        with jax.named_scope("environment"):
            resets, reset = jax.vmap(make)(resets), lambda made: made

    def step(now: Interaction, inputs) -> tuple[Interaction, Transition]:
        act_key, step_keys, ready = inputs
        env_state, memory, data = interact(act_key, step_keys, agent.act, agent_state, env, now, params_axis)
        if now.ended.ndim > 1 or episodic:
            data = _mark_ended(data, now.ended)
        memory = agent.remember(agent_state, memory, data)
        ended = is_last(data) | now.ended
        then = now._replace(env_state=env_state, observation=data.next_observation, memory=memory, ended=ended)
        if episodic:
            return _where(_all_out(now.ended), now, then, params_axis), data
        with jax.named_scope("environment"):
            return _where(_all_out(ended), reset(ready), then, params_axis), data

    act_keys = jax.random.split(act_key, unroll_length)
    step_keys = jax.random.split(step_key, (unroll_length, num_envs))
    then, data = jax.lax.scan(step, interaction, (act_keys, step_keys, resets))
    episode, metrics = _episode_statistics(interaction.episode, data)
    return then._replace(episode=episode), data, metrics


def interact(
    act_key: Array, step_keys: Array, act: Any, agent_state: PyTree, env: Env, now: Interaction, params_axis: int | None
) -> tuple[PyTree, PyTree, Transition]:
    """One step of N environments, without resets. Returns env_state, memory (before `remember`), transition [N]."""
    with jax.named_scope("forward"):
        memory, action, extras = act(act_key, agent_state, now.memory, now.observation)
    with jax.named_scope("environment"):
        env_step = jax.vmap(env.step, in_axes=(0, 0, 0, params_axis))
        env_state, timestep = env_step(step_keys, now.env_state, action, now.params)
    both = extras.keys() & timestep.extras.keys()
    if both:
        raise ValueError(f"rollout: {sorted(both)} recorded by both the agent's act and the environment; rename one")
    data = Transition(
        now.observation,
        action,
        timestep.reward,
        timestep.terminated,
        timestep.truncated,
        timestep.observation,
        {**extras, **timestep.extras},
    )
    return env_state, memory, data


def timestep_shape(env: Env, params: PyTree, params_axis: int | None = None) -> TimeStep:
    """The `TimeStep` of one environment as shapes and dtypes; its reward is () for one agent, (A,) for many."""

    def one(key: Array, params: PyTree) -> TimeStep:
        state, _ = env.reset(key, params if params_axis is None else item(params))
        return env.step(key, state, zeros(env.action_space), params if params_axis is None else item(params))[1]

    return jax.eval_shape(one, jax.random.key(0), params)


def _start(key, agent, agent_state, env, params, shape: tuple[int, ...], params_axis) -> Interaction:
    """`start` for rewards of `shape`, (N,) or (N, A), which takes a trace of the environment's step to find out."""
    reset_key, memory_key = jax.random.split(key)
    reset = jax.vmap(env.reset, in_axes=(0, params_axis))
    env_state, observation = reset(jax.random.split(reset_key, shape[0]), params)
    memory = agent.init_memory(memory_key, agent_state, observation)
    episode = Episode(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.int32))
    return Interaction(env_state, params, observation, memory, jnp.zeros(shape, bool), episode)


def _is_small(made: Interaction) -> bool:
    """Whether fresh states for each step of a rollout are of little weight beside the observations that it records."""
    return num_bytes(made) <= max(1024 * made.ended.shape[0], 4 * num_bytes(made.observation))


def _all_out(ended: Array) -> Array:
    return jnp.all(ended.reshape(ended.shape[0], -1), axis=1)


def _where(condition: Array, on_true: Interaction, on_false: Interaction, params_axis: int | None) -> Interaction:
    """Selects columns; shared params and the statistics (counted after the scan) have no column to select."""
    params = on_false.params if params_axis is None else select(condition, on_true.params, on_false.params)
    columns = (x._replace(params=(), episode=()) for x in (on_true, on_false))
    return select(condition, *columns)._replace(params=params, episode=on_false.episode)


def _mark_ended(data: Transition, ended: Array) -> Transition:
    """Rows of agents that were out before the step: weight 0, reward 0, still terminated."""
    weight = data.extras.get("weight", 1.0) * (1.0 - ended)
    return data._replace(
        reward=jnp.where(ended, 0.0, data.reward),
        terminated=data.terminated | ended,
        extras={**data.extras, "weight": weight.astype(jnp.float32)},
    )


def _episode_statistics(before: Episode, data: Transition) -> tuple[Episode, Metrics]:
    """Sums over the episodes that ended within the rollout, without a recursion over time.

    What a column earned up to its last end belongs to finished episodes, the rest to the one under way.
    """
    time = jnp.arange(data.reward.shape[0]).reshape(-1, *(1,) * (data.reward.ndim - 1))
    live = data.extras["weight"] > 0 if "weight" in data.extras else jnp.ones_like(data.terminated)
    ends = is_last(data) & live
    last_end = jnp.max(jnp.where(ends, time, -1), axis=0)
    finished = (time <= last_end) & live
    reward = jnp.where(live, data.reward, 0.0)
    any_end = last_end >= 0

    def split(per_step, carried):
        done = jnp.sum(jnp.where(finished, per_step, 0), axis=0)
        total = jnp.sum(per_step, axis=0)
        return jnp.where(any_end, carried + done, 0), jnp.where(any_end, 0, carried) + total - done

    return_done, return_rest = split(reward, before.return_)
    length_before = jnp.minimum(before.length, LARGEST - data.reward.shape[0])
    length_done, length_rest = split(live.astype(jnp.int32), length_before)
    agents = max(1, int(jnp.size(return_done)) // return_done.shape[0])
    metrics = {
        "episode/return_sum": jnp.sum(return_done) / agents,
        "episode/length_sum": jnp.sum(length_done.astype(jnp.float32)) / agents,
        "episode/count": jnp.sum(ends.astype(jnp.float32)) / agents,
    }
    return Episode(return_rest, length_rest), metrics
