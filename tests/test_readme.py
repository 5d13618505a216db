"""The README keeps its promises: its commands are the ones that run, its programs run, its table is the presets'."""

import pathlib
import re
import subprocess
import sys

import pytest

from jaxrl.presets import PRESETS

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.S | re.M)


def test_the_first_lines_say_what_this_is_not():
    assert "ikostrikov/jaxrl" in "\n".join(README.splitlines()[:10])


def test_ci_calls_the_test_command_of_the_readme():
    install, test = blocks("sh")[:2]
    assert "pip install --no-compile ." in install and install.strip().endswith("jaxrl train ppo CartPole-v1")
    script = (ROOT / ".ci" / "run").read_text()
    assert script.rstrip().splitlines()[-1] == test.strip()
    assert "set -euo pipefail" in script and (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.slow
def test_every_program_runs(tmp_path):
    """All python blocks, in order, as one program, after the training run that they load (made short here)."""
    small = "--steps 4096 --episodes 4 --quiet --out runs/cartpole".split()
    command = [sys.executable, "-m", "jaxrl.cli", "train", "ppo", "CartPole-v1", *small]
    assert any("jaxrl train ppo CartPole-v1 --out runs/cartpole" in block for block in blocks("sh"))
    subprocess.run(command, cwd=tmp_path, check=True)
    program = "\n".join(blocks("python"))
    assert len(blocks("python")) >= 2
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[[01]\]\n$", done.stdout)  # the last line is an action of CartPole


def test_the_table_is_that_of_the_presets():
    expected = [f"| {env} | {agent} | {preset['steps']:,} |" for (agent, env), preset in PRESETS.items()]
    table = README.split("| environment | agent | steps |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert table == expected, "the table of the README must be\n" + "\n".join(expected)


def test_files_that_it_names_exist():
    for path in re.findall(r"\]\(([\w/.]+)\)", README):
        assert (ROOT / path).exists(), path
