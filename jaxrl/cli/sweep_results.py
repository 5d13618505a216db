"""What a sweep's directory holds: sweep.json, results.jsonl, results.csv, ranking.csv, and states between rungs.

A line of results.jsonl is a setting, a seed and an evaluation. A member's lines are written together once they are
known, and are believed only if they are whole, so that a kill at any moment loses what was running and nothing else.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import pathlib
from typing import Any, Iterable

import numpy as np

from jaxrl.cli.errors import BadInput, bad_input
from jaxrl.cli.run_directory import finite

STATES = "states"
FILES = ("sweep.json", "results.jsonl", "results.csv", "ranking.csv", "jaxrl.lock", STATES)
FIGURES = ("steps", "return", "length", "training_return", "training_length", "training_episodes", "diverged")
TIMES = ("seconds", "compile_seconds")
Rows = dict[tuple[int, int], list[dict]]  # (setting, seed) -> a row for each evaluation so far


class Journal:
    """The results of a sweep on disk.

    Args:
      out: its directory.
      settings: what makes each setting, by column.
      steps: of each setting, up to each evaluation.
      seeds: of all members.
    """

    def __init__(self, out: pathlib.Path, settings: list[dict], steps: list[list[int]], seeds: list[int]):
        self.out, self.settings, self.steps, self.seeds = out, settings, steps, seeds
        self.columns = ["setting", *settings[0], "seed", "evaluation", *FIGURES, *TIMES]
        self.rows: Rows = {}

    def read(self, parts: bool) -> None:
        """Takes what is on disk and can be believed; with `parts`, members may be in the middle of their run."""
        lines: dict[tuple[int, int], dict[int, dict]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.out / "results.jsonl").read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError, LookupError, TypeError):
                    row = self._checked(json.loads(line))
                    lines.setdefault((row["setting"], row["seed"]), {})[row["evaluation"]] = row
        for (setting, seed), found in lines.items():
            number = next(k for k in range(len(found) + 1) if k + 1 not in found)
            whole = number == len(self.steps[setting])
            if whole or (parts and number):
                self.rows[setting, seed] = [found[k + 1] for k in range(number)]
        self.write()

    def _checked(self, row: Any) -> dict:
        """A row as it was written.

        Raises:
          ValueError: if it is not of this sweep.
        """
        setting, evaluation = row["setting"], row["evaluation"]
        if list(row) != self.columns or type(setting) is not int or type(evaluation) is not int or setting < 0:
            raise ValueError("another sweep's row")
        expected = {**self.settings[setting], "seed": row["seed"], "steps": self.steps[setting][evaluation - 1]}
        if evaluation < 1 or row["seed"] not in self.seeds or {k: row[k] for k in expected} != expected:
            raise ValueError("another sweep's row")
        if not all(isinstance(row[k], (int, float, type(None))) for k in (*FIGURES, *TIMES)):
            raise ValueError("not a number")
        return row

    def add(self, member: tuple[int, int], results: Iterable[dict], seconds: float, compile_seconds: float) -> None:
        """Results of the next evaluations of a member, `seconds` for all of them; on disk when this returns."""
        setting, seed = member
        rows = self.rows.setdefault(member, [])
        results, new = list(results), []
        times = {"seconds": round(seconds / len(results), 6), "compile_seconds": round(compile_seconds, 3)}
        for k, result in enumerate(results, len(rows)):
            names = {"setting": setting, **self.settings[setting], "seed": seed, "evaluation": k + 1}
            new.append({**names, **figures_of(result, self.steps[setting][k]), **times})
        rows += new
        with open(self.out / "results.jsonl", "ab") as file:
            file.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in new).encode())
            file.flush()
            os.fsync(file.fileno())

    def write(self) -> None:
        """results.jsonl and results.csv anew, in the order of settings, seeds and evaluations."""
        rows = [row for member in sorted(self.rows) for row in self.rows[member]]
        write(self.out / "results.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        write(self.out / "results.csv", as_csv(self.columns, rows))

    def done(self, member: tuple[int, int]) -> int:
        """Evaluations of a member so far."""
        return len(self.rows.get(member, ()))

    def returns(self, settings: Iterable[int], evaluation: int) -> np.ndarray:
        """[settings, seeds] after an evaluation, counted from 0; NaN where a member has diverged, or has none."""
        return np.array([[self._return((i, seed), evaluation) for seed in self.seeds] for i in settings])

    def _return(self, member: tuple[int, int], evaluation: int) -> float:
        rows = self.rows.get(member, [])
        if len(rows) <= evaluation or rows[evaluation]["diverged"] or rows[evaluation]["return"] is None:
            return math.nan
        return rows[evaluation]["return"]


def figures_of(result: dict[str, Any], steps: int) -> dict[str, Any]:
    """The columns of an evaluation from what the program returned."""
    result = {name: float(value) for name, value in result.items()}
    count = result.get("episode/count", 0.0)
    mean = lambda name: finite(result[name] / count) if count and name in result else None  # noqa: E731
    return {
        "steps": steps,
        "return": finite(result["return"]),
        "length": finite(result["length"]),
        "training_return": mean("episode/return_sum"),
        "training_length": mean("episode/length_sum"),
        "training_episodes": finite(count),
        "diverged": bool(result["bad"] > 0 or not math.isfinite(result["return"])),
    }


def ranking(journal: Journal, finalists: list[list[int]]) -> list[dict]:
    """A row for each setting, best first.

    Args:
      finalists: settings that were left at each rung, the last first to be ranked; one list without halving.
    """
    from jaxrl.statistics import bootstrap_interval, iqm
    from jaxrl.sweeps import ranking as order

    rows: list[dict] = []
    last = len(finalists) - 1
    for k in reversed(range(len(finalists))):
        ranked = {row["setting"] for row in rows}
        here = [i for i in finalists[k] if i not in ranked]
        evaluation = k if last else len(journal.steps[0]) - 1
        returns = journal.returns(here, evaluation) if here else np.zeros((0, 1))
        for at in order(returns):
            good = returns[at][np.isfinite(returns[at])]
            low, high = bootstrap_interval(good) if len(good) else (math.nan, math.nan)
            figures = {"iqm": iqm(good) if len(good) else math.nan, "low": low, "high": high}
            own = [row for seed in journal.seeds for row in journal.rows[here[at], seed]]
            gains = [b["steps"] - a for a, b in zip(before(own), own)]
            seconds = sum(row["seconds"] for row in own)
            rows.append(
                {
                    "rank": len(rows) + 1,
                    "setting": here[at],
                    **journal.settings[here[at]],
                    **{name: finite(value) for name, value in figures.items()},
                    "seeds": len(journal.seeds),
                    "diverged": len(journal.seeds) - len(good),
                    "steps": journal.steps[here[at]][evaluation],
                    "steps_per_second": sum(gains) / seconds if seconds else None,
                    "compile_seconds": max(row["compile_seconds"] for row in own),
                }
            )
    return rows


def before(rows: list[dict]) -> list[int]:
    """Steps at the beginning of each row's part of a run."""
    return [0 if row["evaluation"] == 1 else earlier["steps"] for earlier, row in zip([{}, *rows], rows)]


