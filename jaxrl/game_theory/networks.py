"""Joint strategies in which some agents see what others do: Bayesian networks of softmax tables, by exact gradients."""

from __future__ import annotations

from typing import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def network_strategy(tables: Sequence[jax.Array]) -> jax.Array:
    """pi(a) = prod_i softmax(table_i)(a_i | a_parents(i)), a joint strategy [n_1, ..., n_A].

    Args:
      tables: logits of each agent, [m_1, ..., m_A] with m_j = n_j for the agent itself and its parents, else 1.
    """
    joint = jnp.ones(())
    for i, table in enumerate(tables):
        joint = joint * jax.nn.softmax(table, axis=i)
    return joint


def network_gradient_ascent(
    key: jax.Array,
    payoff: jax.Array,
    parents: np.ndarray,
    *,
    num_steps: int,
    learning_rate: float = 1.0,
    scale: float = 1.0,
) -> tuple[list[jax.Array], jax.Array]:
    """Exact gradient ascent on a team's expected payoff under `network_strategy` (Chen and Zhang 2023,
    https://arxiv.org/abs/2306.01920).

    It converges to a Nash equilibrium of the agents whose actions are conditioned so. Where everybody sees all who come
    before, that is more often the best joint action, but not always: who comes first may give up an action before
    those who see it have learned to answer it.

    Args:
      payoff: [n_1, ..., n_A], the same for all.
      parents: [A, A] bool, [i, j] where i sees what j does, without cycles.
      learning_rate: of plain gradient steps.
      scale: deviation of the first logits, normal.

    Returns:
      tables, and the expected payoff before each step [num_steps].

    Raises:
      ValueError: if parents is not [A, A], or has a cycle.
    """
    payoff, parents = jnp.asarray(payoff, jnp.float32), np.asarray(parents, bool)
    num = payoff.ndim
    if parents.shape != (num, num):
        raise ValueError(f"network_gradient_ascent: parents has shape {parents.shape}, must be {(num, num)}")
    if np.linalg.matrix_power(parents.astype(np.int64), num).any():
        raise ValueError(f"network_gradient_ascent: parents {parents.astype(int).tolist()} has a cycle")
    shapes = [tuple(n if j == i or parents[i, j] else 1 for j, n in enumerate(payoff.shape)) for i in range(num)]
    keys = jax.random.split(key, num)
    tables = [scale * jax.random.normal(k, shape) for k, shape in zip(keys, shapes)]

    def step(tables, _):
        value, gradient = jax.value_and_grad(lambda t: jnp.sum(network_strategy(t) * payoff))(tables)
        return [t + learning_rate * g for t, g in zip(tables, gradient)], value

    return jax.lax.scan(step, tables, None, length=num_steps)
