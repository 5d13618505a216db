"""`against`, pools of past selves and turns: what each sees, whose memory it is, and that it equals playing by hand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl.combinators.multi_agent import independent, shared, teams
from jaxrl.combinators.self_play import TODAY, alternating, even, pool, prioritized, recent, uniform
from jaxrl.envs.against import AgainstParams, against
from jaxrl.envs.check import check_env
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data, online
from jaxrl.spaces import Box, Discrete, Repeated, Tuple
from jaxrl.types import Agent, Env, TimeStep, Transition

KEY = jax.random.key(0)
NUM_ENVS, LENGTH = 3, 7
SALT = 0x7A6A00  # what `against` draws the opponents' keys with


class Memory(NamedTuple):
    first: jax.Array  # the observation at the reset
    steps: jax.Array
    earned: jax.Array


def rememberer(num_actions=2):
    """Acts at random by its weight, a number of its state, and by what it remembers: steps and rewards so far."""

    def init(key, hparams, example):
        return {"weight": jax.random.uniform(key), "optimiser": jnp.zeros(5)}

    def init_memory(key, state, observation):
        n = observation.shape[:-1]
        return Memory(observation[..., 0] + jax.random.uniform(key, n), jnp.zeros(n, jnp.int32), jnp.zeros(n))

    def act(key, state, memory, observation):
        noise = jax.random.uniform(key, observation.shape[:-1])
        total = noise + state["weight"] + memory.first + memory.steps + memory.earned
        action = (jnp.floor(10 * total) % num_actions).astype(jnp.int32)
        return memory._replace(steps=memory.steps + 1), action, {"mark": noise}

    def remember(state, memory, step: Transition):
        there = step.extras["weight"] if "weight" in step.extras else 1.0
        return memory._replace(earned=memory.earned + there * step.reward + step.extras["mark"])

    def update(key, state, data):
        return {**state, "weight": state["weight"] + 1.0}, {}

    actor = lambda state: {"weight": state["weight"]}  # noqa: E731
    return Agent(init, init_memory, act, act, update, remember, actor=actor)


def duel(several=False, lengths=(9, 9)):
    """Two agents; what each gets depends on both, on chance and on a number of the params; extras have a row each."""

    def observe(state):
        time, place = state[0], state[1]
        seen = jnp.stack([jnp.stack([time, place]), jnp.stack([time, -place])])
        return (seen[0], jnp.append(seen[1], 7.0)) if several else seen

    def reset(key, params):
        state = jnp.stack([jnp.zeros(()), jax.random.uniform(key)])
        return state, observe(state)

    def step(key, state, action, params):
        a, b = action
        time, place = state[0] + 1, state[1] + 0.1 * a - 0.2 * b + 0.01 * jax.random.normal(key)
        state = jnp.stack([time, place])
        reward = params * jnp.stack([place, -2.0 * place]) + jnp.stack([a, b])
        over = time >= jnp.array(lengths)
        extras = {"cost": jnp.stack([place, 2 * place])}
        return state, TimeStep(observe(state), reward, over & jnp.array([True, False]), over & ~over[0], extras)

    one = Box(-9.0, 9.0, (2,))
    if several:
        spaces = Tuple((one, Box(-9.0, 9.0, (3,)))), Tuple((Discrete(2), Discrete(3)))
    else:
        spaces = Repeated(one, 2), Repeated(Discrete(2), 2)
    render = lambda state, params: jnp.full((2, 2, 3), params, jnp.uint8)  # noqa: E731
    return Env(reset, step, jnp.float32(1.0), *spaces, render)


def weights(x):
    return {"weight": jnp.asarray(x, jnp.float32)}


@pytest.mark.parametrize("several", [False, True], ids=["alike", "unlike"])
@pytest.mark.parametrize("player", [0, 1])
def test_it_is_what_playing_both_by_hand_is(player, several):
    """To the bit: keys, observations, rewards, memories of both, over a whole episode."""
    env, mine, theirs = duel(several), rememberer(2), rememberer(2)
    one = against(env, theirs, weights(0.3), player=player)
    keys = [jax.random.fold_in(KEY, i) for i in range(4)]
    other = 1 - player

    @jax.jit
    def through_against(key):
        state, seen = one.reset(key, one.params)
        memory, rows = mine.init_memory(key, weights(0.1), seen[None]), []
        for k in keys:
            memory, action, extras = mine.act(k, weights(0.1), memory, seen[None])
            state, timestep = one.step(k, state, action[0], one.params)
            rows.append((seen, action[0], timestep))
            seen = timestep.observation
        return rows

    @jax.jit
    def by_hand(key):
        state, seen = env.reset(key, env.params)
        memory = mine.init_memory(key, weights(0.1), seen[player][None])
        their_memory = theirs.init_memory(jax.random.fold_in(key, SALT + 1), weights(0.3), seen[other][None])
        rows, lead = [], 0.0
        for k in keys:
            memory, action, _ = mine.act(k, weights(0.1), memory, seen[player][None])
            own_key = jax.random.fold_in(k, SALT)
            their_memory, answer, mark = theirs.act(own_key, weights(0.3), their_memory, seen[other][None])
            both = (action[0], answer[0]) if player == 0 else (answer[0], action[0])
            state, timestep = env.step(k, state, both if several else jnp.stack(both), env.params)
            column = Transition((), (), *(x[other][None] for x in timestep[1:4]), (), {**mark})
            their_memory = theirs.remember(weights(0.3), their_memory, column)
            lead = lead + timestep.reward[player] - timestep.reward[other]
            extras = {"cost": timestep.extras["cost"][player], "opponent": jnp.int32(0), "lead": lead}
            own = [x[player] for x in (timestep.observation, *timestep[1:4])]
            rows.append((seen[player], action[0], TimeStep(*own, extras)))
            seen = timestep.observation
        return rows

    jax.tree.map(np.testing.assert_array_equal, through_against(KEY), by_hand(KEY))
    space = env.observation_space
    assert one.observation_space == (space.spaces[player] if several else space.space)


def test_it_is_an_environment_and_is_drawn():
    one = against(duel(), rememberer(), weights(0.3))
    assert not check_env(one)
    np.testing.assert_array_equal(one.render(one.reset(KEY, one.params)[0], one.params), np.ones((2, 2, 3)))


def play(env, agent, sample=None, num_envs=NUM_ENVS, length=LENGTH, key=KEY):
    def go(key):
        state = agent.init(key, agent.hparams, example_data(env, num_envs, length))
        params = env.params if sample is None else sample(key, num_envs)
        now = start(key, agent, state, env, params, num_envs, None if sample is None else 0)
        return rollout(key, agent, state, env, now, length, sample_params=sample)[:2]

    return jax.jit(go)(key)


def watcher():
    """Opponents that record nothing and answer with their weight plus the steps of their memory, mod 2."""

    def act(key, state, memory, observation):
        n = observation.shape[:-1]
        return memory + 1, (state["weight"].astype(jnp.int32) + memory) % 2, {"mark": jnp.zeros(n)}

    memory = lambda key, state, observation: jnp.zeros(observation.shape[:-1], jnp.int32)  # noqa: E731
    return rememberer()._replace(act=act, act_greedy=act, init_memory=memory, remember=lambda s, m, step: m)


def reveals(lengths):
    """A duel in which the player's reward is what the opponent did."""
    env = duel(lengths=lengths)

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        return state, timestep._replace(reward=jnp.stack([action[1], action[0]]).astype(jnp.float32))

    return env._replace(step=step)


