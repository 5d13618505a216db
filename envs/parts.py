"""The parts of a structured space, and functions that go over them and over values of the space together."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.types import Array, Env, PyTree


def require(value: Any, allowed: Callable[[Any], bool], name: str, rule: str) -> None:
    """Raises ValueError if a number is not allowed; a traced one is not looked at."""
    if not isinstance(value, jax.core.Tracer) and not allowed(value):
        raise ValueError(f"{name} is {value}, {rule}")


def require_floats(space: spaces.Space, name: str, bounded: bool = False) -> None:
    """Raises ValueError if no leaf is a Box of floats, or one of them has no bounds although it must."""
    boxes = [leaf for leaf in leaves(space) if is_float(leaf)]
    if not boxes:
        raise ValueError(f"{name} must be a Box of floats or have one as a part, it is {space}")
    if bounded and not all(box.bounded for box in boxes):
        raise ValueError(f"{name} must have finite bounds, it is {space}")


def leaves(space: spaces.Space) -> list[spaces.Space]:
    """The spaces that hold no others, in order; those of a repeated one as often."""
    if isinstance(space, spaces.Dict):
        return [leaf for _, s in space.items for leaf in leaves(s)]
    if isinstance(space, spaces.Tuple):
        return [leaf for s in space.spaces for leaf in leaves(s)]
    if isinstance(space, spaces.Repeated):
        return leaves(space.space) * space.num
    return [space]


def is_float(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and jnp.issubdtype(space.dtype, jnp.floating)


def is_discrete(space: spaces.Space) -> bool:
    return isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))


def map_space(fn: Callable, space: spaces.Space, where: Callable = is_float) -> spaces.Space:
    """The space with `fn(leaf)` in place of the leaves for which `where(leaf)` holds."""
    if isinstance(space, spaces.Repeated):
        return spaces.Repeated(map_space(fn, space.space, where), space.num)
    if isinstance(space, spaces.Dict):
        return spaces.Dict({name: map_space(fn, s, where) for name, s in space.items})
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple(tuple(map_space(fn, s, where) for s in space.spaces))
    return fn(space) if where(space) else space


def map_values(fn: Callable, space: spaces.Space, x: PyTree, where: Callable = is_float) -> PyTree:
    """The value `x` of `space` with `fn(leaf, value)` in place of the values of the leaves for which `where` holds."""
    if isinstance(space, spaces.Dict):
        return {name: map_values(fn, s, x[name], where) for name, s in space.items}
    if isinstance(space, spaces.Tuple):
        return tuple(map_values(fn, s, v, where) for s, v in zip(space.spaces, x, strict=True))
    if isinstance(space, spaces.Repeated):
        return jax.vmap(lambda item: map_values(fn, space.space, item, where))(x)
    return fn(space, x) if where(space) else x


def unbounded(space: spaces.Space) -> spaces.Space:
    """Float parts without bounds."""
    return map_space(lambda s: spaces.Box(-math.inf, math.inf, s.shape, s.dtype), space)


def clip(space: spaces.Space, x: PyTree) -> PyTree:
    """Float parts within their bounds."""
    return map_values(lambda s, v: jnp.clip(v, *s.bounds()), space, x)


def add_noise(key: Array, space: spaces.Space, x: PyTree, std: Array | float) -> PyTree:
    """Independent Gaussian noise on every float entry."""
    space = spaces.stacked(space)
    keys = iter(jax.random.split(key, len(leaves(space))))
    return map_values(lambda s, v: v + std * jax.random.normal(next(keys), s.shape, s.dtype), space, x)


def stack(space: spaces.Box, num: int) -> spaces.Box:
    """`num` items of `space`, concatenated along the last axis (a scalar counts as [1])."""
    low, high = (np.broadcast_to(b, space.shape or (1,)) for b in (space.low, space.high))
    low, high = (np.concatenate([b] * num, axis=-1) for b in (low, high))
    return spaces.Box(bound(low), bound(high), low.shape, space.dtype)


def flatten(space: spaces.Space, x: PyTree) -> Array:
    """A value as one float32 vector: leaves in order, integers of discrete ones as one-hot."""
    if isinstance(space, spaces.Dict):
        return jnp.concatenate([flatten(s, x[name]) for name, s in space.items])
    if isinstance(space, spaces.Tuple):
        return jnp.concatenate([flatten(s, v) for s, v in zip(space.spaces, x, strict=True)])
    if isinstance(space, spaces.Repeated):
        return jax.vmap(lambda item: flatten(space.space, item))(x).reshape(-1)
    if isinstance(space, spaces.Discrete):
        return jax.nn.one_hot(x, space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return jnp.concatenate([jax.nn.one_hot(x[i], n) for i, n in enumerate(space.nvec)])
    return jnp.asarray(x, jnp.float32).reshape(-1)


def flat_space(space: spaces.Space) -> spaces.Box:
    """The space of `flatten(space, x)`."""
    lows, highs = [], []
    for leaf in leaves(space):
        if isinstance(leaf, spaces.Box):
            low, high, size = leaf.low, leaf.high, math.prod(leaf.shape)
        else:
            low, high, size = 0.0, 1.0, leaf.n if isinstance(leaf, spaces.Discrete) else sum(leaf.nvec)
        lows.append(np.broadcast_to(np.reshape(low, -1), (size,)))
        highs.append(np.broadcast_to(np.reshape(high, -1), (size,)))
    low, high = np.concatenate(lows), np.concatenate(highs)
    return spaces.Box(bound(low), bound(high), low.shape)


def render_inner(env: Env) -> Callable | None:
    """`Env.render` for a state that has that of `env` in a field called `env`."""
    return env.render and (lambda state, params: env.render(state.env, params))


def bound(x: np.ndarray) -> Any:
    """A bound as one number where all entries agree."""
    return x.flat[0].item() if x.size and np.all(x == x.flat[0]) else x
