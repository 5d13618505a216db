"""Bring the fingertip of a planar arm to a random target (after Tassa et al. 2018, arxiv.org/abs/1801.00690)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.envs.mjx.base import Body, mjx_env, tolerance
from jaxrl.types import Array, Env

LINK = 0.12  # m, both links


def fingertip(qpos: Array) -> Array:
    """Position of the fingertip [2] in m: link (cos q1, sin q1) + link (cos (q1 + q2), sin (q1 + q2))."""
    first, second = qpos[0], qpos[0] + qpos[1]
    return LINK * jnp.array([jnp.cos(first) + jnp.cos(second), jnp.sin(first) + jnp.sin(second)])


def reacher(*, episode_length: int = 150) -> Env:
    """The arm starts anywhere, the target lies 0.05 to 0.2 m from the shoulder. Nothing terminates.

    Observation [8]: cos and sin of both angles, angular velocities, target - fingertip (m). Action [2]: torques of
    0.03 N m and 0.02 N m at 1, held for 0.02 s. `Env.params.gravity` has no effect: the plane is horizontal.

    reward = 1 / (1 + 9 (d / 0.15)^2) - 0.05 mean(a^2), d the distance in m: at most 1 at the target, 0.1 at 0.15 m,
    never below -0.05. Truncated after `episode_length` steps (150 are 3 s).
    """

    def start(key):
        angle_key, target_key = jax.random.split(key)
        qpos = jax.random.uniform(angle_key, (2,), minval=-jnp.pi, maxval=jnp.pi)
        unit = jax.random.uniform(target_key, (2,))
        radius, angle = 0.05 + 0.15 * unit[0], 2.0 * jnp.pi * unit[1]
        return Body(qpos, jnp.zeros(2), goal=radius * jnp.array([jnp.cos(angle), jnp.sin(angle)]))

    def observe(body):
        return jnp.concatenate([jnp.cos(body.qpos), jnp.sin(body.qpos), body.qvel, body.goal - fingertip(body.qpos)])

    def outcome(before, after, action):
        del before
        distance = jnp.linalg.norm(after.goal - fingertip(after.qpos))
        return tolerance(distance, 0.15) - 0.05 * jnp.mean(jnp.square(action)), jnp.array(False)

    return mjx_env("reacher.xml", start, observe, outcome, num_substeps=2, episode_length=episode_length)
