"""Numbers that are not finite: counted exactly, named in one line, at no change of what is learned; --debug."""

import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from actor_critics import action_critic, batch, constant

import jaxrl
from jaxrl import finite
from jaxrl.agents.ppo import ppo
from jaxrl.agents.td3 import td3
from jaxrl.cli import debug, health, main
from jaxrl.combinators.checked import checked
from jaxrl.distributions import diagonal_gaussian
from jaxrl.envs.divergence import mask_divergence
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Env, Policy, TimeStep, Transition

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"))

import nonfinite  # noqa: E402

KEY = jax.random.key(2)
BAD = (np.nan, np.inf, -np.inf)


def test_what_is_planted_is_reported():
    """Rewards, observations of steps and of resets, parameters, metrics; see the script."""
    rows, broken = nonfinite.report(num_runs=8, updates=12, agents=("ppo",))
    assert not broken and [row["planted in"] for row in rows] == [f"{kind}s" for kind in nonfinite.KINDS]
    assert all(row["planted"] >= row["runs with some"] >= 2 for row in rows), rows


def random_rollout(random, shape):
    """Few bad numbers, many ends; observations of each agent, of all together, and of integers."""

    def floats(*more):
        x = random.normal(size=(*shape, *more)).astype(np.float32)
        return np.where(random.random(x.shape) < 0.03, random.choice(BAD, x.shape), x).astype(np.float32)

    def observation():
        return {
            "own": floats(2),
            "all": floats(3)[:, :, 0] if len(shape) > 2 else floats(3),
            "count": np.ones(shape, int),
        }

    ended = np.broadcast_to(random.random((*shape[:2], *[1] * (len(shape) - 2))) < 0.3, shape)
    extras = {"weight": (random.random(shape) < 0.7).astype(np.float32)} if random.random() < 0.5 else {}
    action = np.zeros(shape, np.int32)
    return Transition(observation(), action, floats(), ended, ~ended & ended, observation(), extras)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 2)])
def test_counts_against_plain_loops(shape):
    random, seen = np.random.default_rng(len(shape)), np.zeros(2)
    for _ in range(12):
        data, is_start = random_rollout(random, shape), random.random(4) < 0.5
        there = data.extras.get("weight", np.ones(shape)) > 0
        rewards, observations = [], []

        def bad_at(x, t, n):
            own = any(there[t, n].flat[a] and not np.isfinite(x["own"][t, n].reshape(-1, 2)[a]).all()
                      for a in range(there[t, n].size))  # fmt: skip
            return own or (there[t, n].any() and not np.isfinite(x["all"][t, n]).all())

        for t in range(5):
            for n in range(4):
                rewards += [t * 4 + n] * int((there[t, n] & ~np.isfinite(data.reward[t, n])).sum())
                if (is_start[n] if t == 0 else data.terminated[t - 1, n].all()) and bad_at(data.observation, t, n):
                    observations.append(t * 4 + n)
                if bad_at(data.next_observation, t, n):
                    observations.append(t * 4 + n)
        found = finite.in_rollout(jax.tree.map(jnp.asarray, data), jnp.asarray(is_start))
        assert found["nonfinite/reward_count"] == len(rewards)
        assert found["nonfinite/observation_count"] == len(observations)
        assert found["nonfinite/reward_first"] == (rewards[0] if rewards else -1)
        assert found["nonfinite/observation_first"] == (observations[0] if observations else -1)
        seen += len(rewards) > 0, len(observations) > 0
    assert (seen > 3).all()


def test_hyperparameters_may_be_infinite():
    state = {
        "hparams": {"clip": jnp.float32(np.inf)},
        "params": jnp.array([1.0, np.nan, np.inf]),
        "count": jnp.int32(1),
    }
    assert finite.in_parameters(state) == {"nonfinite/parameter_count": 2}
    assert [name for name, _ in finite.parameters(state)] == ["params"]


def test_nothing_learned_changes():
    env = toys.clock(3)
    agent = ppo(*toys.actor_and_critic(env), num_epochs=2, num_minibatches=2)
    loop = jaxrl.online(agent, env, num_envs=4, unroll_length=4)
    run = lambda: jaxrl.run(loop, loop.init(KEY), 4)  # noqa: E731
    state, metrics = jax.jit(lambda: run())()
    with mock.patch.multiple(finite, in_rollout=lambda *_: {}, in_parameters=lambda _: {}):
        plain, fewer = jax.jit(lambda: run())()
    jax.tree.map(np.testing.assert_array_equal, state.agent, plain.agent)
    jax.tree.map(np.testing.assert_array_equal, health.without_checks(metrics), fewer)
    assert len(metrics) == len(fewer) + 5


class Learner(dict):
    """A loop's state whose learner has these arrays."""

    agent = property(dict)


