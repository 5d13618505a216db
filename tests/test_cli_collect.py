"""`jaxrl collect`: a short run, every quality, and what cannot be had in one line."""

import json
import shutil

import numpy as np
import pytest

from jaxrl import data as d
from jaxrl.cli import main

FAST = "--num-envs 4 --unroll-length 16 --widths 8 --num-epochs 1 --num-minibatches 1 --episodes 4 --quiet".split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """RUN and RUN2, two runs in CartPole of which the second is shorter."""
    folder = tmp_path_factory.mktemp("runs")
    for name, steps in (("run", "1280"), ("run2", "640")):
        out = ["--out", str(folder / name), "--seed", "5"]
        command = ["train", "ppo", "CartPole-v1", *FAST, "--steps", steps, *out, "--hparams.learning-rate", "0.01"]
        assert main([*command, "--env.max-steps-in-episode", "40"]) == 0
    return folder


def collect(runs, out, *flags, episodes="3"):
    command = ["collect", str(runs / "run"), "--out", str(out), "--steps", "300", "--num-envs", "2"]
    return main([*command, "--episodes", episodes, *flags])


def rows(text):
    return {line[:20].strip(): line[22:].strip() for line in text.splitlines() if line.startswith("  ")}


@pytest.mark.parametrize(
    ("quality", "behavior"),
    [
        ("random", "random"),
        ("expert", "expert (greedy)"),
        ("noisy", "expert (greedy, epsilon 0.2)"),
        ("mixed", "80 % random + 20 % expert (greedy)"),
        ("medium", "medium (greedy)"),
        ("medium-expert", "50 % medium (greedy) + 50 % expert (greedy)"),
        ("replay", "replay"),
        ("medium-replay", "replay"),
    ],
)
def test_every_quality(runs, tmp_path, capsys, quality, behavior):
    flags = ["--quality", quality, *(["--medium", str(runs / "run2")] if "medium" in quality else [])]
    out = tmp_path / "x.safetensors"
    assert collect(runs, out, *flags) == 0
    shown = rows(capsys.readouterr().out)
    dataset = d.read(out)
    returns = d.episode_returns(dataset)
    assert d.num_transitions(dataset) == 300 and returns.max() <= 40
    assert (
        shown["rows"] == "300"
        and shown["episodes"] == str(len(returns))
        and shown["quality"] == f"{quality} ({behavior})"
    )
    assert shown["mean return"] == f"{returns.mean():.2f}" and shown["bytes"] == f"{out.stat().st_size:,}"
    found = dataset.metadata
    assert found["environment"] == "CartPole-v1" and found["environment_params"] == {"max_steps_in_episode": 40}
    assert (found["agent"], found["quality"], found["behavior"], found["seed"]) == ("ppo", quality, behavior, 0)
    random, expert = d.reference_scores(dataset)
    assert 8 < random < 40 and 8 < expert <= 40
    assert shown["normalized score"].startswith(f"{100 * (returns.mean() - random) / (expert - random):.1f} ")
    if "replay" in quality:
        assert shown["trained again"] == "to the same policy" and found["trained_to_the_same_policy"] is True


def test_the_same_seed_writes_the_same_file(runs, tmp_path):
    contents = []
    for name, seed in (("a.npz", "1"), ("b.npz", "1"), ("c.npz", "2")):
        assert collect(runs, tmp_path / name, "--seed", seed, "--quality", "mixed") == 0
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_no_reference_scores(runs, tmp_path, capsys):
    assert collect(runs, tmp_path / "x.npz", "--sample", episodes="0") == 0
    assert "normalized score" not in rows(capsys.readouterr().out)
    found = d.read(tmp_path / "x.npz")
    assert "random_score" not in found.metadata and found.metadata["behavior"] == "expert (sampled)"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--quality", "best"], "--quality is best, must be one of random, expert"),
        (["--quality", "medium"], "--quality medium needs --medium RUN2"),
        (["--medium", "x"], "--medium goes with the qualities medium"),
        (["--quality", "medium", "--medium", "nowhere"], "nowhere"),
        (["--out", "x.pkl"], "--out is x.pkl, must end in"),
        (["--out", "no/such/x.npz"], "not a folder that can be written to"),
        (["--num-envs", "301"], "--num-envs is 301, must be in [1, 300]"),
        (["--steps", "0"], "--num-envs is 2"),
        (["--steps", "many"], "--steps"),
        (["--epsilon", "2"], "--epsilon is 2.0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--episodes", "-1"], "--episodes is -1"),
        (["--quality", "replay", "--steps", "1300"], "--steps is 1300"),
        (["--env.gravity", "3"], "--env.KEY needs --env"),
        (["--nope"], "--nope"),
    ],
)
def test_bad_input_is_one_line(runs, tmp_path, monkeypatch, capsys, flags, says):
    monkeypatch.chdir(tmp_path)
    assert collect(runs, tmp_path / "x.npz", *flags) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_what_a_run_lacks_is_said(runs, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(runs / "run", run)
    config = json.loads((run / "config.json").read_text())
    command = ["collect", str(run), "--out", str(tmp_path / "x.npz"), "--steps", "64", "--quality", "replay"]
    cases = [
        ({**config, "init_from": "other"}, "was trained --init-from other"),
        ({k: v for k, v in config.items() if k != "seed"}, "KeyError: 'seed'"),
        ({**config, "hparams": {"x": 1}}, "hparams are x; the agent has"),
        ("[", "config.json"),
    ]
    for content, says in cases:
        (run / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
        assert main(command) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1, error
    (run / "config.json").unlink()
    assert main(command) == 2
    assert "config.json is missing" in capsys.readouterr().err
    config["seed"] += 1  # another run than the one whose policy is there
    (run / "config.json").write_text(json.dumps(config))
    assert main([*command, "--episodes", "0"]) == 0
    assert "to ANOTHER policy" in capsys.readouterr().out
    assert d.read(tmp_path / "x.npz").metadata["trained_to_the_same_policy"] is False


def test_files_are_not_overwritten_unasked(runs, tmp_path, capsys):
    out = tmp_path / "x.npz"
    out.write_text("precious")
    assert collect(runs, out, episodes="0") == 2
    assert "exists" in capsys.readouterr().err and out.read_text() == "precious"
    assert collect(runs, out, "--overwrite", episodes="0") == 0
    assert np.isfinite(d.read(out).transitions.reward).all()
    assert collect(runs, tmp_path, "--overwrite") == 2


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        main(["collect", "--help"])
    assert end.value.code in (0, None)
    shown = capsys.readouterr().out
    assert "medium-replay" in shown and "--epsilon" in shown
    assert main(["collect"]) == 2
    assert "write jaxrl collect RUN" in capsys.readouterr().err
