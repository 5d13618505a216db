"""Writing checkpoints: in the background, one at a time, and counted only once they can be read back."""

from __future__ import annotations

import concurrent.futures
import datetime
import importlib.metadata
import math
import operator
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from jaxrl import untrusted
from jaxrl.checkpoints import arrays, lock, manifest, structure
from jaxrl.checkpoints.manifest import Damaged
from jaxrl.checkpoints.reading import Reader, Restored, Say, read_back
from jaxrl.types import PyTree

Snapshot = tuple[arrays.Packs, dict[str, np.ndarray]]


class Checkpoints(Reader):
    """The checkpoints of one run, and the only writer of their folder. Use it in a `with` statement.

    Opening it removes what a killed run left behind: unfinished saves, each with a line.

    Args:
      folder: made if it is not there; empty, or one of ours.
      keep: how many of the newest steps stay.
      keep_best: how many of the steps with the highest scores stay beside them.
      config: JSON values that describe the run; stored with every step.
      say: takes one line when a step is saved, is not saved, or is skipped; called from a thread of its own. None is
        the standard error.

    Raises:
      ValueError: if another process writes there, the folder is not one of checkpoints, or an argument is not valid.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        keep: int = 3,
        keep_best: int = 1,
        config: dict[str, Any] | None = None,
        say: Say | None = None,
    ):
        if keep < 1 or keep_best < 0:
            raise ValueError(f"Checkpoints: keep is {keep} and keep_best {keep_best}, must be >= 1 and >= 0")
        self._keep, self._keep_best, self._config = keep, keep_best, _json_values("config", config)
        make_folder(pathlib.Path(folder))
        super().__init__(folder, say)
        try:
            self._lock: int | None = lock.acquire(self.folder, self._tell)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be written to ({_reason(error)})") from None
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None
        self._sweep()
        self._last = max(self._candidates(), default=-1)  # where the run is: saves go on from here

    def save(self, step: int, state: PyTree, *, notes: dict[str, Any] = {}, score: float | None = None) -> None:
        """Copies the state to the host, and saves it in the background; waits first for a save that is not finished.

        The step is in `steps()`, and is said to be saved, once it is on the disk and was read back. If that fails (a
        full disk, say), a line says so, older steps stay, and the run goes on. Steps after `step`, from a life of the
        run that was not continued, are removed when it is saved.

        Args:
          step: >= the last one saved or restored. The same step again must have the same state.
          notes: JSON values to come back with the state: counters of the host.
          score: higher is better; None: never among the best.

        Raises:
          ValueError: if the step is before the last one, or a value cannot be stored.
        """
        if self._lock is None:
            raise ValueError(f"save: the checkpoints in {self.folder} are closed")
        step = operator.index(step)
        if step < max(self._last, 0):
            raise ValueError(
                f"save: step is {step}, must be >= {max(self._last, 0)}, where the run in {self.folder} is"
            )
        if score is not None and not math.isfinite(score):
            raise ValueError(f"save: score is {score}, must be finite or None")
        notes = _json_values("notes", notes)
        self.wait()
        data, fields = structure.snapshot(state), structure.describe(state)
        fields |= {"notes": notes, "score": None if score is None else float(score)}
        self._pending = self._worker.submit(self._save, step, step == self._last, data, fields)
        self._last = step

    def wait(self) -> None:
        """Blocks until the save that is under way, if any, is finished."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def close(self) -> None:
        """Waits, and lets another process write here."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def restore(self, template: PyTree, step: int | None = None) -> Restored:
        self.wait()
        restored = super().restore(template, step)
        self._last = restored.step
        return restored

    restore.__doc__ = Reader.restore.__doc__

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _save(self, step: int, again: bool, data: Snapshot, fields: dict[str, Any]) -> None:
        """Runs on the worker; never raises."""
        try:
            self._commit(step, again, data, fields)
        except Exception as error:  # orbax raises whatever it likes; the run must not end for it
            intact = ", ".join(map(str, self.steps())) or "none"
            self._tell(f"checkpoint: step {step} was not saved ({_reason(error)}); saved steps: {intact}")
            return
        self._tell(f"checkpoint: step {step} saved")
        try:
            self._prune(step)
        except OSError as error:
            self._tell(f"checkpoint: older steps cannot be removed ({_reason(error)})")

    def _commit(self, step: int, again: bool, data: Snapshot, fields: dict[str, Any]) -> None:
        digests = {name: manifest.array_digest(x) for name, x in data[1].items()}
        for leaf in fields["leaves"]:
            leaf["sha256"] = digests[leaf["path"]]
        head = {"schema": manifest.SCHEMA, "step": step, "time": _now(), "versions": _versions()}
        fields = {**head, "config": self._config, **fields}
        path, saved = manifest.path_of(self.folder, step), self._good(step)
        if saved and all(saved[x] == fields[x] for x in ("leaves", "nodes")):
            manifest.write(path, {**fields, "files": saved["files"]})  # notes and config may be new
        elif saved and again:
            raise Damaged("this step is saved already, with another state")
        else:
            try:
                self._discard(step)
                manifest.write(path, {**fields, "files": self._write(step, data, digests)})
            except Exception:
                self._discard(step)
                raise

    def _write(self, step: int, data: Snapshot, digests: dict[str, str]) -> dict[str, Any]:
        """Arrays to the disk, and back to see that they are there. Returns the digests of the files."""
        packs, leaves = data
        folder, shapes = self.folder / str(step), {name: (x.shape, x.dtype) for name, x in leaves.items()}
        arrays.write(self.folder, step, packs)
        packs.clear(), leaves.clear()  # room for what is read back
        manifest.sync_all(folder)
        read_back(folder, shapes, digests)
        return manifest.digests(folder)

    def _good(self, step: int) -> dict[str, Any] | None:
        """The manifest of a step that is there and as it was written."""
        try:
            saved = manifest.read(manifest.path_of(self.folder, step))
            manifest.verify(self.folder / str(step), saved["files"])
            return saved
        except (Damaged, ValueError):
            return None

    def _prune(self, newest: int) -> None:
        """Removes what is neither among the newest nor among the best, and what comes after the newest."""
        good = {step: fields for step, fields in self._manifests() if fields is not None and step <= newest}
        scored = sorted((fields["score"], step) for step, fields in good.items() if fields["score"] is not None)
        best = {step for _, step in scored[max(len(scored) - self._keep_best, 0) :]} if self._keep_best else set()
        for step in self._candidates():
            if step not in best | set(sorted(good)[-self._keep :]):
                self._discard(step)

    def _discard(self, step: int) -> None:
        """Removes a step, its manifest first: without it, the rest does not count."""
        manifest.path_of(self.folder, step).unlink(missing_ok=True)
        remove(self.folder / str(step))
        for path in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
            remove(path)

    def _sweep(self) -> None:
        """Removes what is without a manifest, and temporary files."""
        try:
            for step in sorted({*self._candidates(), *_unfinished(self.folder)}):
                if not os.path.lexists(manifest.path_of(self.folder, step)):
                    self._discard(step)
                    self._tell(f"checkpoint: step {step} was never finished (it has no manifest) and is removed")
            for path in (*self.folder.glob("*.orbax-checkpoint-tmp*"), *self.folder.glob(".*.json.*.tmp")):
                remove(path)
        except OSError as error:
            self._tell(f"checkpoint: what is left of unfinished saves cannot be removed ({_reason(error)})")


def make_folder(folder: pathlib.Path) -> None:
    """Makes a folder, or checks that it is one that checkpoints may be swept in.

    Raises:
      ValueError: if it cannot be made, or holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ValueError(f"{folder}: not a folder for checkpoints ({_reason(error)})") from None
    if names and lock.NAME not in names and not any(_is_step(folder, name) for name in names):
        raise ValueError(f"{folder}: not a folder of checkpoints, it has {names[0]}; choose one that is empty or new")


