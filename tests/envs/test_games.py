"""Games: equilibria by enumeration and indifference, rounds against plain Python, the ends, a picture."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import spaces
from jaxrl.envs import games, pictures
from jaxrl.envs.check import check_env

KEY = jax.random.key(0)
UNLIKE = np.random.default_rng(0).normal(size=(3, 2, 3, 4)).astype(np.float32)
TABLES = {
    **games.GAMES,
    "stag_hunt(5, 1, -5)": lambda: games.stag_hunt(5, 1, -5),
    "chicken(3, -1, -2)": lambda: games.chicken(3, -1, -2),
    "cyclic(5)": lambda: games.cyclic(5),
    "climbing(4)": lambda: games.climbing(4),
    "penalty(4, -3)": lambda: games.penalty(4, -3),
}


# Equilibria ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
def test_equilibria(name):
    """Pure ones: all of them, by every deviation. Mixed ones: what is played is as good as anything else."""
    game = TABLES[name]()
    payoffs = game.payoffs
    assert payoffs.dtype == np.float32 and payoffs.ndim == len(payoffs) + 1
    found = []
    for joint in itertools.product(*map(range, payoffs.shape[1:])):
        deviations = [
            payoffs[(i, *joint[:i], other, *joint[i + 1 :])] > payoffs[(i, *joint)]
            for i in range(len(payoffs))
            for other in range(payoffs.shape[1 + i])
        ]
        found += [] if any(deviations) else [joint]
    assert tuple(found) == game.pure
    assert found or game.mixed  # Nash: there is one
    for first, second in game.mixed:
        assert sum(first) == pytest.approx(1) and sum(second) == pytest.approx(1) and min(first + second) >= 0
        for values, played in ((payoffs[0] @ second, first), (first @ payoffs[1], second)):
            np.testing.assert_allclose(values[np.array(played) > 0], values.max(), atol=1e-6)


def test_tables_of_the_literature():
    """Rows are the first agent's actions; the second gets the same in a team, else the opposite, or the transpose."""
    for name, table, second in (
        ("climbing", [[11, -30, 0], [-30, 7, 6], [0, 0, 5]], lambda x: x),
        ("penalty", [[10, 0, -100], [0, 2, 0], [-100, 0, 10]], lambda x: x),
        ("prisoners_dilemma", [[3, 0], [5, 1]], np.transpose),
        ("matching_pennies", [[1, -1], [-1, 1]], np.negative),
        ("rock_paper_scissors", [[0, -1, 1], [1, 0, -1], [-1, 1, 0]], np.negative),
    ):
        np.testing.assert_array_equal(games.GAMES[name]().payoffs, [table, second(np.array(table))])
    ten = games.cyclic().payoffs[0]
    assert ten.shape == (10, 10) and ten[3, 2] == ten[0, 9] == 1 and ten[2, 3] == ten[9, 0] == -1
    assert np.abs(ten).sum() == 20 and (ten == -ten.T).all()
    three = games.climbing(3).payoffs
    assert three.shape == (3, 3, 3, 3) and (three == three[0]).all()
    assert [three[0, i, i, i] for i in range(3)] == [11, 7, 5] and three[0, 1, 2, 1] == pytest.approx((6 + 7 + 0) / 3)
    assert games.penalty(3).payoffs[1, 0, 2, 0] == pytest.approx((10 - 200) / 3)


def test_a_hare_is_risk_dominant():
    """Best against an opponent who does either as often; the product of losses by deviating is larger there."""
    for payoffs in (games.stag_hunt().payoffs[0], games.stag_hunt(5, 1, -5).payoffs[0]):
        stag, hare = payoffs.mean(1)
        assert hare > stag and (payoffs[1, 1] - payoffs[0, 1]) ** 2 > (payoffs[0, 0] - payoffs[1, 0]) ** 2
    stag, hare = games.stag_hunt(9, 3, 0).payoffs[0].mean(1)
    assert stag > hare  # not in every stag hunt
    assert games.stag_hunt().mixed[0][0] == pytest.approx((0.75, 0.25))
    assert games.chicken().mixed[0][0] == pytest.approx((0.9, 0.1))


