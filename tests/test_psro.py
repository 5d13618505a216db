"""PSRO: exact responses end at the known equilibria; learned ones come near; mixtures are drawn as they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import game_theory as gt
from jaxrl import networks
from jaxrl.distributions import for_space
from jaxrl.psro import environment_game, matrix_game, mixture, psro
from jaxrl.spaces import Box, Discrete, Repeated
from jaxrl.types import Agent, Env, TimeStep, no_memory

KEY = jax.random.key(0)
RPS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])


def cyclic(num=10):
    """Each action beats the (num - 1) / 2 that come before it on a circle; of the one opposite it gets nothing.

    By symmetry the uniform strategy is an equilibrium.
    """
    ahead = (np.arange(num)[:, None] - np.arange(num)[None, :]) % num
    return np.where((ahead > 0) & (2 * ahead < num), 1.0, np.where(2 * ahead > num, -1.0, 0.0))


def expand(result, actions):
    return [mixture(p, s, n) for p, s, n in zip(result.populations, result.strategies, actions)]


@pytest.mark.parametrize("matrix", [RPS, cyclic()], ids=["rps", "cyclic"])
def test_exact_responses_end_at_an_equilibrium(matrix):
    game = gt.two_player(matrix)
    result = psro(KEY, matrix_game(game), gt.meta_solver("nash"), num_iterations=20)
    found = expand(result, matrix.shape)
    assert gt.exploitability(game, found) <= 0.05
    np.testing.assert_allclose(gt.nash_conv(game, found), 0.0, atol=1e-5)
    assert result.gains[0].sum() > 0.5 and abs(result.gains[-1]).max() < 1e-9
    assert len(result.populations[0]) <= len(matrix)
    full = gt.two_player(matrix)
    for i in range(2):
        chosen = np.ix_(*result.populations)
        np.testing.assert_array_equal(result.payoffs[i], np.asarray(full[i])[chosen])
    if len(matrix) == 3:
        np.testing.assert_allclose(np.sort(result.strategies[0]), 1 / 3, atol=1e-6)


def test_payoffs_are_those_of_the_policies_that_stayed():
    """Also where one player's response gained nothing and was given up, and another took its place later."""
    generator = np.random.default_rng(0)
    uneven = 0
    for _ in range(20):
        game = generator.normal(size=(2, 4, 5)).astype(np.float32)
        result = psro(KEY, matrix_game(game), lambda x: [np.full(n, 1 / n) for n in x.shape[1:]], num_iterations=8)
        np.testing.assert_array_equal(result.payoffs, game[(slice(None), *np.ix_(*result.populations))])
        gained = result.gains > 1e-6
        uneven += any(gained[t].sum() == 1 and gained[t + 1 :, ~gained[t]].any() for t in range(len(gained)))
    assert uneven > 2  # games in which that happened


def test_what_a_response_gains_is_the_exploitability_of_the_mixture():
    game = gt.two_player(cyclic())
    gains = psro(KEY, matrix_game(game), gt.meta_solver("nash"), num_iterations=20).gains
    for k in range(1, len(gains)):
        before = psro(KEY, matrix_game(game), gt.meta_solver("nash"), num_iterations=k)
        np.testing.assert_allclose(gains[k].sum(), gt.nash_conv(game, expand(before, (10, 10))), atol=1e-5)


def test_other_meta_solvers():
    """The first of each population alone is worst; with "uniform" policies come again and again: fictitious play."""
    game, mean = gt.two_player(RPS), lambda payoffs: [np.full(n, 1 / n) for n in payoffs.shape[1:]]
    result = psro(KEY, matrix_game(game), mean, num_iterations=60)
    assert gt.exploitability(game, expand(result, (3, 3))) <= 0.1 and len(result.populations[0]) > 50
    result = psro(KEY, matrix_game(game), gt.meta_solver("alpha_rank", alpha=100.0), num_iterations=6)
    assert gt.exploitability(game, expand(result, (3, 3))) <= 0.05


def test_traced_meta_solvers():
    game = gt.two_player(RPS)
    for name, choices in (
        ("uniform", {}),
        ("replicator", {}),
        ("rae", {"lambda_": 0.1, "num_steps": 500, "floor": 0.0}),
    ):
        found = gt.meta_solver(name, **choices)(np.asarray(game))
        assert gt.exploitability(game, [s.astype("f4") for s in found]) <= 0.05, name


