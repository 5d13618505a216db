"""Bit flipping, and that hindsight solves what plain replay cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import buffers, exploration
from jaxrl.envs.bit_flip import bit_flip, goal_reward
from jaxrl.envs.check import check_env
from jaxrl.tree import replace_fields

KEY = jax.random.key(0)


def test_it_is_a_proper_environment():
    check_env(bit_flip(5))
    for arguments in (dict(num_bits=0), dict(max_steps=0)):
        with pytest.raises(ValueError, match="is 0, must be >= 1"):
            bit_flip(**arguments)


def test_steps_by_hand():
    env = bit_flip(3)
    state, observation = env.reset(KEY, env.params)
    goal = observation["desired_goal"]
    state = state._replace(bits=jnp.abs(goal - jnp.array([1.0, 1.0, 0.0])))
    state, ts = env.step(KEY, state, jnp.int32(1), env.params)
    assert ts.reward == -1 and not ts.terminated and not ts.truncated
    np.testing.assert_array_equal(ts.observation["achieved_goal"], jnp.abs(goal - jnp.array([1.0, 0.0, 0.0])))
    away, ts = env.step(KEY, state._replace(time=jnp.int32(2)), jnp.int32(2), env.params)
    assert ts.truncated and not ts.terminated
    _, ts = env.step(KEY, state._replace(time=jnp.int32(2)), jnp.int32(0), env.params)
    assert ts.reward == 0 and ts.terminated and not ts.truncated


@pytest.mark.slow
def test_hindsight_solves_what_plain_replay_does_not():
    """12 bits, 4096 goals: success of 4 seeds with and without relabelling, the same program otherwise."""
    env = bit_flip(12)
    learner, _ = jaxrl.make_agent("dqn", env, offline=True, widths=(64,))
    reader = buffers.hindsight(buffers.goal_relabel(goal_reward), horizon=12)
    buffer = buffers.replay(50_000, 64, reader=reader, min_size=1000)
    explored = jaxrl.with_exploration(learner, exploration.epsilon_greedy(env.action_space))
    agent = jaxrl.with_replay(explored, buffer, updates_per_step=8)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=4)

    def train(key, fraction):
        numbers = dict(relabel_fraction=fraction, learning_rate=1e-3, target_rate=0.05, discount=0.98, epsilon_end=0.1)
        hparams = replace_fields(agent.hparams, **numbers)
        state, _ = jaxrl.run(loop, loop.init(key, hparams), 900)
        played = jaxrl.evaluate(key, agent, state.agent, env, num_episodes=64)
        return jnp.mean(played.returns > -12)  # -1 for every step but the last: solved

    both = jax.vmap(jax.vmap(train, (0, None)), (None, 0))
    success = jax.jit(both)(jax.random.split(KEY, 4), jnp.array([0.0, 0.8]))
    assert (success[0] < 0.2).all() and (success[1] > 0.8).all(), success