def as_csv(columns: list[str], rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write(path: pathlib.Path, text: str) -> None:
    from jaxrl.policy_file import write_atomically

    write_atomically(path, text.encode())


def save_state(out: pathlib.Path, member: tuple[int, int], rung: int, leaves: list[np.ndarray]) -> None:
    """The state of a member that may go on, after a rung: SHA-256, then the bytes of its arrays."""
    from jaxrl.policy_file import write_atomically

    data = b"".join(np.asarray(x).tobytes() for x in leaves)
    write_atomically(state_path(out, member, rung), hashlib.sha256(data).digest() + data)


def load_state(out: pathlib.Path, member: tuple[int, int], rung: int, shapes: list) -> list[np.ndarray]:
    """What `save_state` wrote.

    Raises:
      BadInput: if it is missing, damaged, or of another program.
    """
    path = state_path(out, member, rung)
    with bad_input(OSError, what=str(path)):
        read = path.read_bytes()
    data, sizes = read[32:], [math.prod(x.shape) * x.dtype.itemsize for x in shapes]
    if hashlib.sha256(data).digest() != read[:32] or len(data) != sum(sizes):
        raise BadInput(f"{path}: is damaged, or not of this sweep; start again with --overwrite")
    starts = np.cumsum([0, *sizes])
    return [np.frombuffer(data[a : a + n], x.dtype).reshape(x.shape) for a, n, x in zip(starts, sizes, shapes)]


def state_path(out: pathlib.Path, member: tuple[int, int], rung: int) -> pathlib.Path:
    return out / STATES / f"{member[0]}-{member[1]}-{rung}"
