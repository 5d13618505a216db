"""How a soak is judged: what grows is found, what only moves is not."""

import mmap
import os
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"))

import soak  # noqa: E402


def result(memory_an_hour=0.0, files_an_hour=0.0, threads_an_hour=0.0, disk_an_hour=0.0, **changes):
    """Half an hour, every 2 seconds; a copy of 20 MB is held during each save, and memory moves by 0.2 MB."""
    random = np.random.default_rng(0)
    samples = []
    for second in range(0, 1800, 2):
        hours = second / 3600
        memory = 500 + memory_an_hour * hours + 20 * (second % 20 < 4) + 0.2 * random.normal()
        counts = {"files": 15, "threads": 30 + second % 3, "disk": 4.0}
        growth = {"files": files_an_hour, "threads": threads_an_hour, "disk": disk_an_hour}
        grown = {name: counts[name] + growth[name] * hours for name in counts}
        samples.append({"time": float(second), "rss": memory + 100, "anonymous": memory, **grown})
    good = {"agent": "ppo", "samples": samples, "status": 143, "said": "", "checkpoints": [50, 100], "chunks": 2}
    return good | {"steps": 100} | changes


def test_what_does_not_grow():
    row, wrong = soak.judge(result())
    assert wrong == []
    assert abs(float(row["slope after warm-up, MB/h"].split()[0])) < 1


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(memory_an_hour=5.0), "memory grows by"),
        (dict(files_an_hour=40.0), "files grow"),
        (dict(threads_an_hour=40.0), "threads grow"),
        (dict(disk_an_hour=100.0), "disk grow"),
        (dict(status=1, said="no memory"), "exit status 1: no memory"),
        (dict(checkpoints=[50]), "end before step 100"),
        (dict(checkpoints=[]), "end before step 100"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    (problem,) = soak.judge(result(**changes))[1]
    assert message in problem


def test_the_slope_is_measured():
    rate, error = soak.slope(result(memory_an_hour=12.0)["samples"])
    assert abs(rate - 12.0) < 1.0 and 0 < error < 0.5


def test_a_process_is_sampled(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(bytes(2**20))
    before = soak.sample(os.getpid(), tmp_path)
    kept = mmap.mmap(-1, 2**26, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # 64 MB that were not there before
    for page in range(0, len(kept), 4096):
        kept[page] = 1
    with open(__file__, encoding="utf-8"):
        after = soak.sample(os.getpid(), tmp_path)
    assert after["anonymous"] - before["anonymous"] > 50
    assert after["files"] == before["files"] + 1 and before["threads"] >= 1
    assert before["disk"] >= 1
