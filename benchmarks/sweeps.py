"""Sweeps of PPO on CartPole: seeds, settings, layouts, and what successive halving spares.

    python benchmarks/sweeps.py            # about 10 minutes on two cores; --quick: one; --write: the page in docs

Rows of a group are measured in turns in one run, so that a busy machine slows all of them; the time is that of the
quickest turn, compilation apart. `vmap of all` is one program over all members, which is how other libraries sweep.
"""

import argparse
import json
import os
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.halving import halving
from jaxrl.sweeps import finished, grid, plan, ranking, stack, sweep

DOCS = pathlib.Path(__file__).parent.parent / "docs"
FULL = dict(seeds=128, num_envs=16, unroll_length=128, updates=10, widths=(64, 64), turns=2)
QUICK = dict(seeds=16, num_envs=8, unroll_length=32, updates=10, widths=(32,), turns=1)
RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]


class Bench:
    """PPO of one size; counts how often its training function is traced."""

    def __init__(self, seeds, num_envs, unroll_length, updates, widths, turns):
        env = jaxrl.envs.make("CartPole-v1")
        self.agent, self.hparams = jaxrl.make_agent("ppo", env, widths=widths)
        self.loop = jaxrl.online(self.agent, env, num_envs=num_envs, unroll_length=unroll_length)
        self.seeds, self.updates, self.turns, self.traces = seeds, updates, turns, 0
        self.steps = updates * num_envs * unroll_length

    def train(self, key, hparams):
        self.traces += 1
        return self.go(self.loop.init(key, hparams), self.updates)[1]

    def go(self, state, num_updates):
        """Training, and the return of the latest episodes as its score."""

        def step(_, carry):
            state, metrics = self.loop.step(carry[0])
            return state, 0.8 * carry[1] + metrics["episode/return_sum"], 0.8 * carry[2] + metrics["episode/count"]

        state, total, count = jax.lax.fori_loop(0, num_updates, step, (state, 0.0, 0.0))
        return state, {"return": total / count}

    def members(self, hparams, seeds):
        """Arguments of all members, [S * seeds]."""
        size = len(jax.tree.leaves(hparams)[0])
        keys = jax.vmap(jax.random.key)(jnp.tile(jnp.arange(seeds, dtype=jnp.uint32), size))
        return keys, jax.tree.map(lambda x: np.repeat(x, seeds), hparams)

    def laid_out(self, hparams, seeds, layout):
        """Compiles, and returns compile seconds, bytes, traces, and a function that trains all members."""
        every, before = self.members(hparams, seeds), self.traces
        number = every[0].shape[0]
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), jax.eval_shape(lambda: every))
        planned = plan(self.train, one, number, layout=layout)

        def run():
            arguments = lambda chosen: jax.tree.map(lambda x: x[np.array(chosen)], every)  # noqa: E731
            return sum(len(chosen) for chosen, _, _ in finished(planned, range(number), arguments))

        return {"compile s": planned.seconds, "MB": planned.nbytes / 1e6, "traces": self.traces - before}, run


def in_turns(bench, cases):
    """Rows for (name, hparams, seeds, layout), the quickest of turns that alternate."""
    made = [(name, *bench.laid_out(hparams, seeds, layout)) for name, hparams, seeds, layout in cases]
    seconds = {name: [] for name, _, _ in made}
    members = {}
    for _ in range(bench.turns):
        for name, _, run in made:
            started = time.perf_counter()
            members[name] = run()
            seconds[name].append(time.perf_counter() - started)
    rows = []
    for name, facts, _ in made:
        steps = members[name] * bench.steps
        rows.append({"what": name, "members": members[name], "steps/s": round(steps / min(seconds[name])), **facts})
        rows[-1] |= {"slowest / quickest turn": round(max(seconds[name]) / min(seconds[name]), 2)}
    return rows


def of_seeds(bench):
    """All seeds of one setting, in every layout."""
    one = stack([bench.hparams])
    layouts = (("a program a core", "threads"), ("vmap of all", "vmap"))
    cases = [(name, one, bench.seeds, layout) for name, layout in layouts]
    single = [("one seed alone", one, 1, "threads")]
    return in_turns(bench, [*cases, *single])


