"""The grid stag hunt: steps against plain Python rules, where things appear, the clock, a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import pictures
from jaxrl.envs.check import check_env
from jaxrl.envs.trust_dilemma import TrustDilemmaState, trust_dilemma

KEY = jax.random.key(0)
MOVES = [(-1, 0), (1, 0), (0, -1), (0, 1)]
ENV = trust_dilemma()
STEP = jax.jit(jax.vmap(ENV.step, (0, 0, 0, None)))
RESET = jax.jit(jax.vmap(ENV.reset, (0, None)))


def walk(cell, move, size=5):
    row, column = (min(max(x + d, 0), size - 1) for x, d in zip(divmod(cell, size), move))
    return row * size + column


def places_of_the_stag(stag, agents):
    """Every cell that it may go to, in plain Python."""
    away = [np.subtract(divmod(a, 5), divmod(stag, 5)) for a in agents]
    near = min(np.sum(d**2) for d in away)
    found = set()
    for d in away:
        if np.sum(d**2) == near:
            moves = [(np.sign(d[0]), 0)] * bool(d[0]) + [(0, np.sign(d[1]))] * bool(d[1])
            found |= {walk(stag, move) for move in moves or MOVES}
    return found


def at(agents, stag, plants, num=1, time=0):
    repeat = lambda x: jnp.broadcast_to(jnp.int32(x), (num, *np.shape(x)))  # noqa: E731
    return TrustDilemmaState(repeat(agents), repeat(stag), repeat(plants), repeat(time))


def test_it_is_a_proper_environment():
    check_env(trust_dilemma(3, num_plants=1, max_steps=6, chase=0.8), num_steps=20)


def test_steps_follow_the_rules():
    """A thousand random states and moves, many of them in each other's places."""
    num, rng = 1000, np.random.default_rng(0)
    block = np.array([6, 7, 8, 11, 12, 13, 16, 17, 18])  # where half of the states have all
    draw = lambda n: np.concatenate([rng.choice(25, (num // 2, n)), rng.choice(block, (num // 2, n))])  # noqa: E731
    plants = np.array([rng.permutation(x)[:2] for x in [25] * (num // 2) + [block] * (num // 2)])
    state = TrustDilemmaState(draw(2), draw(1)[:, 0], plants, np.zeros(num, int))
    state = jax.tree.map(jnp.int32, state)
    actions = jnp.asarray(rng.choice(4, (num, 2)))
    params = ENV.params._replace(stag=jnp.float32(7.0))
    after, ts = jax.device_get(STEP(jax.random.split(KEY, num), state, actions, params))
    kinds = {"caught": 0, "mauled": 0, "gathered": 0, "shared": 0}
    for i in range(num):
        before = jax.tree.map(lambda x: np.asarray(x[i]), state)
        agents = [walk(a, MOVES[m]) for a, m in zip(before.agents, np.asarray(actions[i]))]
        assert list(after.agents[i]) == agents
        allowed = places_of_the_stag(before.stag, before.agents)
        caught = agents[0] == agents[1] and agents[0] in allowed and ts.reward[i, 0] == 7.0
        stag = agents[0] if caught else after.stag[i]
        assert stag in allowed
        rewards = [(7.0 if caught else -5.0) if a == stag else float(a in before.plants) for a in agents]
        assert list(ts.reward[i]) == rewards
        for k, plant in enumerate(before.plants):
            eaten = any(a == plant and a != stag for a in agents)
            taken = {*agents, stag, *before.plants}
            assert (after.plants[i, k] not in taken) if eaten else after.plants[i, k] == plant
        assert len({*after.plants[i]}) == 2
        if caught:
            assert after.stag[i] not in {*agents, *before.plants}
        kinds["caught"] += caught
        kinds["mauled"] += -5.0 in rewards
        kinds["gathered"] += 1.0 in rewards
        kinds["shared"] += agents[0] == agents[1] and rewards == [1.0, 1.0]
        own, other, stags, plants = ts.observation[i, 0].reshape(4, 25)
        assert (own.argmax(), other.argmax(), stags.argmax()) == (*agents, after.stag[i])
        assert own.sum() == other.sum() == stags.sum() == 1 and plants.sum() == 2 and plants[after.plants[i]].all()
        np.testing.assert_array_equal(ts.observation[i, 1].reshape(4, 25), [other, own, stags, plants])
    assert min(kinds.values()) > 3, kinds
    assert not ts.terminated.any() and not ts.truncated.any() and (after.time == 1).all()


def test_what_is_drawn_is_as_likely():
    """Either axis to an agent; either agent where both are as near; anywhere without a chase; any free cell."""
    num = 4000
    keys, still = jax.random.split(KEY, num), jnp.zeros((num, 2), jnp.int32)

    def shares(agents, stag, plants, actions=still, what=lambda s: s.stag, **params):
        traced = {name: jnp.asarray(x) for name, x in params.items()}
        cells = np.asarray(what(STEP(keys, at(agents, stag, plants, num), actions, ENV.params._replace(**traced))[0]))
        found, counts = np.unique(cells, return_counts=True)
        assert np.abs(counts / num - 1 / len(found)).max() < 5 * (1 / len(found) / num) ** 0.5
        return list(found)

    assert shares([0, 24], 6, [20, 21]) == [1, 5]  # nearer to the first, by either axis
    assert shares([2, 22], 12, [20, 21]) == [7, 17]  # as near to both
    assert shares([2, 2], 12, [20, 21], chase=0.0) == [7, 11, 13, 17]
    assert shares([12, 12], 12, [20, 21], still + jnp.array([0, 1])) == [7, 11, 13, 17]  # it stands on them
    caught = shares([2, 2], 12, [20, 21], still + 1)  # by both, in cell 7
    assert caught == [x for x in range(25) if x not in (7, 20, 21)]
    fled = shares([1, 24], 6, [20, 21], still + jnp.array([0, 1]), flees=True)  # from the first alone, in cell 1
    assert fled == [x for x in range(25) if x not in (1, 20, 21, 24)]
    grown = shares([1, 24], 11, [2, 20], still + jnp.array([3, 1]), lambda s: s.plants[:, 0])  # the stag goes to 6
    assert grown == [x for x in range(25) if x not in (2, 6, 20, 24)]


def test_the_clock_and_starts():
    state, observation = jax.device_get(RESET(jax.random.split(KEY, 2000), ENV.params))
    assert (state.agents == [0, 4]).all() and (state.stag == 12).all()
    assert (np.unique(state.plants) == [x for x in range(25) if x not in (0, 4, 12)]).all()
    assert (state.plants[:, 0] != state.plants[:, 1]).all()
    assert observation.shape == (2000, 2, 100) and (observation.sum(2) == 5).all()
    for time, late in ((98, False), (99, True)):
        state = at([0, 4], 12, [20, 21], time=time)
        ts = STEP(jax.random.split(KEY, 1), state, jnp.zeros((1, 2), jnp.int32), ENV.params)[1]
        assert ts.truncated.tolist() == [[late] * 2] and not ts.terminated.any()


def test_a_picture_of_a_known_state():
    state = jax.tree.map(lambda x: x[0], at([0, 24], 12, [3, 20]))
    picture = np.asarray(jax.jit(ENV.render)(state, ENV.params))
    assert picture.shape == (80, 80, 3)
    pixel = lambda cell: tuple(picture[16 * (cell // 5) + 8, 16 * (cell % 5) + 8])  # noqa: E731
    assert (pixel(0), pixel(24), pixel(7)) == (pictures.AGENT, pictures.GOAL, pictures.FLOOR)
    assert pixel(12) == (140, 90, 50) and pixel(3) == pixel(20) == (60, 160, 75)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(size=2), "size is 2, must be >= 3"),
        (dict(num_plants=22), r"num_plants is 22, must be in \[1, 21\]"),
        (dict(plant=5.0), "must be stag > plant > mauled"),
        (dict(chase=-0.5), r"chase is -0.5, must be in \[0, 1\]"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        trust_dilemma(**arguments)
