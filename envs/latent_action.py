"""`latent_action`: an environment whose actions a frozen decoder turns into those of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxrl.spaces import Space
from jaxrl.types import Env, PyTree

_SALT = 0x7A5F00  # and 1 more for each one inside: the environment there gets the caller's key untouched


class LatentActionParams(NamedTuple):
    env: PyTree  # params of the environment inside
    decoder: PyTree  # what `decode` is given: weights, an agent's state


class LatentActionState(NamedTuple):
    env: PyTree  # the state of the environment inside
    observation: PyTree  # the last one


def latent_action(env: Env, decode: Callable, decoder: PyTree, space: Space) -> Env:
    """Any agent acts through a frozen policy: its action z becomes decode(observation, z) in every step.

    `repeat_action(latent_action(...), k, discount=...)` keeps z for k steps, with the decoder looking at each of
    them, and records how many were made. Observations, rewards and ends are the environment's.

    Args:
      decode: (key, decoder, observation, z) -> action, for one environment; `jaxrl.combinators.frozen.decoder` makes
        it of an agent.
      decoder: traced, in `Env.params`: decoders of several seeds are one `vmap` over `LatentActionParams`.
      space: of z.
    """
    salt = _SALT + _levels(env.params)

    def reset(key, params):
        state, observation = env.reset(key, params.env)
        return LatentActionState(state, observation), observation

    def step(key, state, action, params):
        made = decode(jax.random.fold_in(key, salt), params.decoder, state.observation, action)
        inner, timestep = env.step(key, state.env, made, params.env)
        return LatentActionState(inner, timestep.observation), timestep

    return Env(reset, step, LatentActionParams(env.params, decoder), env.observation_space, space)


def _levels(params: PyTree) -> int:
    """How many environments with latent actions an environment of these params is or has inside."""
    nested = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, LatentActionParams))
    return sum(1 + _levels(x.env) for x in nested if isinstance(x, LatentActionParams))
