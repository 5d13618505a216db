"""What the loop records: true successors, resets, memory, weights, statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from jaxrl.interaction import rollout, start
from jaxrl.types import Agent, is_last

KEY = jax.random.key(0)


def play(env, agent, num_envs=3, length=7, **kwargs):
    params_axis = None if kwargs.get("sample_params") is None else 0
    params = env.params if params_axis is None else kwargs["sample_params"](KEY, num_envs)
    state = agent.init(KEY, (), toys_example(env, length, num_envs))
    now = start(KEY, agent, state, env, params, num_envs, params_axis)
    return jax.jit(lambda: rollout(KEY, agent, state, env, now, length, **kwargs))()


def toys_example(env, length, num_envs):
    from jaxrl.loop import example_data

    return example_data(env, num_envs, length)


@pytest.mark.parametrize("truncates", [True, False])
def test_true_successor_and_reset(truncates):
    """The recorded successor is the state that ended the episode; the next row starts another one."""
    _, data, _ = play(toys.clock(3, truncates), toys.counting_agent())
    np.testing.assert_array_equal(data.observation[:, 0, 0], [0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_array_equal(data.next_observation[:, 0, 0], [1, 2, 3, 1, 2, 3, 1])
    ends = np.array([0, 0, 1, 0, 0, 1, 0], bool)
    np.testing.assert_array_equal(data.truncated[:, 0], ends if truncates else 0 * ends)
    np.testing.assert_array_equal(data.terminated[:, 0], 0 * ends if truncates else ends)
    episode, successor = data.observation[..., 1], data.next_observation[..., 1]
    np.testing.assert_array_equal(episode, successor)  # never a reset observation
    assert (episode[2] != episode[3]).all() and (episode[0] == episode[1]).all()
    assert len(np.unique(episode)) == 3 * 3  # every reset of every environment is drawn anew


def test_memory_starts_anew_where_an_episode_ended():
    _, data, _ = play(toys.clock(3), toys.counting_agent())
    np.testing.assert_array_equal(data.extras["count"][:, 1], [0, 1, 2, 0, 1, 2, 0])


def test_rollouts_continue():
    """Two rollouts of 4 and 3 hand over episode, memory and statistics."""
    env, agent = toys.clock(5), toys.counting_agent()
    state = agent.init(KEY, (), toys_example(env, 4, 2))
    now = start(KEY, agent, state, env, env.params, 2)
    now, first, played = rollout(KEY, agent, state, env, now, 4)
    assert played["episode/count"] == 0
    np.testing.assert_array_equal(now.episode.length, [4, 4])
    now, second, played = rollout(jax.random.key(1), agent, state, env, now, 3)
    np.testing.assert_array_equal(second.extras["count"][:, 0], [4, 0, 1])
    assert played["episode/count"] == 2 and played["episode/length_sum"] == 10 and played["episode/return_sum"] == 10
    np.testing.assert_array_equal(now.episode.return_, [2, 2])


def test_statistics_against_a_loop():
    """Sums over finished episodes equal those of a plain loop, with random ends."""
    rng = np.random.default_rng(0)
    from jaxrl.interaction import Episode, _episode_statistics
    from jaxrl.types import Transition

    for _ in range(20):
        reward = rng.normal(size=(9, 4)).astype(np.float32)
        terminated, truncated = rng.random((2, 9, 4)) < 0.2
        before = Episode(jnp.array(rng.normal(size=4), jnp.float32), jnp.array(rng.integers(0, 5, 4), jnp.float32))
        data = Transition((), (), jnp.array(reward), jnp.array(terminated), jnp.array(truncated), ())
        after, metrics = _episode_statistics(before, data)
        total, length, returns, lengths = np.array(before.return_), np.array(before.length), [], []
        for t in range(9):
            total, length = total + reward[t], length + 1
            for n in np.flatnonzero(terminated[t] | truncated[t]):
                returns.append(total[n]), lengths.append(length[n])
                total[n] = length[n] = 0
        np.testing.assert_allclose(metrics["episode/return_sum"], sum(returns), atol=1e-4)
        np.testing.assert_allclose(metrics["episode/length_sum"], sum(lengths))
        np.testing.assert_allclose(metrics["episode/count"], len(returns))
        np.testing.assert_allclose(after.return_, total, atol=1e-5)
        np.testing.assert_allclose(after.length, length)


def test_episodic_freezes_a_finished_column():
    env = toys.clock(3)
    now, data, played = play(env, toys.counting_agent(), length=5, episodic=True)
    np.testing.assert_array_equal(data.extras["weight"][:, 0], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(data.reward[:, 0], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(now.env_state.time, [3, 3, 3])
    np.testing.assert_array_equal(now.memory, [3, 3, 3])
    assert played["episode/count"] == 3 and played["episode/return_sum"] == 9
    assert len(np.unique(data.observation[0, :, 1])) == 3


def test_agents_that_are_out():
    """Agent 0 ends at 2, agent 1 at 4: weight 0 and still terminated in between; one reset when both are out."""
    env = toys.two_players((2, 4))
    _, data, played = play(env, toys.idle_agent(env), length=6)
    np.testing.assert_array_equal(data.extras["weight"][:, 0], [[1, 1], [1, 1], [0, 1], [0, 1], [1, 1], [1, 1]])
    np.testing.assert_array_equal(data.terminated[:, 0], [[0, 0], [1, 0], [1, 0], [1, 1], [0, 0], [1, 0]])
    np.testing.assert_array_equal(data.reward[:, 0, 0], [1, 2, 0, 0, 1, 2])
    np.testing.assert_array_equal(data.observation[4, 0, :, 0], [0, 0])
    assert played["episode/count"] == 3 * 3 / 2


def test_params_of_a_column_change_at_its_reset():
    """With sampled params each environment has its own, kept for an episode, redrawn at a reset."""
    env = toys.clock(3)

    def sample(key, n):
        return toys.ClockParams(jnp.full(n, 3), jnp.ones(n, bool), jax.random.uniform(key, (n,)))

    now, data, _ = play(env, toys.counting_agent(), sample_params=sample)
    for episode in (data.reward[:3], data.reward[3:6]):
        np.testing.assert_array_equal(episode, np.broadcast_to(episode[:1], episode.shape))
    assert len(np.unique(data.reward)) == 9
    assert now.params.reward.shape == (3,)


def test_reset_pool():
    """Resets draw from the pool's few states, which a second rollout renews, together with their params."""
    env, agent = toys.clock(1), toys.counting_agent()

    def sample(key, n):
        return toys.ClockParams(jnp.full(n, 1), jnp.ones(n, bool), jax.random.uniform(key, (n,)))

    _, data, _ = play(env, agent, num_envs=8, length=20, reset_pool=4, sample_params=sample)
    episodes, rewards = np.asarray(data.observation[1:, :, 1]).ravel(), np.asarray(data.reward[1:]).ravel()
    assert len(np.unique(episodes)) == 4 and len(np.unique(rewards)) == 4
    pairs = {(e, r) for e, r in zip(episodes.tolist(), rewards.tolist())}
    assert len(pairs) == 4  # a state comes with the params that it was made from
    _, other, _ = play(env, agent, num_envs=8, length=20, sample_params=sample)
    assert len(np.unique(other.observation[..., 1])) == 8 * 20


