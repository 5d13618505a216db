"""The kitchen: against the rules in plain Python, soups and collisions worked by hand, both views, a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import plain_kitchen
import pytest

from jaxrl.envs.check import check_env
from jaxrl.envs.kitchen import LAYERS, LAYOUTS, KitchenState, kitchen, layouts, picture, views
from jaxrl.envs.kitchen.rules import DISH, DOWN, INTERACT, LEFT, NOTHING, ONION, RIGHT, SOUP, STAY, UP

KEY = jax.random.key(0)


def states_anywhere(rng, plan, num):
    """States of all kinds, as they may come about or not: cooks, hands, counters and pots are drawn on their own."""
    floor = np.flatnonzero(plan.kinds == layouts.FLOOR)
    onions = rng.integers(0, 4, (num, len(plan.pots)))
    counters = rng.integers(0, 4, (num, plan.kinds.size)) * (rng.random((num, plan.kinds.size)) < 0.3)
    return KitchenState(
        position=np.array([rng.choice(floor, 2, replace=False) for _ in range(num)]),
        facing=rng.integers(0, 4, (num, 2)),
        held=rng.integers(0, 4, (num, 2)),
        counters=np.where(plan.kinds == layouts.COUNTER, counters, 0).astype(np.int8),
        onions=onions,
        cooked=np.where(onions == 3, rng.choice([0, 1, 10, 19, 20, 20, 20], onions.shape), 0),
        time=rng.integers(0, 400, num),
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_follows_the_rules(name):
    """A step from each of 1500 states: all of the next one as both cooks see it, rewards, who did what."""
    env, num, rng = kitchen(name, shaping=1.0, credit="own"), 1500, np.random.default_rng(0)
    plan = layouts.parse(LAYOUTS[name])
    state = states_anywhere(rng, plan, num)
    actions = rng.choice(6, (num, 2), p=[0.11, 0.11, 0.11, 0.11, 0.06, 0.5])
    traced = jax.tree.map(lambda x: jnp.asarray(x, jnp.int8 if x.dtype == np.int8 else jnp.int32), state)
    step = jax.jit(jax.vmap(env.step, (None, 0, 0, None)))
    then, ts = jax.tree.map(np.asarray, step(KEY, traced, jnp.asarray(actions, jnp.int32), env.params))
    seen = np.zeros_like(ts.observation)
    shaped, soups = np.zeros((2, num, 2))
    for n in range(num):
        plain = plain_kitchen.of(LAYOUTS[name], plan, jax.tree.map(lambda x, n=n: x[n], state))
        shaped[n], soups[n] = zip(*plain.step(actions[n].tolist()))
        for i in range(2):
            for layer, cells in plain.layers(i).items():
                for cell, number in cells.items():
                    seen[(n, i, *cell, LAYERS.index(layer))] = number
    np.testing.assert_array_equal(ts.observation, seen)
    np.testing.assert_array_equal(ts.extras["shaped_reward"], shaped)
    np.testing.assert_array_equal(ts.extras["soups"], soups)
    np.testing.assert_array_equal(ts.reward, shaped + 20 * soups.sum(1, keepdims=True))
    np.testing.assert_array_equal(then.time, state.time + 1)
    np.testing.assert_array_equal(ts.truncated, np.tile((state.time == 399)[:, None], (1, 2)))
    assert not ts.terminated.any() and soups.any() and set(np.unique(shaped)) >= {3, 5}


ENV = kitchen("cramped_room", shaping=0.5)
STEP = jax.jit(ENV.step)


def play(state, pairs, params=ENV.params):
    """Steps of (first cook's action, second's); the last TimeStep, and the sums of rewards."""
    total = 0.0
    for pair in pairs:
        state, ts = STEP(KEY, state, jnp.array(pair), params)
        total += float(ts.reward[0])
    return state, ts, total


def start(**changes):
    state = ENV.reset(KEY, ENV.params)[0]
    return state._replace(**{k: jnp.asarray(v, x.dtype) for k, v in changes.items() for x in [getattr(state, k)]})


def cell(row, column):
    return 5 * row + column


def test_a_soup_by_hand():
    """One cook carries three onions; the pot needs 20 steps, that of the third onion among them; both are paid 20."""
    fetch = [LEFT, INTERACT, RIGHT, UP, INTERACT]  # from (1, 1): the dispenser (1, 0), then the pot from (1, 2)
    state = start(position=[cell(1, 1), cell(2, 3)])
    rewards = 0.0
    for number in (1, 2, 3):
        state, ts, total = play(state, [(a, STAY) for a in fetch])
        rewards += total
        assert state.onions.tolist() == [number] and state.held.tolist() == [NOTHING, NOTHING]
        if number < 3:
            state, *_ = play(state, [(LEFT, STAY)])
    assert rewards == 0.5 * 9 and state.cooked.tolist() == [1]
    state, _, total = play(state, [(LEFT, STAY), (DOWN, STAY), (DOWN, STAY), (INTERACT, STAY)])  # a dish, at (2, 1)
    assert total == 0.5 * 3 and state.held.tolist() == [DISH, NOTHING] and state.cooked.tolist() == [5]
    state, _, total = play(state, [(UP, STAY), (RIGHT, STAY), (UP, STAY), (INTERACT, STAY)])  # too early
    assert total == 0.0 and state.held[0] == DISH and state.cooked.tolist() == [9]
    state, *_ = play(state, [(STAY, STAY)] * 10)
    state, _, total = play(state, [(INTERACT, STAY)])  # the 20th step is not over
    assert total == 0.0 and state.held[0] == DISH and state.cooked.tolist() == [20]
    state, ts, total = play(state, [(INTERACT, STAY)])
    assert total == 0.5 * 5 and state.held[0] == SOUP and (state.onions[0], state.cooked[0]) == (0, 0)
    state, *_ = play(state, [(DOWN, STAY), (STAY, UP), (RIGHT, STAY)])  # the window is below (2, 3)
    state, ts, total = play(state, [(DOWN, STAY), (INTERACT, STAY)])
    assert total == 20.0 and ts.reward.tolist() == [20.0, 20.0] and ts.extras["soups"].tolist() == [1.0, 0.0]
    assert state.held[0] == NOTHING


@pytest.mark.parametrize(
    "here, actions, then",
    [
        ([(1, 1), (1, 3)], [RIGHT, LEFT], [(1, 1), (1, 3)]),  # one cell for two
        ([(1, 1), (1, 2)], [RIGHT, LEFT], [(1, 1), (1, 2)]),  # through each other
        ([(1, 1), (1, 2)], [RIGHT, STAY], [(1, 1), (1, 2)]),  # onto one who stays
        ([(1, 1), (1, 2)], [RIGHT, INTERACT], [(1, 1), (1, 2)]),  # or who has its hands full
        ([(1, 1), (1, 2)], [RIGHT, UP], [(1, 1), (1, 2)]),  # or who faces a pot
        ([(1, 1), (1, 2)], [RIGHT, RIGHT], [(1, 2), (1, 3)]),  # behind one who goes
        ([(1, 1), (2, 3)], [UP, RIGHT], [(1, 1), (2, 3)]),  # counters
    ],
)
def test_moves_by_hand(here, actions, then):
    state, *_ = play(start(position=[cell(*c) for c in here]), [actions])
    assert state.position.tolist() == [cell(*c) for c in then]
    assert state.facing.tolist() == [a if a < STAY else UP for a in actions]  # who cannot go turns


def test_two_hands_at_one_place():
    """The first cook is quicker: it takes what lies there; the pot's third onion is its own; feet come after hands."""
    both = dict(position=[cell(1, 1), cell(1, 3)], facing=[UP, UP])
    assert LAYOUTS["cramped_room"][0] == "XXPXX"
    counters = np.zeros(20)
    counters[cell(0, 1)], counters[cell(0, 3)] = SOUP, DISH
    state, *_ = play(start(**both, counters=counters), [(INTERACT, INTERACT)])
    assert state.held.tolist() == [SOUP, DISH] and not state.counters.any()
    state, *_ = play(state, [(INTERACT, LEFT)])  # onto (1, 2), still facing left
    assert state.counters[cell(0, 1)] == SOUP and state.position[1] == cell(1, 2)
    # From both sides of one counter: a kitchen that is one corridor, cut by it.
    narrow = kitchen(("XOPDX", "X1X2X", "XXSXX"), shaping=1.0)
    state = narrow.reset(KEY, narrow.params)[0]
    middle = jnp.zeros(15, jnp.int8).at[7].set(ONION)
    state = state._replace(facing=jnp.array([RIGHT, LEFT], jnp.int32), counters=middle)
    then, ts = jax.jit(narrow.step)(KEY, state, jnp.array([INTERACT, INTERACT]), narrow.params)
    assert then.held.tolist() == [ONION, NOTHING] and not then.counters.any()
    handed = then._replace(held=jnp.array([ONION, DISH], jnp.int32))
    then, ts = jax.jit(narrow.step)(KEY, handed, jnp.array([INTERACT, INTERACT]), narrow.params)
    assert then.held.tolist() == [NOTHING, DISH] and then.counters[7] == ONION


