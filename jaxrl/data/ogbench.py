"""OGBench's npz files (Park et al. 2024, https://arxiv.org/abs/2410.20092; layout of ogbench/utils.py:load_dataset)."""

from __future__ import annotations

import os
from typing import Sequence

import numpy as np

from jaxrl.data.containers import load, npz_entries
from jaxrl.data.dataset import Dataset
from jaxrl.data.foreign import column, narrow
from jaxrl.types import Transition
from jaxrl.untrusted import BadFile

_KNOWN = ("observations", "actions", "terminals", "next_observations", "rewards", "masks")


def read_ogbench(path: str | os.PathLike, extras: Sequence[str] = ()) -> Dataset:
    """One row a state: `terminals` is 1 in the last state of each trajectory, whose action leads nowhere.

    That row is dropped as a transition and gives the successor of the one before it, which ends the episode: truncated,
    since OGBench's tasks do not end; terminated where there are `masks` and its mask is 0. With `next_observations` in
    the file every row is a transition, and `terminals` marks the last of each trajectory. Without `rewards` (the files
    of goal-conditioned tasks) rewards are 0, and metadata says `"rewards": "none"`: see `recompute`.

    Args:
      extras: further fields to keep, such as "qpos".
    """
    entries = npz_entries(path)
    for name in ("observations", "actions", "terminals", *extras):
        if name not in entries:
            raise BadFile(f"{path}: {name}: is missing; there are {', '.join(entries)}")
    length = entries["observations"].shape[:1]
    for name in [*(n for n in _KNOWN if n in entries), *extras]:
        if entries[name].shape[:1] != length or not length:
            raise BadFile(f"{path}: {name}: has shape {entries[name].shape}, must begin with {length}, as observations")
    entries = {n: entry._replace(offset=None) for n, entry in entries.items()}  # read by zipfile, which checks CRCs
    arrays = {n: load(entries[n]) for n in [*(n for n in _KNOWN if n in entries), *extras]}
    ends = column(arrays["terminals"], "terminals", path, bool)
    if "next_observations" in arrays:
        rows, last, following = np.arange(len(ends)), ends, arrays["next_observations"]
    else:
        rows = np.flatnonzero(~ends[:-1])  # the last row of a file that ends within a trajectory has no successor
        last, following = ends[rows + 1], arrays["observations"][rows + 1]
    if not rows.size:
        raise BadFile(f"{path}: terminals: leaves no transition, every state is a last one")
    terminated = ~column(arrays["masks"], "masks", path, bool)[rows] if "masks" in arrays else np.zeros(len(rows), bool)
    truncated = (last | np.append(np.zeros(len(rows) - 1, bool), True)) & ~terminated
    reward = column(arrays["rewards"], "rewards", path, float)[rows] if "rewards" in arrays else np.zeros(len(rows))
    take = (lambda x: x) if len(rows) == length[0] else (lambda x: x[rows])
    transitions = Transition(
        narrow(take(arrays["observations"]), "observations", path),
        narrow(take(arrays["actions"]), "actions", path),
        reward.astype(np.float32),
        terminated,
        truncated,
        narrow(following, "next_observations", path),
        {name: narrow(take(arrays[name]), name, path) for name in extras},
    )
    metadata = {"environment": os.path.splitext(os.path.basename(path))[0], "format": "ogbench"}
    return Dataset(transitions, metadata if "rewards" in arrays else {**metadata, "rewards": "none"})
