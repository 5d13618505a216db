"""Hands hostile files to the command line: nothing in one may run, hang, fill the memory, or end in a traceback.

    python benchmarks/reliability/hostile.py            # a process for each kind of file; exit status 1 if one works
    python benchmarks/reliability/hostile.py --apart    # a process for each payload
    python benchmarks/reliability/hostile.py --quick    # one process for all
    python benchmarks/reliability/hostile.py --only zip # those whose name contains the word
    python benchmarks/reliability/hostile.py --write    # docs/reliability/hostile.md

A payload is refused when the exit status is 2, with one line on stderr, within the time and memory below. That nothing
ran is seen twice: by a trap, a file that every payload with code in it makes, and by an audit hook of the interpreter,
which sees what unpickles, starts a process, opens a connection, or imports a module from the folder of the payload.
"""

import argparse
import itertools
import json
import os
import pathlib
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, NamedTuple

import payloads

ROOT = pathlib.Path(__file__).parent.parent.parent
SECONDS, GIBIBYTES = 60, 2  # of one payload
EVENTS = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")
EVIL = "open('trap', 'w')\ndef run(*args, **kwargs): raise SystemExit('ran')\n"


class Outcome(NamedTuple):
    """What a payload did: `problems` is empty where it was refused as it must be."""

    name: str
    line: str
    seconds: float
    gibibytes: float
    problems: list[str]


def judge(name: str, status: Any, text: str, seconds: float, growth: float, events: list[str], trap: bool) -> Outcome:
    """Whether a payload was refused as it must be."""
    problems = [f"saw {event}" for event in dict.fromkeys(events)]
    if trap:
        problems.append("it ran")
    if status != 2:
        problems.append(f"exit status {status}")
    if text.count("\n") != 1 or not text.startswith("jaxrl: "):
        problems.append(f"{text.count(chr(10))} lines on stderr")
    if "Traceback" in text:
        problems.append("a traceback")
    if not all(c.isprintable() for c in text.rstrip("\n")):
        problems.append("escapes on stderr")
    if seconds > SECONDS:
        problems.append(f"more than {SECONDS} s")
    if growth > GIBIBYTES:
        problems.append(f"{growth:.1f} GiB")
    return Outcome(name, text.strip(), seconds, growth, problems)


def attempt(name: str, folder: pathlib.Path, base: pathlib.Path, events: list[str]) -> Outcome:
    """Makes a payload and reads it, in this process."""
    from jaxrl.cli import main

    folder.mkdir()
    os.chdir(folder)
    (folder / "evil_module.py").write_text(EVIL)
    sys.path_importer_cache.clear()
    argv = payloads.PAYLOADS[name](folder, base)
    (folder / "trap").unlink(missing_ok=True)
    events.clear()
    path, said, before, started = list(sys.path), folder / "stderr", peak(), time.perf_counter()
    kept = os.dup(2)
    with open(said, "wb") as file:
        os.dup2(file.fileno(), 2)  # also what a C library prints
    signal.alarm(SECONDS)
    try:
        status = command(main, [str(a) for a in argv])
    except SystemExit as end:
        status = end.code
    except TimeoutError:
        status = "none, it hangs"
    except BaseException as error:  # noqa: BLE001  what would be a traceback
        status = f"{type(error).__name__}: {error}"[:100]
    finally:
        signal.alarm(0)
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
    sys.path[:] = path
    seen = list(events)
    text = said.read_text(errors="replace")
    trap = (folder / "trap").exists() or sys.modules.pop("evil_module", None) is not None
    return judge(name, status, text, time.perf_counter() - started, peak() - before, seen, trap)


def command(main: Any, argv: list[str]) -> Any:
    """The command line, and `restore FOLDER` for what a program does."""
    if argv[0] != "restore":
        return main(argv)
    try:
        payloads.restore(argv[1])
    except ValueError as error:
        print(f"jaxrl: {error}", file=sys.stderr)
        return 2
    return 0


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def work(names: list[str], base: pathlib.Path, out: pathlib.Path) -> None:
    """The body of a worker: a line of JSON for each payload."""
    events: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in EVENTS:
            events.append(event)

    def hung(number: int, frame: Any) -> None:
        raise TimeoutError

    sys.addaudithook(hook)
    signal.signal(signal.SIGALRM, hung)
    import jax  # noqa: F401  what importing it does is no payload's

    with tempfile.TemporaryDirectory() as place:
        for i, name in enumerate(names):
            outcome = attempt(name, pathlib.Path(place) / str(i), base, events)
            with open(out, "a") as file:
                file.write(json.dumps(outcome._asdict()) + "\n")
        os.chdir(ROOT)


