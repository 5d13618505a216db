"""The host's part of a sweep: members as they end, rungs, signals, and the tables at the end."""

from __future__ import annotations

import functools
import os
import pathlib
import signal
import sys
import time
from typing import Any, Callable, Iterator

from jaxrl.cli import signals, sweep_programs, sweep_report
from jaxrl.cli.errors import bad_input
from jaxrl.cli.sweep_results import STATES, Journal, load_state, ranking, save_state, state_path

Member = tuple[int, int]  # setting, seed
Say = Callable[[str], None]


def train(sweep: Any, out: pathlib.Path, started: float) -> int:
    """Trains what is not finished; returns the exit status."""
    say = functools.partial(print, flush=True) if not sweep.options["quiet"] else lambda *_: None
    steps: list[list[int]] = [[]] * len(sweep.settings)
    for group, runs in zip(sweep.groups, sweep.runs):
        for i in group.members:
            steps[i] = [end * runs.unit for end in runs.ends]
    journal = Journal(out, sweep.settings, steps, sweep.seeds)
    journal.read(parts=len(sweep.finalists) > 1)
    for line in sweep_report.introduction(sweep, journal, out):
        say(line)
    left: list[list[int]] = []
    with signals.collected(wait_or_stop) as received:
        for rung, number in enumerate(sweep.finalists):
            left.append(kept(journal, left[-1], rung, number) if left else list(range(number)))
            train_rung(sweep, journal, left[-1], rung, say, received)
            journal.write()
            if received:
                sent, done = signal.Signals(received[0]).name, len(journal.rows)
                print(f"jaxrl: stopped by {sent}; {done} members are in {out}: --resume goes on", file=sys.stderr)
                return 128 + received[0]
    for path in (out / STATES).iterdir():  # of members that a kill left with two of them
        path.unlink()
    rows = ranking(journal, left)
    sweep_report.write_ranking(out, rows)
    for line in sweep_report.table(sweep, rows, time.perf_counter() - started):
        say(line)
    return 0


def kept(journal: Journal, alive: list[int], rung: int, number: int) -> list[int]:
    """The settings that go on to a rung; states of the others are removed."""
    from jaxrl.sweeps import ranking as order

    best = sorted(alive[at] for at in order(journal.returns(alive, rung - 1))[:number])
    for i in set(alive) - set(best):
        for seed in journal.seeds:
            state_path(journal.out, (i, seed), rung - 1).unlink(missing_ok=True)
    return best


def train_rung(sweep: Any, journal: Journal, alive: list[int], rung: int, say: Say, received: list[int]) -> None:
    """Trains the members of some settings up to a rung, or whole where there is one rung only."""
    halving = len(sweep.finalists) > 1
    wanted = rung + 1 if halving else len(journal.steps[0])
    jobs = []
    for group, runs in zip(sweep.groups, sweep.runs):
        members = [(i, s) for i in group.members if i in alive for s in sweep.seeds if journal.done((i, s)) < wanted]
        if not members or received:
            continue
        function = runs.whole if not halving else runs.then if rung else runs.first
        name = sweep_programs.label(sweep.names, group)
        planned = sweep_programs.planned(runs, function, len(members), sweep.options["layout"], name)
        say(f"{name}: {len(members)} members, {planned}; compiled in {planned.seconds:.1f} s")
        jobs.append((group, runs, members, function, planned, name))
    progress = sweep_report.Progress(journal, sum(len(job[2]) for job in jobs), say)
    for group, runs, members, function, planned, name in jobs:
        arguments = arguments_of(sweep, journal, group, runs, function, rung)
        part = sweep_programs.shared(runs, function, rung)
        with bad_input(_out_of_memory(), what=name):
            for chosen, found, seconds in _finished(planned, members, arguments, part, received):
                for member, result in zip(chosen, found):
                    take(journal, member, result, halving, rung, seconds / len(chosen), planned.seconds)
                    progress.add(member, 1 if halving else wanted)


def take(
    journal: Journal, member: Member, result: Any, halving: bool, rung: int, seconds: float, compiled: float
) -> None:
    """What a member's call has returned goes to disk: first its state, so that its rows are never without it."""
    if not halving:
        number = len(result["return"])
        journal.add(member, [{k: v[i] for k, v in result.items()} for i in range(number)], seconds, compiled)
        return
    state, result = result
    if rung + 1 < len(journal.steps[member[0]]):
        save_state(journal.out, member, rung, state)
    journal.add(member, [result], seconds, compiled)
    state_path(journal.out, member, rung - 1).unlink(missing_ok=True)


def arguments_of(sweep: Any, journal: Journal, group: Any, runs: Any, function: Any, rung: int) -> Callable:
    """(members) -> the arguments of their call."""
    if function is not runs.then:
        return sweep_programs.beginnings(group, sweep.seeds)
    from jaxrl.halving import stacked

    shapes = runs.shapes[1][0]

    def arguments(chosen: list[Member]) -> tuple:
        return stacked({member: load_state(journal.out, member, rung - 1, shapes) for member in chosen}, chosen)

    return arguments


def _finished(planned: Any, members: list, arguments: Callable, part: tuple, received: list[int]) -> Iterator:
    from jaxrl.sweeps import finished

    return finished(planned, members, arguments, part, stop=lambda: bool(received))


def _out_of_memory() -> type[Exception]:
    import jax

    return jax.errors.JaxRuntimeError


def wait_or_stop(received: list[int]) -> None:
    """After the first Ctrl-C members that run may end; a second one and SIGTERM end the process.

    All finished members are on disk at any time, and a member that runs cannot be interrupted.
    """
    if received[-1] == signal.SIGTERM or len(received) > 1:
        os.write(2, b"jaxrl: stopped; --resume goes on with the members that are finished\n")
        os._exit(128 + received[-1])
    os.write(2, b"jaxrl: waiting for members that run; Ctrl-C again to stop now\n")
