"""The rigid body, its rotors and their equations of motion."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Array

TIME_STEP = 0.01
# Rows: torque about x, y, z. Columns: rotors at (+,-), (-,-), (-,+), (+,+) of the arms, spinning against each other.
_MIX = np.array([(-1, -1, 1, 1), (-1, 1, 1, -1), (-1, 1, -1, 1)], np.float32)


class QuadrotorParams(NamedTuple):
    """All traced."""

    mass: Array  # [] kg
    inertia: Array  # [3] kg m^2, about the body's axes
    arm: Array  # [] m, each rotor's distance from the x and from the y axis
    thrust_constant: Array  # [] N / rpm^2, of one rotor
    torque_constant: Array  # [] m, torque about z for each N of thrust
    motor_time_constant: Array  # [] s; 0 is a rotor without delay
    max_rpm: Array  # [] of a rotor, at action 1; -1 is standstill
    gravity: Array  # [] m/s^2
    force_std: Array  # [] N, of the force on the body that an episode keeps
    torque_std: Array  # [] N m
    position_noise: Array  # [] m, deviation of the noise on observations
    orientation_noise: Array  # [] on each entry of the rotation matrix
    velocity_noise: Array  # [] m/s and rad/s
    start_position: Array  # [] m: each coordinate starts within +- this
    start_angle: Array  # [] rad, largest tilt at the start, uniform over rotations
    start_velocity: Array  # [] m/s and rad/s
    upright_starts: Array  # [] fraction of episodes that start at the target, upright
    max_distance: Array  # [] m, of a coordinate from the target: further away terminates
    reward_weights: Array  # [5] of TERMS
    max_steps: Array  # [] int32
    figure_size: Array  # [] m, half the width of the figure-eight
    figure_period: Array  # [] s


class Body(NamedTuple):
    """What the equations of motion move."""

    position: Array  # [3] m, world
    orientation: Array  # [4] unit quaternion from body to world, scalar first
    velocity: Array  # [3] m/s, world
    angular_velocity: Array  # [3] rad/s, body


def crazyflie() -> QuadrotorParams:
    """The constants of the paper's authors for the Crazyflie 2.1, and of their first reward."""
    numbers = QuadrotorParams(
        mass=0.027,
        inertia=(3.85e-6, 3.85e-6, 5.9675e-6),
        arm=0.028,
        thrust_constant=3.16e-10,
        torque_constant=0.005964552,
        motor_time_constant=0.15,
        max_rpm=21702.0,
        gravity=9.81,
        force_std=0.027 * 9.81 / 20,
        torque_std=0.027 * 9.81 / 10_000,
        position_noise=0.001,
        orientation_noise=0.001,
        velocity_noise=0.002,
        start_position=0.2,
        start_angle=math.pi / 2,
        start_velocity=1.0,
        upright_starts=0.1,
        max_distance=0.6,
        reward_weights=(2.0, 5.0, 5.0, 0.01, 0.01),
        max_steps=500,
        figure_size=0.5,
        figure_period=5.5,
    )
    return QuadrotorParams(*(jnp.asarray(x, jnp.float32) for x in numbers))._replace(max_steps=jnp.int32(500))


def randomized(key: Array, params: QuadrotorParams, spread: float = 0.2) -> QuadrotorParams:
    """Another quadrotor: mass, inertia, thrust, yaw torque and delay times independent factors in 1 +- spread."""
    names = ("mass", "inertia", "thrust_constant", "torque_constant", "motor_time_constant")
    factors = jax.random.uniform(key, (len(names),), minval=1.0 - spread, maxval=1.0 + spread)
    return params._replace(**{name: getattr(params, name) * factor for name, factor in zip(names, factors)})


def hover_action(params: QuadrotorParams) -> Array:
    """[] the action of four equal rotors that carry the weight: 2 sqrt(m g / (4 k)) / max_rpm - 1."""
    rpm = jnp.sqrt(params.mass * params.gravity / (4.0 * params.thrust_constant))
    return 2.0 * rpm / params.max_rpm - 1.0


def rotation_matrix(q: Array) -> Array:
    """[3, 3] from a unit quaternion [4]: body to world."""
    w, x, y, z = q
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row) for row in rows])


def flow(body: Body, rpm: Array, force: Array, torque: Array, params: QuadrotorParams) -> Body:
    """Newton and Euler: m v' = R e_z sum(F) + f - m g e_z, J w' = M F + t - w x J w, q' = q (0, w) / 2, F = k rpm^2."""
    thrust = params.thrust_constant * rpm**2
    w, x, y, z = body.orientation
    a, b, c = body.angular_velocity
    up = jnp.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])
    fall = jnp.stack([jnp.zeros(()), jnp.zeros(()), params.gravity])
    turn = 0.5 * jnp.stack(
        [-x * a - y * b - z * c, w * a + y * c - z * b, w * b + z * a - x * c, w * c + x * b - y * a]
    )
    p, q, r = params.inertia
    gyroscopic = jnp.stack([(r - q) * b * c, (p - r) * c * a, (q - p) * a * b])  # w x J w
    levers = jnp.stack([params.arm, params.arm, params.torque_constant])
    spin = (levers * (_MIX @ thrust) + torque - gyroscopic) / params.inertia
    return Body(body.velocity, turn, (up * jnp.sum(thrust) + force) / params.mass - fall, spin)


def advance(
    body: Body,
    rpm: Array,
    command: Array,
    force: Array,
    torque: Array,
    params: QuadrotorParams,
    dt: Array | float = TIME_STEP,
) -> tuple[Body, Array]:
    """Body and rotor speeds after dt: rotors exactly, rpm' = (command - rpm) / tau, the body by Runge-Kutta of order 4.

    Args:
      rpm, command: [4] within 0 and max_rpm.
      force: [3] N, in the world, on the center of mass.
      torque: [3] N m, in the body.
      dt: s
    """

    def turning(after: Array | float) -> Array:
        return command + (rpm - command) * jnp.exp(-after / jnp.maximum(params.motor_time_constant, 1e-6))

    def slope(at: Body, speeds: Array) -> Body:
        return flow(at, speeds, force, torque, params)

    def along(slope: Body, by: Array | float) -> Body:
        return jax.tree.map(lambda x, dx: x + by * dx, body, slope)

    middle, end = turning(dt / 2), turning(dt)
    k1 = slope(body, rpm)
    k2 = slope(along(k1, dt / 2), middle)
    k3 = slope(along(k2, dt / 2), middle)
    k4 = slope(along(k3, dt), end)
    then = jax.tree.map(lambda x, a, b, c, d: x + dt / 6 * (a + 2 * b + 2 * c + d), body, k1, k2, k3, k4)
    return then._replace(orientation=then.orientation / jnp.sqrt(jnp.sum(then.orientation**2))), end
