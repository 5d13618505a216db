"""What the particle environments share: forces, motion, actions, how others are seen, pictures.

Lengths have no unit; a side of the square that all are placed in is 2 long. Masses are 1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.types import Array, PyTree

DT = 0.1
DAMPING = 0.25  # share of its velocity that a body loses in a step
ACCELERATION = 5.0  # of a move, where a scenario does not say otherwise
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3  # how soft contact is
NUM_MOVES = 5  # none, left, right, down, up
_TINY = 1e-12
_FEW = 16  # discs, up to which contact goes by pairs
_VIEW = 1.4  # a picture shows [-_VIEW, _VIEW] both ways
_SIZE = 224  # pixels


# Physics -------------------------------------------------------------------------------------------------------------


def squared_distances(a: Array, b: Array) -> Array:
    """[N, M] between points a [N, 2] and b [M, 2]."""
    x, y = (a[:, None, i] - b[None, :, i] for i in (0, 1))
    return x * x + y * y


def contact_forces(positions: Array, radii: Array, fixed: Array | None = None, fixed_radii: Array = 0.0) -> Array:
    """What discs are pushed with where they touch, [N, 2].

    Two discs whose centers are d apart push each other away with f k softplus((r + r' - d) / k), f = CONTACT_FORCE,
    k = CONTACT_MARGIN. Where d = 0 there is no direction and no push (the original divides by 0).

    Few discs go by pairs (i, j) with i < j, as columns of a matrix with 1 at i and -1 at j: what i gets, j gets
    reversed. A processor then works on all pairs of all environments in one row, which is five times as fast for 3 to
    10 discs. Many go by the square of all with all.

    Args:
      positions, radii: [N, 2] and [N] of discs that move.
      fixed, fixed_radii: [M, 2] and [M] of those that do not.
    """
    num = len(positions)
    bodies = positions if fixed is None else jnp.concatenate([positions, fixed])
    radii = radii if fixed is None else jnp.concatenate([radii, fixed_radii])
    if len(bodies) > _FEW:
        x, y = (positions[:, None, i] - bodies[None, :, i] for i in (0, 1))
        push = _push(x, y, radii[:num, None] + radii)
        return jnp.stack([jnp.sum(x * push, 1), jnp.sum(y * push, 1)], 1)
    pairs = _pairs(num, len(bodies))
    apart = exact_dot(bodies.T, pairs)  # [2, pairs]
    push = _push(*apart, exact_dot(radii, np.abs(pairs)))
    return exact_dot(pairs[:num], (apart * push).T)


def num_touching(positions: Array, radius: Array) -> Array:
    """[N] float32: how many others each disc touches, all of one radius. Positions [N, 2]; as `contact_forces`."""
    if len(positions) > _FEW:
        touching = squared_distances(positions, positions) < (2.0 * radius) ** 2
        return jnp.sum(touching, 1, dtype=jnp.float32) - 1.0  # without itself
    pairs = _pairs(len(positions), len(positions))
    x, y = exact_dot(positions.T, pairs)
    return exact_dot(np.abs(pairs), (x * x + y * y < (2.0 * radius) ** 2).astype(jnp.float32))


def exact_dot(a: Array, b: Array) -> Array:
    """A product of matrices in float32 on every device: by default, some round its terms."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _push(x: Array, y: Array, reach: Array) -> Array:
    """Force over distance of pairs that are (x, y) apart."""
    distance = jnp.sqrt(x * x + y * y)
    overlap = jnp.logaddexp(0.0, (reach - distance) / CONTACT_MARGIN) * CONTACT_MARGIN
    return CONTACT_FORCE * overlap / jnp.maximum(distance, _TINY)


def _pairs(num: int, total: int) -> np.ndarray:
    """[total, pairs] float32: 1 at i, -1 at j > i, for every pair of which i is one of the first `num`."""
    first, second = np.nonzero(np.triu(np.ones((num, total)), 1))
    return (np.eye(total)[:, first] - np.eye(total)[:, second]).astype(np.float32)


def integrate(
    positions: Array, velocities: Array, forces: Array, damping: Array, max_speed: Array | None = None
) -> tuple[Array, Array]:
    """One step of DT: positions and velocities [N, 2].

    p' = p + v DT; v' = (1 - damping) v + force DT, then no faster than `max_speed` [N]. Positions move by the velocity
    before the step, as in MPE2 and JaxMARL; the first version of these environments moved them by that after it.
    """
    positions = positions + velocities * DT
    velocities = velocities * (1.0 - damping) + forces * DT
    if max_speed is not None:
        speed = jnp.sqrt(jnp.sum(velocities * velocities, 1))
        velocities = velocities * jnp.minimum(1.0, max_speed / jnp.maximum(speed, _TINY))[:, None]
    return positions, velocities


# Actions -------------------------------------------------------------------------------------------------------------


def move_space(continuous: bool) -> spaces.Space:
    """Of a body that only moves: five moves, or how much of each."""
    return spaces.Box(0.0, 1.0, (NUM_MOVES,)) if continuous else spaces.Discrete(NUM_MOVES)


def directions(action: Array, continuous: bool) -> Array:
    """[..., 2] in [-1, 1]: where moves [...] in 0 .. 4, or parts of moves [..., 5], push."""
    if not continuous:
        right, up = ((action == i).astype(jnp.float32) - (action == i - 1) for i in (2, 4))
        return jnp.stack([right, up], -1)
    action = jnp.clip(action, 0.0, 1.0)
    return jnp.stack([action[..., 2] - action[..., 1], action[..., 4] - action[..., 3]], -1)


# Observations --------------------------------------------------------------------------------------------------------


def without_self(x: Array) -> Array:
    """[N, N, ...] without its diagonal, [N, N - 1, ...]: row i is what i has of the others, in order.

    Slices alone. With the first entry dropped, the diagonal is the last column of N - 1 rows of N + 1.
    """
    num, rest = x.shape[0], x.shape[2:]
    x = x.reshape(num * num, *rest)[1:].reshape(num - 1, num + 1, *rest)[:, :-1]
    return x.reshape(num, num - 1, *rest)


def reveal(observation: PyTree, whole: Array) -> PyTree:
    """Each agent's own observation and, beside it, the global state [S]."""
    if isinstance(observation, tuple):
        return tuple({"observation": own, "privileged": whole} for own in observation)
    return {"observation": observation, "privileged": jnp.broadcast_to(whole, (len(observation), whole.size))}


def revealed(space: spaces.Space, size: int) -> spaces.Space:
    """The space of `reveal(observation, whole [size])`."""
    beside = lambda own: spaces.Dict({"observation": own, "privileged": unbounded(size)})  # noqa: E731
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(beside(own) for own in space.spaces))
    return spaces.Repeated(beside(space.space), space.num)


def unbounded(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,))