def _is_step(folder: pathlib.Path, name: str) -> bool:
    """Whether this is the manifest of a step that is there: the sign of our folders where the lock file was deleted."""
    return name.endswith(".json") and (folder / name.removesuffix(".json") / arrays.ITEM).is_dir()


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unfinished(folder: pathlib.Path) -> list[int]:
    names = [name.partition(".orbax-checkpoint-tmp") for name in os.listdir(folder)]
    return [int(head) for head, mark, _ in names if mark and head.isascii() and head.isdigit()]


def _json_values(name: str, values: dict[str, Any] | None) -> dict[str, Any] | None:
    """A copy as it will come back: tuples as lists.

    Raises:
      ValueError: if it is not a dictionary of strict JSON values.
    """
    if values is None:
        return None
    try:
        if not isinstance(values, dict):
            raise TypeError(f"it is a {type(values).__name__}")
        return untrusted.read_json(manifest.json_text(values), name)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: must be a dictionary of JSON values ({manifest.short(error)})") from None


def _reason(error: BaseException) -> str:
    if "RESOURCE_EXHAUSTED" in str(error) or "No space left" in str(error):
        return "no space left on the disk"
    return str(error) if isinstance(error, Damaged) else manifest.short(error)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    import jaxrl

    others = {name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint", "numpy")}
    return {"jaxrl": jaxrl.__version__, **others}
