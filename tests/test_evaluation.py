"""Evaluation counts every episode that it starts, once."""

import jax
import jax.numpy as jnp
import numpy as np
import toys

import jaxrl
from jaxrl.types import Agent

KEY = jax.random.key(0)


def test_no_bias_toward_short_episodes():
    """Lengths are a parameter of each episode: all of them come back, each with its own return."""
    env = toys.clock()
    lengths = jnp.arange(1, 41)
    params = toys.ClockParams(lengths, jnp.ones(40, bool), jnp.full(40, 2.0))
    agent = toys.counting_agent()
    result = jaxrl.evaluate(KEY, agent, toys.CounterState((), 0.0), env, params, num_episodes=40)
    np.testing.assert_array_equal(result.lengths, lengths)
    np.testing.assert_array_equal(result.returns, 2.0 * lengths)
    assert result.finished.all() and result.lengths.dtype == jnp.int32


def test_cut_episodes_are_marked():
    env = toys.clock(50)
    result = jaxrl.evaluate(KEY, toys.counting_agent(), toys.CounterState((), 0.0), env, max_steps=7, num_episodes=3)
    assert not result.finished.any() and (result.lengths == 7).all() and (result.returns == 7).all()


def test_greedy_and_sampling():
    env = toys.clock(4)
    agent = toys.idle_agent(env)

    def sampled(key, state, memory, observation):
        raise RuntimeError("sampled")

    agent = Agent(agent.init, agent.init_memory, sampled, agent.act_greedy, agent.update)
    assert jaxrl.evaluate(KEY, agent, (), env, num_episodes=2).finished.all()
    try:
        jaxrl.evaluate(KEY, agent, (), env, num_episodes=2, greedy=False)
    except RuntimeError as error:
        assert str(error) == "sampled"
    else:
        raise AssertionError("greedy=False did not sample")


def test_agents_end_apart():
    """[E, A]: agent i counts until its own end."""
    env = toys.two_players((2, 4))
    result = jaxrl.evaluate(KEY, toys.idle_agent(env), (), env, num_episodes=3)
    np.testing.assert_array_equal(result.lengths, [[2, 4]] * 3)
    np.testing.assert_array_equal(result.returns, [[1 + 2, 1 + 2 + 3 + 4]] * 3)


def test_memory_is_carried():
    env = toys.clock(5)
    agent = toys.counting_agent()
    seen = []

    def act(key, state, memory, observation):
        jax.debug.callback(lambda m: seen.append(np.array(m)), memory, ordered=True)
        return agent.act(key, state, memory, observation)

    agent = agent._replace(act_greedy=act)
    jax.block_until_ready(jaxrl.evaluate(KEY, agent, (), env, num_episodes=2))
    jax.effects_barrier()
    np.testing.assert_array_equal([m[0] for m in seen], [0, 1, 2, 3, 4])
