"""Seconds of tracing and of XLA for whole training programs, beside the peers', without and with the persistent cache.

    python benchmarks/compile_time.py [--quick] [--rows "ppo CartPole-v1"] [--write]

Each program is made in a process of its own, which reports what jax itself counts (`jax.monitoring`): tracing and
lowering, and XLA. The second process of a row has the cache that the first one filled. `rejax` is 0.1.3 in a virtual
environment made by `speed.py`, `brax` the PPO of the Brax that is installed (with a function
put back that jax has removed), with the same number of environments.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import speed

ROOT = pathlib.Path(__file__).parent.parent
ROWS = {
    "ppo CartPole-v1": (("jaxrl", "ppo 64"), ("plain", "ppo 64"), ("rejax", "ppo 64")),
    "pqn CartPole-v1": (("jaxrl", "pqn"), ("rejax", "pqn")),
    "dqn CartPole-v1": (("jaxrl", "dqn"), ("rejax", "dqn")),
    "sac Pendulum-v1": (("jaxrl", "sac"), ("rejax", "sac")),
    "ppo brax/ant": (("jaxrl", "ant"), ("brax", "ant")),
}


def jaxrl_ant():
    import jax

    import jaxrl

    env = jaxrl.envs.make("brax/ant")
    static = dict(widths=(64, 64), activation="swish", normalize_observation=True)
    agent, hparams = jaxrl.make_agent("ppo", env, num_epochs=4, num_minibatches=4, **static)
    loop = jaxrl.online(agent, env, num_envs=64, unroll_length=5, reset_pool=16)
    train = lambda key: jaxrl.run(loop, loop.init(key, hparams), 100)[0].agent  # noqa: E731
    jax.jit(train).lower(jax.random.key(0)).compile()


def brax_ant():
    import functools

    import jax
    import jax.numpy as jnp

    # What Brax 0.14 calls and jax has removed since.
    jax.device_put_replicated = lambda x, devices: jax.tree.map(lambda y: jnp.stack([y] * len(devices)), x)

    from brax import envs
    from brax.training.agents.ppo import networks, train

    make = functools.partial(
        networks.make_ppo_networks, policy_hidden_layer_sizes=(64, 64), value_hidden_layer_sizes=(64, 64)
    )
    sizes = dict(num_envs=64, unroll_length=5, num_minibatches=4, num_updates_per_batch=4, batch_size=16)
    train.train(
        envs.get_environment("ant"),
        num_timesteps=320,
        episode_length=1000,
        num_evals=0,
        run_evals=False,
        normalize_observations=True,
        network_factory=make,
        **sizes,
    )


def child(side, name):
    """Compiles a program; prints {"trace", "compile"}."""
    import jax

    spent = collections.Counter()
    kinds = {"jaxpr_trace_duration": "trace", "jaxpr_to_mlir_module_duration": "trace"}
    kinds |= {"backend_compile_duration": "compile"}

    def listen(event, seconds, **_):
        spent[kinds.get(event.rsplit("/", 1)[-1], "")] += seconds

    jax.monitoring.register_event_duration_secs_listener(listen)
    if name == "ant":
        {"jaxrl": jaxrl_ant, "brax": brax_ant}[side]()
    else:
        train, _ = speed.SIDES[side](*speed.ROWS[name])
        jax.jit(train).lower(jax.random.key(0)).compile()
    print(json.dumps({"trace": spent["trace"], "compile": spent["compile"]}))


def measure(side, name, cache):
    python = speed.peer_python(side) if side in speed.PEERS else sys.executable
    environment = speed.caching_in(cache)
    command = [python, __file__, "--child", side, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def compare(row, repeats):
    """The least of several processes of each side, in turns."""
    found = {side: [] for side, _ in ROWS[row]}
    for _ in range(repeats):
        for side, name in ROWS[row]:
            with tempfile.TemporaryDirectory() as cache:
                found[side].append([measure(side, name, cache) for _ in ("cold", "warm")])
    return {"row": row, "sides": found}


def table(results):
    lines = ["| program | side | trace s | XLA s | both | ratio to jaxrl | with a warm cache s |", "|---" * 7 + "|"]
    for result in results:
        ours = None
        for side, runs in result["sides"].items():
            if any("error" in part for run in runs for part in run):
                error = next(part["error"] for run in runs for part in run if "error" in part)
                lines.append(f"| {result['row']} | {side} | does not run: {error[:80]} | | | | |")
                continue
            cold = min((run[0] for run in runs), key=lambda x: x["trace"] + x["compile"])
            both, warm = sum(cold.values()), min(sum(run[1].values()) for run in runs)
            ours = both if ours is None else ours
            lines.append(
                f"| {result['row']} | {side} | {cold['trace']:.2f} | {cold['compile']:.2f} | {both:.2f} "
                f"| {both / ours:.2f} | {warm:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one row of jaxrl and of PPO in one file")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="docs/compile_time.json and docs/compile_time.md")
    arguments = parser.parse_args()
    if arguments.quick:
        found = {side: [[measure(side, "ppo 4", "")]] for side in ("jaxrl", "plain")}
        print({side: runs[0][0] for side, runs in found.items()})
        return
    results = []
    for row in arguments.rows:
        results.append(compare(row, arguments.repeats))
        print(table(results[-1:]), flush=True)
    if arguments.write:
        import jax

        (ROOT / "docs" / "compile_time.json").write_text(json.dumps(results, indent=1) + "\n")
        machine = f"{len(os.sched_getaffinity(0))} CPU cores, jax {jax.__version__}"
        head = f"# Compile time\n\nMade by `python benchmarks/compile_time.py --write` on {machine}: whole training "
        head += "programs, the least of several fresh processes, sides in turns.\n\n"
        (ROOT / "docs" / "compile_time.md").write_text(head + table(results))


if __name__ == "__main__":
    main()
