"""`hierarchical`: segments against a plain loop, semi-MDP values, who learns from what, relabelling, nesting."""

from typing import NamedTuple

import hierarchies
import jax
import jax.numpy as jnp
import numpy as np
import probing
import pytest
import toys

import jaxrl
from jaxrl import key_reuse
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.combinators.frozen import frozen
from jaxrl.combinators.hierarchy import HierarchicalHparams, Levels, correction, hierarchical, hindsight, scripted
from jaxrl.combinators.hierarchy.hierarchical import SALT
from jaxrl.combinators.lift import salted
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.rewards import RewardModel
from jaxrl.spaces import Box, Discrete
from jaxrl.tree import edit_hparams, get_field, replace_fields
from jaxrl.types import Agent, Env, TimeStep, Transition, no_memory

KEY = jax.random.key(0)
DISCOUNT = 0.9
NUM_ENVS, LENGTH = 4, 40


def beside(observation, goal):
    """The goal as a last entry of the observation."""
    return jnp.concatenate([observation, goal[..., None].astype(jnp.float32)], -1)


def period(goal):
    return 2 + goal


def far(observation, goal):
    """A probability that grows with time."""
    return 0.1 * observation[..., 0]


def bonus(step, goal):
    return step.reward + 10.0 * goal


@pytest.fixture(scope="module")
def played():
    """Two rollouts in one, [2 T, N], what the parts were taught, and the memory at the end."""
    env = hierarchies.weather()
    manager, worker = hierarchies.keeper(3, "chosen"), hierarchies.keeper(2, "done")
    agent = hierarchical(
        manager,
        worker,
        goal_space=Discrete(3),
        embed=beside,
        period=period,
        stop=far,
        intrinsic=bonus,
        hparams=HierarchicalHparams(DISCOUNT),
    )

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, NUM_ENVS, LENGTH))
        now, parts = start(key, agent, state, env, env.params, NUM_ENVS), []
        for k in jax.random.split(key):
            now, data, _ = rollout(k, agent, state, env, now, LENGTH)
            after, _ = agent.update(k, state, data)
            parts.append((data, after.manager.data, after.worker.data))
        joined = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
        shuffled = jax.tree.map(lambda x: x[::-1].reshape(-1, *x.shape[2:]), joined)
        again, _ = agent.update(key, state, shuffled[0])
        return joined, shuffled, (again.manager.data, again.worker.data)

    return jax.tree.map(np.asarray, play(KEY))


def expected(data, i):
    """The segments of column i, with a plain loop: rows of (start, goal, total, elapsed, end, reached)."""
    segment, recorded = data.extras["segment"], data.extras
    fresh, rows = True, []
    for t in range(len(data.reward)):
        if fresh:
            begin, goal, mark = data.observation[t, i], segment.action[t, i], segment.extras["chosen"][t, i]
            total, elapsed, age, fresh = 0.0, 0, 0, False
        reward, last = data.reward[t, i], data.terminated[t, i] | data.truncated[t, i]
        reached = segment.draw[t, i] < far(data.next_observation[t, i], goal)
        end = last or reached or age + 1 >= period(goal)
        row = [
            begin,
            goal,
            mark,
            total + DISCOUNT**elapsed * reward,
            elapsed + recorded["num_steps"][t, i],
            end,
            reached,
        ]
        rows.append(row)
        if recorded["weight"][t, i] > 0:
            total, elapsed, age, fresh = row[3], row[4], age + 1, end
    return rows


