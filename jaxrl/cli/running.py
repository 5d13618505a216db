"""The host's part of a training run: chunks of updates, a line of metrics for each, the end, however it comes."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import signal
import sys
import threading
import time
from typing import Any, Iterator

from jaxrl.cli import report
from jaxrl.cli.errors import bad_input


def train(settings: Any, out: pathlib.Path, started: float) -> int:
    """Compiles, runs and evaluates; returns the exit status."""
    import jax

    from jaxrl import __version__
    from jaxrl.cli import compilation, programs, run_directory

    options, name = settings.options, f"{settings.agent_name} in {settings.env_name}"
    say = functools.partial(print, flush=True) if not options["quiet"] else lambda *_, **__: None
    learner = programs.open_learner(settings)
    program = programs.make(settings)
    total, chunk_steps, num_chunks = program.total, program.chunk_steps, program.total // program.chunk_steps
    say(f"jaxrl {__version__}: {name} on {compilation.device_name()}, {total:,} {program.unit}")
    if total != program.requested:
        say(f"{program.unit}: {program.requested:,} rounded up to {num_chunks} chunks of {program.updates} updates")
    for line in program.notes:
        say(line)
    say(f"compilation cache: {compilation.use_cache()}")

    init_key, evaluation_key = jax.random.split(jax.random.key(options["seed"]))
    init, chunk = programs.traced(program, init_key, settings, name)
    say("compiling ... ", end="")
    with bad_input(jax.errors.JaxRuntimeError, what=name):  # out of memory
        (init, chunk), compile_seconds = compilation.timed(lambda: (init.compile(), chunk.compile()))
        state = programs.with_learner(init(init_key, settings.hparams, program.data), learner, options["init_from"])
    say(f"({compile_seconds:.1f} s)")

    rows, steps, running, evaluation = [], 0, 0.0, None
    with signals() as received:
        while not rows or (steps < total and not received):
            with bad_input(jax.errors.JaxRuntimeError, what=name):
                (state, metrics), seconds = compilation.timed(functools.partial(advance, chunk, state, program.draw()))
            running += seconds
            steps += chunk_steps
            rows.append(run_directory.row(metrics, steps, running, chunk_steps / seconds))
            if len(rows) == 1:  # nothing is written before a chunk has run
                run_directory.create(out, settings, {"steps": total, "updates_per_chunk": program.updates})
            run_directory.append(out, rows[-1])
            if not options["quiet"]:
                report.progress(rows[-1], total, len(rows), num_chunks, program.unit)
        actor = settings.agent.actor(state.agent)
        run_directory.save_policy(out, settings, actor, steps)
        run_directory.save_learner(out, settings, state.agent, steps)
        if settings.plays and signal.SIGTERM not in received:  # who sends it will not wait; `jaxrl evaluate` can be run
            with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C
                evaluation, seconds = final_evaluation(evaluation_key, settings, actor)
                compile_seconds += seconds
        wall = time.perf_counter() - started
        result = run_directory.write_result(out, evaluation, steps, running, compile_seconds, wall)
    if not options["quiet"]:
        report.table(settings, result, out, program.unit)
        report.curve([r["steps"] for r in rows], [r.get("episode/return") for r in rows])
    if received:
        sent = signal.Signals(received[0]).name
        print(f"jaxrl: stopped by {sent} after {steps:,} {program.unit}; {out} has the run so far", file=sys.stderr)
        return 128 + received[0]
    return 0


def advance(chunk: Any, state: Any, data: Any) -> tuple[Any, dict]:
    """One chunk, awaited; metrics on the host."""
    import jax

    state, metrics = jax.block_until_ready(chunk(state, data))
    return state, jax.device_get(metrics)


def final_evaluation(key: Any, settings: Any, actor: Any) -> tuple[Any, float]:
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
