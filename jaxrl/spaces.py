"""What actions and observations may be: static, hashable descriptions with `sample` and `contains`.

A space never holds an array, so a bundle that carries one can be closed over by `jit` or be a static argument of it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Union

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.keys import integers


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n - 1.

    Raises:
      ValueError: if n < 1.
    """

    n: int
    dtype: Any = "int32"

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"Discrete: n is {self.n}, must be >= 1")

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """[*shape], each uniform."""
        return integers(key, shape, self.n).astype(self.dtype)

    def contains(self, x) -> jax.Array:
        """[] bool, traceable."""
        x = jnp.asarray(x)
        return (x >= 0) & (x < self.n)


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """A vector of integers, entry i in 0 .. nvec[i] - 1; shape [len(nvec)]."""

    nvec: tuple[int, ...]
    dtype: Any = "int32"

    def __post_init__(self):
        object.__setattr__(self, "nvec", tuple(int(n) for n in self.nvec))
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"MultiDiscrete: nvec is {self.nvec}, needs at least one entry and all >= 1")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """[*shape, len(nvec)], each entry uniform."""
        return integers(key, (*shape, *self.shape), np.array(self.nvec)).astype(self.dtype)

    def contains(self, x) -> jax.Array:
        x = jnp.asarray(x)
        return jnp.all((x >= 0) & (x < jnp.array(self.nvec)))


@dataclasses.dataclass(frozen=True)
class Box:
    """Arrays of `shape` with low <= x <= high, elementwise.

    Args:
      low, high: one number for all entries, or nested tuples of `shape`; +-inf where unbounded.
      shape: of one item, no batch axis.
      dtype: name of the element type, e.g. "float32", "uint8".
    """

    low: Any
    high: Any
    shape: tuple[int, ...] = ()
    dtype: Any = "float32"

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dtype", jnp.dtype(self.dtype).name)
        for name in ("low", "high"):
            object.__setattr__(self, name, _hashable(getattr(self, name)))

    @property
    def bounded(self) -> bool:
        """Whether every entry has finite bounds on both sides."""
        return all(map(math.isfinite, _flat(self.low))) and all(map(math.isfinite, _flat(self.high)))

    def bounds(self) -> tuple[jax.Array, jax.Array]:
        """low, high as arrays of `shape` (float32, or the dtype when it is an integer)."""
        dtype = self.dtype if jnp.issubdtype(self.dtype, jnp.integer) else jnp.float32
        low, high = (jnp.broadcast_to(jnp.asarray(b, dtype), self.shape) for b in (self.low, self.high))
        return low, high

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        """[*shape, *self.shape]: uniform where bounded, normal (shifted to a single finite bound) elsewhere."""
        (low, high), shape = self.bounds(), (*shape, *self.shape)
        if not jnp.issubdtype(self.dtype, jnp.floating):
            low, high = low.astype(jnp.int32), high.astype(jnp.int32)
            return jax.random.randint(key, shape, low, high + 1).astype(self.dtype)
        if self.bounded:
            return (low + jax.random.uniform(key, shape) * (high - low)).astype(self.dtype)
        key_uniform, key_normal = jax.random.split(key)
        bounded = jnp.isfinite(low) & jnp.isfinite(high)
        uniform = jax.random.uniform(key_uniform, shape)
        inside = jnp.where(bounded, low, 0.0) + uniform * jnp.where(bounded, high - low, 0.0)
        normal = jax.random.normal(key_normal, shape)
        tail = jnp.where(jnp.isfinite(low), low + jnp.abs(normal), normal)
        tail = jnp.where(jnp.isfinite(high), high - jnp.abs(normal), tail)
        return jnp.where(bounded, inside, tail).astype(self.dtype)

    def contains(self, x) -> jax.Array:
        low, high = self.bounds()
        x = jnp.asarray(x)
        return jnp.all((x >= low) & (x <= high))  # False for NaN


