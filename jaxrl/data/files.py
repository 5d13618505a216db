"""Datasets from files: ours, Minari's, D4RL's, OGBench's."""

from __future__ import annotations

import os
from typing import Any, Callable, Sequence

from jaxrl.data import containers, hdf5
from jaxrl.data.checks import check
from jaxrl.data.d4rl import read_d4rl
from jaxrl.data.dataset import Dataset
from jaxrl.data.minari import read_minari
from jaxrl.data.native import HEADER, read_native
from jaxrl.data.ogbench import read_ogbench
from jaxrl.untrusted import BadFile, require_file

FORMATS = ("jaxrl", "minari", "d4rl", "ogbench")


def read(
    path: str | os.PathLike,
    format: str | None = None,
    *,
    mmap: bool = False,
    extras: Sequence[str] = (),
    max_episode_steps: int | None = None,
) -> Dataset:
    """Reads a dataset: our own, a Minari or D4RL HDF5 file, or an OGBench npz file.

    Floats of 64 bits come back as 32, as integers do if they fit; our own files, and uint8, come back as they are. The
    content is not trusted: nothing in a file is ever run, and no link of an HDF5 file is followed.

    Args:
      path: a file, or the folder of a Minari dataset.
      format: "jaxrl", "minari", "d4rl" or "ogbench"; None: what the content says.
      mmap: leave arrays on disk (our own format). `next_observation` is then an array-like that looks its rows up, and
        the file is read through once, for its digest.
      extras: further fields of D4RL and OGBench files to keep, by name, such as "qpos". Our own files come whole.
      max_episode_steps: where D4RL's old files, which have neither `timeouts` nor `next_observations`, cut episodes.

    Raises:
      ValueError: one line that names the file and the field, for whatever is missing, damaged, or does not fit.
    """
    if format is not None and format not in FORMATS:
        raise ValueError(f"read: format is {format!r}, must be one of {', '.join(FORMATS)}")
    if not os.path.isdir(path):
        require_file(path)
    found, loader = _detect(path)
    if format is not None and format != found:
        raise BadFile(f"{path}: is a {found} file, not {format}")
    if mmap and found != "jaxrl":
        raise BadFile(f"{path}: {found} files cannot be memory-mapped; read it without mmap, and write a .safetensors")
    options: dict[str, Any] = {
        "jaxrl": {"mmap": mmap},
        "ogbench": {"extras": extras},
        "d4rl": {"extras": extras, "max_episode_steps": max_episode_steps},
        "minari": {},
    }[found]
    with containers.reading(path):
        dataset = loader(path, **options)
        try:
            check(dataset.transitions, str(path))
        except ValueError as error:
            raise BadFile(str(error)) from None
    return dataset


def _detect(path: str | os.PathLike) -> tuple[str, Callable[..., Dataset]]:
    """The format that the first bytes and the names in a file or folder say, and its reader."""
    if os.path.isdir(path):
        return "minari", read_minari
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic.startswith(b"\x89HDF\r\n\x1a\n"):
        flat = hdf5.is_flat(path)
        return ("d4rl", read_d4rl) if flat else ("minari", read_minari)
    if magic.startswith(b"PK"):
        return ("jaxrl", read_native) if HEADER in containers.npz_entries(path) else ("ogbench", read_ogbench)
    if os.path.splitext(path)[1] == ".safetensors":
        return "jaxrl", read_native
    raise BadFile(f"{path}: is none of .safetensors, .npz and HDF5 (it begins with {magic!r})")
