"""What is not a finite number, counted inside the loops: rewards, observations, parameters.

`online` and `offline` add these metrics to those of every step. They are sums over what the step has computed anyway,
change nothing that is learned, and leave the decision to the host (`jaxrl train` stops); under `vmap` each run has its
own. All are [] int32:

  nonfinite/reward_count        rewards of rows that are there (weight > 0), each agent's by itself
  nonfinite/observation_count   observations, each once: true successors, and what resets gave
  nonfinite/reward_first, nonfinite/observation_first
                                row t * N + n of the rollout [T, N] where the first of them is, -1 without one
  nonfinite/parameter_count     numbers in `agent.actor(state)`, hyperparameters left out (there, inf has a meaning)

Beside them, episode/diverged_sum: episodes that the environment cut short, as `jaxrl.envs.divergence` says.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.types import Array, Metrics, PyTree, Transition, is_last

PREFIX = "nonfinite/"


def in_rollout(data: Transition, is_start: Array) -> Metrics:
    """Rewards and observations of a rollout that are not finite.

    Args:
      data: leaves [T, N, ...].
      is_start: [N] bool, whether the first row begins an episode.
    """
    out = is_last(data).reshape(*data.reward.shape[:2], -1).all(-1)  # who was out before stays `terminated`
    is_first = jnp.concatenate([is_start[None], out[:-1]])
    there = data.extras["weight"] > 0 if "weight" in data.extras else None
    reward = ~jnp.isfinite(data.reward)
    reward = reward if there is None else reward & there
    after = _bad_rows(data.next_observation, there, data.reward)
    before = _bad_rows(data.observation, there, data.reward) & is_first
    counts = {
        f"{PREFIX}reward_count": _count(reward),
        f"{PREFIX}reward_first": _first(reward),
        f"{PREFIX}observation_count": _count(before) + _count(after),
        f"{PREFIX}observation_first": _first(before | after),
    }
    if "diverged" in data.extras:
        diverged = _any(data.extras["diverged"] > 0)
        counts["episode/diverged_sum"] = jnp.sum(diverged if there is None else diverged & _any(there))
    return counts


def in_parameters(actor: PyTree) -> Metrics:
    """Numbers of an actor's state that are not finite."""
    return {f"{PREFIX}parameter_count": sum((_count(~jnp.isfinite(x)) for _, x in parameters(actor)), jnp.int32(0))}


def parameters(state: PyTree) -> list[tuple[str, Array]]:
    """(name, leaf) of all floating-point leaves of a state but its hyperparameters: "agent/params/policy/..."."""
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
    return [(name, x) for name, x in named if _is_float(x) and "hparams" not in name.split("/")]


def _bad_rows(observation: PyTree, there: Array | None, reward: Array) -> Array:
    """[T, N] bool; agents that are out (weight 0) may see anything."""
    bad = jnp.zeros(reward.shape[:2], bool)
    for x in jax.tree.leaves(observation):
        if not _is_float(x):
            continue
        each = x.shape[: reward.ndim] == reward.shape  # an observation of each agent, not of all together
        mine = ~jnp.isfinite(x).reshape(*x.shape[: reward.ndim if each else 2], -1).all(-1)
        if there is not None:
            mine = mine & (there if each else _any(there))
        bad |= _any(mine)
    return bad


def _any(x: Array) -> Array:
    """[T, N, ...] -> [T, N]"""
    return x.reshape(*x.shape[:2], -1).any(-1)


def _count(bad: Array) -> Array:
    return jnp.sum(bad, dtype=jnp.int32)


def _first(bad: Array) -> Array:
    bad = _any(bad)
    row = jnp.where(bad.any(), jnp.argmax(bad.reshape(-1)).astype(jnp.int32), -1)
    return parallel.first_row(row, bad.shape[1])


def _is_float(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
