"""`--profile FOLDER`: a trace of one chunk of updates, and where its time went."""

from __future__ import annotations

import collections
import pathlib
import re
from typing import Any, Callable

from jaxrl.cli.errors import bad_input

# Scopes of the loop (`jax.named_scope`); an operation belongs to the innermost one that it is in.
SCOPES = {
    "environment": "steps and resets",
    "forward": "the policy that acts",
    "learning": "observe and update, less what is below",
    "shuffle": "minibatches",
    "replay": "adding to the buffer and sampling",
}
OTHER = "other"
CONTAINERS = ("while", "conditional", "call", "tuple", "parameter")  # what is inside of them is counted by itself
INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (?:\((?:[^()]|\([^()]*\))*\)|\S+) ([a-z][\w-]*)\(")
OP_NAME = re.compile(r'op_name="([^"]*)"')


def record(call: Callable[[], Any], folder: str) -> tuple[Any, float]:
    """call() and its seconds, with a trace of it in the folder, which TensorBoard and Perfetto open."""
    import jax

    from jaxrl.cli.compilation import timed

    with bad_input(OSError, RuntimeError, what=f"--profile {folder}"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        with jax.profiler.trace(folder):
            return timed(call)


def scopes(program: str) -> dict[str, str]:
    """The scope of each instruction of a compiled program, by name.

    Args:
      program: its text, as from `compiled.as_text()`.
    """
    found = {}
    for line in program.splitlines():
        match = INSTRUCTION.match(line)
        if match and match[2] not in CONTAINERS:
            path = OP_NAME.search(line)
            inside = [part for part in re.split(r"[/()]", path[1]) if part in SCOPES] if path else []
            found[match[1]] = inside[-1] if inside else OTHER
    return found


def seconds(folder: str, program: str) -> dict[str, float]:
    """Seconds of all threads (or of the device) in the instructions of a program, by scope, from the newest trace."""
    from jax.profiler import ProfileData

    where, spent = scopes(program), collections.Counter(dict.fromkeys([*SCOPES, OTHER], 0.0))
    traces = sorted(pathlib.Path(folder).rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    for plane in ProfileData.from_file(str(traces[-1])).planes if traces else ():
        for event in (event for line in plane.lines for event in line.events):
            name = event.name if event.name in where else dict(event.stats).get("hlo_op")
            if name in where:
                spent[where[name]] += event.duration_ns / 1e9
    return dict(spent)


def lines(folder: str, program: str, wall: float) -> list[str]:
    """What to print."""
    spent = seconds(folder, program)
    total = sum(spent.values())
    if not total:
        return [f"profile: the trace in {folder} has no operations of this program"]
    head = f"profile of one chunk ({wall:.3f} s, {total:.3f} s in operations on all threads), in {folder}"
    shares = sorted(((s, name) for name, s in spent.items() if s), reverse=True)
    return [head, *(f"  {name:12} {s / total:6.1%}  {SCOPES.get(name, '')}".rstrip() for s, name in shares)]
