"""Collection: stitched columns, exact counts, the same bits from the same key; what the recipes mix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.test_dataset import equal
from toys import clock, two_players

from jaxrl import data as d
from jaxrl import make_agent
from jaxrl.data import collection
from jaxrl.loop import example_data, online
from jaxrl.spaces import Box
from jaxrl.types import Agent, no_memory, nothing


def fixed(action, greedy):
    """Acts `action` by `act`, `greedy` by `act_greedy`, and records a number."""

    def acting(value):
        def act(key, state, memory, observation):
            count = observation.shape[0]
            return memory, jnp.full((count,), value, jnp.int32), {"number": jnp.arange(count)}

        return act

    return Agent(lambda key, hparams, example: (), no_memory, acting(action), acting(greedy), nothing)


@pytest.mark.parametrize(("num_envs", "num_steps"), [(1, 7), (3, 20), (4, 5)])
def test_columns_become_episodes_one_after_another(num_envs, num_steps):
    env = clock(length=3, truncates=False)
    key = jax.random.key(1)
    dataset = d.collect(key, fixed(1, 0), (), env, num_steps, num_envs=num_envs, extras=("time",))
    data = dataset.transitions
    d.check(data)
    assert d.num_transitions(dataset) == num_steps
    time, following = data.observation, data.next_observation
    np.testing.assert_array_equal(following[:, 0], time[:, 0] + 1)
    np.testing.assert_array_equal(following[:, 1], time[:, 1])  # the true successor, of the same episode
    np.testing.assert_array_equal(data.terminated, following[:, 0] == 3)
    inside = ~(data.terminated | data.truncated)[:-1]
    np.testing.assert_array_equal(time[1:][inside], following[:-1][inside])
    columns = -(-num_steps // num_envs)
    ends = {min(columns * (i + 1), num_steps) - 1 for i in range(num_envs) if columns * i < num_steps}
    assert set(np.flatnonzero(data.truncated)) == {end for end in ends if not data.terminated[end]}
    starts, stops = d.episode_bounds(dataset)
    assert all(len(set(time[a:b, 1])) == 1 for a, b in zip(starts, stops))
    assert (time[starts, 0] == 0).all() and set(data.action) == {1}
    np.testing.assert_array_equal(data.extras["time"], following[:, 0])
    assert dataset.metadata["behavior"] == "sampled" and "Discrete(n=2" in dataset.metadata["action_space"]


def test_the_same_key_gives_the_same_bits(monkeypatch):
    env = clock(length=4)
    how = dict(num_envs=3, epsilon=0.5)
    first = d.collect(jax.random.key(0), fixed(1, 0), (), env, 40, **how)
    equal(first.transitions, d.collect(jax.random.key(0), fixed(1, 0), (), env, 40, **how).transitions)
    other = d.collect(jax.random.key(1), fixed(1, 0), (), env, 40, **how).transitions
    assert not np.array_equal(first.transitions.observation, other.observation)
    monkeypatch.setattr(collection, "_CHUNK_BYTES", 200)  # in several pieces
    pieces = d.collect(jax.random.key(0), fixed(1, 0), (), env, 40, **how)
    d.check(pieces.transitions)
    starts, stops = d.episode_bounds(pieces)
    assert set(stops - starts) <= {4, 14 % 4} and len(pieces.transitions.reward) == 40
    numbers = [set(pieces.transitions.observation[a:b, 1]) for a, b in zip(starts, stops)]
    assert all(len(x) == 1 for x in numbers) and len(set.union(*numbers)) == len(numbers)  # no piece is another's copy


def test_epsilon_and_noise():
    env = clock(length=50, actions=4)
    data = d.collect(jax.random.key(0), fixed(1, 3), (), env, 4000, num_envs=8, greedy=True, epsilon=0.2)
    share = np.bincount(data.transitions.action, minlength=4) / 4000
    np.testing.assert_allclose(share, [0.05, 0.05, 0.05, 0.85], atol=0.02)  # 4 standard errors of the largest: 0.023
    assert data.metadata["behavior"] == "greedy, epsilon 0.2"
    random = d.collect_random(jax.random.key(0), env, 4000)
    np.testing.assert_allclose(np.bincount(random.transitions.action) / 4000, 0.25, atol=0.03)
    assert random.metadata["behavior"] == "random"

    def act(key, state, memory, observation):
        return memory, jnp.full((observation.shape[0], 1), 3.0), {}

    continuous = env._replace(action_space=Box(1.0, 5.0, (1,)))
    agent = Agent(lambda *_: (), no_memory, act, act, nothing)
    action = d.collect(jax.random.key(0), agent, (), continuous, 4000, noise=0.25).transitions.action
    np.testing.assert_allclose([action.mean(), action.std()], [3.0, 0.5], atol=0.03)  # 0.25 of (5 - 1) / 2
    clipped = d.collect(jax.random.key(0), agent, (), continuous, 400, noise=9.0).transitions.action
    assert clipped.min() == 1.0 and clipped.max() == 5.0


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (dict(num_envs=11), "num_envs is 11, num_steps 10"),
        (dict(num_envs=0), "num_envs is 0"),
        (dict(epsilon=1.1), "epsilon is 1.1"),
        (dict(noise=-1.0), "noise is -1"),
        (dict(noise=0.1), "no bounded Box"),
        (dict(extras=("nope",)), "'nope', which is not recorded; there are"),
    ],
)
def test_arguments_out_of_range(how, says):
    with pytest.raises(ValueError, match=says):
        d.collect(jax.random.key(0), fixed(0, 0), (), clock(), 10, **{"num_envs": 2, **how})


def test_several_agents_are_refused():
    env = two_players()
    with pytest.raises(ValueError, match="rewards 2 agents"):
        d.collect(jax.random.key(0), d.random_policy(env.action_space), (), env, 10, num_envs=2)


@pytest.fixture(scope="module")
def training():
    from jaxrl import envs

    env = envs.make("CartPole-v1")
    agent, hparams = make_agent("ppo", env, widths=(8,), num_epochs=1, num_minibatches=1)
    how = dict(num_envs=4, unroll_length=32)
    return (
        env,
        agent,
        hparams,
        how,
        d.record_training(jax.random.key(3), agent, env, 8, hparams=hparams, num_actors=4, **how),
    )


def test_record_training_is_the_run_of_online(training):
    env, agent, hparams, how, recorded = training
    loop = online(agent, env, **how)
    state, step = loop.init(jax.random.key(3), hparams), jax.jit(loop.step)
    total = count = 0.0
    for _ in range(8):
        state, metrics = step(state)
        total, count = total + metrics["episode/return_sum"], count + metrics["episode/count"]
    for a, b in zip(jax.tree.leaves(recorded.actors[-1]), jax.tree.leaves(agent.actor(state.agent))):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert recorded.updates == [0, 2, 4, 6, 8] and len(recorded.actors) == 5
    replay = recorded.replay
    d.check(replay.transitions)
    assert d.num_transitions(replay) == 8 * 32 * 4 and not replay.transitions.extras
    _, stops = d.episode_bounds(replay)
    ended = replay.transitions.terminated[stops - 1]
    assert ended.sum() == count and abs(d.episode_returns(replay)[ended].sum() - total) < 1e-3
    assert set(stops[~ended]) <= {256, 512, 768, 1024}  # the columns' ends


def test_five_types_and_levels(training):
    env, agent, _, _, recorded = training
    first, last = recorded.actors[0], recorded.actors[-1]
    found = d.five_types(jax.random.key(0), agent, last, env, recorded.replay, 500, num_envs=2, metadata={"x": 1})
    assert list(found) == ["random", "expert", "mixed", "noisy", "replay"]
    assert all(d.num_transitions(x) == 500 for x in found.values())
    for x in found.values():
        d.check(x.transitions)
    assert (
        found["mixed"].metadata["behavior"] == "80 % random + 20 % expert (greedy)"
        and found["noisy"].metadata["x"] == 1
    )
    in_random = np.isin(found["mixed"].transitions.observation[:, 1], found["random"].transitions.observation[:, 1])
    assert in_random.sum() == 400
    levels = d.d4rl_levels(jax.random.key(0), agent, first, last, env, recorded.replay, 400, num_envs=2)
    assert list(levels) == ["random", "medium", "medium-replay", "medium-expert", "expert"]
    in_medium = np.isin(
        levels["medium-expert"].transitions.observation[:, 1], levels["medium"].transitions.observation[:, 1]
    )
    assert in_medium.sum() == 200


def test_medium_is_the_first_a_third_of_the_way():
    assert d.medium_index([0, 5, 30, 45, 20, 99], random=10, expert=100) == 3
    with pytest.raises(ValueError, match="the best return is 5"):
        d.medium_index([0, 5], random=0, expert=100)


def test_example_data_and_dataset_agree(training):
    """A learner that was made for the loop's rows takes the dataset's."""
    env, agent, _, _, _ = training
    data = d.collect_random(jax.random.key(0), env, 6, num_envs=2).transitions
    example = example_data(env, 1, 1)
    for a, b in zip(jax.tree.leaves(example._replace(extras={})), jax.tree.leaves(data)):
        assert a.shape[2:] == b.shape[1:] and a.dtype == b.dtype