def test_segments_are_those_of_a_plain_loop(played):
    """Over the boundary of two rollouts; rows of weight 0 are passed over, steps of several primitive ones add up."""
    (data, upper, lower), _, _ = played
    weight = data.extras["weight"]
    assert np.isnan(data.reward[weight == 0]).all() and (weight == 0).any()
    ends = 0
    for i in range(NUM_ENVS):
        for t, (begin, goal, mark, total, elapsed, end, reached) in enumerate(expected(data, i)):
            there = bool(end and weight[t, i] > 0)
            assert (upper.extras["weight"][t, i] > 0) == there
            assert lower.truncated[t, i] == (data.truncated[t, i] or end)
            assert lower.terminated[t, i] == (data.terminated[t, i] or reached)
            np.testing.assert_array_equal(lower.observation[t, i], [*data.observation[t, i], goal])
            np.testing.assert_array_equal(lower.next_observation[t, i], [*data.next_observation[t, i], goal])
            if weight[t, i] > 0:
                np.testing.assert_allclose(lower.reward[t, i], data.reward[t, i] + 10 * goal, rtol=1e-5)
            if there:
                ends += 1
                np.testing.assert_array_equal(upper.observation[t, i], begin)
                np.testing.assert_array_equal(upper.next_observation[t, i], data.next_observation[t, i])
                assert (upper.action[t, i], upper.extras["chosen"][t, i]) == (goal, mark)
                assert upper.extras["num_steps"][t, i] == elapsed
                assert upper.terminated[t, i] == data.terminated[t, i]
                assert upper.truncated[t, i] == data.truncated[t, i]
                assert upper.extras["reached"][t, i] == reached
                np.testing.assert_allclose(upper.reward[t, i], total, rtol=1e-5, atol=1e-5)
    inside = (upper.extras["weight"] > 0) & upper.truncated & (upper.extras["num_steps"] == 1)
    assert ends > 40 and inside.any(), "an episode is truncated within a period"
    assert len(np.unique(data.extras["segment"].draw)) == data.reward.size, "a chance to stop in every step"


def test_what_is_recorded_is_kept_apart(played):
    (data, upper, lower), _, _ = played
    assert set(upper.extras) == {"chosen", "weight", "num_steps", "reached"}
    assert set(lower.extras) == {"done", "weight", "num_steps"}
    np.testing.assert_array_equal(lower.extras["done"], data.extras["worker"]["done"])
    there = upper.extras["weight"] > 0
    assert np.isfinite(upper.reward).all() and there.any() and not there.all()


def test_shuffled_rows_are_learned_from_as_in_their_rollout(played):
    """`update` is a function of the row."""
    _, (_, *shuffled), again = played
    jax.tree.map(np.testing.assert_array_equal, tuple(shuffled), again)


def walker():
    """A place on a line that actions move along, with noise; nothing is paid and nothing ends."""

    def reset(key, params):
        place = jax.random.uniform(key, (1,))
        return place, place

    def step(key, state, action, params):
        place = state + action + 0.1 * jax.random.normal(key, (1,))
        return place, TimeStep(place, jnp.float32(0.0), jnp.bool_(False), jnp.bool_(False))

    return Env(reset, step, (), Box(-9.0, 9.0, (1,)), Box(-1.0, 1.0, (1,)))


def test_relative_goals_stay_where_they_are():
    """A goal is where its segment began and what the manager said then: for what the worker sees in every step, for the
    successor, for its reward, and for the end."""
    env = walker()
    kept = hierarchies.keeper(1, "done")
    toward = scripted(lambda key, seen: jnp.clip(seen[:, 1:] - seen[:, :1], -0.5, 0.5)).act
    agent = hierarchical(
        scripted(lambda key, seen: jax.random.uniform(key, (seen.shape[0], 1), minval=-2.0, maxval=2.0)),
        kept._replace(act=toward),
        goal_space=Box(-2.0, 2.0, (1,)),
        embed=lambda observation, goal: jnp.concatenate([observation, goal], -1),
        period=3,
        stop=lambda observation, goal: jnp.abs(observation - goal)[..., 0] < 0.2,
        intrinsic=lambda step, goal: goal[..., 0],
        resolve=lambda begin, said: begin + said,
    )

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, 3, 30))
        data = rollout(key, agent, state, env, start(key, agent, state, env, env.params, 3), 30)[1]
        return data, agent.update(key, state, data)[0].worker.data

    data, lower = jax.tree.map(np.asarray, play(KEY))
    segment = data.extras["segment"]
    begin = data.observation[np.arange(30)[:, None] - segment.age, np.arange(3)]
    np.testing.assert_array_equal(segment.start, begin)
    goal = begin + segment.action
    np.testing.assert_array_equal(lower.observation, np.concatenate([data.observation, goal], -1))
    np.testing.assert_array_equal(lower.next_observation, np.concatenate([data.next_observation, goal], -1))
    np.testing.assert_allclose(data.action, np.clip(goal - data.observation, -0.5, 0.5), atol=1e-6)
    np.testing.assert_array_equal(lower.reward, goal[..., 0])
    there = np.abs(data.next_observation - goal)[..., 0] < 0.2
    np.testing.assert_array_equal(lower.terminated, there)
    np.testing.assert_array_equal(lower.truncated, there | (segment.age == 2))
    assert there.any() and (~there & (segment.age == 2)).any()


