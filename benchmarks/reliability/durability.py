"""Kills a process that saves checkpoints: a step that was said to be saved is never lost, and never wrong.

    python benchmarks/reliability/durability.py    # --quick: fewer kills; --write: docs/reliability/durability.md

The process saves one step after another as fast as it can. Half of the kills come right after it has said that a step
is saved, half at a random moment. Then the folder is read, here, and the next process goes on from it.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import pages

from jaxrl.checkpoints import Checkpoints, open_readonly

KEEP = 2


def state(step):
    return {"w": np.random.default_rng(step).normal(size=100_000), "step": np.int64(step)}


def save(folder):
    """Goes on from the newest step for ever."""
    with Checkpoints(folder, keep=KEEP, keep_best=0, say=lambda line: print(line, flush=True)) as checkpoints:
        step = checkpoints.restore(state(0)).step if checkpoints.steps() else 0
        while True:
            step += 1
            checkpoints.save(step, state(step))


def last_said(lines):
    return max((int(line.split()[2]) for line in lines if line.endswith(" saved\n")), default=0)


def trial(folder, at_once, random):
    """Kills once. Returns (newest step said, step restored or None, right to the bit, whether leftovers were there)."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", str(folder)], stdout=subprocess.PIPE, text=True, bufsize=1
    )
    lines = []
    for _ in range(int(random.integers(1, 6))):
        while not lines or not lines[-1].endswith(" saved\n"):
            lines.append(process.stdout.readline())
            assert lines[-1], "the process that saves has ended"
        lines.append("")
    if not at_once:
        time.sleep(random.uniform(0, 0.3))
    process.kill()
    lines += process.stdout.readlines()
    process.wait()
    names = {path.name for path in folder.iterdir()}
    leftovers = any("tmp" in name or (name.isdigit() and f"{name}.json" not in names) for name in names)
    try:
        restored = open_readonly(folder, lambda line: None).restore(state(0))
    except ValueError as error:
        print(error, file=sys.stderr)
        return last_said(lines), None, False, leftovers
    right = all(np.array_equal(restored.state[k], v) for k, v in state(restored.step).items())
    return last_said(lines), restored.step, right, leftovers


def measure(quick=False):
    """Rows of the table, and the promises that are broken."""
    count, random = 4 if quick else 60, np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        trials = [trial(pathlib.Path(folder, "c"), i % 2 == 0, random) for i in range(count)]
        with Checkpoints(pathlib.Path(folder, "c"), say=lambda line: None) as checkpoints:
            swept = not any("tmp" in path.name for path in checkpoints.folder.iterdir())
    lost = sum(restored is None or restored < said for said, restored, _, _ in trials)
    rows = [
        {"what": "kills", "count": count},
        {
            "what": "of them in the middle of a save or a removal (leftovers were there)",
            "count": sum(t[3] for t in trials),
        },
        {"what": "steps said to be saved, and then lost", "count": lost},
        {"what": "restored to the bit", "count": f"{sum(t[2] for t in trials)} of {count}"},
        {"what": "newest step reached", "count": max(t[1] or 0 for t in trials)},
    ]
    broken = [f"{lost} steps lost"] * bool(lost) + ["a state was wrong"] * (not all(t[2] for t in trials))
    return rows, broken + ["leftovers stay"] * (not swept)


def main():
    if "--child" in sys.argv:
        return save(pathlib.Path(sys.argv[-1]))
    options = pages.arguments(__doc__)
    rows, broken = measure(options.quick)
    done = (
        "A process that saves one checkpoint after another was killed, half of the times right after it had said that "
        "a step is saved, half at a random moment; the next one went on from what was there."
    )
    return pages.finish("durability", "Saved is saved", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
