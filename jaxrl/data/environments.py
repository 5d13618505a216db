"""What a dataset says of the environment that it comes from."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxrl.data.dataset import Dataset
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Space, Tuple, zeros
from jaxrl.types import Env, PyTree


def spaces_env(dataset: Dataset) -> Env:
    """The spaces that the data shows, as an environment that cannot be played in: agents can be made for it.

    Integers are `Discrete` up to the largest that occurs; actions are bounded by -1 and 1, or by the least and largest
    of each entry where some are beyond; observations are unbounded.
    """
    data = dataset.transitions

    def refuse(*_: Any) -> Any:
        raise ValueError("this environment is known by a dataset alone: it cannot be played in")

    return Env(refuse, refuse, (), _space(data.observation, False), _space(data.action, True))


def check_fits(dataset: Dataset, env: Env) -> None:
    """Raises ValueError if observations or actions have other shapes or kinds than those of `env`."""
    for name, space in (("observation", env.observation_space), ("action", env.action_space)):
        stored, wanted = getattr(dataset.transitions, name), jax.eval_shape(lambda space=space: zeros(space))
        have = jax.tree.map(lambda x: (x.shape[1:], _kind(x.dtype)), stored)
        want = jax.tree.map(lambda x: (x.shape, _kind(x.dtype)), wanted)
        if have != want:
            raise ValueError(f"{name}: one is {_show(have)}, the environment's is {_show(want)}")
    low, high = _range(dataset.transitions.action)
    if isinstance(env.action_space, Discrete) and not 0 <= low <= high < env.action_space.n:
        raise ValueError(f"action: from {low:g} to {high:g}, the environment has {env.action_space.n}")
    if isinstance(env.action_space, Box):
        least, largest = (np.asarray(x) for x in env.action_space.bounds())
        action = np.asarray(dataset.transitions.action)
        if (action < least - 1e-4).any() or (action > largest + 1e-4).any():
            raise ValueError(f"action: from {low:g} to {high:g}, outside of the environment's {env.action_space}")


def _space(x: PyTree, action: bool) -> Space:
    if isinstance(x, dict):
        return Dict({name: _space(value, action) for name, value in x.items()})
    if isinstance(x, tuple):
        return Tuple(tuple(_space(value, action) for value in x))
    shape, dtype = x.shape[1:], x.dtype
    if np.issubdtype(dtype, np.integer) and (action or not shape):
        most = np.asarray(x).reshape(len(x), -1).max(0)
        return MultiDiscrete(tuple(most + 1)) if shape else Discrete(int(most[0]) + 1, dtype.name)
    if not np.issubdtype(dtype, np.floating):
        return Box(0, 1 if np.issubdtype(dtype, np.bool_) else 255, shape, dtype.name)
    if not action:
        return Box(-np.inf, np.inf, shape, dtype.name)
    low, high = np.asarray(x).min(0), np.asarray(x).max(0)
    within = (low >= -1).all() and (high <= 1).all()
    return Box(-1.0, 1.0, shape, dtype.name) if within else Box(low, high, shape, dtype.name)


def _kind(dtype: Any) -> str:
    return "float" if np.issubdtype(dtype, np.floating) else "integer" if np.issubdtype(dtype, np.integer) else "bool"


def _show(tree: PyTree) -> str:
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, tuple) and len(x) == 2 and isinstance(x[1], str))
    return ", ".join(f"{kind} {list(shape)}" for shape, kind in leaves)


def _range(action: PyTree) -> tuple[float, float]:
    leaves = [np.asarray(x) for x in jax.tree.leaves(action)]
    return float(min(x.min() for x in leaves)), float(max(x.max() for x in leaves))
