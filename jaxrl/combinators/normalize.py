"""`normalize_observations`: an agent that sees standardised observations."""

from __future__ import annotations

from typing import NamedTuple

import jax

from jaxrl.combinators.lift import lift
from jaxrl.normalize import Statistics, init_statistics, normalize, update_statistics
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, Wrapped, weight


class NormalizeObservationsHparams(NamedTuple):
    """Numbers of `normalize_observations`."""

    observation_clip: float = 10.0  # bound on the magnitude of a standardised entry


class NormalizeObservationsState(NamedTuple):
    """State of `normalize_observations`: saved and exported with the agent.

    Attributes:
      current: what acting and learning use; it changes only at the end of `update`, so that the probability ratio of a
        policy-gradient learner starts at exactly 1.
      pending: what has been seen; `observe` adds to it.
    """

    agent: PyTree
    hparams: NormalizeObservationsHparams
    current: Statistics
    pending: Statistics


def normalize_observations(
    agent: Agent, hparams: NormalizeObservationsHparams = NormalizeObservationsHparams()
) -> Agent:
    """Standardises observations by running moments that live in the agent's state.

    Floating-point leaves of any pytree of observations; integer images pass untouched. Hyperparameters:
    `Wrapped(agent=the agent's, own=NormalizeObservationsHparams)`.
    """

    def view(state: NormalizeObservationsState, observation: PyTree) -> PyTree:
        return normalize(state.current, observation, state.hparams.observation_clip)

    def view_data(state: NormalizeObservationsState, data: Transition) -> Transition:
        return data._replace(
            observation=view(state, data.observation), next_observation=view(state, data.next_observation)
        )

    def init(key: Array, hparams: Wrapped, example: Transition) -> NormalizeObservationsState:
        axes = example.reward.ndim
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[axes:], x.dtype), example.observation)
        statistics = init_statistics(one)
        agent_state = agent.init(key, hparams.agent, example)
        return NormalizeObservationsState(agent_state, as_arrays(hparams.own), statistics, statistics)

    def observe(key: Array, state: NormalizeObservationsState, fresh: Transition):
        pending = update_statistics(state.pending, fresh.observation, weight(fresh))
        agent_state, metrics = agent.observe(key, state.agent, view_data(state, fresh))
        return state._replace(agent=agent_state, pending=pending), metrics

    def update(key: Array, state: NormalizeObservationsState, data: Transition) -> tuple[PyTree, Metrics]:
        agent_state, metrics = agent.update(key, state.agent, view_data(state, data))
        return state._replace(agent=agent_state, current=state.pending), metrics

    return lift(agent, observation=view)._replace(
        init=init,
        observe=observe,
        update=update,
        actor=lambda state: state._replace(agent=agent.actor(state.agent), pending=()),
        hparams=Wrapped(agent.hparams, hparams),
    )
