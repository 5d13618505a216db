"""D4RL's HDF5 files (Fu et al. 2020, https://arxiv.org/abs/2004.07219)."""

from __future__ import annotations

import os
import pathlib
from typing import Sequence

import numpy as np

from jaxrl.data.dataset import Dataset
from jaxrl.data.foreign import column
from jaxrl.data.hdf5 import get, opened, require_length, tree
from jaxrl.types import Transition
from jaxrl.untrusted import BadFile


def read_d4rl(path: str | os.PathLike, extras: Sequence[str] = (), max_episode_steps: int | None = None) -> Dataset:
    """A D4RL file: flat `observations`, `actions`, `rewards`, `terminals`, and mostly `timeouts`, `next_observations`.

    Without `next_observations` the successor is the next row. Where an episode timed out there is none: that row is
    dropped, and the one before it is truncated; a terminated row's own observation stands in, since its value is 0.
    Without `timeouts`, episodes end where `next_observations` is not the next row, or after `max_episode_steps`.

    Args:
      extras: further arrays to keep, by name, such as "infos/qpos".
    """
    with opened(path) as file:
        fields = ["observations", "actions", "rewards", "terminals", *extras]
        fields += [name for name in ("timeouts", "next_observations") if name in file]
        arrays = {name: tree(get(file, name, name, path), name, path) for name in fields}
    count = len(arrays["rewards"]) if np.ndim(arrays["rewards"]) else 0
    if count == 0:
        raise BadFile(f"{path}: rewards: is empty or not one number a row")
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray):
            raise BadFile(f"{path}: {name}: is a group, must be an array")
        require_length(x, count, name, path)
    observation, following = arrays["observations"], arrays.get("next_observations")
    terminated = column(arrays["terminals"], "terminals", path, bool)
    if "timeouts" in arrays:
        timeout = column(arrays["timeouts"], "timeouts", path, bool)
    elif following is not None:
        other = np.any(following[:-1] != observation[1:], axis=tuple(range(1, observation.ndim)))
        timeout = np.append(other, True)
    elif max_episode_steps:
        timeout = _timeouts(terminated, max_episode_steps)
    else:
        raise BadFile(f"{path}: timeouts: is missing, as next_observations is; give max_episode_steps")
    rows = np.arange(count)
    truncated = timeout & ~terminated
    if following is None:
        dropped = truncated | (~terminated & (rows == count - 1))  # without a successor
        truncated = np.append(dropped[1:], False) & ~terminated
        following = observation[np.where(terminated, rows, np.minimum(rows + 1, count - 1))]
        rows = np.flatnonzero(~dropped)
        if not rows.size:
            raise BadFile(f"{path}: timeouts: leaves no transition that has a successor")
    truncated[rows[-1]] |= ~terminated[rows[-1]]
    transitions = Transition(
        observation[rows],
        arrays["actions"][rows],
        column(arrays["rewards"], "rewards", path, float)[rows],
        terminated[rows],
        truncated[rows],
        following[rows],
        {name: arrays[name][rows] for name in extras},
    )
    return Dataset(transitions, {"environment": pathlib.Path(path).stem, "format": "d4rl"})


def _timeouts(terminated: np.ndarray, max_episode_steps: int) -> np.ndarray:
    """Where a clock that starts anew after each end reaches `max_episode_steps`."""
    starts = np.concatenate([[0], np.flatnonzero(terminated) + 1])
    rows = np.arange(len(terminated))
    age = rows - starts[np.searchsorted(starts, rows, side="right") - 1] + 1
    return (age % max_episode_steps == 0) & ~terminated
