"""Plants one bug at a time in a copy of the library and asks which test bites.

    python benchmarks/reliability/mutations.py            # all; prints a table, exit status 1 if a bug survives
    python benchmarks/reliability/mutations.py advantage  # those whose name contains the word

Every row is one edit of one line, the kind of mistake that a learning curve does not show, and the named test that is
to catch it. A row whose text is no longer in the source is an error: the table must be kept true.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from planted import MUTATIONS, Mutation
from planted_hierarchy import HIERARCHIES
from planted_multi_agent import MANY
from planted_skills import SKILLS
from planted_survival import SURVIVAL

ROOT = pathlib.Path(__file__).parent.parent.parent


def plant(mutation: Mutation, folder: pathlib.Path) -> None:
    """A copy of the library in `folder` with the bug in it. The copy shadows the installed one on PYTHONPATH.

    Raises:
      ValueError: if the text is not in the file exactly once.
    """
    for part in ("jaxrl", "envs", "tests", "benchmarks"):  # some tests run a bounded part of a benchmark
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "jaxrl" / "envs").symlink_to(folder / "envs")
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / mutation.file
    source = path.read_text()
    if source.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: the text is {source.count(mutation.old)} times in {mutation.file}, not once"
        )
    path.write_text(source.replace(mutation.old, mutation.new))


def bites(mutation: Mutation) -> tuple[bool, float, str]:
    """Whether the named test fails, the seconds that it took, and the line of the failure."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plant(mutation, folder)
        environment = os.environ | {"PYTHONPATH": name}
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
        command = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider", "--tb=line", mutation.test]
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutation.name}: pytest could not run\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return done.returncode == 1, time.perf_counter() - begin, lines[0].partition(" - ")[0][7:] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only bugs whose name contains one of these")
    words = parser.parse_args().words
    planted = MUTATIONS + SURVIVAL + HIERARCHIES + SKILLS + MANY
    chosen = [m for m in planted if not words or any(word in m.name for word in words)]
    print("| planted bug | in | caught | by | s |\n|---|---|---|---|---|")
    survivors = 0
    for mutation in chosen:
        caught, seconds, test = bites(mutation)
        survivors += not caught
        by = test or mutation.test
        print(f"| {mutation.name} | {mutation.file} | {'yes' if caught else 'NO'} | {by} | {seconds:.0f} |", flush=True)
    print(f"\n{len(chosen) - survivors} of {len(chosen)} caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
