"""How the speed of PPO on CartPole grows with the work: environments, seeds, width and depth of networks, devices.

    python benchmarks/scaling.py              # every row, three rounds: some minutes on two cores
    python benchmarks/scaling.py --quick      # one small row of each kind, one round
    python benchmarks/scaling.py --write      # docs/scaling.md and docs/scaling.json

Rollouts of 128 steps, 4 epochs of 4 minibatches, separate networks for actor and critic. A figure is the median of
rounds in which all rows take turns; steps are those of all seeds and devices together; compilation is apart. Devices
are forced host devices, which share the cores of this machine: their rows show what exchanging gradients costs.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

if "--child" in sys.argv:  # before jax counts its devices
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[sys.argv.index('--child') + 1]}"

import jax

import jaxrl
from jaxrl.combinators.shard import devices_mesh, shard

DOCS = pathlib.Path(__file__).parent.parent / "docs"
UNROLL, STEPS = 128, 60_000  # about so many steps a measurement
PLAIN = {"envs": 64, "seeds": 1, "width": 64, "depth": 2, "devices": 1}
ROWS = {
    "envs": (4, 16, 64, 256, 1024),
    "seeds": (1, 4, 16),
    "width": (32, 64, 128, 256),
    "depth": (1, 2, 4),
    "devices": (1, 2, 4, 8),
}
QUICK = {"envs": (4,), "devices": (2,)}


def program(envs: int, seeds: int, width: int, depth: int, devices: int, unroll: int = UNROLL):
    """A compiled function of no arguments, the steps that it takes, and the seconds of its compilation."""
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(width,) * depth)
    loop = jaxrl.online(agent, env, num_envs=envs // devices, unroll_length=unroll)
    if devices > 1:
        loop = shard(loop, devices_mesh(jax.devices()[:devices]))
    updates = max(1, STEPS * unroll // UNROLL // (envs * unroll * seeds))
    keys = jax.random.split(jax.random.key(0), seeds)
    init, advance = (lambda key: loop.init(key, hparams)), (lambda state: jaxrl.run(loop, state, updates))
    state = jax.jit(jax.vmap(init))(keys) if seeds > 1 else jax.jit(init)(keys[0])
    traced = jax.jit(jax.vmap(advance) if seeds > 1 else advance).lower(state)
    started = time.perf_counter()
    compiled = traced.compile()
    return (
        lambda: jax.block_until_ready(compiled(state)),
        updates * unroll * envs * seeds,
        time.perf_counter() - started,
    )


def measure(rows: list[tuple[str, int]], rounds: int, unroll: int) -> list[dict]:
    """Steps a second of each row, all of them in turns."""
    made = [program(**{**PLAIN, name: value}, unroll=unroll) for name, value in rows]
    rates = [[] for _ in rows]
    for round_ in range(rounds + 1):
        for (call, steps, _), found in zip(made, rates):
            started = time.perf_counter()
            call()
            if round_:  # the first warms up
                found.append(steps / (time.perf_counter() - started))
    return [
        dict(kind=name, value=value, rate=statistics.median(found), low=min(found), high=max(found), compile_s=seconds)
        for (name, value), (_, _, seconds), found in zip(rows, made, rates)
    ]


def child(devices: int, rounds: int, unroll: int) -> dict:
    """The row of so many devices, measured in a process that has them, beside one device there."""
    arguments = ["--child", str(devices), "--rounds", str(rounds), "--unroll", str(unroll)]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(found: list[dict]) -> str:
    names = {"envs": "environments", "seeds": "seeds, one vmap", "width": "width", "depth": "layers"}
    lines = ["| | | steps/s | lowest, highest | compile s | GPU steps/s |", "|---|---|---|---|---|---|"]
    for x in found:
        spread = f"{x['low'] / 1e3:,.0f}k, {x['high'] / 1e3:,.0f}k"
        name = names.get(x["kind"], "devices")
        beside = f" ({x['rate'] / x['one']:.2f} of one there)" if "one" in x else ""
        lines.append(f"| {name} | {x['value']} | {x['rate'] / 1e3:,.0f}k{beside} | {spread} | {x['compile_s']:.1f} | |")
    return "\n".join(lines)


def page(found: list[dict]) -> str:
    when, cores = datetime.date.today().isoformat(), os.cpu_count()
    machine = f"{cores} cores, {platform.machine()}, jax {jax.__version__}"
    return f"""# Scaling

{__doc__.splitlines()[0]}
By `python benchmarks/scaling.py --write`, {when}, {machine}. Otherwise 64 environments, one seed, two layers of 64, one
device.

{table(found)}

Rollouts of 128 steps, 4 epochs of 4 minibatches. Medians of rounds in which all rows take turns; steps are those of all
seeds and devices together. The devices are forced host devices on the same cores, so that their rows show only what
exchanging gradients costs: each is measured beside one device in the same process. The GPU column is empty where there
was none.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unroll", type=int, default=UNROLL)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        one, row = measure([("devices", 1), ("devices", options.child)], options.rounds, options.unroll)
        print(json.dumps({**row, "one": one["rate"]}))
        return
    rows, rounds, unroll = (QUICK, 1, 8) if options.quick else (ROWS, options.rounds, options.unroll)
    here = [(kind, value) for kind, values in rows.items() if kind != "devices" for value in values]
    found = measure(here, rounds, unroll)
    found += [child(value, rounds, unroll) for value in rows["devices"] if value > 1]
    print(table(found))
    if options.write:
        (DOCS / "scaling.md").write_text(page(found))
        (DOCS / "scaling.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
