"""The command line: chunks, rows of metrics, curves, `jaxrl doctor`, `jaxrl check-env`."""

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.cli import doctor, main, report, run_directory
from jaxrl.cli.programs import MOST_UPDATES, plan


@given(st.integers(1, 10**13), st.integers(1, 10**5))
def test_chunks_are_alike_and_cover_the_steps(steps, steps_per_update):
    updates, chunks = plan(steps, steps_per_update)
    needed = -(-steps // steps_per_update)
    assert needed <= updates * chunks < needed + updates
    assert 50 <= chunks if needed >= 50 else (updates, chunks) == (1, needed)
    assert updates <= MOST_UPDATES and (chunks <= 100 or updates > MOST_UPDATES - 1000)


def test_rows_add_sums_average_the_rest_and_have_no_nan():
    metrics = {
        "episode/return_sum": np.array([10.0, 0.0, 5.0]),
        "episode/count": np.array([2.0, 0.0, 1.0]),
        "loss": np.array([1.0, 2.0, 6.0]),
        "bad": np.array([1.0, np.nan, 0.0]),
    }
    row = run_directory.row(metrics, 7, 0.5, 14.0)
    assert row == {
        **{"steps": 7, "seconds": 0.5, "steps_per_second": 14.0},
        **{"episode/return": 5.0, "episode/count": 3.0, "loss": 3.0, "bad": None},
    }
    empty = run_directory.row({k: np.zeros(3) for k in metrics}, 7, 0.5, 14.0)
    assert empty["episode/return"] is None and empty["episode/count"] == 0.0


def test_the_curve_is_drawn_to_scale():
    lines = report.draw([(0, 0.0), (100, 10.0)], width=20, height=5)
    assert len(lines) == 7 and lines[0].startswith("        10 │") and lines[4].startswith("         0 │")
    assert lines[-1].split() == ["0", "100", "steps"]
    heights = [min(row for row in range(5) if lines[row][12 + column] != "⠀") for column in range(20)]
    assert heights == sorted(heights, reverse=True) and heights[0] == 4 and heights[-1] == 0
    flat = report.draw([(0, 3.0), (10, 3.0)], width=8, height=3)
    assert set(flat[1][12:]) != {"⠀"} and set(flat[0][12:]) == {"⠀"}


def test_progress_rewrites_its_line_in_a_terminal(capsys, monkeypatch):
    row = {"steps": 50, "seconds": 2.0, "episode/return": None}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    report.progress(row, 100, 1, 2)
    report.progress({**row, "steps": 100, "seconds": 4.0}, 100, 2, 2)
    text = capsys.readouterr().out
    assert text.count("\r") == 2 and text.count("\n") == 1 and "25 steps/s" in text and "2 s left" in text


def test_doctor_is_content_here_and_says_what_is_missing(capsys, monkeypatch):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for words in ("python", "jax ", "jaxlib", "flax", "cpu", "MUJOCO_GL", "folder", "dev", "All is well."):
        assert words in text
    installed = doctor.installed
    versions = {"optax": None, "jax": "0.99.0", "hypothesis": None}
    monkeypatch.setattr(doctor, "installed", lambda name: versions[name] if name in versions else installed(name))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert re.search(r"bad +optax +missing; pip install 'optax>=", text)
    assert re.search(r"bad +jax +0\.99\.0 is not ", text)
    assert re.search(r"- +dev +missing hypothesis; pip install 'jaxrl\[dev\]'", text)


def test_check_env_says_ok_or_each_problem(folder, capsys):
    (folder / "mine.py").write_text(
        "import jax.numpy as jnp\n"
        "from toys import clock\n"
        "def step(*args):\n"
        "    state, timestep = clock().step(*args)\n"
        "    return state, timestep._replace(reward=jnp.zeros(3), terminated=1.0)\n"
        "bad = clock()._replace(step=step)\n"
    )
    assert main(["check-env", "toys:clock", "--env.length", "2"]) == 0
    assert capsys.readouterr().out == "toys:clock: ok\n"
    assert main(["check-env", "mine:bad"]) == 1
    *problems, last = capsys.readouterr().out.splitlines()
    assert any("reward" in line for line in problems) and any("terminated" in line for line in problems)
    assert last == f"mine:bad: {len(problems)} problems"


@pytest.mark.parametrize(
    ("version", "specifier", "holds"),
    [
        ("0.10.2", ">=0.10,<0.11.1", True),
        ("0.11.1", ">=0.10,<0.11.1", False),
        ("0.9.9", ">=0.10", False),
        ("2.0", ">=2.0.0", True),
        ("3.17.0rc1", "<3.17", False),
        ("1.0", "", True),
        (None, "", False),
        ("1.2", "!=1.2", False),
    ],
)
def test_version_ranges(version, specifier, holds):
    assert doctor.in_range(version, specifier) is holds


def test_doctor_measures_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    (tmp_path / "entry").write_bytes(b"x" * 2_500_000)
    assert doctor.cache() == [("ok", "folder", f"{tmp_path}, 1 files, 2.5 MB")]
