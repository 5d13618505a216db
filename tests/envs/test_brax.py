"""The Brax adapter: true successors, the two ends, a traced System, environments that reset themselves."""

import brax.envs
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import jaxrl.envs
from jaxrl import spaces
from jaxrl.envs.brax import BraxParams, from_brax

KEY = jax.random.key(0)


def steps(env, actions, params=None, key=KEY):
    params = env.params if params is None else params
    state, _ = env.reset(key, params)
    step, timesteps = jax.jit(env.step), []
    for action in actions:
        state, timestep = step(key, state, jnp.atleast_1d(jnp.float32(action)), params)
        timesteps.append(timestep)
    return timesteps


def test_fast_is_brax_with_a_clock():
    env, raw = jaxrl.envs.make("brax/fast", episode_length=5), brax.envs.get_environment("fast")
    state = raw.reset(KEY)
    for t, timestep in enumerate(steps(env, [1.0, -1.0, 1.0, 1.0, 1.0, 1.0])):
        state = raw.step(state, jnp.array([[1.0], [-1.0]][t == 1]))
        np.testing.assert_allclose(timestep.observation, state.obs, rtol=1e-5)
        np.testing.assert_allclose(timestep.reward, state.reward, rtol=1e-5)
        assert not timestep.terminated and timestep.truncated == (t >= 4)
        assert timestep.reward.dtype == jnp.float32 and timestep.extras["diverged"] == 0.0
    assert env.observation_space == spaces.Box(-np.inf, np.inf, (2,)) and env.action_space.shape == (1,)
    assert env.params == ()


def test_dictionary_observations():
    env = jaxrl.envs.make("brax/fast", obs_mode="dict_state", asymmetric_obs=True)
    assert env.observation_space == spaces.Dict(
        {"state": spaces.Box(-np.inf, np.inf, (2,)), "privileged_state": spaces.Box(-np.inf, np.inf, (4,))}
    )
    (timestep,) = steps(env, [1.0])
    assert timestep.observation["state"].shape == (2,) and timestep.observation["privileged_state"].shape == (4,)


def test_an_episode_wrapper_may_stay_the_others_may_not():
    wrapped = brax.envs.create("fast", episode_length=3, auto_reset=False)
    ends = [(bool(t.terminated), bool(t.truncated)) for t in steps(from_brax(wrapped), [1.0] * 3)]
    assert ends == [(False, False), (False, False), (False, True)]
    with pytest.raises(ValueError, match="resets itself"):
        from_brax(brax.envs.create("fast", auto_reset=True))
    with pytest.raises(ValueError, match="batched"):
        from_brax(brax.envs.create("fast", episode_length=None, auto_reset=False, batch_size=2))
    with pytest.raises(ValueError, match="backend should be in"):
        jaxrl.envs.make("brax/reacher", backend="nonsense")


@struct.dataclass
class System:
    speed: jax.Array
    mj_model: object = struct.field(pytree_node=False, default=None)


class Slide(brax.envs.Env):
    """Moves by `sys.speed * action`; ends beyond 2; writes into the dictionaries it was given, as Brax's own do."""

    def __init__(self):
        self.sys = System(jnp.float32(1.0), mj_model=object())

    def reset(self, rng):
        return brax.envs.State(None, jnp.zeros(1), jnp.zeros(()), jnp.zeros(()), {"cost": 0.0}, {"rng": rng})

    def step(self, state, action):
        assert self.sys.mj_model is not None
        position = state.obs + self.sys.speed * action
        state.metrics["cost"] = 1.0
        state.info["rng"] = jax.random.split(state.info["rng"])[0]
        return state.replace(obs=position, reward=position[0], done=jnp.float32(position[0] > 2.0))

    observation_size = action_size = 1
    backend = "none"