def test_opponents_memories_start_anew_where_the_episode_ends():
    data = play(against(reveals((3, 9)), watcher(), weights(0.0)), rememberer())[1]
    np.testing.assert_array_equal(data.reward, np.tile((np.arange(LENGTH) % 3 % 2)[:, None], (1, NUM_ENVS)))
    np.testing.assert_array_equal(data.terminated, np.tile((np.arange(LENGTH) % 3 == 2)[:, None], (1, NUM_ENVS)))


def test_params_may_be_one_a_row():
    """Each environment has opponents of its own, until its episode ends."""

    def sample(key, n):
        params = AgainstParams(jnp.ones(n), weights(jnp.arange(n)), jnp.arange(n))
        return params

    env = against(reveals((9, 9)), watcher(), weights(0.0))
    data = play(env, rememberer(), sample)[1]
    want = (np.arange(LENGTH)[:, None] + np.arange(NUM_ENVS)) % 2
    np.testing.assert_array_equal(data.reward, want)
    np.testing.assert_array_equal(data.extras["opponent"], np.tile(np.arange(NUM_ENVS), (LENGTH, 1)))


def test_an_opponent_that_is_out_is_not_there():
    """It terminates first: its rows have weight 0 and no reward, and the player's episode goes on to its end."""
    seen = []

    def remember(state, memory, step):
        seen.append(step)
        return memory + jnp.where(step.extras["weight"] > 0, 0, 10)

    base = duel(lengths=(9, 2))

    def step(key, state, action, params):
        state, timestep = base.step(key, state, action, params)
        out = state[0] > 2  # of the second agent: what it gets from then on is nonsense
        reward = jnp.stack([action[1].astype(jnp.float32), jnp.where(out, jnp.nan, 1.0)])
        terminated = jnp.stack([state[0] >= 5, state[0] == 2])
        return state, timestep._replace(reward=reward, terminated=terminated, truncated=jnp.zeros(2, bool))

    env = against(base._replace(step=step), watcher()._replace(remember=remember), weights(0.0))
    data = play(env, rememberer())[1]
    assert np.isfinite(data.reward).all() and np.isfinite(data.extras["lead"]).all()
    np.testing.assert_array_equal(data.terminated[:, 0], [0, 0, 0, 0, 1, 0, 0])
    # Its memory is 0, 1, 2, and from then on 10 more each time: even numbers of steps keep the parity.
    np.testing.assert_array_equal(data.reward[:, 0], [0, 1, 0, 1, 0, 0, 1])
    np.testing.assert_allclose(data.extras["lead"][:5, 0], np.cumsum([0 - 1, 1 - 1, 0, 1, 0]))
    assert seen[0].extras["weight"].shape == (1,)