def test_a_worker_forgets_with_every_goal():
    """Its memory counts its steps: those of the segment, of 2 or 3."""
    env = toys.clock(7)
    idle = scripted(lambda key, seen: jax.random.randint(key, (seen.shape[0],), 0, 2))
    agent = hierarchical(
        idle, toys.counting_agent(), goal_space=Discrete(2), embed=lambda observation, goal: observation, period=period
    )

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, 3, 20))
        return rollout(key, agent, state, env, start(key, agent, state, env, env.params, 3), 20)[1]

    data = play(KEY)
    np.testing.assert_array_equal(data.extras["worker"]["count"], data.extras["segment"].age)
    assert set(np.unique(data.extras["segment"].age)) == {0, 1, 2}


def test_acting_greedily_it_stops_where_that_is_likely():
    chance = jnp.array([0.4, 0.6])
    agent = hierarchical(
        scripted(lambda key, seen: jnp.zeros(seen.shape[0], jnp.int32)),
        toys.counting_agent(),
        goal_space=Discrete(1),
        embed=lambda observation, goal: observation,
        period=9,
        stop=lambda observation, goal: chance,
    )
    data = example_data(toys.clock(), 2, 1)
    state, step = agent.init(KEY, agent.hparams, data), jax.tree.map(lambda x: x[0], data)
    memory, action, extras = agent.act_greedy(
        KEY, state, agent.init_memory(KEY, state, step.observation), step.observation
    )
    assert agent.remember(state, memory, step._replace(action=action, extras=extras)).ended.tolist() == [False, True]


def test_a_learned_reward_is_that_of_today():
    """`observe` teaches the reward model, which then says what the worker earns, by the goals of the rows."""
    model = RewardModel(
        lambda key, hparams, example: jnp.float32(0.0),
        lambda state, data: state + data.extras["goal"][..., 0],
        lambda key, state, data: (state + jnp.sum(data.extras["goal"]), {"sum": jnp.sum(data.extras["goal"])}),
    )
    agent = relabelled(None, hierarchies.keeper(1, "done"), intrinsic=model)
    data = line_data(())
    state, metrics = agent.observe(KEY, agent.init(KEY, agent.hparams, data), data)
    assert metrics["reward/sum"] == 6.0  # both rows have the goal 1 + 2
    np.testing.assert_array_equal(agent.update(KEY, state, data)[0].worker.data.reward, [9.0, 9.0])


# A chain 0 .. 5; goals say how far to the right; a step to the right pays its own number, the last state ends it.
NUM_STATES, NUM_GOALS, PERIOD = 6, 3, 3


def chain():
    def reset(key, params):
        state = jax.random.randint(key, (), 0, NUM_STATES - 1)
        return state, state

    def step(key, state, action, params):
        then = jnp.minimum(state + action, NUM_STATES - 1)
        reward = jnp.float32(then * action) - 0.5
        return then, TimeStep(then, reward, then == NUM_STATES - 1, jnp.bool_(False))

    return Env(reset, step, (), Discrete(NUM_STATES), Discrete(2))


def walk(observation):
    """The worker's policy: goal 0 waits, goal 1 goes where the state is even, goal 2 goes."""
    state, goal = observation
    return jnp.where(goal == 0, 0, jnp.where(goal == 1, (state + 1) % 2, 1)).astype(jnp.int32)


def passed(state, goal):
    """The segment ends in state 3, whatever the goal is."""
    return state == 3


class TableState(NamedTuple):
    hparams: tuple
    q: jax.Array


