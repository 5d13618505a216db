"""What a manager's actions are relabelled with, when it learns off-policy under a worker that has changed since."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.spaces import Box
from jaxrl.types import Array, PyTree, Transition


class Relabel(NamedTuple):
    """What to replace actions of a manager with.

    Attributes:
      action: (key, policy, data) -> actions. `data` is the manager's, rows of weight 0 among them;
        `policy(start, action, observation)` is what the worker does now, leaves [M, ...].
      length: L; data.extras["trace"] has the first L observations and actions of each row's segment, [..., L, ...], and
        extras["age"] the index of the last one. 0: there is no trace.
    """

    action: Any
    length: int = 0


def hindsight(achieved: Callable[[PyTree, PyTree], PyTree]) -> Relabel:
    """What was reached, as if it had been chosen: `achieved(start, end)` is the action that asks for it.

    Hindsight action transitions of HAC (Levy et al. 2019, https://arxiv.org/abs/1712.00948): the manager learns as if
    the worker were perfect.
    """
    return Relabel(lambda key, policy, data: achieved(data.observation, data.next_observation))


def correction(
    achieved: Callable[[PyTree, PyTree], Array], space: Box, length: int, *, num_samples: int = 8, spread: float = 0.5
) -> Relabel:
    """HIRO's off-policy correction (Nachum et al. 2018, https://arxiv.org/abs/1805.08296, section 3.3).

    Of the candidates g (the action itself, what was achieved, `num_samples` Gaussian ones around that) the one that
    makes what the worker did most likely today:

        log pi(a_0 .. a_L | s_0 .. s_L, g)  ~  -1/2 sum_i |a_i - mu(s_i, g)|^2

    Args:
      achieved: (start, end) -> the action that asks for what was reached, [..., D].
      space: of the manager's actions, bounded; candidates are clipped to it.
      length: longest segment, in steps.
      num_samples: 8 in the paper.
      spread: their standard deviation, in half ranges of `space`, as in the authors' code.

    Raises:
      ValueError: if num_samples < 0, or the space is not bounded.
    """
    if num_samples < 0:
        raise ValueError(f"correction: num_samples is {num_samples}, must be >= 0")
    if not space.bounded:
        raise ValueError(f"correction: space is {space}, must be bounded")

    def action(key: Array, policy: Callable, data: Transition) -> Array:
        low, high = space.bounds()
        reached = achieved(data.observation, data.next_observation)
        noise = spread * 0.5 * (high - low) * jax.random.normal(key, (num_samples, *reached.shape))
        goals = jnp.concatenate(
            [data.action[None], jnp.clip(jnp.concatenate([reached[None], reached + noise]), low, high)]
        )
        log_prob = jax.lax.map(lambda goal: likelihood(policy, data, goal), goals)
        best = jnp.argmax(log_prob, 0)
        return jnp.take_along_axis(goals, best[(None, ..., *[None] * (goals.ndim - best.ndim - 1))], 0)[0]

    return Relabel(action, length)


def likelihood(policy: Callable, data: Transition, goal: Array) -> Array:
    """-1/2 sum_i |a_i - mu(s_i, goal)|^2 over the steps of each row's segment, shape of the reward."""
    (observations, actions), axes = data.extras["trace"], data.reward.ndim
    length = actions.shape[axes]

    def steps(x: Array) -> Array:
        """[..., x] -> [... * L, x], once for each step."""
        wide = jnp.broadcast_to(jnp.expand_dims(x, axes), (*x.shape[:axes], length, *x.shape[axes:]))
        return wide.reshape(-1, *x.shape[axes:])

    seen = jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes + 1 :]), observations)
    done = policy(jax.tree.map(steps, data.observation), steps(goal), seen).reshape(actions.shape)
    error = jnp.sum(jnp.square(actions - done).reshape(*actions.shape[: axes + 1], -1), -1)
    there = jnp.arange(length) <= data.extras["age"][..., None]
    return -0.5 * jnp.sum(jnp.where(there, error, 0.0), -1)
