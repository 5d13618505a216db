"""Swing a pole up and balance it on a cart (reward after Tassa et al. 2018, https://arxiv.org/abs/1801.00690)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.envs.mjx.base import Body, mjx_env, tolerance
from jaxrl.types import Env

RAIL = 2.4  # m, half its length


def cartpole_swingup(*, episode_length: int = 250) -> Env:
    """The pole starts hanging; the episode terminates where the cart leaves the rail, at |x| > 2.4 m.

    Observation [5]: x, cos and sin of the angle (0 upright), their velocities. Action [1]: 10 N at 1, held for 0.04 s.

    reward = (1 + cos angle) / 2 * (1 + c(x)) / 2 * (4 + 1 - a^2) / 5 * (1 + c(angular velocity)) / 2, in [0, 1], with
    c(y) = 1 at 0 falling to 0.1 at 2 m, at 5 rad/s. So an episode of 250 steps (10 s) returns less than 250, about 200
    when it is swung up well. Truncated after `episode_length` steps.
    """

    def start(key):
        noise = 0.01 * jax.random.normal(key, (4,))
        return Body(qpos=jnp.array([0.0, jnp.pi]) + noise[:2], qvel=noise[2:], goal=())

    def observe(body):
        x, angle = body.qpos
        return jnp.array([x, jnp.cos(angle), jnp.sin(angle), *body.qvel])

    def outcome(before, after, action):
        del before
        x, angle = after.qpos
        upright = (1.0 + jnp.cos(angle)) / 2.0
        centred = (1.0 + tolerance(x, 2.0)) / 2.0
        gentle = (5.0 - jnp.square(action[0])) / 5.0
        still = (1.0 + tolerance(after.qvel[1], 5.0)) / 2.0
        return upright * centred * gentle * still, jnp.abs(x) > RAIL

    return mjx_env("cartpole_swingup.xml", start, observe, outcome, num_substeps=2, episode_length=episode_length)
