"""`jaxrl train`: replay agents, learning from a dataset, and from one to the other."""

import json

import numpy as np
import pytest

from jaxrl import data
from jaxrl.cli import main
from jaxrl.policy_file import load_policy
from jaxrl.types import Transition

SMALL = ["--widths", "8", "--episodes", "2"]
ONLINE = ["--num-envs", "4", "--steps", "200", "--buffer-size", "120", "--min-buffer-size", "20", "--batch-size", "8"]


def result(run):
    return json.loads((run / "result.json").read_text())


def write(path, rows=40, action=None, metadata=None):
    """Episodes of 10 steps of the toy clock, where action 1 was taken twice in three times."""
    time = np.arange(rows) % 10
    here = np.stack([time, np.zeros(rows)], -1).astype(np.float32)
    action = (np.arange(rows) % 3 > 0).astype(np.int32) if action is None else action
    last = time == 9
    fields = (here, action, np.ones(rows, np.float32), np.zeros(rows, bool), last, here + np.float32([1, 0]))
    data.write(path, data.Dataset(Transition(*fields), metadata or {}))
    return path


def test_online_then_offline_then_online(folder, capsys):
    """One learner: what it is in one run is where the next begins."""
    assert main(["train", "dqn", "toys:clock", *SMALL, *ONLINE, "--out", "first"]) == 0
    out = capsys.readouterr().out
    assert "replay buffer: 120 transitions, " in out and " steps/s" in out
    write(folder / "d.npz", metadata={"environment": "toys:clock"})
    offline = ["train", "dqn", "toys:clock", "--dataset", "d.npz", *SMALL, "--updates", "50", "--batch-size", "8"]
    assert main([*offline, "--init-from", "first", "--out", "second"]) == 0
    out = capsys.readouterr().out
    assert "dataset: 40 rows, " in out and "50 updates" in out and "value_loss" in out
    assert result(folder / "second")["episodes"] == 2 and result(folder / "second")["steps"] == 50
    config = json.loads((folder / "second" / "config.json").read_text())
    assert config["dataset"] == "d.npz" and config["init_from"] == "first" and config["offline"]
    third = ["train", "dqn", "toys:clock", *SMALL, *ONLINE, "--hparams.learning-rate", "0"]
    assert main([*third, "--hparams.target-rate", "0", "--init-from", "second", "--out", "third"]) == 0
    before, after = (load_policy(folder / run / "learner.safetensors")[0] for run in ("second", "third"))
    weights = [name for name in before if name.startswith(("params", "target_params"))]
    assert len(weights) > 6
    for name in weights:  # a learning rate of 0 shows that the weights came across
        np.testing.assert_array_equal(before[name], after[name])
    assert after["num_updates"] > before["num_updates"] == 50 + load_updates(folder / "first")
    assert after["hparams/learning_rate"] == 0 and before["hparams/learning_rate"] > 0
    assert main(["evaluate", "second", "--env", "toys:clock", "--episodes", "2"]) == 0


def load_updates(run):
    return load_policy(run / "learner.safetensors")[0]["num_updates"]


def test_a_dataset_of_an_unknown_environment_trains_without_evaluation(folder, capsys):
    write(folder / "d.safetensors", metadata={"environment": "os:system"})  # a file does not choose code to run
    assert main(["train", "bc", "--dataset", "d.safetensors", *SMALL, "--updates", "20", "--out", "run"]) == 0
    assert "not evaluated" in capsys.readouterr().out
    assert result(folder / "run")["mean"] is None
    assert main(["evaluate", "run", "--env", "toys:clock", "--episodes", "2"]) == 0


def test_discounts_go_with_the_learner(folder):
    from jaxrl.cli.train import read_settings
    from jaxrl.tree import get_field

    argv = ["dqn", "toys:clock", "--n-step", "3", "--hparams.discount", "0.5"]
    assert get_field(read_settings(argv).hparams, "n_step_discount") == 0.5
    assert get_field(read_settings(argv[:4]).hparams, "n_step_discount") == 0.99
    apart = read_settings([*argv, "--hparams.replay.reader.n-step-discount", "0.7"]).hparams
    assert (get_field(apart, "discount"), get_field(apart, "n_step_discount")) == (0.5, 0.7)


