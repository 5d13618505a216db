"""`sequencer`: a learned gate over frozen or scripted primitives, with retries.

The shape of multi-stage manipulation by a library of skills (Luo et al. 2023, https://arxiv.org/abs/2307.08927): each
primitive runs until it says that it is done or its time is up, then the gate chooses again, with the history of what
was tried, and how it ended, before its eyes. So it can repeat what failed, and move on where the observation alone does
not tell. The gate learns by reinforcement, as in a semi-MDP, or by imitation: `offline(sequencer(primitives, bc),
data)` on steps that a sequencer with another gate recorded.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

import jax
import jax.numpy as jnp

from jaxrl.combinators.hierarchy.hierarchical import hierarchical
from jaxrl.combinators.hierarchy.segments import HierarchicalHparams
from jaxrl.combinators.hierarchy.switch import one_hot, switch
from jaxrl.spaces import Box, Dict, Discrete, Space
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition


class Primitive(NamedTuple):
    """An option that is given.

    Attributes:
      policy: an agent that does not learn: `frozen(agent, state)`, `scripted(function)`.
      termination: (next observation [..., obs]) -> bool [...], or the probability, that it is done.
      horizon: steps after which it ends anyway.
    """

    policy: Agent
    termination: Callable[[PyTree], Array]
    horizon: int


class HistoryMemory(NamedTuple):
    """Memory of `with_history`."""

    agent: PyTree
    history: Array  # [N, L, K + 1]


def sequencer(
    primitives: Sequence[Primitive],
    gate: Agent,
    *,
    history: int = 4,
    hparams: HierarchicalHparams = HierarchicalHparams(),
) -> Agent:
    """A gate that runs one primitive after the other: `hierarchical` with a history.

    Args:
      gate: for observations of `history_space(...)`, and actions in Discrete(K); see `with_history`.
      history: how many primitives the gate remembers.

    Raises:
      ValueError: without primitives, for a horizon below 1, or history < 1.
    """
    if not primitives:
        raise ValueError("sequencer: needs at least one primitive")
    for i, primitive in enumerate(primitives):
        if primitive.horizon < 1:
            raise ValueError(f"sequencer: the horizon of primitive {i} is {primitive.horizon}, must be >= 1")
    num = len(primitives)

    def stop(observation: PyTree, option: Array) -> Array:
        done = [jnp.asarray(p.termination(observation), jnp.float32) for p in primitives]
        return jnp.sum(jnp.stack(done, -1) * one_hot(option, num), -1)

    return hierarchical(
        with_history(gate, num, history),
        switch([primitive.policy for primitive in primitives]),
        goal_space=Discrete(num),
        embed=lambda observation, option: {"observation": observation, "option": one_hot(option, num)},
        period=lambda option: jnp.asarray([primitive.horizon for primitive in primitives])[option],
        stop=stop,
        hparams=hparams,
    )


def with_history(agent: Agent, num_actions: int, length: int) -> Agent:
    """An agent over Discrete(K) that sees {"observation", "history": [..., L, K + 1]}: its last actions, newest first.

    An entry is the action, one-hot, and 1 if the data has extras["reached"] there (in a sequencer: the primitive said
    that it is done), else 0; zeros before the first. The state and the hyperparameters are the agent's.

    Raises:
      ValueError: if length < 1.
    """
    if length < 1:
        raise ValueError(f"with_history: length is {length}, must be >= 1")

    def joined(observation: PyTree, history: Array) -> dict:
        return {"observation": observation, "history": history}

    def pushed(history: Array, data: Transition) -> Array:
        reached = data.extras.get("reached", jnp.zeros_like(data.terminated)).astype(jnp.float32)
        entry = jnp.concatenate([one_hot(data.action, num_actions), reached[..., None]], -1)
        return jnp.concatenate([entry[..., None, :], history[..., :-1, :]], -2)

    def view(data: Transition, history: Array) -> Transition:
        return data._replace(
            observation=joined(data.observation, history),
            next_observation=joined(data.next_observation, pushed(history, data)),
            extras={name: x for name, x in data.extras.items() if name != "history"},
        )

    def init(key: Array, hparams: PyTree, example: Transition) -> PyTree:
        history = jnp.zeros((*example.reward.shape, length, num_actions + 1))
        return agent.init(key, hparams, view(example, history))

    def init_memory(key: Array, state: PyTree, observation: PyTree) -> HistoryMemory:
        history = jnp.zeros((jax.tree.leaves(observation)[0].shape[0], length, num_actions + 1))
        return HistoryMemory(agent.init_memory(key, state, joined(observation, history)), history)

    def forward(act: Callable) -> Callable:
        def acting(key: Array, state: PyTree, memory: HistoryMemory, observation: PyTree):
            inner, action, extras = act(key, state, memory.agent, joined(observation, memory.history))
            return memory._replace(agent=inner), action, {**extras, "history": memory.history}

        return acting

    def remember(state: PyTree, memory: HistoryMemory, step: Transition) -> HistoryMemory:
        inner = agent.remember(state, memory.agent, view(step, memory.history))
        return HistoryMemory(inner, pushed(memory.history, step))

    def learn(learn: Any) -> Callable:
        def learning(key: Array, state: PyTree, data: Transition) -> tuple[PyTree, Metrics]:
            return learn(key, state, view(data, data.extras["history"]))

        return learning

    return agent._replace(
        init=init,
        init_memory=init_memory,
        act=forward(agent.act),
        act_greedy=forward(agent.act_greedy),
        update=learn(agent.update),
        remember=remember,
        observe=learn(agent.observe),
    )


def history_space(observation_space: Space, num_primitives: int, history: int = 4) -> Dict:
    """Of what the gate of a sequencer sees."""
    shape = (history, num_primitives + 1)
    return Dict({"observation": observation_space, "history": Box(0.0, 1.0, shape)})
