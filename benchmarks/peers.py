"""Learners beside rejax's, at equal budgets of environment steps, in one run.

    python benchmarks/peers.py --rejax PYTHON            # writes docs/peers.md and docs/peers.json
    python benchmarks/peers.py --rejax PYTHON --rows "sac Pendulum-v1"

PYTHON is the interpreter of another virtual environment with `pip install rejax gymnax==0.0.9` (rejax 0.1.3 does not
run on gymnax 1.x). rejax takes the settings that it publishes in `configs/gymnax` of its repository, without its
evaluation during training; jaxrl the presets of `jaxrl train`. Either side compiles a run once and trains the seeds in
turn; a seed's score is the mean return of 128 episodes of the trained policy (rejax plays DQN with epsilon 0.005,
jaxrl greedily). Seeds of the two sides alternate in blocks, so that a busy machine slows both.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent


class Row(NamedTuple):
    """`agent` in `env` for `steps`; `settings` are rejax's published ones."""

    agent: str
    env: str
    steps: int
    settings: dict


CARTPOLE_DQN = dict(
    agent="DuelingQNetwork", agent_kwargs=dict(activation="swish"), num_envs=10, buffer_size=50_000, fill_buffer=5_000
)
CARTPOLE_DQN |= dict(batch_size=100, max_grad_norm=10, learning_rate=1e-3, num_epochs=5, polyak=0.98, eps_start=1)
CARTPOLE_DQN |= dict(eps_end=0.05, exploration_fraction=0.5, gamma=0.99, ddqn=True)
CARTPOLE_PQN = dict(num_envs=16, num_steps=128, num_minibatches=16, max_grad_norm=10, learning_rate=3e-4, num_epochs=5)
CARTPOLE_PQN |= dict(eps_start=1, eps_end=0.05, exploration_fraction=0.5, gamma=0.99, td_lambda=0.9)
SWISH = dict(activation="swish")
PENDULUM_SAC = dict(agent_kwargs=SWISH, num_envs=1, buffer_size=10_000, fill_buffer=256, batch_size=256, num_epochs=1)
PENDULUM_SAC |= dict(learning_rate=0.01, gamma=0.99, polyak=0.98, normalize_observations=True)
PENDULUM_TD3 = dict(
    actor_kwargs=dict(SWISH), critic_kwargs=dict(SWISH), num_envs=1, buffer_size=10_000, fill_buffer=1000
)
PENDULUM_TD3 |= dict(batch_size=100, learning_rate=1e-3, num_epochs=1, gamma=0.99, polyak=0.95, max_grad_norm=100)
PENDULUM_TD3 |= dict(exploration_noise=0.3, target_noise=0.2, target_noise_clip=0.5, policy_delay=2)
PENDULUM_TD3 |= dict(normalize_observations=True)
ROWS = [
    Row("dqn", "CartPole-v1", 100_000, CARTPOLE_DQN),
    Row("pqn", "CartPole-v1", 524_288, CARTPOLE_PQN),
    Row("sac", "Pendulum-v1", 10_000, PENDULUM_SAC),
    Row("sac", "Pendulum-v1", 20_000, PENDULUM_SAC),
    Row("td3", "Pendulum-v1", 10_000, PENDULUM_TD3),
    Row("td3", "Pendulum-v1", 20_000, PENDULUM_TD3),
]


def train_rejax(row: Row, seeds: list[int]) -> dict:
    """rejax's side; runs under PYTHON, where jaxrl is not installed."""
    import jax
    import rejax

    algo = rejax.get_algo(row.agent).create(
        env=row.env, total_timesteps=row.steps, eval_freq=row.steps, skip_initial_evaluation=True, **row.settings
    )
    score = algo.eval_callback
    # Without the evaluation at its end the run is training alone; the score is taken afterwards.
    algo = algo.replace(eval_callback=lambda algo, state, key: ())
    begin = time.perf_counter()
    train = jax.jit(algo.train).lower(jax.random.PRNGKey(0)).compile()
    compile_seconds = time.perf_counter() - begin
    scores, seconds = [], []
    for seed in seeds:
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(train(jax.random.PRNGKey(seed)))
        seconds.append(time.perf_counter() - begin)
        _, returns = score(algo, state, jax.random.PRNGKey(1000 + seed))
        scores.append(float(returns.mean()))
    return dict(compile_seconds=compile_seconds, seconds=seconds, scores=scores)


