"""Predators and prey among obstacles (Lowe et al. 2017, https://arxiv.org/abs/1706.02275): simple_tag_v3."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.envs.particles import world
from jaxrl.types import Array, Env, TimeStep

_CAUGHT = 10.0
_PREY = (60, 160, 75)


class TagParams(NamedTuple):
    radius: Array  # [A], adversaries first
    acceleration: Array  # [A] of a move
    max_speed: Array  # [A]
    obstacle_radius: Array  # []
    obstacle_range: Array  # [], obstacles lie in [-obstacle_range, obstacle_range] both ways
    damping: Array  # [] in [0, 1]
    max_steps: Array  # [] int32


class TagState(NamedTuple):
    position: Array  # [A, 2], adversaries first
    velocity: Array  # [A, 2]
    obstacles: Array  # [L, 2]
    time: Array  # [] int32


def tag(
    *,
    num_good: int = 1,
    num_adversaries: int = 3,
    num_obstacles: int = 2,
    continuous: bool = False,
    privileged: bool = False,
    obstacle_radius: float = 0.2,
    obstacle_range: float = 0.9,
    damping: float = world.DAMPING,
    max_steps: int = 25,
) -> Env:
    """Slow adversaries hunt good agents, which are fast and small. All push each other and are stopped by obstacles.

    Each adversary gets 10 for every pair of an adversary and a good agent that touch, whoever they are. A good agent
    loses 10 for every adversary that it touches, and, for each coordinate x, b(|x|) where it runs away: 0 below 0.9,
    10 (x - 0.9) up to 1, then min(exp(2 x - 2), 10).

    All start at rest, at random in [-1, 1] x [-1, 1], obstacles in [-0.9, 0.9] x [-0.9, 0.9] (up to 1 in JaxMARL).
    Agents are unlike, adversaries come first. Everybody sees its velocity (2), its position (2), obstacles (2 L) and
    other agents (2 (A - 1)) from where it is, then velocities of other good agents: 2 num_good numbers for an
    adversary, 2 (num_good - 1) for a good one. (JaxMARL shows only the last of these, to adversaries alone.)

    Args:
      num_good, num_adversaries, num_obstacles: A = num_good + num_adversaries agents and L obstacles. Adversaries have
        a radius of 0.075, accelerate by 3 and go up to 1, good agents 0.05, 4 and 1.3: `Env.params`, traced.
      continuous: actions [5] in [0, 1] are how much of each move, of which the first does nothing; else 5 actions (no
        move, left, right, down, up).
      privileged: observations are {"observation": own, "privileged": [4 A + 2 L] positions, velocities, obstacles}.
      obstacle_radius, obstacle_range, damping, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if num_good or num_adversaries < 1, num_obstacles < 0, damping is outside of [0, 1], obstacle_radius
        or obstacle_range is not > 0, or max_steps < 1.
    """
    for name, value, least in (
        ("num_good", num_good, 1),
        ("num_adversaries", num_adversaries, 1),
        ("num_obstacles", num_obstacles, 0),
    ):
        parts.require(value, lambda x: x >= least, f"tag: {name}", f"must be >= {least}")  # noqa: B023
    world.require_common("tag", max_steps, damping, obstacle_radius=obstacle_radius, obstacle_range=obstacle_range)
    num_agents = num_adversaries + num_good
    whole = 4 * num_agents + 2 * num_obstacles
    good = range(num_adversaries, num_agents)

    def observe(state: TagState):
        seen = jnp.concatenate([state.obstacles, state.position])[None] - state.position[:, None]  # [A, L + A, 2]
        rows = [
            state.velocity,
            state.position,
            seen[:, :num_obstacles].reshape(num_agents, -1),
            world.without_self(seen[:, num_obstacles:]).reshape(num_agents, -1),
        ]
        rows = jnp.concatenate(rows, 1)
        runs = state.velocity[num_adversaries:].ravel()
        own = tuple(jnp.concatenate([rows[i], runs]) for i in range(num_adversaries))
        for i, start in zip(good, range(0, 2 * num_good, 2)):
            own += (jnp.concatenate([rows[i], runs[:start], runs[start + 2 :]]),)
        if not privileged:
            return own
        return world.reveal(own, jnp.concatenate([x.ravel() for x in state[:3]]))

    def reset(key: Array, params: TagParams):
        places = jax.random.uniform(key, (num_agents + num_obstacles, 2), minval=-1.0, maxval=1.0)
        position, obstacles = places[:num_agents], places[num_agents:] * params.obstacle_range
        state = TagState(position, jnp.zeros_like(position), obstacles, jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: TagState, action: tuple[Array, ...], params: TagParams):
        del key
        forces = params.acceleration[:, None] * world.directions(jnp.stack(action), continuous)
        still = jnp.broadcast_to(params.obstacle_radius, (num_obstacles,))
        forces += world.contact_forces(state.position, params.radius, state.obstacles, still)
        position, velocity = world.integrate(state.position, state.velocity, forces, params.damping, params.max_speed)
        state = TagState(position, velocity, state.obstacles, state.time + 1)
        reach = params.radius[:num_adversaries, None] + params.radius[num_adversaries:]
        apart = world.squared_distances(position[:num_adversaries], position[num_adversaries:])
        touching = (apart < reach**2).astype(jnp.float32)
        caught = jnp.broadcast_to(_CAUGHT * jnp.sum(touching), (num_adversaries,))
        running = -_CAUGHT * jnp.sum(touching, 0) - jnp.sum(outside(jnp.abs(position[num_adversaries:])), 1)
        truncated = jnp.broadcast_to(state.time >= params.max_steps, (num_agents,))
        timestep = TimeStep(observe(state), jnp.concatenate([caught, running]), jnp.zeros(num_agents, bool), truncated)
        return state, timestep

    def render(state: TagState, params: TagParams) -> Array:
        centers = jnp.concatenate([state.obstacles, state.position])
        radii = jnp.concatenate([jnp.broadcast_to(params.obstacle_radius, (num_obstacles,)), params.radius])
        kinds = np.uint8([pictures.WALL, pictures.GOAL, _PREY])
        return world.draw(centers, radii, np.repeat(kinds, (num_obstacles, num_adversaries, num_good), 0))

    of_all = lambda adversary, good: jnp.repeat(  # noqa: E731
        jnp.float32([adversary, good]), np.array([num_adversaries, num_good])
    )
    numbers = (jnp.float32(x) for x in (obstacle_radius, obstacle_range, damping))
    params = TagParams(of_all(0.075, 0.05), of_all(3.0, 4.0), of_all(1.0, 1.3), *numbers, jnp.int32(max_steps))
    common = 4 + 2 * num_obstacles + 2 * (num_agents - 1)
    sizes = [common + 2 * num_good] * num_adversaries + [common + 2 * (num_good - 1)] * num_good
    space = spaces.Tuple(tuple(world.unbounded(size) for size in sizes))
    space = world.revealed(space, whole) if privileged else space
    actions = spaces.Tuple((world.move_space(continuous),) * num_agents)
    return Env(reset, step, params, space, actions, render)


def outside(x: Array) -> Array:
    """The price of a coordinate's size x >= 0: 0 below 0.9, 10 (x - 0.9) up to 1, then min(exp(2 x - 2), 10)."""
    far = jnp.minimum(jnp.exp(2.0 * x - 2.0), 10.0)
    return jnp.where(x < 0.9, 0.0, jnp.where(x < 1.0, 10.0 * (x - 0.9), far))
