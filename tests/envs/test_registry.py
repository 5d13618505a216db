"""`make`, `names` and their messages; simulators stay unimported until one of their environments is made."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import jaxrl.envs
from jaxrl.envs.adapter import replace
from jaxrl.envs.brax import BraxParams
from jaxrl.envs.registry import TABLE
from jaxrl.types import Env


def test_import_loads_no_simulator():
    program = (
        "import sys, jaxrl.envs; jaxrl.envs.names()\n"
        "bad = {'gymnax', 'brax', 'mujoco', 'mujoco_playground', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_simulator_prints_nothing():
    program = "import jaxrl.envs; jaxrl.envs.make('brax/reacher'); jaxrl.envs.make('mjx/reacher')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "" and "maintained" not in done.stderr


def test_names_match_what_the_simulators_have():
    import brax.envs
    import gymnax

    ours = jaxrl.envs.names()
    assert list(ours) == sorted(ours) and len(set(ours)) == len(ours)
    assert set(gymnax.registered_envs) == {name for name in ours if TABLE[name][1] == "make_gymnax"}
    assert {f"brax/{name}" for name in brax.envs._envs} - {"brax/swimmer"} == {
        name for name in ours if name.startswith("brax/")
    }


@pytest.mark.parametrize("name", [name for name in TABLE if name.split("/")[0] in ("diagnostic", "memory_chain")])
def test_makes_our_own(name):
    env = jaxrl.envs.make(name)
    assert isinstance(env, Env)
    state, _ = env.reset(jax.random.key(0), env.params)
    env.step(jax.random.key(1), state, env.action_space.sample(jax.random.key(2)), env.params)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cartpole-v1", "'CartPole-v1'"),
        ("CartPole", "'CartPole-v1'"),
        ("brax/halfcheeta", "'brax/halfcheetah'"),
        ("mjx/cartpole", "'mjx/cartpole_swingup'"),
        ("", "names()"),
        (None, "names()"),
        ("playground/", "names()"),
    ],
)
def test_unknown_name_says_what_is_near(name, expected):
    with pytest.raises(ValueError, match="no environment is called") as error:
        jaxrl.envs.make(name)
    assert expected in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("CartPole-v1", {"gravty": 1.0}, ["'gravty'", "gravity", "max_steps_in_episode"]),
        ("CartPole-v1", {"gravity": "high"}, ["gravity='high'", "float32[]", "9.8"]),
        ("CartPole-v1", {"gravity": [1.0, 2.0]}, ["gravity=[1.0, 2.0]", "float32[]"]),
        ("CartPole-v1", {"max_steps_in_episode": 1.5}, ["max_steps_in_episode=1.5", "int32[]"]),
        ("CartPole-v1", {"max_steps_in_episode": 10**12}, ["max_steps_in_episode=1000000000000", "int32[]"]),
        ("CartPole-v1", {"gravity": [[1.0], [2.0, 3.0]]}, ["gravity=[[1.0], [2.0, 3.0]]", "float32[]"]),
        ("DeepSea-bsuite", {"sise": 5}, ["'sise'", "size", "deterministic"]),
        ("diagnostic/truncation", {"probabilty": 0.1}, ["'probabilty'", "probability", "continuous"]),
        ("brax/fast", {"bakend": "spring"}, ["'bakend'", "backend", "episode_length"]),
        ("brax/fast", {"episode_length": 0}, ["episode_length is 0"]),
        ("mjx/reacher", {"episode_length": 0}, ["episode_length 0"]),
        ("mjx/reacher", {"mas": 2.0}, ["'mas'", "mass", "episode_length"]),
    ],
)
def test_bad_parameters_are_named(name, params, words):
    with pytest.raises(ValueError) as error:
        jaxrl.envs.make(name, **params)
    assert all(word in str(error.value) for word in words), error.value


def test_parameters_are_static_or_traced():
    env = jaxrl.envs.make("DeepSea-bsuite", size=5, unscaled_move_cost=0.5)
    assert env.observation_space.shape == (5, 5)
    assert env.params.unscaled_move_cost == 0.5 and env.params.unscaled_move_cost.dtype == jnp.float32
    env = jaxrl.envs.make("diagnostic/truncation", continuous=True, reward=3)
    assert env.action_space.shape == (1,) and env.params.reward == 3.0 and env.params.reward.dtype == jnp.float32


def test_a_structure_is_not_a_number():
    with pytest.raises(ValueError, match="structure"):
        replace(BraxParams(sys={"a": 1.0}), {"sys": 2.0}, "brax/ant")


def test_playground_absent_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco_playground", None)  # importing it fails, installed or not
    with pytest.raises(ImportError, match="pip install playground"):
        jaxrl.envs.make("playground/CartpoleBalance")


def test_lazy_submodules():
    assert jaxrl.envs.transforms.__name__ == "jaxrl.envs.transforms"
    assert callable(jaxrl.envs.check_env)
    with pytest.raises(AttributeError):
        _ = jaxrl.envs.nonsense