def test_more_than_one_opponent():
    """All by one, each by its own, or teams: in their order around the player, with their own weights."""
    env = toys.crowd()
    agent = watcher()
    kinds = [
        (shared(agent, 2), weights(1.0), (1, 1)),
        (independent(agent, 2), weights([0.0, 1.0]), (0, 1)),
        (teams([(agent, 0), (agent, 1)], Repeated(Discrete(2), 2)), (weights(1.0), weights(0.0)), (1, 0)),
    ]
    for opponents, state, first in kinds:
        one = against(env, opponents, state, player=1)
        now, seen = one.reset(KEY, one.params)
        np.testing.assert_allclose(seen, [0, 1 / 3], rtol=1e-6)
        np.testing.assert_allclose(now.observation[0, :, 1], [0, 2 / 3], rtol=1e-6)
        now, timestep = one.step(KEY, now, jnp.int32(1), one.params)
        # Reward of agent i: 1 + i where it chooses i % 2, else the negative; the mean of agents 0 and 2 is taken off.
        reward = 2.0 - np.mean([1.0 if first[0] == 0 else -1.0, 3.0 if first[1] == 0 else -3.0])
        np.testing.assert_allclose(timestep.extras["lead"], reward)
        assert timestep.reward == 2.0


def test_opponents_who_are_not_given_are_untrained():
    one = against(duel(), rememberer())
    assert one.params.opponents.keys() == {"weight"} and one.params.label == 0
    agent = jaxrl.make_agent("ppo", one, widths=(4,), num_minibatches=1, recurrent=True, memory_size=4)[0]
    one = against(toys.crowd(), shared(agent, 2), player=2)
    now, timestep = jax.eval_shape(lambda key: one.step(key, one.reset(key, one.params)[0], 0, one.params), KEY)
    assert {x.shape for x in jax.tree.leaves(now.memory)} == {(1, 2, 4)} and timestep.observation.shape == (2,)


def finished(label, lead, over=True):
    """Data [1, n] of episodes that end with these opponents and leads."""
    n = len(label)
    extras = {"opponent": jnp.array([label]), "lead": jnp.array([lead], jnp.float32)}
    return Transition((), (), jnp.zeros((1, n)), jnp.full((1, n), over), jnp.zeros((1, n), bool), (), extras)


@pytest.fixture
def curriculum():
    return pool(rememberer(), capacity=3, period=2, decay=0.5, weights=prioritized(2.0))


