"""Steps a second of training beside the peers', the same algorithm with the same settings, in pairs.

    python benchmarks/speed.py [--quick] [--rows "ppo 64"] [--write]

The sides of a row run in turns in one session, each in a process of its own that compiles once and then trains whenever
it is told to, so that a busy machine slows all. `plain` is `plain_ppo.py`, `rejax` rejax 0.1.3 in a virtual environment
that is made under build/peers when it is first needed. `--quick` is a short run of one row without peers from outside.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
PEERS = {"rejax": ["rejax==0.1.3", "gymnax==0.0.9", "jax>=0.10,<0.11.1"]}

PPO = dict(num_epochs=4, num_minibatches=4, learning_rate=2.5e-4, discount=0.99, lambda_=0.95, max_grad_norm=0.5)
CLIPS = dict(clip=0.2, value_clip=0.2)  # the peers' own
PQN = dict(num_epochs=5, num_minibatches=16, learning_rate=3e-4, discount=0.99, lambda_=0.9, max_grad_norm=10.0)
DQN = dict(updates=5, batch_size=100, learning_rate=1e-3, discount=0.99, buffer_size=50_000, min_buffer_size=5_000)
SAC = dict(updates=1, batch_size=256, learning_rate=3e-4, discount=0.99, buffer_size=10_000, min_buffer_size=256)
# name: agent, environment, environments, steps of each between updates, steps in all, settings
ROWS = {
    "ppo 4": ("ppo", "CartPole-v1", 4, 128, 262_144, PPO),
    "ppo 64": ("ppo", "CartPole-v1", 64, 128, 524_288, PPO),
    "ppo 1024": ("ppo", "CartPole-v1", 1024, 128, 1_048_576, PPO),
    "ppo 2048": ("ppo", "CartPole-v1", 2048, 128, 1_048_576, PPO),
    "pqn": ("pqn", "CartPole-v1", 16, 128, 262_144, PQN),
    "dqn": ("dqn", "CartPole-v1", 10, 1, 50_000, DQN),
    "sac": ("sac", "Pendulum-v1", 1, 1, 5_000, SAC),
    "td3": ("td3", "Pendulum-v1", 1, 1, 5_000, SAC),
}


def jaxrl_side(agent_name, env_name, num_envs, length, steps, settings):
    import jaxrl
    from jaxrl.factory import AGENTS, static_arguments
    from jaxrl.tree import field_names, replace_fields

    env, settings = jaxrl.envs.make(env_name), dict(settings)
    static = dict(widths=(64, 64), activation="tanh" if agent_name == "ppo" else "relu")
    static |= {"dueling": True, "activation": "swish"} if agent_name == "dqn" else {}
    static |= {"updates_per_step": settings.pop("updates")} if "updates" in settings else {}
    allowed = static_arguments(AGENTS[agent_name])
    static |= {name: settings.pop(name) for name in list(settings) if name in allowed}
    agent, hparams = jaxrl.make_agent(agent_name, env, **static)
    numbers = settings | CLIPS | {"policy_learning_rate": settings["learning_rate"]}
    hparams = replace_fields(hparams, **{k: v for k, v in numbers.items() if k in field_names(hparams)})
    loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=length)

    def train(key):
        state, metrics = jaxrl.run(loop, loop.init(key, hparams), steps // (num_envs * length))
        last = metrics["episode/count"].shape[0] // 10
        finished = metrics["episode/count"][-last:].sum()
        return state.agent, metrics["episode/return_sum"][-last:].sum() / finished

    return train, lambda result: float(result[1])


def plain_side(agent_name, env_name, num_envs, length, steps, settings):
    from plain_ppo import make_train

    sizes = {name: settings[name] for name in ("num_epochs", "num_minibatches", "learning_rate")}
    return make_train(num_envs, length, steps, **sizes), float


def rejax_side(agent_name, env_name, num_envs, length, steps, settings):
    import jax
    import rejax

    names = dict(discount="gamma", lambda_="gae_lambda", updates="num_epochs", min_buffer_size="fill_buffer")
    given = {names.get(name, name): value for name, value in settings.items()}
    given |= {"num_steps": length} if length > 1 else {}
    if agent_name == "ppo":
        given |= dict(agent_kwargs=dict(activation="tanh"), clip_eps=0.2, ent_coef=0.01, vf_coef=0.5)
    if agent_name == "pqn":
        given["td_lambda"] = given.pop("gae_lambda")
    if agent_name == "dqn":
        given |= dict(agent="DuelingQNetwork", agent_kwargs=dict(activation="swish"), polyak=0.98, ddqn=True)
    if agent_name == "sac":
        given |= dict(agent_kwargs=dict(activation="relu"), polyak=0.995)
    if agent_name == "td3":
        given |= dict(actor_kwargs=dict(activation="relu"), critic_kwargs=dict(activation="relu"), policy_delay=2)
    algo = rejax.get_algo(agent_name).create(
        env=env_name, num_envs=num_envs, total_timesteps=steps, eval_freq=steps, skip_initial_evaluation=True, **given
    )
    score = jax.jit(lambda state, key: algo.eval_callback(algo, state, key)[1].mean())
    timed = algo.replace(eval_callback=lambda algo, state, key: ())  # the evaluation at the end is no training
    return timed.train, lambda result: float(score(result[0], jax.random.key(1000)))


SIDES = {"jaxrl": jaxrl_side, "plain": plain_side, "rejax": rejax_side}


def child(side, row):
    """Compiles; then, for each seed on the standard input, a line {"seconds", "return"}."""
    import jax

    train, score = SIDES[side](*row)
    begin = time.perf_counter()
    lowered = jax.jit(train).lower(jax.random.key(0))
    traced = time.perf_counter()
    compiled = lowered.compile()
    print(json.dumps({"trace": traced - begin, "compile": time.perf_counter() - traced}), flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        result = jax.block_until_ready(compiled(jax.random.key(int(line))))
        seconds = time.perf_counter() - begin
        print(json.dumps({"seconds": seconds, "return": score(result)}), flush=True)


class Side:
    """A process that trains on demand."""

    def __init__(self, side, row, python):
        environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
        self._process = subprocess.Popen(
            [python, __file__, "--child", side, json.dumps(row)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.compiled = self._read()
        self.runs = []

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side has ended; its error is above")
        return json.loads(line)

    def train(self, seed, keep):
        print(seed, file=self._process.stdin, flush=True)
        found = self._read()
        self.runs += [found] if keep else []

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def peer_python(name):
    """The interpreter of a peer's virtual environment, which is made if it is not there."""
    folder = ROOT / "build" / "peers" / name
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEERS[name]], check=True)
        (folder / "complete").touch()
    return str(python)


