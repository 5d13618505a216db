"""Minari datasets (https://minari.farama.org), as its version 0.5 stores them in HDF5."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import jax
import numpy as np

from jaxrl.data.containers import reading
from jaxrl.data.dataset import Dataset
from jaxrl.data.foreign import column
from jaxrl.data.hdf5 import get, opened, require_length, tree
from jaxrl.types import Transition
from jaxrl.untrusted import BadFile, read_json, read_json_file

_METADATA = {"algorithm_name": "behavior", "dataset_id": "dataset", "ref_min_score": "random_score"}
_METADATA |= {"ref_max_score": "expert_score", "minari_version": "minari"}


def read_minari(path: str | os.PathLike) -> Dataset:
    """A Minari dataset: its folder, the `data` folder in it, or main_data.hdf5.

    `episode_i` holds observations [T + 1] and actions, rewards, terminations, truncations [T]; observations and actions
    may be groups of arrays, of which `_index_0`, `_index_1`, ... are a tuple. metadata.json beside it gives the names,
    the numbers of episodes and steps, which must be right, and the reference scores.
    """
    folder = pathlib.Path(path)
    places = [folder / "main_data.hdf5", folder / "data" / "main_data.hdf5"] if folder.is_dir() else [folder]
    file_path = next((p for p in places if p.is_file()), None)
    if file_path is None:
        raise BadFile(f"{path}: main_data.hdf5 is missing; of Minari's formats, only hdf5 is read")
    with opened(file_path) as file:
        names = [name for name in file if name.startswith("episode_")]
        if sorted(names) != sorted(f"episode_{i}" for i in range(len(names))) or not names:
            raise BadFile(f"{file_path}: episodes are not episode_0 ... episode_{max(0, len(names) - 1)}")
        episodes = [_episode(file, f"episode_{i}", file_path) for i in range(len(names))]
    structures = [jax.tree.map(lambda x: (x.dtype, x.shape[1:]), episode) for episode in episodes]
    for i, structure in enumerate(structures):
        if structure != structures[0]:
            raise BadFile(f"{file_path}: episode_{i}: {structure} differs from episode_0: {structures[0]}")
    data = jax.tree.map(lambda *xs: np.concatenate(xs), *episodes)
    return Dataset(data, _minari_metadata(file_path, len(episodes), len(data.reward)))


def _episode(file: Any, name: str, path: Any) -> Transition:
    fields = ("observations", "actions", "rewards", "terminations", "truncations")
    group = get(file, name, name, path)
    observations, actions, *rest = (tree(get(group, f, f"{name}/{f}", path), f"{name}/{f}", path) for f in fields)
    kinds = (float, bool, bool)
    columns = (column(x, f"{name}/{f}", path, kind) for x, f, kind in zip(rest, fields[2:], kinds))
    reward, terminated, truncated = columns
    length = len(reward)
    if not length:
        raise BadFile(f"{path}: {name}/rewards: is empty")
    require_length(observations, length + 1, f"{name}/observations", path)
    require_length((actions, terminated, truncated), length, f"{name}/actions, terminations or truncations", path)
    last = np.arange(length) == length - 1
    first, second = jax.tree.map(lambda x: x[:-1], observations), jax.tree.map(lambda x: x[1:], observations)
    return Transition(first, actions, reward, terminated, truncated | (last & ~terminated), second)


def _minari_metadata(file_path: pathlib.Path, num_episodes: int, num_steps: int) -> dict[str, Any]:
    places = [file_path.parent / "metadata.json", file_path.parent.parent / "metadata.json"]
    place = next((p for p in places if p.is_file()), None)
    found: dict[str, Any] = {"format": "minari"}
    if place is None:
        return found
    with reading(place):
        raw = read_json_file(place)
        for name, count in (("total_episodes", num_episodes), ("total_steps", num_steps)):
            if name in raw and int(raw[name]) != count:
                raise BadFile(f"{place}: {name}: is {raw[name]}, the file has {count}")
        found |= {ours: raw[theirs] for theirs, ours in _METADATA.items() if raw.get(theirs) is not None}
        spec = read_json(raw["env_spec"], place) if isinstance(raw.get("env_spec"), str) else raw.get("env_spec")
        if isinstance(spec, dict) and spec.get("id"):
            found["environment"] = str(spec["id"])
        for name in ("random_score", "expert_score"):
            if name in found:
                found[name] = float(found[name])
        found |= {name: str(raw[name]) for name in ("observation_space", "action_space") if name in raw}
    return found
