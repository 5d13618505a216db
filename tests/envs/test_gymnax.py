"""The gymnax adapter: true successors, the two ends, traced parameters, stable types, older environments."""

import functools
import subprocess
import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl.envs
from jaxrl import spaces
from jaxrl.envs.gymnax import from_gymnax
from jaxrl.envs.registry import TABLE

ALL = sorted(name for name, (_, function, _) in TABLE.items() if function == "make_gymnax" and "MNIST" not in name)
QUICK = ("CartPole-v1", "Pendulum-v1", "Catch-bsuite", "FrozenLake-misc", "GaussianBandit-misc")
LIMIT = 20  # steps, so that every environment's clock is seen


def play(env, key, num_steps):
    """Random actions with resets [T]; the carried state must keep its types, or the scan does not trace."""

    def body(carry, key):
        state, observation = carry
        action_key, step_key, reset_key = jax.random.split(key, 3)
        state, timestep = env.step(step_key, state, env.action_space.sample(action_key), env.params)
        last = timestep.terminated | timestep.truncated
        fresh = env.reset(reset_key, env.params)
        carry = jax.tree.map(lambda new, old: jnp.where(last, new, old), fresh, (state, timestep.observation))
        return carry, timestep

    reset_key, key = jax.random.split(key)
    return jax.lax.scan(body, env.reset(reset_key, env.params), jax.random.split(key, num_steps))[1]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ALL])
def test_every_environment_plays_through_its_ends(name):
    env = jaxrl.envs.make(name, max_steps_in_episode=LIMIT)
    timesteps = jax.jit(functools.partial(play, env, num_steps=4 * LIMIT))(jax.random.key(0))
    assert timesteps.reward.dtype == jnp.float32 and timesteps.reward.shape == (4 * LIMIT,)
    assert timesteps.terminated.dtype == timesteps.truncated.dtype == jnp.bool_
    assert not jnp.any(timesteps.terminated & timesteps.truncated)
    last = np.flatnonzero(timesteps.terminated | timesteps.truncated)
    assert len(last) >= 4 and np.diff(last, prepend=-1).max() <= LIMIT
    assert timesteps.observation.dtype == env.observation_space.dtype
    assert timesteps.observation.shape[1:] == env.observation_space.shape
    if isinstance(env.observation_space, spaces.Box):
        low, high = env.observation_space.bounds()
        rounding = 1e-6  # UmbrellaChain's need sinks to -1.5e-8
        assert jnp.all((timesteps.observation >= low - rounding) & (timesteps.observation <= high + rounding))


@pytest.mark.parametrize("limit", [500, 6])  # the pole falls; the clock runs out
def test_successor_is_what_gymnax_saw_before_its_reset(limit):
    import gymnax

    raw, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=limit)
    env = jaxrl.envs.make("CartPole-v1", max_steps_in_episode=limit)
    key = jax.random.key(3)
    observation, raw_state = raw.reset(key, params)
    state, ours = env.reset(key, env.params)
    np.testing.assert_array_equal(ours, observation)
    for _ in range(40):
        key, step_key = jax.random.split(key)
        observation, raw_state, reward, terminated, truncated, info = raw.step(step_key, raw_state, 1, params)
        state, timestep = jax.jit(env.step)(jax.random.split(step_key)[0], state, 1, env.params)
        np.testing.assert_allclose(timestep.observation, info["final_observation"], rtol=1e-5, atol=1e-6)
        assert (timestep.reward, timestep.terminated) == (reward, terminated)
        if terminated or truncated:
            break
    assert timestep.terminated == (limit == 500) and timestep.truncated == (limit == 6)
    assert not np.allclose(timestep.observation, observation)  # gymnax returned the reset observation here


def test_termination_at_the_last_allowed_step_is_termination():
    fall = jaxrl.envs.make("CartPole-v1")
    length = 1
    state, _ = fall.reset(jax.random.key(3), fall.params)
    while not (step := jax.jit(fall.step)(jax.random.key(0), state, 1, fall.params))[1].terminated:
        state, length = step[0], length + 1
    env = jaxrl.envs.make("CartPole-v1", max_steps_in_episode=length)
    _, timestep = env.step(jax.random.key(0), state, 1, env.params)
    assert timestep.terminated and not timestep.truncated


def test_mapped_parameters_are_domain_randomisation():
    env = jaxrl.envs.make("Pendulum-v1")
    gravity = jnp.array([2.0, 10.0, 20.0])
    params = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), env.params).replace(g=gravity)
    key = jax.random.key(0)
    state, _ = env.reset(key, env.params)
    _, timestep = jax.vmap(env.step, (None, None, None, 0))(key, state, jnp.zeros(1), params)
    for g, observation in zip(gravity, timestep.observation):
        other = jaxrl.envs.make("Pendulum-v1", g=g)
        np.testing.assert_allclose(other.step(key, state, jnp.zeros(1), other.params)[1].observation, observation)
    assert len(np.unique(timestep.observation[:, 2])) == 3


def test_one_program_serves_fresh_and_stepped_states():
    env = jaxrl.envs.make("MountainCar-v0")
    step = jax.jit(env.step)
    state, _ = env.reset(jax.random.key(0), env.params)
    for _ in range(3):
        state, _ = step(jax.random.key(0), state, jnp.int32(1), env.params)
    assert step._cache_size() == 1
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, env.params)))


def test_infinite_bounds():
    space = jaxrl.envs.make("CartPole-v1").observation_space
    np.testing.assert_array_equal(np.isfinite(space.bounds()[1]), [True, False, True, False])
    assert jaxrl.envs.make("PointRobot-misc").observation_space == spaces.Box(-np.inf, np.inf, (6,))


# Older environments --------------------------------------------------------------------------------------------------


