"""The axis of agents: what it is in data, and how it is folded into the axis of environments and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.types import Array, PyTree, Transition

SHARED = ("weight", "num_steps", "index")  # extras that may be one number for all agents of an environment


def axis_of_agents(data: Transition, name: str, num_agents: int) -> int:
    """The last axis of the reward.

    Raises:
      ValueError: if it is not of `num_agents`.
    """
    if data.reward.ndim < 2 or data.reward.shape[-1] != num_agents:
        raise ValueError(f"{name}: of {num_agents} agents, but the reward has shape {data.reward.shape}")
    return data.reward.ndim - 1


def every_agent(data: Transition) -> Transition:
    """Extras that an environment gives once for all agents (`SHARED`), given to each."""

    def repeat(x: Array) -> Array:
        return x if x.ndim >= data.reward.ndim else jnp.broadcast_to(x[..., None], data.reward.shape)

    return data._replace(extras={k: repeat(x) if k in SHARED else x for k, x in data.extras.items()})


def fold(tree: PyTree, axis: int = 0) -> PyTree:
    """[..., N, A, ...] -> [..., N * A, ...]: the column of agent a in environment n is n * A + a."""
    return jax.tree.map(lambda x: x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :]), tree)


def unfold(tree: PyTree, num_agents: int) -> PyTree:
    """[N * A, ...] -> [N, A, ...]"""
    return jax.tree.map(lambda x: x.reshape(-1, num_agents, *x.shape[1:]), tree)
