"""The command line: bad input of every kind, flags, help and lists."""

import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from jaxrl.cli import flags, main
from jaxrl.types import Wrapped

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"))

import command_lines  # noqa: E402


@pytest.mark.parametrize("command", command_lines.BAD)
def test_bad_input_is_one_line_and_status_2(folder, capsys, command):
    command_lines.make_folder(folder)
    before = sorted(folder.rglob("*"))
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("jaxrl: ") and captured.err.count("\n") == 1
    assert command_lines.BAD[command] in captured.err
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
    for command in ("train", "evaluate", "crossplay", "list", "check-env", "doctor"):
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
        "commands = ['--help'], ['--version'], ['list', 'agents'], ['train', '--help'], ['sweep', '--help'], ['nope']\n"
        "for argv in commands:\n"
        "    main(argv)\n"
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


def test_a_learning_rate_tuned_to_end_with_the_run_does(monkeypatch):
    from jaxrl import presets
    from jaxrl.cli.train import read_settings

    tuned = {"steps": 6400, "hparams": {"decay_steps": 6400, "learning_rate": 3e-3}, "normalize_reward": True}
    monkeypatch.setitem(presets.PRESETS, ("ppo", "toys:clock"), tuned)

    def numbers(*argv):
        settings = read_settings(["ppo", "toys:clock", "--num-envs", "4", "--unroll-length", "8", *argv])
        return {name: value for name, value, _ in flags.named_numbers(settings.hparams)}

    assert (numbers()["decay_steps"], numbers()["learning_rate"]) == (6400.0, 3e-3)
    assert numbers("--steps", "9600")["decay_steps"] == 9600.0
    assert numbers("--steps", "9600", "--hparams.decay-steps", "100")["decay_steps"] == 100.0
    monkeypatch.setitem(tuned["hparams"], "decay_steps", 50)  # not tied to the run
    assert numbers("--steps", "9600")["decay_steps"] == 50.0
