"""Simulations that diverge: a step whose numbers are not finite becomes the end of its episode.

The rule, also of the MJX, Brax and Playground environments: reward 0, the observation before the step once more, and
`truncated`, so that nobody learns from what did not happen, or to end episodes in this way; `extras["diverged"]` is 1.
The loops count it (`episode/diverged_sum`) and reset, as at every end.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.types import Array, Env, PyTree, TimeStep


class MaskedState(NamedTuple):
    env: PyTree
    observation: PyTree  # the last one


def mask_divergence(env: Env) -> Env:
    """Any environment, whose steps are masked where reward, observation or the floats of its state are not finite.

    Not for environments that use inf or NaN as values.
    """

    def reset(key, params):
        state, observation = env.reset(key, params)
        return MaskedState(state, observation), observation

    def step(key, state, action, params):
        inner, timestep = env.step(key, state.env, action, params)
        finite = all_finite((inner, timestep.observation, timestep.reward))
        timestep = masked(finite, timestep, state.observation)
        inner = jax.tree.map(lambda new, old: jnp.where(finite, new, old), inner, state.env)
        return MaskedState(inner, timestep.observation), timestep

    return env._replace(reset=reset, step=step)


def masked(finite: Array, timestep: TimeStep, observation: PyTree) -> TimeStep:
    """`timestep` where `finite` ([] bool); elsewhere its episode ends as above, at `observation`, the one before."""
    return TimeStep(
        observation=jax.tree.map(lambda new, old: jnp.where(finite, new, old), timestep.observation, observation),
        reward=jnp.where(finite, timestep.reward, 0.0).astype(jnp.float32),
        terminated=timestep.terminated & finite,
        truncated=timestep.truncated | ~finite,
        extras={
            **jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), timestep.extras),
            "diverged": (~finite).astype(jnp.float32),
        },
    )


def all_finite(tree: PyTree) -> Array:
    """[] bool, of the floating-point leaves."""
    leaves = [x for x in map(jnp.asarray, jax.tree.leaves(tree)) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else jnp.bool_(True)
