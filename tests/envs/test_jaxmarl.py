"""The JaxMARL adapter: on a small environment of its shape, and, where JaxMARL is installed, on its own."""

import importlib.util
import types

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import spaces
from jaxrl.envs import particles
from jaxrl.envs.check import check_env
from jaxrl.envs.jaxmarl import from_jaxmarl, make_jaxmarl

KEY = jax.random.key(0)
INSTALLED = importlib.util.find_spec("jaxmarl") is not None
needs_jaxmarl = pytest.mark.skipif(not INSTALLED, reason="JaxMARL is not installed")


# A stand-in: two agents count down; who reaches 0 is out, and all are when both did or the clock says so -------------


@flax.struct.dataclass
class State:
    left: jax.Array  # [2]
    step: jax.Array
    done: jax.Array


class Discrete:
    dtype = jnp.int32

    def __init__(self, n):
        self.n = n


class Box:
    low, high, dtype = 0.0, np.float32(9.0), jnp.float32

    def __init__(self, shape):
        self.shape = shape


class Countdown:
    """Actions 0 and 1 subtract themselves, 2 is for the agent with more left. Named so that order matters."""

    agents = ["b", "a"]
    max_steps = 3
    alike = True

    def reset(self, key):
        state = State(jax.random.permutation(key, jnp.array([1, 2])), jnp.int32(0), jnp.bool_(False))
        return self.get_obs(state), state

    def get_obs(self, state):
        sizes = (1, 1 if self.alike else 2)
        rows = [jnp.full(n, x, jnp.float32) for n, x in zip(sizes, state.left)]
        return {"a": rows[1], "world_state": state.left, "b": rows[0]}

    def step_env(self, key, state, actions):
        left = jnp.maximum(state.left - jnp.stack([actions["b"], actions["a"]]), 0)
        step = state.step + 1
        over = jnp.all(left == 0) | (step >= self.max_steps)
        state = State(left, step, over)
        reward = {"a": left[1] * 10, "b": left[0] * 10 + 1, "__all__": 5}
        done = {"b": left[0] == 0, "__all__": over, "a": left[1] == 0}
        return self.get_obs(state), state, reward, done, {}

    def step(self, *_):
        raise AssertionError("resets by itself")

    def get_avail_actions(self, state):
        mask = lambda i: jnp.array([1, 1, 0], jnp.uint8).at[2].set(state.left[i] == state.left.max())  # noqa: E731
        return {"a": mask(1), "b": mask(0)}

    def observation_space(self, agent):
        return Box((1,) if self.alike or agent == "b" else (2,))

    def action_space(self, agent):
        return Discrete(3)


class Unmasked(Countdown):
    alike = False

    def get_avail_actions(self, state):
        raise NotImplementedError


def play(env, actions, left, step=0):
    """Steps from a state; each TimeStep."""
    state, _ = env.reset(KEY, ())
    state = state.replace(left=jnp.array(left), step=jnp.int32(step))
    found = []
    for action in actions:
        action = jnp.array(action) if isinstance(env.action_space, spaces.Repeated) else tuple(map(jnp.int32, action))
        state, ts = jax.jit(env.step)(KEY, state, action, ())
        found.append(jax.device_get(ts))
    return found


def test_agents_that_are_alike():
    env = from_jaxmarl(Countdown())
    own = spaces.Dict({"observation": spaces.Box(0.0, 9.0, (1,)), "action_mask": spaces.Box(0, 1, (3,), "bool")})
    assert env.observation_space == spaces.Repeated(own, 2) and env.action_space == spaces.Repeated(
        spaces.Discrete(3), 2
    )
    first, second = play(env, [[0, 1], [0, 2]], [2, 2])
    np.testing.assert_array_equal(first.observation["observation"], [[2], [1]])  # b comes first
    np.testing.assert_array_equal(first.observation["action_mask"], [[1, 1, 1], [1, 1, 0]])
    assert first.reward.tolist() == [21.0, 10.0] and first.reward.dtype == np.float32
    assert not first.terminated.any() and not first.truncated.any()
    assert second.terminated.tolist() == [False, True] and not second.truncated.any()  # a is out, b plays on
    check_env(env, num_steps=12)


def test_agents_that_are_not():
    env = from_jaxmarl(Unmasked(), privileged=True)
    whole = spaces.Box(-np.inf, np.inf, (2,))
    own = [spaces.Dict({"observation": spaces.Box(0.0, 9.0, (n,)), "privileged": whole}) for n in (1, 2)]
    assert env.observation_space == spaces.Tuple(tuple(own))
    assert env.action_space == spaces.Tuple((spaces.Discrete(3),) * 2)
    (ts,) = play(env, [[1, 0]], [2, 2])
    assert [o["observation"].tolist() for o in ts.observation] == [[1.0], [2.0, 2.0]]
    assert [o["privileged"].tolist() for o in ts.observation] == [[1.0, 2.0]] * 2
    assert ts.observation[0]["privileged"].dtype == np.float32


