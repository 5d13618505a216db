"""An environment that checks what it is given and what it returns, for programs under `checkify`."""

from __future__ import annotations

import jax
from jax.experimental import checkify

from jaxrl.types import Env


def checked(env: Env) -> Env:
    """`env`, whose steps check (`checkify.check`) that action and observation are in their spaces.

    A program with it has to go through `checkify.checkify`, whose error then holds the first check that failed.
    """

    def reset(key, params):
        state, observation = env.reset(key, params)
        _inside("reset: observation", observation, env.observation_space)
        return state, observation

    def step(key, state, action, params):
        _inside("step: action", action, env.action_space)
        state, timestep = env.step(key, state, action, params)
        _inside("step: observation", timestep.observation, env.observation_space)
        return state, timestep

    return env._replace(reset=reset, step=step)


def _inside(what, value, space):
    if len(jax.tree.leaves(value)) == 1:
        checkify.check(
            space.contains(value), f"{what} {{value}} is outside of {space}", value=jax.tree.leaves(value)[0]
        )
    else:
        checkify.check(space.contains(value), f"{what} is outside of {space}")
