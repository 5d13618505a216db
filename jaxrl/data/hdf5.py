"""HDF5 files, which need h5py (the extra `offline`).

Links into other files and arrays stored elsewhere are refused, as are one array or group under two names (a small file
could name one a million times) and an array that the file is too small to hold.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any, Iterator

import jax

from jaxrl.data.containers import MAX_RATIO, reading
from jaxrl.data.foreign import narrow
from jaxrl.types import PyTree
from jaxrl.untrusted import BadFile, require_memory


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[Any]:
    """The file, opened to read."""
    try:
        import h5py
    except ImportError:
        raise BadFile(f"{path}: reading HDF5 needs h5py: pip install 'jaxrl[offline]'") from None
    with reading(path), h5py.File(path, "r") as file:
        yield file


def is_flat(path: str | os.PathLike) -> bool:
    """Whether the file has D4RL's flat arrays instead of Minari's groups of episodes."""
    with opened(path) as file:
        if "observations" not in file and not any(name.startswith("episode_") for name in file):
            raise BadFile(f"{path}: has neither 'observations' nor 'episode_0', so it is neither of D4RL nor of Minari")
        return "observations" in file


def get(group: Any, name: str, label: str, path: Any) -> Any:
    """A member of a group that lies in this file."""
    import h5py

    leaf = name.rsplit("/", 1)[-1]
    if not isinstance(group, h5py.Group) or name not in group:
        raise BadFile(f"{path}: {label}: is missing")
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise BadFile(f"{path}: {label}: {leaf} is a link, which is not followed")
    found = group[name]
    if h5py.h5o.get_info(found.id).rc > 1:
        raise BadFile(f"{path}: {label}: is there under two names")
    return found


def tree(node: Any, label: str, path: Any) -> PyTree:
    """The arrays of a dataset or of a group of them, whose `_index_0`, `_index_1`, ... are a tuple."""
    import h5py

    if isinstance(node, h5py.Group):
        parts = {name: tree(get(node, name, f"{label}/{name}", path), f"{label}/{name}", path) for name in node}
        if parts and set(parts) == {f"_index_{i}" for i in range(len(parts))}:
            return tuple(parts[f"_index_{i}"] for i in range(len(parts)))
        if not parts:
            raise BadFile(f"{path}: {label}: is empty")
        return parts
    if node.dtype.kind not in "biuf":
        raise BadFile(f"{path}: {label}: is {node.dtype} (text, or JPEG images?), must be numbers")
    if node.is_virtual or node.external:
        raise BadFile(f"{path}: {label}: is stored in another file, which is not read")
    if node.shape is None or not node.shape:
        raise BadFile(f"{path}: {label}: is a single number, must be one a row")
    claimed = math.prod(node.shape) * node.dtype.itemsize
    if claimed > MAX_RATIO * min(os.path.getsize(path), node.id.get_storage_size()):
        raise BadFile(f"{path}: {label}: claims {claimed} bytes, more than the file can hold")
    require_memory(claimed, f"{path}: {label}")
    with reading(f"{path}: {label}"):
        return narrow(node[()], label, path)


def require_length(arrays: PyTree, length: int, label: str, path: Any) -> None:
    """Raises BadFile if a leaf has another number of rows."""
    for x in jax.tree.leaves(arrays):
        if len(x) != length:
            raise BadFile(f"{path}: {label}: has {len(x)} rows, must have {length}")
