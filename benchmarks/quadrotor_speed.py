"""Steps a second of the quadrotor (system 153), alone and inside of a rollout with resets.

    python benchmarks/quadrotor_speed.py            # 256, 4096 and 65536 environments, one thread and one a core
    python benchmarks/quadrotor_speed.py --quick    # a bounded part
    python benchmarks/quadrotor_speed.py --write    # also docs/quadrotor_speed.md

A step is four stages of Runge-Kutta, the rotors, the reward, 18 numbers of noise and the shift of the action history,
in float32. Programs are a scan over time of a vmap over environments; with several threads, each runs its own. Each
figure is the median of rounds in which all rows take turns; compilation is apart.
"""

import argparse
import concurrent.futures
import os
import pathlib
import platform
import statistics
import time

import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.envs.quadrotor import hover_action, quadrotor
from jaxrl.interaction import rollout, start
from jaxrl.types import Agent, no_memory

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "quadrotor_speed.md"
HEAD = """# Speed of the quadrotor

Made by `python benchmarks/quadrotor_speed.py --write{quick}` on {machine}. The goal is 1,000,000
simulated steps a second on two CPU cores.

"""


def agent():
    """Hovers blindly, so that nothing but the simulator takes time."""
    action = hover_action(quadrotor().params)

    def act(key, state, memory, observation):
        return memory, jnp.broadcast_to(action, (jax.tree.leaves(observation)[0].shape[0], 4)), {}

    return Agent(lambda key, hparams, example: (), no_memory, act, act, lambda key, state, data: (state, {}))


def total(tree):
    """A number that depends on everything, so that nothing is left out of the program."""
    return sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(tree))


def steps_alone(env, num_envs, num_steps):
    """(key) -> a number, after `num_steps` of `env.step` in `num_envs` environments, without resets."""

    def program(key):
        reset_key, step_key = jax.random.split(key)
        state, _ = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), env.params)
        action = jnp.full((num_envs, 4), hover_action(env.params))

        def step(carry, key):
            state, seen = carry
            keys = jax.random.split(key, num_envs)
            state, timestep = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, env.params)
            return (state, seen + total(timestep)), None

        return jax.lax.scan(step, (state, 0.0), jax.random.split(step_key, num_steps))[0][1]

    return program


def steps_with_resets(env, num_envs, num_steps, reset_pool):
    """(key) -> a number, after `jaxrl.rollout`s of 10 steps: transitions are written, ended episodes start again."""
    blind = agent()

    def program(key):
        key, start_key = jax.random.split(key)
        now = start(start_key, blind, (), env, env.params, num_envs)

        def play(carry, key):
            now, seen = carry
            now, data, _ = rollout(key, blind, (), env, now, 10, reset_pool=reset_pool)
            return (now, seen + total(data)), None

        return jax.lax.scan(play, (now, 0.0), jax.random.split(key, num_steps // 10))[0][1]

    return program


def measure(rows, rounds):
    """Adds seconds of compilation, and steps a second (median, least, most), to every row."""
    compiled = {}
    for row in rows:
        program = row.pop("program")
        if program not in compiled:
            started = time.perf_counter()
            executable = jax.jit(program).lower(jax.random.key(0)).compile()
            compiled[program] = executable, time.perf_counter() - started
        row["compiled"], row["compile s"] = compiled[program]
        row["rates"] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for i in range(rounds):
            for row in rows:
                started = time.perf_counter()
                calls = [pool.submit(row["compiled"], jax.random.key(i * 64 + j)) for j in range(row["threads"])]
                jax.block_until_ready([call.result() for call in calls])
                seconds = time.perf_counter() - started
                row["rates"].append(row["environments"] * row["steps"] * row["threads"] / seconds)
    return rows


def table(rows):
    text = "| what | environments | threads | steps/s | least, most | compile s |\n|---|---|---|---|---|---|\n"
    for row in rows:
        rates = row["rates"]
        low, middle, high = (f"{x:,.0f}" for x in (min(rates), statistics.median(rates), max(rates)))
        text += f"| {row['what']} | {row['environments']} | {row['threads']} | {middle} | {low}, {high} | "
        text += f"{row['compile s']:.1f} |\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 environments, few steps, one thread")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    arguments = parser.parse_args()
    sizes, work, rounds = ((256,), 5_000, 2) if arguments.quick else ((256, 4096, 65_536), 1_000_000, 7)
    threads = (1,) if arguments.quick else tuple(dict.fromkeys((1, os.cpu_count())))
    rows = []
    for num_envs in sizes:
        num_steps = max(10, work // num_envs // 10 * 10)
        env, plain = quadrotor(), quadrotor(history_length=0, privileged=False)
        kinds = {
            "steps": steps_alone(env, num_envs, num_steps),
            "steps without history and privileged view": steps_alone(plain, num_envs, num_steps),
            "rollout with resets": steps_with_resets(env, num_envs, num_steps, 0),
            "rollout with a pool of 256 resets": steps_with_resets(env, num_envs, num_steps, 256),
        }
        for what, program in kinds.items():
            for count in threads:
                sized = {"environments": num_envs, "threads": count, "steps": num_steps}
                rows.append({"what": what, **sized, "program": program})
    text = table(measure(rows, rounds))
    print(text)
    if arguments.write:
        machine = f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}, jax {jax.__version__}"
        machine += f", jaxrl {jaxrl.__version__}"
        PAGE.write_text(HEAD.format(machine=machine, quick=" --quick" * arguments.quick) + text)


if __name__ == "__main__":
    main()
