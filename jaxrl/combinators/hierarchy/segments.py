"""What the combinators of hierarchies carry: hyperparameters, states, and the segment that a step belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.loop import merge_metrics
from jaxrl.rewards.core import RewardModel
from jaxrl.types import Array, Metrics, PyTree, Transition, num_steps


class HierarchicalHparams(NamedTuple):
    """Numbers of `hierarchical`."""

    segment_discount: float = 0.99  # [0, 1], of rewards within a segment: the manager's discount


class Levels(NamedTuple):
    """Hyperparameters of `hierarchical`: those of its parts, and its own."""

    manager: PyTree
    worker: PyTree
    intrinsic: PyTree = ()
    own: HierarchicalHparams = HierarchicalHparams()


class HierarchicalState(NamedTuple):
    """State of `hierarchical`."""

    hparams: HierarchicalHparams
    manager: PyTree
    worker: PyTree
    intrinsic: PyTree  # of the reward model


class Segment(NamedTuple):
    """The segment that a row belongs to, as it is before the row; `extras["segment"]`, leaves [..., N].

    Attributes:
      start: the observation that the manager saw.
      action: what it chose.
      extras: what it recorded.
      age: int32, steps so far.
      elapsed: int32, primitive steps so far: those of the rows' `num_steps`.
      total: discounted reward so far.
      draw: uniform in [0, 1), what `stop` is compared with; () without `stop`.
      trace: observations and actions [..., L, ...] so far, the row's own among them; () if nothing reads it.
    """

    start: PyTree
    action: PyTree
    extras: PyTree
    age: Array
    elapsed: Array
    total: Array
    draw: PyTree
    trace: PyTree


class HierarchicalMemory(NamedTuple):
    """Memory of `hierarchical`."""

    manager: PyTree
    worker: PyTree
    segment: Segment
    ended: Array  # [N] bool: the manager is to choose


def advanced(hp: HierarchicalHparams, data: Transition) -> tuple[Array, Array]:
    """Discounted reward and primitive steps of each row's segment, up to and with the row."""
    segment = data.extras["segment"]
    total = segment.total + hp.segment_discount**segment.elapsed * data.reward
    return total, segment.elapsed + num_steps(data)


def as_reward_model(intrinsic: Any) -> RewardModel:
    """A function (step, goal) -> reward, or None for the reward of the environment, as a `RewardModel`."""
    if hasattr(intrinsic, "reward"):
        return intrinsic
    function = intrinsic or (lambda step, goal: step.reward)
    return RewardModel(
        lambda key, hparams, example: (),
        lambda state, data: function(data, data.extras["goal"]),
        lambda key, state, data: (state, {}),
    )


def prefixed(name: str, metrics: Metrics) -> Metrics:
    """Metrics as those of a part."""
    return {f"{name}/{k}": x for k, x in metrics.items()}


def of_both(upper: str, above: Metrics, lower: str, below: Metrics) -> Metrics:
    """Metrics of two parts. Replay outside has one priority for a row: the lower part's, which learns from all."""
    priority = {"priority": below["priority"]} if "priority" in below else {}
    above, below = ({k: x for k, x in part.items() if k != "priority"} for part in (above, below))
    return merge_metrics(prefixed(upper, above), prefixed(lower, below), priority)


def written(trace: PyTree, index: Array, step: PyTree) -> PyTree:
    """`trace` [N, L, ...] with `step` [N, ...] at `index` [N]."""
    return jax.tree.map(lambda x, new: x.at[jnp.arange(x.shape[0]), index].set(new, mode="drop"), trace, step)
