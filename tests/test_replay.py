"""Replay, exploration, demonstrations and the offline loop, by an agent that writes down what it is given."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

from jaxrl import buffers, counters, exploration
from jaxrl.combinators.demonstrations import with_demonstrations
from jaxrl.combinators.exploration import with_exploration
from jaxrl.combinators.normalize import normalize_observations
from jaxrl.combinators.replay import with_replay
from jaxrl.combinators.transform import with_transform
from jaxrl.loop import offline, online, run
from jaxrl.spaces import Box, Discrete, MultiDiscrete
from jaxrl.transforms import recompute_reward, scale_reward
from jaxrl.types import Agent, Transition, no_memory

KEY = jax.random.key(0)


class Notes(NamedTuple):
    hparams: tuple
    count: jax.Array
    data: Transition  # the last batch


def notebook(action=0, extras=None):
    """Remembers the last batch and counts updates; always plays `action`."""

    def init(key, hparams, example):
        return Notes((), jnp.zeros((), jnp.int32), example)

    def act(key, state, memory, observation):
        rows = jax.tree.leaves(observation)[0].shape[0]
        played = jnp.broadcast_to(jnp.asarray(action), (rows, *jnp.shape(action)))
        return memory, played, {name: jnp.full((rows,), x) for name, x in (extras or {}).items()}

    def update(key, state, data):
        metrics = {"reward": jnp.mean(data.reward)}
        if "index" in data.extras:
            metrics["priority"] = data.observation[..., 0] + 1.0
        return Notes((), state.count + 1, data), metrics

    return Agent(init, no_memory, act, act, update)


def play(agent, env, num_updates, *, num_envs=3, unroll_length=2, key=KEY):
    loop = online(agent, env, num_envs=num_envs, unroll_length=unroll_length)
    return jax.jit(lambda key: run(loop, loop.init(key), num_updates))(key)


def test_updates_start_when_the_buffer_is_ready_and_count_right():
    agent = with_replay(notebook(extras={"mine": 7.0}), buffers.replay(60, 5, min_size=13), updates_per_step=4)
    state, metrics = play(agent, toys.clock(4), 6)
    np.testing.assert_array_equal(metrics["replay/updates"], [0, 0, 4, 4, 4, 4])
    assert state.agent.agent.count == 16 and state.agent.buffer.ring.size == 12
    np.testing.assert_array_equal(metrics["reward"], [0, 0, 1, 1, 1, 1])
    data = state.agent.agent.data
    assert data.reward.shape == (5,) and set(data.extras) == {"time", "mine"}
    np.testing.assert_array_equal(data.extras["mine"], 7.0)


def test_stored_rows_are_true_transitions_of_the_environment():
    """Across episode ends: successors are those of the same episode, and the last one is truncated."""
    agent = with_replay(notebook(), buffers.replay(60, 200))
    state, _ = play(agent, toys.clock(4), 10)
    data = jax.tree.map(np.asarray, state.agent.agent.data)
    np.testing.assert_array_equal(data.next_observation[:, 0], data.observation[:, 0] + 1)
    np.testing.assert_array_equal(data.next_observation[:, 1], data.observation[:, 1])
    np.testing.assert_array_equal(data.truncated, data.next_observation[:, 0] == 4)
    assert set(data.observation[:, 0]) == {0, 1, 2, 3} and len(set(data.observation[:, 1])) > 6


def test_priorities_reach_the_buffer_and_no_metric():
    buffer = buffers.replay(60, 30, sampler=buffers.prioritized())
    state, metrics = play(with_replay(notebook(), buffer, 8), toys.clock(4), 12)
    assert "priority" not in metrics and metrics["reward"].shape == (12,)
    memory = state.agent.buffer
    learned = (np.asarray(memory.ring.data.observation[..., 0]) + 1.0) ** 0.6
    stored = np.asarray(memory.sampler.sums[0]).reshape(-1)[: learned.size].reshape(learned.shape)
    same = np.isclose(stored, learned, rtol=1e-4)
    assert same.mean() > 0.7 and np.isclose(stored[~same], memory.sampler.largest).all()


def test_order_of_transform_and_replay():
    """Outside of a transform the buffer stores true rewards; each batch is transformed when it is drawn."""
    agent = with_replay(with_transform(notebook(), scale_reward(3.0)), buffers.replay(60, 5))
    state, _ = play(agent, toys.clock(4), 3)
    assert (state.agent.buffer.ring.data.reward[:6] == 1).all()
    assert (state.agent.agent.agent.data.reward == 3).all()


def test_stored_rewards_are_recomputed_when_they_are_drawn():
    inner = with_transform(notebook(), recompute_reward(lambda data: data.next_observation[..., 0] * 10.0))
    state, _ = play(with_replay(inner, buffers.replay(60, 30)), toys.clock(4), 10)
    data = state.agent.agent.agent.data
    np.testing.assert_array_equal(data.reward, 10.0 * data.next_observation[:, 0])
    assert (state.agent.buffer.ring.data.reward == 1).all()


def test_normalized_observations_under_replay():
    state, _ = play(with_replay(normalize_observations(notebook()), buffers.replay(600, 256)), toys.clock(4), 60)
    assert abs(float(state.agent.agent.agent.data.observation[:, 0].mean())) < 0.2
    assert state.agent.buffer.ring.data.observation[:, :, 0].max() == 3


def test_replay_is_vmapped_over_seeds_like_single_runs():
    agent = with_replay(with_exploration(notebook(), exploration.epsilon_greedy(Discrete(2))), buffers.replay(40, 4))
    loop = online(agent, toys.clock(3), num_envs=2, unroll_length=2)
    train = jax.jit(lambda key: run(loop, loop.init(key), 7)[0])
    keys = jax.random.split(KEY, 2)
    both = jax.jit(jax.vmap(lambda key: run(loop, loop.init(key), 7)[0]))(keys)
    for i in range(2):
        for a, b in zip(jax.tree.leaves(train(keys[i])), jax.tree.leaves(both)):
            if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(a, b[i])


def test_bad_counts():
    with pytest.raises(ValueError, match="updates_per_step is 0"):
        with_replay(notebook(), buffers.replay(8, 2), 0)


def explored(part, action, steps, rows=4000, hparams=None, observation=None):
    """Actions [rows] of an explored agent after `steps` environment steps."""
    agent = with_exploration(notebook(action), part)
    observation = jnp.zeros((rows, 2)) if observation is None else observation
    example = jax.tree.map(lambda x: x[None], Transition(*[jnp.zeros(rows)] * 6))
    hparams = agent.hparams if hparams is None else agent.hparams._replace(own=hparams)
    state = agent.init(KEY, hparams, example)._replace(num_steps=counters.advance(counters.zero(), steps))
    memory = agent.init_memory(KEY, state, observation)
    memory, actions, _ = agent.act(KEY, state, memory, observation)
    greedy = agent.act_greedy(KEY, state, memory, observation)[1]
    np.testing.assert_array_equal(greedy, jnp.broadcast_to(jnp.asarray(action), greedy.shape))
    return np.asarray(actions)


def test_epsilon_falls_linearly_with_environment_steps():
    part = exploration.epsilon_greedy(Discrete(4), hparams=exploration.EpsilonGreedyHparams(1.0, 0.2, 100.0))
    for steps, epsilon in ((0, 1.0), (50, 0.6), (100, 0.2), (1000, 0.2)):
        actions = explored(part, 3, steps)
        assert abs((actions != 3).mean() - epsilon * 3 / 4) < 0.03
        others = np.bincount(actions, minlength=4)[:3]
        assert others.max() < 1.5 * others.min()
    whole = explored(exploration.epsilon_greedy(MultiDiscrete((3, 5))), jnp.array([2, 4]), 0)
    assert whole.shape == (4000, 2) and whole.max(0).tolist() == [2, 4] and whole.min() == 0


def test_epsilon_greedy_draws_legal_actions_only():
    observation = {"action_mask": jnp.tile(jnp.array([True, False, True, False]), (4000, 1))}
    part = exploration.epsilon_greedy(Discrete(4), legal=lambda o: o["action_mask"])
    actions = explored(part, 0, 0, observation=observation)
    assert set(actions) == {0, 2} and abs((actions == 2).mean() - 0.5) < 0.04
    with pytest.raises(ValueError, match="only a Discrete space"):
        exploration.epsilon_greedy(Box(-1, 1, (2,)), legal=lambda o: o)


def test_warm_up_is_uniform_then_over():
    part = exploration.warm_up(Box(-2.0, 2.0, (1,)), hparams=exploration.WarmUpHparams(100.0))
    early, late = explored(part, jnp.array([0.5]), 99), explored(part, jnp.array([0.5]), 100)
    assert abs(early.mean()) < 0.1 and abs(early.std() - 2 / np.sqrt(3)) < 0.05 and (late == 0.5).all()


def test_gaussian_noise_in_units_of_the_range_and_inside_of_it():
    space = Box((-2.0, 0.0), (2.0, 1.0), (2,))
    actions = explored(exploration.gaussian(space), jnp.array([0.0, 1.0]), 0)
    assert abs(actions[:, 0].std() - 0.2) < 0.01 and abs(actions[:, 0].mean()) < 0.02
    assert actions[:, 1].max() == 1.0 and abs((actions[:, 1] < 1).mean() - 0.5) < 0.04
    for part in (exploration.gaussian, exploration.ornstein_uhlenbeck):
        with pytest.raises(ValueError, match="must be a bounded Box"):
            part(Discrete(2))


def test_ornstein_uhlenbeck_noise_is_correlated_and_starts_anew_with_an_episode():
    part = exploration.ornstein_uhlenbeck(Box(-1.0, 1.0, ()), hparams=exploration.OrnsteinUhlenbeckHparams(0.05, 0.15))
    agent = with_replay(with_exploration(notebook(0.0), part), buffers.replay(4000, 4))
    env = toys.clock(20)._replace(action_space=Box(-1.0, 1.0, ()))
    state, _ = play(agent, env, 1, num_envs=100, unroll_length=40)
    noise = np.asarray(state.agent.buffer.ring.data.action)  # [40, 100]
    variance = lambda t: 0.05**2 * sum(0.85 ** (2 * i) for i in range(t + 1))  # noqa: E731
    for t in (0, 5, 19):
        for start in (0, 20):
            assert abs(noise[start + t].std() / np.sqrt(variance(t)) - 1) < 0.25
    assert abs(np.corrcoef(noise[18], noise[19])[0, 1] - 0.85) < 0.1
    assert abs(np.corrcoef(noise[19], noise[20])[0, 1]) < 0.3


def test_environment_steps_are_counted():
    agent = with_exploration(notebook(), exploration.epsilon_greedy(Discrete(2)))
    state, _ = play(agent, toys.clock(4), 5)
    assert counters.exact(state.agent.num_steps) == state.agent.num_steps.rounded == 30


def given(rows=50):
    """Demonstrations whose rewards are 100 + their number."""
    zeros, flags = jnp.zeros((rows, 2)), jnp.zeros(rows, bool)
    return Transition(zeros, jnp.zeros(rows, jnp.int32), 100.0 + jnp.arange(rows), flags, flags, zeros)


@pytest.mark.parametrize("fraction, rows", [(0.5, 6), (0.25, 2), (0.75, 18)])
def test_demonstrations_are_a_fraction_of_every_batch(fraction, rows):
    inner = with_demonstrations(notebook(), given(), fraction)
    state, _ = play(with_replay(inner, buffers.replay(60, 6), 3), toys.clock(4), 8)
    data = state.agent.agent.data
    assert set(data.extras) == {"demonstration"}  # `time` is recorded by the environment alone
    assert data.reward.shape == (6 + rows,)
    np.testing.assert_array_equal(data.reward >= 100, data.extras["demonstration"] == 1)
    assert float(data.extras["demonstration"].sum()) == rows and len(set(data.reward[6:].tolist())) > rows // 2


def bare_clock():
    """A clock whose steps record no extras."""
    env = toys.clock(4)
    return env._replace(step=lambda *args: (lambda state, ts: (state, ts._replace(extras={})))(*env.step(*args)))


def test_demonstrations_with_prioritized_n_step_replay():
    buffer = buffers.replay(60, 6, sampler=buffers.prioritized(), reader=buffers.n_step(3))
    state, _ = play(with_replay(with_demonstrations(notebook(), given()), buffer, 3), bare_clock(), 8)
    data = state.agent.agent.data
    assert (data.extras["weight"][6:] == 1).all() and (data.extras["num_steps"][6:] == 1).all()
    assert np.isfinite(state.agent.buffer.sampler.largest)


def test_demonstrations_refuse_what_they_cannot_do():
    for fraction in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\)"):
            with_demonstrations(notebook(), given(), fraction)
    with pytest.raises(ValueError, match=r"needs batches \[B\]"):
        play(with_demonstrations(notebook(), given()), bare_clock(), 1)


def test_offline_draws_every_row_equally_often_and_leaves_the_rest_to_the_learner():
    loop = offline(notebook(), given(20), batch_size=7)

    def step(state, _):
        state, _ = loop.step(state)
        return state, state.agent.data.reward

    state, seen = jax.jit(lambda key: jax.lax.scan(step, loop.init(key), length=2000))(KEY)
    count = np.bincount(np.asarray(seen).reshape(-1).astype(int) - 100, minlength=20)
    expected = 14000 / 20
    assert ((count - expected) ** 2 / expected).sum() < 43.8  # chi-square of 19 degrees, 99.9th percentile
    assert state.num_updates == state.agent.count == 2000


def test_offline_takes_sequences_along_another_axis():
    data = jax.tree.map(lambda x: jnp.stack([x, x + 1]), given(20).reward)
    agent = notebook()._replace(update=lambda key, state, data: (Notes((), state.count, data), {}))
    loop = offline(agent, data, batch_size=5, axis=1)
    state, _ = run(loop, loop.init(KEY), 1)
    np.testing.assert_array_equal(state.agent.data[1], state.agent.data[0] + 1)
    assert state.agent.data.shape == (2, 5)


def test_offline_normalizers_see_all_of_the_data_once():
    data = given(1000)._replace(observation=5.0 + 2.0 * jax.random.normal(KEY, (1000, 2)))
    agent = normalize_observations(notebook())
    loop = offline(agent, data, batch_size=1000)
    state, _ = jax.jit(lambda key: run(loop, loop.init(key), 2))(KEY)
    seen = state.agent.agent.data.observation
    assert abs(float(seen.mean())) < 0.1 and abs(float(seen.std()) - 1) < 0.1


def test_offline_refuses_bad_data():
    for data, size, message in (
        (given(), 0, "batch_size is 0"),
        (given()._replace(reward=jnp.zeros(3)), 4, "needs one number"),
        (jax.tree.map(lambda x: x[:0], given()), 4, "needs one number above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            offline(notebook(), data, batch_size=size)


def test_from_offline_to_online_is_taking_the_state_across():
    learned, _ = run(loop := offline(notebook(), given(), batch_size=6), loop.init(KEY), 5)
    agent = with_replay(notebook(), buffers.replay(60, 6))
    loop = online(agent, bare_clock(), num_envs=3, unroll_length=2)
    state = loop.init(KEY)
    state = state._replace(agent=state.agent._replace(agent=learned.agent))
    state, _ = jax.jit(lambda state: run(loop, state, 4))(state)
    assert state.agent.agent.count == 9
