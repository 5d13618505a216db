"""Policy files: what goes in comes out, what is broken is said in one line, and nothing in a file runs."""

import json
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from toys import clock

from jaxrl import policy_file
from jaxrl.factory import make_agent
from jaxrl.keys import is_key
from jaxrl.loop import example_data
from jaxrl.policy_file import load, load_policy, restore, save_policy

HEADER = {"agent": "ppo", "env": {"name": "CartPole-v1", "params": {}}, "static": {}, "num_envs": 2, "unroll_length": 3}
STATIC = {"widths": (8,), "normalize_observation": True}


class Node(NamedTuple):
    weight: jax.Array
    inner: dict


def tree():
    inner = {"a": [jnp.arange(3), jnp.zeros((0, 2))], "b": jnp.uint8(7), "key": jax.random.key(3), "empty": ()}
    return Node(jnp.full((2, 3), 1.5, jnp.bfloat16), inner)


def check_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert a.dtype == b.dtype and a.shape == b.shape
        if not is_key(a):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def one_line(error):
    text = str(error.value)
    assert "\n" not in text and text
    return text


def test_arrays_and_header_come_back(tmp_path):
    path = tmp_path / "p.safetensors"
    save_policy(path, tree(), {"note": "ünï", "list": [1, 2.5, None]})
    arrays, header = load_policy(path)
    assert header == {"schema": policy_file.SCHEMA, "note": "ünï", "list": [1, 2.5, None]}
    assert sorted(arrays) == ["inner/a/0", "inner/a/1", "inner/b", "weight"]  # no key
    check_equal(tree(), restore(jax.eval_shape(tree), arrays))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_single_array_is_a_tree(tmp_path):
    save_policy(tmp_path / "p", jnp.ones(2), {})
    check_equal(jnp.ones(2), restore(jnp.zeros(2), load_policy(tmp_path / "p")[0]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda t: t._replace(weight=jnp.zeros((2, 4), jnp.bfloat16)),
            ["'weight' is bfloat16[2, 3]", "bfloat16[2, 4]"],
        ),
        (lambda t: t._replace(weight=jnp.zeros((2, 3))), ["'weight' is bfloat16[2, 3], must be float32[2, 3]"]),
        (lambda t: t._replace(inner={**t.inner, "new": jnp.ones(1)}), ["'inner/new' is missing"]),
        (lambda t: t._replace(inner={"b": t.inner["b"]}), ["'inner/a/0' is unexpected", "'inner/a/1' is unexpected"]),
        (lambda t: {"x": t.weight}, ["'x' is missing", "'weight' is unexpected", "'inner/b' is unexpected"]),
    ],
)
def test_every_mismatch_is_named_in_one_line(tmp_path, change, says):
    save_policy(tmp_path / "p", tree(), {})
    with pytest.raises(ValueError) as error:
        restore(change(tree()), load_policy(tmp_path / "p")[0])
    for text in says:
        assert text in one_line(error)


def test_names_that_collide_are_refused(tmp_path):
    with pytest.raises(ValueError, match="same key path"):
        save_policy(tmp_path / "p", {"a": {"b": jnp.ones(1)}, "a/b": jnp.ones(1)}, {})
    assert not list(tmp_path.iterdir())


def test_a_header_that_is_not_json_is_refused_before_anything_is_written(tmp_path):
    for header in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            save_policy(tmp_path / "p", jnp.ones(1), header)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p"
    save_policy(path, jnp.ones(1), {"version": 1})

    def full(source, target):
        raise OSError("no space left")

    monkeypatch.setattr(policy_file.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_policy(path, jnp.zeros(1), {"version": 2})
    assert load_policy(path)[1]["version"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_every_truncated_file_is_refused(tmp_path):
    save_policy(tmp_path / "p", {"x": jnp.ones(4)}, {"note": "abc"})
    data = (tmp_path / "p").read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ValueError) as error:
            load_policy(tmp_path / "cut")
        assert "cut" in one_line(error)


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path):
    save_policy(tmp_path / "p", {"x": jnp.ones(4), "flag": jnp.bool_(True)}, {"note": "abc"})
    data, random = (tmp_path / "p").read_bytes(), np.random.default_rng(0)
    for position in range(len(data)):
        changed = bytes([data[position] ^ 1 << random.integers(8)])
        (tmp_path / "bad").write_bytes(data[:position] + changed + data[position + 1 :])
        with pytest.raises(ValueError) as error:
            load_policy(tmp_path / "bad")
        assert "bad" in one_line(error)
    assert "digest is wrong" in one_line(error)


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "p"
    cases = {
        "no jaxrl header": lambda: save_file({"x": np.ones(1)}, path),
        "no jaxrl header ": lambda: save_file({"x": np.ones(1)}, path, metadata={"jaxrl": "[1]"}),
        "schema 99": lambda: save_file({"x": np.ones(1)}, path, metadata={"jaxrl": json.dumps({"schema": 99})}),
        "digest is missing": lambda: save_file({"x": np.ones(1)}, path, metadata={"jaxrl": json.dumps({"schema": 2})}),
        "not a readable": lambda: path.write_bytes(b"\x80\x04\x95pickle"),
        "no such file": lambda: path.unlink(),
    }
    for says, write in cases.items():
        write()
        with pytest.raises(ValueError) as error:
            load_policy(path)
        assert says.strip() in one_line(error)