def of_settings(bench):
    """8 settings x n seeds beside 8 n seeds."""
    settings = grid(bench.hparams, {"learning_rate": RATES[1:7:2] + [2e-3], "discount": [0.97, 0.99]})[1]
    number = max(1, bench.seeds // 16)
    cases = [("8 settings", settings, number, "auto"), ("1 setting", stack([bench.hparams]), 8 * number, "auto")]
    return in_turns(bench, cases)


def of_halving(bench):
    """Eight learning rates: all of them to the end, or by halves."""
    _, hparams = grid(bench.hparams, {"learning_rate": RATES})
    seeds, rows = range(max(2, bench.seeds // 32)), []
    updates = max(2 * bench.updates, 24)
    started = time.perf_counter()
    whole = sweep(lambda key, hp: bench.go(bench.loop.init(key, hp), updates)[1], hparams, seeds)["return"]
    rows.append(
        {"what": "all to the end", "updates": updates * len(RATES) * len(seeds), "best": RATES[ranking(whole)[0]]}
    )
    rows[-1] |= {"its return": round(float(whole[ranking(whole)[0]].mean()), 1)}
    rows[-1] |= {"s, compilation included": round(time.perf_counter() - started, 1)}
    for ratio in (2, 4):
        started = time.perf_counter()
        found = halving(bench.loop.init, bench.go, hparams, seeds, num_updates=updates, ratio=ratio)
        last = found.rungs[-1].results["return"][0]
        rows.append({"what": f"halving, ratio {ratio}", "updates": found.updates, "best": RATES[found.best]})
        rows[-1] |= {"its return": round(float(last.mean()), 1)}
        rows[-1] |= {"s, compilation included": round(time.perf_counter() - started, 1)}
    return rows


def table(rows):
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([shown(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value):
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def measure(sizes):
    bench = Bench(**sizes)
    found = {}
    for name, rows in (("seeds", of_seeds), ("settings", of_settings), ("halving", of_halving)):
        found[name] = rows(bench)
        print(f"{name}\n\n{table(found[name])}\n", flush=True)
    return found


def page(found, sizes):
    threads, vmap, one = (row["steps/s"] for row in found["seeds"])
    settings, seeds = (row["steps/s"] for row in found["settings"])
    number = found["settings"][0]["members"]
    machine = f"{len(os.sched_getaffinity(0))} CPU cores, jax {jax.__version__}, {jax.default_backend()}"
    text = f"""# Sweeps

Made by `python benchmarks/sweeps.py --write` on {machine}, {time.strftime("%B %Y")}. PPO on CartPole, 4 epochs of 4
minibatches, {sizes["num_envs"]} environments, {sizes["unroll_length"]} steps, networks of {sizes["widths"]},
{sizes["updates"]} updates a member; steps/s are of all members together, in the quickest of {sizes["turns"]} turns.

## {found["seeds"][0]["members"]} seeds

{table(found["seeds"])}

A program a core has {threads / vmap:.2f} times the steps/s of one vmap of all members, and {threads / one:.2f} times
those of one seed alone. `traces` are of the training function: one for shapes or none, one for compilation.

## {number} members: 8 settings x {number // 8} seeds beside {number} seeds

{table(found["settings"])}

Settings cost {100 * (seeds / settings - 1):+.1f} % of what as many seeds of one setting cost, and compile once.

## Successive halving

{table(found["halving"])}
"""
    (DOCS / "sweeps.md").write_text(text)
    (DOCS / "sweeps.json").write_text(json.dumps({"machine": machine, "sizes": sizes, **found}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a bounded part")
    parser.add_argument("--write", action="store_true", help="write docs/sweeps.md and docs/sweeps.json")
    options = parser.parse_args()
    sizes = QUICK if options.quick else FULL
    found = measure(sizes)
    if options.write:
        page(found, sizes)


if __name__ == "__main__":
    main()
