"""What a buffer reads at an index: a row, an n-step transition, a sequence, or a row with a goal in hindsight."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.buffers.ring import Ring, has_successor, read, rows_after, take
from jaxrl.tree import select
from jaxrl.types import Array, PyTree, Transition, is_last, num_steps, weight


class Reader(NamedTuple):
    """How `replay` makes data out of rows.

    Attributes:
      read: (key, hparams, ring, time [B], column [B]) -> data [B], or [L, B].
      length: how many rows there must be from the first one on.
      single: whether it reads single rows only, whose neighbours need not be stored beside them.
      sequence: whether data has a leading axis of time.
      hparams: defaults.
    """

    read: Any
    length: int = 1
    single: bool = False
    sequence: bool = False
    hparams: PyTree = ()


def rows() -> Reader:
    """Transitions [B] as they were stored."""
    return Reader(lambda key, hparams, ring, time, column: read(ring, time, column), single=True)


class NStepHparams(NamedTuple):
    """Numbers of `n_step`."""

    n_step_discount: float = 0.99  # of the learner: rewards within a transition are summed with it


def n_step(n: int, hparams: NStepHparams = NStepHparams()) -> Reader:
    """Transitions over n steps: r_t + discount r_{t+1} + .. + discount^{n-1} r_{t+n-1}, then the successor of the last.

    Sutton and Barto 2018, section 7.1. A transition is shorter where the episode ends or at the write head, so that it
    never crosses either; `extras["num_steps"]` says how long it is, and `bootstrap(data, discount)` reads it.

    Raises:
      ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"n_step: n is {n}, must be >= 1")

    def read_n_steps(key: Array, hparams: NStepHparams, ring: Ring, time: Array, column: Array) -> Transition:
        del key
        offsets = jnp.arange(n)[:, None]
        at, written = time + offsets, offsets < rows_after(ring, time)
        few = ring.data._replace(observation=(), action=(), next_observation=())
        few = few._replace(extras={k: v for k, v in few.extras.items() if k in ("weight", "num_steps")})
        window = take(few, at, column)  # [n, B]
        written = _trailing(written, window.reward)
        # A row that cannot bootstrap ends the window before it; one that is not there is passed over.
        ends_before = ~(written & has_successor(ring, at, window))
        ends_after = is_last(window) & (weight(window) > 0)
        reached = _none_before(ends_after) & _none_so_far(ends_before)
        there = reached & (weight(window) > 0)
        steps = jnp.where(there, num_steps(window), 0).astype(jnp.int32)
        passed = jnp.cumsum(steps, axis=0)
        reward = jnp.where(there, hparams.n_step_discount ** (passed - steps) * window.reward, 0.0)
        last = jnp.max(jnp.where(there, _trailing(offsets, window.reward), 0), axis=0)  # [B], or [B, A]
        at_last = lambda x: jnp.take_along_axis(x, last[None], axis=0)[0]  # noqa: E731
        row_of_last = time + last.reshape(time.shape[0], -1).max(axis=1)
        first, final = read(ring, time, column), read(ring, row_of_last, column)
        start = jnp.where(there[0], weight(window)[0], 0.0)
        return first._replace(
            reward=jnp.sum(reward, axis=0),
            terminated=at_last(window.terminated),
            truncated=at_last(window.truncated),
            next_observation=final.next_observation,
            extras={**first.extras, "weight": start, "num_steps": jnp.maximum(passed[-1], 1)},
        )

    return Reader(read_n_steps, hparams=hparams)


def sequences(length: int) -> Reader:
    """Sequences [L, B] of `length` consecutive steps of one environment, for recurrent learners.

    Episodes may end within; `is_last` says where, and what `act` recorded (`extras["memory"]`) is there for each row.

    Raises:
      ValueError: if length < 1.
    """
    if length < 1:
        raise ValueError(f"sequences: length is {length}, must be >= 1")
    offsets = jnp.arange(length)[:, None]

    def read_sequences(key: Array, hparams, ring: Ring, time: Array, column: Array) -> Transition:
        return read(ring, time + offsets, jnp.broadcast_to(column, (length, *column.shape)))

    return Reader(read_sequences, length, sequence=True)


class HindsightHparams(NamedTuple):
    """Numbers of `hindsight`."""

    relabel_fraction: float = 0.8  # [0, 1] of rows whose goal is replaced


def hindsight(
    relabel: Callable[[Transition, Transition], Transition],
    horizon: int,
    hparams: HindsightHparams = HindsightHparams(),
) -> Reader:
    """Transitions [B], some with a goal that was reached later in the same episode.

    Hindsight experience replay with its strategy "future" (Andrychowicz et al. 2017, https://arxiv.org/abs/1707.01495):
    a row uniform among those from t to the end of the episode (or the write head), its goal given by `relabel`.

    Args:
      relabel: (data [B], later [B]) -> data [B] as if what `later.next_observation` reached had been the goal: new
        goals in both observations, and the reward that they give; `goal_relabel` makes one.
      horizon: rows that are searched for the end of an episode: its longest length.

    Raises:
      ValueError: if horizon < 1.
    """
    if horizon < 1:
        raise ValueError(f"hindsight: horizon is {horizon}, must be >= 1")

    def read_with_goals(key: Array, hparams: HindsightHparams, ring: Ring, time: Array, column: Array) -> Transition:
        offsets = jnp.arange(horizon)[:, None]
        flags = ring.data._replace(observation=(), action=(), next_observation=(), extras={})
        window = take(flags, time + offsets, column)
        usable = (offsets < rows_after(ring, time)) & has_successor(ring, time + offsets, window)
        reached = _none_before(is_last(window)) & _none_so_far(~usable)
        count = jnp.maximum(jnp.sum(reached, axis=0), 1)
        which, whether = jax.random.uniform(key, (2, *time.shape))
        ahead = jnp.minimum((which * count).astype(jnp.int32), count - 1)
        data, later = read(ring, time, column), read(ring, time + ahead, column)
        return select(whether < hparams.relabel_fraction, relabel(data, later), data)

    return Reader(read_with_goals, hparams=hparams)


def goal_relabel(
    reward: Callable[[PyTree, PyTree], tuple[Array, Array]],
) -> Callable[[Transition, Transition], Transition]:
    """`relabel` for observations that are dicts with "achieved_goal" and "desired_goal", as in Gymnasium-Robotics.

    Args:
      reward: (achieved [B, ...], desired [B, ...]) -> reward [B] and terminated [B] of a step that reached `achieved`.
    """

    def relabel(data: Transition, later: Transition) -> Transition:
        goal = later.next_observation["achieved_goal"]
        value, terminated = reward(data.next_observation["achieved_goal"], goal)
        return data._replace(
            observation={**data.observation, "desired_goal": goal},
            next_observation={**data.next_observation, "desired_goal": goal},
            reward=value.astype(data.reward.dtype),
            terminated=terminated,
            truncated=data.truncated & ~terminated,
        )

    return relabel


def _trailing(x: Array, like: Array) -> Array:
    """x [L, B] with axes of size 1 for those that `like` [L, B, ...] has beyond."""
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def _none_so_far(x: Array) -> Array:
    """[L, ...] bool: no row up to and including this one."""
    return jnp.cumsum(x, axis=0) == 0


def _none_before(x: Array) -> Array:
    """[L, ...] bool: no row before this one."""
    return (jnp.cumsum(x, axis=0) - x) == 0
