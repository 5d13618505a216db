"""What every dataset must be, checked where one comes in or goes out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxrl.data.successors import Successors
from jaxrl.types import PyTree, Transition


def check(transitions: Transition, what: str = "dataset") -> None:
    """Checks what every function here relies on; `what` begins the message.

    Raises:
      ValueError: naming the field: a leaf of another length or of an unfit dtype, numbers that are not finite, an
        observation unlike its successor, a last row that ends no episode.
    """
    reward = transitions.reward
    for name, leaf in named_leaves(transitions._asdict()):
        if not hasattr(leaf, "dtype"):
            raise ValueError(f"{what}: {name} is a {type(leaf).__name__}, must be an array")
    if reward.ndim != 1 or not reward.shape[0]:
        raise ValueError(f"{what}: reward has shape {tuple(reward.shape)}, must be one number a row, at least one row")
    if np.dtype(reward.dtype) != np.float32:
        raise ValueError(f"{what}: reward is {reward.dtype}, must be float32")
    for name in ("terminated", "truncated"):
        if np.dtype(getattr(transitions, name).dtype) != np.bool_:
            raise ValueError(f"{what}: {name} is {getattr(transitions, name).dtype}, must be bool")
    for name, leaf in named_leaves(transitions._asdict()):
        if leaf.ndim < 1 or leaf.shape[0] != reward.shape[0]:
            raise ValueError(f"{what}: {name} has shape {tuple(leaf.shape)}, reward has {tuple(reward.shape)}")
        if np.dtype(leaf.dtype).kind not in "biufV":  # V: bfloat16
            raise ValueError(f"{what}: {name} is {leaf.dtype}, must be numbers")
        if not isinstance(leaf, Successors):  # they are rows of the observation
            require_finite(leaf, name, what)
    kind, other = (
        jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), tree)
        for tree in (transitions.observation, transitions.next_observation)
    )
    if kind != other:
        raise ValueError(f"{what}: next_observation has {other}, must be as observation, {kind}")
    if not (transitions.terminated[-1] or transitions.truncated[-1]):
        raise ValueError(f"{what}: truncated is False in the last row, which must end its episode")


def require_finite(x: Any, name: str, what: str, rows: int = 1 << 16) -> None:
    """Raises ValueError with the first row of floats [D, ...] that are not finite; reads `rows` at a time."""
    if np.dtype(x.dtype).kind in "biu":
        return
    for start in range(0, x.shape[0], rows):
        part = np.asarray(x[start : start + rows])
        bad = ~np.isfinite(part.astype(np.float32) if part.dtype.kind == "V" else part)
        if bad.any():
            row = start + int(np.argwhere(bad)[0, 0])
            raise ValueError(f"{what}: {name} is not finite in row {row}")


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Leaves with their key paths, as in "observation/position"."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in paths]