def table(discount):
    """Q-learning with a learning rate of 1: exact where transitions are deterministic."""

    def act(key, state, memory, observation):
        return memory, jax.random.randint(key, observation.shape, 0, NUM_GOALS), {}

    def update(key, state, data):
        next_value = jnp.max(state.q[data.next_observation], -1)
        target = data.reward + jaxrl.types.bootstrap(data, discount) * next_value
        where = jnp.where(data.extras["weight"] > 0, data.observation * NUM_GOALS + data.action, NUM_STATES * NUM_GOALS)
        q = state.q.ravel().at[where.ravel()].set(target.ravel(), mode="drop")
        return TableState(state.hparams, q.reshape(state.q.shape)), {}

    def init(key, hparams, example):
        return TableState(hparams, jnp.zeros((NUM_STATES, NUM_GOALS)))

    return Agent(init, no_memory, act, act, update)


def test_semi_mdp_values_against_enumeration():
    """The manager's optimal values, from value iteration over segments that are played out with a plain loop."""
    env = chain()
    agent = hierarchical(
        table(DISCOUNT),
        scripted(lambda key, observation: walk(observation)),
        goal_space=Discrete(NUM_GOALS),
        embed=lambda observation, goal: (observation, goal),
        period=PERIOD,
        stop=passed,
        hparams=HierarchicalHparams(DISCOUNT),
    )
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=8)
    state, _ = jax.jit(lambda key: jaxrl.run(loop, loop.init(key), 60))(KEY)

    def segment(s, goal):
        total, steps = 0.0, 0
        while True:
            action = int(walk((s, goal)))
            s = min(s + action, NUM_STATES - 1)
            total, steps = total + DISCOUNT**steps * (s * action - 0.5), steps + 1
            if s == NUM_STATES - 1 or s == 3 or steps == PERIOD:
                return total, DISCOUNT**steps * (s < NUM_STATES - 1), s

    value = np.zeros(NUM_STATES)
    played = [[segment(s, goal) for goal in range(NUM_GOALS)] for s in range(NUM_STATES - 1)]
    for _ in range(500):
        q = [[total + decay * value[s] for total, decay, s in row] for row in played]
        value[:-1] = np.max(q, 1)
    np.testing.assert_allclose(state.agent.manager.q[:-1], q, atol=1e-5)


def simple_ppo(env, space=None):
    """PPO with small networks, on `space`, one epoch of one minibatch."""
    env = env._replace(action_space=space or env.action_space)
    return ppo(*toys.actor_and_critic(env), num_epochs=1, num_minibatches=1)


def test_a_manager_without_a_choice_leaves_the_flat_agent_to_the_bit():
    env = toys.clock(3)
    flat = simple_ppo(env)
    idle = scripted(lambda key, observation: jnp.zeros(observation.shape[0], jnp.int32))
    only = dict(goal_space=Discrete(1), embed=lambda observation, goal: observation, period=1_000_000)
    agents = flat, hierarchical(idle, flat, **only), hierarchical(idle, hierarchical(idle, flat, **only), **only)
    states = []
    for agent in agents:
        loop = jaxrl.online(agent, env, num_envs=NUM_ENVS, unroll_length=8)
        states.append(jax.jit(lambda key, loop=loop: jaxrl.run(loop, loop.init(key), 3)[0])(KEY))
    alone, once, twice = states
    jax.tree.map(np.testing.assert_array_equal, alone.agent, once.agent.worker)
    jax.tree.map(np.testing.assert_array_equal, alone.agent, twice.agent.worker.worker)
    jax.tree.map(np.testing.assert_array_equal, alone.interaction.env_state, twice.interaction.env_state)


@pytest.fixture(scope="module")
def two_levels():
    """PPO over PPO, a rollout, and its compiled update."""
    env = toys.clock(7)
    agent = hierarchical(simple_ppo(env, Discrete(3)), simple_ppo(env), goal_space=Discrete(3), embed=beside, period=3)

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, NUM_ENVS, 16))
        now = start(key, agent, state, env, env.params, NUM_ENVS)
        data = rollout(key, agent, state, env, now, 16)[1]
        return state, data

    state, data = play(KEY)
    return agent, jax.jit(agent.update), state, data


