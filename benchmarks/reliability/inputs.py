"""Counts bad input that is refused: malformed environments, command lines and configurations; and good environments.

    python benchmarks/reliability/inputs.py          # all; exit status 1 if one is not treated as it must be
    python benchmarks/reliability/inputs.py --quick  # every third
    python benchmarks/reliability/inputs.py --write  # docs/reliability/inputs.md

A malformed environment is refused when `check_env` says what is wrong with it, a line of less than 400 letters for each
problem, and the phrase that belongs to it is in one of them. A command line is refused when it ends with exit status 2
and one line on stderr with the phrase that belongs to it. A good environment is one of which `check_env` finds nothing.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import pathlib
import sys
import tempfile

import command_lines

ROOT = pathlib.Path(__file__).parent.parent.parent
TESTS = ROOT / "tests"


def malformed() -> dict:
    """The malformed environments of the tests: name -> (factory, phrase)."""
    spec = importlib.util.spec_from_file_location("malformed", TESTS / "envs" / "malformed.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASES


def accuse(make, phrase: str) -> str:
    """Why `check_env` did not treat a malformed environment as it must; "" if it did."""
    from jaxrl.envs.check import problems

    found = problems(make(), num_steps=40)
    if any("\n" in line or len(line) >= 400 for line in found):
        return f"not a line: {found}"
    return "" if any(phrase in line for line in found) else f"said {found}, must say {phrase!r}"


def refuse(command: str, says: str) -> str:
    """Why a bad command line was not treated as it must be; "" if it was."""
    from jaxrl.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(command.split())
        except SystemExit as end:
            status = end.code
        except Exception as error:  # noqa: BLE001  it would be a traceback
            return f"{type(error).__name__}: {error}"
    text = err.getvalue()
    if status != 2 or text.count("\n") != 1 or not text.startswith("jaxrl: ") or "Traceback" in text + out.getvalue():
        return f"exit status {status}, said {text!r}"
    return "" if says in text else f"said {text!r}, must say {says!r}"


def accept(name: str) -> str:
    """What `check_env` finds in an environment of jaxrl."""
    from jaxrl import envs
    from jaxrl.envs.check import problems

    return "; ".join(problems(envs.make(name), num_steps=40))


def run(every: int = 1) -> dict[str, dict[str, str]]:
    """What went wrong, by kind and name; "" where nothing did."""
    from jaxrl import envs
    from jaxrl.envs.registry import TABLE

    good = [n for n in envs.names() if TABLE[n][0] == "jaxrl.envs.gymnax" and not n.startswith("MNIST")]  # it fetches
    results = {
        "malformed environments": {k: accuse(*case) for k, case in list(malformed().items())[::every]},
        "gymnax's environments": {name: accept(name) for name in good[::every]},
    }
    with tempfile.TemporaryDirectory() as place:
        command_lines.make_folder(pathlib.Path(place))
        os.chdir(place)
        sys.path[:0] = [place, str(TESTS)]
        results["command lines and configurations"] = {
            c or "(nothing)": refuse(c, says) for c, says in list(command_lines.BAD.items())[::every]
        }
        os.chdir(ROOT)
    return results


def table(results: dict[str, dict[str, str]]) -> str:
    verdict = {"gymnax's environments": "accepted"}
    lines = ["| what | tried | as it must be | |", "|---|---|---|---|"]
    for kind, found in results.items():
        good = sum(not problem for problem in found.values())
        lines.append(f"| {kind} | {len(found)} | {good} | {verdict.get(kind, 'refused, a clear line each')} |")
    wrong = [(kind, name, problem) for kind, found in results.items() for name, problem in found.items() if problem]
    if wrong:
        lines += [
            "",
            "| not as it must be | |",
            "|---|---|",
            *(f"| {name} | {problem[:300]} |" for _, name, problem in wrong),
        ]
    return "\n".join(lines)


def page(results: dict[str, dict[str, str]]) -> str:
    import jax

    return (
        "# Bad input\n\nMalformed environments (tests/envs/malformed.py) were given to `check_env`, bad command lines "
        "and edited configurations (benchmarks/reliability/command_lines.py) to the command line; every environment of "
        f"gymnax that needs no download must pass. {os.cpu_count()} CPU cores, jax {jax.__version__}. Made by `python "
        f"benchmarks/reliability/inputs.py --write`.\n\n{table(results)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results = run(3 if options.quick else 1)
    print(table(results))
    if options.write:
        path = ROOT / "docs" / "reliability" / "inputs.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(page(results))
    return int(any(problem for found in results.values() for problem in found.values()))


if __name__ == "__main__":
    sys.exit(main())
