"""What the checks of numbers cost: a chunk of training without any, with those that are always on, and with --debug.

    python benchmarks/reliability/overhead.py [--quick] [--write]

The three programs of a learner are compiled once and run in turns, in one process, as `jaxrl train` runs them: the
first two donate the state, the last two look at the metrics on the host after each chunk. A round is one chunk of each,
in an order drawn anew; the figure is the median over rounds of the ratio within a round, so that other load on the
machine falls on all alike. Seconds are those of the process on all CPU cores, which other load changes less than it
changes the clock; ratios by the clock are beside them. The last learner hardly learns, so that steps of the environment
are most of its time. Exit status 1 if the checks cost more than 1.10x of the time without, or --debug more than 1.4x.
"""

import sys
import time
from typing import NamedTuple
from unittest import mock

import jax
import numpy as np
from pages import arguments, finish

import jaxrl.envs
from jaxrl import finite, presets
from jaxrl.cli import debug, health
from jaxrl.factory import make_agent

LEARNERS = [
    ("ppo", "CartPole-v1", {}, {}),
    ("dqn", "CartPole-v1", {}, {}),
    ("sac", "Pendulum-v1", {}, {}),
    ("ppo", "CartPole-v1", {"num_envs": 64, "unroll_length": 512}, {"num_epochs": 1, "widths": (16,)}),
]
LIMITS = {"always on": 1.10, "debug": 1.4}
SECONDS = 0.15  # of a chunk, about
WARM = 8  # updates at a time


class Runner(NamedTuple):
    """A compiled chunk: `advance(state) -> state` is what the host does for one."""

    advance: object
    state: object


def loop_of(agent_name, env_name, sizes, static, checked=False):
    preset, env = presets.lookup(agent_name, env_name), jaxrl.envs.make(env_name)
    agent, hparams = make_agent(agent_name, env, preset=env_name, **static)
    agent = debug.checked_agent(agent, env) if checked else agent
    sizes = {name: preset[name] for name in ("num_envs", "unroll_length", "reset_pool")} | sizes
    return jaxrl.online(agent, env, **sizes), hparams, (sizes["unroll_length"], sizes["num_envs"])


def chunk_of(loop, updates):
    return lambda state: jaxrl.run(loop, state, updates)


def runners(*learner):
    """The three programs, past the steps before a replay learner begins to learn, and updates of a chunk."""
    loop, hparams, sizes = loop_of(*learner)
    state, updates = warm(loop, jax.jit(lambda: loop.init(jax.random.key(0), hparams))())
    copy = lambda: jax.tree.map(lambda x: x.copy(), state)  # noqa: E731

    off = {"in_rollout": lambda *_: {}, "in_parameters": lambda _: {}}
    with mock.patch.multiple(finite, **off):
        plain = jax.jit(chunk_of(loop, updates), donate_argnums=0).lower(state)
    assert not [name for name in plain.out_info[1] if name.startswith(finite.PREFIX)]
    plain = plain.compile()
    checks = jax.jit(chunk_of(loop, updates), donate_argnums=0).lower(state).compile()
    checked_loop = loop_of(*learner, checked=True)[0]
    checkified = debug.checked_chunk(lambda state, data: chunk_of(checked_loop, updates)(state))
    debugged = jax.jit(checkified).lower(state, ()).compile()

    def without(state):
        state, metrics = jax.block_until_ready(plain(state))
        jax.device_get(metrics)
        return state

    def always_on(state):
        state, metrics = jax.block_until_ready(checks(state))
        assert health.problem(jax.device_get(metrics), 0, sizes, state) is None
        return state

    def with_debug(state):
        error, (new, metrics) = jax.block_until_ready(debugged(state, ()))
        assert debug.message(error) is None and health.problem(jax.device_get(metrics), 0, sizes, new) is None
        return new

    advance = {"without": without, "always on": always_on, "debug": with_debug}
    return {name: Runner(function, copy()) for name, function in advance.items()}, updates


def warm(loop, state):
    """`state` where a replay learner learns, and how many updates take about SECONDS."""
    step, seconds = jax.jit(chunk_of(loop, WARM), donate_argnums=0), []
    for _ in range(500):
        started = time.perf_counter()
        state, metrics = jax.block_until_ready(step(state))
        if np.all(np.asarray(metrics.get("replay/updates", 1)) > 0):
            seconds.append(time.perf_counter() - started)
        if len(seconds) > 4:
            return state, max(1, round(WARM * SECONDS / min(seconds[-4:])))
    raise RuntimeError("the replay buffer does not fill")


def measure(found, rounds, seed=0):
    """Seconds [rounds, 2] of each program: of the process, by the clock."""
    random, seconds = np.random.default_rng(seed), {name: [] for name in found}
    states = {name: runner.advance(runner.state) for name, runner in found.items()}
    for _ in range(rounds):
        for name in random.permutation(list(found)):
            started = time.process_time(), time.perf_counter()
            states[name] = found[name].advance(states[name])
            seconds[name].append((time.process_time() - started[0], time.perf_counter() - started[1]))
    return {name: np.array(values) for name, values in seconds.items()}


def interval(ratios, seed=0):
    """The median and its 95 % interval by the bootstrap."""
    random = np.random.default_rng(seed)
    medians = np.median(random.choice(ratios, (2000, len(ratios))), axis=1)
    return np.median(ratios), *np.quantile(medians, [0.025, 0.975])


def report(rounds, learners=LEARNERS):
    rows, broken = [], []
    for learner in learners:
        found, updates = runners(*learner)
        seconds = measure(found, rounds)
        agent_name, env_name, *changed = learner
        settings = ", ".join(f"{name} {value}" for part in changed for name, value in part.items())
        row = {"learner": f"{agent_name}, {env_name}" + (f", {settings}" if settings else "")}
        row |= {"updates a chunk": updates, "ms": f"{1e3 * np.median(seconds['without'][:, 0]) / updates:.3f}"}
        for name, limit in LIMITS.items():
            middle, low, high = interval(seconds[name][:, 0] / seconds["without"][:, 0])
            row[name] = f"{middle:.3f} [{low:.3f}, {high:.3f}]"
            row[f"{name}, by the clock"] = f"{np.median(seconds[name][:, 1] / seconds['without'][:, 1]):.3f}"
            if middle > limit:
                broken.append(f"{row['learner']}: {name} costs {middle:.2f}x, more than {limit}x")
        rows.append(row)
        print(row, flush=True)
    return rows, broken


def main():
    given = arguments(__doc__)
    rounds = 20 if given.quick else 200
    rows, broken = report(rounds)
    done = (
        f"Chunks of about {SECONDS} s, {rounds} rounds of all three programs in turns, settings of `jaxrl train` where "
        "none are named. ms are those of an update without checks; costs are multiples of it, medians over rounds with "
        "95 % intervals, in seconds of the process, and by the clock."
    )
    return finish("overhead", "What the checks of numbers cost", done, rows, broken, given.write)


if __name__ == "__main__":
    sys.exit(main())
