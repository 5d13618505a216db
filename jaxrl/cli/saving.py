"""Checkpoints of a run: when, of what, back again, and the lines about them."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import pathlib
import sys
import threading
import time
from typing import Any

from jaxrl.cli import hosts, programs, run_directory
from jaxrl.cli.errors import bad_input


class Saver:
    """Saves on a schedule of steps or minutes.

    Args:
      store: `checkpoints.Checkpoints`, or None: nothing is saved.
      options: of the run.
    """

    def __init__(self, store: Any, options: dict[str, Any]):
        self._store, self._options = store, options
        self._steps, self._time = -1, time.monotonic()

    def due(self, steps: int) -> bool:
        """Whether it is time for a checkpoint after that step."""
        every, minutes = self._options["checkpoint_steps"], self._options["checkpoint_minutes"]
        late = minutes > 0 and time.monotonic() - self._time >= 60 * minutes
        return late or (every > 0 and steps // every > max(self._steps, 0) // every)

    def save(self, state: Any, steps: int, notes: dict[str, Any], score: float | None = None) -> None:
        """Saves the state after that step, unless it is there; most of it happens while the run goes on."""
        if not self._options["checkpoints"] or steps == self._steps:
            return
        score = score if score is not None and math.isfinite(score) else None
        kept = hosts.gather(self._kept(state))  # in which every process takes part
        if self._store is not None:
            self._store.save(steps, kept, notes={**notes, "score": score}, score=score)
        self._steps, self._time = steps, time.monotonic()

    def restore(self, progress: Any, out: pathlib.Path, resumed: Any, template: Any, fresh: Any) -> None:
        """Takes the newest good checkpoint; metrics after it go, and the run's files are ready for what follows.

        Args:
          progress: a `running.Progress`, which is filled.
          template: shapes of the state; fresh: a first state, where checkpoints leave replay buffers out.

        Raises:
          BadInput: if no checkpoint is good, or it is of another state.
        """
        with bad_input(ValueError, OSError, what=str(out)):
            restored = self._restore(self._kept(template), out)
        steps, notes, state = restored.step, restored.notes, restored.state
        if resumed.extended and self._store is not None:  # first: a kill from now on must not shorten the run again
            self._store.save(steps, state, notes=notes, score=number(notes.get("score")))
        state = hosts.place(state, self._options["devices"])
        progress.state = state if self._options["checkpoint_replay"] else programs.with_buffers(state, fresh)
        progress.steps = self._steps = steps
        progress.seconds = number(notes.get("seconds")) or 0.0
        progress.compile_seconds = number(notes.get("compile_seconds")) or 0.0
        progress.started -= number(notes.get("wall_seconds")) or 0.0
        with bad_input(OSError, what=str(out)):
            for row in go_back(out, steps, resumed.config) if hosts.is_first() else []:
                progress.add(row)

    def _restore(self, template: Any, out: pathlib.Path) -> Any:
        """The newest good step, which the first process finds and the others read then."""
        from jaxrl.checkpoints import open_readonly

        if self._store is not None:
            restored = self._store.restore(template)
            hosts.agree(restored.step)
            return restored
        return open_readonly(out / run_directory.CHECKPOINTS).restore(template, hosts.agree(0)[0][0])

    def wait(self) -> None:
        """Until what was saved is on the disk."""
        if self._store is not None:
            self._store.wait()

    def newest(self) -> int | None:
        """The newest step that a run can go on from."""
        return max(self._store.steps(), default=None) if self._store is not None else None

    def _kept(self, state: Any) -> Any:
        return state if self._options["checkpoint_replay"] else programs.without_buffers(state)


def go_back(out: pathlib.Path, steps: int, config: dict[str, Any]) -> list[dict]:
    """Makes the directory what it was after a step; returns the lines of metrics.jsonl up to there."""
    rows = read_rows(out, steps)
    write_rows(out, rows)
    (out / "result.json").unlink(missing_ok=True)
    for path in filter(run_directory.is_unfinished, list(out.iterdir())):
        path.unlink()
    run_directory.write_config(out, config)
    return rows


def write_rows(out: pathlib.Path, rows: list[dict]) -> None:
    """metrics.jsonl anew."""
    from jaxrl.policy_file import write_atomically

    write_atomically(out / "metrics.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())


def read_rows(out: pathlib.Path, steps: int) -> list[dict]:
    """The lines of metrics.jsonl up to a step; what a kill left half-written is not among them."""
    try:
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            numbers = isinstance(row, dict) and all(isinstance(row.get(k), (int, float)) for k in ("steps", "seconds"))
            if numbers and (rows[-1]["steps"] if rows else 0) < row["steps"] <= steps:
                rows.append(row)
    return rows


def open_store(out: pathlib.Path, options: dict[str, Any], config: dict[str, Any]) -> Any:
    """A context with the `Checkpoints` of a run, or with None if there are to be none.

    Raises:
      BadInput: if another run writes there.
    """
    if not options["checkpoints"] or not hosts.is_first():
        return contextlib.nullcontext()
    from jaxrl.checkpoints import Checkpoints

    say = functools.partial(tell, quiet=options["quiet"])
    with bad_input(ValueError, OSError, what=str(out)):
        return Checkpoints(out / run_directory.CHECKPOINTS, keep=options["keep"], config=config, say=say)


def tell(line: str, quiet: bool) -> None:
    """What `Checkpoints` says: that a step is saved, or, also where a run is quiet, what is wrong."""
    if not line.endswith(" saved"):
        warn(line)
    elif not quiet:
        print(f"{clear()}{line}", flush=True)


def warn(line: str) -> None:
    print(f"{clear()}jaxrl: {line}", file=sys.stderr, flush=True)


def clear() -> str:
    """What removes a progress line from a terminal."""
    return "\r\033[K" if sys.stdout.isatty() else ""


def number(value: Any) -> float | None:
    """A finite number from a file, or None."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def import_in_background() -> None:
    """Starts importing what saving takes, which goes on while XLA compiles."""
    threading.Thread(target=importlib.import_module, args=("orbax.checkpoint",), name="import", daemon=True).start()