@pytest.fixture(scope="module")
def trained():
    """A PPO agent for CartPole whose normaliser has seen something, by init and observe alone."""
    from jaxrl import envs

    env = envs.make("CartPole-v1")
    agent, hparams = make_agent("ppo", env, **STATIC)
    state = agent.init(jax.random.key(1), hparams, example_data(env, 2, 3))
    statistics = jax.tree.map(lambda x: x + 0.5, state.current)
    return agent, state._replace(current=statistics, pending=statistics)


def test_a_loaded_agent_acts_like_the_one_that_was_saved(tmp_path, trained):
    agent, state = trained
    header = {**HEADER, "static": {k: list(v) if isinstance(v, tuple) else v for k, v in STATIC.items()}}
    save_policy(tmp_path / policy_file.FILE_NAME, agent.actor(state), header)
    arrays, _ = load_policy(tmp_path / policy_file.FILE_NAME)
    assert any("current" in name for name in arrays)  # the normaliser is in it
    assert not any("opt_state" in name or "pending" in name for name in arrays)
    observation = jax.random.normal(jax.random.key(2), (5, 4))
    for path in (tmp_path, tmp_path / policy_file.FILE_NAME):
        loaded, actor = load(path)
        check_equal(actor, agent.actor(state))
        for act in ("act", "act_greedy"):
            key, memory = jax.random.key(4), agent.init_memory(jax.random.key(3), state, observation)
            expected = getattr(agent, act)(key, state, memory, observation)
            check_equal(getattr(loaded, act)(key, actor, memory, observation), expected)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"agent": "nope"}, "nope"),
        ({"env": {"name": "CartPole-v9", "params": {}}}, "CartPole-v9"),
        ({"env": {"name": "CartPole-v1", "params": {"x": 1}}}, "x"),
        ({"env": "CartPole-v1"}, "header lacks"),
        ({"static": {"widths": [16], "normalize_observation": True}}, "must be float32[4, 16]"),
        ({"static": {"depth": 3}}, "depth"),
        ({"static": 3}, "p: "),
        ({"static": None}, "p: "),
    ],
)
def test_headers_that_do_not_fit_are_one_line(tmp_path, trained, header, says):
    agent, state = trained
    header = {**HEADER, "static": {"widths": [8], "normalize_observation": True}, **header}
    save_policy(tmp_path / "p", agent.actor(state), header)
    with pytest.raises(ValueError) as error:
        load(tmp_path / "p")
    assert says in one_line(error)


@pytest.mark.parametrize("missing", ["agent", "env", "static", "num_envs", "unroll_length"])
def test_headers_that_lack_something_are_one_line(tmp_path, missing):
    save_policy(tmp_path / "p", jnp.ones(1), {k: v for k, v in HEADER.items() if k != missing})
    with pytest.raises(ValueError, match=missing):
        load(tmp_path / "p")


def test_a_file_never_chooses_code_to_run(tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    save_policy(tmp_path / "p", jnp.ones(1), {**HEADER, "env": {"name": "evil_module:run", "params": {}}})
    with pytest.raises(ValueError, match="give it as `env`"):
        load(tmp_path / "p")
    assert "evil_module" not in sys.modules


def test_a_users_environment_is_an_argument(tmp_path):
    env = clock()
    agent, hparams = make_agent("ppo", env, widths=(8,))
    state = agent.init(jax.random.key(1), hparams, example_data(env, 2, 3))
    header = {**HEADER, "env": {"name": "toys:clock", "params": {}}, "static": {"widths": [8]}}
    save_policy(tmp_path / "p", agent.actor(state), header)
    check_equal(load(tmp_path / "p", env=env)[1], agent.actor(state))
