"""Datasets: transitions in episodes, with what is known about where they came from. NumPy on the host."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

import jax
import numpy as np

from jaxrl.data.checks import named_leaves
from jaxrl.types import Transition


class Dataset(NamedTuple):
    """Transitions [D], episode after episode.

    The rows of an episode stand together in the order of time, and its last row has `terminated` or `truncated`; an
    episode that the end of the data cut is truncated there. One agent: `reward` is [D].

    Attributes:
      transitions: leaves [D, ...], NumPy arrays (or memory-mapped ones, see `read`) until `to_device`.
      metadata: JSON values, such as "environment", "behavior", "random_score", "expert_score", "jaxrl". It is no data:
        map over `transitions`, not over the dataset.
    """

    transitions: Transition
    metadata: dict[str, Any]


def num_transitions(dataset: Dataset) -> int:
    """D, the number of rows."""
    return int(dataset.transitions.reward.shape[0])


def nbytes(dataset: Dataset) -> int:
    """Bytes of all arrays; memory-mapped ones count in full, successors that are looked up count nothing."""
    return sum(x.nbytes for x in jax.tree.leaves(dataset.transitions))


def episode_bounds(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """First row and one past the last row of every episode, [E] int64 each.

    Raises:
      ValueError: if the rows are n-step rows, of which every one may end an episode.
    """
    if dataset.metadata.get("n_step", 1) > 1:
        raise ValueError("the rows of an n-step dataset overlap: use episodes of the dataset that it was made of")
    data = dataset.transitions
    stops = np.flatnonzero(np.asarray(data.terminated) | np.asarray(data.truncated)) + 1
    return np.concatenate([[0], stops[:-1]]).astype(np.int64), stops


def episode_starts(dataset: Dataset) -> np.ndarray:
    """First row of every episode, [E] int64."""
    return episode_bounds(dataset)[0]


def episode_returns(dataset: Dataset) -> np.ndarray:
    """Undiscounted sum of the rewards of every episode, [E] float64; of a truncated one, what it has."""
    starts, _ = episode_bounds(dataset)
    return np.add.reduceat(np.asarray(dataset.transitions.reward, np.float64), starts)


def take_rows(dataset: Dataset, rows: np.ndarray | slice) -> Dataset:
    """Some rows, in the order given; a row whose successor row is not in place there ends its episode: truncated.

    Raises:
      ValueError: if there are none.
    """
    rows = np.arange(num_transitions(dataset))[rows]
    if not rows.size:
        raise ValueError("take_rows: no rows are left, needs at least one")
    data = jax.tree.map(lambda x: x[rows], dataset.transitions)
    cut = np.append(np.diff(rows) != 1, True)
    return dataset._replace(transitions=data._replace(truncated=data.truncated | (cut & ~data.terminated)))


def take_episodes(dataset: Dataset, episodes: Sequence[int] | np.ndarray) -> Dataset:
    """Whole episodes, by their numbers, in the order given.

    Raises:
      ValueError: if there are none.
    """
    starts, stops = episode_bounds(dataset)
    rows = [np.arange(starts[e], stops[e]) for e in episodes]
    return take_rows(dataset, np.concatenate(rows) if rows else np.zeros(0, np.int64))


def take_best(dataset: Dataset, fraction: float) -> Dataset:
    """The episodes of highest return, as many as hold `fraction` of the rows: the data of %BC.

    Chen et al. 2021, "Decision transformer", section 5 (https://arxiv.org/abs/2106.01345), where X% BC clones the top
    X% of the timesteps, ordered by episode returns. Whole episodes are kept, in their order: the best ones up to the
    first that reaches the fraction.

    Raises:
      ValueError: if `fraction` is outside (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"take_best: fraction is {fraction}, must be in (0, 1]")
    starts, stops = episode_bounds(dataset)
    order = np.argsort(-episode_returns(dataset), kind="stable")
    rows = np.cumsum((stops - starts)[order])
    count = int(np.searchsorted(rows, fraction * rows[-1] * (1 - 1e-12))) + 1
    return take_episodes(dataset, np.sort(order[:count]))


def concatenate(datasets: Sequence[Dataset], metadata: dict[str, Any] | None = None) -> Dataset:
    """One after the other.

    Args:
      metadata: of the result; None: entries on which all agree, and `behavior` joined by " + ".

    Raises:
      ValueError: if there are none, or two differ in structure, shapes or dtypes.
    """
    if not datasets:
        raise ValueError("concatenate: no datasets are given, needs at least one")
    kinds = [jax.tree.map(lambda x: (x.shape[1:], np.dtype(x.dtype)), d.transitions) for d in datasets]
    for i, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(f"concatenate: dataset {i} has {_kinds(datasets[i])}, dataset 0 {_kinds(datasets[0])}")
    if metadata is None:
        first, *rest = (d.metadata for d in datasets)
        metadata = {k: v for k, v in first.items() if all(k in m and m[k] == v for m in rest)}
        behaviors = dict.fromkeys(str(d.metadata["behavior"]) for d in datasets if "behavior" in d.metadata)
        metadata |= {"behavior": " + ".join(behaviors)} if behaviors else {}
    data = jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *(d.transitions for d in datasets))
    return Dataset(data, metadata)


def recompute(dataset: Dataset, reward_fn: Callable[[Transition], Any], **metadata: Any) -> Dataset:
    """Other rewards for the same rows.

    Args:
      reward_fn: (transitions [D]) -> rewards [D].
      metadata: changed with them; the reference scores of the old reward are dropped.

    Raises:
      ValueError: if what it returns has another shape or is not finite.
    """
    reward = np.asarray(reward_fn(dataset.transitions), np.float32)
    if reward.shape != dataset.transitions.reward.shape or not np.isfinite(reward).all():
        count = num_transitions(dataset)
        raise ValueError(f"recompute: reward_fn returned {reward.shape}, must be finite numbers of shape ({count},)")
    kept = {k: v for k, v in dataset.metadata.items() if k not in ("random_score", "expert_score")}
    return Dataset(dataset.transitions._replace(reward=reward), {**kept, **metadata})


def to_device(dataset: Dataset, device: Any = None) -> Dataset:
    """All leaves as JAX arrays, on a device or laid out by a sharding; successors are filled in."""
    data = jax.tree.map(lambda x: jax.device_put(np.asarray(x), device), dataset.transitions)
    return dataset._replace(transitions=data)


def _kinds(dataset: Dataset) -> str:
    kinds = ((name, f"{x.dtype}{list(x.shape[1:])}") for name, x in named_leaves(dataset.transitions._asdict()))
    return ", ".join(f"{name} {kind}" for name, kind in kinds)
