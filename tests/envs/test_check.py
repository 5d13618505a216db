"""`check_env` names what is wrong with each malformed environment, and accepts what is well-formed."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import spaces
from jaxrl.envs import diagnostic, memory
from jaxrl.envs.check import check_env, problems
from jaxrl.types import Env, TimeStep

spec = importlib.util.spec_from_file_location("malformed", pathlib.Path(__file__).parent / "malformed.py")
malformed = importlib.util.module_from_spec(spec)
spec.loader.exec_module(malformed)


@pytest.mark.parametrize("name", malformed.CASES)
def test_malformed(name):
    make, phrase = malformed.CASES[name]
    found = problems(make(), num_steps=40)
    assert any(phrase in line for line in found), found
    assert all("\n" not in line and len(line) < 400 for line in found), found


def test_all_problems_are_named_at_once_a_line_each():
    env = malformed.timestep(reward=lambda ts: ts.reward[None], terminated=None, extras={"value": jnp.ones(())})
    with pytest.raises(ValueError) as error:
        check_env(env)
    title, *lines = str(error.value).splitlines()
    assert title == "check_env: 3 problems" and [line[:2] for line in lines] == ["- "] * 3
    assert "reward has shape (1,)" in lines[0] and "terminated is None" in lines[1] and "'value'" in lines[2]


def test_one_problem_in_the_singular():
    with pytest.raises(ValueError, match=r"^check_env: 1 problem\n- env is None, must be a jaxrl.types.Env"):
        check_env(None)


def test_the_line_that_raises_is_named():
    (line,) = problems(malformed.python_branch())
    source = (pathlib.Path(__file__).parent / "malformed.py").read_text().splitlines()
    number = int(line.rpartition(":")[2])
    assert source[number - 1].strip() == "if state.position > 0:"


# Well-formed environments that look odd ------------------------------------------------------------------------------


def small(reset, step, space=spaces.Box(-1.0, 1.0), actions=spaces.Discrete(3)):
    """`reset(key) -> state, observation`; `step(key, state, action) -> state, observation, terminated, truncated`."""

    def full_step(key, state, action, params):
        state, observation, terminated, truncated = step(key, state, action)
        return state, TimeStep(observation, jnp.float32(0.0), jnp.asarray(terminated), jnp.asarray(truncated))

    return Env(lambda key, params: reset(key), full_step, (), space, actions)


def home():
    """A walk on a ring that ends, terminated, when it is back where it began; no clock."""

    def step(key, x, action):
        x = (x + jnp.where(action == 0, -1, 1)) % 5
        return x, x / 5.0, x == 0, False

    return small(lambda key: (jnp.int32(0), jnp.float32(0.0)), step)


def lap():
    """A ring that is always walked in the same direction."""

    def step(key, x, action):
        x = (x + 1) % 5
        return x, x / 5.0, x == 0, False

    return small(lambda key: (jnp.int32(0), jnp.float32(0.0)), step)


def phase():
    """A clock that starts again at 0 where it truncates; the rest goes on."""

    def step(key, state, action):
        x, time = state
        x, time = x * 0.9, (time + 1) % 5
        return (x, time), x, False, time == 0

    def reset(key):
        x = jax.random.uniform(key)
        return (x, jnp.int32(0)), x

    return small(reset, step)


def out_and_back():
    """To one of three places and back, as often as the clock allows, which is once."""

    def step(key, state, action):
        place, time = state
        place, time = jnp.where(place == 0, action + 1, 0), time + 1
        return (place, time), place / 3.0, False, time == 2

    return small(lambda key: ((jnp.int32(0), jnp.int32(0)), jnp.float32(0.0)), step)


def contexts():
    """A new context at every step, the last one included."""

    def step(key, state, action):
        end_key, key = jax.random.split(key)
        context = jax.random.uniform(key)
        return context, context, jax.random.bernoulli(end_key, 0.3), False

    def reset(key):
        context = jax.random.uniform(key)
        return context, context

    return small(reset, step)


def stateless():
    def step(key, state, action):
        return (), jnp.float32(0.5), False, jax.random.bernoulli(key, 0.3)

    return small(lambda key: ((), jnp.float32(0.5)), step)


def key_in_state():
    """Draws from a key of its own, split at every step."""

    def step(key, state, action):
        own, time = state
        own, use = jax.random.split(own)
        return (own, time + 1), jax.random.uniform(use), time == 6, False

    return small(lambda key: ((key, jnp.int32(0)), jnp.float32(0.0)), step)


def absorbing():
    """All paths end in the same state."""

    def step(key, state, action):
        x, done = state
        done = jax.random.bernoulli(key, 0.2)
        x = jnp.where(done, 1.0, 0.9 * x)
        return (x, done), x, done, False

    def reset(key):
        x = jax.random.uniform(key)
        return (x, jnp.bool_(False)), x

    return small(reset, step)


def two_agents():
    """Unlike agents: observations and actions are tuples, of which one is a dict; rewards and ends are [2]."""

    def observe(time):
        return {"x": jnp.full(3, time / 9), "n": time}, jnp.stack([time, time]) % 4

    def reset(key, params):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(key, time, action, params):
        time = time + 1
        ends = jnp.stack([time >= 9, time >= 4])
        return time, TimeStep(observe(time), jnp.ones(2), ends, jnp.zeros(2, bool), {"weight": jnp.ones(2)})

    first = spaces.Dict({"x": spaces.Box(0.0, 1.0, (3,)), "n": spaces.Discrete(10)})
    space = spaces.Tuple((first, spaces.MultiDiscrete((4, 4))))
    return Env(reset, step, {"unused": 1.0}, space, spaces.Tuple((spaces.Discrete(2), spaces.Box(-1.0, 1.0, (2,)))))


def three_agents(extras=None, actions=None, reward=jnp.ones(3), legal=True):
    """Agents that are alike: the first may only act 0, and each is out at a time of its own."""

    def observe(time):
        mask = jnp.array([[True, False], [True, True], [True, True]])
        return {"observation": jnp.full((3, 2), time / 9), "action_mask": mask}

    def reset(key, params):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(key, time, action, params):
        time = time + 1
        paid = jnp.where(legal & (jnp.atleast_1d(action)[0] == 1), jnp.nan, reward)
        ends = jnp.broadcast_to(time >= jnp.array([4, 6, 8]), (3,))
        ends = ends if jnp.ndim(reward) else jnp.all(ends)
        return time, TimeStep(observe(time), paid, ends, jnp.zeros_like(ends), {"cost": jnp.ones(3)} | (extras or {}))

    space = spaces.Dict({"observation": spaces.Box(0.0, 1.0, (2,)), "action_mask": spaces.Box(0, 1, (2,), "bool")})
    actions = spaces.Repeated(spaces.Discrete(2), 3) if actions is None else actions
    return Env(reset, step, {"unused": 1.0}, spaces.Repeated(space, 3), actions)


def masked_walk():
    """An illegal action gives NaN, so the run must take legal ones only."""

    def observe(x):
        return {"observation": x[None], "action_mask": jnp.stack([x > -0.5, x < 0.5])}

    def step(key, x, action):
        legal = observe(x)["action_mask"][action]
        x = jnp.where(legal, x + jnp.where(action == 0, -0.3, 0.3), jnp.nan)
        return x, observe(x), False, jax.random.bernoulli(key, 0.1)

    space = spaces.Dict({"observation": spaces.Box(-1.0, 1.0, (1,)), "action_mask": spaces.Box(0, 1, (2,), "bool")})
    return small(lambda key: (jnp.float32(0.0), observe(jnp.float32(0.0))), step, space, spaces.Discrete(2))


def long_clock():
    """An int8 clock that ends episodes before it wraps, a float32 one that saturates, and the last entry of a table."""

    def step(key, state, action):
        clock, time = state
        clock, time = clock + jnp.int8(1), jnp.minimum(time + 1.0, 1e4)
        return (clock, time), jnp.linspace(-1.0, 1.0, 101)[clock], False, clock >= 100

    return small(lambda key: ((jnp.int8(0), jnp.float32(0.0)), jnp.float32(-1.0)), step)


def no_entry_for_the_end():
    """A table that has an entry for each step, and none for the last observation, which is the one before."""

    def step(key, time, action):
        return time + 1, jnp.linspace(-1.0, 1.0, 6)[time + 1], False, time + 1 >= 6

    return small(lambda key: (jnp.int32(0), jnp.float32(-1.0)), step)


def saturating():
    """Counters that stay at their last values; nothing ever ends."""

    def step(key, state, action):
        narrow, wide = state
        narrow = jnp.where(narrow < 127, narrow + jnp.int8(1), narrow)
        return (narrow, wide + 1), jnp.float32(0.0), False, False

    return small(lambda key: ((jnp.int8(0), jnp.int32(0)), jnp.float32(0.0)), step)


ODD = (
    long_clock,
    saturating,
    no_entry_for_the_end,
    home,
    lap,
    phase,
    out_and_back,
    contexts,
    stateless,
    key_in_state,
    absorbing,
    two_agents,
    three_agents,
    masked_walk,
)


def test_a_row_an_agent():
    [line] = problems(three_agents({"state": jnp.zeros(2)}))
    assert line == "step: extras['state'] has shape (2,), must be [3, ...]: a row an agent"
    assert problems(three_agents({"num_steps": jnp.float32(1)})) == []
    [line] = problems(three_agents(actions=spaces.MultiDiscrete((2, 2, 2))))
    assert line.startswith("action_space is MultiDiscrete") and "Repeated or a Tuple of 3 spaces" in line
    [line] = problems(three_agents(reward=jnp.float32(1)))
    assert line.startswith("step: reward has shape (), must be [3] as actions are Repeated")
    env = three_agents()
    lines = problems(env._replace(observation_space=spaces.Repeated(env.observation_space.space, 2)))
    assert any("observation_space is Repeated" in line and "of 3 spaces" in line for line in lines)


@pytest.mark.parametrize("make", [malformed.walk, *ODD], ids=lambda f: f.__name__)
def test_odd_but_well_formed(make):
    assert problems(make()) == []


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", diagnostic.probes())
def test_diagnostic_environments(name, continuous):
    assert problems(diagnostic.probes(continuous)[name].env) == []


@pytest.mark.parametrize(
    "make",
    [diagnostic.masked_action_reward, diagnostic.multi_discrete_action_reward, memory.memory_chain, memory.t_maze],
    ids=lambda f: f.__name__,
)
def test_further_environments(make):
    assert problems(make()) == []


def test_params_may_be_python_numbers_and_numpy_arrays():
    env = malformed.walk()
    check_env(env._replace(params=malformed.Params(2.0)), num_steps=8)
    check_env(env._replace(params=malformed.Params(np.float64(2.0))), num_steps=8)
