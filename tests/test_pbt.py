"""`pbt`: who copies whom, what is changed and what is not, and that it finds what random search does not."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.combinators.pbt import pbt
from jaxrl.tree import edit_fields, map_hparams
from jaxrl.types import Loop, Wrapped

SIZE, PERIOD = 8, 3


class Hparams(NamedTuple):
    rate: float = 0.1
    other: float = 7.0


class AgentState(NamedTuple):
    hparams: Hparams
    height: jax.Array


class State(NamedTuple):
    key: jax.Array
    agent: AgentState
    place: jax.Array  # what is not the agent's


def climbing() -> Loop:
    """An agent that climbs by exp(-(log rate)^2) a step: the best rate is 1."""

    def init(key, hparams):
        hparams = jax.tree.map(jnp.float32, hparams)
        return State(key, AgentState(hparams, jnp.zeros(())), jax.random.uniform(key))

    def step(state):
        key, noise_key = jax.random.split(state.key)
        height = state.agent.height + jnp.exp(-(jnp.log(state.agent.hparams.rate) ** 2))
        drawn = jax.random.uniform(noise_key)
        metrics = {"episode/return_sum": 2 * height, "episode/count": jnp.float32(2), "height": height, "drawn": drawn}
        return State(key, state.agent._replace(height=height), state.place), metrics

    return Loop(init, step)


@pytest.fixture(scope="module")
def one_step():
    loop = pbt(climbing(), SIZE, {"rate": (0.01, 100.0)}, period=PERIOD)
    state = jax.jit(lambda key: loop.init(key, Hparams()))(jax.random.key(3))
    then, metrics = jax.jit(loop.step)(state)
    return state, then, jax.device_get(metrics)


def test_members_begin_with_values_of_their_own_within_the_bounds(one_step):
    rate = np.asarray(one_step[0].members.agent.hparams.rate)
    assert rate.shape == (SIZE,) and len(set(rate)) == SIZE and (rate >= 0.01).all() and (rate <= 100).all()
    assert (np.asarray(one_step[0].members.agent.hparams.other) == 7).all()


def test_the_worst_go_on_with_the_agents_of_the_best(one_step):
    before, after, metrics = one_step
    rate = np.asarray(before.members.agent.hparams.rate, np.float64)
    gain = np.exp(-(np.log(rate) ** 2))
    np.testing.assert_allclose(metrics["pbt/fitness"], 2 * gain, rtol=1e-5)  # the mean of one, two and three steps
    order = np.argsort(gain)
    parent = metrics["pbt/parent"]
    worst, best = order[:2], order[-2:]  # a quarter of eight
    assert set(parent[worst]) <= set(best)
    kept = np.setdiff1d(np.arange(SIZE), worst)
    assert (parent[kept] == kept).all()
    np.testing.assert_allclose(after.members.agent.height, PERIOD * gain[parent], rtol=1e-5)
    found = np.asarray(after.members.agent.hparams.rate)
    np.testing.assert_array_equal(found[kept], np.float32(rate[kept]))
    factor = found[worst] / rate[parent[worst]]
    assert all(min(abs(f - 0.8), abs(f - 1.25)) < 1e-5 for f in factor)
    np.testing.assert_array_equal(metrics["pbt/rate"], np.float32(rate))


def test_environments_and_keys_stay(one_step):
    before, after, metrics = one_step
    np.testing.assert_array_equal(after.members.place, before.members.place)
    assert len({tuple(k) for k in np.asarray(jax.random.key_data(after.members.key))}) == SIZE
    assert metrics["drawn"].shape == (PERIOD, SIZE) and len(np.unique(metrics["drawn"])) == PERIOD * SIZE


def test_it_finds_what_random_search_does_not():
    bounds = {"rate": (0.001, 0.1)}  # the best is at the upper bound, where hardly any member begins
    loop = pbt(climbing(), SIZE, bounds, period=PERIOD)
    run = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, Hparams()), 30))
    for seed in range(3):
        state, metrics = run(jax.random.key(seed))
        rates = np.asarray(metrics["pbt/rate"])
        assert (rates >= 0.001 - 1e-9).all() and (rates <= 0.1 + 1e-9).all()
        assert np.median(rates[-1]) > 0.08 > rates[0].max()


def test_members_without_an_episode_come_last():
    def step(state):
        is_mute = state.place < 0.5
        metrics = {"episode/return_sum": jnp.where(is_mute, 0.0, -5.0), "episode/count": 1.0 - is_mute}
        return state, metrics

    loop = pbt(climbing()._replace(step=step), SIZE, {"rate": (0.1, 1.0)}, period=1, fraction=0.125)
    state = loop.init(jax.random.key(1), Hparams())
    mute = np.asarray(state.members.place) < 0.5
    assert 1 < mute.sum() < SIZE
    parent = np.asarray(jax.jit(loop.step)(state)[1]["pbt/parent"])
    moved = parent != np.arange(SIZE)
    assert moved.sum() == 1 and mute[moved].all() and not mute[parent[moved]].any()


def test_a_replay_learner():
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("dqn", env, widths=(8,), buffer_size=64, min_buffer_size=8, batch_size=8)
    inner = jaxrl.online(agent, env, num_envs=2, unroll_length=4)
    loop = pbt(inner, 2, {"discount": (0.5, 0.99)}, period=2, fraction=0.5)
    state, metrics = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), 2))(jax.random.key(0))
    assert metrics["replay/updates"].shape == (2, 2, 2)
    values = []
    map_hparams(state.members.agent, {"discount": lambda x: values.append(np.asarray(x))})
    parent, before = np.asarray(metrics["pbt/parent"][-1]), np.asarray(metrics["pbt/discount"][-1])
    factor = values[0] / before[parent]  # clipped at 0.99
    assert len(values) == 1 and (values[0] <= np.float32(0.99)).all() and (factor < 1.2501).all()
    weights = jax.tree.leaves(state.members.agent.agent.agent.params)[0]
    np.testing.assert_array_equal(weights[0], weights[1])  # one of the two went on with the other's


def test_bad_arguments():
    good = dict(size=4, search={"rate": (0.1, 1.0)}, period=1)
    for change, words in (
        (dict(size=1), "size is 1"),
        (dict(period=0), "period 0"),
        (dict(fraction=0.6), "fraction is 0.6"),
        (dict(search={}), "search is {}"),
        (dict(search={"rate": (1.0, 0.1)}), "low < high"),
        (dict(search={"rate": (0.1, float("inf"))}), "finite"),
    ):
        with pytest.raises(ValueError, match=words):
            pbt(climbing(), **{**good, **change})
    with pytest.raises(ValueError, match="no 'speed'; there are other, rate"):
        pbt(climbing(), **{**good, "search": {"speed": (0.1, 1.0)}}).init(jax.random.key(0), Hparams())
    with pytest.raises(ValueError, match="needs hparams"):
        pbt(climbing(), **good).init(jax.random.key(0))
    with pytest.raises(ValueError, match="no metric 'nothing'"):
        loop = pbt(climbing(), **good, metric="nothing")
        jax.eval_shape(loop.step, jax.eval_shape(lambda: loop.init(jax.random.key(0), Hparams())))


def test_edits_reach_every_depth_and_nothing_else():
    nested = Wrapped(Hparams(1.0, 2.0), (Hparams(3.0, 4.0), 5.0))
    assert edit_fields(nested, {"rate": lambda x: -x}) == Wrapped(Hparams(-1.0, 2.0), (Hparams(-3.0, 4.0), 5.0))
    state = {"a": [AgentState(Hparams(1.0, 2.0), 3.0)], "rate": 9.0}
    assert map_hparams(state, {"rate": lambda x: -x}) == {"a": [AgentState(Hparams(-1.0, 2.0), 3.0)], "rate": 9.0}
