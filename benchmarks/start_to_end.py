"""Seconds from the start of a process to the end of 500,000 steps of PPO on CartPole, beside the peers'.

    python benchmarks/start_to_end.py [--quick] [--write]

Each figure is a whole process: imports, tracing, compilation, training. A cold process has an empty persistent cache,
the warm one after it the cache that the first one filled. Sides take turns; a figure is the median of their processes,
the ratio that of neighbouring ones. Algorithms, settings and peers are those of `speed.py`.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import speed

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 500_000
SIDES = ("jaxrl", "plain", "rejax")
ROWS = ("ppo 4", "ppo 64")


def child(side, row, steps):
    """Trains once."""
    import jax

    agent, env, num_envs, length, _, settings = speed.ROWS[row]
    updates = -(-int(steps) // (num_envs * length))
    train, _ = speed.SIDES[side](agent, env, num_envs, length, updates * num_envs * length, settings)
    jax.block_until_ready(jax.jit(train)(jax.random.key(0)))


def process(side, row, steps, cache):
    """Seconds of a process, start and end included."""
    python = speed.peer_python(side) if side in speed.PEERS else sys.executable
    environment = speed.caching_in(cache)
    begin = time.perf_counter()
    subprocess.run([python, __file__, "--child", side, row, str(steps)], env=environment, check=True)
    return time.perf_counter() - begin


def compare(row, sides, repeats, steps=STEPS):
    """{side: [[cold, warm], ...]} of processes in turns."""
    found = {side: [] for side in sides}
    for _ in range(repeats):
        for side in sides:
            with tempfile.TemporaryDirectory() as cache:
                found[side].append([process(side, row, steps, cache) for _ in ("cold", "warm")])
    return {"row": row, "sides": found}


def table(results):
    lines = ["| row | side | cold s | jaxrl's is | warm s | jaxrl's is |", "|---|---|---|---|---|---|"]
    for result in results:
        ours = result["sides"]["jaxrl"]
        for side, theirs in result["sides"].items():
            cells = []
            for i in (0, 1):
                ratio = statistics.median(a[i] / b[i] for a, b in zip(ours, theirs))
                cells += [f"{statistics.median(x[i] for x in theirs):.1f}", "" if side == "jaxrl" else f"{ratio:.2f}x"]
            lines.append(f"| {result['row']} | {side} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps, without peers from outside")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="docs/start_to_end.json and docs/start_to_end.md")
    arguments = parser.parse_args()
    if arguments.quick:
        print(table([compare("ppo 4", ("jaxrl", "plain"), 1, steps=2_048)]))
        return
    results = []
    for row in ROWS:
        results.append(compare(row, SIDES, arguments.repeats))
        print(table(results[-1:]), flush=True)
    if arguments.write:
        import jax

        (ROOT / "docs" / "start_to_end.json").write_text(json.dumps(results, indent=1) + "\n")
        machine = f"{len(os.sched_getaffinity(0))} CPU cores, jax {jax.__version__}"
        head = f"# From the start of a process to the end of {STEPS:,} steps\n\nMade by "
        head += f"`python benchmarks/start_to_end.py --write` on {machine}: PPO on CartPole with 4 and with 64 "
        head += "environments, whole processes in turns, without (cold) and with (warm) a filled persistent cache.\n\n"
        (ROOT / "docs" / "start_to_end.md").write_text(head + table(results))


if __name__ == "__main__":
    main()
