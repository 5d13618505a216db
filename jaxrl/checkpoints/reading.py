"""Reading checkpoints: the newest good step, or the reason why there is none."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
from typing import Any, Callable, NamedTuple

from jaxrl.checkpoints import arrays, manifest, structure
from jaxrl.checkpoints.manifest import Damaged
from jaxrl.types import PyTree

_PATIENCE = 1000  # steps that are looked at before `restore` gives up

Say = Callable[[str], None]

to_stderr: Say = functools.partial(print, file=sys.stderr, flush=True)


class Restored(NamedTuple):
    """A state as it was when its step was saved.

    Attributes:
      step: when that was.
      notes: what the host counted, as given to `save`.
      config: of the run, as given to `Checkpoints`.
    """

    state: PyTree
    step: int
    notes: dict[str, Any]
    config: dict[str, Any] | None


class Reader:
    """The checkpoints in a folder, read only: no lock is taken and nothing changes, so a run may be writing there.

    Args:
      say: takes one line about a step that is skipped; None is the standard error.

    Raises:
      ValueError: if there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike, say: Say | None = None):
        self.folder = pathlib.Path(folder)
        self._say = say or to_stderr
        self._damaged: set[tuple[int, Any]] = set()  # versions of steps
        if not self.folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder")

    def steps(self) -> list[int]:
        """Finished steps, ascending; without those that `restore` found damaged."""
        return [step for step, fields in self._manifests() if fields is not None]

    def restore(self, template: PyTree, step: int | None = None) -> Restored:
        """The state of the newest good step, or of `step`.

        A damaged step is skipped, with one line that names it, the file and the problem.

        Args:
          template: a state of the structure, shapes and dtypes that were saved, or its `jax.ShapeDtypeStruct`s.

        Raises:
          ValueError: if no step is good, or the state that was saved does not fit the template.
        """
        wanted = structure.describe(template)
        skipped: dict[tuple[int, Any], str] = {}
        for _ in range(_PATIENCE):  # a run may write and remove steps under our eyes: look again after each
            left = [x for x in map(self._version, self._candidates()) if x not in skipped and step in (None, x[0])]
            if not left:
                break
            newest, version = left[-1]
            try:
                return self._restore(template, wanted, newest)
            except Damaged as error:
                skipped[left[-1]] = f"step {newest}: {error}"
                if self._version(newest) != left[-1]:
                    continue
                self._damaged.add(left[-1])
                if step is None:
                    why = "damaged" if version else "not finished"
                    self._tell(f"checkpoint: step {newest} is {why} and is skipped: {error}")
        if skipped:
            reasons = "; ".join(list(skipped.values())[-3:])
            raise ValueError(f"{self.folder}: no checkpoint can be restored ({reasons})")
        which = "a checkpoint" if step is None else f"step {step}"
        raise ValueError(f"{self.folder}: does not have {which}; it has steps {self.steps() or 'none'}")

    def _version(self, step: int) -> tuple[int, Any]:
        """The step, and what tells one manifest of it from another that replaces it; None if there is none."""
        try:
            status = manifest.path_of(self.folder, step).lstat()
        except OSError:
            return step, None
        return step, (status.st_ino, status.st_mtime_ns)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads any more must not end the run
            self._say(line)

    def _restore(self, template: PyTree, wanted: dict[str, Any], step: int) -> Restored:
        fields = manifest.read(manifest.path_of(self.folder, step))
        problems = structure.misfits(fields, wanted)
        if problems:
            shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
            shown = manifest.printable(shown)
            raise ValueError(f"{self.folder}: step {step} is a state of another shape: {shown}")
        manifest.verify(self.folder / str(step), fields["files"])
        shapes = {name: structure.stored(leaf) for name, leaf in structure.named_leaves(template)}
        loaded = read_back(self.folder / str(step), shapes, {x["path"]: x["sha256"] for x in fields["leaves"]})
        return Restored(structure.rebuild(template, loaded), step, fields["notes"], fields["config"])

    def _candidates(self) -> list[int]:
        return sorted({*manifest.numbers(self.folder), *manifest.numbers(self.folder, ".json")})

    def _manifests(self) -> list[tuple[int, dict[str, Any] | None]]:
        """(step, fields) of all that has a manifest, ascending; None for a step that is known to be damaged."""
        found = []
        for step in manifest.numbers(self.folder, ".json"):
            try:
                fields = manifest.read(manifest.path_of(self.folder, step))
            except (Damaged, ValueError):
                fields = None
            bad = self._version(step) in self._damaged or not (self.folder / str(step)).is_dir()
            found.append((step, None if bad else fields))
        return found


def read_back(folder: pathlib.Path, shapes: arrays.Shapes, digests: dict[str, str]) -> dict[str, Any]:
    """The arrays of a step's folder, each what it was when it was saved.

    Raises:
      Damaged: if one is not, or orbax cannot read them.
    """
    try:
        loaded = arrays.read(folder, shapes)
    except Exception as error:  # orbax and tensorstore raise whatever they like, down to bare Exception
        raise Damaged(f"{folder.name}/{arrays.ITEM} cannot be read ({manifest.short(error)})") from None
    for name, array in loaded.items():
        if manifest.array_digest(array) != digests[name]:
            raise Damaged(f"{folder.name}/{arrays.ITEM}: {name!r} is not the array that was saved (sha-256)")
    return loaded


def open_readonly(folder: str | os.PathLike, say: Say | None = None) -> Reader:
    """The checkpoints of a run that another process may be writing: `steps` and `restore`, no lock, no deletions."""
    return Reader(folder, say)


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """The config of the newest step whose manifest is in order.

    Raises:
      ValueError: if there is none.
    """
    for step, fields in reversed(Reader(folder)._manifests()):
        if fields is not None and fields["config"] is not None:
            return fields["config"]
    raise ValueError(f"{folder}: has no checkpoint with a config")
