"""Diversity is all you need (Eysenbach et al. 2019, https://arxiv.org/abs/1802.06070): skills that can be told apart by
the states that they visit.
"""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.gradients import blank
from jaxrl.optim import adam, descend
from jaxrl.rewards.core import SkillModel, SkillModelState, followed, one_hot, without_optimizer
from jaxrl.tree import as_arrays
from jaxrl.types import Array, Metrics, Network, PyTree, Transition, item, weighted_mean


class DIAYNHparams(NamedTuple):
    """Numbers of `diayn`."""

    skill_learning_rate: float = 3e-4  # of the discriminator


def diayn(
    discriminator: Network,
    num_skills: int,
    *,
    optimizer: Callable[[Any], optax.GradientTransformation] = adam,
    hparams: DIAYNHparams = DIAYNHparams(),
) -> SkillModel:
    """reward = log q(z | s') - log p(z), with p uniform over `num_skills` skills and q a classifier of successors.

    Args:
      discriminator: network with outputs [..., num_skills], logits, for observations [..., obs].
      optimizer: from `DIAYNHparams` with a field `learning_rate`.

    Raises:
      ValueError: if num_skills < 2.
    """
    skills = one_hot(num_skills)

    def log_q(params: PyTree, observation: PyTree) -> Array:
        return jax.nn.log_softmax(discriminator.apply(params, (), observation)[1])

    def steps(hp: DIAYNHparams) -> optax.GradientTransformation:
        return optimizer(_Rate(hp.skill_learning_rate))

    def init(key: Array, hparams: DIAYNHparams, example: Transition) -> SkillModelState:
        hp, params = as_arrays(hparams), discriminator.init(key, item(example.observation))
        return SkillModelState(hp, params, steps(hp).init(params))

    def reward(state: SkillModelState, data: Transition) -> Array:
        return jnp.sum(log_q(state.params, data.next_observation) * data.extras["skill"], -1) + math.log(num_skills)

    def update(key: Array, state: SkillModelState, data: Transition) -> tuple[SkillModelState, Metrics]:
        del key
        data, skill = blank(data), followed(data)

        def loss(params: PyTree) -> tuple[Array, Array]:
            predicted = log_q(params, data.next_observation)
            right = jnp.argmax(predicted, -1) == jnp.argmax(skill, -1)
            return -weighted_mean(jnp.sum(predicted * skill, -1), data), weighted_mean(right.astype(jnp.float32), data)

        (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, opt_state = descend(steps(state.hparams), gradient, state.opt_state, state.params)
        return SkillModelState(state.hparams, params, opt_state), {"loss": value, "accuracy": accuracy}

    def toward(state: SkillModelState, observation: PyTree, goal: PyTree) -> Array:
        del observation
        return skills.toward(log_q(state.params, goal))

    return SkillModel(skills, init, reward, update, toward, without_optimizer, hparams)


class _Rate(NamedTuple):
    learning_rate: Array