# Rounds --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payoffs, num_steps, memory", [(UNLIKE, 4, 2), (games.climbing(3).payoffs, 4, 1), (UNLIKE, 1, 1), (UNLIKE, 4, 0)]
)
def test_rounds_follow_the_rules(payoffs, num_steps, memory):
    """Rewards by the tensor; joint actions as each agent sees them, its own first; the share of rounds."""
    env = games.matrix_game(payoffs, num_steps=num_steps, memory=memory)
    num, nums = len(payoffs), payoffs.shape[1:]

    def play(key, params):
        start_key, key = jax.random.split(key)
        state, first = env.reset(start_key, params)

        def body(state, key):
            action = env.action_space.sample(key)
            state, ts = env.step(key, state, action, params)
            return state, (action, ts)

        return first, jax.lax.scan(body, state, jax.random.split(key, num_steps))[1]

    params = env.params._replace(payoffs=2.0 * env.params.payoffs)  # traced
    first, (actions, ts) = jax.device_get(jax.jit(play)(KEY, params))
    actions = np.stack(actions, 1) if isinstance(actions, tuple) else actions
    past = []
    for t in range(-1, num_steps):
        observation = first if t < 0 else jax.tree.map(lambda x: x[t], ts.observation)
        if t >= 0:
            past.insert(0, actions[t])
            np.testing.assert_allclose(ts.reward[t], 2.0 * payoffs[(slice(None), *actions[t])], rtol=1e-6)
            ends = t == num_steps - 1
            np.testing.assert_array_equal(ts.terminated[t], [ends and num_steps == 1] * num)
            np.testing.assert_array_equal(ts.truncated[t], [ends and num_steps > 1] * num)
        for i in range(num):
            seen = []
            for k in range(memory):
                for j in [*range(i, num), *range(i)]:
                    seen += [float(k < len(past) and past[k][j] == a) for a in range(nums[j])]
            np.testing.assert_allclose(observation[i], seen + [(t + 1) / num_steps] * (num_steps > 1))
    assert isinstance(env.observation_space, spaces.Tuple if payoffs is UNLIKE else spaces.Repeated)


def test_chance_ends_a_repeated_game():
    env = games.game("prisoners_dilemma", num_steps=5)
    params = env.params._replace(continuation=jnp.float32(0.7))

    def one(key, time):
        state = env.reset(key, params)[0]._replace(time=time)
        return env.step(key, state, jnp.array([0, 1]), params)[1]

    ts = jax.jit(jax.vmap(one))(jax.random.split(KEY, 8000), jnp.arange(8000) % 2 * 4)
    terminated, truncated = np.asarray(ts.terminated), np.asarray(ts.truncated)
    assert abs(terminated[:, 0].mean() - 0.3) < 5 * (0.21 / 8000) ** 0.5
    assert (terminated[:, 0] == terminated[:, 1]).all() and not truncated[::2].any()
    np.testing.assert_array_equal(truncated[1::2], ~terminated[1::2])  # never both
    np.testing.assert_array_equal(ts.reward[0], [0.0, 5.0])


def test_they_are_proper_environments():
    check_env(games.matrix_game(UNLIKE, num_steps=8, memory=2, continuation=0.9), num_steps=24)
    check_env(games.game("stag_hunt"), num_steps=8)


def test_a_picture_of_a_known_state():
    env = games.matrix_game(UNLIKE)
    draw = jax.jit(env.render)
    fresh, _ = env.reset(KEY, env.params)
    picture = np.asarray(draw(games.MatrixGameState(jnp.array([[1, 0, 3]]), jnp.int32(1)), env.params))
    assert picture.shape == (48, 64, 3)
    pixel = lambda p, i, a: tuple(p[16 * i + 8, 16 * a + 8])  # noqa: E731
    assert pixel(picture, 0, 1) == pixel(picture, 1, 0) == pixel(picture, 2, 3) == pictures.AGENT
    assert pixel(picture, 0, 2) == pictures.WALL and pixel(picture, 0, 0) == pictures.FLOOR
    assert pictures.AGENT not in {tuple(x) for x in np.asarray(draw(fresh, env.params)).reshape(-1, 3)}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: games.matrix_game(np.zeros((2, 3))), r"payoffs have shape \[2, 3\], must be \[A, n_1, ..., n_A\]"),
        (lambda: games.matrix_game(np.zeros((3, 2, 2))), r"payoffs have shape \[3, 2, 2\]"),
        (lambda: games.matrix_game(UNLIKE, num_steps=0), "num_steps is 0, must be >= 1"),
        (lambda: games.matrix_game(UNLIKE, memory=-1), "memory is -1, must be >= 0"),
        (lambda: games.matrix_game(UNLIKE, memory=0), "agents would see nothing"),
        (lambda: games.matrix_game(UNLIKE, continuation=1.1), r"continuation is 1.1, must be in \[0, 1\]"),
        (lambda: games.game("poker"), "name is 'poker', allowed: prisoners_dilemma, "),
        (lambda: games.prisoners_dilemma(reward=6), "must be temptation > reward"),
        (lambda: games.stag_hunt(hare=5), "must be stag > hare > alone"),
        (lambda: games.chicken(crash=0), "must be go > 0 > wait > crash"),
        (lambda: games.cyclic(2), "num_actions is 2, must be >= 3"),
        (lambda: games.climbing(1), "num_agents is 1, must be >= 2"),
        (lambda: games.penalty(penalty=1), "penalty is 1, must be <= 0"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