def caching_in(folder):
    """The environment of a process whose persistent compilation cache is a folder, for programs of any size."""
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def compare(name, sides, repeats, shorter=1):
    """One row: {side: {"trace", "compile", "seconds", "returns"}}."""
    agent, env, num_envs, length, steps, settings = ROWS[name]
    row = (agent, env, num_envs, length, max(steps // shorter, num_envs * length), settings)
    running = {side: Side(side, row, peer_python(side) if side in PEERS else sys.executable) for side in sides}
    for repeat in range(repeats + 1):  # the first is not counted
        for side in running.values():
            side.train(repeat, keep=repeat > 0)
    for side in running.values():
        side.close()
    found = {
        side: {
            **process.compiled,
            "seconds": [run["seconds"] for run in process.runs],
            "returns": [run["return"] for run in process.runs],
        }
        for side, process in running.items()
    }
    return {"name": name, "steps": row[4], "sides": found}


def table(results):
    lines = [
        "| row | side | steps/s, median | of least and most | ratio of jaxrl to it | return | trace + compile s |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        ours = result["sides"]["jaxrl"]["seconds"]
        for side, found in result["sides"].items():
            rates = sorted(result["steps"] / s for s in found["seconds"])
            # Of neighbouring runs, so that what slows both cancels.
            ratio = statistics.median(theirs / own for theirs, own in zip(found["seconds"], ours))
            lines.append(
                f"| {result['name']} | {side} | {statistics.median(rates):,.0f} | {rates[0]:,.0f} .. {rates[-1]:,.0f} "
                f"| {'' if side == 'jaxrl' else f'{ratio:.2f}'} | {statistics.median(found['returns']):.0f} "
                f"| {found['trace']:.1f} + {found['compile']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def write(results):
    """Merges rows into docs/speed.json, and makes docs/speed.md of all of them."""
    import jax

    path = ROOT / "docs" / "speed.json"
    known = json.loads(path.read_text()) if path.exists() else []
    found = {row["name"]: row for row in [*known, *results]}
    rows = [found[name] for name in ROWS if name in found]
    path.write_text(json.dumps(rows, indent=1) + "\n")
    text = f"""# Speed beside the peers

Made by `python benchmarks/speed.py --write` on {len(os.sched_getaffinity(0))} CPU cores, jax {jax.__version__}. The
same algorithm, network widths and settings on each side; sides take turns in one session, the ratio is the median over
neighbouring runs, compilation is apart. `plain` is PPO in one file (`benchmarks/plain_ppo.py`), `rejax` is 0.1.3
without its evaluation in the run. Returns are of the end of training (rejax: of an evaluation afterwards), after as few
steps as a measurement takes: they say that each side learns, not which learns faster. A GPU has not been measured.

{table(rows)}"""
    (ROOT / "docs" / "speed.md").write_text(text)


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(sys.argv[2], json.loads(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="docs/speed.json and docs/speed.md")
    arguments = parser.parse_args()
    if arguments.quick:
        print(table([compare("ppo 4", ["jaxrl", "plain"], 1, shorter=64)]))
        return
    results = []
    for name in arguments.rows:
        sides = ["jaxrl", *["plain"] * (ROWS[name][0] == "ppo"), "rejax"]
        results.append(compare(name, sides, arguments.repeats))
        print(table(results[-1:]), flush=True)
        if arguments.write:
            write(results)


if __name__ == "__main__":
    main()
