"""What the adapters of simulators share: quiet imports, new values for parameters, stable types."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Array, PyTree


def import_quietly(module: str) -> Any:
    """Imports `module` without what simulators print on standard output at import ("Failed to import warp")."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(module)


def replace(params: PyTree, changes: dict[str, Any], name: str, allowed: list[str] | tuple = ()) -> PyTree:
    """`params` (a NamedTuple or dataclass) with new values for some fields, in the dtype and shape of the old ones.

    Args:
      name, allowed: the environment, and its static parameters: only for the message.

    Raises:
      ValueError: a field that does not exist, or a value of another shape or kind.
    """
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        fields, update = [f.name for f in dataclasses.fields(params)], dataclasses.replace
    else:
        fields, update = list(getattr(params, "_fields", ())), lambda p, **kw: p._replace(**kw)
    for field, value in changes.items():
        if field not in fields:
            choice = ", ".join(sorted({*fields, *allowed})) or "none"
            raise ValueError(f"make: {name} has no parameter {field!r}; allowed: {choice}")
        old = jax.tree.map(jnp.asarray, getattr(params, field))
        if not isinstance(old, jax.Array):
            raise ValueError(f"make: {field!r} of {name} is a structure: replace it in env.params")
        if not _fits(value, old):
            kind = f"{old.dtype}{list(old.shape)}"
            raise ValueError(f"make: {field}={value!r} does not fit {name}, whose {field} is {kind}, by default {old}")
        params = update(params, **{field: jnp.asarray(value, old.dtype)})
    return params


def _fits(value: Any, old: Array) -> bool:
    """Whether `value` is of the shape and kind of `old`, and not an integer beyond its range."""
    try:
        new = np.asarray(value)
        exact = new.dtype.kind not in "iu" or bool(np.all(new.astype(old.dtype) == new))
        return np.can_cast(new.dtype, old.dtype, "same_kind") and new.shape == old.shape and exact
    except (TypeError, ValueError):  # ragged, or no number at all
        return False


def strong(x: Any) -> Array:
    """An array without weak type, so that one compilation serves Python numbers and arrays."""
    x = jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype)


def cast(tree: PyTree, types: PyTree) -> PyTree:
    """Leaves in the dtypes of `types`: what a step returns has the types of what a reset returns. Keys stay keys."""

    def one(x, t):
        return x if jnp.issubdtype(t.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, t.dtype)

    return jax.tree.map(one, tree, types)