def clean(updates=4):
    zeros, none = np.zeros(updates, np.int32), np.full(updates, -1)
    names = {f"nonfinite/{n}_count": zeros for n in ("reward", "observation", "parameter")}
    firsts = {f"nonfinite/{n}_first": none for n in ("reward", "observation")}
    return names | firsts | {"loss": np.zeros(updates), "episode/return_sum": np.zeros(updates)}


def changed(metrics, **values):
    """`metrics` with {name: (update, value)}."""
    metrics = {name: np.array(x) for name, x in metrics.items()}
    for name, (update, value) in values.items():
        metrics[name if name in metrics else f"nonfinite/{name}"][update] = value
    return metrics


FINE = Learner(params={"policy": np.zeros(3)}, hparams=np.array(np.inf))


@pytest.mark.parametrize(
    "planted, state, sizes, line",
    [
        ({}, FINE, (5, 8), None),
        ({"episode/return_sum": (1, np.nan)}, FINE, (5, 8), None),  # a sum of rewards
        (
            dict(reward_count=(2, 3), reward_first=(2, 17)),
            FINE,
            (5, 8),
            "reward is not finite at environment step 10,000,000,000,097 (environment 1, update 250,000,000,003), "
            "3 in all",
        ),
        (  # a row earlier, and an update later
            dict(reward_count=(2, 1), reward_first=(2, 17), observation_count=(2, 2), observation_first=(2, 9))
            | {"loss": (3, np.inf)},
            FINE,
            (5, 8),
            "observation is not finite at environment step 10,000,000,000,089 (environment 1, update 250,000,000,003), "
            "2 in all; then reward (1), metric loss (1)",
        ),
        (
            {"loss": (1, np.nan), "parameter_count": (1, 7)},
            Learner(params={"critic": np.array([np.nan, 1.0])}),
            None,
            "metric loss is not finite at update 10,000,000,002, 1 in all; then parameter params/critic (7)",
        ),
        (  # what no metric has seen yet, and would be saved
            {},
            Learner(params={"critic": np.array([np.nan, 1.0, np.inf])}, hparams=np.array(np.nan)),
            (1, 1),
            "parameter params/critic is not finite at update 10,000,000,004, 2 in all",
        ),
        ({"parameter_count": (0, 2)}, FINE, (1, 1), "a parameter is not finite at update 10,000,000,001, 2 in all"),
    ],
)
def test_the_line(planted, state, sizes, line):
    """Steps are exact integers far beyond 2**31."""
    steps = 10**10 if sizes in (None, (1, 1)) else 10**13
    assert health.problem(changed(clean(), **planted), steps, sizes, state) == line


def test_the_line_of_a_population():
    metrics = clean() | {"loss": np.array([[0, 0], [0, 0], [0, np.nan], [np.nan] * 2])}
    assert health.problem(metrics, 0, (1, 2), FINE) == "metric loss is not finite at update 3, 3 in all"


def rocket():
    """Velocity doubles with thrust and overflows; a reset starts anew. Observation: velocity."""

    def reset(key, params):
        return jnp.float32(1e30), jnp.array([1e30])

    def step(key, state, action, params):
        state = state * 1e5 * (1 + action)
        observation = jnp.stack([state])
        return state, TimeStep(observation, -state, state < 0, jnp.bool_(False), {"cost": state})

    return Env(reset, step, (), Box(-np.inf, np.inf, (1,)), Discrete(2))


def test_divergence_is_masked_counted_and_reset():
    env = mask_divergence(rocket())
    agent = toys.idle_agent(env)._replace(update=lambda key, state, data: (state, {"data": data}))
    loop = jaxrl.online(agent, env, num_envs=3, unroll_length=4)
    state, metrics = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY), 2))()
    data = metrics.pop("data")  # [2, 4, 3]: 1e35, overflow, 1e35, overflow, ...
    even = np.arange(4) % 2 == 0
    np.testing.assert_array_equal(data.truncated[0, :, 0], ~even)
    assert not data.terminated.any()
    np.testing.assert_allclose(data.next_observation[0, :, 0, 0], 1e35, rtol=1e-6)
    np.testing.assert_allclose(data.reward[0, :, 0], np.where(even, -1e35, 0), rtol=1e-6)
    np.testing.assert_array_equal(data.extras["diverged"][0, :, 0], ~even)
    assert np.isfinite(data.extras["cost"]).all()
    np.testing.assert_array_equal(metrics["episode/diverged_sum"], [6, 6])
    np.testing.assert_array_equal(metrics["episode/count"], [6, 6])
    metrics = jax.device_get(metrics)
    assert health.problem(metrics, 0, (4, 3), state) is None
    assert "diverged in 12 of 12 episodes" in health.divergence(metrics)
    assert (
        health.divergence({"episode/diverged_sum": np.array([1, 0]), "episode/count": np.array([60.0, 40.0])}) is None
    )
    assert health.divergence({"episode/diverged_sum": np.array([1, 1]), "episode/count": np.array([60.0, 40.0])})
    assert health.divergence({"episode/count": np.array([60.0])}) is None


