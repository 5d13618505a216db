"""Datasets in the shapes that learners ask for: returns to go, n-step rows, windows for sequence learners."""

from __future__ import annotations

import jax
import numpy as np

from jaxrl.data.dataset import Dataset, episode_bounds, num_transitions
from jaxrl.types import Transition


def with_returns(dataset: Dataset, discount: float) -> Dataset:
    """Adds extras["mc_return"]: G_t = r_t + discount * G_{t+1}, the discounted return to go within the episode.

    Where an episode was truncated the sum ends there, as if nothing came after: what follows is not in the data. So it
    is the return of the behavior where episodes terminate, and a lower bound of it where rewards are not negative.

    Args:
      discount: in [0, 1].

    Raises:
      ValueError: if `discount` is out of range.
    """
    _check_discount("with_returns", discount)
    starts, stops = episode_bounds(dataset)
    reward = np.asarray(dataset.transitions.reward, np.float64)
    returned = np.zeros_like(reward)
    longest_first = np.argsort(starts - stops, kind="stable")
    starts, stops = starts[longest_first], stops[longest_first]
    lengths = stops - starts
    total = np.zeros(len(starts))
    for back in range(1, int(lengths[0]) + 1):  # of all episodes at once, from their ends
        count = int(np.searchsorted(-lengths, -back, side="right"))
        total = reward[stops[:count] - back] + discount * total[:count]
        returned[stops[:count] - back] = total
    return _with_extras(dataset, {"mc_return": returned.astype(np.float32)}, mc_discount=discount)


def with_next_actions(dataset: Dataset) -> Dataset:
    """Adds extras["next_action"], a_{t+1} of the same episode, for learners that value the data's own policy.

    A row that was truncated has none, and gets weight 0; one that terminated needs none.
    """
    starts, stops = episode_bounds(dataset)
    data = dataset.transitions
    following = np.arange(num_transitions(dataset)) + 1
    following[stops - 1] = stops - 1  # of a last row: anything
    cut = np.asarray(data.truncated) & ~np.asarray(data.terminated)
    weight = np.asarray(data.extras.get("weight", 1.0), np.float32) * ~cut
    action = jax.tree.map(lambda x: np.asarray(x)[following], data.action)
    return _with_extras(dataset, {"next_action": action, "weight": weight.astype(np.float32)})


def n_step(dataset: Dataset, n: int, discount: float) -> Dataset:
    """Rows that span up to n steps of one episode, m = min(n, steps to its end) of them.

    reward = sum_{k<m} discount^k r_{t+k}; `next_observation`, `terminated` and `truncated` are those of row t + m - 1,
    and extras["num_steps"] = m, so that `bootstrap` gives discount^m (Sutton and Barto, "Reinforcement learning",
    2nd edition, equation 7.1). The rows overlap, so no function that asks for episodes takes them.

    Args:
      n: >= 1.
      discount: in [0, 1], the one that the learner has.

    Raises:
      ValueError: if an argument is out of range.
    """
    if n < 1:
        raise ValueError(f"n_step: n is {n}, must be >= 1")
    _check_discount("n_step", discount)
    starts, stops = episode_bounds(dataset)
    data, rows = dataset.transitions, np.arange(num_transitions(dataset))
    left = np.repeat(stops, stops - starts) - rows
    steps = np.minimum(n, left)
    total = np.zeros(len(rows))
    for k in range(min(n, int(left.max()))):
        inside = np.flatnonzero(steps > k)
        total[inside] += discount**k * np.asarray(data.reward[inside + k], np.float64)
    last = rows + steps - 1
    data = data._replace(
        reward=total.astype(np.float32),
        terminated=data.terminated[last],
        truncated=data.truncated[last],
        next_observation=jax.tree.map(lambda x: x[last], data.next_observation),
    )
    view = Dataset(data, dataset.metadata)
    return _with_extras(view, {"num_steps": steps.astype(np.int32)}, n_step=n, n_step_discount=discount)


def sequences(dataset: Dataset, length: int, stride: int | None = None) -> Transition:
    """Windows of rows, each inside one episode: leaves [L, D'], for learners of sequences and `offline(axis=1)`.

    Every row is in some window. What is left of an episode fills its last window partly; the rest of that window
    repeats the last row at extras["weight"] 0.

    Args:
      length: L, >= 1.
      stride: between the first rows of windows, in [1, length]; None: `length`, so that windows do not overlap.

    Raises:
      ValueError: if an argument is out of range.
    """
    stride = length if stride is None else stride
    if length < 1 or not 1 <= stride <= length:
        raise ValueError(f"sequences: length is {length}, stride {stride}; needs 1 <= stride <= length")
    starts, stops = episode_bounds(dataset)
    counts = 1 + np.maximum(0, -(-(stops - starts - length) // stride))
    before = np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(starts, counts) + stride * (np.arange(counts.sum()) - before)
    rows = first + np.arange(length)[:, None]
    limit = np.repeat(stops, counts)
    inside = rows < limit
    data = jax.tree.map(lambda x: x[np.minimum(rows, limit - 1)], dataset.transitions)
    weight = inside * data.extras.get("weight", np.float32(1))
    return data._replace(extras={**data.extras, "weight": weight.astype(np.float32)})


def _with_extras(dataset: Dataset, extras: dict, **metadata) -> Dataset:
    data = dataset.transitions
    return Dataset(data._replace(extras={**data.extras, **extras}), {**dataset.metadata, **metadata})


def _check_discount(name: str, discount: float) -> None:
    if not 0 <= discount <= 1:
        raise ValueError(f"{name}: discount is {discount}, must be in [0, 1]")
