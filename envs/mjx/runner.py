"""Run: a planar trunk on two springy legs, paid for its forward speed (a lean relative of the half-cheetah)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.envs.mjx.base import Body, mjx_env
from jaxrl.types import Env

STANDING = 0.56  # m, height of the trunk where the coordinate z is 0


def runner(*, episode_length: int = 200) -> Env:
    """Four motors (hips and knees of both legs) move 5.4 kg; only the feet touch the ground.

    Observation [13]: height and pitch of the trunk, four joint angles, seven velocities (forward first). Action [4]:
    torques of 20, 15, 15, 12 N m at 1, held for 0.03 s.

    reward = forward speed (m/s) - 0.1 mean(a^2) + 0.5: about 0.5 when standing and 2 to 5 when running. The 0.5 is for
    not having fallen: the episode terminates where the trunk is below 0.3 m or pitches by more than 1 rad. Truncated
    after `episode_length` steps (200 are 6 s).
    """

    def start(key):
        position_key, velocity_key = jax.random.split(key)
        qpos = 0.05 * jax.random.uniform(position_key, (7,), minval=-1.0, maxval=1.0)
        return Body(qpos.at[0].set(0.0), 0.05 * jax.random.normal(velocity_key, (7,)), goal=())

    def observe(body):
        return jnp.concatenate([body.qpos[1:], body.qvel]).at[0].add(STANDING)

    def outcome(before, after, action):
        speed = (after.qpos[0] - before.qpos[0]) / 0.03
        fallen = (after.qpos[1] + STANDING < 0.3) | (jnp.abs(after.qpos[2]) > 1.0)
        return speed - 0.1 * jnp.mean(jnp.square(action)) + 0.5, fallen

    return mjx_env("runner.xml", start, observe, outcome, num_substeps=3, episode_length=episode_length)
