"""A Crazyflie quadrotor, from rotor speeds to attitude: hovering from any tilt, and following a figure-eight.

After "Learning to Fly in Seconds" (Eschmann et al. 2023, https://arxiv.org/abs/2311.13081) and its authors' code: a
rigid body with a unit quaternion, integrated by the classical Runge-Kutta method, rotors that lag behind their command
(first order, 0.15 s), a constant force and torque drawn anew for each episode, noise on what is observed. Distances are
in m, times in s, angles in rad, masses in kg; the world's z axis points up, the body's along the thrust.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.envs.quadrotor.body import (
    TIME_STEP,
    Body,
    QuadrotorParams,
    advance,
    crazyflie,
    hover_action,
    rotation_matrix,
)
from jaxrl.types import Array, Env, PyTree, TimeStep

MAX_SPEED = 1000.0  # m/s or rad/s: faster ends the episode, and nothing the integrator could not follow comes after
TERMS = ("alive", "position", "orientation", "velocity", "action")  # of the reward


class QuadrotorState(NamedTuple):
    body: Body
    rpm: Array  # [4]
    force: Array  # [3] N, world
    torque: Array  # [3] N m, body
    history: Array  # [4 * history_length] the last actions, newest last
    phase: Array  # [] rad, where on the figure-eight the episode started
    time: Array  # [] int32


def quadrotor(task: str = "hover", *, history_length: int = 32, privileged: bool = True) -> Env:
    """Steer four rotors so that the body stays at a point, or follows one.

    Actions [4] in [-1, 1] are rotor speeds from 0 to `max_rpm`. With e the position and u the velocity relative to the
    target's, q_w the scalar of the quaternion, and a_0 the action that hovers, the reward of a step is

        reward_weights . terms,  terms = (1, -|e|^2 / 2, -(1 - q_w^2) / 2, -|u|^2 / 2, -|a - a_0|^2 / 2)

    of the state before the step, and 0 where the step ended in termination: |e| beyond `max_distance` in a coordinate.
    `extras["reward_terms"]` has the terms, so that a learner may weigh them otherwise. `max_steps` truncate.

    Observations are {"observation": what a flying computer has: e, the rotation matrix by rows, u, the angular velocity
    in the body, all with noise, and the last actions; "privileged": [28] the same without noise and actions, the
    force and the torque on the body in their usual deviations, and the rotor speeds in [-1, 1]}.

    Args:
      task: "hover" at the origin, or "figure_eight", a Lissajous figure in the plane z = 0.
      history_length: actions that are observed; 0: none.
      privileged: whether there is a privileged observation.

    Raises:
      ValueError: for an unknown task or a negative length.
    """
    if task not in ("hover", "figure_eight"):
        raise ValueError(f"quadrotor: task is {task!r}, allowed: 'hover', 'figure_eight'")
    if history_length < 0:
        raise ValueError(f"quadrotor: history_length is {history_length}, must be >= 0")

    def target(state: QuadrotorState, params: QuadrotorParams) -> tuple[Array, Array]:
        """Position and velocity of what is followed."""
        if task == "hover":
            return jnp.zeros(3), jnp.zeros(3)
        return figure_eight(state.phase, state.time * TIME_STEP, params)

    def observe(key: Array, state: QuadrotorState, params: QuadrotorParams) -> dict[str, Array]:
        place, speed = target(state, params)
        rotation = rotation_matrix(state.body.orientation).reshape(9)
        moving = jnp.concatenate([state.body.velocity - speed, state.body.angular_velocity])
        exact = jnp.concatenate([state.body.position - place, rotation, moving])
        deviations = (params.position_noise, params.orientation_noise, params.velocity_noise)
        noise = jnp.concatenate([jnp.broadcast_to(std, n) for std, n in zip(deviations, (3, 9, 6))])
        seen = exact + noise * jax.random.normal(key, (18,))
        observed = {"observation": jnp.concatenate([seen, state.history])}
        if privileged:
            weight = params.mass * params.gravity
            hidden = (20.0 / weight * state.force, 1e4 / weight * state.torque, 2.0 * state.rpm / params.max_rpm - 1.0)
            observed["privileged"] = jnp.concatenate([exact, *hidden])
        return observed

    def reset(key: Array, params: QuadrotorParams) -> tuple[QuadrotorState, PyTree]:
        start_key, observe_key = jax.random.split(key)
        state = _start(start_key, params, history_length)
        place, speed = target(state, params)
        body = state.body._replace(position=state.body.position + place, velocity=state.body.velocity + speed)
        state = state._replace(body=body)
        return state, observe(observe_key, state, params)

    def step(key: Array, state: QuadrotorState, action: Array, params: QuadrotorParams):
        action = jnp.clip(action, -1.0, 1.0)
        place, speed = target(state, params)
        terms = reward_terms(state.body, action, place, speed, params)
        command = (action + 1.0) / 2.0 * params.max_rpm
        body, rpm = advance(state.body, state.rpm, command, state.force, state.torque, params)
        history = jnp.concatenate([state.history, action])[4:] if history_length else state.history
        state = state._replace(body=body, rpm=rpm, history=history, time=state.time + 1)
        away = jnp.max(jnp.abs(body.position - target(state, params)[0]))
        fastest = jnp.max(jnp.abs(jnp.concatenate([body.velocity, body.angular_velocity])))
        terminated = (away > params.max_distance) | (fastest > MAX_SPEED)
        terms = jnp.where(terminated, 0.0, terms)
        reward = jnp.sum(params.reward_weights * terms)
        late = (state.time >= params.max_steps) & ~terminated
        return state, TimeStep(observe(key, state, params), reward, terminated, late, {"reward_terms": terms})

    sizes = {"observation": 18 + 4 * history_length} | ({"privileged": 28} if privileged else {})
    space = spaces.Dict({name: spaces.Box(-math.inf, math.inf, (n,)) for name, n in sizes.items()})
    return Env(reset, step, crazyflie(), space, spaces.Box(-1.0, 1.0, (4,)))


def reward_terms(body: Body, action: Array, place: Array, speed: Array, params: QuadrotorParams) -> Array:
    """[5] what `reward_weights` weigh; see `quadrotor`."""
    squares = (
        jnp.sum((body.position - place) ** 2),
        1.0 - body.orientation[0] ** 2,
        jnp.sum((body.velocity - speed) ** 2),
        jnp.sum((action - hover_action(params)) ** 2),
    )
    return jnp.stack([jnp.ones(()), *(-0.5 * x for x in squares)])


def figure_eight(phase: Array, time: Array, params: QuadrotorParams) -> tuple[Array, Array]:
    """Position size (sin p, sin(2 p) / 2, 0) and velocity at p = phase + 2 pi time / period."""
    rate = 2.0 * jnp.pi / params.figure_period
    p = phase + rate * time
    zero = jnp.zeros_like(p)
    position = jnp.stack([jnp.sin(p), jnp.sin(2 * p) / 2, zero])
    return params.figure_size * position, params.figure_size * rate * jnp.stack([jnp.cos(p), jnp.cos(2 * p), zero])


def _start(key: Array, params: QuadrotorParams, history_length: int) -> QuadrotorState:
    keys = jax.random.split(key, 3)
    uniform = jax.random.uniform(keys[0], (12,), minval=-1.0, maxval=1.0)
    normal = jax.random.normal(keys[1], (9,))
    tilted = jax.random.uniform(keys[2]) >= params.upright_starts
    angle = _haar_angle((uniform[9] + 1.0) / 2.0, params.start_angle)
    axis = normal[:3] / jnp.sqrt(jnp.maximum(jnp.sum(normal[:3] ** 2), 1e-12))
    orientation = jnp.concatenate([jnp.cos(angle / 2)[None], jnp.sin(angle / 2) * axis])
    body = Body(
        jnp.where(tilted, params.start_position * uniform[:3], 0.0),
        jnp.where(tilted, orientation, jnp.eye(1, 4)[0]),
        params.start_velocity * uniform[3:6],
        params.start_velocity * uniform[6:9],
    )
    rpm = jnp.broadcast_to(params.max_rpm / 2.0, (4,))
    history = jnp.zeros(4 * history_length)  # of actions that would have kept these speeds
    force, torque = params.force_std * normal[3:6], params.torque_std * normal[6:9]
    return QuadrotorState(body, rpm, force, torque, history, jnp.pi * uniform[10], jnp.int32(0))


def _haar_angle(u: Array, largest: Array) -> Array:
    """The angle of a rotation uniform among those of at most `largest`: its density is 1 - cos(angle).

    Solves angle - sin(angle) = u (largest - sin(largest)) by Newton's method from the leading term angle^3 / 6.
    """
    level = u * (largest - jnp.sin(largest))
    angle = jnp.cbrt(6.0 * level)
    for _ in range(3):
        angle = angle - (angle - jnp.sin(angle) - level) / jnp.maximum(1.0 - jnp.cos(angle), 1e-6)
    return jnp.clip(angle, 0.0, largest)