# Checks and pictures -------------------------------------------------------------------------------------------------


def require_common(name: str, max_steps: int, damping: float, **positive: float) -> None:
    """Checks what all factories take.

    Raises:
      ValueError: if max_steps < 1, damping is outside of [0, 1], or one of the others is not > 0.
    """
    parts.require(max_steps, lambda x: x >= 1, f"{name}: max_steps", "must be >= 1")
    parts.require(damping, lambda x: 0 <= x <= 1, f"{name}: damping", "must be in [0, 1]")
    for argument, value in positive.items():
        parts.require(value, lambda x: x > 0, f"{name}: {argument}", "must be > 0")


def draw(centers: Array, radii: Array, colors: np.ndarray, words: Array | None = None) -> Array:
    """A picture [224, 224, 3] of discs, later ones on top of earlier ones.

    Args:
      centers: [E, 2] x and y, the latter upwards.
      radii: [E].
      colors: [E, 3] uint8.
      words: [S, C] in [0, 1], what S speakers say: a row of squares each, dark where 1.
    """
    pixels = ((jnp.arange(_SIZE) + 0.5) / _SIZE * 2.0 - 1.0) * _VIEW
    across = pixels[None, None, :] - centers[:, 0, None, None]
    down = -pixels[None, :, None] - centers[:, 1, None, None]
    inside = across**2 + down**2 < jnp.reshape(radii, (-1, 1, 1)) ** 2
    top = jnp.max(jnp.where(inside, jnp.arange(1, len(colors) + 1)[:, None, None], 0), axis=0)
    palette = jnp.concatenate([jnp.uint8([pictures.FLOOR]), jnp.asarray(colors, jnp.uint8)])
    picture = palette[top]
    if words is None:
        return picture
    squares = jnp.repeat(jnp.repeat(255.0 * (1.0 - words), 12, 0), 12, 1)
    squares = jnp.broadcast_to(squares[..., None], (*squares.shape, 3)).astype(jnp.uint8)
    return jax.lax.dynamic_update_slice(picture, squares, (0, 0, 0))
