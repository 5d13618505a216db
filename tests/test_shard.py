"""`shard`: what shards learn together is what one loop learns from all of it, on devices as under `vmap`."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shards
import toys

import jaxrl
from jaxrl import finite, parallel
from jaxrl.combinators.shard import one_of, shard
from jaxrl.factory import AGENTS, static_arguments
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Transition

KEY = jax.random.key(0)
TESTS = pathlib.Path(__file__).parent
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile


@pytest.fixture(scope="module")
def on_devices(tmp_path_factory):
    """What `shards.py` finds for these learners on 8 forced devices, and for 8 shards on one of them."""
    out = tmp_path_factory.mktemp("shards") / "found.npz"
    environ = {**os.environ, "PYTHONPATH": str(TESTS), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environ.setdefault("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    names = "ppo,sac,hierarchical,qmix"
    subprocess.run([sys.executable, TESTS / "shards.py", out, names], check=True, env=environ, timeout=600)
    return dict(np.load(out))


def test_devices_do_what_shards_on_one_device_do(on_devices):
    for name, found in on_devices.items():
        if "/mesh/" in name:
            expected = on_devices[name.replace("/mesh/", "/vmap/")]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_learners_stay_equal_to_the_bit_and_all_else_differs(on_devices):
    for agent in ("ppo", "sac"):
        of_learner = {name: x for name, x in on_devices.items() if name.startswith(f"{agent}/mesh/state/agent/")}
        for name, x in of_learner.items():
            if {"params", "opt_state", "target_params", "current", "statistics"} & set(name.split("/")):
                assert (x == x[:1]).all(), name
        keys = on_devices[f"{agent}/mesh/state/key"]
        places = on_devices[f"{agent}/mesh/state/interaction/observation"][:, 0, 1]
        assert len(np.unique(keys, axis=0)) == len(np.unique(places)) == shards.SHARDS
        assert any("/params/" in name and "kernel" in name for name in of_learner)
    stored = on_devices["sac/mesh/state/agent/buffer/ring/data/observation"]
    assert len(np.unique(stored[:, :, 0, 1], axis=0)) == shards.SHARDS
    assert on_devices["ppo/mesh/state/agent/current/count"][0] == 4 * shards.SHARDS * shards.UPDATES


def test_metrics_are_those_of_all(on_devices):
    count = on_devices["ppo/mesh/metrics/episode/count"]
    assert count.shape == (shards.UPDATES,) and count.sum() == shards.SHARDS * (4 * shards.UPDATES // 3)
    np.testing.assert_array_equal(on_devices["ppo/mesh/metrics/episode/return_sum"], 3 * count)
    assert on_devices["sac/mesh/metrics/replay/updates"].max() == 2


def test_one_of_is_what_a_shard_holds(on_devices):
    for name, x in on_devices.items():
        if "/one/" in name:
            np.testing.assert_array_equal(x, on_devices[name.replace("/one/", "/mesh/state/")][0])


# Agents whose update draws nothing that matters: agent, static arguments, numbers, action space.
PLANE = Box(-2.0, 2.0, (2,))
EXACT = {
    # One shard alone would stop early, all together do not.
    "ppo": (dict(normalize_advantage="minibatch", kl_early_stop=True), dict(target_kl=0.02), Discrete(3)),
    "pqn": ({}, {}, Discrete(3)),
    "dqn": ({}, {}, Discrete(3)),
    "td3_bc": ({}, dict(target_noise=0.0), PLANE),
    "xql": ({}, {}, PLANE),
    "odice": ({}, {}, PLANE),
}


def batch(space, shape):
    """Random rows, an uneven part of them at weight 0."""
    keys = iter(jax.random.split(jax.random.key(5), 12))
    normal = lambda *more: jax.random.normal(next(keys), (*shape, *more))  # noqa: E731
    action = jax.vmap(space.sample)(jax.random.split(next(keys), int(np.prod(shape))))
    action = action.reshape(*shape, *action.shape[1:])
    ends = [jax.random.uniform(next(keys), shape) < 0.2 for _ in range(2)]
    weight = (jnp.arange(np.prod(shape)).reshape(shape) % 7 > 2).astype(jnp.float32)
    extras = {"weight": weight, "next_action": action, "log_prob": -1.0 + 0.1 * normal(), "value": normal()}
    extras |= {"raw_action": action}
    return Transition(normal(2), action, normal(), *ends, normal(2), extras)


@pytest.mark.parametrize("name", EXACT)
def test_shards_learn_what_one_loop_learns_from_all_rows(name):
    agent_name, (static, numbers, space) = name.partition("-")[0], EXACT[name]
    recipe, env = AGENTS[agent_name], toys.clock(3)._replace(action_space=space)
    offline = recipe.offline
    small = dict(widths=(4,), num_minibatches=1, num_epochs=2) | static
    allowed = static_arguments(recipe, offline)
    small = {k: v for k, v in small.items() if k in allowed}
    agent, hparams = jaxrl.make_agent(agent_name, env, offline=offline, **small)
    hparams = jaxrl.tree.replace_fields(hparams, **numbers)
    shape, axis = ((12,), 0) if offline else ((3, 8), 1)
    data = batch(space, shape)

    def split(x):
        return jnp.moveaxis(x.reshape(*x.shape[:axis], 4, -1, *x.shape[axis + 1 :]), axis, 0)

    def both(key, whole, theirs):
        update = jax.vmap(agent.update, in_axes=(None, 0, 0), axis_name=parallel.SHARDS)
        return agent.update(key, whole, data), update(key, theirs, jax.tree.map(split, data))

    def start():
        state = agent.init(KEY, hparams, data)
        return state, jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *x.shape)), state)

    both, (before, parts) = jax.jit(both, compiler_options=FAST), jax.jit(start, compiler_options=FAST)()
    whole = before
    for key in jax.random.split(KEY):
        (whole, metrics), (parts, theirs) = both(key, whole, parts)
    moved = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(before))]
    assert max(moved) > 1e-4
    for got, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole)):
        assert (got == got[:1]).all()
        np.testing.assert_allclose(got[0], expected, rtol=2e-4, atol=2e-6)
    for metric, value in metrics.items():
        if metric != "priority":
            np.testing.assert_allclose(theirs[metric].mean(), value, rtol=2e-4, atol=2e-6, err_msg=metric)


def test_a_step_of_shards_is_that_of_one_loop_with_all_environments():
    """PQN without exploration in environments that draw nothing: the rollouts are the same, and so is what follows."""
    env = toys.clock(100)
    agent, hparams = jaxrl.make_agent("pqn", env, widths=(4,), num_minibatches=1, num_epochs=2)
    hparams = jaxrl.tree.replace_fields(hparams, epsilon_start=0.0, epsilon_end=0.0, decay_steps=100.0)
    sharded = shard(jaxrl.online(agent, env, num_envs=2, unroll_length=2), 4)  # no episode ends here
    whole = jaxrl.online(agent, env, num_envs=8, unroll_length=2)

    def both(key):
        start = sharded.init(key, hparams)
        columns = jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), start.interaction._replace(params=()))
        interaction = columns._replace(params=env.params)
        one = whole.init(key, hparams)._replace(interaction=interaction, agent=one_of(start.agent))
        return jaxrl.run(sharded, start, 2), jaxrl.run(whole, one, 2)

    (parts, metrics), (state, expected) = jax.jit(both, compiler_options=FAST)(KEY)
    for got, x in zip(jax.tree.leaves(one_of(parts.agent)), jax.tree.leaves(state.agent)):
        np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-6)
    assert metrics.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_allclose(metrics[name], x, rtol=1e-4, atol=1e-6, err_msg=name)
    assert state.agent.num_steps.rounded == 32 and parts.agent.num_steps.rounded[0] == 32


def test_numbers_that_are_not_finite_are_found_where_they_are():
    """Shard 2 of 3 has the first NaN, in its column 1 of step 0: column 5 of all."""
    reward = np.zeros((3, 2, 2), np.float32)
    reward[2, 0, 1] = reward[1, 1, 0] = np.nan

    def rows(reward):
        zeros = jnp.zeros_like(reward)
        data = Transition(zeros, zeros, reward, zeros > 0, zeros > 0, zeros, {})
        return finite.in_rollout(data, jnp.ones(2, bool))["nonfinite/reward_first"]

    np.testing.assert_array_equal(jax.vmap(rows, axis_name=parallel.SHARDS)(jnp.asarray(reward)), [5, 5, 5])
    np.testing.assert_array_equal(jax.vmap(rows, axis_name=parallel.SHARDS)(jnp.zeros((3, 2, 2))), [-1, -1, -1])


def test_without_shards_nothing_is_exchanged():
    x = {"a": jnp.arange(3.0)}
    assert parallel.mean(x) is parallel.sum(x) is parallel.max(x) is x and parallel.num_shards() == 1
    assert parallel.own(KEY) is KEY
    for over in (0, "all", jax.make_mesh((1,), ("members",))):
        with pytest.raises(ValueError, match="shard: over is .*must be a mesh with one axis 'shards', or a number"):
            shard(None, over)
