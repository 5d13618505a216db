"""`halving`: its rungs, who goes on, that members continue, and what it spares."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.halving import halving, rungs
from jaxrl.sweeps import grid, plan, ranking, sweep


class Hparams(NamedTuple):
    rate: float = 1.0


class Walk(NamedTuple):
    key: jax.Array
    hparams: Hparams
    place: jax.Array
    updates: jax.Array  # int32


RATES = [0.1, 0.5, np.nan, 0.9, 0.3, 0.7, 0.8]
SETTINGS, HPARAMS = grid(Hparams(), {"rate": RATES})
SEEDS = (3, 8)


def init(key, hparams):
    return Walk(key, hparams, jnp.zeros(()), jnp.zeros((), jnp.int32))


def advance(state, num_updates):
    """Walks on by about `rate` an update."""

    def step(_, state):
        key, noise_key = jax.random.split(state.key)
        place = state.place + state.hparams.rate + 0.01 * jax.random.normal(noise_key)
        return state._replace(key=key, place=place, updates=state.updates + 1)

    state = jax.lax.fori_loop(0, num_updates, step, state)
    return state, {"return": state.place, "updates": state.updates}


def test_rungs():
    assert rungs(16, 8, 2) == [(2, 8), (4, 4), (8, 2), (16, 1)]
    assert rungs(100, 7, 2) == [(25, 7), (50, 3), (100, 1)]
    assert rungs(90, 10, 3) == [(10, 10), (30, 3), (90, 1)]
    assert rungs(90, 2, 3) == [(30, 2), (90, 1)] and rungs(5, 1, 2) == [(5, 1)]
    with pytest.raises(ValueError, match="ratio is 1, must be >= 2"):
        rungs(16, 8, 1)
    with pytest.raises(ValueError, match="7 updates are too few, must be >= 8"):
        rungs(7, 8, 2)


@pytest.mark.parametrize("layout", ["threads", "vmap"])
def test_the_best_go_on_from_where_they_are(layout):
    told = []
    found = halving(init, advance, HPARAMS, SEEDS, num_updates=20, layout=layout, say=told.append)
    assert [(r.num_updates, r.settings) for r in found.rungs] == [(5, list(range(7))), (10, [3, 5, 6]), (20, [3])]
    assert found.best == 3 and SETTINGS[3] == {"rate": 0.9} and len(told) == 3
    assert found.updates == 2 * (7 * 5 + 3 * 5 + 10) < 2 * 7 * 20
    for rung in found.rungs:  # all of the run up to there, in one piece, is the same
        whole = sweep(
            lambda key, hparams: advance(init(key, hparams), rung.num_updates)[1], HPARAMS, SEEDS, layout="threads"
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[rung.settings], rtol=1e-6), rung.results, whole)
        assert np.all(rung.results["updates"] == rung.num_updates)


def test_seeds_decide_together():
    hparams = Hparams(np.float32([1.0, 2.0]))
    start = lambda key, hp: (hp.rate, jax.random.key_data(key)[1])  # noqa: E731

    def unlucky(state, num_updates):  # setting 1 is better, but for one of four seeds by far
        return state, {"score": jnp.where((state[0] == 2) & (state[1] == 7), -100.0, state[0])}

    found = halving(start, unlucky, hparams, (5, 6, 7, 8), num_updates=4, score="score")
    assert found.best == 1  # the interquartile mean does not see one in four
    assert halving(start, unlucky, hparams, (6, 7), num_updates=4, score="score").best == 0
    with pytest.raises(ValueError, match="no seeds"):
        halving(start, unlucky, hparams, (), num_updates=4)


def test_ranking():
    nan = np.nan
    returns = [[1, 1, 1, 1], [2, nan, 9, 9], [3, 3, 3, -90], [nan] * 4, [nan, nan, 99, 99], [1, 1, 1, 1]]
    assert ranking([*returns, [5, 6, 7, np.inf]]) == [2, 0, 5, 1, 6, 4, 3]
    assert ranking([[1.0], [2.0]]) == [1, 0]


def test_what_members_share_is_given_once():
    function = lambda x, data: x * data[7]  # noqa: E731
    shapes = (jax.ShapeDtypeStruct((), jnp.float32),), (jax.ShapeDtypeStruct((1000,), jnp.float32),)
    sizes = {n: plan(function, shapes[0], n, shared=shapes[1], layout="vmap").nbytes for n in (1, 64)}
    assert sizes[64] - sizes[1] < 4000


@pytest.mark.slow
def test_the_winner_of_all_for_less():
    """PPO on CartPole with four learning rates: the winner of a whole sweep, for 56 % of its updates."""
    env = jaxrl.envs.make("CartPole-v1")
    agent, _ = jaxrl.make_agent("ppo", env, widths=(16,), num_epochs=4, num_minibatches=1)
    loop = jaxrl.online(agent, env, num_envs=8, unroll_length=32)
    settings, hparams = grid(agent.hparams, {"learning_rate": [1e-5, 1e-2, 1e-4, 10.0]})

    def go(state, num_updates):
        def step(_, carry):
            state, metrics = loop.step(carry[0])
            return state, carry[1] * 0.8 + metrics["episode/return_sum"], carry[2] * 0.8 + metrics["episode/count"]

        state, total, count = jax.lax.fori_loop(0, num_updates, step, (state, 0.0, 0.0))
        return state, {"return": total / count}

    found = halving(loop.init, go, hparams, range(3), num_updates=40)
    whole = sweep(lambda key, hp: go(loop.init(key, hp), 40)[1], hparams, range(3))
    assert found.best == ranking(whole["return"])[0] == 1
    assert found.updates == 3 * (4 * 10 + 2 * 10 + 20) and found.updates < 0.6 * 3 * 4 * 40
