"""Arrays to and from a step's folder, by orbax: all leaves of a dtype, end to end, are one array without compression.

So a save of a thousand leaves is a few files, the names of which are dtypes and never paths, and a file is as long as
the arrays that it holds: one that anybody may have written cannot unfold to something larger.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pathlib
import sys
import time
from typing import Any, Iterator

import numpy as np

from jaxrl import untrusted

ITEM = "default"  # the folder of the arrays in that of a step

Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]  # shape and dtype of leaves by path, in order
Packs = dict[str, np.ndarray]  # [n] of each dtype


def sizes_of(shapes: Shapes) -> dict[str, int]:
    """Numbers of each dtype."""
    sizes: dict[str, int] = {}
    for shape, dtype in shapes.values():
        sizes[str(dtype)] = sizes.get(str(dtype), 0) + math.prod(shape)
    return {dtype: size for dtype, size in sizes.items() if size}


def empty(shapes: Shapes) -> Packs:
    """Room for these leaves."""
    return {dtype: np.empty(size, np.dtype(dtype)) for dtype, size in sizes_of(shapes).items()}


def split(packs: Packs, shapes: Shapes) -> dict[str, np.ndarray]:
    """The leaves by path, views."""
    start, leaves = dict.fromkeys(packs, 0), {}
    for path, (shape, dtype) in shapes.items():
        begin, size = start.get(str(dtype), 0), math.prod(shape)
        leaves[path] = packs[str(dtype)][begin : begin + size].reshape(shape) if size else np.zeros(shape, dtype)
        start[str(dtype)] = begin + size
    return leaves


def write(folder: pathlib.Path, step: int, packs: Packs) -> None:
    """Writes the arrays of a step; returns when its folder has its final name.

    Raises:
      Whatever orbax raises.
    """
    import orbax.checkpoint as ocp

    # It deletes nothing, and looks into no other step: what is kept is our decision, manifest by manifest.
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False,
        save_root_metadata=False,
        lightweight_initialize=True,
        create=False,
        **_alone(),
    )
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_compression=False, **_alone())
    with (
        _quiet(),
        ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handler) as manager,
    ):
        manager.save(step, args=ocp.args.PyTreeSave(packs), force=True)


def read(folder: pathlib.Path, shapes: Shapes) -> dict[str, np.ndarray]:
    """Reads the leaves in a step's folder.

    Raises:
      ValueError: if they are of another size, or stored in a way in which `write` does not. It is found out before
        orbax looks at anything. Whatever orbax raises where it cannot read.
    """
    import orbax.checkpoint as ocp

    sizes, where = sizes_of(shapes), (folder / ITEM).absolute()
    _check_layout(where, sizes)
    restore_args = {dtype: ocp.RestoreArgs(restore_type=np.ndarray) for dtype in sizes}
    arguments = ocp.args.PyTreeRestore(item=dict.fromkeys(sizes, 0), restore_args=restore_args)
    with _quiet():
        packs = ocp.PyTreeCheckpointHandler(use_ocdbt=False, **_alone()).restore(where, args=arguments)
    for dtype, size in sizes.items():
        if (packs[dtype].shape, str(packs[dtype].dtype)) != ((size,), dtype):
            raise ValueError(f"{dtype} is {packs[dtype].dtype}{list(packs[dtype].shape)}, must be {dtype}[{size}]")
    return split(packs, shapes)


def _alone() -> dict[str, Any]:
    """Options with which orbax does not wait for the other processes of a run, where there are any."""
    import jax
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return {}
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions(me, active_processes={me}, barrier_sync_key_prefix=f"jaxrl{me}")
    return {"multiprocessing_options": options}


def _check_layout(folder: pathlib.Path, sizes: dict[str, int]) -> None:
    for path in folder.parent.rglob("*"):
        name = path.relative_to(folder.parent).as_posix()
        large = path.parent.name in sizes and path.name == "0"
        if "ocdbt" in name or "zarr.json" in name or (path.stat().st_size > untrusted.MAX_JSON and not large):
            raise ValueError(f"{name} is not a file of such a checkpoint")
    for dtype, size in sizes.items():
        header = untrusted.read_json_file(folder / dtype / ".zarray")
        plain = {"shape": [size], "chunks": [size], "compressor": None, "filters": None, "order": "C", "zarr_format": 2}
        found = {name: header[name] for name in plain}
        if found != plain:
            raise ValueError(f"{dtype}/.zarray has {found}, must have {plain}")
        stored, expected = (folder / dtype / "0").stat().st_size, size * np.dtype(dtype).itemsize
        if stored != expected:
            raise ValueError(f"{dtype}/0 has {stored} bytes, must have {expected}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what orbax logs: pages of traceback, from threads of its own, beside the error that it raises."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook

    def not_orbax(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def unraisable(found: Any) -> None:  # where one write fails, the others report to a loop that is gone
        if str(found.exc_value) != "Event loop is closed":
            hook(found)

    logger.addFilter(not_orbax)
    sys.unraisablehook = unraisable
    try:
        yield
    except Exception:
        time.sleep(0.5)  # until the other writes have ended
        raise
    finally:
        logger.removeFilter(not_orbax)
        if sys.unraisablehook is unraisable:
            sys.unraisablehook = hook
