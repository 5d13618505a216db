"""Adapter for Brax, and the part that Brax and MuJoCo Playground share: environments that step a `State`.

Such an environment has `reset(key) -> State` and `step(State, action) -> State`; a `State` has `obs`, `reward`, `done`,
`info`. It is used without Brax's wrappers: those reset by themselves, always to the same cached first state.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import divergence
from jaxrl.envs.adapter import cast, import_quietly, strong
from jaxrl.types import Array, Env, PyTree, TimeStep


class BraxParams(NamedTuple):
    """What `Env.params` of a Brax environment are: its System, of which every array may be randomised.

    `env.params._replace(sys=env.params.sys.tree_replace({"link.inertia.mass": masses}))` is another robot.
    """

    sys: PyTree


class StatefulState(NamedTuple):
    state: PyTree  # the simulator's own State
    time: Array  # [] int32, steps since the reset


def make_brax(name: str, *, episode_length: int = 1000, **options: Any) -> Env:
    """An environment of Brax's registry: "ant", "reacher", ...

    Args:
      **options: keyword arguments of its class, as `backend="spring"` ("generalized", "positional", "mjx").

    Raises:
      ValueError: an option that the environment does not have.
    """
    import_quietly("mujoco.mjx")
    brax_envs = import_quietly("brax.envs")
    own = inspect.signature(brax_envs._envs[name]).parameters
    allowed = {p for p in own if p != "kwargs"} | {"backend", "debug", "episode_length", "n_frames"}
    for option in options:
        if option not in allowed:
            raise ValueError(f"make: brax/{name} has no parameter {option!r}; allowed: {', '.join(sorted(allowed))}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # every Brax environment says that Brax is no longer maintained
        env = brax_envs.get_environment(name, **options)
    return from_brax(env, episode_length=episode_length)


def from_brax(env: Any, *, episode_length: int = 1000) -> Env:
    """Wraps an unwrapped `brax.envs.Env`.

    `done` terminates; after `episode_length` steps an episode is truncated, unless it terminated. Actions are in
    [-1, 1], as everywhere in Brax. `Env.params` is a `BraxParams`, or () where the environment has no System.

    Raises:
      ValueError: if `env` resets itself, is batched, or `episode_length` < 1.
    """
    sys = getattr(env.unwrapped, "sys", None)
    if sys is None:
        return from_stateful(env, episode_length=episode_length)
    mj_model = sys.mj_model  # compared by identity: inside params, two equal environments would differ in structure

    def edit(unwrapped, params):
        unwrapped.sys = params.sys.replace(mj_model=mj_model)

    params = BraxParams(jax.tree.map(strong, sys.replace(mj_model=None)))
    return from_stateful(env, episode_length=episode_length, params=params, edit=edit)


def from_stateful(env: Any, *, episode_length: int, params: PyTree = (), edit: Any = None) -> Env:
    """An environment object that steps a `State`, as an `Env`.

    Where the physics diverges (positions, velocities, an observation or reward that are not finite), the episode is
    truncated as `jaxrl.envs.divergence` says.

    Args:
      env: has `reset(key)`, `step(state, action)`, `action_size`.
      episode_length: truncates. Where the environment keeps `info["truncation"]`, that counts too.
      edit: (unwrapped environment, params) -> None; writes traced params into a copy of the environment object.
    """
    if episode_length < 1:
        raise ValueError(f"{type(env).__name__}: episode_length is {episode_length}, must be >= 1")
    types = jax.eval_shape(env.reset, jax.random.key(0))
    if any("first_" in key for key in types.info):
        raise ValueError(f"{type(env).__name__} resets itself, which hides the true successor: pass it unwrapped")
    if types.reward.shape:
        raise ValueError(f"{type(env).__name__} is batched {types.reward.shape}: pass it unwrapped, loops use vmap")

    def reset(key, params):
        state = _edited(env, edit, params).reset(key)
        return StatefulState(cast(state, types), jnp.zeros((), jnp.int32)), cast(state.obs, types.obs)

    def step(key, state, action, params):
        del key  # these simulators keep theirs in `info`
        before = jax.tree.map(lambda x: x, state.state)  # they write into dictionaries: into copies of them
        after = cast(_edited(env, edit, params).step(before, action), types)
        finite = divergence.all_finite((after.obs, after.reward, _motion(after)))
        time = state.time + 1
        late = jnp.asarray(after.info.get("truncation", False), bool)
        terminated = jnp.asarray(after.done, bool) & ~late
        truncated = (late | (time >= episode_length)) & ~terminated
        timestep = TimeStep(after.obs, after.reward, terminated, truncated)
        return StatefulState(after, time), divergence.masked(finite, timestep, state.state.obs)

    return Env(reset, step, params, _box(types.obs), spaces.Box(-1.0, 1.0, (env.action_size,)))


def _motion(state: Any) -> list:
    """Positions and velocities, where the simulator's State has them under one of the usual names."""
    physics = getattr(state, "pipeline_state", None), getattr(state, "data", None)
    return [x for p in physics for name in ("q", "qd", "qpos", "qvel") if (x := getattr(p, name, None)) is not None]


def _edited(env: Any, edit: Any, params: PyTree) -> Any:
    """A copy of `env` (and of the wrappers around its core) that simulates with `params`; `env` stays as it is."""
    if edit is None:
        return env
    env = copy.copy(env)
    if "env" in vars(env):
        env.env = _edited(env.env, edit, params)
    else:
        edit(env, params)
    return env


def _box(types: PyTree) -> spaces.Space:
    """The space of observations of these shapes: a `Box`, or a `Dict` of them."""
    if hasattr(types, "shape"):
        return spaces.Box(-np.inf, np.inf, types.shape, types.dtype)
    return spaces.Dict({name: _box(t) for name, t in types.items()})
