"""Bundles of learned rewards, and the priors that skills are drawn from."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.keys import integers
from jaxrl.spaces import Box
from jaxrl.types import Array, PyTree, Transition


class RewardModel(NamedTuple):
    """A reward that is learned.

    Attributes:
      init: (key, hparams, example) -> state, with `hparams` in a field of that name.
      reward: (state, data) -> shape of data.reward; elementwise over the rows of data.
      update: (key, state, data) -> state, metrics.
      hparams: defaults.
    """

    init: Any
    reward: Any
    update: Any
    hparams: PyTree = ()


class Skills(NamedTuple):
    """A distribution of skills z.

    Attributes:
      space: of a skill, a Box [K].
      sample: (key, num) -> skills [num, K].
      direction: (skill [..., K]) -> [..., K], where in a latent space of K dimensions a skill is to lead.
      toward: (vector [..., K]) -> the skill [..., K] of the direction nearest to a vector's.
    """

    space: Box
    sample: Any
    direction: Any
    toward: Any


class SkillModel(NamedTuple):
    """A reward model of skills: rows of data have the skill that was followed in extras["skill"] [..., K].

    Attributes:
      skills: what skills are, and how they are drawn.
      init, reward, update: those of a `RewardModel`; observations are the environment's, without skills in them.
      toward: (state, observation [..., obs], goal [..., obs]) -> the skill [..., K] that leads from one to the other.
      actor: (state) -> state without what `toward` does not need.
      hparams: defaults.
    """

    skills: Skills
    init: Any
    reward: Any
    update: Any
    toward: Any
    actor: Any
    hparams: PyTree = ()


class SkillModelState(NamedTuple):
    """State of the skill models here; `params` and `opt_state` hold a part for each network and multiplier."""

    hparams: PyTree
    params: PyTree
    opt_state: PyTree


def without_optimizer(state: SkillModelState) -> SkillModelState:
    """`actor` of the skill models here."""
    return state._replace(opt_state=())


def followed(data: Transition) -> Array:
    """extras["skill"] [..., K], zeros in the rows of weight 0: see `gradients.blank`."""
    skill = data.extras["skill"]
    return jnp.where(data.extras["weight"][..., None] > 0, skill, 0.0) if "weight" in data.extras else skill


def one_hot(num: int) -> Skills:
    """`num` skills, each as likely; their directions are centered: 1 in their own dimension, -1 / (num - 1) in others.

    Raises:
      ValueError: if num < 2.
    """
    if num < 2:
        raise ValueError(f"one_hot: num is {num}, must be >= 2")

    def direction(skill: Array) -> Array:
        return (skill - 1.0 / num) * (num / (num - 1.0))

    return Skills(
        Box(0.0, 1.0, (num,)),
        lambda key, n: jax.nn.one_hot(integers(key, (n,), num), num),
        direction,
        lambda vector: jax.nn.one_hot(jnp.argmax(vector, -1), num),
    )


def sphere(size: int) -> Skills:
    """Directions in `size` dimensions: skills are uniform on the unit sphere, for a size of 1 on {-1, 1}.

    Raises:
      ValueError: if size < 1.
    """
    if size < 1:
        raise ValueError(f"sphere: size is {size}, must be >= 1")

    def unit(vector: Array) -> Array:
        return vector * jax.lax.rsqrt(jnp.maximum(jnp.sum(vector**2, -1, keepdims=True), 1e-12))

    return Skills(
        Box(-1.0, 1.0, (size,)),
        lambda key, n: jnp.clip(unit(jax.random.normal(key, (n, size))), -1.0, 1.0),
        lambda skill: skill,
        unit,
    )
