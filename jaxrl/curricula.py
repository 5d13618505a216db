"""Curricula: which environment parameters a reset gets. `online(agent, env, curriculum=...)` takes one."""

from __future__ import annotations

from typing import Callable

import jax

from jaxrl import counters, parallel
from jaxrl.types import Array, Curriculum, PyTree, Transition


def randomized(sample: Callable[[Array, PyTree], PyTree]) -> Curriculum:
    """Domain randomization: every reset draws its own parameters.

    Args:
      sample: (key, the environment's params) -> params of one environment.
    """

    def draw(key: Array, params: PyTree, agent_state: PyTree, num_envs: int) -> PyTree:
        return jax.vmap(sample, (0, None))(jax.random.split(key, num_envs), params)

    def update(key: Array, params: PyTree, agent_state: PyTree, data: Transition):
        return params, {}

    return Curriculum(lambda key, params: params, draw, update, axes=0)


def scheduled(schedule: Callable[[PyTree, Array], PyTree]) -> Curriculum:
    """Parameters that all environments share and that change with the steps taken, from one rollout to the next.

    Args:
      schedule: (the environment's params, [] float32 environment steps so far) -> params.
    """

    def init(key: Array, params: PyTree) -> tuple[PyTree, counters.Count]:
        return params, counters.zero()

    def sample(key: Array, state: tuple, agent_state: PyTree, num_envs: int) -> PyTree:
        params, num_steps = state
        return schedule(params, num_steps.rounded)

    def update(key: Array, state: tuple, agent_state: PyTree, data: Transition) -> tuple[tuple, dict]:
        params, num_steps = state
        return (params, counters.advance(num_steps, parallel.rollout_steps(data.reward))), {}

    return Curriculum(init, sample, update, axes=None)
