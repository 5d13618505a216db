"""`jaxrl train AGENT ENV`: compiled chunks of updates with the host between them, and a run directory."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import signal
import sys
import threading
import time
from typing import Any, Iterator, NamedTuple

from jaxrl.cli import report
from jaxrl.cli.errors import BadInput, bad_input

USAGE = """usage: jaxrl train AGENT ENV [flags]

`jaxrl train AGENT ENV --help` lists the flags with the settings tuned for that environment;
`jaxrl list agents` and `jaxrl list envs` print the names. The first two arguments are AGENT and ENV, flags follow.
"""


class Settings(NamedTuple):
    """A training run, resolved. `options`: steps, num_envs, unroll_length, reset_pool, episodes, seed, out, ..."""

    agent_name: str
    env_name: str
    env_params: dict[str, Any]
    static: dict[str, Any]
    options: dict[str, Any]
    hparams: Any
    agent: Any
    env: Any


def main(argv: list[str]) -> int:
    started = time.perf_counter()
    if argv in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    settings = read_settings(argv)

    from jaxrl.cli import run_directory

    out = run_directory.choose(settings)
    return train(settings, out, started)


def read_settings(argv: list[str]) -> Settings:
    """Names, flags and presets into a `Settings`; the agent and the environment are made on the way."""
    from jaxrl.presets import DEFAULTS, lookup

    if len(argv) < 2 or argv[0].startswith("-") or argv[1].startswith("-"):
        raise BadInput("write jaxrl train AGENT ENV [flags], as in jaxrl train ppo CartPole-v1; see jaxrl train --help")
    agent_name, env_name, *rest = argv
    if agent_name not in DEFAULTS:
        raise BadInput(f"no agent is called {agent_name!r}; there are {', '.join(DEFAULTS)}")

    from jaxrl.cli import flags
    from jaxrl.cli.environment import env_numbers, make_env

    env_params, rest = flags.split_env_flags(rest)
    preset = lookup(agent_name, env_name)
    env = make_env(env_name, env_params)

    from jaxrl.factory import AGENTS, make_agent
    from jaxrl.tree import replace_fields

    prog = f"jaxrl train {agent_name} {env_name}"
    static_flags = flags.of_builder(AGENTS[agent_name], preset)
    # The structure of the hyperparameters depends on static choices, so those are read first.
    first = flags.parse(run_flags(preset) + static_flags, rest, prog, "", partial=True)
    static = {flag.name: first[flag.name] for flag in static_flags}
    with bad_input(ValueError, TypeError):
        agent, hparams = make_agent(agent_name, env, preset=env_name, **static)
    if preset["hparams"].get("decay_steps") == preset["steps"]:  # tuned to end with the run: so it does with --steps
        hparams = replace_fields(hparams, decay_steps=float(first["steps"]))
    hparam_flags = flags.of_hparams(hparams)
    numbers = ", ".join(f"{k} {v:g}" for k, v in env_numbers(env).items()) or "none"
    description = f"Environment parameters, as --env.KEY VALUE: {numbers}; and keywords of the environment's factory."
    values = flags.parse(run_flags(preset) + static_flags + hparam_flags, rest, prog, description)

    import jax

    for flag in hparam_flags:
        flags.check_range(flag, values[flag.name])
    hparams = jax.tree.unflatten(jax.tree.structure(hparams), [values[flag.name] for flag in hparam_flags])
    options = {flag.name: values[flag.name] for flag in run_flags(preset)}
    check_options(options)
    return Settings(agent_name, env_name, env_params, static, options, hparams, agent, env)


def run_flags(preset: dict[str, Any]) -> list:
    """The flags of every training run."""
    from jaxrl.cli.flags import Flag

    return [
        Flag("steps", int, preset["steps"], "environment steps, all environments together"),
        Flag("num_envs", int, preset["num_envs"], "environments side by side"),
        Flag("unroll_length", int, preset["unroll_length"], "steps of each environment between two updates"),
        Flag(
            "reset_pool", int, preset["reset_pool"], "fresh states that resets draw from (0: every reset is computed)"
        ),
        Flag("episodes", int, 128, "episodes of the final evaluation"),
        Flag("seed", int, 0, "of everything random"),
        Flag("out", str, "", "run directory; default runs/AGENT-ENV-SEED-TIME"),
        Flag("overwrite", bool, False, "replace the run in --out"),
        Flag("quiet", bool, False, "print errors only"),
    ]


def check_options(options: dict[str, Any]) -> None:
    for name in ("num_envs", "unroll_length", "episodes"):
        if options[name] < 1:
            raise BadInput(f"--{name.replace('_', '-')} is {options[name]}, must be >= 1")
    if not 0 <= options["seed"] < 2**32:
        raise BadInput(f"--seed is {options['seed']}, must be in [0, 2**32)")
    one = options["num_envs"] * options["unroll_length"]
    if options["steps"] < one:
        raise BadInput(f"--steps is {options['steps']}, less than one update: {one} (num_envs * unroll_length)")


def plan(steps: int, steps_per_update: int) -> tuple[int, int]:
    """updates per chunk, number of chunks: 50 to 100 chunks of one size (one compilation), the least rounding up."""
    updates = -(-steps // steps_per_update)
    smallest = -(-updates // 100)
    size = min(range(smallest, max(updates // 50, smallest) + 1)[:1000], key=lambda k: (-updates % k, -k))
    return size, -(-updates // size)


def train(settings: Settings, out: pathlib.Path, started: float) -> int:
    """Compiles, runs and evaluates; returns the exit status."""
    import jax

    from jaxrl import __version__
    from jaxrl.cli import compilation, run_directory

    options, name = settings.options, f"{settings.agent_name} in {settings.env_name}"
    say = functools.partial(print, flush=True) if not options["quiet"] else lambda *_, **__: None
    updates, num_chunks = plan(options["steps"], options["num_envs"] * options["unroll_length"])
    chunk_steps = updates * options["num_envs"] * options["unroll_length"]
    total = chunk_steps * num_chunks
    say(f"jaxrl {__version__}: {name} on {compilation.device_name()}, {total:,} steps")
    if total != options["steps"]:
        say(f"steps: {options['steps']:,} rounded up to {num_chunks} chunks of {updates} updates")
    say(f"compilation cache: {compilation.use_cache()}")

    init_key, evaluation_key = jax.random.split(jax.random.key(options["seed"]))
    init, chunk = traced(init_key, settings, updates, name)
    say("compiling ... ", end="")
    with bad_input(jax.errors.JaxRuntimeError, what=name):  # out of memory
        (init, chunk), compile_seconds = compilation.timed(lambda: (init.compile(), chunk.compile()))
        state = init(init_key, settings.hparams)
    say(f"({compile_seconds:.1f} s)")

    rows, steps, running, evaluation = [], 0, 0.0, None
    with signals() as received:
        while not rows or (steps < total and not received):
            with bad_input(jax.errors.JaxRuntimeError, what=name):
                (state, metrics), seconds = compilation.timed(functools.partial(advance, chunk, state))
            running += seconds
            steps += chunk_steps
            rows.append(run_directory.row(metrics, steps, running, chunk_steps / seconds))
            if len(rows) == 1:  # nothing is written before a chunk has run
                run_directory.create(out, settings, {"steps": total, "updates_per_chunk": updates})
            run_directory.append(out, rows[-1])
            if not options["quiet"]:
                report.progress(rows[-1], total, len(rows), num_chunks)
        actor = settings.agent.actor(state.agent)
        run_directory.save_policy(out, settings, actor, steps)
        if signal.SIGTERM not in received:  # who sends it will not wait; `jaxrl evaluate` can be run later
            with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C
                evaluation, seconds = final_evaluation(evaluation_key, settings, actor)
                compile_seconds += seconds
        wall = time.perf_counter() - started
        result = run_directory.write_result(out, evaluation, steps, running, compile_seconds, wall)
    if not options["quiet"]:
        report.table(settings, result, out)
        report.curve([r["steps"] for r in rows], [r["episode/return"] for r in rows])
    if received:
        sent = signal.Signals(received[0]).name
        print(f"jaxrl: stopped by {sent} after {steps:,} steps; {out} has the run so far", file=sys.stderr)
        return 128 + received[0]
    return 0


def traced(key: Any, settings: Settings, updates: int, name: str) -> tuple[Any, Any]:
    """Initialisation and one chunk of `updates`, lowered. What an agent or environment objects to shows here.

    Raises:
      BadInput: for whatever is raised under tracing.
    """
    import jax

    from jaxrl.loop import online, run

    with bad_input(Exception, what=name):
        sizes = {k: settings.options[k] for k in ("num_envs", "unroll_length", "reset_pool")}
        loop = online(settings.agent, settings.env, **sizes)
        init = jax.jit(loop.init).lower(key, settings.hparams)
        state = jax.eval_shape(loop.init, key, settings.hparams)
        return init, jax.jit(lambda state: run(loop, state, updates), donate_argnums=0).lower(state)


def advance(chunk: Any, state: Any) -> tuple[Any, dict]:
    """One chunk, awaited; metrics on the host."""
    import jax

    state, metrics = jax.block_until_ready(chunk(state))
    return state, jax.device_get(metrics)


def final_evaluation(key: Any, settings: Settings, actor: Any) -> tuple[Any, float]:
    """The final evaluation, and the seconds that its compilation took."""
    import jax

    from jaxrl.cli import compilation
    from jaxrl.evaluation import evaluate

    def play(key, actor):
        return evaluate(key, settings.agent, actor, settings.env, num_episodes=settings.options["episodes"])

    compiled, seconds = compilation.timed(lambda: jax.jit(play).lower(key, actor).compile())
    return jax.device_get(compiled(key, actor)), seconds


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them; the second one raises KeyboardInterrupt."""
    received: list[int] = []

    def handler(number: int, frame: Any) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)
