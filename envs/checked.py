"""An environment that checks what it is given and what it returns, for programs under `checkify`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from jaxrl.types import Env


def checked(env: Env) -> Env:
    """`env`, whose steps check (`checkify.check`) that action and observation are in their spaces.

    An observation with nan in it passes: the loops count those by themselves.
    A program with it has to go through `checkify.checkify`, whose error then holds the first check that failed.
    """

    def reset(key, params):
        state, observation = env.reset(key, params)
        _inside("reset: observation", observation, env.observation_space, _has_nan(observation))
        return state, observation

    def step(key, state, action, params):
        _inside("step: action", action, env.action_space)
        state, timestep = env.step(key, state, action, params)
        _inside("step: observation", timestep.observation, env.observation_space, _has_nan(timestep.observation))
        return state, timestep

    return env._replace(reset=reset, step=step)


def _inside(what, value, space, excused=False):
    leaves = jax.tree.leaves(value)
    shown = (" {value}", {"value": leaves[0]}) if len(leaves) == 1 else ("", {})
    checkify.check(space.contains(value) | excused, f"{what}{shown[0]} is outside of {_braced(space)}", **shown[1])


def _has_nan(value):
    return jnp.any(jnp.stack([jnp.any(jnp.isnan(x)) for x in jax.tree.leaves(value) if _is_float(x)] or [jnp.bool_(0)]))


def _is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


def _braced(space):
    """The space in a text that goes through `str.format`."""
    return str(space).replace("{", "{{").replace("}", "}}")
