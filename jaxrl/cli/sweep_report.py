"""What a sweep prints: the plan, a line as members end, the ranking."""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any, Callable

from jaxrl.cli.sweep_results import Journal, as_csv, write


def introduction(sweep: Any, journal: Journal, out: pathlib.Path) -> list[str]:
    """What is to be trained."""
    from jaxrl import __version__
    from jaxrl.cli.compilation import device_name

    settings, seeds = len(sweep.settings), len(sweep.seeds)
    ends = sorted({steps[-1] for steps in journal.steps})
    unit = "updates" if sweep.groups[0].settings.dataset is not None else "steps"
    lines = [
        f"jaxrl {__version__}: sweep of {' in '.join(sweep.names)} on {device_name()}",
        f"{settings} settings x {seeds} seeds, {' or '.join(f'{x:,}' for x in ends)} {unit} each, in {out}",
    ]
    for name in sweep.settings[0]:
        values = list(dict.fromkeys(setting[name] for setting in sweep.settings))
        scale = sweep.ranges.get(name)
        lines.append(f"  {name}: {scale or ', '.join(map(str, values))}")
    if len(sweep.finalists) > 1:
        steps = journal.steps[0]
        rungs = ", ".join(f"{n} to {end:,}" for n, end in zip(sweep.finalists, steps))
        spent = sum(n * (b - a) for n, a, b in zip(sweep.finalists, [0, *steps], steps)) / (settings * steps[-1])
        lines.append(f"  halving: {rungs} {unit}: {100 * spent:.0f} % of what all of them would take")
    done = sum(journal.done((i, s)) > 0 for i in range(settings) for s in sweep.seeds)
    if done:
        lines.append(f"  {done} members are there already")
    return lines


class Progress:
    """A line as members end: every one in a terminal, elsewhere one every tenth of them."""

    def __init__(self, journal: Journal, number: int, say: Callable[[str], None]):
        self._journal, self._number, self._say = journal, number, say
        self._done, self._steps, self._started = 0, 0, time.perf_counter()

    def add(self, member: tuple[int, int], new: int) -> None:
        """Counts a member that has got `new` rows."""
        rows, before = self._journal.rows[member], self._done
        self._done += 1
        self._steps += rows[-1]["steps"] - (rows[-1 - new]["steps"] if len(rows) > new else 0)
        if self._done * 10 // self._number == before * 10 // self._number and not sys.stdout.isatty():
            return
        seconds = time.perf_counter() - self._started
        shown = "diverged" if rows[-1]["diverged"] else f"return {rows[-1]['return']:.2f}"
        left = seconds / self._done * (self._number - self._done)
        rate = f"{self._steps / seconds:>10,.0f} steps/s"
        self._say(f"{self._done:>6} / {self._number} members  {rate}  {shown:>16}  {left:5.0f} s left")


def write_ranking(out: pathlib.Path, rows: list[dict]) -> None:
    write(out / "ranking.csv", as_csv(list(rows[0]), rows))


def table(sweep: Any, rows: list[dict], seconds: float) -> list[str]:
    """The ranking as lines."""
    names = list(sweep.settings[0])
    heads = ["rank", *(name.removeprefix("hparams.") for name in names), "return (IQM)", "95 % interval", "seeds"]
    heads += ["steps", "steps/s", "compile s"]
    lines = [heads]
    for row in rows:
        good = row["iqm"] is not None
        interval = f"{row['low']:.2f} to {row['high']:.2f}" if good else "-"
        seeds = f"{row['seeds']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
        rate = "-" if row["steps_per_second"] is None else f"{row['steps_per_second']:,.0f}"
        value = f"{row['iqm']:.2f}" if good else "-"
        cells = [f"{row['rank']}", *(str(row[name]) for name in names), value, interval, seeds]
        lines.append([*cells, f"{row['steps']:,}", rate, f"{row['compile_seconds']:.1f}"])
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
    diverged = sum(row["diverged"] for row in rows)
    more = [f"{diverged} members diverged (a number was not finite); their settings come last"] * bool(diverged)
    return ["", *text, *more, f"{seconds:.1f} s in all"]