def test_risk_averse_responses_leave_the_stag_alone():
    game, stag = gt.symmetric(np.array([[4.0, 0.0], [3.0, 3.0]])), [0, 0]
    tremble = lambda payoffs: [np.full(n, 1 / n) for n in payoffs.shape[1:]]  # noqa: E731
    kept = psro(KEY, matrix_game(game, first=stag), tremble, num_iterations=3)
    assert kept.populations == [[0], [0]]
    mixed = [[0, 1], [0, 1]], [np.array([0.9, 0.1])] * 2
    values = [matrix_game(game, lambda_=lambda_).respond(KEY, 0, *mixed) for lambda_ in (0.0, 0.3, 0.5, 2.0)]
    # 4 * 0.9 - lambda 16 * 0.09 against 3: the hare from lambda = 0.417 on.
    assert values == [0, 0, 1, 1]


def test_a_meta_solver_gets_variances_where_the_game_tells_them():
    """Both stags pay more on average, and by chance: with the variances the solver leaves them to others."""
    stag = gt.symmetric(np.array([[4.0, 3.0], [3.0, 3.0]]))
    noise = np.zeros((2, 2, 2))
    noise[0, 0], noise[1, :, 0] = 2.0, 2.0
    seen = []

    def rae(*moments):
        seen.append(moments)
        return gt.meta_solver("rae", lambda_=1.0, num_steps=500)(*moments)

    plain = matrix_game(stag, first=[1, 1])
    game = plain._replace(
        play=lambda key, profile: np.stack([x[(slice(None), *profile)] for x in (np.asarray(stag), noise)])
    )
    game = game._replace(respond=lambda key, player, populations, strategies: 0)
    averse = psro(KEY, game, rae, num_iterations=2, tolerance=-float("inf"))
    assert averse.populations == [[1, 0, 0]] * 2 and len(seen) == 3
    chosen = (slice(None), *np.ix_(*averse.populations))
    np.testing.assert_array_equal(averse.payoffs, np.asarray(stag)[chosen])
    np.testing.assert_array_equal(averse.variances, noise[chosen])
    np.testing.assert_array_equal(seen[-1][1], averse.variances)
    assert min(s[0] for s in averse.strategies) > 0.99
    np.testing.assert_allclose(averse.gains[0], 0.0, atol=1e-5)  # a stag where the other hunts a hare pays 3, too
    blind = psro(KEY, plain._replace(respond=game.respond), rae, num_iterations=1, tolerance=-float("inf"))
    assert blind.variances is None and len(seen[-1]) == 1 and max(s[0] for s in blind.strategies) < 0.01
    for name in ("uniform", "alpha_rank"):
        np.testing.assert_allclose(
            *(gt.meta_solver(name)(*x) for x in ((np.asarray(stag),), (np.asarray(stag), noise)))
        )


def test_three_players_who_want_to_agree():
    payoffs = np.zeros((3, 2, 2, 2))
    payoffs[:, 0, 0, 0], payoffs[:, 1, 1, 1] = 1.0, 2.0
    result = psro(KEY, matrix_game(payoffs, first=[1, 1, 1]), gt.meta_solver("uniform"), num_iterations=4)
    assert result.populations == [[1], [1], [1]] and result.payoffs.shape == (3, 1, 1, 1)
    assert len(result.gains) == 1


def repeated_game(matrix, rounds=4):
    """Two agents play a matrix game for some rounds; they see nothing but the round."""
    payoffs = jnp.stack([jnp.asarray(matrix, jnp.float32), -jnp.asarray(matrix, jnp.float32)])

    def observe(time):
        return jnp.full((2, 1), time, jnp.float32) / rounds

    def reset(key, params):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(key, time, action, params):
        over = jnp.full(2, time + 1 >= rounds)
        return time + 1, TimeStep(observe(time + 1), payoffs[:, action[0], action[1]], over, jnp.zeros(2, bool))

    return Env(reset, step, (), Repeated(Box(0.0, 1.0, (1,)), 2), Repeated(Discrete(len(matrix)), 2))


def noisy(env):
    """Rewards of the first agent are 2 larger or smaller, by chance, and those of the second opposite."""

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        sign = jnp.where(jax.random.bernoulli(key), 2.0, -2.0)
        return state, timestep._replace(reward=timestep.reward + sign * jnp.array([1.0, -1.0]))

    return env._replace(step=step)


