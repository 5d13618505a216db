"""Two processes on this machine as one run, beside the same shards on one device; and what is said of wrong flags."""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl.checkpoints import open_readonly
from jaxrl.cli import hosts, main
from jaxrl.combinators.shard import shard
from jaxrl.policy_file import load_policy, named_leaves

RUN = ["ppo", "CartPole-v1", "--num-envs", "4", "--unroll-length", "4", "--widths", "4", "--num-minibatches", "2"]
RUN += ["--num-epochs", "2", "--episodes", "4", "--hparams.decay-steps", "inf"]
STEPS = 96


def together(folder, *commands):
    """Two processes with one device each, which do one command after the other; what they print."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environ = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environ |= {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    environ.setdefault("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    where = ["--coordinator", address, "--num-processes", "2", "--process-id"]  # once for all commands
    code = "import sys; from jaxrl.cli import main; assert not any(main(argv) for argv in {})"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environ)
    every = [[["train", *commands[0], *where, str(i)], *(["train", *c] for c in commands[1:])] for i in range(2)]
    processes = [subprocess.Popen([sys.executable, "-c", code.format(argv)], **pipes) for argv in every]
    try:
        said = [process.communicate(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two processes, half of it resumed; what they printed."""
    folder = tmp_path_factory.mktemp("two")
    first = [*RUN, "--steps", str(STEPS // 2), "--out", "run"]
    return folder / "run", together(folder, first, ["--resume", "run", "--steps", str(STEPS)])


@pytest.fixture(scope="module")
def alone():
    """State and metrics of the same run as two shards on one device."""
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, preset="CartPole-v1", widths=(4,), num_minibatches=2, num_epochs=2)
    hparams = jaxrl.tree.replace_fields(hparams, decay_steps=float("inf"))
    loop = shard(jaxrl.online(agent, env, num_envs=2, unroll_length=4), 2)
    key = jax.random.split(jax.random.key(0))[0]
    cheap = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile
    train = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), STEPS // 16), compiler_options=cheap)
    return train(key)


def test_one_process_writes_and_prints(run):
    (out, _), others = run[1]
    assert out.count("on 2 devices of 2 processes") == out.count("mean return") == 2
    assert f"resumed after {STEPS // 2} steps" in out
    assert [line for text in others for line in text.splitlines() if "Gloo" not in line] == []
    config = json.loads((run[0] / "config.json").read_text())
    assert config["devices"] == 2 and config["num_envs"] == 4
    assert json.loads((run[0] / "result.json").read_text())["episodes"] == 4


def test_metrics_are_those_of_one_device(run, alone):
    rows = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows] == list(range(16, STEPS + 1, 16))
    for i, row in enumerate(rows):
        assert row["episode/count"] == alone[1]["episode/count"][i]
        for name in ("policy_loss", "value_loss", "entropy", "learning_rate"):
            np.testing.assert_allclose(row[name], alone[1][name][i], rtol=1e-4, atol=1e-6)


def test_what_was_learned_and_saved_is_that_of_one_device(run, alone):
    learned, _ = load_policy(run[0] / "learner.safetensors")
    for name, expected in named_leaves(jax.tree.map(lambda x: x[0], alone[0].agent)):
        np.testing.assert_allclose(learned[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)
    saved = open_readonly(run[0] / "checkpoints").restore(jax.eval_shape(lambda: alone[0]))
    assert saved.step == STEPS
    keys = jax.random.key_data(saved.state.key)
    np.testing.assert_array_equal(keys, jax.random.key_data(alone[0].key))
    assert (keys[0] != keys[1]).any()


@pytest.mark.parametrize(
    ("flags", "line"),
    {
        ("--devices 3",): "--devices is '3', must be all or in [1, 1], the number of devices here",
        ("--devices none",): "--devices is 'none', must be all or in [1, 1], the number of devices here",
        ("--coordinator localhost:1",): "several processes need all of --coordinator, --num-processes, --process-id",
        ("--num-processes 2 --process-id 0",): "several processes need all of --coordinator",
        ("--coordinator=localhost:1 --num-processes 2 --process-id 2",): "--process-id is 2, must be in [0, 2)",
        ("--coordinator=localhost:1 --num-processes two --process-id 2",): "--num-processes is 'two', must be a number",
        ("--process-id 1 --process-id=2",): "--process-id is given twice",
        ("--coordinator",): "--coordinator: a value is missing",
    }.items(),
)
def test_wrong_flags_end_in_one_line(flags, line, capsys):
    assert main(["train", *RUN, "--quiet", *flags[0].split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"jaxrl: {line}") and said.count("\n") == 1


def test_sizes_are_shared_out():
    sizes = {"batch_size": 64, "buffer_size": 1001}
    assert hosts.share(sizes, 8, "batch_size") == {"batch_size": 8, "buffer_size": 126}
    with pytest.raises(hosts.BadInput, match="--batch-size is 64, must be a multiple of the 3 devices"):
        hosts.share(sizes, 3, "batch_size")