@flax.struct.dataclass
class WalkParams:
    max_steps_in_episode: int = 5
    goal: int = 3


@flax.struct.dataclass
class WalkState:
    position: int
    time: int


class Walk:
    """Walks right or left until the goal; like gymnax 0.0.x, with one `done`."""

    default_params = WalkParams()

    def __init__(self, dictionary=False):
        self.dictionary = dictionary

    def observation(self, state):
        return {"position": state.position, "two": (state.time,)} if self.dictionary else jnp.array([state.position])

    def reset_env(self, key, params):
        state = WalkState(position=0, time=0)
        return self.observation(state), state

    def step_env(self, key, state, action, params):
        state = WalkState(state.position + 2 * action - 1, state.time + 1)
        return self.observation(state), state, state.position, self.done(state, params), {"discount": 1.0}

    def done(self, state, params):
        return jnp.logical_or(state.position >= params.goal, state.time >= params.max_steps_in_episode)

    def is_terminal(self, state, params):
        return self.done(state, params)

    def observation_space(self, params):
        if self.dictionary:
            return Dict({"position": Box(-9, 9, ()), "two": Tuple((Discrete(9),))})
        return Box(-3.4e38, 3.4e38, (1,))

    def action_space(self, params):
        return Discrete(2)


class Space:
    """The attributes of gymnax's spaces, which older libraries bring in copies of their own."""

    def __init__(self, *args):
        self.__dict__.update(zip(self.fields, args))

    dtype = jnp.float32


class Discrete(Space):
    fields, dtype = ("n",), jnp.int32


class Box(Space):
    fields = ("low", "high", "shape")


class Dict(Space):
    fields = ("spaces",)


class Tuple(Space):
    fields = ("spaces",)


class UnknownEnds(Walk):
    """Has no method that could be asked why it is done."""

    def is_terminal(self, state, params):
        raise NotImplementedError


@flax.struct.dataclass
class CraftState:
    position: int
    timestep: int


@flax.struct.dataclass
class CraftParams:
    max_timesteps: int = 4


class Craft(Walk):
    """The names that Craftax uses."""

    default_params = CraftParams()

    def reset_env(self, key, params):
        return jnp.zeros(1), CraftState(0, 0)

    def step_env(self, key, state, action, params):
        state = CraftState(state.position + action, state.timestep + 1)
        return jnp.array([state.position]), state, 1, self.done(state, params), {}

    def done(self, state, params):
        return (state.position >= 3) | (state.timestep >= params.max_timesteps)


class Clockless(Craft):
    default_params = WalkParams()  # its `timestep` and these names belong to different clocks

    def done(self, state, params):
        return state.position >= 2


class SixTuple(Walk):
    def step_env(self, key, state, action, params):
        observation, state, reward, _, info = super().step_env(key, state, action, params)
        return observation, state, reward, state.position >= params.goal, state.time >= 2, info


RIGHT, LEFT = 1, 0
WALK, END, CLOCK = (False, False), (True, False), (False, True)


@pytest.mark.parametrize(
    ("kind", "num_right", "num_left", "expected"),
    [
        (Walk, 2, 0, WALK),
        (Walk, 3, 0, END),
        (Walk, 0, 5, CLOCK),
        (UnknownEnds, 3, 0, END),
        (UnknownEnds, 0, 5, CLOCK),
        (Craft, 3, 0, END),
        (Craft, 2, 2, CLOCK),
        (Clockless, 2, 0, END),
        (SixTuple, 2, 0, CLOCK),
    ],
)
def test_one_done_is_split(kind, num_right, num_left, expected):
    env, ends = from_gymnax(kind()), []
    state, _ = env.reset(jax.random.key(0), env.params)
    for action in [LEFT] * num_left + [RIGHT] * num_right:
        state, timestep = env.step(jax.random.key(0), state, jnp.int32(action), env.params)
        ends.append((bool(timestep.terminated), bool(timestep.truncated)))
    assert ends == [WALK] * (len(ends) - 1) + [expected]


def test_goal_at_the_last_step_of_an_older_environment_is_termination():
    env = from_gymnax(Walk(), WalkParams(max_steps_in_episode=3))
    state, _ = env.reset(jax.random.key(0), env.params)
    for _ in range(3):
        state, timestep = env.step(jax.random.key(0), state, RIGHT, env.params)
    assert timestep.terminated and not timestep.truncated
    np.testing.assert_array_equal(timestep.observation, [3.0])


def test_structured_observations_and_dtypes():
    env = from_gymnax(Walk(dictionary=True))
    assert env.observation_space == spaces.Dict(
        {"position": spaces.Box(-9.0, 9.0), "two": spaces.Tuple((spaces.Discrete(9),))}
    )
    state, _ = env.reset(jax.random.key(0), env.params)
    _, timestep = env.step(jax.random.key(0), state, 1, env.params)
    assert timestep.observation["position"].dtype == jnp.float32 and timestep.observation["two"][0].dtype == jnp.int32
    assert timestep.reward.dtype == jnp.float32 and timestep.reward == 1.0


def test_what_is_no_environment_is_named():
    with pytest.raises(ValueError, match="object has no method 'reset_env'"):
        from_gymnax(object(), params=())

    class Odd(Walk):
        def action_space(self, params):
            return object()

    with pytest.raises(ValueError, match="cannot convert the space"):
        from_gymnax(Odd())


def test_libraries_of_pictures_wait_until_they_are_used():
    code = (
        "import sys, jaxrl.envs; jaxrl.envs.make('CartPole-v1'); from gymnax.environments.misc import pong; "
        "assert not {'seaborn', 'matplotlib.pyplot'} & sys.modules.keys(); "
        "pong.plt.figure, pong.sns.color_palette; assert {'seaborn', 'matplotlib.pyplot'} <= sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
