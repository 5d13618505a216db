"""A long run of what `jaxrl train` does, watched from outside: memory, open files, threads, disk.

    python benchmarks/reliability/soak.py [--minutes 30] [--agents ppo dqn] [--quick] [--write]

The command line itself trains in a process of its own, with a checkpoint every 20 seconds, until it is told to stop by
SIGTERM; steps are without end, and chunks short enough for 200 of them. All agents at once, for `--minutes`: 30 by
default, 240 for a night. `--quick` is 2 minutes, too short for a slope, which is then not judged. `--write`
writes docs/reliability/soak.md. Exit status 1 if memory grows by 1 MB an hour or more beyond twice the standard error,
files, threads or disk grow, or the run does not end as it should.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from pages import finish

ENVS = {"ppo": "CartPole-v1", "dqn": "CartPole-v1", "sac": "Pendulum-v1"}
CHUNKS = 200
BLOCKS = 24
LIMIT = 1.0  # MB an hour


def child(agent: str, env: str, updates: int, out: str) -> int:
    """`jaxrl train` with chunks of `updates` updates and no end."""
    from jaxrl import cli
    from jaxrl.cli import programs

    programs.plan = lambda steps, steps_per_update, size=None: (updates, steps // steps_per_update // updates)
    return cli.main(
        ["train", agent, env, "--out", out, "--quiet", "--steps", str(10**12), "--checkpoint-minutes", str(1 / 3)]
    )


def updates_per_second(agent: str, env: str, folder: pathlib.Path) -> float:
    """Of a short run of the command line, which also fills the compilation cache."""
    out = folder / "short"
    command = [sys.executable, "-m", "jaxrl.cli", "train", agent, env, "--out", str(out), "--quiet", "--episodes", "1"]
    subprocess.run([*command, "--steps", "200000"], check=True)
    config, result = (json.loads((out / name).read_text()) for name in ("config.json", "result.json"))
    return result["steps_per_second"] / (config["num_envs"] * config["unroll_length"])


def nbytes(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a checkpoint that was just removed
        return 0


def sample(pid: int, folder: pathlib.Path) -> dict[str, float]:
    """Resident memory and its anonymous part in MB, open files, threads, and MB of the run's folder."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    size = sum(nbytes(pathlib.Path(root, name)) for root, _, names in os.walk(folder) for name in names)
    return {
        "time": time.monotonic(),
        "rss": int(status["VmRSS"].split()[0]) / 1024,
        "anonymous": int(status["RssAnon"].split()[0]) / 1024,
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "disk": size / 2**20,
    }


def watch(agent: str, minutes: float, folder: pathlib.Path, interval: float = 2.0) -> dict[str, Any]:
    """Trains for `minutes` and returns the samples, the exit status, and what the folder holds at the end."""
    env, out = ENVS[agent], folder / "run"
    updates = max(1, round(updates_per_second(agent, env, folder) * minutes * 60 / CHUNKS))
    command = [sys.executable, __file__, "--child", agent, env, str(updates), str(out)]
    samples, started = [], None
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            rows = out / "metrics.jsonl"
            if started is None and rows.exists() and rows.stat().st_size:  # compiled, and a chunk has run
                started = time.monotonic()
            if started is not None:
                try:
                    samples.append(sample(process.pid, out))
                except (FileNotFoundError, KeyError):  # it has just ended
                    break
                if time.monotonic() - started > minutes * 60:
                    process.send_signal(signal.SIGTERM)
                    process.wait()
                    break
            time.sleep(interval)
        said = process.stderr.read()
    if not samples:
        raise RuntimeError(f"{agent} did not train: {said}")
    from jaxrl import checkpoints

    steps = checkpoints.open_readonly(out / "checkpoints").steps()
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return {
        "agent": agent,
        "samples": samples,
        "status": process.returncode,
        "said": said.strip(),
        "checkpoints": steps,
        "chunks": len(lines),
        "steps": json.loads(lines[-1])["steps"],
    }


