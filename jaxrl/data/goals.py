"""Goals for offline data: any state that the data visited may have been one, so rows are given goals as they are drawn.

Observations are dicts with "achieved_goal" (what of the state is a goal) and "desired_goal", as in
Gymnasium-Robotics. Three transforms write what learners of goals read, anew for every batch (OGBench, Park et al.
2024, https://arxiv.org/abs/2410.20092, impls/utils/datasets.py):

    relabel_goals    a goal in the observations, reward -1 a step and 0 with an end in the goal: for any learner
    subgoals         the state k steps ahead, for the two policies of a hierarchy
    option_targets   the row as an option of n steps, for a temporally abstracted value

Rows of a batch look other rows up, so `offline` gives each batch all of them, once, as extras["shared"]:

    data = with_rows(transitions)
    offline(with_transform(learner, relabel_goals()), data, batch_size=256, shared=trajectories(data))
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.keys import integers
from jaxrl.tree import as_arrays
from jaxrl.types import Array, PyTree, Transform, Transition, is_last, weight


class Trajectories(NamedTuple):
    """The states of a dataset, as goals are looked up in them.

    Attributes:
      state: observations [D, ...] without "desired_goal".
      last: [D] int32, the last row of the trajectory that a row is in.
      weight: [D], or None; rows of weight 0 are no goals.
    """

    state: dict[str, PyTree]
    last: Array
    weight: Array | None


def trajectories(data: Transition) -> Trajectories:
    """What `relabel_goals`, `subgoals` and `option_targets` look up: rows [D], episode after episode.

    Raises:
      ValueError: if observations are no dicts with "achieved_goal" and "desired_goal".
    """
    _check(data.observation)
    rows = jnp.arange(data.reward.shape[0], dtype=jnp.int32)
    ends = jnp.where(is_last(data), rows, rows[-1])
    return Trajectories(without_goal(data.observation), jax.lax.cummin(ends, reverse=True), data.extras.get("weight"))


def with_rows(data: Transition) -> Transition:
    """Adds extras["row"], the number of each row [D]."""
    rows = jnp.arange(data.reward.shape[0], dtype=jnp.int32)
    return data._replace(extras={**data.extras, "row": rows})


def goal_view(data: Transition, achieved: Callable[[Array], Array]) -> Transition:
    """Observations as dicts {"observation", "achieved_goal", "desired_goal"}, for data without goals of its own.

    Args:
      achieved: observation [D, ...] -> what of it is a goal [D, ...]; "desired_goal" is that too, until relabelled.
    """

    def view(observation):
        goal = achieved(observation)
        return {"observation": observation, "achieved_goal": goal, "desired_goal": goal}

    return data._replace(observation=view(data.observation), next_observation=view(data.next_observation))


def with_goal(state: dict[str, PyTree], goal: PyTree) -> dict[str, PyTree]:
    """An observation with another "desired_goal"."""
    return {**state, "desired_goal": goal}


def without_goal(observation: dict[str, PyTree]) -> dict[str, PyTree]:
    """An observation without its "desired_goal"."""
    return {name: x for name, x in observation.items() if name != "desired_goal"}


def later_rows(key: Array, row: Array, last: Array, discount: Array | float) -> Array:
    """Rows [B] after `row` in its trajectory, `last` where there is none.

    t + min(K, last - t) with P(K = k) = (1 - discount) discount^(k - 1), k >= 1; for discount 1, uniform in t + 1 ..
    last.

    Args:
      row, last: [B] int32.
      discount: in [0, 1].
    """
    geometric_key, uniform_key = jax.random.split(key)
    left = last - row
    u = jax.random.uniform(geometric_key, row.shape)
    steps = jnp.floor(jnp.log1p(-u) / jnp.log(jnp.clip(discount, 1e-30, 1.0 - 1e-7)))
    geometric = 1 + jnp.minimum(steps, left.astype(jnp.float32)).astype(jnp.int32)
    uniform = 1 + integers(uniform_key, row.shape, jnp.maximum(left, 1))
    return row + jnp.minimum(jnp.where(discount < 1.0, geometric, uniform), left)


class GoalHparams(NamedTuple):
    """Numbers of `relabel_goals`."""

    p_current: float = 0.2  # [0, 1] of goals that are the row itself
    p_trajectory: float = 0.5  # [0, 1] of goals that are a later row of its trajectory; all others are any row
    goal_discount: float = 0.99  # [0, 1] of the geometric distribution of later rows; 1: all are equally likely


def relabel_goals(hparams: GoalHparams = GoalHparams()) -> Transform:
    """A goal for each row: itself, a later row of its trajectory, or any row of the data.

        reward = 0 and terminated where the row is the goal, else reward = -1

    so that V(s, g) = -(1 - discount^d) / (1 - discount) for a goal that is d steps away. extras["goal_row"] says which
    row is the goal.

    Raises:
      ValueError: in `apply`, if the batch has no extras["row"] or extras["shared"].
    """

    def apply(key: Array, hp: GoalHparams, data: Transition) -> Transition:
        row, shared = _read("relabel_goals", data)
        kind_key, later_key, any_key = jax.random.split(key, 3)
        u = jax.random.uniform(kind_key, row.shape)
        later = later_rows(later_key, row, shared.last[row], hp.goal_discount)
        goal = jnp.where(u < hp.p_current + hp.p_trajectory, later, integers(any_key, row.shape, shared.last.shape[0]))
        goal = jnp.where(u < hp.p_current, row, goal)
        there, wanted = goal == row, _take(shared.state["achieved_goal"], goal)
        return data._replace(
            observation=with_goal(data.observation, wanted),
            next_observation=with_goal(data.next_observation, wanted),
            reward=there.astype(data.reward.dtype) - 1.0,
            terminated=there,
            truncated=data.truncated & ~there,
            extras={**data.extras, **_weight(data, shared, goal), "goal_row": goal},
        )

    return _transform(apply, hparams)


class SubgoalHparams(NamedTuple):
    """Numbers of `subgoals`."""

    subgoal_steps: float = 25.0  # k >= 1, steps that a subgoal is ahead
    high_p_random: float = 0.0  # [0, 1] of the high level's goals that are any row, not a later one of the trajectory


def subgoals(hparams: SubgoalHparams = SubgoalHparams()) -> Transform:
    """What two policies learn from: the low one to reach s_{t+k}, the high one to name it on the way to a goal g.

    extras["subgoal"] is the goal of s_{t+k}, extras["high_goal"] g, extras["high_target"] the state s_{t+k}, or that of
    g where it comes first; never beyond the trajectory's end. g is uniform among later rows, or any row (HIQL, Park et
    al. 2023, https://arxiv.org/abs/2307.11949).
    """

    def apply(key: Array, hp: SubgoalHparams, data: Transition) -> Transition:
        row, shared = _read("subgoals", data)
        kind_key, later_key, any_key = jax.random.split(key, 3)
        last = shared.last[row]
        ahead = jnp.minimum(row + hp.subgoal_steps.astype(jnp.int32), last)
        later, anywhere = later_rows(later_key, row, last, 1.0), integers(any_key, row.shape, shared.last.shape[0])
        random = jax.random.uniform(kind_key, row.shape) < hp.high_p_random
        goal, target = jnp.where(random, anywhere, later), jnp.where(random, ahead, jnp.minimum(ahead, later))
        achieved = shared.state["achieved_goal"]
        fields = {
            "subgoal": _take(achieved, ahead),
            "high_goal": _take(achieved, goal),
            "high_target": _take(shared.state, target),
        }
        return data._replace(extras={**data.extras, **_weight(data, shared, ahead, goal, target), **fields})

    return _transform(apply, hparams)


class OptionHparams(NamedTuple):
    """Numbers of `option_targets`."""

    option_steps: float = 10.0  # n >= 1


def option_targets(hparams: OptionHparams = OptionHparams()) -> Transform:
    """The row as one step of an option, n steps of the data (OTA, Ahn et al. 2025, https://arxiv.org/abs/2505.12737).

        reward = 0 and terminated where the goal is reached within n steps, else reward = -1 and the successor s_{t+n}

    so that V^h(s, g) counts options, not steps: about 1 / n of the horizon. Comes after `relabel_goals`;
    extras["option"] is a `Transition`, whose weight is 0 where the trajectory ends before the option does.
    """

    def apply(key: Array, hp: OptionHparams, data: Transition) -> Transition:
        del key
        row, shared = _read("option_targets", data)
        last, goal, end = shared.last[row], data.extras["goal_row"], row + hp.option_steps.astype(jnp.int32)
        reached = (row <= goal) & (goal <= jnp.minimum(end, last))
        following = jnp.minimum(end, last)
        there = weight(data) * (reached | (end <= last))
        if shared.weight is not None:
            there = there * shared.weight[following]
        option = data._replace(
            reward=reached.astype(data.reward.dtype) - 1.0,
            terminated=reached,
            truncated=jnp.zeros_like(reached),
            next_observation=with_goal(_take(shared.state, following), data.observation["desired_goal"]),
            extras={"weight": there.astype(jnp.float32)},
        )
        return data._replace(extras={**data.extras, "option": option})

    return _transform(apply, hparams)


def _transform(apply: Callable, hparams: Any) -> Transform:
    """A transform whose state is its hyperparameters."""
    return Transform(
        init=lambda key, hparams, example: GoalState(as_arrays(hparams)),
        apply=lambda key, state, data: apply(key, state.hparams, data),
        observe=lambda key, state, fresh: (state, {}),
        hparams=hparams,
    )


class GoalState(NamedTuple):
    """State of the transforms of this file."""

    hparams: PyTree


def _read(name: str, data: Transition) -> tuple[Array, Trajectories]:
    for field in ("row", "shared"):
        if field not in data.extras:
            raise ValueError(
                f"{name}: the batch has no extras[{field!r}]; see jaxrl.data.goals and offline(shared=...)"
            )
    return data.extras["row"], data.extras["shared"]


def _weight(data: Transition, shared: Trajectories, *rows: Array) -> dict[str, Array]:
    """The weight of a batch whose rows look `rows` up: 0 where one of those is not there."""
    if shared.weight is None:
        return {}
    there = weight(data)
    for row in rows:
        there = jnp.where(shared.weight[row] > 0, there, 0.0)
    return {"weight": there}


def _take(tree: PyTree, rows: Array) -> PyTree:
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0, mode="clip"), tree)


def _check(observation: PyTree) -> None:
    found = sorted(observation) if isinstance(observation, dict) else type(observation).__name__
    if not isinstance(observation, dict) or not {"achieved_goal", "desired_goal"} <= observation.keys():
        raise ValueError(f"goals: the observation is {found}, needs a dict with 'achieved_goal' and 'desired_goal'")