def same(a, b):
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_the_manager_never_learns_from_steps_of_the_worker(two_levels):
    """NaN in what only the worker is to see, and in all rows that end no segment, changes nothing for the manager."""
    _, update, state, data = two_levels
    last = data.terminated | data.truncated
    inside = ~(last | (data.extras["segment"].age == 2))
    worker = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, data.extras["worker"])
    poisoned = data._replace(
        action=1 - data.action,
        reward=jnp.where(inside, jnp.nan, data.reward),
        next_observation=jnp.where(inside[..., None], jnp.nan, data.next_observation),
        extras={**data.extras, "worker": worker},
    )
    clean, dirty = (update(KEY, state, x)[0] for x in (data, poisoned))
    assert same(clean.manager, dirty.manager) and not same(clean.worker, dirty.worker)
    moved = data._replace(reward=data.reward + last)
    assert not same(clean.manager, update(KEY, state, moved)[0].manager)


def test_the_worker_never_learns_from_data_of_the_manager(two_levels):
    """What a segment earned, where it began, and what the manager recorded are nothing to the worker."""
    _, update, state, data = two_levels
    segment = data.extras["segment"]
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, segment)
    poisoned = data._replace(extras={**data.extras, "segment": nan})
    clean, dirty = (update(KEY, state, x)[0] for x in (data, poisoned))
    assert same(clean.worker, dirty.worker) and not same(clean.manager, dirty.manager)


def test_the_managers_update_is_that_of_its_rows_alone(two_levels):
    """As if the rows that end segments were all of the data, cut out of the rollout by hand."""
    agent, update, state, data = two_levels
    env = toys.clock(7)
    manager = simple_ppo(env, Discrete(3))
    segment, last = data.extras["segment"], np.asarray(data.terminated | data.truncated)
    end = last | (np.asarray(segment.age) == 2)
    rows = int(end.sum(0).min())
    assert (end.sum(0) == rows).all()  # clocks run alike
    index = np.stack([np.flatnonzero(end[:, i]) for i in range(NUM_ENVS)], 1)
    total = segment.total + 0.99**segment.elapsed * data.reward
    cut = Transition(
        segment.start, segment.action, total, data.terminated, data.truncated, data.next_observation,
        {**segment.extras, "num_steps": segment.elapsed + 1},
    )  # fmt: skip
    cut = jax.tree.map(lambda x: x[index, np.arange(NUM_ENVS)], cut)
    alone = jax.jit(manager.update)(salted(KEY, SALT), state.manager, cut)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6),
        alone.params,
        update(KEY, state, data)[0].manager.params,
    )


def test_hparams_are_nested_and_each_layer_has_its_own(two_levels):
    """Edited in the state, without compiling again: a discount of segments is the manager's business alone."""
    agent, update, state, data = two_levels
    assert isinstance(agent.hparams, Levels) and isinstance(state.manager.hparams, PPOHparams)
    after = update(KEY, state, data)[0]
    discounted = update(KEY, edit_hparams(state, HierarchicalHparams, segment_discount=0.5), data)[0]
    assert same(discounted.worker, after.worker) and not same(discounted.manager, after.manager)
    worker = edit_hparams(state.worker, PPOHparams, learning_rate=0.0)
    still = update(KEY, state._replace(worker=worker), data)[0]
    assert same(still.worker.params, state.worker.params) and same(still.manager, after.manager)
    changed = replace_fields(agent.hparams, **{"worker.learning_rate": 1.0, "own.segment_discount": 0.5})
    assert (changed.worker.learning_rate, changed.manager.learning_rate) == (1.0, agent.hparams.manager.learning_rate)
    assert get_field(changed, "own.segment_discount") == 0.5


def test_a_row_has_the_priority_of_the_part_that_always_learns_from_it(two_levels):
    """The worker's: the manager learns from ends of segments alone."""
    _, _, state, data = two_levels

    def reporting(x):
        return scripted(walk)._replace(
            update=lambda key, state, data: (state, {"priority": x + data.reward, "loss": x})
        )

    agent = hierarchical(reporting(1.0), reporting(2.0), goal_space=Discrete(3), embed=beside, period=3)
    metrics = agent.update(KEY, state._replace(manager=(), worker=()), data)[1]
    assert metrics.keys() == {"priority", "manager/loss", "worker/loss"}
    np.testing.assert_array_equal(metrics["priority"], 2.0 + data.reward)