def test_ends_of_a_stateful_environment():
    env = from_brax(Slide(), episode_length=3)
    ends = [(bool(t.terminated), bool(t.truncated)) for t in steps(env, [1.0, 1.0, 1.0])]
    assert ends == [(False, False), (False, False), (True, False)]  # the goal in the last allowed step
    assert steps(env, [1.0, 1.0, 0.0])[-1].truncated
    np.testing.assert_array_equal(steps(env, [1.0, 1.0, 1.0])[-1].observation, [3.0])


def test_divergence_truncates_at_the_last_finite_observation():
    for bad in (np.nan, np.inf):
        _, timestep = steps(from_brax(Slide()), [0.5, bad])
        assert timestep.truncated and not timestep.terminated
        assert timestep.reward == 0.0 and timestep.extras["diverged"] == 1.0
        np.testing.assert_array_equal(timestep.observation, [0.5])


def test_the_system_is_a_parameter_and_the_environment_object_stays_as_it_was():
    raw = brax.envs.training.EpisodeWrapper(Slide(), 100, 1)
    env, system = from_brax(raw), raw.unwrapped.sys
    assert isinstance(env.params, BraxParams) and env.params.sys.mj_model is None
    params = BraxParams(env.params.sys.replace(speed=jnp.array([0.5, 1.0, 2.0])))
    state, _ = jax.vmap(env.reset, (None, 0))(KEY, params)
    _, timestep = jax.vmap(env.step, (None, 0, None, 0))(KEY, state, jnp.ones(1), params)
    np.testing.assert_array_equal(timestep.observation[:, 0], [0.5, 1.0, 2.0])
    assert raw.unwrapped.sys is system
    assert jax.tree.structure(env.params) == jax.tree.structure(from_brax(Slide()).params)


def test_a_state_outlives_the_step_from_it():
    env = from_brax(Slide())
    state, _ = env.reset(KEY, env.params)
    after, _ = env.step(KEY, state, jnp.ones(1), env.params)  # not jitted: Slide writes into what it is given
    assert state.state.metrics["cost"] == 0.0 and after.state.metrics["cost"] == 1.0
    assert state.state.info["rng"] == KEY and after.state.info["rng"] != KEY


@pytest.mark.slow
def test_inverted_pendulum_against_brax():
    """The pole falls: termination, at the observation that Brax itself computes; beside it, one with less gravity."""
    env = jaxrl.envs.make("brax/inverted_pendulum", backend="spring", episode_length=50)
    raw = brax.envs.get_environment("inverted_pendulum", backend="spring")
    moon = env.params._replace(sys=env.params.sys.replace(gravity=env.params.sys.gravity * 0.1))
    params = jax.tree.map(lambda *x: jnp.stack(x), env.params, moon)
    raw_step, step = jax.jit(raw.step), jax.jit(jax.vmap(env.step, (None, 0, None, 0)))
    raw_state, (state, _) = jax.jit(raw.reset)(KEY), jax.jit(jax.vmap(env.reset, (None, 0)))(KEY, params)
    for _ in range(50):
        raw_state = raw_step(raw_state, jnp.ones(1))
        state, timestep = step(KEY, state, jnp.ones(1), params)
        np.testing.assert_allclose(timestep.observation[0], raw_state.obs, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(timestep.reward[0], raw_state.reward, rtol=1e-3)
        assert timestep.terminated[0] == raw_state.done and not timestep.truncated[0]
        if timestep.terminated[0]:
            break
    assert timestep.terminated[0] and abs(timestep.observation[0, 1]) > 0.2
    earth, moon = timestep.observation[:, 1]
    assert not np.isclose(earth, moon, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in jaxrl.envs.names() if name.startswith("brax/")])
def test_every_environment_traces_and_keeps_its_types(name):
    env = jaxrl.envs.make(name)
    state, observation = jax.eval_shape(env.reset, KEY, env.params)
    action = jnp.zeros(env.action_space.shape)
    after, timestep = jax.eval_shape(env.step, KEY, state, action, env.params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert timestep.observation.shape == observation.shape == env.observation_space.shape
