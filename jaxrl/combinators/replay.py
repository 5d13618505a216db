"""`with_replay`: an agent that learns from batches of a buffer instead of from the rollout."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.buffers.tree import NO_INDEX
from jaxrl.combinators.exploration import WithExplorationState
from jaxrl.combinators.lift import lift, salted
from jaxrl.loop import merge_metrics
from jaxrl.types import Agent, Array, Buffer, Metrics, PyTree, Transition, Wrapped, item


class WithReplayState(NamedTuple):
    """State of `with_replay`."""

    agent: PyTree
    buffer: PyTree


def with_replay(agent: Agent, buffer: Buffer, updates_per_step: int = 1) -> Agent:
    """Adds each rollout to `buffer`, and lets `agent` learn from `updates_per_step` batches of it a rollout.

    Until the buffer is ready there are no updates, and their metrics read 0. Where the agent reports
    `metrics["priority"]`, the buffer takes it. Hyperparameters: `Wrapped(agent=the agent's, own=the buffer's)`.

    Args:
      updates_per_step: K updates for a rollout of T * N environment steps: the update-to-data ratio is K / (T N).

    Raises:
      ValueError: if updates_per_step < 1.
    """
    if updates_per_step < 1:
        raise ValueError(f"with_replay: updates_per_step is {updates_per_step}, must be >= 1")

    def init(key: Array, hparams: Wrapped, example: Transition) -> WithReplayState:
        def batch(example: Transition) -> Transition:
            shapes = jax.eval_shape(lambda: buffer.sample(key, buffer.init(hparams.own, example)))
            return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def recorded() -> dict:
            init_key, memory_key, act_key = jax.random.split(key, 3)
            state, first = agent.init(init_key, hparams.agent, batch(example)), item(example.observation)
            return agent.act(act_key, state, agent.init_memory(memory_key, state, first), first)[2]

        # The rollout will hold what `act` records, whose shapes are known once there is a state.
        extras = jax.tree.map(
            lambda x: jnp.zeros((example.reward.shape[0], *x.shape), x.dtype), jax.eval_shape(recorded)
        )
        example = example._replace(extras={**example.extras, **extras})
        return WithReplayState(agent.init(key, hparams.agent, batch(example)), buffer.init(hparams.own, example))

    def observe(key: Array, state: WithReplayState, fresh: Transition) -> tuple[WithReplayState, Metrics]:
        agent_state, metrics = agent.observe(key, state.agent, fresh)
        with jax.named_scope("replay"):
            return WithReplayState(agent_state, buffer.add(state.buffer, fresh)), metrics

    def update(key: Array, state: WithReplayState, fresh: Transition) -> tuple[WithReplayState, Metrics]:
        del fresh  # in the buffer since `observe`
        ready = parallel.all(buffer.is_ready(state.buffer))

        def once(state: WithReplayState, key: Array) -> tuple[WithReplayState, Metrics]:
            with jax.named_scope("replay"):
                data = buffer.sample(salted(key), state.buffer)
            # Only the agent goes through the condition: a branch that returned the buffer would copy it.
            learn = lambda agent_state: agent.update(key, agent_state, data)  # noqa: E731
            shapes = jax.eval_shape(learn, state.agent)[1]
            skip = lambda agent_state: (agent_state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))  # noqa: E731
            agent_state, metrics = jax.lax.cond(ready, learn, skip, state.agent)
            priority = metrics.pop("priority", None)
            memory = state.buffer
            if priority is not None:
                index = jnp.where(ready, data.extras["index"], NO_INDEX)
                memory = buffer.prioritize(memory, data._replace(extras={**data.extras, "index": index}), priority)
            return WithReplayState(agent_state, memory), metrics

        if updates_per_step == 1:  # the caller's key untouched
            state, metrics = once(state, key)
        else:
            state, metrics = jax.lax.scan(once, state, jax.random.split(key, updates_per_step))
            metrics = jax.tree.map(jnp.mean, metrics)
        made = {"replay/updates": updates_per_step * ready.astype(jnp.float32)}
        return state, merge_metrics(metrics, made)

    return lift(agent)._replace(
        init=init,
        observe=observe,
        update=update,
        actor=lambda state: WithReplayState(agent.actor(state.agent), ()),
        hparams=Wrapped(agent.hparams, buffer.hparams),
    )


def learner_state(state: PyTree) -> PyTree:
    """The learner's own state inside of replay and exploration: what moves between loops and between runs."""
    while isinstance(state, (WithReplayState, WithExplorationState)):
        state = state.agent
    return state


def replace_learner(state: PyTree, learner: PyTree) -> PyTree:
    """`state` with the learner's own state inside of it replaced."""
    if isinstance(state, (WithReplayState, WithExplorationState)):
        return state._replace(agent=replace_learner(state.agent, learner))
    return learner
