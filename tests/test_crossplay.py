"""Cross-play: payoffs of known policies, whose seats, memories and keys are whose, and what is made of the returns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl import crossplay as xp
from jaxrl.combinators.multi_agent import independent, seated, shared, teams
from jaxrl.crossplay import crossplay
from jaxrl.envs.games import matrix_game
from jaxrl.loop import example_data
from jaxrl.spaces import Box, Discrete, Repeated
from jaxrl.types import Agent, Env, TimeStep, no_memory, nothing

KEY = jax.random.key(0)
NUM_ACTIONS, ROUNDS = 3, 5


def tensor(*shape, seed=0):
    """Payoffs [A, n_1, ..., n_A], all of them different."""
    payoffs = np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape)
    return payoffs.astype(np.float32)


def actor(act, init_memory=no_memory, **fields):
    """An agent that was trained elsewhere."""
    return Agent(lambda *_: (), init_memory, act, act, nothing, **fields)


def fixed(several=False):
    """A policy of one action for each seat: its state [A]."""

    def act(key, state, memory, observation):
        num_envs = jax.tree.leaves(observation)[0].shape[0]
        action = jnp.broadcast_to(state, (num_envs, *state.shape))
        return memory, tuple(action.T) if several else action, {}

    return actor(act)


@pytest.mark.parametrize("seats", [(0,), (1,)])
@pytest.mark.parametrize("num_actions", [(3, 3), (2, 3)], ids=["alike", "unlike"])
def test_payoffs_of_fixed_policies(num_actions, seats):
    """Seat a gets payoffs[a, x, y], where x and y are what the policies in seats 0 and 1 do there."""
    payoffs, agent = tensor(2, *num_actions), fixed(several=num_actions == (2, 3))
    actions = np.array([(0, 1), (1, 0), (1, 2), (0, 0)])
    policies = [(agent, jnp.array(x)) for x in actions]
    played = crossplay(KEY, policies, matrix_game(payoffs), seats=seats, num_episodes=3)
    assert played.returns.shape == (4, 4, 3, 2) and (played.lengths == 1).all() and played.finished.all()
    for i in range(4):
        for j in range(4):
            first, second = (i, j) if seats == (0,) else (j, i)
            expected = payoffs[:, actions[first, 0], actions[second, 1]]
            np.testing.assert_array_equal(played.returns[i, j], np.tile(expected, (3, 1)))


@pytest.mark.parametrize("seats", [(0,), (1,), (0, 2)])
def test_one_against_the_rest(seats):
    payoffs, actions = tensor(3, 2, 2, 2), np.array([(0, 0, 1), (1, 1, 0)])
    agent = fixed()
    policies = [(agent, jnp.array(x)) for x in actions]
    played = crossplay(KEY, policies, matrix_game(payoffs), seats=seats, num_episodes=2)
    for i in range(2):
        for j in range(2):
            done = [actions[i if seat in seats else j, seat] for seat in range(3)]
            np.testing.assert_array_equal(played.returns[i, j], np.tile(payoffs[(slice(None), *done)], (2, 1)))


def test_kinds_of_agents_stay_in_their_places():
    """Policies that are compiled together are not side by side."""
    plain, seats_alike = fixed(), fixed()
    seats_alike = seats_alike._replace(act_greedy=lambda k, s, m, o: plain.act(k, jnp.full(2, s["action"]), m, o))
    policies = [(plain, jnp.array([0, 1])), (seats_alike, {"action": 2}), (plain, jnp.array([2, 0]))]
    policies += [(seats_alike, {"action": 1}), (plain, jnp.array([1, 1])), (seats_alike, {"action": 0})]
    actions, payoffs = [(0, 1), (2, 2), (2, 0), (1, 1), (1, 1), (0, 0)], tensor(2, 3, 3)
    played = crossplay(KEY, policies, matrix_game(payoffs), num_episodes=1)
    for i, (first, _) in enumerate(actions):
        for j, (_, second) in enumerate(actions):
            np.testing.assert_array_equal(played.returns[i, j, 0], payoffs[:, first, second])


def test_policies_of_a_kind_are_compiled_once():
    traces = []

    def act(key, state, memory, observation):
        traces.append(1)
        return fixed().act(key, state, memory, observation)

    def count(num):
        del traces[:]
        policies = [(agent, jnp.zeros(2, jnp.int32))] * num
        crossplay(KEY, policies, matrix_game(tensor(2, 3, 3)), num_episodes=1)
        return len(traces)

    agent = actor(act)
    assert 0 < count(2) == count(8)


def last_rewards():
    """Seats move on with their steps and what they earned: a policy of state s does (s + memory) mod 3.

    Memory [N, A] is s, and s more for each step, plus the rewards of the seat, plus a mark of `act`, 10 s, each time.
    """

    def act(key, state, memory, observation):
        mark = jnp.full(memory.shape, 10.0 * state)
        return memory + state, ((state + memory) % NUM_ACTIONS).astype(jnp.int32), {"mark": mark}

    def remember(state, memory, step):
        return memory + step.reward + step.extras["mark"]

    return actor(act, lambda key, state, observation: jnp.full(observation.shape[:2], state), remember=remember)


def test_each_policy_has_a_memory_of_its_own_which_begins_with_the_episode():
    payoffs, states = tensor(2, 3, 3), (1.0, 2.0, 4.0)
    env = matrix_game(payoffs, num_steps=ROUNDS)
    agent = last_rewards()
    played = crossplay(KEY, [(agent, jnp.float32(s)) for s in states], env, num_episodes=2)
    for i, first in enumerate(states):
        for j, second in enumerate(states):
            speed, total = np.array([first, second]), np.zeros(2)
            memory = speed
            for _ in range(ROUNDS):
                action = ((speed + memory) % NUM_ACTIONS).astype(int)
                reward = payoffs[:, action[0], action[1]]
                memory, total = memory + 11 * speed + reward, total + reward
            np.testing.assert_array_equal(played.returns[i, j], np.tile(total, (2, 1)))


class Room(NamedTuple):
    place: jax.Array
    time: jax.Array


def random_room():
    """Agents get where the episode began; the one that is in seat 1 is out after 2 of 3 steps."""

    def seen(state):
        return jnp.full((2, 1), state.place)

    def reset(key, params):
        state = Room(jax.random.uniform(key), jnp.int32(0))
        return state, seen(state)

    def step(key, state, action, params):
        state = state._replace(time=state.time + 1)
        reward = state.place + action.astype(jnp.float32)
        return state, TimeStep(seen(state), reward, state.time >= jnp.array([3, 2]), jnp.zeros(2, bool))

    return Env(reset, step, (), Repeated(Box(0.0, 1.0, (1,)), 2), Repeated(Discrete(3), 2))


def test_all_pairs_play_the_same_episodes():
    agent, states = fixed(), [jnp.array([1, 1]), jnp.array([1, 1]), jnp.array([2, 0])]
    played = crossplay(KEY, [(agent, x) for x in states], random_room(), num_episodes=4)
    assert len(np.unique(played.returns[0, 0, :, 0])) == 4
    np.testing.assert_array_equal(played.returns[1, 0], played.returns[0, 0])
    np.testing.assert_allclose(played.returns[2, 0, :, 0], played.returns[0, 0, :, 0] + 3, rtol=1e-6)
    np.testing.assert_array_equal(played.lengths[2, 1], np.tile([3, 2], (4, 1)))


def test_policies_draw_by_themselves():
    """A policy that tosses a coin for all of its seats agrees with itself; two of them do in half of the episodes."""

    def toss(key, state, memory, observation):
        coin = jax.random.bernoulli(key, 0.5, observation.shape[:1])
        return memory, jnp.broadcast_to(coin[:, None], observation.shape[:2]).astype(jnp.int32), {}

    env, agent = matrix_game(np.stack([np.eye(2)] * 2)), actor(toss)
    alone = jaxrl.evaluate(KEY, agent, (), env, num_episodes=400, greedy=False)
    assert (alone.returns == 1).all()
    played = crossplay(KEY, [(agent, ()), (agent, ())], env, num_episodes=400, greedy=False)
    assert abs(played.returns.mean() - 0.5) < 4 * np.sqrt(0.25 / 400)


def test_the_diagonal_is_self_play():
    """Recurrent learners each, and unlike ones that share: `crossplay` knows nothing of how agents were lifted."""
    env = jaxrl.envs.make("spread")
    one = env._replace(observation_space=env.observation_space.space, action_space=env.action_space.space)
    ppo, memory = (
        jaxrl.make_agent("ppo", one, widths=(4,), num_minibatches=1, recurrent=recurrent, memory_size=4)[0]
        for recurrent in (False, True)
    )
    agents = [independent(memory, 3)] * 2 + [teams([(ppo, 1), (shared(memory, 2), (0, 2))], env.action_space)]
    example = example_data(env, 2, 3)
    init = lambda agent, key: agent.actor(agent.init(key, agent.hparams, example))  # noqa: E731
    policies = [
        (agent, jax.jit(init, static_argnums=0)(agent, k)) for agent, k in zip(agents, jax.random.split(KEY, 3))
    ]

    def both(key):
        alone = [jaxrl.evaluate(key, agent, state, env, None, 6, num_episodes=4) for agent, state in policies]
        return crossplay(key, policies, env, seats=(1,), num_episodes=4, max_steps=6), alone

    played, alone = jax.jit(both)(KEY)
    for i in range(3):
        np.testing.assert_allclose(played.returns[i, i], alone[i].returns, rtol=1e-5)
        assert not played.finished[i, i].any() and (played.lengths[i, i] == 6).all()
        assert all(np.abs(played.returns[i, j] - played.returns[i, i]).max() > 1e-3 for j in range(3) if j != i)


def test_means_and_errors():
    returns = np.array([[[4.0, 6.0, 8.0], [1.0, 1.0, 1.0]], [[3.0, 2.0, 4.0], [0.0, 0.0, 6.0]]])
    found = xp.score(returns)
    np.testing.assert_allclose(found.mean, [[6, 1], [3, 2]])
    np.testing.assert_allclose(found.error, np.array([[2, 0], [1, np.sqrt(12)]]) / np.sqrt(3))
    own, others = np.array([2.0, 3.0, 7.0]), np.array([2.0, 1.5, 2.5])
    for (mean, error), x in zip(found[2:], (own, others, own - others)):
        np.testing.assert_allclose((mean, error), (x.mean(), x.std(ddof=1) / np.sqrt(3)))
    alone, once = xp.score(returns[:1, :1]), xp.score(returns[..., :1])
    assert alone.self_play[0] == 6 and np.isnan([*alone.cross_play, *alone.gap]).all()
    assert once.gap[0] == 0 and np.isnan(once.error).all() and np.isnan(once.gap[1])


def test_who_wins_and_ratings():
    """Zero-sum, two episodes a pair; seat 0 is ahead by 1 in all of them, beside what the policies are worth."""
    worth = np.array([0.0, 0.5, 2.0])
    lead = worth[:, None] - worth[None, :] + 1.0
    returns = np.stack([lead, -lead], -1)[:, :, None].repeat(2, 2)
    rates = xp.win_rates(returns)
    np.testing.assert_array_equal(rates, [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [1.0, 1.0, 0.5]])
    np.testing.assert_array_equal(xp.win_rates(returns[..., ::-1], (1,)), rates)
    returns[2, 1, 0] = 0.0  # a draw: the third wins 3 of 4
    assert xp.win_rates(returns)[2, 1] == 1 - xp.win_rates(returns)[1, 2] == 0.875
    elo = xp.ratings(returns)
    assert elo[0] < elo[1] < elo[2] and abs(elo.sum()) < 1e-2
    assert xp.ratings(returns + [0.0, 3.0]) is not None
    for no_game in (returns[:1, :1], np.abs(returns), returns[..., :1].repeat(2, -1), np.full_like(returns, np.nan)):
        assert xp.ratings(no_game) is None


def test_kinds_of_rewards():
    team = np.array([[1.0, 1.0], [2.0, 2.0 + 1e-5]])
    assert xp.all_earn_the_same(team) and not xp.is_constant_sum(team)
    rivals = np.array([[1.0, 3.0], [4.0, 1e-5]])
    assert xp.is_constant_sum(rivals) and not xp.all_earn_the_same(rivals)
    for nothing_at_stake in (np.zeros((2, 2)), np.ones((2, 2))):
        assert xp.all_earn_the_same(nothing_at_stake) and not xp.is_constant_sum(nothing_at_stake)
    general = np.array([[1.0, 3.0], [4.0, 1.0]])
    assert not xp.all_earn_the_same(general) and not xp.is_constant_sum(general)


def test_bad_arguments_end_in_a_line():
    env, policies = matrix_game(tensor(2, 3, 3)), [(fixed(), jnp.zeros(2, jnp.int32))]
    for seats in ((), (0, 1), (2,), (-1,), (0, 0)):
        with pytest.raises(ValueError, match="must be some of 0 to 1, each once, and not all"):
            crossplay(KEY, policies, env, seats=seats)
    with pytest.raises(ValueError, match="policies is empty"):
        crossplay(KEY, [], env)
    with pytest.raises(ValueError, match="must be those of several agents: Repeated, or a Tuple"):
        crossplay(KEY, policies, toys.clock())
    with pytest.raises(ValueError, match=r"who is \[0, 2\], must be indices of 2 agents"):
        seated([fixed()] * 2, [0, 2], env.action_space)
