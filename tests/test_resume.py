"""`jaxrl train --resume` and `jaxrl.restore`: what goes on is the run that was, to the bit, or nothing."""

import json
import os
import pathlib
import shutil
import signal
import sys

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import data
from jaxrl.checkpoints import Checkpoints, manifest, open_readonly
from jaxrl.cli import main, run_directory
from jaxrl.types import Transition

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"))

import kills  # noqa: E402

SMALL = "--widths 8 --episodes 2 --checkpoint-minutes 0 --keep 9 --quiet".split()
PPO = "ppo toys:clock --num-envs 4 --unroll-length 4 --num-epochs 1 --num-minibatches 1 --steps 160".split()
DQN = "dqn toys:clock --num-envs 4 --unroll-length 4 --buffer-size 64 --min-buffer-size 48 --batch-size 8".split()
DQN += ["--steps", "160", "--prioritized", "--n-step", "2"]
ROWS = "--updates 100 --batch-size 8".split()


class Killed(BaseException):
    pass


def train(*argv):
    """`jaxrl train`; returns the status."""
    return main(["train", *map(str, argv)])


def kill(monkeypatch, at, *argv):
    """`jaxrl train`, which dies once it has written its line of metrics for step `at`."""
    append = run_directory.append

    def die(out, row):
        append(out, row)
        if row["steps"] >= at:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run_directory, "append", die)
        train(*argv)


def bits(tree):
    is_key = lambda x: jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in jax.tree.leaves(tree)]


def ending(run, env=None):
    """All that a run leaves but times, as one value."""
    state, policy, rows = kills.outcome(pathlib.Path(run), env)
    result = json.loads((pathlib.Path(run) / "result.json").read_text())
    for name in ("steps_per_second", "compile_seconds", "wall_seconds"):
        del result[name]
    return state, policy, (pathlib.Path(run) / "learner.safetensors").read_bytes(), rows, result


def toys():
    from toys import clock

    return clock()


def write_data(path, seed=0):
    random = np.random.default_rng(seed)
    here = random.normal(size=(200, 2)).astype(np.float32)
    last = np.arange(200) % 10 == 9
    fields = (here, random.integers(0, 2, 200).astype(np.int32), here[:, 0], np.zeros(200, bool), last, here + 1)
    data.write(path, data.Dataset(Transition(*fields), {"environment": "toys:clock"}))
    return path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of dqn that died after step 96, with checkpoints 0 and 64, and the run as it would have been."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        argv = [*DQN, *SMALL, "--checkpoint-steps", "64"]
        kill(monkeypatch, 96, *argv, "--out", "run")
        assert train(*argv, "--out", "whole") == 0
    assert open_readonly(folder / "run" / "checkpoints").steps() == [0, 64]
    assert open_readonly(folder / "whole" / "checkpoints").steps() == [0, 64, 128, 160]
    return folder


@pytest.fixture
def run(stopped, folder):
    """A copy of that run in the working directory."""
    shutil.copytree(stopped / "run", folder / "run")
    return folder / "run"


RUNS = {
    "recurrent ppo": [*PPO, "--recurrent", "--memory-size", "4", "--normalize-observation", "--checkpoint-steps", "64"],
    "dataset": [*"bc toys:clock --dataset d.npz --demonstrations e.npz --checkpoint-steps 40".split(), *ROWS],
    "window": [*"bc --dataset d.safetensors --window 20 --checkpoint-steps 40".split(), *ROWS],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_as_if_it_had_not_been(folder, monkeypatch, name):
    argv = [*RUNS[name], *SMALL]
    for seed, file in enumerate(("d.npz", "e.npz", "d.safetensors")):
        write_data(folder / file, seed)
    if name == "dataset":
        assert train(*argv, "--seed", 7, "--out", "first") == 0
        argv += ["--init-from", "first"]
    assert train(*argv, "--out", "whole") == 0
    kill(monkeypatch, 97, *argv, "--out", "run")
    shutil.rmtree("first", ignore_errors=True)  # what it began with is in the checkpoint
    with open("run/metrics.jsonl", "a") as file:
        file.write('{"steps": 112, "sec')
    (folder / "run" / ".policy.safetensors.1.tmp").write_text("half")
    names = argv[: 1 + ("toys:clock" in argv)]
    assert train(*names, "--resume", "run", "--quiet") == 0
    assert sorted(path.name for path in (folder / "run").iterdir()) == sorted(run_directory.FILES)
    assert ending("run", toys()) == ending("whole", toys())


def test_a_killed_run_of_a_replay_learner(stopped, run):
    """The buffer, its priorities and what n-step rows wait for, too."""
    rows = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["steps"] for row in rows][-1] == 96  # beyond its last checkpoint
    assert train("dqn", "toys:clock", "--resume", run, "--quiet") == 0
    assert ending(run, toys()) == ending(stopped / "whole", toys())
    seconds = [json.loads(row)["seconds"] for row in (run / "metrics.jsonl").read_text().splitlines()]
    assert np.all(np.diff(seconds) > 0)
    before = ending(run, toys())
    assert train("dqn", "toys:clock", "--resume", run, "--quiet") == 0 and ending(run, toys()) == before