def test_every_key_is_used_once_at_depth_three():
    """Of nested managers that would salt alike, a worker that explores, and a probabilistic stop."""
    env, goals = toys.clock(4), Discrete(2)
    worker = jaxrl.with_exploration(simple_ppo(env), jaxrl.exploration.epsilon_greedy(env.action_space))
    agent = worker
    for _ in range(2):
        agent = hierarchical(
            simple_ppo(env, goals),
            agent,
            goal_space=goals,
            embed=lambda observation, goal: observation,
            period=2,
            stop=lambda observation, goal: jnp.full(goal.shape, 0.5),
        )
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=2)
    assert key_reuse.check(lambda key: jaxrl.run(loop, loop.init(key), 2), KEY) == []


def test_a_frozen_hierarchy_has_keys_of_its_own():
    """Below a manager, whose salt does not see how many levels are inside of it."""

    def over(worker):
        return hierarchical(
            scripted(lambda key, seen: jax.random.randint(key, (seen.shape[0],), 0, 2)),
            worker,
            goal_space=Discrete(2),
            embed=lambda observation, goal: observation,
            period=2,
        )

    env = toys.clock(4)
    inner = over(scripted(lambda key, seen: jax.random.randint(key, (seen.shape[0],), 0, 2)))
    agent = over(frozen(inner, inner.init(KEY, inner.hparams, example_data(env, 2, 2))))
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=2)
    assert key_reuse.check(lambda key: jaxrl.run(loop, loop.init(key), 2), KEY) == []


def relabelled(relabel, worker=None, **more):
    """A manager that asks for places on a line, a worker that goes as far as its goal says: four rows by hand."""
    going = scripted(lambda key, observation: jnp.clip(observation[..., 1:] - observation[..., :1], -1.0, 1.0))
    agent = hierarchical(
        hierarchies.keeper(1, "chosen"),
        worker or going,
        goal_space=Box(-2.0, 2.0, (1,)),
        embed=lambda observation, goal: jnp.concatenate([observation, goal], -1),
        period=2,
        resolve=lambda begin, action: begin + action,
        relabel=relabel,
        **more,
    )
    return agent


def test_hindsight_by_hand():
    """The action becomes the way that was made, in rows that end a segment."""
    agent = relabelled(hindsight(lambda begin, end: end - begin))
    state = agent.init(KEY, agent.hparams, line_data(None))
    after, _ = agent.update(KEY, state, line_data(()))
    ends = np.array([False, True])
    np.testing.assert_allclose(after.manager.data.action[ends], [[1.25]])


def line_data(trace):
    """A segment from 1 that asked for 3: a step of 1 to 2, then one of 1/4 to 2.25."""
    column = lambda *x: jnp.array(x, jnp.float32)[:, None]  # noqa: E731
    no = jnp.zeros(2, bool)
    data = Transition(column(1, 2), column(1, 0.25), jnp.zeros(2), no, no, column(2, 2.25), {})
    if trace is None:
        return data
    from jaxrl.combinators.hierarchy.segments import Segment

    age = jnp.arange(2, dtype=jnp.int32)
    segment = Segment(column(1, 1), column(2, 2), {"chosen": jnp.zeros(2)}, age, age, jnp.zeros(2), (), trace)
    return data._replace(extras={"segment": segment, "worker": {}})


def test_the_correction_chooses_the_goal_that_explains_what_was_done():
    """Candidates: 2, asked for: errors 0 and 1 - 1/4; 1.25, achieved: errors 0 and 0. With one step seen both explain
    it, and the first stays."""
    relabel = correction(lambda begin, end: end - begin, Box(-2.0, 2.0, (1,)), 2, num_samples=0)
    agent = relabelled(relabel)
    observations = jnp.array([[[1.0], [0.0]], [[1.0], [2.0]]])
    actions = jnp.array([[[1.0], [9.0]], [[1.0], [0.25]]])
    data = line_data((observations, actions))
    after, _ = agent.update(KEY, agent.init(KEY, agent.hparams, data), data)
    np.testing.assert_allclose(after.manager.data.action[1], [1.25])

    extras = {"trace": (observations, actions), "age": jnp.arange(2)}
    data = data._replace(observation=jnp.ones((2, 1)), action=jnp.full((2, 1), 2.0), extras=extras)
    policy = lambda begin, action, seen: jnp.clip(begin + action - seen, -1.0, 1.0)  # noqa: E731
    np.testing.assert_allclose(relabel.action(KEY, policy, data), [[2.0], [1.25]])
    wrong = data._replace(action=-data.action, next_observation=jnp.full((2, 1), 6.0))  # what was reached is too far
    np.testing.assert_allclose(relabel.action(KEY, policy, wrong), [[2.0], [2.0]])


