"""Two processes and one folder of checkpoints: a second writer is refused, a reader beside a writer is always right.

python benchmarks/reliability/writers.py       # --quick: fewer; --write: docs/reliability/writers.md
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pages

from jaxrl.checkpoints import Checkpoints, open_readonly


def state(step):
    return {"w": np.random.default_rng(step).normal(size=20_000), "step": np.int64(step)}


def right(restored):
    """Whether a restored state is, to the bit, the one that was saved at its step."""
    return all(np.array_equal(restored.state[k], v) for k, v in state(restored.step).items())


def child(task, folder, *arguments):
    command = [sys.executable, __file__, "--child", task, str(folder), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hold(folder):
    """Opens the folder, says whether it could, and keeps it until it is told to end."""
    try:
        with Checkpoints(folder, say=lambda line: None):
            print("open", flush=True)
            sys.stdin.readline()
    except ValueError as error:
        print(f"refused: {error}", flush=True)
        sys.stdin.readline()


def write(folder, count):
    """Saves steps 1 .. count, of which one is kept, and says each."""
    with Checkpoints(folder, keep=1, keep_best=0, say=lambda line: print(line, flush=True)) as checkpoints:
        for step in range(1, int(count) + 1):
            checkpoints.save(step, state(step))


def end(process, line="\n"):
    process.communicate(line, timeout=60)


def refused(folder, count):
    """A process holds the folder: how often another is refused, in one line with the process's number."""
    holder = child("hold", folder)
    assert holder.stdout.readline() == "open\n"
    found = 0
    for _ in range(count):
        try:
            Checkpoints(folder, say=lambda line: None).close()
        except ValueError as error:
            found += str(holder.pid) in str(error) and "\n" not in str(error)
    holder.kill()
    holder.wait()
    with Checkpoints(folder, say=lambda line: None):
        return found, "yes"  # the lock of a killed process is nobody's


def races(folder, count):
    """Three processes open the folder at once: how often exactly one may write."""
    found = 0
    for i in range(count):
        running = [child("hold", folder / str(i)) for _ in range(3)]
        said = [process.stdout.readline() for process in running]
        found += said.count("open\n") == 1 and sum(line.startswith("refused: ") for line in said) == 2
        for process in running:
            end(process)
    return found


def beside(folder, count):
    """A process saves `count` steps and keeps one; meanwhile we restore: how often, and how often rightly."""
    writer, tried, good, steps = child("write", folder, count), 0, 0, set()
    said = writer.stdout.readline()
    while writer.poll() is None:
        try:
            restored = open_readonly(folder, lambda line: None).restore(state(0))
            good += right(restored)
            steps.add(restored.step)
        except Exception as error:
            print(f"reader: {type(error).__name__}: {error}", file=sys.stderr)
        tried += 1
    said += writer.communicate(timeout=60)[0]
    return tried, good, len(steps), said.count(" saved\n")


def measure(quick=False):
    """Rows of the table, and the promises that are broken."""
    num_tries, num_races, num_saves = (5, 1, 8) if quick else (200, 10, 200)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        refusals, freed = refused(folder / "held", num_tries)
        won = races(folder / "races", num_races)
        tried, good, steps, saved = beside(folder / "beside", num_saves)
    rows = [
        {
            "what": "second writer refused, in one line with the process of the first",
            "of": num_tries,
            "right": refusals,
        },
        {"what": "opened once the first had been killed", "of": 1, "right": int(freed == "yes")},
        {"what": "of three that open at once, exactly one writes", "of": num_races, "right": won},
        {"what": "steps saved while another process reads", "of": num_saves, "right": saved},
        {"what": "restored while another process saves and removes, to the bit", "of": tried, "right": good},
    ]
    broken = [f"{row['what']}: {row['right']} of {row['of']}" for row in rows if row["right"] != row["of"]]
    return rows, broken + ([] if steps > 1 else ["the reader saw one step only"])


def main():
    if "--child" in sys.argv:
        task, folder, *arguments = sys.argv[sys.argv.index("--child") + 1 :]
        return {"hold": hold, "write": write}[task](pathlib.Path(folder), *arguments)
    options = pages.arguments(__doc__)
    rows, broken = measure(options.quick)
    done = "Processes that open one folder of checkpoints at once, and one that reads while another writes."
    return pages.finish("writers", "Two processes, one folder", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