def grown(curriculum, num):
    """A pool after `num` updates; the learner's weight is 10 more than the number of updates."""
    env = against(duel(), rememberer(), weights(0.5))
    state = curriculum.init(KEY, env.params)
    for i in range(num):
        learner = {"weight": jnp.float32(10 + i), "optimiser": jnp.zeros(5)}
        state, metrics = curriculum.update(KEY, state, learner, finished([0], [0.0], over=False))
    return state, metrics


def test_a_pool_takes_in_every_period_and_gives_up_the_oldest(curriculum):
    np.testing.assert_array_equal(grown(curriculum, 1)[0].label, [0, TODAY, TODAY])
    state, metrics = grown(curriculum, 4)
    np.testing.assert_array_equal(state.label, [0, 1, 2])
    np.testing.assert_array_equal(state.actors["weight"], [0.5, 11, 13])
    state, metrics = grown(curriculum, 7)
    np.testing.assert_array_equal(state.label, [3, 1, 2])
    np.testing.assert_array_equal(state.actors["weight"], [15, 11, 13])
    assert metrics["self_play/size"] == 3 and state.num_updates == 7


def test_results_go_to_whom_they_were_against(curriculum):
    state, _ = grown(curriculum, 7)  # labels 3, 1, 2
    learner = {"weight": jnp.float32(0), "optimiser": jnp.zeros(5)}
    # Who is given up (0), and the learner of today, get nothing; nor does an episode that is not over.
    state = state._replace(num_updates=jnp.int32(2))
    data = finished([3, 3, 2, 0, TODAY, 1], [1.0, -2.0, 0.0, 5.0, 5.0, 5.0])
    state, metrics = curriculum.update(KEY, state, learner, data)
    np.testing.assert_allclose(state.wins, [1, 1, 0.5])
    np.testing.assert_allclose(state.games, [2, 1, 1])
    assert metrics["self_play/wins"] == 2.5 and metrics["self_play/games"] == 4
    going_on = finished([1, 2, 3], [9.0, 9.0, 9.0], over=False)
    state = curriculum.update(KEY, state._replace(num_updates=jnp.int32(2)), learner, going_on)[0]
    np.testing.assert_allclose(state.wins, [0.5, 0.5, 0.25])
    np.testing.assert_allclose(state.win_rate, [1 / 2, 2 / 3, 0.75 / 1.5])
    taken = curriculum.update(KEY, state, learner, going_on)[0]  # at 4 updates: label 4 in the place of 1
    np.testing.assert_array_equal(taken.label, [3, 4, 2])
    np.testing.assert_array_equal(taken.games[1], 0)


def chi_square(counts, expected):
    return np.sum((counts - expected) ** 2 / expected)


@pytest.mark.parametrize("kind", ["uniform", "recent", "prioritized", "even"])
def test_opponents_are_drawn_in_proportion_to_their_weights(kind):
    rule = {"uniform": uniform(), "recent": recent(1.0), "prioritized": prioritized(2.0), "even": even()}[kind]
    curriculum = pool(rememberer(), capacity=4, period=1, weights=rule, today=0.2)
    env = against(duel(), rememberer(), weights(0.5))
    state = curriculum.init(KEY, env.params)._replace(
        actors=weights(jnp.arange(4.0)),
        label=jnp.array([4, 5, TODAY, 3]),  # the third place is empty
        wins=jnp.array([8.5, 3.5, 0.0, 0.5]),
        games=jnp.array([9.0, 9.0, 0.0, 9.0]),  # win rates 0.9, 0.4, -, 0.1
        num_added=jnp.int32(6),
    )
    n = 20_000
    learner = {"weight": jnp.float32(77), "optimiser": jnp.zeros(5)}
    params = jax.jit(curriculum.sample, static_argnums=3)(KEY, state, learner, n)
    share = {
        "uniform": [1, 1, 1],
        "recent": [0.25, 0.5, 0.125],
        "prioritized": [0.01, 0.36, 0.81],
        "even": [0.09, 0.24, 0.09],
    }[kind]
    expected = n * np.append(0.8 * np.array(share) / np.sum(share), 0.2)
    counts = np.array([np.sum(params.label == label) for label in (4, 5, 3, TODAY)])
    assert counts.sum() == n and chi_square(counts, expected) < 16.3  # 0.999 of chi-square with 3 degrees of freedom
    want = np.select([params.label == x for x in (4, 5, 3, TODAY)], [0, 1, 3, 77])
    np.testing.assert_array_equal(params.opponents["weight"], want)
    assert params.env.shape == (n,)