@pytest.mark.parametrize(
    "argv, message",
    [
        (["ppo", "toys:clock", "--dataset", "d.npz"], "ppo learns from its own rollouts"),
        (["dqn", "toys:clock", "--dataset", "three.npz"], "three.npz: action: from 0 to 2, the environment has 2"),
        (["dqn", "memory_chain", "--dataset", "d.npz"], "d.npz: observation: one is float [2]"),
        (["sac", "--dataset", "d.npz"], "needs a bounded Box"),
        (["dqn", "--dataset", "d.npz", "--env.length", "3"], "--env.KEY needs ENV"),
        (["dqn", "toys:clock", "--dataset", "d.npz", "--n-step", "3"], "--n-step"),
        (["dqn", "toys:clock", "--dataset", "d.npz", "--updates", "0"], "--updates is 0"),
        (["dqn", "toys:clock", "--dataset", "cut.npz"], "cut.npz"),
    ],
)
def test_bad_datasets_end_in_one_line(folder, capsys, argv, message):
    write(folder / "d.npz")
    write(folder / "three.npz", action=(np.arange(40) % 3).astype(np.int32))
    (folder / "cut.npz").write_bytes((folder / "d.npz").read_bytes()[:300])
    assert main(["train", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and "Traceback" not in err


def test_a_learner_of_another_shape_or_kind_is_refused(folder, capsys):
    assert main(["train", "dqn", "toys:clock", *SMALL, *ONLINE, "--out", "first", "--quiet"]) == 0
    wide = ["train", "dqn", "toys:clock", "--widths", "16", *ONLINE, "--init-from", "first"]
    assert main(wide) == 2 and "do not fit the agent" in capsys.readouterr().err
    assert main(["train", "ppo", "toys:clock", "--init-from", "first"]) == 2
    assert "a run of dqn, not of ppo" in capsys.readouterr().err


def test_a_buffer_or_dataset_that_does_not_fit_is_refused_before_the_start(folder, capsys, monkeypatch):
    from jaxrl.cli import programs

    monkeypatch.setattr(programs, "free_memory", lambda: 500_000)
    assert main(["train", "dqn", "CartPole-v1", "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert "--buffer-size 100000: the replay buffer needs 4.2 MB, and 500.0 kB are free" in err and err.count("\n") == 1
    write(folder / "d.npz", rows=20_000)
    assert main(["train", "bc", "--dataset", "d.npz"]) == 2
    assert "d.npz, 20,000 rows, needs" in capsys.readouterr().err and not (folder / "run").exists()


def test_choices_that_ask_for_more_than_transitions(folder):
    """Returns to go for Cal-QL, next actions for BVE, demonstrations for ReCOIL and RLPD."""
    write(folder / "d.npz")
    write(folder / "plane.npz", action=np.linspace(-1, 1, 80, dtype=np.float32).reshape(40, 2))
    common = ["--updates", "3", "--batch-size", "8", "--widths", "8", "--quiet"]
    assert main(["train", "dqn", "--dataset", "d.npz", "--next-action", "data", *common, "--out", "bve"]) == 0
    assert main(["train", "cql", "--dataset", "plane.npz", "--calibrated", *common, "--out", "calql"]) == 0
    assert main(["train", "recoil", "--dataset", "plane.npz", *common, "--out", "without"]) == 2
    both = ["--dataset", "plane.npz", "--demonstrations", "plane.npz"]
    assert main(["train", "recoil", *both, *common, "--out", "recoil"]) == 0
    rlpd = ["train", "dqn", "toys:clock", "--demonstrations", "d.npz", *ONLINE, *SMALL, "--quiet", "--out", "rlpd"]
    assert main([*rlpd, "--prioritized", "--n-step", "2"]) == 0


def test_next_actions_stay_inside_of_their_episode():
    rows = np.arange(6)
    flags = [np.array([0, 0, 1, 0, 0, 0], bool), np.array([0, 0, 0, 0, 0, 1], bool)]
    fields = (rows[:, None] * 1.0, rows, rows * 1.0, *flags, rows[:, None] + 1.0)
    made = data.with_next_actions(data.Dataset(Transition(*fields), {})).transitions
    np.testing.assert_array_equal(made.extras["next_action"], [1, 2, 2, 4, 5, 5])
    np.testing.assert_array_equal(made.extras["weight"], [1, 1, 1, 1, 1, 0])


def test_a_window_of_a_file_that_stays_on_disk(folder, capsys, monkeypatch):
    """Chunks learn from rows drawn anew; choices that need whole episodes are refused."""
    write(folder / "d.npz", rows=4000, action=np.tile(np.float32([[-1.0, 0.5], [1.0, 0.5]]), (2000, 1)))
    common = ["--updates", "300", "--batch-size", "32", "--widths", "8", "--out", "run"]
    with monkeypatch.context() as patch:
        drawn = []
        take = data.take_rows
        patch.setattr(data, "take_rows", lambda dataset, rows: drawn.append(tuple(rows)) or take(dataset, rows))
        assert main(["train", "bc", "--dataset", "d.npz", "--window", "100", *common]) == 0
    assert len(set(drawn)) > 1  # other rows for other chunks
    assert "4,000 rows on disk, 100 of them" in capsys.readouterr().out
    assert main(["train", "dqn", "toys:clock", "--dataset", "d.npz", "--window", "-1"]) == 2
    write(folder / "e.npz")
    both = ["--dataset", "e.npz", "--window", "10", "--next-action", "data"]
    assert main(["train", "dqn", *both]) == 2 and "need whole episodes" in capsys.readouterr().err
