"""Transforms of environments: what each does, what all leave alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import spaces
from jaxrl.envs import check_trace, diagnostic
from jaxrl.envs import transforms as tr
from jaxrl.envs.check import problems
from jaxrl.types import Env, TimeStep


class Params(NamedTuple):
    length: jax.Array


ACTIONS = spaces.Box((-2.0, 0.0), (2.0, 10.0), (2,))


def tape(length=6, actions=ACTIONS):
    """Observation [time, noise], reward 2^time, terminates after `length` steps; the executed action is in extras."""

    def observe(time, noise):
        return jnp.stack([time.astype(jnp.float32), noise])

    def reset(key, params):
        time = jnp.int32(0)
        return time, observe(time, jax.random.uniform(key))

    def step(key, time, action, params):
        reward = 2.0 ** time.astype(jnp.float32)
        time = time + 1
        observation = observe(time, jax.random.uniform(key))
        return time, TimeStep(observation, reward, time >= params.length, jnp.bool_(False), {"executed": action})

    return Env(reset, step, Params(jnp.int32(length)), spaces.Box(0.0, (100.0, 1.0), (2,)), actions)


def structured():
    """A dict with every kind of space, an image included."""
    space = spaces.Dict(
        {
            "pair": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, (1.0, 2.0), (2,)))),
            "many": spaces.MultiDiscrete((2, 3)),
            "image": spaces.Box(0, 255, (2, 2, 1), "uint8"),
            "action_mask": spaces.Box(0, 1, (4,), "bool"),
        }
    )

    def observe(time):
        return {
            "pair": (time % 3, jnp.array([-0.5, 1.5])),
            "many": jnp.stack([time % 2, time % 3]),
            "image": jnp.full((2, 2, 1), time, jnp.uint8),
            "action_mask": jnp.array([True, False, True, True]),
        }

    def reset(key, params):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(key, time, action, params):
        return time + 1, TimeStep(observe(time + 1), jnp.float32(1.0), time >= 4, jnp.bool_(False))

    return Env(reset, step, (), space, spaces.Discrete(4))


def play(env, actions, seed=0):
    """The first observation, and the time steps stacked along a leading axis [T]."""
    keys = jax.random.split(jax.random.key(seed), len(actions) + 1)

    def run(keys, actions, params):
        state, first = env.reset(keys[0], params)
        return first, jax.lax.scan(lambda s, x: env.step(x[0], s, x[1], params), state, (keys[1:], actions))[1]

    return jax.device_get(jax.jit(run)(keys, jnp.asarray(actions), env.params))


def uniform_actions(num, seed=1):
    return jax.vmap(ACTIONS.sample)(jax.random.split(jax.random.key(seed), num))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


IDENTITIES = {
    "time_limit": lambda env: tr.time_limit(env, 1000),
    "repeat_action": lambda env: tr.repeat_action(env, 1),
    "flatten_observation": tr.flatten_observation,
    "frame_stack": lambda env: tr.frame_stack(env, 1),
    "observation_noise": lambda env: tr.observation_noise(env, 0.0),
    "clip_action": tr.clip_action,
    "action_noise": lambda env: tr.action_noise(env, 0.0),
    "sticky_actions": lambda env: tr.sticky_actions(env, 0.0),
    "scale_reward": lambda env: tr.scale_reward(env, 1.0),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_to_the_bit(name):
    env = tape()
    changed = IDENTITIES[name](env)
    assert changed.params is env.params
    assert equal(play(env, uniform_actions(5)), play(changed, uniform_actions(5)))


ALL = {
    **IDENTITIES,
    "time_limit 3": lambda env: tr.time_limit(env, 3),
    "repeat_action 3": lambda env: tr.repeat_action(env, 3),
    "repeat_action discounted": lambda env: tr.repeat_action(env, 3, discount=0.9),
    "frame_stack 3": lambda env: tr.frame_stack(env, 3),
    "scale_action": tr.scale_action,
    "observation_noise 1": lambda env: tr.observation_noise(env, 1.0),
    "action_noise 1": lambda env: tr.action_noise(env, 1.0),
    "sticky_actions 0.25": tr.sticky_actions,
    "scale_reward 3": lambda env: tr.scale_reward(env, 3.0),
}


@pytest.mark.parametrize("name", ALL)
def test_traces_as_its_spaces_say(name):
    env = ALL[name](tape())
    assert check_trace.problems(env, jax.random.key(0)) == ([], True)
    assert hash(env.observation_space) is not None and hash(env.action_space) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: tr.frame_stack(tr.scale_action(tr.sticky_actions(tr.repeat_action(tr.time_limit(tape(), 5), 2))), 3),
        lambda: tr.scale_reward(tr.observation_noise(tr.action_noise(tr.clip_action(tape()), 0.1), 0.1), 2.0),
        lambda: tr.sticky_actions(tr.flatten_observation(structured())),
        lambda: tr.frame_stack(tr.one_hot(structured()), 2),
        lambda: tr.time_limit(tr.repeat_action(tr.observation_noise(diagnostic.memory(), 0.1), 2, discount=0.9), 2),
    ],
    ids=["vector", "noise", "flattened", "structured", "probe"],
)
def test_compositions_pass_the_check(make):
    assert problems(make(), num_steps=24) == []


# Time and reward -----------------------------------------------------------------------------------------------------


def test_time_limit_truncates_and_termination_wins():
    _, ts = play(tr.time_limit(tape(6), 4), uniform_actions(4))
    np.testing.assert_array_equal(ts.truncated, [False, False, False, True])
    assert not ts.terminated.any() and ts.observation[3, 0] == 4, "the true successor"
    _, ts = play(tr.time_limit(tape(4), 4), uniform_actions(4))
    assert ts.terminated[3] and not ts.truncated.any()
    _, ts = play(tr.time_limit(tr.time_limit(tape(6), 2), 4), uniform_actions(2))
    assert ts.truncated[1], "the limit inside is kept"


def two_agents(length=6):
    """`tape` twice: the first agent's ends with the tape, the second's after one step more."""
    env = tape()

    def step(key, state, action, params):
        state, ts = env.step(key, state, action, params)
        ends = jnp.stack([state >= length, state >= length + 1])
        return state, ts._replace(reward=jnp.stack([ts.reward] * 2), terminated=ends, truncated=jnp.zeros(2, bool))

    return env._replace(step=step)


def test_time_limit_of_many_agents():
    _, ts = play(tr.time_limit(two_agents(6), 6), uniform_actions(6))
    np.testing.assert_array_equal(ts.terminated[-1], [True, False])
    np.testing.assert_array_equal(ts.truncated[-1], [False, True])


def test_repeat_action_of_many_agents_goes_on_until_all_are_out():
    _, ts = play(tr.repeat_action(two_agents(2), 5), uniform_actions(1))
    np.testing.assert_array_equal(ts.terminated, [[True, True]])
    np.testing.assert_array_equal(ts.reward, [[1 + 2, 1 + 2 + 4]])
    assert ts.observation[0, 0] == 3


def test_params_stay_traced():
    env = tr.frame_stack(tr.time_limit(tape(), 100), 2)

    def terminates(params):
        state, _ = env.reset(jax.random.key(0), params)
        for t in range(4):
            state, ts = env.step(jax.random.key(t), state, jnp.zeros(2), params)
        return ts.terminated

    np.testing.assert_array_equal(jax.vmap(terminates)(Params(jnp.array([3, 4, 5]))), [True, True, False])


def test_numbers_may_be_traced():
    def total(scale, probability):
        env = tr.sticky_actions(tr.scale_reward(tape(), scale), probability)
        state, _ = env.reset(jax.random.key(0), env.params)
        return env.step(jax.random.key(1), state, jnp.zeros(2), env.params)[1].reward

    np.testing.assert_allclose(jax.jit(jax.vmap(total))(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0])), [1.0, 3.0])


def test_repeat_action_sums_until_the_end():
    _, ts = play(tr.repeat_action(tape(length=5), 3), uniform_actions(2))
    np.testing.assert_allclose(ts.reward, [1 + 2 + 4, 8 + 16])
    np.testing.assert_array_equal(ts.terminated, [False, True])
    np.testing.assert_array_equal(ts.observation[:, 0], [3, 5])
    assert "num_steps" not in ts.extras


def test_repeat_action_with_a_discount_is_the_semi_markov_process():
    g = 0.9
    _, ts = play(tr.repeat_action(tape(length=5), 3, discount=g), uniform_actions(2))
    np.testing.assert_allclose(ts.reward, [1 + 2 * g + 4 * g**2, 8 + 16 * g], rtol=1e-6)
    np.testing.assert_array_equal(ts.extras["num_steps"], [3, 2])
    once = play(tr.repeat_action(tape(length=5), 4, discount=g), uniform_actions(2))[1]
    inner = tr.repeat_action(tape(length=5), 2, discount=g)
    twice = play(tr.repeat_action(inner, 2, discount=g), uniform_actions(2))[1]
    np.testing.assert_allclose(twice.reward, once.reward, rtol=1e-6)
    np.testing.assert_array_equal(twice.extras["num_steps"], once.extras["num_steps"])


def test_repeat_action_draws_new_randomness_at_every_repeat():
    env = tape()

    def noisy(key, state, action, params):
        state, ts = env.step(key, state, action, params)
        return state, ts._replace(reward=ts.observation[1])

    noisy = env._replace(step=noisy)
    _, once = play(noisy, uniform_actions(1))
    _, twice = play(tr.repeat_action(noisy, 2), uniform_actions(1))
    assert abs(twice.reward[0] - 2 * once.reward[0]) > 1e-3


def test_scale_reward():
    _, ts = play(tr.scale_reward(tape(), -0.5), uniform_actions(3))
    np.testing.assert_allclose(ts.reward, [-0.5, -1.0, -2.0])


# Observations --------------------------------------------------------------------------------------------------------


def test_flatten_observation():
    env = tr.flatten_observation(structured())
    first, ts = play(env, np.zeros(2, np.int32))
    # In the order of the names: image, many, pair; the mask is kept.
    expected = [0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, -0.5, 1.5]
    np.testing.assert_allclose(first["observation"], expected)
    expected = [2, 2, 2, 2, 1, 0, 0, 0, 1, 0, 0, 1, -0.5, 1.5]
    np.testing.assert_allclose(ts.observation["observation"][1], expected)
    np.testing.assert_array_equal(first["action_mask"], [True, False, True, True])
    vector = env.observation_space["observation"]
    assert vector == spaces.Box((0,) * 9 + (0, 0, 0, -1, -1), (255,) * 4 + (1,) * 9 + (2,), (14,))


def test_flatten_observation_without_exceptions():
    env = tr.flatten_observation(structured(), keep=())
    first, _ = play(env, np.zeros(1, np.int32))
    assert first.shape == env.observation_space.shape == (18,) and first.dtype == np.float32
    np.testing.assert_array_equal(first[:4], [1, 0, 1, 1])


def test_one_hot():
    env = tr.one_hot(structured())
    _, ts = play(env, np.zeros(2, np.int32))
    np.testing.assert_array_equal(ts.observation["pair"][0], np.eye(3)[[1, 2]])
    np.testing.assert_array_equal(ts.observation["many"], [[0, 1, 0, 1, 0], [1, 0, 0, 0, 1]])
    assert ts.observation["image"].dtype == np.uint8, "the rest stays"
    assert env.observation_space["pair"].spaces[0] == spaces.Box(0.0, 1.0, (3,))


def test_frame_stack():
    env = tr.frame_stack(tape(), 3)
    first, ts = play(env, uniform_actions(4))
    np.testing.assert_array_equal(first.reshape(3, 2), [first[:2]] * 3)
    np.testing.assert_array_equal(ts.observation[:, ::2], [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]])
    assert env.observation_space == spaces.Box(0.0, (100.0, 1.0) * 3, (6,))


def test_frame_stack_of_images_stacks_channels():
    env = tr.frame_stack(tr.one_hot(structured()), 2)
    _, ts = play(env, np.zeros(2, np.int32))
    image = ts.observation["image"]
    assert image.shape == (2, 2, 2, 2) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[1, 0, 0], [1, 2])
    assert env.observation_space["image"] == spaces.Box(0, 255, (2, 2, 2), "uint8")


def test_observation_noise():
    env = tr.observation_noise(tape(1000), 0.5)
    plain_first, plain = play(tape(1000), uniform_actions(500))
    first, ts = play(env, uniform_actions(500))
    noise = ts.observation - plain.observation
    assert abs(noise.std() - 0.5) < 0.05 and abs(noise.mean()) < 0.06 and not np.array_equal(first, plain_first)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.15, "every entry has its own"
    assert equal(ts.reward, plain.reward), "the state stays exact"
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (2,))


def test_observation_noise_leaves_discrete_parts():
    first, _ = play(tr.observation_noise(structured(), 5.0), np.zeros(1, np.int32))
    exact, _ = play(structured(), np.zeros(1, np.int32))
    assert equal({**first, "pair": first["pair"][0]}, {**exact, "pair": exact["pair"][0]})
    assert not np.allclose(first["pair"][1], exact["pair"][1])


# Actions -------------------------------------------------------------------------------------------------------------


def test_scale_action():
    env = tr.scale_action(tape(), -1.0, 3.0)
    assert env.action_space == spaces.Box(-1.0, 3.0, (2,))
    _, ts = play(env, np.array([[-1, 3], [3, -1], [1, 0]], np.float32))
    np.testing.assert_array_equal(ts.extras["executed"], [[-2, 10], [2, 0], [0, 2.5]])


def test_scale_action_in_a_tuple_leaves_discrete_parts():
    env = tape(actions=spaces.Tuple((spaces.Discrete(3), spaces.Box(0.0, 10.0))))
    env = tr.scale_action(env)
    assert env.action_space == spaces.Tuple((spaces.Discrete(3), spaces.Box(-1.0, 1.0)))
    state, _ = env.reset(jax.random.key(0), env.params)
    _, ts = env.step(jax.random.key(0), state, (jnp.int32(2), jnp.float32(0.5)), env.params)
    assert [float(x) for x in ts.extras["executed"]] == [2.0, 7.5]


def test_clip_action():
    env = tr.clip_action(tape())
    assert env.action_space == spaces.Box(-np.inf, np.inf, (2,))
    _, ts = play(env, np.array([[-9, 99], [1, 5]], np.float32))
    np.testing.assert_array_equal(ts.extras["executed"], [[-2, 10], [1, 5]])


def test_action_noise():
    _, ts = play(tr.action_noise(tape(1000), 0.3), np.tile(np.array([[0.0, 0.0]], np.float32), (1000, 1)))
    executed = ts.extras["executed"]
    assert abs(executed[:, 0].std() - 0.3) < 0.03, "far from its bounds"
    assert executed[:, 1].min() == 0.0 and 0.4 < (executed[:, 1] == 0).mean() < 0.6, "clipped to its bounds"


def test_sticky_actions():
    env = tr.sticky_actions(tape(10_000), 0.25)
    actions = np.stack([np.linspace(-2, 2, 2000), np.zeros(2000)], axis=1).astype(np.float32)
    executed = play(env, actions)[1].extras["executed"]
    given = executed[:, 0] == actions[:, 0]
    stuck = np.concatenate([[False], executed[1:, 0] == executed[:-1, 0]])
    assert np.all(given ^ stuck) and given[0], "either the given action or the one executed before"
    assert 0.22 < stuck.mean() < 0.28
    always = tr.sticky_actions(tape(10_000), 1.0)
    executed = play(always, actions)[1].extras["executed"]
    np.testing.assert_array_equal(executed[:, 0], np.full(2000, -2.0, np.float32))


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tr.time_limit(tape(), 0), "time_limit: max_steps is 0, must be >= 1"),
        (lambda: tr.repeat_action(tape(), 0), "repeat_action: num is 0, must be >= 1"),
        (lambda: tr.repeat_action(tape(), 2, discount=1.5), "discount is 1.5, must be in"),
        (lambda: tr.frame_stack(tape(), 0), "frame_stack: num is 0"),
        (lambda: tr.frame_stack(structured(), 2), "every part must be a Box .apply one_hot first"),
        (lambda: tr.one_hot(tape()), "one_hot: no part of the observation is discrete"),
        (lambda: tr.observation_noise(tape(), -1.0), "std is -1.0, must be >= 0"),
        (lambda: tr.observation_noise(small_discrete(), 1.0), "the observation must be a Box of floats"),
        (lambda: tr.scale_action(tape(), 1.0, 1.0), "high - low is 0.0, must be > 0"),
        (lambda: tr.scale_action(structured()), "scale_action: the action must be a Box of floats"),
        (lambda: tr.scale_action(tr.clip_action(tape())), "the action must have finite bounds"),
        (lambda: tr.clip_action(structured()), "clip_action: the action must be a Box of floats"),
        (lambda: tr.action_noise(structured(), 1.0), "action_noise: the action must be a Box of floats"),
        (lambda: tr.action_noise(tape(), -0.1), "std is -0.1, must be >= 0"),
        (lambda: tr.sticky_actions(tape(), 1.1), "probability is 1.1, must be in"),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def small_discrete():
    return tape()._replace(observation_space=spaces.Discrete(3))
