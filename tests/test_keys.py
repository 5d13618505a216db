"""Keys: what our checker finds, what it leaves alone, and that the library uses each key once."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl import key_reuse
from jaxrl import keys as keys_
from jaxrl.data import collect
from jaxrl.loop import run

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"))

import key_cases  # noqa: E402
import keys  # noqa: E402

KEY = jax.random.key(0)


def test_what_is_found_and_what_is_left_alone():
    bad, good = keys.cases()
    assert len(bad) == 29 and [name for name, (_, ours) in bad.items() if not ours] == []
    assert len(good) == 28 and [name for name, (_, ours) in good.items() if ours] == []
    # What makes a checker of our own worth its lines; a jax that finds more may take some away.
    eleven = [f.__name__ for f in key_cases.ELEVEN]
    assert [name for name in eleven if not bad[name][0]] == ["fold_in_twice", "vmap_closure", "returned"]


def test_split_and_fold_in_make_the_same_keys():
    """Why `fold_in(key, 1)` beside `split(key)` is a finding, and why salts are far from small integers."""
    split = jax.random.key_data(jax.random.split(KEY, 3))
    folded = [jax.random.key_data(jax.random.fold_in(KEY, i)) for i in range(3)]
    np.testing.assert_array_equal(split, np.stack(folded))


def test_a_finding_names_the_places():
    (problem,) = key_reuse.check(key_cases.index_twice, KEY)
    first, line = "key_cases.py", key_cases.index_twice.__code__.co_firstlineno + 2
    assert problem.startswith("a key is used twice: at ") and f"{first}:{line}:" in problem
    (problem,) = key_reuse.check(key_cases.returned, KEY)
    assert problem.endswith("(draw) is returned")


@pytest.mark.parametrize("name", keys.QUICK)
def test_training_uses_each_key_once(name):
    train = keys.training(name)
    assert not keys.jax_finds(train, KEY)
    assert key_reuse.check(train, KEY) == []


def test_every_agent_is_in_the_table():
    assert {agent for agent, _, _ in keys.TRAININGS.values()} == set(jaxrl.factory.AGENTS)


def trained(loop, hparams=None):
    return key_reuse.check(lambda key: run(loop, loop.init(key, hparams), 2), KEY)


def test_bugs_in_training_are_found(monkeypatch):
    env = toys.clock(3)
    agent, hparams = jaxrl.make_agent("dqn", env, widths=(4,), buffer_size=48, min_buffer_size=8, batch_size=4)
    make = lambda agent: jaxrl.online(agent, env, num_envs=2, unroll_length=4)  # noqa: E731
    loop = make(agent)
    stays = loop._replace(step=lambda state: (loop.step(state)[0]._replace(key=state.key), {}))
    assert "same key is used in every iteration" in " ".join(trained(stays, hparams))
    noise = env._replace(reset=lambda key, params: (env.reset(key, params)[0], jax.random.normal(KEY, (2,))))
    assert "use the same key" in " ".join(trained(jaxrl.online(agent, noise, num_envs=2, unroll_length=4), hparams))
    assert trained(loop, hparams) == []
    monkeypatch.setattr("jaxrl.combinators.replay.salted", lambda key: key)
    assert "used twice" in " ".join(trained(make(jaxrl.make_agent("dqn", env, widths=(4,), batch_size=4)[0]), hparams))


def test_equal_operands_are_the_same_key_and_others_are_not():
    def both(key, a, b):
        return [jax.random.uniform(jax.random.fold_in(key, i)) for i in (a * 2, b * 2)]

    numbers = jnp.int32(3), jnp.int32(4)
    assert key_reuse.check(both, KEY, *numbers) == []
    assert len(key_reuse.check(lambda key, a: both(key, a, a), KEY, numbers[0])) == 1


@pytest.mark.parametrize(
    "key, message",
    [
        (jnp.zeros(2, jnp.uint32), r"key is an array uint32\[2\], must be a typed key: jax.random.key\(seed\)"),
        (0, r"key is int, must be a typed key: jax.random.key\(seed\)"),
        (jax.random.split(KEY, 2), r"key has shape \[2\], must be one key: use jax.vmap over several"),
    ],
)
def test_what_is_no_typed_key_is_refused_in_one_line(key, message):
    env = toys.clock(3)
    agent, _ = jaxrl.make_agent("ppo", env)
    with pytest.raises(ValueError, match=f"^evaluate: {message}$"):
        jaxrl.evaluate(key, agent, (), env)
    with pytest.raises(ValueError, match=f"^online: {message}$"):
        jaxrl.online(agent, env, num_envs=2, unroll_length=2).init(key)
    with pytest.raises(ValueError, match=f"^offline: {message}$"):
        jaxrl.offline(agent, jnp.zeros((4, 2)), batch_size=2).init(key)
    with pytest.raises(ValueError, match=f"^collect: {message}$"):
        collect(key, agent, (), env, 16)


def test_shapes_are_enough():
    key = jax.ShapeDtypeStruct((), KEY.dtype)
    assert len(key_reuse.check(key_cases.direct, key)) == 1
    assert key_reuse.check(key_cases.scan_split, key) == []


@pytest.mark.parametrize("n", [1, 2, 3, 1000, 65_537, 2**31 - 1])
def test_integers_are_the_high_half_of_a_product(n):
    """Exactly, in 64 bits; and every number of a few is as likely as the others."""
    found = np.asarray(keys_.integers(KEY, (4096,), n))
    bits = np.asarray(jax.random.bits(KEY, (4096,), "uint32"), np.uint64)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, (bits * np.uint64(n) >> np.uint64(32)).astype(np.int32))
    if n <= 3:
        counts = np.bincount(found, minlength=n)
        assert (np.abs(counts - 4096 / n) < 5 * np.sqrt(4096)).all()


def test_integers_below_several_numbers():
    found = jax.vmap(lambda key: keys_.integers(key, (2,), jnp.array([2, 10])))(jax.random.split(KEY, 500))
    np.testing.assert_array_equal(found.max(0), [1, 9])
