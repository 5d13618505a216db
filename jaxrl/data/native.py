"""Datasets in our own files.

A .safetensors or .npz file of arrays, named by their key paths ("observation/position"), with the successors only of
rows that end an episode ("final_observation"; every other one is the next row), and a JSON header with metadata,
structure, and the dtype, shape and CRC-32 of each array. The SHA-256 of the whole file is verified whenever it is read:
a file in which a bit was flipped is refused, and the CRCs tell in which array.
"""

from __future__ import annotations

import json
import os
import pathlib
import zlib
from typing import Any, Callable

import numpy as np

from jaxrl.data import containers
from jaxrl.data.checks import check, named_leaves
from jaxrl.data.containers import Entry
from jaxrl.data.dataset import Dataset
from jaxrl.data.successors import Successors, fill, is_shifted
from jaxrl.types import PyTree, Transition
from jaxrl.untrusted import BadFile, read_json

SCHEMA = 2
HEADER = "jaxrl_dataset"
_CORE = ("observation", "action", "reward", "terminated", "truncated")


def write(path: str | os.PathLike, dataset: Dataset) -> int:
    """Writes a dataset to a .safetensors or .npz file, atomically: a reader sees the old file or the new one.

    Returns:
      The size of the file in bytes.

    Raises:
      ValueError: for another suffix, data that `check` refuses, metadata that is not JSON, or observations and actions
        that are not arrays or dictionaries or tuples of them.
    """
    suffix = pathlib.Path(path).suffix
    if suffix not in (".safetensors", ".npz"):
        raise ValueError(f"{path}: ends in {suffix!r}, must end in .safetensors or .npz")
    data = dataset.transitions
    check(data, str(path))
    last = np.flatnonzero(data.terminated | data.truncated)
    observation, following = (named_leaves(x) for x in (data.observation, data.next_observation))
    shifted = all(is_shifted(a, b, last) for (_, a), (_, b) in zip(observation, following))
    fields = {name: getattr(data, name) for name in _CORE} | {"extras": data.extras}
    structure = {name: _describe(value, name) for name, value in fields.items()}
    arrays = [(name, np.asarray(x)) for name, x in named_leaves(fields)]
    successor = "final_observation" if shifted else "next_observation"
    for name, x in following:
        arrays.append((f"{successor}/{name}".rstrip("/"), x[last] if shifted else np.asarray(x)))
    if len(dict(arrays)) != len(arrays):
        raise ValueError(f"{path}: two arrays have the same key path; rename a dictionary key that contains '/'")
    for name, x in arrays if suffix == ".npz" else ():
        if x.dtype.kind == "V":
            raise ValueError(f"{path}: {name}: is {x.dtype}, which .npz cannot hold; write a .safetensors file")
    table = {name: [str(x.dtype), list(x.shape), _crc(x)] for name, x in arrays}
    body = {"metadata": dataset.metadata, "structure": structure, "successor": successor, "arrays": table}
    try:
        text = json.dumps(body, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: metadata: {error}; must be JSON values") from None
    header = json.dumps({"schema": SCHEMA, "crc": zlib.crc32(text.encode()), "body": text})
    if suffix == ".npz":
        containers.save_npz(path, {HEADER: np.frombuffer(header.encode(), np.uint8), **dict(arrays)})
    else:
        containers.save_safetensors(path, dict(arrays), {HEADER: header})
    return os.path.getsize(path)


def read_native(path: str | os.PathLike, mmap: bool = False) -> Dataset:
    """Our own format, see `read`."""
    sound = containers.digest_holds(path)
    if os.path.splitext(path)[1] == ".safetensors":
        entries, texts = containers.safetensors_entries(path)
        header = texts.get(HEADER) if isinstance(texts, dict) else None
    else:
        entries = containers.npz_entries(path)
        header = bytes(containers.load(entries.pop(HEADER)))
    if header is None:
        raise BadFile(f"{path}: has no {HEADER} header, so it is not a dataset of jaxrl")
    header = read_json(header, path)
    if header["schema"] != SCHEMA:
        raise BadFile(f"{path}: written in schema {header['schema']!r}, this jaxrl reads {SCHEMA}")
    if zlib.crc32(header["body"].encode()) != header["crc"]:
        raise BadFile(f"{path}: the header is damaged: its checksum is wrong")
    body = read_json(header["body"], path)
    arrays = _load_all(path, entries, body["arrays"], mmap, sound)
    if not sound:
        raise BadFile(f"{path}: is damaged: its digest is {'missing' if sound is None else 'wrong'}")
    fields = {name: _build(spec, name, arrays) for name, spec in body["structure"].items()}
    successor = body["successor"]
    following = _build(body["structure"]["observation"], successor, arrays)
    if successor == "final_observation":
        last = np.flatnonzero(np.asarray(fields["terminated"]) | np.asarray(fields["truncated"]))
        for (name, x), (_, final) in zip(named_leaves(fields["observation"]), named_leaves(following)):
            if (final.dtype, final.shape) != (x.dtype, (len(last), *x.shape[1:])):
                raise BadFile(f"{path}: final_observation/{name}: is {final.dtype}{list(final.shape)}, does not fit")
        following = _successors(fields["observation"], last, following, Successors if mmap else fill)
    return Dataset(Transition(**fields, next_observation=following), body["metadata"])


def _load_all(
    path: Any, entries: dict[str, Entry], table: dict[str, list], mmap: bool, sound: bool | None
) -> dict[str, np.ndarray]:
    """The arrays, each as the header says that it was written; where the file is not sound, looks which is not."""
    for name in [*table, *entries]:
        if name not in entries or name not in table:
            raise BadFile(f"{path}: {name}: is {'missing' if name in table else 'unexpected'}")
    arrays = {}
    for name, (dtype, shape, crc) in table.items():
        entry = entries[name]
        if (str(entry.dtype), list(entry.shape)) != (dtype, shape):
            raise BadFile(f"{path}: {name}: is {entry.dtype}{list(entry.shape)}, the header says {dtype}{shape}")
        arrays[name] = containers.load(entry, mmap)
        if not sound and _crc(arrays[name]) != crc:
            raise BadFile(f"{path}: {name}: is damaged: its checksum is wrong")
    return arrays


def _successors(observation: PyTree, last: np.ndarray, final: PyTree, make: Callable) -> PyTree:
    if isinstance(observation, dict):
        return {name: _successors(observation[name], last, final[name], make) for name in observation}
    if isinstance(observation, tuple):
        return tuple(_successors(o, last, f, make) for o, f in zip(observation, final))
    return make(observation, last, final)


def _crc(x: np.ndarray) -> int:
    crc = 0
    for part in containers.parts(x):
        crc = zlib.crc32(part, crc)
    return crc


def _describe(tree: PyTree, name: str) -> Any:
    """The structure as JSON: an object for a dictionary, a list for a tuple, null for an array."""
    if isinstance(tree, dict) and all(isinstance(key, str) for key in tree):
        return {key: _describe(value, f"{name}/{key}") for key, value in tree.items()}
    if type(tree) in (tuple, list):
        return [_describe(value, f"{name}/{i}") for i, value in enumerate(tree)]
    if hasattr(tree, "dtype"):
        return None
    raise ValueError(f"{name} is a {type(tree).__name__}, must be an array, or a dictionary or tuple of arrays")


def _build(spec: Any, name: str, arrays: dict[str, np.ndarray]) -> PyTree:
    if isinstance(spec, dict):
        return {key: _build(value, f"{name}/{key}", arrays) for key, value in spec.items()}
    if isinstance(spec, list):
        return tuple(_build(value, f"{name}/{i}", arrays) for i, value in enumerate(spec))
    return arrays[name]
