"""Curricula: parameters of each reset, parameters on a schedule, and rewards that are weighed again in replay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import buffers, online, run
from jaxrl.combinators.replay import with_replay
from jaxrl.combinators.transform import with_transform
from jaxrl.curricula import randomized, scheduled
from jaxrl.envs.quadrotor import hover_action, quadrotor
from jaxrl.factory import make_agent
from jaxrl.parallel import SHARDS
from jaxrl.spaces import Box
from jaxrl.transforms import WeighRewardsHparams, weigh_rewards
from jaxrl.tree import field_names
from jaxrl.types import Agent, Env, TimeStep, Transition, no_memory

KEY = jax.random.key(0)
WEIGHTS, GROWTH, LIMITS = (2.0, 5.0, 5.0, 0.01, 0.01), (1.0, 1.2, 1.0, 1.4, 1.4), (2.0, 6.5, 5.0, 1.0, 0.02)


class Level(NamedTuple):
    level: jax.Array
    max_steps: jax.Array


def counting():
    """Observations and rewards are the level, an episode lasts `max_steps`."""

    def reset(key, params):
        return jnp.int32(0), params.level[None]

    def step(key, state, action, params):
        late = state + 1 >= params.max_steps
        return state + 1, TimeStep(params.level[None], params.level, jnp.bool_(False), late)

    params = Level(jnp.float32(1), jnp.int32(3))
    return Env(reset, step, params, Box(-9.0, 9.0, (1,)), Box(-1.0, 1.0, (4,)))


def recorder(num_actions=4):
    """Acts at random and keeps the batch that it was given last."""

    def act(key, state, memory, observation):
        n = jax.tree.leaves(observation)[0].shape[0]
        return memory, jax.random.uniform(key, (n, num_actions), minval=-1.0, maxval=1.0), {}

    def init(key, hparams, example):
        return jax.tree.map(jnp.zeros_like, example)

    return Agent(init, no_memory, act, act, lambda key, state, data: (data, {}))


def test_every_reset_draws_its_own_parameters():
    def sample(key, params):
        return params._replace(level=params.level + jax.random.uniform(key))

    loop = online(recorder(), counting(), num_envs=4, unroll_length=9, curriculum=randomized(sample))
    state = jax.jit(loop.init)(KEY)
    state, _ = jax.jit(loop.step)(state)
    seen = np.asarray(state.agent.reward)  # [9, 4]
    episodes = seen.reshape(3, 3, 4)
    np.testing.assert_array_equal(episodes, np.broadcast_to(episodes[:, :1], episodes.shape))  # one level an episode
    assert len(np.unique(episodes)) == 12 and 1.0 <= episodes.min() and episodes.max() <= 2.0


def test_parameters_follow_a_schedule():
    curriculum = scheduled(lambda params, n: params._replace(level=params.level + n))
    loop = online(recorder(), counting(), num_envs=2, unroll_length=5, curriculum=curriculum)

    def levels(key):
        def step(state, _):
            state, _ = loop.step(state)
            return state, state.agent.reward

        return jax.lax.scan(step, loop.init(key), length=3)[1]

    seen = jax.jit(levels)(KEY)
    np.testing.assert_array_equal(seen, np.broadcast_to(np.array([1.0, 11.0, 21.0])[:, None, None], seen.shape))


def weights_after(num_steps, period=100):
    """The curriculum as its authors do it: multiply and cap, once a period."""
    weights = np.float64(WEIGHTS)
    for _ in range(num_steps // period):
        weights = np.minimum(weights * GROWTH, LIMITS)
    return weights


def test_weights_grow_to_their_limits():
    transform = weigh_rewards(WEIGHTS, GROWTH, LIMITS, WeighRewardsHparams(reward_period=100.0))
    fresh = Transition((), (), jnp.zeros((7, 4)), False, False, (), {"reward_terms": jnp.zeros((7, 4, 5))})
    terms = Transition((), (), jnp.full(5, -1.0), False, False, (), {"reward_terms": jnp.eye(5)})

    @jax.jit
    def rewards(state):
        def step(state, _):
            now = transform.apply(KEY, state, terms).reward
            return transform.observe(KEY, state, fresh)[0], now

        return jax.lax.scan(step, state, length=60)[1]

    found = rewards(transform.init(KEY, transform.hparams, fresh))
    by_hand = [weights_after(28 * i) for i in range(60)]
    np.testing.assert_allclose(found, by_hand, rtol=2e-6)
    assert found[-1, 1] == 6.5 and found[-1, 0] == 2.0


def test_unlimited_growth_stays_a_number():
    transform = weigh_rewards((0.0, 1.0), (2.0, 2.0), (5.0, 5.0), WeighRewardsHparams(reward_period=1.0))
    data = Transition((), (), jnp.zeros((1000, 1)), False, False, (), {"reward_terms": jnp.ones((1000, 1, 2))})
    state, _ = transform.observe(KEY, transform.init(KEY, transform.hparams, data), data)
    np.testing.assert_array_equal(transform.apply(KEY, state, data).reward, np.full((1000, 1), 5.0))


def rewards_of(data, weights):
    """Rewards computed again from the stored true states and actions, as the paper does with its buffer."""
    hidden, action = np.float64(data.observation["privileged"]), np.float64(data.action)
    scalar = (1 + hidden[..., 3] + hidden[..., 7] + hidden[..., 11]) / 4  # q_w^2 = (1 + trace R) / 4
    baseline = float(hover_action(quadrotor().params))
    square = lambda x: (x**2).sum(-1)  # noqa: E731
    costs = square(hidden[..., :3]), 1 - scalar, square(hidden[..., 12:15]), square(action - baseline)
    reward = weights[0] - 0.5 * sum(w * c for w, c in zip(weights[1:], costs))
    return np.where(data.terminated, 0.0, reward)


@pytest.mark.parametrize("inside", [True, False])
def test_replayed_rewards_equal_rewards_computed_again(inside):
    """Inside of replay all rows have today's reward; outside of it replay goes on with what was recorded."""
    transform = weigh_rewards(WEIGHTS, GROWTH, LIMITS, WeighRewardsHparams(reward_period=100.0))
    env, buffer = quadrotor(history_length=0), buffers.replay(1000, 256, min_size=1)
    if inside:
        agent = with_replay(with_transform(recorder(), transform), buffer)
    else:
        agent = with_transform(with_replay(recorder(), buffer), transform)
    loop = online(agent, env, num_envs=4, unroll_length=30)
    state, _ = jax.jit(lambda key: run(loop, loop.init(key), 3))(KEY)  # 360 steps
    batch = jax.device_get(state.agent.agent.agent)
    today, at_first = rewards_of(batch, weights_after(360)), rewards_of(batch, weights_after(0))
    np.testing.assert_allclose(batch.reward, today if inside else at_first, rtol=2e-5, atol=2e-5)
    assert batch.terminated.any() and not batch.terminated.all()
    assert np.abs(at_first - today).max() > 0.05, "the curriculum makes no difference here"