def test_traces_hold_what_was_done_in_the_segment():
    """Recorded by `act`: the observations and actions of the segment up to the row."""
    relabel = correction(lambda begin, end: (end - begin)[..., :1], Box(-1.0, 1.0, (1,)), 3, num_samples=2)
    env = toys.clock(5)._replace(action_space=Box(-1.0, 1.0, (1,)))
    agent = hierarchical(
        scripted(lambda key, observation: jax.random.uniform(key, (observation.shape[0], 1))),
        scripted(lambda key, observation: jax.random.uniform(key, (observation.shape[0], 1))),
        goal_space=Box(-1.0, 1.0, (1,)),
        embed=lambda observation, goal: jnp.concatenate([observation, goal], -1),
        period=3,
        relabel=relabel,
    )
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=9)

    @jax.jit
    def play(key):
        state = loop.init(key)
        return rollout(key, agent, state.agent, env, state.interaction, 9)[1]

    data = play(KEY)
    (observations, actions), age = data.extras["segment"].trace, np.asarray(data.extras["segment"].age)
    np.testing.assert_array_equal(age[:, 0], [0, 1, 2, 0, 1, 0, 1, 2, 0])
    for t in range(9):
        first = t - age[t, 0]
        np.testing.assert_array_equal(
            observations[t, :, : age[t, 0] + 1], jnp.moveaxis(data.observation[first : t + 1], 0, 1)
        )
        np.testing.assert_array_equal(actions[t, :, : age[t, 0] + 1], jnp.moveaxis(data.action[first : t + 1], 0, 1))


@pytest.mark.slow
def test_diagnostic_environments():
    """The manager's values are exact, also where an episode is truncated within a period, and the worker acts right."""

    def make(env):
        goals, seen = Discrete(2), env._replace(observation_space=Box(-2.0, 2.0, (3,)))
        chosen = PPOHparams(3e-3, discount=probing.DISCOUNT)
        manager, _ = jaxrl.make_agent("ppo", env._replace(action_space=goals), widths=(32,))
        worker, _ = jaxrl.make_agent("ppo", seen, widths=(32,))
        own = HierarchicalHparams(probing.DISCOUNT)
        agent = hierarchical(manager, worker, goal_space=goals, embed=beside, period=2, hparams=own)

        def act_greedy(key, state, memory, observation):
            memory, action, extras = agent.act_greedy(key, state, memory, observation)
            return memory, action, {"value": extras["manager"]["value"]}

        return agent._replace(act_greedy=act_greedy), agent.hparams._replace(manager=chosen, worker=chosen)

    for probe, result in probing.learn(make, False, num_seeds=2).items():
        if probe != "memory":
            begins = slice(1) if probe == "discount" else slice(None)  # no segment begins at its second observation
            errors = np.abs(result.values - result.exact)[begins]
            assert (errors < 0.15).all(), (probe, result.values, result.exact)
            assert (result.right > 0.9).all(), (probe, result.right)


def test_bad_arguments():
    parts = dict(goal_space=Discrete(2), embed=beside)
    manager, worker = hierarchies.keeper(2, "a"), hierarchies.keeper(2, "b")
    with pytest.raises(ValueError, match="period is 0, must be >= 1"):
        hierarchical(manager, worker, period=0, **parts)
    with pytest.raises(ValueError, match="relabel reads 2 steps of a segment, must be >= the period, 3"):
        relabel = correction(lambda a, b: b, Box(-1.0, 1.0, (1,)), 2)
        hierarchical(manager, worker, period=3, relabel=relabel, **parts)
    with pytest.raises(ValueError, match="must be bounded"):
        correction(lambda a, b: b, Box(-np.inf, 1.0, (1,)), 2)
    agent = hierarchical(manager, worker, period=3, **parts)
    data = example_data(toys.clock(), 2, 2)
    state = agent.init(KEY, agent.hparams, data)
    with pytest.raises(ValueError, match="no extras\\['segment'\\]"):
        agent.update(KEY, state, data)