def test_self_play_with_past_selves_is_a_curriculum():
    """The whole loop: opponents are what the learner was, an episode keeps whom it began with."""
    agent, env = rememberer(), against(duel(lengths=(3, 3)), rememberer(), weights(0.5))
    loop = online(agent, env, num_envs=4, unroll_length=5, curriculum=pool(agent, capacity=8, period=1))

    @jax.jit
    def train(key):
        return jaxrl.run(loop, loop.init(key), 6)

    state, metrics = train(KEY)
    known = np.asarray(state.curriculum.actors["weight"])[:7]
    np.testing.assert_array_equal(state.curriculum.label, [0, 1, 2, 3, 4, 5, 6, TODAY])
    assert known[0] == 0.5
    np.testing.assert_allclose(np.diff(known[1:]), 1.0, rtol=1e-5)
    params = state.interaction.params
    np.testing.assert_array_equal(params.opponents["weight"], known[params.label])
    assert len(np.unique(params.label)) > 1
    assert metrics["self_play/games"].sum() == metrics["episode/count"].sum() == 6 * 5 * 4 // 3


def test_turns():
    """One learns for a period against the other as it is, then the other against what the one has become."""
    env, agent = duel(), rememberer()
    loops = [online(agent, against(env, agent, weights(0.5), player=i), num_envs=2, unroll_length=3) for i in range(2)]
    both = alternating([(agent, loop) for loop in loops], period=2)

    @jax.jit
    def two(key):
        state = both.init(key)
        then, metrics = both.step(state)
        return state, then, metrics

    state, then, metrics = two(KEY)
    opponent = lambda x: x.interaction.params.opponents["weight"]  # noqa: E731
    own = lambda x: x.agent["weight"]  # noqa: E731
    assert opponent(state[0]) == own(state[1]) and opponent(state[1]) == own(state[0])
    assert own(then[0]) == own(state[0]) + 2 and own(then[1]) == own(state[1]) + 2
    assert opponent(then[0]) == own(state[1]) and opponent(then[1]) == own(then[0])
    assert metrics["0/episode/count"].shape == metrics["1/episode/count"].shape == (2,)
    with pytest.raises(ValueError, match="alternating: 1 parts and period 1, must be 2 and >= 1"):
        alternating([(agent, loops[0])])


def test_bad_arguments_end_in_a_line():
    agent = rememberer()
    with pytest.raises(ValueError, match="must be those of several agents: Repeated, or a Tuple"):
        against(toys.clock(), agent)
    with pytest.raises(ValueError, match="player is 2 of 2 agents, must be 0 to 1"):
        against(duel(), agent, player=2)
    with pytest.raises(ValueError, match="capacity is 0 and period 1, must be >= 1"):
        pool(agent, capacity=0, period=1)
    with pytest.raises(ValueError, match="today is 2 and decay 0.95"):
        pool(agent, capacity=1, period=1, today=2)
    for make, value in ((recent, 0), (prioritized, -1)):
        with pytest.raises(ValueError, match=f"{make.__name__}: .* is {value}, must be"):
            make(value)
    with pytest.raises(ValueError, match="has no opponents, must be made by jaxrl.envs.against"):
        pool(agent, capacity=1, period=1).init(KEY, ())
    env = duel()

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        return state, timestep._replace(extras={"map": jnp.zeros(5)})

    one = against(env._replace(step=step), agent, weights(0.0))
    with pytest.raises(ValueError, match=r"extras \['map'\] must have a row for each of 2 agents"):
        jax.eval_shape(one.step, KEY, one.reset(KEY, one.params)[0], jnp.int32(0), one.params)
    with pytest.raises(ValueError, match="opponents act with another state than the learner's actor"):
        curriculum = pool(agent, capacity=2, period=1)
        state = curriculum.init(KEY, against(env, agent, {"other": jnp.float32(0)}).params)
        curriculum.update(KEY, state, {"weight": jnp.float32(0)}, finished([0], [0.0]))
