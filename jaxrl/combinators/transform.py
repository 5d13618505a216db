"""`with_transform`: an agent that learns from transformed data."""

from __future__ import annotations

from typing import NamedTuple

from jaxrl.combinators.lift import lift, salted
from jaxrl.loop import merge_metrics
from jaxrl.types import Agent, Array, Metrics, PyTree, Transform, Transition, Wrapped


class WithTransformState(NamedTuple):
    """State of `with_transform`."""

    agent: PyTree
    transform: PyTree


def with_transform(agent: Agent, transform: Transform) -> Agent:
    """Gives `update` what `transform` makes of its data; `observe` shows fresh data, untransformed, to both.

    Hyperparameters: `Wrapped(agent=the agent's, own=the transform's)`. `with_transform(agent, chain())` equals `agent`.
    """

    def init(key: Array, hparams: Wrapped, example: Transition) -> WithTransformState:
        transform_state = transform.init(salted(key), hparams.own, example)
        return WithTransformState(agent.init(key, hparams.agent, example), transform_state)

    def observe(key: Array, state: WithTransformState, fresh: Transition) -> tuple[WithTransformState, Metrics]:
        transform_state, seen = transform.observe(salted(key), state.transform, fresh)
        agent_state, observed = agent.observe(key, state.agent, fresh)
        return WithTransformState(agent_state, transform_state), merge_metrics(observed, seen)

    def update(key: Array, state: WithTransformState, data: Transition) -> tuple[WithTransformState, Metrics]:
        data = transform.apply(salted(key), state.transform, data)
        agent_state, metrics = agent.update(key, state.agent, data)
        return state._replace(agent=agent_state), metrics

    lifted = lift(agent)
    return lifted._replace(
        init=init,
        observe=observe,
        update=update,
        actor=lambda state: WithTransformState(agent.actor(state.agent), ()),
        hparams=Wrapped(agent.hparams, transform.hparams),
    )