def test_fresh_rewards_on_the_same_schedule():
    """A schedule of the environment's own weights gives fresh rows the reward that replay gives to them."""
    env = quadrotor(history_length=0)

    def schedule(params, n):
        grown = params.reward_weights * jnp.float32(GROWTH) ** jnp.floor(n / 100.0)
        return params._replace(reward_weights=jnp.minimum(grown, jnp.float32(LIMITS)))

    loop = online(recorder(), env, num_envs=4, unroll_length=30, curriculum=scheduled(schedule))
    state, _ = jax.jit(lambda key: run(loop, loop.init(key), 3))(KEY)
    np.testing.assert_allclose(
        state.agent.reward, rewards_of(jax.device_get(state.agent), weights_after(240)), rtol=2e-5, atol=2e-5
    )


def test_make_agent_weighs_rewards():
    """For every learner from replay: the weights are the environment's, the period is a hyperparameter."""
    env = quadrotor(history_length=0)
    agent, hparams = make_agent("sac", env, offline=True, reward_growth=GROWTH, reward_limits=LIMITS, widths=(4,))
    assert field_names(hparams) >= {"reward_period", "target_entropy"}
    terms = Transition((), (), jnp.zeros((1, 5)), False, False, (), {"reward_terms": jnp.eye(5)[None]})
    spy = with_transform(recorder(), weigh_rewards(env.params.reward_weights, GROWTH, LIMITS))
    state = spy.init(KEY, spy.hparams, terms)
    seen = spy.update(KEY, state, terms)[0].agent.reward[0]
    np.testing.assert_allclose(seen, WEIGHTS)


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="weights, growth and limits have 2, 1 and 2 entries, must agree"):
        weigh_rewards((1.0, 2.0), (1.0,), (1.0, 1.0))
    transform = weigh_rewards((1.0,), (1.0,), (1.0,))
    data = Transition((), (), jnp.zeros(3), False, False, (), {"reward_terms": jnp.zeros((3, 5))})
    with pytest.raises(ValueError, match=r"are 1 weights, extras\['reward_terms'\] has 5 entries"):
        transform.init(KEY, transform.hparams, data)
    agent, hparams = make_agent("sac", counting(), reward_growth=(1.0,), reward_limits=(1.0,))
    with pytest.raises(ValueError, match=r"are 1 weights, extras\['reward_terms'\] is missing"):
        online(agent, counting(), num_envs=1, unroll_length=1).init(KEY, hparams)


def test_shards_count_each_others_steps():
    """Schedules go by the steps of all: a rollout of 3 x 4 on each of two shards is 24."""
    data = Transition((), (), jnp.zeros((3, 4)), False, False, (), {"reward_terms": jnp.zeros((3, 4, 5))})
    schedule, transform = scheduled(lambda params, n: params), weigh_rewards(WEIGHTS, GROWTH, LIMITS)

    def count(_):
        state = transform.init(KEY, transform.hparams, data)
        state = transform.observe(KEY, state, data)[0]
        taught = schedule.update(KEY, schedule.init(KEY, ()), (), data)[0]
        return state.num_steps.rounded, taught[1].rounded

    both = jax.vmap(count, axis_name=SHARDS)(jnp.arange(2))
    np.testing.assert_array_equal(both, [[24, 24], [24, 24]])
    assert [float(x) for x in count(0)] == [12, 12]
