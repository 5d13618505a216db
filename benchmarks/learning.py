"""What the tuned presets learn: IQM over seeds with a 95 % bootstrap interval, one row a task.

    python benchmarks/learning.py                    # every task, writes docs/learning.json and docs/learning.md
    python benchmarks/learning.py CartPole-v1 --seeds 4   # tasks by name, by environment or by agent

A row trains each seed with the settings of `jaxrl.presets` (what `jaxrl train` uses), then plays 128 greedy episodes;
a seed's score is their mean return. Seeds run in turn, one program a core. Compile time is apart from run time.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import platform
import time
from typing import NamedTuple

import jax
import numpy as np

import jaxrl
from jaxrl.presets import lookup
from jaxrl.statistics import bootstrap_interval, iqm

DOCS = pathlib.Path(__file__).parent.parent / "docs"


class Task(NamedTuple):
    """A row: `agent` in `env` with the preset of that name, and static choices that differ from it."""

    name: str
    env: str
    seeds: int
    reference: str  # what the figure is to be read against
    agent: str = "ppo"
    static: dict = {}
    params: dict = {}  # of the environment


VALUE_BASED = ("pqn", "dqn", "qrdqn", "rainbow")
TASKS = [
    Task("CartPole-v1", "CartPole-v1", 16, "at most 500; goal: lower bound >= 475"),
    Task("Acrobot-v1", "Acrobot-v1", 8, "random -500; solved at -100"),
    Task("Pendulum-v1", "Pendulum-v1", 8, "random -1230; solved at about -150"),
    Task("Breakout-MinAtar", "Breakout-MinAtar", 3, "random 0.5"),
    Task("brax/fast", "brax/fast", 8, "at most 143.1; gate of Brax's own test: 135", params={"episode_length": 128}),
    Task("brax/inverted_pendulum", "brax/inverted_pendulum", 5, "at most 1000"),
    Task("mjx/cartpole_swingup", "mjx/cartpole_swingup", 5, "at most 250, hanging still 0"),
    Task("mjx/reacher", "mjx/reacher", 5, "at most 150"),
    Task("mjx/runner", "mjx/runner", 3, "standing still 100"),
    Task("memory_chain, recurrent", "memory_chain", 8, "at most 1, chance 0", static={"recurrent": True}),
    Task("memory_chain, feed-forward", "memory_chain", 8, "chance 0", static={"recurrent": False}),
    Task("r2d2 memory_chain", "memory_chain", 8, "at most 1, chance 0", "r2d2"),
    *[Task(f"{agent} CartPole-v1", "CartPole-v1", 8, "at most 500", agent) for agent in VALUE_BASED],
    *[Task(f"{agent} Breakout-MinAtar", "Breakout-MinAtar", 8, "random 0.5", agent) for agent in VALUE_BASED],
    *[Task(f"{agent} Pendulum-v1", "Pendulum-v1", 8, "solved at about -150", agent) for agent in ("sac", "td3")],
    Task("hierarchical key_door", "key_door", 8, "at most 1", "hierarchical"),
    *[Task(f"{agent} mjx/reacher", "mjx/reacher", 8, "at most 150", agent) for agent in ("sac", "td3")],
]


def train(task: Task, seeds: int, steps: int | None = None, workers: int | None = None) -> dict:
    """One row of the table."""
    preset = lookup(task.agent, task.env)
    env = jaxrl.envs.make(task.env, **task.params)
    agent, hparams = jaxrl.make_agent(task.agent, env, preset=task.env, **task.static)
    num_envs, unroll_length = preset["num_envs"], preset["unroll_length"]
    loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=unroll_length, reset_pool=preset["reset_pool"])
    num_updates = -(-(steps or preset["steps"]) // (num_envs * unroll_length))
    begin = time.perf_counter()
    init = jax.jit(loop.init).lower(jax.random.key(0), hparams).compile()
    one = init(jax.random.key(0), hparams)
    run = jax.jit(lambda s: jaxrl.run(loop, s, num_updates), donate_argnums=0).lower(one).compile()
    score = jax.jit(lambda key, s: jaxrl.evaluate(key, agent, s, env))
    score = score.lower(jax.random.key(0), one.agent).compile()
    compile_seconds = time.perf_counter() - begin

    def member(seed: int):
        train_key, score_key = jax.random.split(jax.random.key(seed))
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(run(init(train_key, hparams)))
        seconds = time.perf_counter() - begin
        evaluation = score(score_key, state.agent)
        count = np.add.reduceat(np.asarray(metrics["episode/count"]), cuts := curve_cuts(num_updates))
        curve = np.add.reduceat(np.asarray(metrics["episode/return_sum"]), cuts) / np.maximum(count, 1)
        return float(evaluation.returns.mean()), float(evaluation.lengths.mean()), seconds, curve

    workers = workers or os.cpu_count() or 1
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        members = list(pool.map(member, range(seeds)))
    wall = time.perf_counter() - begin
    scores, lengths, seconds, curves = zip(*members)
    low, high = bootstrap_interval(scores)
    steps = num_updates * num_envs * unroll_length
    return {
        "task": task.name,
        "seeds": seeds,
        "steps": steps,
        "iqm": float(iqm(scores)),
        "iqm_low": float(low),
        "iqm_high": float(high),
        "scores": scores,
        "length": float(np.mean(lengths)),
        "compile_seconds": compile_seconds,
        "seconds_a_seed": float(np.median(seconds)),
        "steps_per_second": seeds * steps / wall,
        "curve": np.mean(curves, axis=0).tolist(),
        "reference": task.reference,
    }


def curve_cuts(num_updates: int, points: int = 20) -> np.ndarray:
    """Starts of about `points` equal pieces of a run."""
    return np.unique(np.linspace(0, num_updates, points, endpoint=False).astype(int))


def table(rows: list[dict]) -> str:
    head = (
        "| task | steps | seeds | IQM of returns | 95 % interval | s a seed | compile s | steps/s, all seeds "
        "| read against |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    line = "| {task} | {steps:,} | {seeds} | {iqm:.1f} | {iqm_low:.1f} .. {iqm_high:.1f} | {seconds_a_seed:.0f} | "
    line += "{compile_seconds:.1f} | {steps_per_second:,.0f} | {reference} |\n"
    return head + "".join(line.format(**row) for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="names of rows; all if none")
    parser.add_argument("--seeds", type=int, help="instead of each row's own number")
    parser.add_argument("--steps", type=int, help="instead of the preset's")
    parser.add_argument("--workers", type=int, help="programs at once; the number of cores")
    parser.add_argument("--write", action="store_true", help="merge the rows into docs/learning.json and .md")
    arguments = parser.parse_args()
    chosen = [task for task in TASKS if not arguments.tasks or {task.name, task.env, task.agent} & set(arguments.tasks)]
    rows = []
    for task in chosen:
        rows.append(train(task, arguments.seeds or task.seeds, arguments.steps, arguments.workers))
        print(table(rows[-1:]).splitlines()[-1], "curve", np.round(rows[-1]["curve"][::4], 1), flush=True)
    print("\n" + table(rows))
    if arguments.write:
        write(rows)


def write(rows: list[dict]) -> None:
    """Merges rows into docs/learning.json by task, and makes docs/learning.md of all of them."""
    path = DOCS / "learning.json"
    known = {row["task"]: row for row in json.loads(path.read_text())["rows"]} if path.exists() else {}
    known |= {row["task"]: row for row in rows}
    ordered = [known[task.name] for task in TASKS if task.name in known]
    about = {
        "date": datetime.date.today().isoformat(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxrl": jaxrl.__version__,
    }
    path.write_text(json.dumps({"about": about, "rows": ordered}, indent=1) + "\n")
    machine = f"{about['cores']} CPU cores, jax {about['jax']}"
    text = f"""# What the presets learn

Made by `python benchmarks/learning.py --write` on {about["date"]}: {machine}. Every row trains with the settings of
`jaxrl/presets.py`, as `jaxrl train AGENT ENV` does; where no agent is named it is PPO. A seed's score is the mean
return of 128 greedy episodes after training; IQM is the interquartile mean over seeds, with a 95 % percentile bootstrap
interval. As many seeds run at once as there are cores, so "s a seed" is the time of one of two programs side by side.
`learning.json` has every score and the curve of training returns.

{table(ordered)}"""
    (DOCS / "learning.md").write_text(text)


if __name__ == "__main__":
    main()
