"""The host's part of a training run: chunks of updates, a line of metrics for each, the end, however it comes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import signal
import sys
import time
from typing import Any

from jaxrl.cli import hosts, report, run_directory, signals
from jaxrl.cli.errors import bad_input


@dataclasses.dataclass
class Progress:
    """Where a run is.

    Attributes:
      started: `time.perf_counter()` when the command began, less the time that earlier commands had for this run.
      row: the newest of metrics.jsonl; unwritten: those that the disk did not take; curve: step and return of each.
      seconds: of running chunks; compile_seconds: of XLA.
    """

    state: Any
    started: float
    steps: int = 0
    row: dict = dataclasses.field(default_factory=dict)
    unwritten: list[dict] = dataclasses.field(default_factory=list)
    curve: list[tuple[int, float | None]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    compile_seconds: float = 0.0

    def add(self, row: dict) -> None:
        """Keeps of a row what is needed later: very long runs have very many."""
        self.row = row
        self.curve.append((row["steps"], row.get("episode/return")))

    def notes(self) -> dict[str, float]:
        """What a checkpoint holds beside the state."""
        wall = time.perf_counter() - self.started
        return {"seconds": self.seconds, "compile_seconds": self.compile_seconds, "wall_seconds": wall}


def train(settings: Any, out: pathlib.Path | None, started: float, resumed: Any = None) -> int:
    """Compiles, runs and evaluates; returns the exit status.

    Args:
      out: None on processes that do not write, but for a resumed run.
      started: `time.perf_counter()` when the command began.
      resumed: a `resume.Resumed` to go on with, or None.
    """
    import jax

    from jaxrl import __version__
    from jaxrl.cli import compilation, programs, saving

    first = hosts.is_first()
    settings = settings._replace(options={**settings.options, "quiet": settings.options["quiet"] or not first})
    options, name = settings.options, f"{settings.agent_name} in {settings.env_name}"
    say = functools.partial(print, flush=True) if not options["quiet"] else lambda *_, **__: None
    learner = programs.open_learner(settings) if resumed is None else None
    program = programs.make(settings)
    total, num_chunks = program.total, program.total // program.chunk_steps
    say(f"jaxrl {__version__}: {name} on {compilation.device_name()}, {total:,} {program.unit}")
    if total != program.requested:
        say(f"{program.unit}: {program.requested:,} rounded up to {num_chunks} chunks of {program.updates} updates")
    if options["devices"] > 1:
        say(f"on {options['devices']} devices of {jax.process_count()} processes, each with its share")
    for line in program.notes:
        say(line)
    say(f"compilation cache: {compilation.use_cache()}")

    init_key, evaluation_key = jax.random.split(jax.random.key(options["seed"]))
    traced = programs.traced(program, init_key, settings, name)
    say("compiling ... ", end="")
    if options["checkpoints"]:
        saving.import_in_background()
    with bad_input(jax.errors.JaxRuntimeError, what=name):  # out of memory
        chunk, compile_seconds = compilation.timed(traced.chunk.compile)
        fresh, init = None, None
        if resumed is None or not options["checkpoint_replay"]:
            init, seconds = compilation.timed(traced.init.compile)
            compile_seconds += seconds
        hosts.wait_for_all("compiled")
        if init is not None:
            fresh = init(init_key, settings.hparams, program.data)
            fresh = programs.with_learner(fresh, learner, options["init_from"])
    say(f"({compile_seconds:.1f} s)")

    with contextlib.ExitStack() as stack:
        if resumed is None:
            sizes = {"steps": total, "updates_per_chunk": program.updates}
            config = run_directory.create(out, settings, sizes) if first else {}
            saver = saving.Saver(stack.enter_context(saving.open_store(out, options, config)), options)
            progress = Progress(fresh, started)
            saver.save(fresh, 0, progress.notes())
        else:
            progress = Progress(None, started)
            saver = saving.Saver(resumed.store, options)
            saver.restore(progress, out, resumed, traced.template, fresh)
            say(f"resumed after {progress.steps:,} {program.unit}")
        progress.compile_seconds += compile_seconds
        with signals.collected(interrupt_again) as received:
            problem = go_on(settings, out, program, traced, chunk, progress, saver, received)
            result = None if problem else finish(settings, out, progress, saver, evaluation_key, received)
        saver.wait()
    hosts.wait_for_all("done")
    if problem and not first:
        return 1
    if problem:
        newest = saver.newest()
        kept = "nothing was saved" if newest is None else f"{out} has the run as it was after {newest:,} {program.unit}"
        print(f"jaxrl: {problem}; {kept}", file=sys.stderr)
        return 1
    if not options["quiet"]:
        report.table(settings, result, out, program.unit)
        report.curve(progress.curve)
    if received and first:
        sent, steps = signal.Signals(received[0]).name, progress.steps
        print(f"jaxrl: stopped by {sent} after {steps:,} {program.unit}; {out} has the run so far", file=sys.stderr)
    return 128 + received[0] if received else 0


def go_on(
    settings: Any,
    out: pathlib.Path,
    program: Any,
    traced: Any,
    chunk: Any,
    progress: Progress,
    saver: Any,
    received: list[int],
) -> str | None:
    """Runs chunk after chunk, until the end or a signal. Returns None, or what is wrong with the last one's numbers."""
    import jax

    from jaxrl.cli import compilation, health, profile, saving

    options, sizes = settings.options, None
    if settings.dataset is None:
        sizes = (options["unroll_length"], options["num_envs"])
    name, num_chunks = f"{settings.agent_name} in {settings.env_name}", program.total // program.chunk_steps
    diverged = None
    left = (program.total - progress.steps) // program.chunk_steps
    profiled_step = progress.steps + left // 2 * program.chunk_steps  # buffers are filled, schedules on their way
    while progress.steps < program.total and not hosts.told_to_stop(received):
        data = program.draw(progress.steps // program.chunk_steps)
        with bad_input(jax.errors.JaxRuntimeError, what=name):
            call = functools.partial(advance, chunk, progress.state, data, options["debug"])
            profiled = options["profile"] and progress.steps == profiled_step
            timed = functools.partial(profile.record, folder=options["profile"]) if profiled else compilation.timed
            (state, metrics, failed), seconds = timed(call)
        problem = health.problem(metrics, progress.steps, sizes, hosts.one(state, options["devices"]))
        if problem and options["debug"]:
            problem += where(traced, progress.state, data)
        if problem or failed:
            return "; ".join(filter(None, (problem, failed)))
        progress.state = state
        progress.steps += program.chunk_steps
        progress.seconds += seconds
        rate = program.chunk_steps / seconds
        row = run_directory.row(health.without_checks(metrics), progress.steps, progress.seconds, rate)
        progress.add(row)
        if hosts.is_first():
            log(out, progress)
        if not options["quiet"]:
            done = progress.steps // program.chunk_steps
            report.progress(row, program.total, done, num_chunks, program.unit)
        if profiled and not options["quiet"]:
            print("\n".join(["", *profile.lines(options["profile"], chunk.as_text(), seconds)]), flush=True)
        if diverged is None and (diverged := health.divergence(metrics)):
            saving.warn(diverged)  # once
        if hosts.agree(saver.due(progress.steps))[0][0]:  # by the clock of the first
            saver.save(state, progress.steps, progress.notes(), row.get("episode/return"))
    return None


def log(out: pathlib.Path, progress: Progress) -> None:
    """Adds the newest row to metrics.jsonl, with those that could not be written before.

    A full disk must not end a run, and may be full for a while only.
    """
    from jaxrl.cli import saving

    unwritten = progress.unwritten
    unwritten.append(progress.row)
    try:
        if len(unwritten) > 1:  # the end of the file may be half a line
            saving.write_rows(out, saving.read_rows(out, unwritten[0]["steps"] - 1) + unwritten)
        else:
            run_directory.append(out, progress.row)
        unwritten.clear()
    except OSError as error:
        if len(unwritten) == 1:
            saving.warn(f"{out / 'metrics.jsonl'}: {error.strerror}; the run goes on, and writes it again later")


def advance(chunk: Any, state: Any, data: Any, debug: bool) -> tuple[Any, dict, str | None]:
    """One chunk, awaited: the state, metrics on the host and, with --debug, the check that failed."""
    import jax

    from jaxrl.cli.debug import message

    error, (state, metrics) = jax.block_until_ready(chunk(state, data) if debug else (None, chunk(state, data)))
    return state, jax.device_get(metrics), message(error) if debug else None


def where(traced: Any, state: Any, data: Any) -> str:
    """The operation and source line at which a number of a chunk was first not finite, as part of a message."""
    from jaxrl.cli.debug import explain

    found = explain(traced.function, state, data)
    return f" ({found})" if found else ""


def finish(
    settings: Any, out: pathlib.Path, progress: Progress, saver: Any, key: Any, received: list[int]
) -> dict[str, Any]:
    """The last checkpoint, the policy, the learner, the evaluation; result.json comes last and is returned."""
    saver.save(progress.state, progress.steps, progress.notes(), progress.row.get("episode/return"))
    agent_state = hosts.one(progress.state, settings.options["devices"]).agent
    actor, evaluation = settings.agent.actor(agent_state), None
    if hosts.is_first():
        run_directory.save_policy(out, settings, actor, progress.steps)
        run_directory.save_learner(out, settings, agent_state, progress.steps)
    if settings.plays and signal.SIGTERM not in received:  # who sends it will not wait; `jaxrl evaluate` can be run
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C
            evaluation, seconds = final_evaluation(key, settings, actor)
            progress.compile_seconds += seconds
    saver.wait()
    wall = time.perf_counter() - progress.started
    if not hosts.is_first():
        return {}
    return run_directory.write_result(out, evaluation, progress.steps, progress.seconds, progress.compile_seconds, wall)


def final_evaluation(key: Any, settings: Any, actor: Any) -> tuple[Any, float]:
    """The final evaluation, and the seconds that its compilation took."""
    import jax

    from jaxrl.cli import compilation
    from jaxrl.evaluation import evaluate

    def play(key, actor):
        return evaluate(key, settings.agent, actor, settings.env, num_episodes=settings.options["episodes"])

    compiled, seconds = compilation.timed(lambda: jax.jit(play).lower(key, actor).compile())
    return jax.device_get(compiled(key, actor)), seconds


def interrupt_again(received: list[int]) -> None:
    """The first signal ends the run after its chunk, the second one at once."""
    if len(received) > 1:
        raise KeyboardInterrupt
