"""What a run prints: a progress line, a table, a learning curve."""

from __future__ import annotations

import pathlib
import sys
from typing import Any, Sequence


def progress(row: dict[str, Any], total: int, chunk: int, num_chunks: int, unit: str = "steps") -> None:
    """After chunk 1 .. num_chunks: a line that rewrites itself in a terminal; elsewhere one every tenth of the run."""
    done, seconds, last = row["steps"], row["seconds"], chunk == num_chunks
    told = next(
        (k for k in ("episode/return", "value_loss", *row) if k in row and k.endswith(("return", "loss"))), None
    )
    value = row.get(told)
    shown = "-" if value is None else f"{value:.2f}"
    left = seconds / done * (total - done)
    name, rate = told.removeprefix("episode/"), f"{done / seconds:>10,.0f} {unit}/s"
    line = f"{done:>12,} / {total:,} {unit}  {rate}  {name} {shown:>9}  {left:5.0f} s left"
    if sys.stdout.isatty():
        print(f"\r\033[K{line}", end="\n" if last else "", flush=True)
    elif last or chunk * 10 // num_chunks > (chunk - 1) * 10 // num_chunks:
        print(line, flush=True)


def table(settings: Any, result: dict[str, Any], out: pathlib.Path, unit: str) -> None:
    print()
    for name, value in rows(settings, result, out, unit):
        print(f"  {name:<20}{value}")


def rows(settings: Any, result: dict[str, Any], out: pathlib.Path, unit: str) -> list[tuple[str, str]]:
    rate = result["steps_per_second"]
    return [
        ("agent", settings.agent_name),
        ("environment", settings.env_name),
        ("seed", str(settings.options["seed"])),
        *evaluation_rows(result),
        (unit, f"{result['steps']:,}"),
        (f"{unit} per second", "-" if rate is None else f"{rate:,.0f}"),
        ("compile seconds", f"{result['compile_seconds']:.1f}"),
        ("wall seconds", f"{result['wall_seconds']:.1f}"),
        ("run directory", str(out)),
    ]


def evaluation_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    if not result["episodes"]:
        return [("return", "not evaluated")]
    show = {
        k: "not finite" if result[k] is None else f"{result[k]:.2f}" for k in ("mean", "iqm", "iqm_low", "iqm_high")
    }
    interval = f"{show['iqm']}  (95 % interval {show['iqm_low']} to {show['iqm_high']})"
    rows = [("mean return", show["mean"]), ("IQM of returns", interval), ("episodes", str(result["episodes"]))]
    if "agents" in result:  # the rows above are of their mean
        each = ["not finite" if x is None else f"{x:.2f}" for x in result["agents"]]
        team = "not finite" if None in result["agents"] else f"{sum(result['agents']):.2f}"
        rows[1:1] = [("of each agent", "  ".join(each)), ("of the team", f"{team}  (sum)")]
    return rows


def curve(curve: Sequence[tuple[int, float | None]], width: int = 60, height: int = 12) -> None:
    """Prints the learning curve of steps and returns, if there are points for one."""
    points = [(x, y) for x, y in curve if y is not None]
    if len(points) > 1:
        print("\n  return of training episodes")
        print("\n".join(draw(points, width, height)))


def draw(points: Sequence[tuple[float, float]], width: int, height: int) -> list[str]:
    """A line plot in braille, two by four dots a character, with labels on both axes."""
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    grid = [[0] * width for _ in range(height)]
    dots = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of U+2800, [row][column]
    before = None
    for column in range(2 * width):
        x = first + (last - first) * column / (2 * width - 1)
        y = interpolate(points, x)
        row = round((high - y) / (high - low) * (4 * height - 1)) if high > low else 2 * height
        start = row if before is None else before
        for r in range(min(start, row), max(start, row) + 1):
            grid[r // 4][column // 2] |= dots[r % 4][column % 2]
        before = row
    labels = [f"{high:.4g}"] + [""] * (height - 2) + [f"{low:.4g}"]
    lines = [f"{label:>10} │{''.join(chr(0x2800 + c) for c in cells)}" for label, cells in zip(labels, grid)]
    left, right = f"{first:,.0f}", f"{last:,.0f} steps"
    return [*lines, f"{'':>10} └{'─' * width}", f"{'':>12}{left}{right:>{max(1, width - len(left))}}"]


def interpolate(points: Sequence[tuple[float, float]], x: float) -> float:
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x <= x1:
            return y0 + (y1 - y0) * max(0.0, (x - x0) / (x1 - x0))
    return points[-1][1]
