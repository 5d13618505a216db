"""IPPO and VDN, feed-forward and recurrent, beside JaxMARL's own, on simple_spread with 3 agents, in pairs.

    python benchmarks/jaxmarl.py --source CHECKOUT [--python PYTHON] [--rows ippo]

CHECKOUT is a checkout of https://github.com/FLAIROx/JaxMARL, three of whose `baselines/` are run as they are (`ROWS`),
without what logs and without evaluation. PYTHON is the interpreter of another virtual environment with what PEER lists;
one is made under build/peers/jaxmarl if none is given.

Three sides take turns, each in a process of its own that compiles once and then trains whenever it is told to:
`jaxmarl`; `adapter`, our learner in JaxMARL's environment (which is borrowed from PYTHON's packages, where ours has
none); `jaxrl`, our learner in our environment. Steps are those of environments: each is a step of all three agents.
The environments are the same to rounding (`tests/envs/test_jaxmarl.py`). JaxMARL counts to 26 steps an episode by
default and is told to count to 25 here. Its scripts take an episode's end for a terminal state, and so do we here, who
would bootstrap. Returns are an agent's mean, of 512 greedy episodes after training; JaxMARL logs 3 times as much.

Settings of IPPO are those that JaxMARL publishes. Those of VDN would not learn within as few steps: learning is slower
here, feed-forward networks have two hidden layers (published: none), and there is an update after every step, since
`vdn_ff.py` pairs the rows of a rollout with those of the next one, which are its successors only if it has one step.
JaxMARL takes steps of RAdam in place of Adam for VDN.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from unittest import mock

ROOT = pathlib.Path(__file__).parent.parent
PEER = ["jaxmarl==0.2.0", "flashbax", "distrax", "safetensors", "jax>=0.10,<0.11.1"]
NUM_AGENTS, EPISODE, EPISODES = 3, 25, 512

IPPO = dict(num_envs=16, length=128, steps=16 * 128 * 150, learning_rate=2.5e-4, discount=0.99, lambda_=0.95)
IPPO |= dict(num_epochs=4, num_minibatches=4, clip=0.2, entropy_coefficient=0.01, max_grad_norm=0.5)
VDN = dict(num_envs=16, length=1, steps=16 * 8000, learning_rate=1e-3, discount=0.9, batch_size=128, width=64)
VDN |= dict(buffer_size=100_000, min_buffer_size=10_000, max_grad_norm=25.0, target_period=200)
RECURRENT_VDN = VDN | dict(num_envs=8, length=EPISODE, steps=8 * EPISODE * 600, batch_size=32)  # episodes
# name: JaxMARL's script, our agent, numbers
ROWS = {
    "ippo": ("IPPO/ippo_ff_mpe.py", "ippo", IPPO),
    "vdn": ("QLearning/vdn_ff.py", "vdn", VDN),
    "recurrent vdn": ("QLearning/vdn_rnn.py", "recurrent_vdn", RECURRENT_VDN),
}
# our number: JaxMARL's
NAMES = dict(num_envs="NUM_ENVS", length="NUM_STEPS", steps="TOTAL_TIMESTEPS", learning_rate="LR", discount="GAMMA")
NAMES |= dict(max_grad_norm="MAX_GRAD_NORM", lambda_="GAE_LAMBDA", clip="CLIP_EPS", entropy_coefficient="ENT_COEF")
NAMES |= dict(num_epochs="UPDATE_EPOCHS", num_minibatches="NUM_MINIBATCHES", min_buffer_size="LEARNING_STARTS")
NAMES |= dict(batch_size="BUFFER_BATCH_SIZE", buffer_size="BUFFER_SIZE", target_period="TARGET_UPDATE_INTERVAL")
NAMES |= dict(width="HIDDEN_SIZE")


def peer_side(script, row, source):
    """JaxMARL's script: `train`, and the mean return of greedy episodes of what it returns."""
    import jax
    import jax.experimental
    import jax.numpy as jnp

    for module in ("hydra", "omegaconf", "wandb"):  # settings and logs
        sys.modules[module] = mock.MagicMock()
    jax.experimental.io_callback = lambda *arguments, **keywords: None
    import jaxmarl
    from jaxmarl.wrappers.baselines import MPELogWrapper

    spec = importlib.util.spec_from_file_location("baseline", pathlib.Path(source) / "baselines" / script)
    baseline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(baseline)

    options = dict(max_steps=EPISODE - 1)  # it looks at its clock before it counts
    env = jaxmarl.make("MPE_simple_spread_v3", **options)
    config = dict(ENV_NAME="MPE_simple_spread_v3", ENV_KWARGS=options, WANDB_MODE="disabled", VF_COEF=0.5)
    config |= dict(ACTIVATION="tanh", ANNEAL_LR=True, LR_LINEAR_DECAY=False, TAU=1.0, NUM_EPOCHS=1, NUM_LAYERS=4)
    config |= dict(EPS_START=1.0, EPS_FINISH=0.05, EPS_DECAY=0.1, TEST_DURING_TRAINING=False, TEST_NUM_ENVS=1)
    config |= {their: row[ours] for ours, their in NAMES.items() if ours in row}
    if "IPPO" in script:
        train, network, memory = baseline.make_train(config), baseline.ActorCritic(5), ()

        def act(params, memory, seen):
            return memory, network.apply(params, seen)[0].mode()

    else:
        recurrent = row["length"] > 1  # rollouts are episodes then, which are the rows of its buffer
        config |= dict(BUFFER_SIZE=row["buffer_size"] // EPISODE) if recurrent else {}
        train = baseline.make_train(config, MPELogWrapper(env))
        network = baseline.RNNQNetwork(5, row["width"]) if recurrent else baseline.QNetwork(5, row["width"], 4)
        memory = jnp.zeros((EPISODES * NUM_AGENTS, row["width"])) if recurrent else ()

        def act(params, memory, seen):
            who = jnp.broadcast_to(jnp.eye(NUM_AGENTS), (EPISODES, NUM_AGENTS, NUM_AGENTS))
            seen = jnp.concatenate([seen, who], -1).reshape(1, EPISODES * NUM_AGENTS, -1)
            if recurrent:
                memory, values = network.apply(params, memory, seen, jnp.zeros(seen.shape[:2]))
            else:
                values = network.apply(params, seen)
            return memory, jnp.argmax(values, -1).reshape(EPISODES, NUM_AGENTS)

    @jax.jit
    def score(params, key):
        keys = jax.random.split(key, EPISODES)
        seen, state = jax.vmap(env.reset)(keys)

        def step(carry, key):
            seen, state, memory = carry
            memory, action = act(params, memory, jnp.stack([seen[agent] for agent in env.agents], 1))
            action = {agent: action[:, i] for i, agent in enumerate(env.agents)}
            keys = jax.random.split(key, EPISODES)
            seen, state, reward, _, _ = jax.vmap(env.step_env)(keys, state, action)
            return (seen, state, memory), sum(reward[agent] for agent in env.agents)

        total = jax.lax.scan(step, (seen, state, memory), jax.random.split(key, EPISODE))[1]
        return total.sum() / (EPISODES * NUM_AGENTS)

    # What the script returns beside the parameters is left out of neither the program nor the time.
    return train, lambda result, key: score(result["runner_state"][0].params, key)


def our_side(name, row, borrowed=None, theirs=False):
    """The same of ours, in our environment or in theirs."""
    import jax

    import jaxrl
    from jaxrl.tree import field_names, replace_fields

    if theirs:
        sys.path += [borrowed] * (importlib.util.find_spec("jaxmarl") is None)
        from jaxrl.envs.jaxmarl import make_jaxmarl

        env = make_jaxmarl("MPE_simple_spread_v3", max_steps=EPISODE - 1)
    else:
        env = jaxrl.envs.make("spread")
    env = env._replace(step=terminating(env.step))
    if name == "ippo":
        static = {key: row[key] for key in ("num_epochs", "num_minibatches")} | dict(widths=(64, 64))
        numbers = dict(value_clip=row["clip"], value_coefficient=0.5, decay_steps=row["steps"])
    else:
        static = {key: row[key] for key in ("buffer_size", "batch_size", "min_buffer_size", "target_period")}
        static |= dict(identify=True, prioritized=False, team_reward="sum", widths=(row["width"],) * 2, double=False)
        if name == "recurrent_vdn":
            static |= dict(widths=(row["width"],), memory_size=row["width"], sequence_length=EPISODE, td_steps=1)
            del static["double"]  # R2D2 always is, and so is JaxMARL's recurrent script
        numbers = dict(target_rate=1.0, epsilon_start=1.0, epsilon_end=0.05, epsilon_steps=0.1 * row["steps"])
    agent, hparams = jaxrl.make_agent(name, env, **static)
    numbers |= {key: row[key] for key in field_names(hparams) if key in row}
    hparams = replace_fields(hparams, **numbers)
    loop = jaxrl.online(agent, env, num_envs=row["num_envs"], unroll_length=row["length"])
    num_updates = row["steps"] // (row["num_envs"] * row["length"])
    score = jax.jit(lambda state, key: jaxrl.evaluate(key, agent, state, env, num_episodes=EPISODES).returns.mean())
    return (
        lambda key: jaxrl.run(loop, loop.init(key, hparams), num_updates),
        lambda result, key: score(result[0].agent, key),
    )


def terminating(step):
    """A step whose clock terminates, as JaxMARL's scripts take it: values after it count as 0."""

    def inner(*arguments):
        state, then = step(*arguments)
        ended = then.terminated | then.truncated
        return state, then._replace(terminated=ended, truncated=ended & False)

    return inner


def make_side(side, name, row, source, borrowed):
    script, agent, _ = ROWS[name]
    return peer_side(script, row, source) if side == "jaxmarl" else our_side(agent, row, borrowed, side == "adapter")


def child(arguments):
    """Compiles; then, for each seed on the standard input, a line {"seconds", "return"}."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # JaxMARL prints, and so do programs that it calls
    import jax

    train, score = make_side(*arguments)
    key = jax.random.PRNGKey if arguments[0] == "jaxmarl" else jax.random.key
    begin = time.perf_counter()
    lowered = jax.jit(train).lower(key(0))
    traced = time.perf_counter()
    compiled = lowered.compile()
    print(json.dumps({"trace": traced - begin, "compile": time.perf_counter() - traced}), file=answers, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        result = jax.block_until_ready(compiled(key(int(line))))
        seconds = time.perf_counter() - begin
        returned = float(score(result, key(1000 + int(line))))
        print(json.dumps({"seconds": seconds, "return": returned}), file=answers, flush=True)


class Side:
    """A process that trains on demand."""

    def __init__(self, python, *arguments):
        # -P: this file is called as the package that it imports, which must not be looked for beside it.
        self._process = subprocess.Popen(
            [python, "-P", __file__, "--child", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"},
        )
        self.compiled = self._read()
        self.runs = []

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a side has ended; its error is above")
        return json.loads(line)

    def train(self, seed):
        print(seed, file=self._process.stdin, flush=True)
        self.runs.append(self._read())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def peer_python():
    """The interpreter of JaxMARL's virtual environment, which is made if it is not there."""
    folder = ROOT / "build" / "peers" / "jaxmarl"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PEER], check=True)
        (folder / "complete").touch()
    return str(python)


