"""The directory of a sweep: its flags, sweep.json, one writer, and going on."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
from typing import Any, Iterator

from jaxrl.cli.errors import BadInput, bad_input
from jaxrl.cli.sweep_results import FILES, STATES

OWN = ("--seeds", "--seed", "--random", "--evaluations", "--halving", "--layout", "--out", "--overwrite", "--quiet")
ON_RESUME = ("--quiet", "--layout")  # that do not change results


def read_options(given: dict[str, list[str]]) -> dict[str, Any]:
    """The values of the sweep's own flags.

    Raises:
      BadInput: if one is not of its type or outside of its range.
    """
    from jaxrl.cli.flags import Flag, parse
    from jaxrl.sweeps import LAYOUTS

    flags = [
        Flag("seeds", int, 4, "runs of each setting"),
        Flag("seed", int, 0, "the first seed, and that of --random"),
        Flag("random", int, 0, "settings to draw; 0: all combinations"),
        Flag("evaluations", int, 10, "along each run"),
        Flag("halving", int, 0, "ratio of successive halving; 0: all settings are trained to the end"),
        Flag("layout", str, "auto", "auto, vmap or threads"),
        Flag("out", str, "", "directory; default runs/sweep-AGENT-ENV-TIME"),
        Flag("overwrite", bool, False, "replace the sweep in --out"),
        Flag("quiet", bool, False, "print errors only"),
    ]
    argv = [token for flag in OWN if flag in given for token in (flag, *given[flag])]
    options = parse(flags, argv, "jaxrl sweep", "")
    for name, low in (("seeds", 1), ("evaluations", 1), ("random", 0)):
        if options[name] < low:
            raise BadInput(f"--{name} is {options[name]}, must be >= {low}")
    if options["halving"] and options["halving"] < 2:
        raise BadInput(f"--halving is {options['halving']}, must be >= 2")
    if options["halving"] and "--evaluations" in given:
        raise BadInput("--halving evaluates at its rungs: leave --evaluations out")
    if not 0 <= options["seed"] <= 2**32 - options["seeds"]:
        raise BadInput(f"--seed is {options['seed']}, must be in [0, 2**32 - seeds]")
    if options["layout"] not in LAYOUTS:
        raise BadInput(f"--layout is {options['layout']!r}, must be one of {', '.join(LAYOUTS)}")
    return options


def content(sweep: Any) -> dict[str, Any]:
    """What decides the results of a sweep, as strict JSON; what is resumed must agree with it."""
    from jaxrl.cli.run_directory import description, settings_json

    groups = [
        {"settings": group.members, "ends": runs.ends, **description(group.settings)}
        for group, runs in zip(sweep.groups, sweep.runs)
    ]
    return settings_json({"settings": sweep.settings, "seeds": sweep.seeds, "groups": groups})


def create(sweep: Any, names: list[str], given: dict[str, list[str]], content: dict[str, Any]) -> pathlib.Path:
    """Makes the directory with its sweep.json.

    Raises:
      BadInput: if it exists and is not to be overwritten, or cannot be made.
    """
    from jaxrl.cli import run_directory
    from jaxrl.policy_file import write_atomically

    options = sweep.options
    out = pathlib.Path(options["out"]) if options["out"] else run_directory.unused(f"sweep-{'-'.join(names)}")
    if out.exists():
        if not options["overwrite"]:
            raise BadInput(f"--out {out} exists; choose another, add --overwrite, or go on with --resume {out}")
        strangers = [p.name for p in out.iterdir() if not _is_ours(p)] if out.is_dir() else [out.name]
        if strangers:
            raise BadInput(f"--out {out} is not a sweep (it has {strangers[0]}); it will not be overwritten")
    command = {flag: words for flag, words in given.items() if flag not in ("--out", "--overwrite", "--quiet")}
    head = {"names": names, "flags": command, "versions": run_directory.versions(), "device": run_directory.devices()}
    with bad_input(OSError, what=f"--out {out}"):
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            for path in out.iterdir():
                if path.name != "jaxrl.lock" and path.name != STATES:
                    path.unlink()
            (out / STATES).mkdir(exist_ok=True)
            for path in (out / STATES).iterdir():
                path.unlink()
            write_atomically(out / "sweep.json", run_directory.json_bytes({**head, **content}))
    return out


def resumed(names: list[str], given: dict[str, list[str]]) -> tuple[pathlib.Path, list[str], dict[str, list[str]]]:
    """Directory, names and flags of the sweep that `--resume DIR` goes on with.

    Raises:
      BadInput: if it is not one, or flags or names would change it.
    """
    out = pathlib.Path(" ".join(given["--resume"]))
    wrong = [flag for flag in given if flag not in ("--resume", *ON_RESUME)]
    if wrong:
        raise BadInput(f"--resume goes on with the settings of {out}, which {wrong[0]} would change")
    saved = read(out)
    if names and names != saved["names"]:
        raise BadInput(f"{out}: a sweep of {' '.join(saved['names'])}, not of {' '.join(names)}")
    if not names and any(":" in name for name in saved["names"][1:]):
        # A file must not choose code to run: MODULE:NAME could be any function of any module.
        again = f"jaxrl sweep {' '.join(saved['names'])} --resume {out}"
        raise BadInput(f"{out}: its environment is code: give it again, as in {again}")
    return out, saved["names"], {**saved["flags"], **{k: v for k, v in given.items() if k != "--resume"}}


def read(out: pathlib.Path) -> dict[str, Any]:
    """sweep.json.

    Raises:
      BadInput: if it is not one.
    """
    from jaxrl.untrusted import read_json_file

    with bad_input(ValueError, OSError):
        saved = read_json_file(out / "sweep.json")
    texts = lambda x: isinstance(x, list) and all(isinstance(y, str) for y in x)  # noqa: E731
    flags = saved.get("flags") if isinstance(saved, dict) else None
    good = isinstance(flags, dict) and texts(saved.get("names")) and all(map(texts, flags.values()))
    if not good or any(not name.startswith("--") for name in flags) or "--resume" in flags:
        raise BadInput(f"{out / 'sweep.json'}: is not of a sweep")
    return saved


def check_same(out: pathlib.Path, content: dict[str, Any]) -> None:
    """Raises BadInput if the sweep in `out` would now be another one, as with another version of jaxrl."""
    saved = read(out)
    for name, value in content.items():
        if saved.get(name) != value:
            written = saved.get("versions", {}).get("jaxrl") if isinstance(saved.get("versions"), dict) else None
            raise BadInput(f"{out}: its {name} are not what they are here: written by jaxrl {str(written)[:30]}")


@contextlib.contextmanager
def locked(out: pathlib.Path) -> Iterator[None]:
    """One writer; what a killed one left half-written is removed.

    Raises:
      BadInput: if another process is writing there.
    """
    from jaxrl.checkpoints import lock
    from jaxrl.cli.saving import warn

    with bad_input(ValueError, OSError):
        held = lock.acquire(out, warn)
    try:
        for path in (*out.glob(".*.tmp"), *out.glob(f"{STATES}/.*.tmp")):
            path.unlink(missing_ok=True)
        yield
    finally:
        os.close(held)


def _is_ours(path: pathlib.Path) -> bool:
    return path.name in FILES or re.fullmatch(r"\.[\w.-]+\.\d+\.tmp", path.name) is not None