def test_remember_sees_the_step_before_the_reset():
    env = toys.clock(3)
    agent = toys.counting_agent()._replace(
        remember=lambda state, memory, step: jnp.where(is_last(step), 100 * step.reward, memory + 10)
    )
    _, data, _ = play(env, agent, length=4)
    np.testing.assert_array_equal(data.extras["count"][:, 0], [0, 11, 22, 0])


def test_one_name_recorded_twice_is_an_error():
    agent = toys.counting_agent()

    def act(key, state, memory, observation):
        memory, action, _ = agent.act(key, state, memory, observation)
        return memory, action, {"time": memory}

    with pytest.raises(ValueError, match="time.*recorded by both"):
        play(toys.clock(), Agent(agent.init, agent.init_memory, act, act, agent.update))


def test_resets_made_before_the_scan_are_those_made_in_it(monkeypatch):
    """Where fresh states are small they are made for all steps at once: from the same keys, so the same bits."""
    found = []
    for small in (True, False):
        monkeypatch.setattr("jaxrl.interaction._is_small", lambda made, small=small: small)
        found.append(play(toys.clock(2), toys.counting_agent(), num_envs=5, length=9))
    jax.tree.map(np.testing.assert_array_equal, *found)
    assert np.asarray(found[0][1].terminated | found[0][1].truncated).any()
