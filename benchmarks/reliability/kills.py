"""Kills `jaxrl train` with SIGKILL at random moments, resumes it until it ends, and compares what it ends with.

    python benchmarks/reliability/kills.py            # >= 100 kills; --quick: 6; --write: docs/reliability/kills.md

Each learner trains once without a kill. Then the same command is killed, again and again, and resumed each time. The
clock of a kill starts when the program is compiled (the compilation cache is on; otherwise no process would live long
enough to get anywhere) and strikes after a random time, in a chunk, a save, the evaluation or while files are written.
Right is a last state (parameters, optimizer, keys, environments in mid-episode, replay buffer, counters) whose SHA-256
is that of the uninterrupted run, the same policy file, and the same metrics but for those that are times.
"""

import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import pages

import jaxrl
from jaxrl.keys import is_key

COMMON = "--seed 3 --episodes 4 --checkpoint-minutes 0 --keep 2"
PPO = f"--num-envs 16 --unroll-length 32 --num-minibatches 4 {COMMON}"
LEARNERS = {
    "ppo": f"ppo CartPole-v1 {PPO} --widths 64 64 --num-epochs 4 --steps 768000 --checkpoint-steps 25600",
    "recurrent ppo": f"ppo memory_chain {PPO} --recurrent --memory-size 32 --num-epochs 2 --steps 307200 "
    "--checkpoint-steps 10240 --normalize-observation",
    "dqn": f"dqn CartPole-v1 {COMMON} --num-envs 8 --unroll-length 8 --widths 64 64 --buffer-size 20000 --steps 153600 "
    "--min-buffer-size 1000 --batch-size 64 --prioritized --n-step 3 --checkpoint-steps 5120",
}
TIMES = ("seconds", "steps_per_second")


def train(arguments, folder):
    """Starts `jaxrl train`, and returns once it has compiled, or ended."""
    command = [sys.executable, "-m", "jaxrl.cli", "train", *arguments]
    cache = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))}
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **cache}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if line.startswith("compiling ... (") or "nothing left to do" in line:
            break
    return process


def outcome(run, env=None):
    """Digest of the last state and of the policy file, and the metrics that are not times."""
    restored = jaxrl.restore(run, env)
    digest = hashlib.sha256(str(restored.steps).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored.state):
        array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode() + array.tobytes())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    return digest.hexdigest(), hashlib.sha256((run / "policy.safetensors").read_bytes()).hexdigest(), rows


def unfinished(run):
    """Whether a kill has left a save in the middle: a step without a manifest, or temporary files."""
    names = {path.name for path in (run / "checkpoints").iterdir()}
    return any("tmp" in name or (name.isdigit() and f"{name}.json" not in names) for name in names)


def trial(arguments, folder, name, window, draw, most=10**9):
    """Kills and resumes one run until it ends.

    Args:
      window: seconds; a kill strikes after a uniform time below it.
      most: kills; then the run is left alone.

    Returns:
      kills, how many of them struck while a checkpoint was being saved, and before the first was there.
    """
    run, kills, in_save, begun = folder / name, 0, 0, 0
    command = [*arguments.split(), "--out", name]
    while True:
        process = train(command, folder)
        try:
            delay = draw.uniform(0, window) if kills < most else None
            process.communicate(timeout=delay)
            if process.returncode:
                raise RuntimeError(f"{name}: resuming ended with {process.returncode}")
            return kills, in_save, begun
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        kills += 1
        in_save += (run / "checkpoints").is_dir() and unfinished(run)
        has_one = (run / "checkpoints").is_dir() and any((run / "checkpoints").glob("*.json"))
        begun += not has_one
        command = ["--resume", name] if has_one else [*arguments.split(), "--out", name, "--overwrite"]


def measure(folder, learners=LEARNERS, kills=102, most=10**9, lives=12, say=print):
    """Rows of the table, and the promises that are broken.

    Args:
      kills: at least so many over all learners; most: in one trial; lives: about so many kills a trial.
    """
    rows, broken, draw = [], [], random.Random(0)
    for learner, arguments in learners.items():
        whole = learner.replace(" ", "-")
        started = time.monotonic()
        if train([*arguments.split(), "--out", whole], folder).wait():
            raise RuntimeError(f"{learner}: the uninterrupted run failed")
        expected, total = outcome(folder / whole), 0
        seconds = json.loads((folder / whole / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
        counts, same, trials = np.zeros(3, int), [], 0
        while counts[0] < -(-kills // len(learners)):
            name = f"{whole}-{trials}"
            counts += trial(arguments, folder, name, 2 * seconds / lives, draw, most)
            found = outcome(folder / name)
            same.append(tuple(a == b for a, b in zip(found, expected)))
            trials += 1
            total = time.monotonic() - started
            say(f"{learner}: {counts[0]} kills, {same.count((True,) * 3)} of {trials} alike, {total:.0f} s", flush=True)
        alike = np.array(same).sum(0)
        rows.append(
            {
                "learner": learner,
                "runs": trials,
                "kills": int(counts[0]),
                "of them during a save": int(counts[1]),
                "before the first checkpoint": int(counts[2]),
                "same last state": f"{alike[0]} of {trials}",
                "same policy file": f"{alike[1]} of {trials}",
                "same metrics": f"{alike[2]} of {trials}",
            }
        )
        broken += [f"{learner}: a resumed run ended elsewhere"] * (not np.all(same))
    return rows, broken


def main():
    options = pages.arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"kills": 6, "most": 2} if options.quick else {}
        rows, broken = measure(pathlib.Path(folder), **sizes)
    kills = sum(row["kills"] for row in rows)
    if kills < (6 if options.quick else 100):
        broken.append(f"only {kills} kills")
    done = (
        f"Training runs were killed with SIGKILL {kills} times at random moments and resumed with `jaxrl train "
        "--resume RUN` until they ended; the clock of a kill started after compilation. What they ended with was "
        "compared with the same run without a kill: SHA-256 of the whole last state (parameters, optimizer, keys, "
        "environments, replay buffer, counters), the policy file, and every metric that is not a time."
    )
    return pages.finish("kills", "Killed and resumed", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
