"""An agent that checks what the rollout recorded, for programs under `checkify`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from jaxrl.spaces import Space
from jaxrl.types import Agent, Array, Env, Metrics, PyTree, Transition


def checked(agent: Agent, env: Env) -> Agent:
    """`agent`, which checks (`checkify.check`) each rollout: actions and observations of `env` are in their spaces.

    After the rollout, all steps at once: within the scan of steps a check costs more. An observation with nan in it
    passes: the loops count those by themselves. A program with this agent has to go through `checkify.checkify`, whose
    error then holds the first check that failed.
    """

    def observe(key: Array, state: PyTree, fresh: Transition) -> tuple[PyTree, Metrics]:
        _inside("action", fresh.action, env.action_space)
        for seen in (fresh.next_observation, fresh.observation):
            _inside("observation", seen, env.observation_space, excused=_has_nan)
        return agent.observe(key, state, fresh)

    return agent._replace(observe=observe)


def _inside(name: str, values: PyTree, space: Space, excused: Any = lambda value: False) -> None:
    """Checks values with leaves [T, N, ...]."""
    inside = jax.vmap(jax.vmap(lambda value: space.contains(value) | excused(value)))(values)
    step, environment = jnp.unravel_index(jnp.argmin(inside), inside.shape)
    leaves, shown, value = jax.tree.leaves(values), "", {}
    if len(leaves) == 1:
        shown, value = " {value}", {"value": leaves[0][step, environment]}
    checkify.check(
        jnp.all(inside),
        f"{name}{shown} of environment {{environment}}, step {{step}} of a rollout, is outside of {_braced(space)}",
        environment=environment,
        step=step,
        **value,
    )


def _has_nan(value: PyTree) -> Array:
    floats = [x for x in jax.tree.leaves(value) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.any(jnp.stack([jnp.any(jnp.isnan(x)) for x in floats] or [jnp.bool_(False)]))


def _braced(space: Space) -> str:
    """The space in a text that goes through `str.format`."""
    return str(space).replace("{", "{{").replace("}", "}}")
