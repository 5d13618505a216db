"""What `import jaxrl` costs over importing jax and flax, and what a command costs before it does anything.

    python benchmarks/import_time.py

Seconds of a fresh interpreter, the best of several (others' load only ever adds); the interpreter's own start is
subtracted.
"""

import subprocess
import sys
import time

REPEATS = 9
ROWS = [
    ("jax, flax", "import jax, flax"),
    ("jax, flax, jaxrl", "import jax, flax, jaxrl"),
    ("jax, flax, jaxrl and every name of it", "import jax, flax; from jaxrl import *"),
    ("jaxrl --help", "from jaxrl.cli import main; main(['--help'])"),
    ("jaxrl list agents", "from jaxrl.cli import main; main(['list', 'agents'])"),
    ("jaxrl list envs", "from jaxrl.cli import main; main(['list', 'envs'])"),
]


def seconds(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    codes = ["pass", *(code for _, code in ROWS)]
    times = [[seconds(code) for code in codes] for _ in range(REPEATS + 1)][1:]  # the first warms the disk
    start, *best = (min(column) for column in zip(*times))
    print(f"{'':40}{'seconds':>8}")
    for (name, _), time_ in zip(ROWS, best):
        print(f"{name:40}{time_ - start:8.2f}")
    print(f"\nimport jaxrl over jax and flax: {best[1] - best[0]:.2f} s")


if __name__ == "__main__":
    main()
