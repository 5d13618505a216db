"""Saves checkpoints on a disk that is full: the save ends, the run does not, and what was saved stays.

    python benchmarks/reliability/disk_full.py     # --quick: fewer sizes; --write: docs/reliability/disk_full.md

A file system of 8 MB (a tmpfs in a mount namespace of our own; where there can be none, a limit on the size of files)
has two steps. All but some of the rest is filled, and a third step is saved: with little room it must fail, at whatever
point the disk ends, in one line and without leftovers; both older steps must restore to the bit. Then room is made,
and the next save must succeed.
"""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pages

CAPACITY = 8 << 20
SIZE = 1 << 20  # of a state; its step takes a little more


def state(step):
    return {"w": np.random.default_rng(step).normal(size=SIZE // 8), "step": np.int64(step)}


def right(restored):
    return all(np.array_equal(restored.state[k], v) for k, v in state(restored.step).items())


class Ballast:
    """Takes the room on the disk but `free` bytes, or lets no file be longer than that."""

    def __init__(self, folder, free, limited):
        self._path, self._free, self._limited = folder / "ballast", free, limited

    def __enter__(self):
        if self._limited:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._free, resource.RLIM_INFINITY))
            return
        room = os.statvfs(self._path.parent)
        with open(self._path, "wb") as file:
            file.write(bytes(max(room.f_bavail * room.f_frsize - self._free, 0)))

    def __exit__(self, *_):
        if self._limited:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self._path.unlink(missing_ok=True)


def trial(disk, free, limited):
    """One size of the room that is left. Returns what happened, with a word for each promise that broke."""
    from jaxrl.checkpoints import Checkpoints

    lines, broken = [], []
    folder = pathlib.Path(tempfile.mkdtemp(dir=disk))
    with Checkpoints(folder, keep=5, say=lines.append) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step))
            checkpoints.wait()
        said = len(lines)
        with Ballast(disk, free, limited):
            checkpoints.save(3, state(3))
            checkpoints.wait()
            saved, said = 3 in checkpoints.steps(), lines[said:]
            if saved != (said == ["checkpoint: step 3 saved"]):
                broken.append(f"said {said}")
            if not saved and (len(said) != 1 or "step 3 was not saved" not in said[0] or "\n" in said[0]):
                broken.append(f"said {said}")
            if not saved and any(name.startswith(("3", ".")) for name in os.listdir(folder)):
                broken.append(f"left {os.listdir(folder)}")
            for step in (1, 2, *([3] if saved else [])):
                if not right(checkpoints.restore(state(0), step)):
                    broken.append(f"step {step} is lost")
        checkpoints.save(4, state(4))
        checkpoints.wait()
        if not right(checkpoints.restore(state(0), 4)):
            broken.append("no save once there was room")
    subprocess.run(["rm", "-r", str(folder)], check=True)
    return {"free": free, "saved": saved, "line": said[-1] if said else "", "broken": broken}


def inside(disk, quick, limited):
    """All trials, with a disk of that size."""
    if not limited:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={CAPACITY}", "tmpfs", disk], check=True)
    count = 6 if quick else 40
    sizes = [int(x) for x in np.linspace(0, 1.6 * SIZE, count)]
    if limited:
        sizes = [max(x, 1) for x in sizes]
    for free in sizes:
        print(json.dumps(trial(pathlib.Path(disk), free, limited)), flush=True)


def measure(quick=False):
    """Rows of the table, the promises that are broken, and what the disk was."""
    with tempfile.TemporaryDirectory() as disk:
        command = [sys.executable, __file__, "--inside", disk, *(["--quick"] if quick else [])]
        possible = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True)
        limited = possible.returncode != 0
        command = [*command, "--limited"] if limited else ["unshare", "-rm", *command]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600)
    trials = [json.loads(line) for line in ran.stdout.splitlines()]
    failed = [t for t in trials if not t["saved"]]
    broken = [f"{t['free']} bytes free: {x}" for t in trials for x in t["broken"]]
    if ran.returncode:
        broken.append(f"the run ended with status {ran.returncode}")
    if not failed or len(failed) == len(trials):
        broken.append(f"{len(failed)} of {len(trials)} saves failed, so one side was not tried")
    kept = sum(not any("lost" in x for x in t["broken"]) for t in trials)
    rows = [
        {"what": "sizes of the room that is left", "count": len(trials)},
        {"what": "saves that failed for want of room, each in one line", "count": len(failed)},
        {"what": "saves that had enough room", "count": len(trials) - len(failed)},
        {"what": "trials in which every older step came back to the bit", "count": f"{kept} of {len(trials)}"},
        {"what": "trials in which a promise broke", "count": sum(bool(t["broken"]) for t in trials)},
    ]
    rows += [{"what": f"`{line}`", "count": n} for line, n in tally(t["line"] for t in failed).items()]
    return rows, broken, "a limit on the size of files" if limited else "a tmpfs"


def tally(values):
    values = list(values)
    return {value: values.count(value) for value in dict.fromkeys(values)}


def main():
    if "--inside" in sys.argv:
        disk = sys.argv[sys.argv.index("--inside") + 1]
        return inside(disk, "--quick" in sys.argv, "--limited" in sys.argv)
    options = pages.arguments(__doc__)
    rows, broken, disk = measure(options.quick)
    done = (
        f"On {disk} of {CAPACITY >> 20} MB with two steps of {SIZE >> 20} MB, all but some of the room was taken and a "
        "third step was saved; then room was made and a fourth was. Right is: one line, no leftovers, the run goes on, "
        "both older steps restore to the bit, and the fourth is saved."
    )
    return pages.finish("disk_full", "A full disk", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