def test_the_two_ends():
    env = from_jaxmarl(Countdown())
    for left, step, action, terminated, truncated in (
        ([2, 2], 2, [0, 0], [False, False], [True, True]),  # the clock alone
        ([0, 2], 2, [0, 0], [True, False], [False, True]),  # one was out
        ([1, 1], 2, [1, 1], [True, True], [False, False]),  # both reach 0 in the last step
        ([1, 1], 1, [1, 1], [True, True], [False, False]),
        ([2, 1], 1, [0, 1], [False, True], [False, False]),
    ):
        (ts,) = play(env, [action], left, step)
        assert (ts.terminated.tolist(), ts.truncated.tolist()) == (terminated, truncated)


def test_a_space_that_is_not_what_is_returned_gives_way():
    env = Countdown()
    env.observation_space = lambda agent: Box((7,))
    space = from_jaxmarl(env).observation_space.space["observation"]
    assert space == spaces.Box(-np.inf, np.inf, (1,))


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(agents=["a"]), "has 1 agent, must have two or more"),
        (dict(action_space=lambda agent: types.SimpleNamespace()), "cannot convert the space"),
    ],
)
def test_what_cannot_be_wrapped(changes, message):
    env = Countdown()
    vars(env).update(changes)
    with pytest.raises(ValueError, match=message):
        from_jaxmarl(env)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="object has no 'agents'"):
        from_jaxmarl(object())
    env = Countdown()
    env.get_obs = lambda state: {"a": state.left[1:] * 1.0, "b": state.left[:1] * 1.0}
    with pytest.raises(ValueError, match="privileged is True, but Countdown has no 'world_state'"):
        from_jaxmarl(env, privileged=True)


@pytest.mark.skipif(INSTALLED, reason="JaxMARL is installed")
def test_without_jaxmarl_there_is_one_clear_line():
    with pytest.raises(ImportError, match=r"make: 'jaxmarl/hanabi' needs JaxMARL: pip install jaxmarl six \(No module"):
        make_jaxmarl("hanabi")


# JaxMARL's own -------------------------------------------------------------------------------------------------------


@needs_jaxmarl
def test_unknown_names():
    with pytest.raises(ValueError, match="JaxMARL has no 'chess'; it has .*MPE_simple_spread_v3"):
        make_jaxmarl("chess")


@needs_jaxmarl
@pytest.mark.parametrize(
    "name, ours",
    [
        ("MPE_simple_spread_v3", particles.spread()),
        ("MPE_simple_reference_v3", particles.reference()),
        ("MPE_simple_speaker_listener_v4", particles.speaker_listener()),
        ("MPE_simple_tag_v3", particles.tag()),
    ],
)
def test_our_particles_are_theirs(name, ours):
    """Steps from equal states, half of them crowded, by equal actions; spaces; the end, a step after ours."""
    theirs = make_jaxmarl(name)
    assert theirs.action_space == ours.action_space and theirs.observation_space == ours.observation_space

    def step(key):
        reset_key, speed_key, action_key, step_key = jax.random.split(key, 4)
        state, _ = ours.reset(reset_key, ours.params)
        speed = jax.random.uniform(speed_key, state.velocity.shape, minval=-1.0)
        state = state._replace(position=state.position * 0.4, velocity=speed)
        action = ours.action_space.sample(action_key)
        after = theirs.step(step_key, as_theirs(theirs, state), action, ())[1]
        return ours.step(step_key, state, action, ours.params)[1], after

    mine, after = jax.device_get(jax.jit(jax.vmap(step))(jax.random.split(KEY, 200)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), mine.observation, after.observation)
    np.testing.assert_allclose(mine.reward, after.reward, atol=1e-5)
    assert np.std(after.reward) > 0.1
    state = theirs.reset(KEY, ())[0]
    action = jax.tree.map(lambda x: x[0], ours.action_space.sample(KEY, (1,)))
    for step, late in ((24, False), (25, True)):
        ts = theirs.step(KEY, state.replace(step=jnp.int32(step)), action, ())[1]
        assert ts.truncated.all() == late and not ts.terminated.any()


def as_theirs(theirs, state):
    """Our state as JaxMARL's."""
    if state.position.ndim == 1:  # the listener, after a speaker that has no place here
        places = jnp.concatenate([jnp.zeros((1, 2)), state.position[None], state.landmarks])
        speeds = jnp.concatenate([jnp.zeros((1, 2)), state.velocity[None], jnp.zeros((3, 2))])
        return theirs.reset(KEY, ())[0].replace(p_pos=places, p_vel=speeds, goal=state.goal)
    marks = state.obstacles if hasattr(state, "obstacles") else state.landmarks
    speeds = jnp.concatenate([state.velocity, jnp.zeros_like(marks)])
    goal = {"goal": state.goal} if hasattr(state, "goal") else {}
    return theirs.reset(KEY, ())[0].replace(p_pos=jnp.concatenate([state.position, marks]), p_vel=speeds, **goal)


@needs_jaxmarl
@pytest.mark.parametrize("name", ["switch_riddle", pytest.param("HeuristicEnemySMAX", marks=pytest.mark.slow)])
def test_theirs_are_proper_environments(name):
    check_env(make_jaxmarl(name, privileged="SMAX" in name), num_steps=40)
