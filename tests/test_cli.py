"""The command line, mostly in this process: files of a run, flags, reports, signals, and every kind of bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl.cli import doctor, flags, main, report, run_directory
from jaxrl.cli.train import plan
from jaxrl.types import Wrapped

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


# A run ---------------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; sys.path is given back, and modules that were imported from the directory go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


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
    from jaxrl.cli import train

    write = run_directory.append
    monkeypatch.setattr(run_directory, "append", lambda *a: (write(*a), signal.raise_signal(signal.SIGINT)))
    monkeypatch.setattr(train, "final_evaluation", lambda *a: signal.raise_signal(signal.SIGINT))
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


# Bad input -----------------------------------------------------------------------------------------------------------

TRAIN = "train ppo toys:clock --steps 64 --num-envs 4 --unroll-length 8 --widths 8"
BAD = {
    "": "no command",
    "trian": "'trian'",
    "--hlep": "'--hlep'",
    "train": "train AGENT ENV",
    "train ppo": "train AGENT ENV",
    "train --seed 3 ppo CartPole-v1": "train AGENT ENV",
    "train sac CartPole-v1": "'sac'",
    "train ppo CartPol-v1": "'CartPole-v1'",
    "train ppo CartPole-v1 --env.gravty 3": "gravity",
    "train ppo CartPole-v1 --env.gravity abc": "gravity",
    "train ppo CartPole-v1 --env.gravity": "--env.gravity",
    "train ppo CartPole-v1 --env.gravity 1 --env.gravity 2": "twice",
    "train ppo no_such_module:make": "no_such_module",
    "train ppo toys:nothing": "'nothing'",
    "train ppo :make": "MODULE:NAME",
    "train ppo toys:": "MODULE:NAME",
    "train ppo toys:jax": "module",
    "train ppo toys:CounterState": "CounterState",
    "train ppo toys:clock --env.size 3": "size",
    "train ppo broken:syntax": "SyntaxError",
    "train ppo broken_env:raises": "deliberate",
    "train ppo broken_env:step": "deliberate",
    "train ppo broken_env:env --env.size 3": "--env.size",
    f"{TRAIN} --stpes 64": "did you mean --steps",
    f"{TRAIN} --hparams.learning-rat 1": "--hparams.learning-rate",
    f"{TRAIN} --steps x": "--steps",
    f"{TRAIN} --steps": "--steps",
    f"{TRAIN} --steps 31": "less than one update: 32",
    f"{TRAIN} --steps -5": "less than one update",
    f"{TRAIN} --num-envs 0": "--num-envs is 0",
    f"{TRAIN} --unroll-length -1": "--unroll-length is -1",
    f"{TRAIN} --reset-pool -1": "reset_pool is -1",
    f"{TRAIN} --episodes 0": "--episodes is 0",
    f"{TRAIN} --seed -1": "--seed is -1",
    f"{TRAIN} --num-minibatches 7": "num_minibatches is 7",
    f"{TRAIN} --num-epochs 0": "num_epochs is 0",
    f"{TRAIN} --widths a": "--widths",
    f"{TRAIN} --widths 0": "widths",
    f"{TRAIN} --activation sigmoidal": "sigmoidal",
    f"{TRAIN} --normalize-advantage sometimes": "sometimes",
    f"{TRAIN} --hparams.learning-rate fast": "--hparams.learning-rate",
    f"{TRAIN} --hparams.discount 1.5": "--hparams.discount is 1.5, must be in [0, 1]",
    f"{TRAIN} --hparams.clip nan": "--hparams.clip is nan",
    f"{TRAIN} --hparams.clip -0.1": "must be > 0",
    f"{TRAIN} extra": "extra",
    f"{TRAIN} --out taken": "taken exists",
    f"{TRAIN} --out file": "file exists",
    f"{TRAIN} --out file --overwrite": "not a run directory",
    f"{TRAIN} --out file/below": "cannot be made",
    "evaluate": "evaluate RUN",
    "evaluate --episodes 3": "evaluate RUN",
    "evaluate nowhere": "nowhere: there is no such file",
    "evaluate taken": "policy.safetensors: there is no such file",
    "evaluate file": "not a readable safetensors file",
    "evaluate file --episodes 0": "--episodes is 0",
    "evaluate file --max-steps 0": "--max-steps is 0",
    "evaluate file --seed -3": "--seed is -3",
    "evaluate file --env.length 3": "--env NAME",
    "evaluate file --env nope": "'nope'",
    "list": "agents or envs",
    "list agent": "agents or envs",
    "check-env": "MODULE:NAME",
    "check-env no_such_module:make": "no_such_module",
    "check-env NoSuchEnv": "'NoSuchEnv'",
    "doctor --fix": "--render",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_status_2(folder, capsys, command):
    (folder / "taken").mkdir()
    (folder / "file").write_text("text")
    (folder / "broken.py").write_text("def (:")
    (folder / "broken_env.py").write_text(
        "from toys import clock\n"
        "def fail(*args): raise RuntimeError('deliberate\\nand long')\n"
        "env, step, raises = clock(), clock()._replace(step=fail), fail\n"
    )
    before = sorted(folder.rglob("*"))
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("jaxrl: ") and captured.err.count("\n") == 1
    assert BAD[command] in captured.err
    assert "Traceback" not in captured.err + captured.out
    assert [p for p in sorted(folder.rglob("*")) if "__pycache__" not in str(p)] == before


def test_bad_input_from_a_shell():
    done = subprocess.run([sys.executable, "-m", "jaxrl.cli", "evaluate", "nowhere"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1


def test_traceback_on_request(folder, monkeypatch):
    (folder / "broken_env.py").write_text("def make(): raise RuntimeError('deliberate')\n")
    monkeypatch.setenv("JAXRL_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="deliberate"):
        main(["train", "ppo", "broken_env:make"])


# Flags, help, lists --------------------------------------------------------------------------------------------------


def test_help_has_types_defaults_and_words(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main_exit(["train", "ppo", "CartPole-v1", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    from jaxrl.presets import lookup

    preset = lookup("ppo", "CartPole-v1")
    assert f"--steps INT environment steps, all environments together (default: {preset['steps']})" in text
    assert f"--num-envs INT environments side by side (default: {preset['num_envs']})" in text
    rate = preset["hparams"].get("learning_rate", 2.5e-4)
    assert f"--hparams.learning-rate FLOAT of Adam (default: {rate})" in text
    assert "--hparams.lambda FLOAT" in text and "--widths" in text and "gravity 9.8" in text
    assert not (folder / "runs").exists()


def main_exit(argv):
    try:
        return main(argv)
    except SystemExit as end:
        return end.code or 0


def test_every_command_has_help(capsys):
    for command in ("train", "evaluate", "list", "check-env", "doctor"):
        assert main_exit([command, "--help"]) == 0
        assert f"jaxrl {command}" in capsys.readouterr().out


def test_version_and_lists(capsys):
    import jaxrl
    from jaxrl.factory import AGENTS
    from jaxrl.presets import DEFAULTS

    assert main(["--version"]) == 0 and capsys.readouterr().out == f"jaxrl {jaxrl.__version__}\n"
    assert main(["list", "agents"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(AGENTS) == list(DEFAULTS)
    assert main(["list", "envs"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert tuple(line.split()[0] for line in listed) == jaxrl.envs.names()
    assert any(re.match(r"CartPole-v1 +tuned: ppo", line) for line in listed)


def test_light_commands_do_not_import_jax():
    code = (
        "import sys; from jaxrl.cli import main\n"
        "for argv in (['--help'], ['--version'], ['list', 'agents'], ['train', '--help'], ['nope']): main(argv)\n"
        "assert not {'jax', 'flax', 'tyro', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


class Inner(NamedTuple):
    rate: float = 1e-3  # [0, 1] of it
    clip: float = 0.2
    deep: tuple = ()


class ScaleHparams(NamedTuple):
    clip: float = 5.0  # > 0, a bound
    rate: float = 2.0


@pytest.mark.parametrize("rule", ["─", "-"])
def test_a_framed_message_becomes_one_line(rule):
    lines = ["╭─ Unrecognized ─────────────╮", "│ Unrecognized options: --stps │", "│ ──────────────────────────── │"]
    lines += [
        "│ Perhaps you meant:           │",
        "│   --steps INT                │",
        "│     a -- b (default: 100)    │",
    ]
    lines += [
        "│ ──────────────────────────── │",
        "│ For help, run jaxrl x --help │",
        "╰──────────────────────────────╯",
    ]
    box = (
        "\n".join(lines) if rule == "─" else re.sub("[╭╮╰╯]", "+", "\n".join(lines)).replace("─", "-").replace("│", "|")
    )
    assert flags.one_line(box) == "Unrecognized options: --stps; did you mean --steps?; see jaxrl x --help"


def test_numbers_are_named_by_their_owner():
    hparams = Wrapped(Wrapped(Inner(), (ScaleHparams(), ScaleHparams(clip=6.0))), ScaleHparams(clip=7.0))
    names = {name: value for name, value, _ in flags.named_numbers(hparams)}
    assert names == {
        "rate": 1e-3,
        "clip": 0.2,
        "scale.clip": 5.0,
        "scale.rate": 2.0,
        "scale.clip_2": 6.0,
        "scale.rate_2": 2.0,
        "scale.clip_3": 7.0,
        "scale.rate_3": 2.0,
    }
    assert [value for _, value, _ in flags.named_numbers(hparams)] == list(names.values())  # the order of leaves
    parsed = flags.parse(flags.of_hparams(hparams), ["--hparams.scale.clip", "1.5", "--hparams.clip=3"], "p", "")
    assert (
        parsed["hparams.scale.clip"] == 1.5 and parsed["hparams.clip"] == 3.0 and parsed["hparams.scale.clip_2"] == 6.0
    )


def test_environment_values_are_literals():
    argv = "--env.a-b 3 --steps 5 --env.c=x --env.d -1.5 2 --env.e true --env.f [1,2] --quiet".split()
    params, rest = flags.split_env_flags(argv)
    assert params == {"a_b": 3, "c": "x", "d": (-1.5, 2), "e": True, "f": [1, 2]}
    assert rest == ["--steps", "5", "--quiet"]


# Parts ---------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**9), st.integers(1, 10**5))
def test_chunks_are_alike_and_cover_the_steps(steps, steps_per_update):
    updates, chunks = plan(steps, steps_per_update)
    needed = -(-steps // steps_per_update)
    assert needed <= updates * chunks < needed + updates
    assert 50 <= chunks <= 100 if needed >= 50 else (updates, chunks) == (1, needed)


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


# Doctor and check-env ------------------------------------------------------------------------------------------------


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
