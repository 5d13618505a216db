"""`sweep` and `grid`: every member is the run that it would be alone, however members are laid out."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.sweeps import grid, stack, sweep
from jaxrl.types import Wrapped


class Hparams(NamedTuple):
    rate: float = 0.1
    other: float = 7.0


SEEDS = (3, 5, 8)
SETTINGS, HPARAMS = grid(Hparams(), {"rate": [1.0, 2.0], "other": [0.5, 0.25, 0.125]})
traces = []


def train(key, hparams):
    """A walk whose end depends on everything; [4] and [] results."""
    traces.append(threading.get_ident())
    noise = jax.random.normal(key, (4,))
    walk = jax.lax.scan(lambda x, n: (x * hparams.other + n, x), hparams.rate, noise)
    return {"walk": walk[1], "end": walk[0]}


def expected():
    one = jax.jit(train)
    runs = [[one(jax.random.key(s), Hparams(**setting)) for s in SEEDS] for setting in SETTINGS]
    return jax.tree.map(lambda *x: np.stack(x).reshape(6, 3, *np.shape(x[0])), *[run for row in runs for run in row])


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


def test_the_grid_has_all_combinations():
    assert [tuple(s.values()) for s in SETTINGS] == [(r, o) for r in (1.0, 2.0) for o in (0.5, 0.25, 0.125)]
    np.testing.assert_array_equal(HPARAMS.rate, np.float32([1, 1, 1, 2, 2, 2]))
    nested = grid(Wrapped(Hparams(), (Hparams(), 3.0)), {"rate": [5.0]})[1]
    assert nested.agent.rate.shape == (1,) and nested.own[0].rate[0] == 5 and nested.own[1][0] == 3
    with pytest.raises(ValueError, match="no 'speed'; there are other, rate"):
        grid(Hparams(), {"speed": [1.0]})
    with pytest.raises(ValueError, match="no value for 'rate'"):
        grid(Hparams(), {"rate": []})


@pytest.mark.parametrize("layout", ["auto", "threads", "vmap"])
def test_every_member_is_the_run_that_it_would_be_alone(layout):
    told, seen = [], {}
    before = len(traces)
    found = sweep(
        train, HPARAMS, SEEDS, layout=layout, say=told.append, on_result=lambda *x: seen.update({x[:2]: x[2]})
    )
    assert len(traces) - before <= 2  # shapes of the results, and one compilation
    assert found["walk"].shape == (6, 3, 4) and found["end"].dtype == np.float32
    same(found, expected())
    assert sorted(seen) == [(i, j) for i in range(6) for j in range(3)]
    same(seen[4, 1], jax.tree.map(lambda x: x[4, 1], found))
    assert len(told) == 1 and told[0].startswith(f"18 members, {18 if layout == 'vmap' else 1} in a program")


def test_members_that_do_not_fit_at_once_take_turns():
    shapes = (jax.random.split(jax.random.key(0), 18), jax.tree.map(lambda x: jnp.repeat(x, 3), HPARAMS))
    analysis = jax.jit(jax.vmap(train)).lower(*shapes).compile().memory_analysis()
    whole = analysis.temp_size_in_bytes + analysis.output_size_in_bytes + analysis.argument_size_in_bytes
    told = []
    found = sweep(train, HPARAMS, SEEDS, layout="vmap", memory=whole // 2, say=told.append)
    same(found, expected())
    assert 1 < int(told[0].split()[2]) < 18
    with pytest.raises(ValueError, match="one member takes .* bytes, and 8 may be used"):
        sweep(train, HPARAMS, SEEDS, layout="threads", memory=8)
    with pytest.raises(ValueError, match="one member takes .* bytes, and 8 may be used"):
        sweep(train, HPARAMS, SEEDS, layout="vmap", memory=8)


def test_finished_members_are_not_trained_again():
    skip, seen = {(i, j) for i in range(6) for j in range(3)} - {(2, 1), (5, 0)}, []
    for layout in ("threads", "vmap"):
        found = sweep(train, HPARAMS, SEEDS, layout=layout, skip=skip, on_result=lambda i, j, x: seen.append((i, j)))
        assert found["end"][2, 1] != 0 and found["end"][5, 0] != 0 and np.count_nonzero(found["end"]) == 2
    assert sorted(seen) == [(2, 1), (2, 1), (5, 0), (5, 0)]
    found = sweep(train, HPARAMS, SEEDS, skip=skip | {(2, 1), (5, 0)})
    assert found["walk"].shape == (6, 3, 4) and not found["walk"].any()


def test_an_error_ends_the_sweep():
    def stop(i, j, result):
        raise KeyError("deliberate")

    with pytest.raises(KeyError, match="deliberate"):
        sweep(train, HPARAMS, SEEDS, on_result=stop)


def test_bad_arguments():
    with pytest.raises(ValueError, match="layout is 'wide', must be one of auto, vmap, threads"):
        sweep(train, HPARAMS, SEEDS, layout="wide")
    with pytest.raises(ValueError, match="no seeds"):
        sweep(train, HPARAMS, [])
    with pytest.raises(ValueError, match="must have one of settings"):
        sweep(train, Hparams(), SEEDS)
    with pytest.raises(ValueError, match="must have one of settings"):
        sweep(train, Hparams(np.zeros(2), np.zeros(3)), SEEDS)


def test_a_whole_run_of_an_agent():
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(8,), num_epochs=1, num_minibatches=1)
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=8)

    def train(key, hparams):
        state, metrics = jaxrl.run(loop, loop.init(key, hparams), 3)
        return {"loss": metrics["value_loss"], "bias": jax.tree.leaves(agent.actor(state.agent).params)[0]}

    hparams = stack([hparams, hparams._replace(learning_rate=0.0)])
    threads, vmap = (sweep(train, hparams, range(2), layout=layout) for layout in ("threads", "vmap"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), threads, vmap)
    assert not np.array_equal(threads["bias"][0, 0], threads["bias"][0, 1])
    assert np.ptp(threads["bias"][0]) > 0


@pytest.mark.slow
def test_a_bounded_part_of_the_benchmark():
    path = pathlib.Path(__file__).parents[1] / "benchmarks" / "sweeps.py"
    spec = importlib.util.spec_from_file_location("benchmark_of_sweeps", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    bench = benchmark.Bench(seeds=16, num_envs=2, unroll_length=8, updates=2, widths=(8,), turns=1)
    rows = benchmark.of_settings(bench)
    assert [(row["what"], row["members"], row["traces"]) for row in rows] == [("8 settings", 8, 1), ("1 setting", 8, 1)]
    assert benchmark.table(rows).count("\n") == 3


def test_members_are_spread_over_devices(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import jax, test_sweeps as t\n"
        "from jaxrl.sweeps import sweep\n"
        "assert jax.device_count() == 4\n"
        "told = []\n"
        "found = sweep(t.train, t.HPARAMS, t.SEEDS, say=told.append)\n"
        "assert told[0].startswith('18 members, 20 in a program'), told\n"
        "t.same(found, t.expected())\n"
    )
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [sys.executable, "-c", program, os.path.dirname(__file__)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
