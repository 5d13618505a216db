"""Arrays to and from a step's folder, by orbax. They are called 00000, 00001, ...: a name in a file is never a path."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import sys
import time
from typing import Any, Iterator

import numpy as np

ITEM = "default"  # the folder of the arrays in that of a step

Expected = dict[str, tuple[tuple[int, ...], np.dtype]]


def write(folder: pathlib.Path, step: int, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays by path; returns when the step's folder has its final name. Empty arrays need no place.

    Raises:
      Whatever orbax raises.
    """
    import orbax.checkpoint as ocp

    named = {_name(i): x for i, x in enumerate(arrays.values()) if x.size}
    # It deletes nothing, and looks into no other step: what is kept is our decision, manifest by manifest.
    options = ocp.CheckpointManagerOptions(
        enable_async_checkpointing=False, save_root_metadata=False, lightweight_initialize=True
    )
    with _quiet(), ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        manager.save(step, args=ocp.args.PyTreeSave(named), force=True)


def read(folder: pathlib.Path, expected: Expected) -> dict[str, np.ndarray]:
    """Reads the arrays of a step's folder, by orbax's handler of trees.

    Args:
      expected: shape and dtype by path. They are compared before anything of that size is made.

    Raises:
      ValueError: if there are others. Whatever orbax raises where it cannot read.
    """
    names = {_name(i): path for i, path in enumerate(expected) if 0 not in expected[path][0]}
    with _quiet():
        arrays = _read(folder / ITEM, {name: expected[path] for name, path in names.items()})
    by_path = {path: np.asarray(arrays[name]) for name, path in names.items()}
    return {path: by_path[path] if path in by_path else np.zeros(*expected[path]) for path in expected}


def _read(folder: pathlib.Path, expected: Expected) -> dict[str, np.ndarray]:
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler()
    found = handler.metadata(folder.absolute()).tree
    if found.keys() != expected.keys():
        raise ValueError(f"{len(found)} arrays, must be {len(expected)}")
    for name, kind in expected.items():
        shape, dtype, chunk = tuple(found[name].shape), found[name].dtype, tuple(found[name].storage.chunk_shape)
        if (shape, dtype) != kind or chunk != shape:
            raise ValueError(f"array {name} is {dtype}{list(shape)} in chunks of {list(chunk)}")
    restore_args = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in expected}
    arguments = ocp.args.PyTreeRestore(item=dict.fromkeys(expected, 0), restore_args=restore_args)
    return handler.restore(folder.absolute(), args=arguments)


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


def _name(index: int) -> str:
    return f"{index:05d}"
