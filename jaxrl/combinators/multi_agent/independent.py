"""`independent`: a learner for each agent, all of one kind."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.combinators.members import members
from jaxrl.combinators.multi_agent.rows import axis_of_agents, every_agent
from jaxrl.types import Agent, Metrics, PyTree, Transition


def independent(agent: Agent, num_agents: int) -> Agent:
    """A learners with parameters, hyperparameters and memories of their own, each for one of A agents that are alike.

    Each learns from its own rows and takes the others for a part of the environment (Tan 1993). States have a leading
    axis [A]; metrics are means over the agents.

    Args:
      agent: for the observations and actions of one of them.

    Raises:
      ValueError: if num_agents < 2; while tracing, if rewards are not [..., A].
    """
    if num_agents < 2:
        raise ValueError(f"independent: num_agents is {num_agents}, must be >= 2")

    def move(tree: PyTree, source: int, target: int) -> PyTree:
        return jax.tree.map(lambda x: jnp.moveaxis(x, source, target), tree)

    def rows(data: Transition) -> Transition:
        return move(every_agent(data), axis_of_agents(data, "independent", num_agents), 0)

    def split(tree: PyTree) -> PyTree:
        return move(every_agent(tree) if isinstance(tree, Transition) else tree, 1, 0)

    each = members(agent, num_agents, split, rows, lambda tree: move(tree, 0, 1))

    def averaged(learn):
        def learning(key, state, data) -> tuple[PyTree, Metrics]:
            state, metrics = learn(key, state, data)
            return state, {name: jnp.mean(x, 0) for name, x in metrics.items()}

        return learning

    return each._replace(update=averaged(each.update), observe=averaged(each.observe))
