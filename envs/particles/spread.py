"""Cooperative navigation (Lowe et al. 2017, https://arxiv.org/abs/1706.02275): PettingZoo's simple_spread_v3."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.envs.particles import world
from jaxrl.types import Array, Env, TimeStep

_LANDMARK_RADIUS = 0.05  # of pictures; landmarks touch nobody


class SpreadParams(NamedTuple):
    local_ratio: Array  # [] in [0, 1], weight of the own collisions; 1 - local_ratio is that of the landmarks
    radius: Array  # [] of an agent
    acceleration: Array  # [] of a move
    damping: Array  # [] in [0, 1]
    max_steps: Array  # [] int32


class SpreadState(NamedTuple):
    position: Array  # [A, 2]
    velocity: Array  # [A, 2]
    landmarks: Array  # [L, 2]
    time: Array  # [] int32


def spread(
    num_agents: int = 3,
    *,
    num_landmarks: int | None = None,
    continuous: bool = False,
    privileged: bool = False,
    local_ratio: float = 0.5,
    radius: float = 0.15,
    acceleration: float = world.ACCELERATION,
    damping: float = world.DAMPING,
    max_steps: int = 25,
) -> Env:
    """Agents cover landmarks and keep from touching each other.

    reward_i = -(1 - local_ratio) sum_l min_j |p_j - l| - local_ratio * (the number of others that i touches).

    All start at rest, agents and landmarks at random in [-1, 1] x [-1, 1]. An agent's observation [4 A + 2 L] is its
    velocity (2), its position (2), landmarks (2 L) and the other agents (2 (A - 1)) from where it is, and what they
    say (2 (A - 1)): nothing, zeros that the original has as well.

    Args:
      num_agents: A.
      num_landmarks: L; as many as agents if None.
      continuous: actions [5] in [0, 1] are how much of each move, of which the first does nothing; else 5 actions (no
        move, left, right, down, up).
      privileged: observations are {"observation": own, "privileged": [4 A + 2 L] positions, velocities, landmarks}.
      local_ratio, radius, acceleration, damping, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if num_agents < 2, num_landmarks < 1, local_ratio or damping is outside of [0, 1], radius or
        acceleration is not > 0, or max_steps < 1.
    """
    num_landmarks = num_agents if num_landmarks is None else num_landmarks
    parts.require(num_agents, lambda x: x >= 2, "spread: num_agents", "must be >= 2")
    parts.require(num_landmarks, lambda x: x >= 1, "spread: num_landmarks", "must be >= 1")
    parts.require(local_ratio, lambda x: 0 <= x <= 1, "spread: local_ratio", "must be in [0, 1]")
    world.require_common("spread", max_steps, damping, radius=radius, acceleration=acceleration)
    size = 4 * num_agents + 2 * num_landmarks

    def observe(state: SpreadState):
        seen = jnp.concatenate([state.landmarks, state.position])[None] - state.position[:, None]  # [A, L + A, 2]
        rows = [
            state.velocity,
            state.position,
            seen[:, :num_landmarks].reshape(num_agents, -1),
            world.without_self(seen[:, num_landmarks:]).reshape(num_agents, -1),
            jnp.zeros((num_agents, 2 * (num_agents - 1))),
        ]
        own = jnp.concatenate(rows, 1)
        if not privileged:
            return own
        return world.reveal(own, jnp.concatenate([x.ravel() for x in state[:3]]))

    def reset(key: Array, params: SpreadParams):
        del params
        places = jax.random.uniform(key, (num_agents + num_landmarks, 2), minval=-1.0, maxval=1.0)
        position, landmarks = places[:num_agents], places[num_agents:]
        state = SpreadState(position, jnp.zeros_like(position), landmarks, jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: SpreadState, action: Array, params: SpreadParams):
        del key
        forces = params.acceleration * world.directions(action, continuous)
        forces += world.contact_forces(state.position, jnp.broadcast_to(params.radius, (num_agents,)))
        position, velocity = world.integrate(state.position, state.velocity, forces, params.damping)
        state = SpreadState(position, velocity, state.landmarks, state.time + 1)
        nearest = jnp.sqrt(jnp.min(world.squared_distances(state.landmarks, position), 1))
        collisions = world.num_touching(position, params.radius)
        reward = -params.local_ratio * collisions - (1.0 - params.local_ratio) * jnp.sum(nearest)
        truncated = jnp.broadcast_to(state.time >= params.max_steps, (num_agents,))
        return state, TimeStep(observe(state), reward, jnp.zeros(num_agents, bool), truncated)

    def render(state: SpreadState, params: SpreadParams) -> Array:
        centers = jnp.concatenate([state.position, state.landmarks])
        radii = jnp.concatenate(
            [jnp.full(num_agents, params.radius), jnp.full(num_landmarks, _LANDMARK_RADIUS, jnp.float32)]
        )
        colors = np.repeat(np.uint8([pictures.AGENT, pictures.WALL]), (num_agents, num_landmarks), 0)
        return world.draw(centers, radii, colors)

    numbers = (jnp.float32(x) for x in (local_ratio, radius, acceleration, damping))
    params = SpreadParams(*numbers, jnp.int32(max_steps))
    space = spaces.Repeated(world.unbounded(4 * num_agents + 2 * num_landmarks), num_agents)
    space = world.revealed(space, size) if privileged else space
    return Env(reset, step, params, space, spaces.Repeated(world.move_space(continuous), num_agents), render)
