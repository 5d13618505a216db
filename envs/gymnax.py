"""Adapter for gymnax 1.x environments, and for older ones of the same shape (gymnax 0.0.x, Craftax).

Only `reset_env` and `step_env` are called: gymnax's own `step` resets, which would hide the true successor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import sys
import types
from typing import Any, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs.adapter import cast, replace, strong
from jaxrl.types import Array, Env, PyTree, TimeStep

_UNBOUNDED = 3e38  # gymnax writes the largest float32 where there is no bound
_TOO_NARROW = ("GaussianBandit-misc", "MemoryChain-bsuite", "MetaMaze-misc")  # they leave their own observation space
_CLOCKS = (("time", "max_steps_in_episode"), ("timestep", "max_timesteps"))  # field of the state, field of the params


def make_gymnax(name: str, **params: Any) -> Env:
    """An environment of gymnax's registry.

    Args:
      name: one of `gymnax.registered_envs`.
      **params: keyword arguments of the environment's class (static), or fields of its parameters (traced).

    Raises:
      ValueError: a parameter that is neither, or a value that does not fit its field.
      OSError: MNISTBandit-bsuite without a network.
    """
    with _postponed("seaborn", "matplotlib.pyplot"):  # which its pictures alone need
        import gymnax

    try:
        env, default = gymnax.make(name)
    except OSError as error:
        raise OSError(f"make: {name} fetches a data set when it is made, and could not: {error}") from None
    static = [p.name for p in inspect.signature(type(env)).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    chosen = {k: v for k, v in params.items() if k in static}
    if chosen:
        env, default = gymnax.make(name, **chosen)
    env = from_gymnax(env, replace(default, {k: v for k, v in params.items() if k not in static}, name, static))
    if name in _TOO_NARROW:
        env = env._replace(observation_space=dataclasses.replace(env.observation_space, low=-np.inf, high=np.inf))
    return env


def from_gymnax(env: Any, params: PyTree = None) -> Env:
    """Wraps an environment object that has `reset_env`, `step_env`, `observation_space` and `action_space`.

    `Env.params` are the environment's own parameters with every number a traced array. The spaces are those of
    the `params` given here; where gymnax derives one parameter from others (CartPole's `total_mass`), set both.

    The two ends: gymnax 1.x tells them apart itself. An older environment has one `done`; there the clock
    (`state.time >= params.max_steps_in_episode`, `timestep` in Craftax) truncates, unless `is_terminal` also says
    that the episode is over with the limit lifted. Without such a clock every `done` terminates. Never both.

    Args:
      params: of the environment; its `default_params` if None.

    Raises:
      ValueError: if `env` lacks one of the methods, or has a space of an unknown kind.
    """
    for method in ("reset_env", "step_env", "observation_space", "action_space"):
        if not hasattr(env, method):
            raise ValueError(f"from_gymnax: {type(env).__name__} has no method {method!r}")
    params = env.default_params if params is None else params
    observation_space = _space(env.observation_space(params))
    action_space = _space(env.action_space(params))
    params = jax.tree.map(strong, params)
    types = jax.eval_shape(env.reset_env, jax.random.key(0), params)[1]

    def reset(key, params):
        observation, state = env.reset_env(key, params)
        return cast(state, types), _observation(observation, observation_space)

    def step(key, state, action, params):
        observation, state, reward, *ends, _ = env.step_env(key, state, action, params)
        if len(ends) == 2:
            terminated, truncated = ends
        elif hasattr(env, "is_truncated"):
            terminated, truncated = ends[0], env.is_truncated(state, params)
        else:
            terminated, truncated = _split(env, state, ends[0], params)
        terminated = jnp.asarray(terminated, bool)
        return cast(state, types), TimeStep(
            observation=_observation(observation, observation_space),
            reward=jnp.asarray(reward, jnp.float32).reshape(()),
            terminated=terminated,
            truncated=jnp.asarray(truncated, bool) & ~terminated,
        )

    return Env(reset, step, params, observation_space, action_space)


def _split(env: Any, state: PyTree, done: Array, params: PyTree) -> tuple[Array, Array]:
    """`terminated, truncated` of an environment that only says `done`."""
    for clock, limit in _CLOCKS:
        if hasattr(state, clock) and hasattr(params, limit):
            late = getattr(state, clock) >= getattr(params, limit)
            break
    else:
        return done, jnp.zeros_like(done)
    endless = params.replace(**{limit: jnp.full_like(getattr(params, limit), jnp.iinfo(jnp.int32).max)})
    try:
        natural = env.is_terminal(state, endless)
    except (AttributeError, NotImplementedError):  # it cannot be asked: an end at the last step is the clock's
        natural = False
    return done & (natural | ~late), done & late


def _observation(observation: PyTree, space: spaces.Space) -> PyTree:
    """The observation in the containers and dtypes of its space."""
    if isinstance(space, spaces.Dict):
        return {name: _observation(observation[name], s) for name, s in space.items}
    if isinstance(space, spaces.Tuple):
        return tuple(_observation(o, s) for o, s in zip(observation, space.spaces))
    return jnp.asarray(observation, space.dtype)


def _space(space: Any) -> spaces.Space:
    """A gymnax space as ours; recognised by class name, since older libraries bring their own copies."""
    kind = type(space).__name__
    if kind == "Discrete":
        return spaces.Discrete(int(space.n), jnp.dtype(space.dtype).name)
    if kind == "Box":
        shape = tuple(np.atleast_1d(space.shape).astype(int))
        return spaces.Box(_bound(space.low, shape), _bound(space.high, shape), shape, space.dtype)
    if kind == "Dict":
        return spaces.Dict({name: _space(s) for name, s in space.spaces.items()})
    if kind == "Tuple":
        return spaces.Tuple(tuple(_space(s) for s in space.spaces))
    raise ValueError(f"from_gymnax: cannot convert the space {space!r}; Discrete, Box, Dict and Tuple are known")


def _bound(bound: Any, shape: tuple[int, ...]) -> Any:
    """A bound as one number where all entries agree, else as an array of `shape`; infinite where there is none."""
    bound = np.asarray(bound, np.float32)
    bound = np.where(np.abs(bound) >= _UNBOUNDED, np.copysign(np.float32(np.inf), bound), bound)
    return bound.flat[0].item() if np.all(bound == bound.flat[0]) else np.broadcast_to(bound, shape)


class _Postponed(types.ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _postponed(*names: str) -> Iterator[None]:
    """Lets modules that are imported within have these modules when they use them."""
    stands = {name: _Postponed(name) for name in names if name not in sys.modules}
    sys.modules.update(stands)
    try:
        yield
    finally:
        for name in stands:
            del sys.modules[name]