def train_jaxrl(row: Row, seeds: list[int]) -> dict:
    """Our side, by the presets."""
    import jax

    import jaxrl
    from jaxrl.presets import lookup

    preset = lookup(row.agent, row.env)
    env = jaxrl.envs.make(row.env)
    agent, hparams = jaxrl.make_agent(row.agent, env, preset=row.env)
    num_envs, length = preset["num_envs"], preset["unroll_length"]
    loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=length)
    num_updates = row.steps // (num_envs * length)
    begin = time.perf_counter()
    train = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), num_updates)[0])
    train = train.lower(jax.random.key(0)).compile()
    compile_seconds = time.perf_counter() - begin
    score = jax.jit(lambda key, state: jaxrl.evaluate(key, agent, state, env).returns.mean())
    scores, seconds = [], []
    for seed in seeds:
        train_key, score_key = jax.random.split(jax.random.key(seed))
        begin = time.perf_counter()
        state = jax.block_until_ready(train(train_key))
        seconds.append(time.perf_counter() - begin)
        scores.append(float(score(score_key, state.agent)))
    return dict(compile_seconds=compile_seconds, seconds=seconds, scores=scores)


SIDES = {"jaxrl": train_jaxrl, "rejax": train_rejax}


def play(side: str, python: str, index: int, seeds: list[int]) -> dict:
    """A block of seeds of one side, in a process of its own."""
    command = [python, __file__, "--side", side, "--row", str(index), "--seeds-list", ",".join(map(str, seeds))]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{side}, {ROWS[index][:3]}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(index: int, rejax_python: str, num_seeds: int) -> dict:
    """Both sides of a row: blocks jaxrl, rejax, rejax, jaxrl."""
    half = num_seeds // 2
    first, second = list(range(half)), list(range(half, num_seeds))
    blocks = {side: [] for side in SIDES}
    for side, seeds in (("jaxrl", first), ("rejax", first), ("rejax", second), ("jaxrl", second)):
        blocks[side].append(play(side, sys.executable if side == "jaxrl" else rejax_python, index, seeds))
    merged = {}
    for side, parts in blocks.items():
        merged[side] = {key: sum((p[key] for p in parts), []) for key in ("seconds", "scores")}
        merged[side]["compile_seconds"] = min(p["compile_seconds"] for p in parts)
    return {"agent": ROWS[index].agent, "env": ROWS[index].env, "steps": ROWS[index].steps, **merged}


def table(rows: list[dict]) -> str:
    import numpy as np

    from jaxrl.statistics import bootstrap_interval, iqm

    lines = [
        "| learner | steps | IQM jaxrl | 95 % | IQM rejax | 95 % | steps/s jaxrl | steps/s rejax | ratio "
        "| compile s jaxrl | rejax |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells, rates = [], []
        for side in SIDES:
            low, high = bootstrap_interval(row[side]["scores"])
            cells += [f"{iqm(row[side]['scores']):.1f}", f"{low:.1f} .. {high:.1f}"]
            rates.append(row["steps"] / np.median(row[side]["seconds"]))
        cells += [f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{rates[0] / rates[1]:.2f}"]
        cells += [f"{row[side]['compile_seconds']:.1f}" for side in SIDES]
        lines.append(f"| {row['agent']} {row['env']} | {row['steps']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rejax", help="interpreter that has rejax")
    parser.add_argument("--rows", nargs="*", help='as in "sac Pendulum-v1"; all if none')
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--write", action="store_true", help="write docs/peers.json and docs/peers.md")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seeds-list", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        seeds = [int(seed) for seed in arguments.seeds_list.split(",")]
        print(json.dumps(SIDES[arguments.side](ROWS[arguments.row], seeds)))
        return
    if not arguments.rejax:
        parser.error("--rejax PYTHON is needed")
    results = []
    for index, row in enumerate(ROWS):
        if not arguments.rows or f"{row.agent} {row.env}" in arguments.rows:
            results.append(compare(index, arguments.rejax, arguments.seeds))
            print(table(results[-1:]).splitlines()[-1], flush=True)
            if arguments.write:
                write(results)
    print("\n" + table(results))


def write(rows: list[dict]) -> None:
    """Merges rows into docs/peers.json, and makes docs/peers.md of all of them."""
    path = ROOT / "docs" / "peers.json"
    known = json.loads(path.read_text()) if path.exists() else []
    found = {(row["agent"], row["env"], row["steps"]): row for row in [*known, *rows]}
    rows = [found[row[:3]] for row in ROWS if row[:3] in found]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    text = f"""# Beside rejax

Made by `python benchmarks/peers.py --rejax PYTHON --write`, on {os.cpu_count()} CPU cores. Equal budgets of environment
steps; rejax 0.1.3 with the settings it publishes and without evaluation in the run, jaxrl with the presets of
`jaxrl train`; IQM over {len(rows[0]["jaxrl"]["scores"])} seeds of the mean return of 128 episodes. Seeds run one after
the other; steps/s are the median over seeds of training alone, compilation apart. The two do not make the same number
of gradient steps for a step of the environment on CartPole: each side has its own published or tuned ratio.

{table(rows)}"""
    (ROOT / "docs" / "peers.md").write_text(text)


if __name__ == "__main__":
    main()