def gambler(num):
    """A policy of one action, its state; `update` makes that the number of rewards above 0."""

    def act(key, state, memory, observation):
        return memory, jnp.full(observation.shape[0], state, jnp.int32), {}

    def update(key, state, data):
        return jnp.sum(data.reward > 0).astype(jnp.int32), {}

    return Agent(lambda key, hp, example: jax.random.randint(key, (), 0, num), no_memory, act, act, update)


def test_payoffs_of_policies_and_mixtures_of_opponents():
    """Payoffs of constant policies are the matrix; a learner meets opponents as often as the mixture says."""
    kept = gambler(3)
    env = repeated_game(RPS, rounds=1)
    game = environment_game(KEY, env, kept, num_envs=64, unroll_length=16, num_updates=1, capacity=4, num_episodes=8)
    for i in range(3):
        np.testing.assert_array_equal(game.play(KEY, (jnp.int32(i), jnp.int32(0))), [RPS[i, 0], -RPS[i, 0]])
    both = environment_game(
        KEY, noisy(env), kept, num_envs=1, unroll_length=1, num_updates=1, num_episodes=2000, variances=True
    )
    mean, variance = both.play(KEY, (jnp.int32(1), jnp.int32(0)))
    np.testing.assert_allclose(mean, [1.0, -1.0], atol=0.2)
    np.testing.assert_allclose(variance, [4.0, 4.0], rtol=0.05)
    populations = [[jnp.int32(1)], [jnp.int32(0), jnp.int32(1), jnp.int32(2)]]
    # Which action the learner happens to have does not matter: each wins against one of three.
    won = int(game.respond(KEY, 0, populations, [np.ones(1), np.array([0.25, 0.25, 0.5])]))
    shares = np.array([0.25, 0.5]) * 64 * 16
    assert min(abs(won - shares)) < 4 * np.sqrt(64 * 16 * 0.25)
    with pytest.raises(ValueError, match="capacity is 4, must be above"):
        game.respond(KEY, 0, [[jnp.int32(0)] * 4, [jnp.int32(0)]], [np.ones(4) / 4, np.ones(1)])
    with pytest.raises(ValueError, match="3 agents and 3 hparams, must be 2 of each"):
        environment_game(KEY, env, [kept] * 3, num_envs=1, unroll_length=1, num_updates=1)
    with pytest.raises(ValueError, match="num_iterations is 0"):
        psro(KEY, game, gt.meta_solver("nash"), num_iterations=0)


def learned():
    """PSRO with PPO on a repeated game that an untrained policy, which is near the uniform one, is bad at.

    Returns the exploitability in each round, before and after, and the result.
    """
    matrix = np.array([[0.0, -1.0, 3.0], [1.0, 0.0, -2.0], [-3.0, 2.0, 0.0]]) / 3  # equilibrium (1/3, 1/2, 1/6)
    env = repeated_game(matrix)
    one = env._replace(observation_space=env.observation_space.space, action_space=env.action_space.space)
    policy = networks.policy(networks.mlp((8,)), for_space(one.action_space))
    agent = jaxrl.ppo(policy, networks.critic(networks.mlp((8,))), num_minibatches=1)
    agent = agent._replace(hparams=agent.hparams._replace(learning_rate=0.02, entropy_coefficient=0.0))
    game = environment_game(KEY, env, agent, num_envs=32, unroll_length=16, num_updates=60, num_episodes=512)
    result = psro(KEY, game, gt.meta_solver("nash"), num_iterations=6)

    @jax.jit
    def frequencies(state):
        seen = jnp.repeat(jnp.arange(4) / 4, 500)[:, None]
        memory = agent.init_memory(KEY, state, seen)
        return jax.nn.one_hot(agent.act(KEY, state, memory, seen)[1], 3).reshape(4, 500, 3).mean(1)

    def exploitability(strategies):
        played = [np.tensordot(s, np.stack([frequencies(x) for x in p]), 1) for s, p in zip(strategies, populations)]
        return np.array([gt.exploitability(gt.two_player(matrix), [x[t] for x in played]) for t in range(4)])

    populations = result.populations
    return exploitability([np.eye(len(p))[0] for p in populations]), exploitability(result.strategies), result


@pytest.mark.slow
def test_learned_responses_come_near_the_equilibrium():
    before, after, result = learned()
    assert before.mean() > 0.15 and after.mean() <= 0.05, (before, after, result.strategies, result.gains)
    assert result.gains[0].sum() > 4 * 0.3, result.gains  # the first responses take it, in each of 4 rounds