def outcomes(names: list[str], kind: Callable[[str], str]) -> list[Outcome]:
    """What became of payloads; those of one kind are read by one process."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        base, out = pathlib.Path(place) / "base", pathlib.Path(place) / "out"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        payloads.make_base(base)
        for _, members in itertools.groupby(names, kind):
            group = list(members)
            out.unlink(missing_ok=True)
            command = [sys.executable, __file__, "--worker", str(base), str(out), *group]
            try:
                done = subprocess.run(
                    command, env=environment, capture_output=True, text=True, timeout=2 * SECONDS + 5 * len(group)
                )
                last = (done.stderr.strip().splitlines() or [""])[-1]
                reason = f"the process ended with {done.returncode}: {last}"
            except subprocess.TimeoutExpired:
                reason = "the process hangs"
            lines = out.read_text().splitlines() if out.exists() else []
            found += [Outcome(**json.loads(line)) for line in lines]
            if len(lines) < len(group):
                found.append(Outcome(group[len(lines)], "", 0.0, 0.0, [reason]))
                found += outcomes(group[len(lines) + 1 :], kind) if group[len(lines) + 1 :] else []
    return found


def kind_of(name: str) -> str:
    """What a payload is read as."""
    return name.partition(":")[0]


def together(name: str) -> str:
    """One kind for all."""
    return ""


def table(found: list[Outcome]) -> str:
    """Counts by kind of file, then a row for each payload."""
    kinds = list(dict.fromkeys(kind_of(outcome.name) for outcome in found))
    lines = [
        "| read as | payloads | refused in a line, status 2 | executed | hangs | slowest [s] | most memory [MiB] |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for kind in [*kinds, "all"]:
        rows = [o for o in found if kind in ("all", kind_of(o.name))]
        ran = sum(any("ran" in p or "saw" in p for p in o.problems) for o in rows)
        hung = sum(any("hangs" in p or p.startswith("more than") for p in o.problems) for o in rows)
        good, slowest = sum(not o.problems for o in rows), max(o.seconds for o in rows)
        most = max(o.gibibytes for o in rows) * 1024
        lines.append(f"| {kind} | {len(rows)} | {good} | {ran} | {hung} | {slowest:.1f} | {most:.0f} |")
    lines += ["", "| payload | what is said |", "|---|---|"]
    for o in found:
        said = "**" + "; ".join(o.problems) + "** " if o.problems else ""
        text = re.sub(r"/tmp/\S*/", "", o.line.removeprefix("jaxrl: "))
        lines.append(f"| {o.name} | {said}{text[:160].replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


HOW = {together: "one process", kind_of: "a process for each kind of file", str: "a process each"}


def page(found: list[Outcome], how: str) -> str:
    import jax

    machine = f"{os.cpu_count()} CPU cores, jax {jax.__version__}, Python {platform.python_version()}"
    return (
        f"# Hostile files\n\nEach of {len(found)} payloads was handed to the command line, in {how} "
        f"({machine}; at most {SECONDS} s and {GIBIBYTES} GiB each). Nothing in one may run: a trap that every "
        "payload with code in it sets, and an audit hook of the interpreter, say whether something did. Made by "
        f"`python benchmarks/reliability/hostile.py {'--quick ' * (how == HOW[together])}--write`.\n\n{table(found)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    kind = together if options.quick else str if options.apart else kind_of
    found = outcomes([name for name in payloads.PAYLOADS if options.only in name], kind)
    print(table(found))
    if options.write:
        path = ROOT / "docs" / "reliability" / "hostile.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(found, HOW[kind]))
    return int(any(outcome.problems for outcome in found))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[4:], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        sys.exit(main())