@pytest.mark.parametrize(
    "onions, held, lying, useful",
    [
        (1, NOTHING, False, 1),
        (3, NOTHING, False, 1),
        (0, NOTHING, False, 0),
        (1, DISH, False, 0),
        (1, NOTHING, True, 0),
    ],
)
def test_when_a_dish_is_of_use(onions, held, lying, useful):
    """More pots are begun than cooks hold dishes, and none lies about."""
    counters = np.zeros(20)
    counters[cell(0, 4)] = DISH * lying
    state = start(position=[cell(2, 1), cell(1, 3)], facing=[DOWN, UP], held=[NOTHING, held], counters=counters)
    state, ts, total = play(state._replace(onions=jnp.array([onions], jnp.int32)), [(INTERACT, STAY)])
    assert state.held[0] == DISH
    assert total == 0.5 * 3 * useful and ts.reward.tolist() == [total, total]
    np.testing.assert_array_equal(ts.extras["shaped_reward"], [3 * useful, 0])
    _, ts, _ = play(start(position=[cell(2, 1), cell(1, 3)], facing=[DOWN, UP]), [(STAY, STAY)])
    assert not ts.reward.any()


def test_vectors_hold_all_of_the_state():
    """States that differ in anything have other vectors; sizes and places by hand."""
    plan = layouts.parse(LAYOUTS["cramped_room"])
    assert plan.within_reach.tolist() == [cell(*c) for c in ((0, 1), (0, 3), (2, 0), (2, 4), (3, 2))]
    assert views.vector_size(plan) == 2 * (6 + 4 + 3) + 5 + 3 * 5
    counters = np.zeros(20)
    counters[cell(2, 4)] = SOUP
    state = start(held=[ONION, NOTHING], facing=[LEFT, DOWN], counters=counters, onions=[3], cooked=[5])
    first, second = np.asarray(views.vector(plan, state))
    cook = [0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0]  # at (2, 1), the fourth cell of floor
    other = [0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    rest = [0, 0, 1, 0.25, 0] + [0, 0, 0] * 3 + [0, 0, 1] + [0, 0, 0]
    np.testing.assert_array_equal(first, cook + other + rest)
    np.testing.assert_array_equal(second, other + cook + rest)


def test_it_is_a_proper_environment():
    check_env(kitchen("cramped_room", max_steps=20, privileged=True))
    check_env(kitchen("forced_coordination", view="vector", shaping=1.0, max_steps=20))


def test_critics_see_what_the_first_cook_sees():
    env = kitchen(privileged=True)
    _, observation = env.reset(KEY, env.params)
    assert observation["observation"].shape == (2, 4, 5, 20) and observation["observation"].dtype == jnp.int8
    np.testing.assert_array_equal(observation["privileged"], np.stack([observation["observation"][0]] * 2))
    assert not np.array_equal(*observation["observation"])


def test_a_picture_of_a_known_state():
    counters = np.zeros(20)
    counters[cell(0, 1)] = ONION
    state = start(held=[SOUP, NOTHING], facing=[LEFT, UP], counters=counters, onions=[3], cooked=[20])
    shown = np.asarray(ENV.render(state, ENV.params))
    assert shown.shape == (128, 160, 3) and shown.dtype == np.uint8
    pixel = lambda row, column, down, across: tuple(shown[32 * row + down, 32 * column + across].tolist())  # noqa: E731
    assert pixel(0, 1, 16, 16) == picture.ONION_COLOR and pixel(0, 3, 16, 16) == picture.WOOD
    assert pixel(0, 2, 28, 16) == pixel(0, 2, 28, 29) == picture.DONE and pixel(0, 2, 20, 16) == picture.BROTH
    assert pixel(2, 1, 16, 14) == picture.BROTH and pixel(2, 1, 16, 24) == picture.COOKS[0]
    assert pixel(1, 3, 16, 16) == picture.COOKS[1] and pixel(1, 3, 4, 16) == picture.sprites.DARK
    cooking = np.asarray(ENV.render(state._replace(cooked=jnp.array([10], jnp.int32)), ENV.params))
    assert tuple(cooking[28, 64 + 15]) == picture.sprites.LIGHT and tuple(cooking[28, 64 + 17]) == picture.STOVE
    assert len(np.unique(picture._SPRITES.reshape(len(picture._SPRITES), -1), axis=0)) == len(picture._SPRITES) - 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(layout="diner"), "layout is 'diner', allowed: 'cramped_room', "),
        (dict(layout=("XXX", "X")), "rows of one length"),
        (dict(layout=("XTPXX", "O12DX", "XXSXX")), r"layout has \['T'\], allowed"),
        (dict(layout=("XXPXX", "O1 DX", "XXSXX")), "has '2' 0 times, must have it once"),
        (dict(layout=("XXXXX", "O12DX", "XXSXX")), "has 'P' 0 times, must have it at least once"),
        (dict(layout=("XXPXX", "O12D ", "XXSXX")), "no floor at its border"),
        (dict(view="pixels"), "view is 'pixels', allowed"),
        (dict(credit="none"), "credit is 'none', allowed"),
        (dict(shaping=-1.0), "shaping is -1.0, must be >= 0"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        kitchen(**arguments)
