"""Benchmarks of many agents, at tiny sizes: that they run, and what they print."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest


def load(name):
    """A script of benchmarks/ as a module, under a name that hides no package."""
    path = pathlib.Path(__file__).parent.parent / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_more_agents(capsys):
    agents = load("agents")
    found = agents.main(counts=(2, 3), envs=("spread",), agents=("alone", "qmix"), seconds=0)
    assert set(found) == {("spread", count, name) for count in (2, 3) for name in ("alone", "qmix")}
    assert all(rate > 0 and compile_seconds > 0 for rate, compile_seconds in found.values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1:3] for line in lines[-2:]] == [[" spread ", " 2 "], [" spread ", " 3 "]]


@pytest.mark.parametrize("name", ["ippo", "vdn", "recurrent vdn"])
@pytest.mark.slow
def test_our_side_of_the_comparison_with_jaxmarl(name):
    benchmark = load("jaxmarl")
    _, agent, row = benchmark.ROWS[name]
    row = row | dict(steps=2 * row["num_envs"] * row["length"], min_buffer_size=row["num_envs"])
    train, score = benchmark.our_side(agent, row | ({"buffer_size": 1000} if "buffer_size" in row else {}))
    result = jax.jit(train)(jax.random.key(0))
    assert -60 < float(score(result, jax.random.key(1))) < -10
    ended = np.asarray(result[1]["episode/count"]).sum() * benchmark.EPISODE
    assert ended <= row["steps"]


def test_the_table_of_the_comparison():
    sides = {
        "jaxmarl": {"trace": 1.0, "compile": 2.0, "seconds": [2.0, 4.0, 6.0], "returns": [-20.0] * 4},
        "jaxrl": {"trace": 1.0, "compile": 2.0, "seconds": [1.0, 2.0, 2.0], "returns": [-19.0] * 4},
    }
    rows = load("jaxmarl").table([{"name": "ippo", "steps": 1000, "sides": sides}]).splitlines()
    assert rows[-2].split(" | ")[3:7] == ["4.0", "250", "500", ""]
    assert rows[-1].split(" | ")[3:7] == ["2.0", "500", "1,000", "2.00 (2.00 .. 3.00)"]
