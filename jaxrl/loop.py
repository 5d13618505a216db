"""The two loops, `online` (a rollout, an update, again) and `offline` (a batch, an update); `run` scans either."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import finite, parallel
from jaxrl.counters import increment
from jaxrl.interaction import Interaction, rollout, start, timestep_shape
from jaxrl.keys import integers, typed
from jaxrl.spaces import zeros
from jaxrl.types import Agent, Array, Curriculum, Env, Loop, Metrics, PyTree, Transition


class LoopState(NamedTuple):
    """Everything that a training run carries: saving it and loading it again continues the run.

    Attributes:
      agent: the agent's state (parameters, optimiser, hparams, normalisers, buffers).
      interaction: environments, observations and memory, mid-episode.
      curriculum: state of the curriculum, () without one.
      num_updates: [] int32, stays at 2**31 - 1; environment steps are num_updates * unroll_length * num_envs, in exact
        host integers.
    """

    key: Array
    agent: PyTree
    interaction: Interaction
    curriculum: PyTree
    num_updates: Array


def online(
    agent: Agent,
    env: Env,
    *,
    num_envs: int,
    unroll_length: int,
    curriculum: Curriculum | None = None,
    episodic: bool = False,
    reset_pool: int = 0,
) -> Loop:
    """Learning from interaction: each step plays `unroll_length` steps in `num_envs` environments, then updates.

    Args:
      curriculum: hands environment parameters to resets; None: all share `env.params` (kept, traced, in the state).
      episodic: every rollout starts at a reset, finished columns are frozen at weight 0 (whole-sequence learners).
      reset_pool: if > 0, resets draw from that many fresh states made once a rollout.

    Returns:
      A `Loop`. `init(key, hparams=None)` takes the agent's default hparams where none are given; both functions can be
      jitted, vmapped over keys and hparams, and differentiated.

    Raises:
      ValueError: if a count is below 1, or `reset_pool` is negative or given together with `episodic`.
    """
    for name, value in (("num_envs", num_envs), ("unroll_length", unroll_length)):
        if value < 1:
            raise ValueError(f"online: {name} is {value}, must be >= 1")
    if reset_pool < 0 or (reset_pool and episodic):
        raise ValueError(f"online: reset_pool is {reset_pool}, must be >= 0, and 0 with episodic=True")
    axis = curriculum.axes if curriculum is not None else None

    def init(key: Array, hparams: PyTree = None) -> LoopState:
        key, agent_key, start_key, curriculum_key, params_key = jax.random.split(typed(key, "online"), 5)
        hparams = agent.hparams if hparams is None else hparams
        agent_state = agent.init(agent_key, hparams, example_data(env, num_envs, unroll_length, episodic))
        teacher, params = (), env.params
        if curriculum is not None:
            teacher = curriculum.init(curriculum_key, env.params)
            params = curriculum.sample(parallel.own(params_key), teacher, agent_state, num_envs)
        params = jax.tree.map(jnp.asarray, params)
        key, start_key = parallel.own(key), parallel.own(start_key)  # shards differ in what they play from here on
        interaction = start(start_key, agent, agent_state, env, params, num_envs, axis)
        return LoopState(key, agent_state, interaction, teacher, jnp.zeros((), jnp.int32))

    def step(state: LoopState) -> tuple[LoopState, Metrics]:
        key, rollout_key, observe_key, update_key, curriculum_key, params_key = jax.random.split(state.key, 6)
        interaction, sample_params = state.interaction, None
        if curriculum is not None:
            sample_params = partial(sample, curriculum, state)
            if axis is None:  # shared: they change between rollouts
                interaction = interaction._replace(params=sample_params(params_key, num_envs))
        interaction, data, played = rollout(
            rollout_key,
            agent,
            state.agent,
            env,
            interaction,
            unroll_length,
            sample_params=sample_params if axis == 0 else None,
            episodic=episodic,
            reset_pool=reset_pool,
        )
        with jax.named_scope("learning"):
            agent_state, observed = agent.observe(observe_key, state.agent, data)
            agent_state, learned = agent.update(update_key, agent_state, data)
        teacher, taught = state.curriculum, {}
        if curriculum is not None:
            teacher, taught = curriculum.update(curriculum_key, state.curriculum, agent_state, data)
        begins = state.interaction.episode.length.reshape(num_envs, -1).max(-1) == 0
        checks = finite.in_rollout(data, begins | episodic) | finite.in_parameters(agent.actor(agent_state))
        metrics = merge_metrics(played, observed, learned, taught, checks)
        return LoopState(key, agent_state, interaction, teacher, increment(state.num_updates)), metrics

    return Loop(init, step)


def sample(curriculum: Curriculum, state: LoopState, key: Array, num_envs: int) -> PyTree:
    """Environment parameters for `num_envs` resets, as the curriculum chooses them now."""
    return curriculum.sample(key, state.curriculum, state.agent, num_envs)


class OfflineState(NamedTuple):
    """What a run of `offline` carries; the data is no part of it."""

    key: Array
    agent: PyTree
    num_updates: Array


def offline(learner: Agent, data: PyTree, *, batch_size: int, axis: int = 0, shared: PyTree = None) -> Loop:
    """Learning from data alone: each step draws `batch_size` entries, with replacement, and updates.

    The learner is the one that `online` takes; only its `init`, `observe` and `update` are used, `observe` once in
    `init` on all of the data as one long rollout (normalisers). Large data stays an argument of a compiled program,
    instead of becoming a constant in it, where the loop is made inside:
    `jit(lambda state, data: run(offline(agent, data, batch_size=256), state, 1000))`.

    Args:
      data: what `update` expects, with an axis of D entries where that has B: transitions [D], sequences [L, D].
      axis: that axis, in all leaves.
      shared: what all rows look things up in, such as goals (`jaxrl.data.goals`): every batch has it, whole, as
        extras["shared"]; None: there is none.

    Returns:
      A `Loop` over `OfflineState`.

    Raises:
      ValueError: if batch_size < 1, or there is no data, or its leaves differ in D.
    """
    sizes = {x.shape[axis] for x in jax.tree.leaves(data)}
    if batch_size < 1:
        raise ValueError(f"offline: batch_size is {batch_size}, must be >= 1")
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"offline: data has {sorted(sizes)} entries along axis {axis}, needs one number above 0")

    def batch(index: Array) -> PyTree:
        rows = jax.tree.map(lambda x: jnp.take(x, index, axis=axis, mode="clip"), data)
        return rows if shared is None else rows._replace(extras={**rows.extras, "shared": shared})

    def init(key: Array, hparams: PyTree = None) -> OfflineState:
        key, agent_key, observe_key = jax.random.split(typed(key, "offline"), 3)
        hparams = learner.hparams if hparams is None else hparams
        agent_state = learner.init(agent_key, hparams, jax.tree.map(jnp.zeros_like, batch(jnp.zeros(batch_size, int))))
        rollout = data if axis else jax.tree.map(lambda x: x[:, None], data)
        agent_state, _ = learner.observe(observe_key, agent_state, rollout)
        return OfflineState(parallel.own(key), agent_state, jnp.zeros((), jnp.int32))

    def step(state: OfflineState) -> tuple[OfflineState, Metrics]:
        key, batch_key, update_key = jax.random.split(state.key, 3)
        index = integers(batch_key, (batch_size,), max(sizes))
        with jax.named_scope("replay"):
            rows = batch(index)
        with jax.named_scope("learning"):
            agent_state, learned = learner.update(update_key, state.agent, rows)
        metrics = merge_metrics(learned, finite.in_parameters(learner.actor(agent_state)))
        return OfflineState(key, agent_state, increment(state.num_updates)), metrics

    return Loop(init, step)


def run(loop: Loop, state: Any, num_updates: int) -> tuple[Any, Metrics]:
    """Scans `loop.step`. Returns the state and the metrics of each step, leaves [num_updates]."""
    return jax.lax.scan(lambda state, _: loop.step(state), state, length=num_updates)


def example_data(env: Env, num_envs: int, unroll_length: int, episodic: bool = False) -> Transition:
    """Zeros [T, N, ...] of the shapes and dtypes that the loop records (what `act` adds is not in them)."""
    observation = jax.eval_shape(env.reset, jax.random.key(0), env.params)[1]
    timestep = timestep_shape(env, env.params)
    action = jax.eval_shape(lambda: zeros(env.action_space))
    weight = {}
    if timestep.reward.shape or episodic:  # who is out has rows of weight 0
        weight["weight"] = jax.ShapeDtypeStruct(timestep.reward.shape, jnp.float32)
    one = Transition(
        observation,
        action,
        timestep.reward,
        timestep.terminated,
        timestep.truncated,
        timestep.observation,
        {**timestep.extras, **weight},
    )
    return jax.tree.map(lambda x: jnp.zeros((unroll_length, num_envs, *x.shape), x.dtype), one)


def merge_metrics(*parts: Metrics) -> Metrics:
    """One flat dict.

    Raises:
      ValueError: if two parts report the same name.
    """
    merged: Metrics = {}
    for part in parts:
        both = merged.keys() & part.keys()
        if both:
            raise ValueError(f"metrics: {sorted(both)} reported twice; prefix one of them")
        merged |= part
    return merged
