"""`jaxrl train` and `jaxrl evaluate`, mostly in this process: the files of a run, reports, signals."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxrl.cli import main, run_directory

FAST = "--num-envs 4 --unroll-length 8 --widths 8 --num-epochs 1 --num-minibatches 1 --episodes 6".split()
RESULT = [
    "mean",
    "iqm",
    "iqm_low",
    "iqm_high",
    "episodes",
    "steps",
    "steps_per_second",
    "compile_seconds",
    "wall_seconds",
]


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def read(out):
    rows = [strict(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return strict((out / "config.json").read_text()), rows, strict((out / "result.json").read_text())


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """A short run in CartPole with most kinds of flags; its directory and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "run"
    command = ["train", "ppo", "CartPole-v1", *FAST, "--steps", "1900", "--seed", "3", "--out", str(out)]
    command += ["--hparams.learning-rate", "2e-3", "--hparams.lambda", "0.9", "--normalize-observation"]
    command += ["--env.gravity", "9.5", "--env.max-steps-in-episode=20", "--hparams.decay-steps", "inf"]
    done = subprocess.run(
        [sys.executable, "-m", "jaxrl.cli", *command], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def environment():
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "../.pytest_cache/jax"))
    path = os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "PYTHONPATH": path}


def test_a_run_directory_holds_four_files_and_nothing_else(cartpole):
    assert sorted(p.name for p in cartpole[0].iterdir()) == sorted(run_directory.FILES)


def test_config_has_everything_resolved(cartpole):
    config, _, _ = read(cartpole[0])
    assert config["agent"] == "ppo"
    assert config["env"] == {"name": "CartPole-v1", "params": {"gravity": 9.5, "max_steps_in_episode": 20}}
    assert config["static"]["widths"] == [8] and config["static"]["normalize_observation"] is True
    assert config["static"]["activation"] == "tanh"  # a default
    assert config["hparams"]["learning_rate"] == 2e-3 and config["hparams"]["lambda_"] == 0.9
    assert config["hparams"]["decay_steps"] == "inf"
    assert config["hparams"]["normalize_observations.observation_clip"] == 10.0
    assert (config["seed"], config["num_envs"], config["unroll_length"], config["episodes"]) == (3, 4, 8, 6)
    assert (config["requested_steps"], config["steps"], config["updates_per_chunk"]) == (1900, 1920, 1)
    assert {"jaxrl", "python", "jax", "jaxlib", "flax", "optax"} <= {k for k, v in config["versions"].items() if v}
    assert config["device"]["platform"] and config["device"]["kind"] and config["platform"]
    assert config["git"] is None or len(config["git"]["commit"]) == 40


def test_metrics_are_one_flat_object_a_line(cartpole):
    _, rows, _ = read(cartpole[0])
    assert [row["steps"] for row in rows] == [32 * (i + 1) for i in range(60)]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert all(isinstance(v, (int, float, type(None))) for row in rows for v in row.values())
    names = {
        "seconds",
        "steps_per_second",
        "episode/return",
        "episode/length",
        "episode/count",
        "policy_loss",
        "entropy",
    }
    assert names <= rows[0].keys()
    assert np.all(np.diff([row["seconds"] for row in rows]) > 0)
    ended = [row for row in rows if row["episode/count"]]
    assert all(row["episode/return"] == row["episode/length"] <= 20 for row in ended)  # CartPole pays 1 a step
    assert all(row["episode/return"] is None for row in rows if not row["episode/count"])


def test_result_has_exactly_its_fields(cartpole):
    _, rows, result = read(cartpole[0])
    assert list(result) == RESULT
    assert result["episodes"] == 6 and result["steps"] == 1920
    assert 1 <= result["iqm_low"] <= result["iqm"] <= result["iqm_high"] <= 20
    np.testing.assert_allclose(result["steps_per_second"], 1920 / rows[-1]["seconds"])
    assert result["wall_seconds"] > result["compile_seconds"] + rows[-1]["seconds"]


def test_the_report_has_progress_table_and_curve(cartpole):
    out, text = cartpole
    assert re.search(r"compiling \.\.\. \(\d+\.\d s\)", text)
    assert "1,900 rounded up to 60 chunks of 1 updates" in text
    assert len(re.findall(r"[\d,]+ / 1,920 steps +[\d,]+ steps/s +return +\S+ +\d+ s left", text)) == 10
    for words in ("compilation cache: ", "mean return", "95 % interval", "steps per second", str(out), "1,920 steps"):
        assert words in text
    assert sum("│" in line for line in text.splitlines()) == 12


