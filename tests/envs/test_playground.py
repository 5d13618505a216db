"""The Playground adapter, on an environment that has the shape of theirs: State, `_mjx_model`, dictionaries, keys."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxrl import spaces
from jaxrl.envs.playground import PlaygroundParams, from_playground

KEY = jax.random.key(0)


@struct.dataclass
class State:
    data: Any
    obs: Any
    reward: jax.Array
    done: jax.Array
    metrics: dict
    info: dict


@struct.dataclass
class Model:
    gravity: jax.Array


@struct.dataclass
class Data:
    height: jax.Array
    speed: jax.Array


class Ball:
    """A ball under gravity with a thruster; done on the ground, or where its state is no number."""

    action_size = 1

    def __init__(self, clock=None):
        self._mjx_model = Model(gravity=jnp.float32(1.0))
        self.clock = clock  # if given, `done` and `info["truncation"]` at that time, as wrappers for training have it

    @property
    def unwrapped(self):
        return self

    @property
    def mjx_model(self):
        return self._mjx_model

    def observe(self, data):
        return {"state": jnp.stack([data.height, data.speed]), "privileged_state": data.height[None]}

    def reset(self, rng):
        rng, height_rng = jax.random.split(rng)
        data = Data(height=2.0 + jax.random.uniform(height_rng), speed=jnp.zeros(()))
        info = {"rng": rng, "steps": 0}
        if self.clock is not None:
            info["truncation"] = jnp.zeros(())
        return State(data, self.observe(data), jnp.zeros(()), jnp.zeros(()), {"height": data.height}, info)

    def step(self, state, action):
        speed = state.data.speed + action[0] - self.mjx_model.gravity
        data = Data(state.data.height + 0.1 * speed, speed)
        state.info["rng"], _ = jax.random.split(state.info["rng"])
        state.info["steps"] += 1
        down = (data.height < 0.0) | jnp.isnan(data.height)
        done = down.astype(float)
        if self.clock is not None:
            late = state.info["steps"] >= self.clock
            state.info["truncation"] = jnp.where(late, 1.0 - done, 0.0)
            done = jnp.where(late, 1.0, done)
        return state.replace(data=data, obs=self.observe(data), reward=data.height, done=done)


def steps(env, actions):
    state, _ = env.reset(KEY, env.params)
    timesteps = []
    for action in actions:
        state, timestep = jax.jit(env.step)(KEY, state, jnp.array([action], jnp.float32), env.params)
        timesteps.append(timestep)
    return timesteps


def ends(timesteps):
    return [(bool(t.terminated), bool(t.truncated)) for t in timesteps]


def test_spaces_and_true_successors():
    env, raw = from_playground(Ball()), Ball()
    box = spaces.Box(-np.inf, np.inf, (2,))
    assert env.observation_space == spaces.Dict({"state": box, "privileged_state": spaces.Box(-np.inf, np.inf, (1,))})
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,))
    timesteps, state = steps(env, [0.0] * 8), raw.reset(KEY)
    for timestep in timesteps:
        state = raw.step(state, jnp.zeros(1))
        np.testing.assert_allclose(timestep.observation["state"], state.obs["state"], rtol=1e-5)
        assert timestep.terminated == state.done
    assert timesteps[-1].terminated and timesteps[-1].observation["state"][0] < 0.0


def test_clocks():
    assert ends(steps(from_playground(Ball(), episode_length=2), [1.0] * 2)) == [(False, False), (False, True)]
    assert ends(steps(from_playground(Ball(clock=2)), [1.0] * 2)) == [(False, False), (False, True)]
    falling = ends(steps(from_playground(Ball()), [0.0] * 10))
    length = falling.index((True, False)) + 1
    for env in (from_playground(Ball(), episode_length=length), from_playground(Ball(clock=length))):
        assert ends(steps(env, [0.0] * length)) == [(False, False)] * (length - 1) + [(True, False)]


def test_divergence():
    first, last = steps(from_playground(Ball()), [0.3, np.nan])
    assert last.truncated and not last.terminated and last.reward == 0.0 and last.extras["diverged"] == 1.0
    np.testing.assert_array_equal(last.observation["state"], first.observation["state"])


def test_the_model_is_a_parameter():
    raw = Ball()
    env, model = from_playground(raw), raw._mjx_model
    params = PlaygroundParams(Model(gravity=jnp.array([0.0, 1.0, 3.0])))
    state, _ = env.reset(KEY, env.params)
    _, timestep = jax.vmap(env.step, (None, None, None, 0))(KEY, state, jnp.zeros(1), params)
    np.testing.assert_allclose(timestep.observation["state"][:, 1], [0.0, -1.0, -3.0])
    assert raw._mjx_model is model


def test_types_are_stable_and_keys_stay_keys():
    env = from_playground(Ball())
    step = jax.jit(env.step)
    state, _ = env.reset(KEY, env.params)
    for _ in range(3):
        state, _ = step(KEY, state, jnp.zeros(1), env.params)
    assert step._cache_size() == 1
    assert jnp.issubdtype(state.state.info["rng"].dtype, jax.dtypes.prng_key)


def test_environments_without_a_model():
    class Plain(Ball):
        def __init__(self):
            super().__init__()
            self.model, self._mjx_model = self._mjx_model, None

        @property
        def mjx_model(self):
            return self.model

    env = from_playground(Plain())
    assert env.params == () and not steps(env, [1.0])[0].terminated


def test_environments_that_reset_themselves():
    class Auto(Ball):
        def reset(self, rng):
            state = super().reset(rng)
            return state.replace(info={**state.info, "first_state": state.data})

    with pytest.raises(ValueError, match="Auto resets itself"):
        from_playground(Auto())
    with pytest.raises(ValueError, match="episode_length is 0"):
        from_playground(Ball(), episode_length=0)