def slope(samples: list[dict], name: str = "anonymous") -> tuple[float, float]:
    """MB an hour and its standard error: a line through the least value of each of 24 blocks of time.

    Least values, because a checkpoint that is being written holds a copy of the state for a while.
    """
    times = np.array([s["time"] for s in samples]) / 3600
    values = np.array([s[name] for s in samples])
    blocks = np.array_split(np.arange(len(samples)), BLOCKS)
    x, y = (np.array([f(v[b]) for b in blocks]) for f, v in ((np.mean, times), (np.min, values)))
    x = x - x.mean()
    rate = float(x @ y / (x @ x))
    residual = y - y.mean() - rate * x
    return rate, float(np.sqrt(residual @ residual / (len(x) - 2) / (x @ x)))


def judge(result: dict[str, Any], with_slope: bool = True) -> tuple[dict[str, Any], list[str]]:
    """A row of the table, and what is wrong. The first quarter of the samples is warm-up."""
    samples = result["samples"]
    steady = samples[len(samples) // 4 :]
    rate, error = slope(steady)
    first, last = steady[: len(steady) // 2], steady[len(steady) // 2 :]
    most = {k: (max(s[k] for s in first), max(s[k] for s in last)) for k in ("files", "threads", "disk")}
    wrong = []
    if with_slope and rate - 2 * error >= LIMIT:
        wrong.append(f"memory grows by {rate:.2f} +- {2 * error:.2f} MB/h")
    for name, (before, after) in most.items():
        if after > before + 4 + (name == "disk") * 0.1 * before:  # a metric a chunk, checkpoints one more or less
            wrong.append(f"{name} grow from {before:.0f} to {after:.0f}")
    if result["status"] != 128 + signal.SIGTERM:
        wrong.append(f"exit status {result['status']}: {result['said']}")
    if not result["checkpoints"] or result["checkpoints"][-1] != result["steps"]:
        wrong.append(f"checkpoints {result['checkpoints']} end before step {result['steps']}")
    row = {
        "agent": result["agent"],
        "minutes": f"{(samples[-1]['time'] - samples[0]['time']) / 60:.1f}",
        "steps": f"{result['steps']:,}",
        "chunks": result["chunks"],
        "memory, MB: start, warm, end": ", ".join(f"{s['anonymous']:.1f}" for s in (samples[0], steady[0], steady[-1])),
        "slope after warm-up, MB/h": f"{rate:+.2f} +- {2 * error:.2f}",
        "open files, most": "{:.0f}, {:.0f}".format(*most["files"]),
        "threads, most": "{:.0f}, {:.0f}".format(*most["threads"]),
        "disk, MB, most": "{:.1f}, {:.1f}".format(*most["disk"]),
    }
    return row, wrong


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        agent, env, updates, out = sys.argv[2:]
        return child(agent, env, int(updates), out)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--agents", nargs="+", choices=ENVS, default=["ppo", "dqn"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    minutes = 2.0 if options.quick else options.minutes

    rows, problems = [], []
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(len(options.agents)) as pool:
        folders = [pathlib.Path(name, agent) for agent in options.agents]
        results = list(pool.map(watch, options.agents, [minutes] * len(folders), folders))
    for agent, result in zip(options.agents, results):
        row, wrong = judge(result, not options.quick)
        rows.append(row)
        problems += [f"{agent}: {x}" for x in wrong]
    done = (
        "`jaxrl train` runs for a long time in a process of its own for each agent, all at once, with a checkpoint "
        "every 20 seconds, and is stopped by SIGTERM. Memory is the anonymous resident part, read every 2 seconds; the "
        "first quarter of the time is warm-up, the slope is that of a line through the least values of 24 blocks of "
        "the rest, with two standard errors. `most`: the largest number in the first and in the second half after "
        "warm-up. Other work ran on the machine."
    )
    return finish("soak", "Soak", done, rows, problems, options.write)


if __name__ == "__main__":
    sys.exit(main())