def test_evaluate_reads_directory_and_file(cartpole, capsys):
    out, _ = cartpole
    assert main(["evaluate", str(out), "--episodes", "5"]) == 0
    first = capsys.readouterr().out
    assert re.search(r"mean return +\d", first) and "95 % interval" in first and "mean length" in first
    assert re.search(r"episodes +5$", first, re.M)
    assert main(["evaluate", str(out / "policy.safetensors"), "--episodes", "5"]) == 0
    assert capsys.readouterr().out == first
    assert main(["evaluate", str(out), "--episodes", "5", "--sample", "--seed", "1", "--max-steps", "3"]) == 0
    assert "(5 cut at 3 steps)" in capsys.readouterr().out
    assert (
        main(["evaluate", str(out), "--env", "CartPole-v1", "--env.max-steps-in-episode", "2", "--episodes", "3"]) == 0
    )
    assert re.search(r"mean length +2\.0", capsys.readouterr().out)


def test_users_environment_quiet_default_directory_and_overwrite(folder, capsys):
    (folder / "mine.py").write_text("from toys import clock\n\ndef make(length=3):\n    return clock(length)\n")
    command = ["train", "ppo", "mine:make", *FAST, "--steps", "64", "--quiet", "--env.length", "4"]
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")
    (out,) = (folder / "runs").iterdir()
    assert re.fullmatch(r"ppo-mine_make-0-\d{8}-\d{6}", out.name)
    config, rows, result = read(out)
    assert result["mean"] == result["iqm"] == 4.0 and config["env"]["params"] == {"length": 4}
    # a second run: refused, then told to
    assert main([*command, "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert read(out) == (config, rows, result)
    assert main([*command, "--out", str(out), "--overwrite", "--seed", "9"]) == 0
    assert read(out)[0]["seed"] == 9 and len(read(out)[1]) == len(rows)
    # its policy names code, which evaluation runs only if it is told to
    assert main(["evaluate", str(out)]) == 2
    assert "mine:make" in capsys.readouterr().err
    assert main(["evaluate", str(out), "--env", "mine:make", "--env.length", "2", "--episodes", "3"]) == 0
    assert re.search(r"mean return +2\.00", capsys.readouterr().out)
    # what is not a run is never overwritten
    (out / "thesis.tex").write_text("years")
    assert main([*command, "--out", str(out), "--overwrite"]) == 2
    assert "thesis.tex" in capsys.readouterr().err


def test_the_same_seed_gives_the_same_run(folder):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = ["train", "ppo", "toys:clock", *FAST, "--steps", "96", "--quiet", "--seed", str(seed), "--out", name]
        assert main(command) == 0
    a, b, c = ((folder / name / "policy.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_chunk(folder, capsys, monkeypatch, number):
    write = run_directory.append

    def interrupt(out, row):
        write(out, row)
        if row["steps"] == 3 * 32:
            signal.raise_signal(number)

    monkeypatch.setattr(run_directory, "append", interrupt)
    before = signal.getsignal(number)
    status = main(["train", "ppo", "toys:clock", *FAST, "--steps", "640", "--quiet", "--out", "run"])
    assert status == 128 + number
    assert signal.getsignal(number) == before
    captured = capsys.readouterr()
    assert captured.out == "" and number.name in captured.err and captured.err.count("\n") == 1
    _, rows, result = read(folder / "run")
    assert [row["steps"] for row in rows] == [32, 64, 96] and result["steps"] == 96
    # Ctrl-C still evaluates; who sends SIGTERM does not wait
    assert result["mean"] == (3.0 if number == signal.SIGINT else None)
    assert result["episodes"] == (6 if number == signal.SIGINT else 0)
    assert main(["evaluate", "run", "--env", "toys:clock", "--episodes", "2"]) == 0


def test_a_second_ctrl_c_skips_the_evaluation(folder, capsys, monkeypatch):
    from jaxrl.cli import running

    write = run_directory.append
    monkeypatch.setattr(run_directory, "append", lambda *a: (write(*a), signal.raise_signal(signal.SIGINT)))
    monkeypatch.setattr(running, "final_evaluation", lambda *a: signal.raise_signal(signal.SIGINT))
    assert main(["train", "ppo", "toys:clock", *FAST, "--steps", "640", "--quiet", "--out", "run"]) == 130
    assert read(folder / "run")[2]["mean"] is None
    assert sorted(p.name for p in (folder / "run").iterdir()) == sorted(run_directory.FILES)


@pytest.mark.slow
def test_ctrl_c_from_outside(tmp_path):
    out = tmp_path / "run"
    command = ["train", "ppo", "toys:clock", *FAST, "--steps", "3_000_000", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "jaxrl.cli", *command], env=environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 240
    while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130 and b"Traceback" not in err
    _, rows, result = read(out)
    assert result["steps"] == rows[-1]["steps"] < 3_000_000 and result["mean"] == 3.0
