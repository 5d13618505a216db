"""The simplex: exact projection, and concave quadratic programs on it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def project(x: Array, floor: float = 0.0) -> Array:
    """The nearest point of {p: p >= floor, sum p = 1}, by sorting (Held et al. 1974; Duchi et al. 2008).

    p = max(x - tau, 0) with tau such that it adds up to 1; with a floor, the same in what is left above it.

    Args:
      x: [..., n].
      floor: in [0, 1 / n); trembles.

    Raises:
      ValueError: if the floor is outside of [0, 1 / n).
    """
    n = x.shape[-1]
    if not 0.0 <= floor < 1.0 / n:
        raise ValueError(f"project: floor is {floor}, must be in [0, {1.0 / n:.4g}), 1 / number of actions")
    room = 1.0 - n * floor
    y = (x - floor) / room
    y = y - jnp.max(y, -1, keepdims=True)  # the projection is the same, with less rounding
    largest_first = -jnp.sort(-y, -1)
    count = jnp.arange(1, n + 1)
    taus = (jnp.cumsum(largest_first, -1) - 1.0) / count
    support = jnp.sum(largest_first > taus, -1, keepdims=True)
    tau = jnp.take_along_axis(taus, support - 1, -1)
    return floor + room * jnp.maximum(y - tau, 0.0)


def maximize_quadratic(
    linear: Array, covariance: Array, start: Array, *, floor: float = 0.0, num_steps: int = 100
) -> Array:
    """argmax c' x - x' S x over {x >= floor, sum x = 1}, by accelerated projected gradients (Beck and Teboulle 2009).

    After k steps the value is within 2 L |x_0 - x*|^2 / (k + 1)^2 of the largest, L = 2 |S|; momentum starts anew where
    it leads down (O'Donoghue and Candes 2015, https://arxiv.org/abs/1204.3982). Without S it is linear, and solved in
    a step or a few.

    Args:
      linear, covariance: c [n], S [n, n], positive semidefinite.
      start: [n].
    """
    curvature = 2.0 * jnp.linalg.norm(covariance)  # not below the largest eigenvalue of 2 S
    rate = 1.0 / jnp.maximum(curvature, 1e-3 * (jnp.max(linear) - jnp.min(linear)) + 1e-30)

    def step(carry: tuple, _):
        x, y, momentum = carry
        slope = linear - 2.0 * covariance @ y
        then = project(y + rate * slope, floor)
        down = (y - then) @ (then - x) > 0
        momentum = jnp.where(down, 1.0, momentum)
        next_momentum = (1.0 + jnp.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = then + jnp.where(down, 0.0, (momentum - 1.0) / next_momentum) * (then - x)
        return (then, ahead, next_momentum), None

    first = project(start, floor)
    return jax.lax.scan(step, (first, first, jnp.ones(())), length=num_steps)[0][0]