def test_divergence_without_a_mask():
    loop = jaxrl.online(toys.idle_agent(rocket()), rocket(), num_envs=3, unroll_length=4)
    state, metrics = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY), 2))()
    line = health.problem(jax.device_get(metrics), 0, (4, 3), state)
    assert line.startswith("observation is not finite at environment step 3 (environment 0, update 1), 21 in all")


def test_a_loss_offline():
    """Rewards of a dataset that are not finite: the metric of the first update, then the parameters."""
    data = batch(8, dims=(3, 2))._replace(reward=jnp.full(8, np.nan))
    agent = td3(Policy(constant(jnp.zeros(4)), diagonal_gaussian((2,), -2.0, 1.0)), action_critic())
    loop = jaxrl.offline(agent, data, batch_size=4)
    state, metrics = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY), 3))()
    line = health.problem(jax.device_get(metrics), 100, None, state)
    assert line.startswith("metric critic_loss is not finite at update 101, 3 in all"), line


# --debug -------------------------------------------------------------------------------------------------------------


def spoil(x, when):
    return jnp.where(when, jnp.log(x - 2.0), x)  # the line


def tricky(kind="", late=9):
    """The clock, which after `late` steps of an episode does what no environment may."""
    env = toys.clock(20)

    def step(key, state, action, params):
        inner, timestep = env.step(key, state, action, params)
        now = inner.time > late
        if kind == "reward":
            timestep = timestep._replace(reward=spoil(timestep.reward, now))
        if kind == "observation":
            timestep = timestep._replace(observation=jnp.where(now, -1.0, timestep.observation))
        return inner, timestep

    return env._replace(step=step)


def chunk_of(env, agent, checks=lambda agent, env: agent):
    """A chunk of 4 updates as `jaxrl train` makes it, and the state before it."""
    start, loop = (jaxrl.online(x, env, num_envs=2, unroll_length=4) for x in (agent, checks(agent, env)))
    return lambda state, data: jaxrl.run(loop, state, 4), jax.jit(start.init)(KEY)


@pytest.mark.parametrize(
    "kind, action, line",
    [
        ("", 1, None),
        ("", 2, "action 2 of environment 0, step 0 of a rollout, is outside of Discrete(n=2"),
        ("", -1, "action -1 of environment 0, step 0 of a rollout, is outside of Discrete(n=2"),
        ("observation", 1, "observation [-1. -1.] of environment 0, step 1 of a rollout, is outside of Box("),
    ],
)
def test_checks_of_spaces(kind, action, line):
    env = tricky(kind)
    agent = toys.idle_agent(env)
    agent = agent._replace(act=lambda *inputs: (inputs[2], jnp.full(2, action), {}))
    chunk, state = chunk_of(env, agent, checked)
    error, (_, metrics) = jax.jit(debug.checked_chunk(chunk))(state, ())
    found = debug.message(error)
    assert (found is None) if line is None else found.startswith(line) and "\n" not in found
    assert metrics["episode/count"].shape == (4,)


def test_the_line_of_the_source_is_named():
    env = tricky("reward")
    chunk, state = chunk_of(env, toys.idle_agent(env))
    after, metrics = jax.jit(chunk)(state, ())
    assert health.problem(jax.device_get(metrics), 0, (4, 2), after).startswith(
        "reward is not finite at environment step 18"
    )
    number = 1 + next(i for i, text in enumerate(open(__file__)) if text.strip().endswith("# the line"))
    found = debug.explain(chunk, state, ())
    assert "log" in found and f"{__file__}:{number}" in found and "\n" not in found
    quiet, state = chunk_of(toys.clock(20), toys.idle_agent(env))
    assert debug.explain(quiet, state, ()) is None


FAST = "--num-envs 2 --unroll-length 4 --num-minibatches 1 --num-epochs 1 --steps 160 --widths 4".split()


@pytest.mark.parametrize("flags", [[], ["--debug"]])
def test_a_run_stops_and_keeps_its_last_good_checkpoint(flags, tmp_path, capsys):
    """Bad from time 10 of each environment on: in the third update, after 16 steps of both."""
    out = tmp_path / "run"
    command = ["train", "ppo", "test_finite:tricky", *FAST, "--env.kind", "reward", "--checkpoint-steps", "8"]
    assert main([*command, "--quiet", "--out", str(out), *flags]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("jaxrl: reward is not finite at environment step 18 (environment 0, update 3), ")
    assert str(out) in line and "after 16 steps" in line
    assert ("log at " in line and "tests/test_finite.py" in line and "(spoil)" in line) == bool(flags)
    rows = (out / "metrics.jsonl").read_text()
    assert len(rows.splitlines()) == 2 and "nonfinite" not in rows
    restored = jaxrl.restore(out, env=tricky("reward"))
    assert restored.steps == 16 and finite.in_parameters(restored.state.agent)["nonfinite/parameter_count"] == 0