def test_a_damaged_checkpoint_is_skipped_and_made_again(stopped, run, capfd):
    argv = ["dqn", "toys:clock", "--resume", run]
    files = [path for path in (run / "checkpoints" / "64").rglob("*") if path.is_file()]
    damaged = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert train(*argv) == 0
    out, err = capfd.readouterr()
    assert "step 64 is damaged and is skipped" in err and "resumed after 0 steps" in out
    assert ending(run, toys()) == ending(stopped / "whole", toys())
    assert open_readonly(run / "checkpoints").steps() == [0, 64, 128, 160]
    for manifest_file in (run / "checkpoints").glob("*.json"):
        manifest_file.write_text("{}")
    assert train(*argv) == 2 and "no checkpoint with a config" in capfd.readouterr().err


def test_extending_is_the_longer_run(stopped, run, capsys, monkeypatch):
    argv = ["dqn", "toys:clock", "--resume", run]
    assert train(*argv, "--steps", 159) == 2 and "--steps is 159, less than the 160" in capsys.readouterr().err
    more = ["--steps", 2400, "--checkpoint-steps", 800]
    kill(monkeypatch, 80, *argv, *more, "--quiet")  # before there is another checkpoint
    config = json.loads((run / "config.json").read_text())
    assert (config["requested_steps"], config["steps"]) == (2400, 2400)
    shutil.copytree(stopped / "whole", "whole")
    assert train(*argv[:-1], "whole", *more, "--quiet") == 0
    assert train(*argv) == 0  # the checkpoint knows that it was extended
    assert "2,400 / 2,400 steps" in capsys.readouterr().out
    assert ending(run, toys()) == ending("whole", toys())
    steps = [json.loads(line)["steps"] for line in open(run / "metrics.jsonl")]
    assert steps == list(range(16, 2401, 16))  # chunks are as long as they were
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train(*argv) == 0
    assert capsys.readouterr().out == f"{run} has its 2,400 steps: there is nothing left to do\n"
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_in_python(stopped, run):
    env = toys()
    whole = jaxrl.restore(stopped / "whole", env)
    assert whole.steps == 160 and whole.config["agent"] == "dqn"
    with pytest.raises(ValueError, match="toys:clock', which is code: give it again"):
        jaxrl.restore(stopped / "whole")
    with pytest.raises(ValueError, match="does not have step 65; it has steps"):
        jaxrl.restore(stopped / "whole", env, step=65)
    restored = jaxrl.restore(run, env)
    assert restored.steps == 64 and restored.hparams == whole.hparams
    state, _ = jax.jit(lambda state: jaxrl.run(restored.loop, state, 6))(restored.state)
    for a, b in zip(bits(state), bits(whole.state), strict=True):
        np.testing.assert_array_equal(a, b)
    middle = jaxrl.restore(stopped / "whole", env, step=64)
    for a, b in zip(bits(restored.state), bits(middle.state), strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_the_replay_buffer_it_starts_empty(folder, monkeypatch):
    argv = [*DQN, *SMALL, "--checkpoint-steps", "64", "--no-checkpoint-replay"]
    kill(monkeypatch, 97, *argv, "--out", "run")
    with pytest.raises(ValueError, match="is not in the checkpoint"):
        open_readonly("run/checkpoints").restore(jaxrl.restore("run", toys()).state)
    state = jaxrl.restore("run", toys()).state
    assert int(state.agent.agent.agent.num_updates) > 0 and not np.any(state.agent.buffer.ring.data.reward)
    assert train("dqn", "toys:clock", "--resume", "run", "--quiet") == 0
    rows = [json.loads(line) for line in open("run/metrics.jsonl")]
    updates = {row["steps"]: row["replay/updates"] for row in rows}
    assert updates[64] > 0 and updates[80] == 0 and updates[160] > 0 and len(rows) == 10


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_what_resumes(stopped, folder, monkeypatch, number):
    append = run_directory.append

    def interrupt(out, row):
        append(out, row)
        if row["steps"] == 48:
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(run_directory, "append", interrupt)
        assert train(*DQN, *SMALL, "--checkpoint-steps", "64", "--out", "run") == 128 + number
    assert open_readonly("run/checkpoints").steps() == [0, 48]
    assert train("dqn", "toys:clock", "--resume", "run", "--quiet") == 0
    assert ending("run", toys()) == ending(stopped / "whole", toys())


def test_one_writer_a_run(run, capsys):
    with Checkpoints(run / "checkpoints"):
        before = sorted(run.rglob("*"))
        assert train("dqn", "toys:clock", "--resume", run) == 2
        err = capsys.readouterr().err
        assert "is writing there; one writer at a time" in err and err.count("\n") == 1
        assert train(*DQN, *SMALL, "--overwrite", "--out", run) == 2
        assert "is writing there" in capsys.readouterr().err
        assert sorted(run.rglob("*")) == before
    assert train(*DQN, *SMALL, "--overwrite", "--out", run, "--seed", 5) == 0
    assert open_readonly(run / "checkpoints").steps() == [0, 160]


REFUSED = {
    "--seed 1": "--seed would change",
    "--num-envs 8": "--num-envs would change",
    "--hparams.learning-rate 1": "--hparams.learning-rate would change",
    "--widths 16": "--widths would change",
    "--env.length 4": "--env.length would change",
    "--out elsewhere": "--out would change",
    "--overwrite": "--overwrite would change",
    "--init-from run": "--init-from would change",
    "--no-checkpoint-replay": "--no-checkpoint-replay would change",
    "--no-checkpoints": "--no-checkpoints would change",
    "--batch-size=9": "--batch-size would change",
    "--steps 0": "less than the 160",
    "--steps much": "invalid",
    "--updates 500": "--updates would change",
    "--keep 0": "--keep is 0, must be >= 1",
    "--checkpoint-steps -1": "--checkpoint-steps is -1, must be >= 0",
    "--checkpoint-minutes nan": "--checkpoint-minutes is nan",
    "--episodes 0": "--episodes is 0",
    "--resume run": "--resume is given twice",
    "extra": "extra",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_what_would_change_the_run_is_refused(run, capsys, flags):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert train("dqn", "toys:clock", "--resume", "run", *flags.split()) == 2
    err = capsys.readouterr().err
    assert REFUSED[flags] in err and err.count("\n") == 1 and "Traceback" not in err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_is_none_is_refused(run, folder, capsys):
    (folder / "empty").mkdir()
    (folder / "file").write_text("text")
    (folder / "strange" / "checkpoints").mkdir(parents=True)
    for argv, message in {
        "--resume nowhere": "nowhere: is not a run directory",
        "--resume file": "file: is not a run directory",
        "--resume empty": "empty: has no checkpoints",
        "--resume strange": "has no checkpoint with a config",
        "--resume": "resume",
        "--resume run": "toys:clock', which is code",
        "dqn --resume run": "which is code",
        "ppo toys:clock --resume run": "a run of dqn toys:clock, not of ppo toys:clock",
        "dqn CartPole-v1 --resume run": "not of dqn CartPole-v1",
        "dqn toys:clock more --resume run": "not of dqn toys:clock more",
    }.items():
        assert train(*argv.split()) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1 and "Traceback" not in err, (argv, err)


def forge(run, **changes):
    """Gives the newest checkpoint another configuration, with digests that are right."""
    path = manifest.path_of(run / "checkpoints", 64)
    fields = manifest.read(path)
    for name, value in changes.items():
        where, _, last = name.rpartition("__")
        node = fields["config"][where] if where else fields["config"]
        node[last] = value
        if value is None:
            del node[last]
    manifest.write(path, fields)


FORGED = [
    (dict(agent="os:system"), "a run of os:system toys:clock, not of"),
    (dict(agent=["dqn"]), "its agent is ['dqn']"),
    (dict(env__name="os:system"), "a run of dqn os:system, not of"),
    (dict(env__name=7), "its env is"),
    (dict(env__params={"length": "x" * 999}), "999 entries"),
    (dict(env__params={"no_such": 1}), "no_such"),
    (dict(static__widths=["--out", "x"]), "has '--out' for widths"),
    (dict(static__widths=8.5), "widths"),
    (dict(static__widths={"a": 1}), "for widths"),
    (dict(static__widths=None), "has no widths"),
    (dict(static__overwrite=True), "static overwrite is True in the checkpoint, and None here"),
    (dict(static__activation="__import__('os')"), "activation"),
    (dict(hparams__learning_rate="1e-3; print()"), "learning-rate"),
    (dict(hparams__discount=2.0), "--hparams.discount is 2.0, must be in [0, 1]"),
    (dict(hparams__more=1.0), "hparams more is 1.0 in the checkpoint, and None here"),
    (dict(num_envs=2**40), "must fit 32 bits"),
    (dict(num_envs=0), "its num_envs is 0"),
    (dict(num_envs=True), "its num_envs is True"),
    (dict(updates_per_chunk=3), "step 64 is not from the end of a chunk of 48"),
    (dict(steps=None), "its steps is None"),
    (dict(versions=[]), "its versions is []"),
    (dict(episodes="6"), "its episodes is '6'"),
    (dict(keep=0), "its keep is 0"),
    (dict(checkpoint_steps=-1), "its checkpoint_steps is -1"),
    (dict(checkpoint_minutes="5"), "its checkpoint_minutes is '5'"),
    (dict(checkpoint_minutes=-5.0), "--checkpoint-minutes is -5.0"),
    (dict(checkpoint_replay=3), "Unrecognized options: 3"),
    (dict(plays=False), "its plays is False"),
    (dict(offline=True, plays=False), "KeyError('dataset')"),
    (dict(files={"dataset": "0" * 64}), "its files are"),
    (dict(files={"demonstrations": "0" * 64}, demonstrations="/dev/zero"), "/dev/zero: there is no such file"),
    (dict(demonstrations="/etc/passwd"), "passwd"),
    (dict(seed=-1), "--seed is -1"),
]


@pytest.mark.parametrize(
    ("changes", "message"), FORGED, ids=[f"{i}-{next(iter(c))}" for i, (c, _) in enumerate(FORGED)]
)
def test_a_forged_configuration_ends_in_one_line(run, capsys, changes, message):
    forge(run, **changes)
    assert train("dqn", "toys:clock", "--resume", "run", "--quiet") == 2
    out, err = capsys.readouterr()
    assert message in err and err.count("\n") == 1 and "Traceback" not in err and out == ""


def test_no_checkpoint_chooses_code(run, folder, capsys):
    (folder / "sneaky.py").write_text("open('executed', 'w')\n")
    for changes in ({}, {"plays": False}, {"plays": False, "offline": True, "dataset": "d.npz", "window": 0}):
        forge(run, env__name="sneaky:make", **changes)
        for names in ([], ["dqn"]):
            assert train(*names, "--resume", "run") == 2
        with pytest.raises(ValueError):
            jaxrl.restore("run")
    assert not (folder / "executed").exists()
    forge(run, plays=True, offline=False)
    assert train("dqn", "sneaky:make", "--resume", "run") == 2  # who names it means it
    assert (folder / "executed").exists()
    capsys.readouterr()


def test_values_of_a_configuration_have_the_types_of_flags(run):
    from jaxrl.cli import resume

    config = resume.read_config(run)
    settings = resume.read_settings({**config, "seed": "7", "keep": "2"}, run, ["dqn", "toys:clock"])
    assert (settings.options["seed"], settings.options["keep"]) == (7, 2)


def test_the_dataset_must_be_the_one_that_it_was(folder, monkeypatch, capsys):
    write_data("d.npz")
    argv = ["bc", "toys:clock", "--dataset", "d.npz", *ROWS, *SMALL, "--checkpoint-steps", "40"]
    kill(monkeypatch, 60, *argv, "--out", "run")
    again = ["bc", "toys:clock", "--resume", "run", "--quiet"]
    pathlib.Path("d.npz").rename("moved.npz")
    assert train(*again) == 2 and "d.npz: there is no such file" in capsys.readouterr().err
    write_data("d.npz", seed=1)
    assert train(*again) == 2 and "--dataset d.npz is not the file that the run" in capsys.readouterr().err
    assert train(*again, "--dataset", "moved.npz") == 0
    assert json.loads(pathlib.Path("run/config.json").read_text())["dataset"] == "moved.npz"


def test_a_full_disk_ends_neither_run_nor_lines(folder, monkeypatch, capsys):
    append, failed = run_directory.append, []

    def full(out, row):
        if 48 <= row["steps"] < 80 and len(failed) < 2:
            failed.append(row["steps"])
            (out / "metrics.jsonl").open("a").write('{"steps"')  # as much as there was room for
            raise OSError(28, "No space left on device")
        append(out, row)

    monkeypatch.setattr(run_directory, "append", full)
    assert train(*DQN, *SMALL, "--out", "run") == 0
    err = capsys.readouterr().err
    assert "No space left on device; the run goes on" in err and err.count("\n") == 1
    assert [json.loads(line)["steps"] for line in open("run/metrics.jsonl")] == list(range(16, 161, 16))


def test_numbers_that_are_not_finite_stop_the_run(folder, capsys):
    (folder / "sick.py").write_text(
        "import jax.numpy as jnp\n"
        "from toys import clock\n"
        "def make():\n"
        "    env = clock(100)\n"
        "    def step(key, state, action, params):\n"
        "        state, timestep = env.step(key, state, action, params)\n"
        "        return state, timestep._replace(reward=jnp.where(state.time == 30, jnp.nan, 1.0))\n"
        "    return env._replace(step=step)\n"
    )
    argv = ["sick:make" if token == "toys:clock" else token for token in PPO]
    assert train(*argv, *SMALL, "--checkpoint-steps", "64", "--out", "run") == 1
    out, err = capsys.readouterr()
    assert "reward is not finite at environment step 116" in err and err.count("\n") == 1
    assert "run has the run as it was after 64 steps" in err and out == ""
    assert not (folder / "run" / "policy.safetensors").exists()
    assert [json.loads(line)["steps"] for line in open("run/metrics.jsonl")] == list(range(16, 113, 16))
    assert all(np.isfinite(x).all() for x in bits(jaxrl.restore("run", toys()).state.agent.params))
    assert train("ppo", "sick:make", "--resume", "run", "--debug", "--quiet") == 1
    assert "reward is not finite" in capsys.readouterr().err


def test_the_schedule(monkeypatch):
    from jaxrl.cli import saving

    class Store:
        def __init__(self):
            self.saved = []

        def save(self, step, state, *, notes, score):
            self.saved.append((step, score))

    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    store, always = Store(), {"checkpoints": True, "checkpoint_replay": True, "devices": 1}
    saver = saving.Saver(store, {**always, "checkpoint_steps": 100, "checkpoint_minutes": 1.0})
    saver.save({}, 0, {})
    for step in range(30, 400, 30):
        now[0] += 10.0
        if saver.due(step):
            saver.save({}, step, {}, float("nan") if step > 200 else 1.0)
    saver.save({}, store.saved[-1][0], {})  # what is there is not saved again
    assert store.saved == [(0, None), (120, 1.0), (210, None), (300, None)]
    off = saving.Saver(store, {**always, "checkpoint_steps": 0, "checkpoint_minutes": 0.0})
    now[0] += 1e9
    assert not off.due(10**12)


def test_no_checkpoints_on_demand(folder, capsys):
    assert train(*DQN, *SMALL, "--no-checkpoints", "--out", "run") == 0
    assert not (folder / "run" / "checkpoints").exists()
    assert train("dqn", "toys:clock", "--resume", "run") == 2 and "run: has no checkpoints" in capsys.readouterr().err


def test_kills(tmp_path, monkeypatch):
    """A bounded part of benchmarks/reliability/kills.py."""
    learner = {"dqn": " ".join(["dqn", "CartPole-v1", *DQN[2:-5], "--steps 20000 --widths 8 --episodes 2 --keep 2"])}
    learner["dqn"] += " --checkpoint-minutes 0 --checkpoint-steps 2000"
    cache = os.path.join(os.path.dirname(__file__), "../.pytest_cache/jax")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.environ.get("JAX_COMPILATION_CACHE_DIR", os.path.abspath(cache)))
    rows, broken = kills.measure(tmp_path, learner, kills=2, most=2, say=lambda *_, **__: None)
    assert (
        not broken and rows[0]["kills"] >= 2 and rows[0]["same last state"] == f"{rows[0]['runs']} of {rows[0]['runs']}"
    )
