"""Kills `jaxrl sweep` with SIGKILL at random moments, resumes it until it ends, and compares its tables.

    python benchmarks/reliability/sweep_kills.py     # >= 10 kills of each; --quick: 2; --write: the page in docs

A sweep of settings and seeds, and one with successive halving, are trained once without a kill. Then each is killed
again and again, and resumed each time. The clock of a kill starts when the first program is compiled (the compilation
cache is on) and strikes after a random time, in a member, while lines are written, or between rungs. Before each resume
the lines of results.jsonl say which members were finished; none of them may be trained again. Right is a results.csv
and a ranking.csv that are those of the uninterrupted sweep, byte for byte but for the columns that are times.
"""

import csv
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import pages

COMMON = "ppo CartPole-v1 --num-envs 8 --unroll-length 32 --widths 32 --num-epochs 2 --num-minibatches 2 --seeds 4"
SWEEPS = {
    "grid": f"{COMMON} --steps 81920 --hparams.learning-rate 1e-4,1e-3,1e-2 --hparams.discount .97,.99 --evaluations 4",
    "halving": f"{COMMON} --steps 163840 --random 8 --hparams.learning-rate 1e-5..1e-1 --halving 2",
}
TIMES = ("seconds", "compile_seconds", "steps_per_second")


def sweep(arguments, folder):
    """Starts `jaxrl sweep`, and returns once its first program is compiled, or it has ended."""
    command = [sys.executable, "-m", "jaxrl.cli", "sweep", *arguments]
    cache = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))}
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **cache}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if "compiled in" in line:
            break
    return process


def tables(out):
    """results.csv and ranking.csv as text, without times."""
    found = []
    for name in ("results.csv", "ranking.csv"):
        rows = list(csv.DictReader(io.StringIO((out / name).read_text())))
        kept = [column for column in rows[0] if column not in TIMES]
        found.append("\n".join(",".join(row[column] for column in kept) for row in rows))
    return found


def lines(out):
    """The whole lines of results.jsonl, and whether a torn one follows."""
    path = out / "results.jsonl"
    text = path.read_text() if path.exists() else ""
    return {key(line): line for line in text.splitlines(keepends=True) if line.endswith("\n")}, not text.endswith("\n")


def key(line):
    row = json.loads(line)
    return row["setting"], row["seed"], row["evaluation"]


def trial(arguments, folder, name, window, draw, kills):
    """Kills and resumes one sweep until it ends.

    Returns:
      kills; how many struck while a member's lines were half-written; lines that changed or went after they were there.
    """
    out, struck, torn, repeated = folder / name, 0, 0, 0
    fresh = [*arguments.split(), "--out", name]
    command, before = fresh, {}
    while True:
        process = sweep(command, folder)
        try:
            said, _ = process.communicate(timeout=draw.uniform(0, window) if struck < kills else None)
            if process.returncode:
                raise RuntimeError(f"{name}: ended with {process.returncode}: {said[-2000:]}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            struck += 1
        else:
            after, _ = lines(out)
            return struck, torn, repeated + sum(after.get(k) != line for k, line in before.items())
        after, half = lines(out)
        repeated += sum(after.get(k) != line for k, line in before.items())
        torn += half and bool(after)
        before = after
        command = ["--resume", name] if (out / "sweep.json").exists() else [*fresh, "--overwrite"]


def measure(folder, sweeps=SWEEPS, kills=10, most=10**9, lives=5, say=print):
    """Rows of the table, and the promises that are broken.

    Args:
      kills: at least so many of each sweep; most: in one trial; lives: about so many kills a trial.
    """
    rows, broken, draw = [], [], random.Random(0)
    for name, arguments in sweeps.items():
        sweep([*arguments.split(), "--out", f"{name}-warm"], folder).communicate()  # compiles
        started = time.monotonic()
        process = sweep([*arguments.split(), "--out", name], folder)
        compiled = time.monotonic()
        process.communicate()
        if process.returncode:
            raise RuntimeError(f"{name}: the uninterrupted sweep failed")
        seconds, expected = time.monotonic() - compiled, tables(folder / name)
        struck, torn, repeated, same, trials = 0, 0, 0, 0, 0
        while struck < kills:
            found = trial(arguments, folder, f"{name}-{trials}", 2 * seconds / lives, draw, min(most, kills))
            struck, torn, repeated = struck + found[0], torn + found[1], repeated + found[2]
            same += tables(folder / f"{name}-{trials}") == expected
            trials += 1
            say(f"{name}: {struck} kills, {same} of {trials} alike, {time.monotonic() - started:.0f} s", flush=True)
        rows.append(
            {
                "sweep": name,
                "runs": trials,
                "kills": struck,
                "of them with a half-written line": torn,
                "finished lines lost or trained again": repeated,
                "same tables": f"{same} of {trials}",
            }
        )
        broken += [f"{name}: a resumed sweep ended elsewhere"] * (same < trials)
        broken += [f"{name}: {repeated} finished lines were lost or trained again"] * (repeated > 0)
    return rows, broken


def main():
    options = pages.arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        rows, broken = measure(pathlib.Path(folder), **({"kills": 2, "lives": 3} if options.quick else {}))
    done = (
        f"Sweeps were killed with SIGKILL {sum(row['kills'] for row in rows)} times at random moments and resumed with "
        "`jaxrl sweep --resume DIR` until they ended. A line of results that was there before a kill had to be there, "
        "times included, at the end: a member that is trained again has other times. The tables at the end were "
        "compared with those of the sweep without a kill, byte for byte without the columns that are times."
    )
    return pages.finish("sweep_kills", "Sweeps that are killed and resumed", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