def compare(name, python, source, seeds, shorter=1):
    """One row: {side: {"trace", "compile", "seconds", "returns"}}; the first seed is not timed."""
    row = ROWS[name][2]
    row = row | dict(steps=row["steps"] // shorter)
    folder = "import sysconfig; print(sysconfig.get_path('purelib'))"
    borrowed = subprocess.run([python, "-c", folder], capture_output=True, text=True, check=True).stdout.strip()
    interpreters = {"jaxmarl": python, "adapter": sys.executable, "jaxrl": sys.executable}
    sides = {side: Side(path, side, name, row, source, borrowed) for side, path in interpreters.items()}
    for seed in range(seeds):
        for side in list(sides.values())[:: 1 if seed % 2 else -1]:  # who is first changes
            side.train(seed)
    for side in sides.values():
        side.close()
    found = {
        side: process.compiled
        | dict(seconds=[run["seconds"] for run in process.runs[1:]], returns=[run["return"] for run in process.runs])
        for side, process in sides.items()
    }
    return {"name": name, "steps": row["steps"], "sides": found}


def table(results):
    from jaxrl.statistics import bootstrap_interval, iqm

    lines = [
        "| row | side | trace + compile s | run s | steps/s, median | best | ratio to jaxmarl | IQM return | 95 % |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        theirs = result["sides"]["jaxmarl"]["seconds"]
        for side, found in result["sides"].items():
            rates = [result["steps"] / seconds for seconds in found["seconds"]]
            ratios = sorted(peer / own for peer, own in zip(theirs, found["seconds"]))  # of neighbouring runs
            ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
            low, high = bootstrap_interval(found["returns"])
            lines.append(
                f"| {result['name']} | {side} | {found['trace']:.1f} + {found['compile']:.1f} "
                f"| {statistics.median(found['seconds']):.1f} | {statistics.median(rates):,.0f} | {max(rates):,.0f} "
                f"| {'' if side == 'jaxmarl' else ratio} | {iqm(found['returns']):.2f} | {low:.2f} .. {high:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a checkout of JaxMARL's repository")
    parser.add_argument("--python", help="interpreter that has JaxMARL")
    parser.add_argument("--rows", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=4, help="trained on each side; all but the first are timed")
    parser.add_argument("--shorter", type=int, default=1, help="divides the steps")
    arguments = parser.parse_args()
    python = arguments.python or peer_python()
    results = []
    for name in arguments.rows:
        results.append(compare(name, python, arguments.source, arguments.seeds, arguments.shorter))
        print(table(results[-1:]), flush=True)


if __name__ == "__main__":
    main()