@dataclasses.dataclass(frozen=True)
class Dict:
    """A dictionary of spaces, kept as sorted pairs so that it can be hashed; values are dictionaries."""

    items: Any

    def __post_init__(self):
        items = self.items.items() if isinstance(self.items, dict) else self.items
        object.__setattr__(self, "items", tuple(sorted(items)))

    @property
    def spaces(self) -> dict[str, "Space"]:
        return dict(self.items)

    def __getitem__(self, name: str) -> "Space":
        return self.spaces[name]

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> dict:
        keys = jax.random.split(key, len(self.items))
        return {name: space.sample(k, shape) for k, (name, space) in zip(keys, self.items)}

    def contains(self, x) -> jax.Array:
        return jnp.all(jnp.array([space.contains(x[name]) for name, space in self.items]))


@dataclasses.dataclass(frozen=True)
class Tuple:
    """A tuple of spaces (unlike agents, or composite actions); values are tuples."""

    spaces: tuple

    def __post_init__(self):
        object.__setattr__(self, "spaces", tuple(self.spaces))

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> tuple:
        keys = jax.random.split(key, len(self.spaces))
        return tuple(space.sample(k, shape) for k, space in zip(keys, self.spaces))

    def contains(self, x) -> jax.Array:
        return jnp.all(jnp.array([space.contains(v) for space, v in zip(self.spaces, x)]))


@dataclasses.dataclass(frozen=True)
class Repeated:
    """`num` items of one space along a leading axis, [num, ...] in every leaf: those of agents that are alike.

    Raises:
      ValueError: if num < 1.
    """

    space: "Space"
    num: int

    def __post_init__(self):
        if self.num < 1:
            raise ValueError(f"Repeated: num is {self.num}, must be >= 1")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a value, where the space is not a Dict or Tuple."""
        return (self.num, *self.space.shape)

    @property
    def dtype(self) -> Any:
        return self.space.dtype

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()):
        """Leaves [*shape, num, ...], each item uniform."""
        return self.space.sample(key, (*shape, self.num))

    def contains(self, x) -> jax.Array:
        return jnp.all(jax.vmap(self.space.contains)(x))


Space = Union[Discrete, MultiDiscrete, Box, Dict, Tuple, Repeated]


def zeros(space: Space):
    """One item of `space`, all zeros, as arrays of its shapes and dtypes."""
    if isinstance(space, Dict):
        return {name: zeros(s) for name, s in space.items}
    if isinstance(space, Tuple):
        return tuple(zeros(s) for s in space.spaces)
    if isinstance(space, Repeated):
        return jax.tree.map(lambda x: jnp.zeros((space.num, *x.shape), x.dtype), zeros(space.space))
    return jnp.zeros(space.shape, space.dtype)


def stacked(space: Space, *axes: int) -> Space:
    """The space of the same values without `Repeated`: boxes [*axes, num, ...], of integers for discrete parts."""
    if isinstance(space, Repeated):
        return stacked(space.space, *axes, space.num)
    if isinstance(space, Dict):
        return Dict({name: stacked(s, *axes) for name, s in space.items})
    if isinstance(space, Tuple):
        return Tuple(tuple(stacked(s, *axes) for s in space.spaces))
    if not axes:
        return space
    if isinstance(space, Box):
        low, high = space.low, space.high
    else:
        low, high = 0, np.asarray(space.n if isinstance(space, Discrete) else space.nvec) - 1
    low, high = (np.broadcast_to(np.asarray(b, float), (*axes, *space.shape)) for b in (low, high))
    return Box(low, high, low.shape, space.dtype)


def _hashable(bound):
    """A number stays a number, an array or a list becomes nested tuples of floats."""
    if hasattr(bound, "tolist"):
        bound = bound.tolist()
    if isinstance(bound, (list, tuple)):
        return tuple(_hashable(b) for b in bound)
    return float(bound)


def _flat(bound):
    return [bound] if isinstance(bound, float) else [x for b in bound for x in _flat(b)]
