"""Running moments, and agents that see through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.loop import example_data
from jaxrl.normalize import init_statistics, normalize, update_statistics
from jaxrl.transforms import NormalizeRewardHparams, chain, clip_reward, normalize_reward, scale_reward
from jaxrl.tree import find
from jaxrl.types import Transition, Wrapped

KEY = jax.random.key(0)


def test_moments_of_batches_equal_moments_of_all():
    rng = np.random.default_rng(0)
    data = rng.normal(5.0, 3.0, size=(7, 4, 6, 2)).astype(np.float32)
    statistics = init_statistics(jax.ShapeDtypeStruct((2,), jnp.float32))
    for batch in data:
        statistics = update_statistics(statistics, jnp.array(batch), jnp.ones((4, 6)))
    flat = data.reshape(-1, 2)
    assert statistics.count == len(flat)
    np.testing.assert_allclose(statistics.mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics.var, flat.var(0), rtol=1e-4)
    np.testing.assert_allclose(normalize(statistics, flat, 1e9), (flat - flat.mean(0)) / flat.std(0), atol=1e-3)


def test_rows_of_weight_zero_and_integers_are_left_out():
    x = {"image": jnp.array([[3], [4]], jnp.uint8), "vector": jnp.array([[1.0], [jnp.nan]])}
    statistics = init_statistics(jax.tree.map(lambda leaf: leaf[0], x))
    statistics = update_statistics(statistics, x, jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(statistics.mean["vector"], [1.0])
    assert statistics.count == 1 and statistics.mean["image"] == ()
    np.testing.assert_array_equal(normalize(statistics, x, 10.0)["image"], x["image"])
    empty = update_statistics(statistics, x, jnp.zeros(2))
    np.testing.assert_array_equal(empty.mean["vector"], [1.0])


def normalized_loop(**kwargs):
    env = toys.clock(5)
    env = env._replace(params=env.params._replace(reward=jnp.float32(100.0)))
    agent = jaxrl.normalize_observations(ppo(*toys.actor_and_critic(env), num_epochs=1, num_minibatches=1))
    return agent, env, jaxrl.online(agent, env, num_envs=4, unroll_length=6, **kwargs)


def test_statistics_stand_still_between_acting_and_learning():
    """The first ratio of every update is exactly 1, and what was seen is used from the next rollout on."""
    agent, env, loop = normalized_loop()
    state = loop.init(KEY)
    step = jax.jit(loop.step)
    for count in (24, 48, 72):
        state, metrics = step(state)
        assert abs(metrics["approx_kl"]) < 1e-6 and metrics["clip_fraction"] == 0
        assert state.agent.current.count == count == state.agent.pending.count
    assert state.agent.current.mean[0] == pytest.approx(2.0, abs=0.3)
    actor = agent.actor(state.agent)
    assert actor.pending == () and find(actor, type(state.agent.agent))[0].opt_state == ()
    observation = state.interaction.observation
    full, lean = (agent.act(KEY, s, state.interaction.memory, observation) for s in (state.agent, actor))
    jax.tree.map(np.testing.assert_array_equal, full, lean)


def test_the_inner_agent_sees_standardised_observations():
    agent, env, loop = normalized_loop()
    state, _ = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY), 3))()
    statistics, inner = state.agent.current, state.agent.agent
    observation = state.interaction.observation
    value = agent.act_greedy(KEY, state.agent, ((), ()), observation)[2]["value"]
    seen = (observation - statistics.mean) / np.sqrt(statistics.var + 1e-8)
    plain = ppo(*toys.actor_and_critic(env))
    np.testing.assert_allclose(value, plain.act_greedy(KEY, inner, ((), ()), seen)[2]["value"], rtol=1e-4)


def rewards(values, last):
    values = jnp.array(values, jnp.float32)[:, None]
    last = jnp.array(last, bool)[:, None]
    return Transition((), (), values, jnp.zeros_like(last), last, (), {})


def test_reward_scale_against_a_loop():
    transform = normalize_reward(NormalizeRewardHparams(return_discount=0.5, reward_clip=1e9))
    first, second = rewards([1, 2, 3], [0, 1, 0]), rewards([4, 5, 6], [1, 0, 0])
    state = transform.init(KEY, transform.hparams, first)
    seen, running = [], 0.0
    for data in (first, second):
        state, _ = transform.observe(KEY, state, data)
        for reward, last in zip(np.ravel(data.reward), np.ravel(data.truncated)):
            running = reward + 0.5 * running
            seen.append(running)
            running *= 1 - last
    scaled = transform.apply(KEY, state, second).reward
    np.testing.assert_allclose(scaled[:, 0], np.array([4, 5, 6]) / np.std(seen), rtol=1e-5)


def test_chain():
    data = rewards([1, -5, 9], [0, 0, 0])

    def through(*transforms):
        transform = chain(*transforms)
        return transform.apply(KEY, transform.init(KEY, transform.hparams, data), data)

    jax.tree.map(np.testing.assert_array_equal, through(), data)
    np.testing.assert_allclose(through(scale_reward(0.1), clip_reward()).reward[:, 0], [0.1, -0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(through(clip_reward(), scale_reward(0.1)).reward[:, 0], [0.1, -0.1, 0.1], rtol=1e-6)


def test_the_empty_chain_is_the_identity_to_the_bit():
    env = toys.clock(3)
    agent = ppo(*toys.actor_and_critic(env))
    wrapped = jaxrl.with_transform(agent, chain())
    runs = []
    for a in (agent, wrapped):
        loop = jaxrl.online(a, env, num_envs=4, unroll_length=4)
        runs.append(jax.jit(lambda loop=loop: jaxrl.run(loop, loop.init(KEY), 3))())
    (plain, metrics), (outer, more) = runs
    jax.tree.map(np.testing.assert_array_equal, plain.agent, outer.agent.agent)
    jax.tree.map(np.testing.assert_array_equal, metrics, more)


def test_replay_shaped_data_is_refused():
    data = jax.tree.map(lambda x: x[0], rewards([1, 2], [0, 0]))
    with pytest.raises(ValueError, match="needs rollouts"):
        normalize_reward().init(KEY, NormalizeRewardHparams(), data)


def test_nested_hyperparameters():
    env = toys.clock(3)
    agent = jaxrl.normalize_observations(jaxrl.with_transform(ppo(*toys.actor_and_critic(env)), normalize_reward()))
    assert isinstance(agent.hparams, Wrapped) and agent.hparams.agent.agent == PPOHparams()
    hparams = jaxrl.tree.replace_fields(agent.hparams, learning_rate=1.0, lambda_=0.5)
    assert hparams.agent.agent.learning_rate == 1.0
    twice = Wrapped(PPOHparams(), PPOHparams())
    with pytest.raises(ValueError, match="'clip' is ambiguous"):
        jaxrl.tree.replace_fields(twice, clip=1.0)
    with pytest.raises(ValueError, match="'rate' does not exist; there are clip, .*learning_rate"):
        jaxrl.tree.replace_fields(agent.hparams, rate=1.0)
    state = agent.init(KEY, hparams, example_data(env, 2, 2))
    assert (
        state.agent.agent.hparams.learning_rate == 1.0
        and state.agent.transform.hparams.return_discount == np.float32(0.99)
    )
