"""Equations of traced programs: which call a program, which only move elements, which have a known result."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

FOLDED = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "lt": np.less}
LARGEST = 65_536  # elements of a constant that is followed by value


def called(eqn: Any) -> Any:
    """The program that an equation calls with its own operands, if it is such a call."""
    for value in eqn.params.values():
        closed = value if hasattr(value, "consts") else None
        if closed is None and hasattr(value, "eqns"):
            closed = ClosedJaxpr(value, ())
        if closed is not None and [v.aval.shape for v in closed.jaxpr.invars] == [v.aval.shape for v in eqn.invars]:
            return closed
    return None


def moved(eqn: Any, values: list) -> list | None:
    """What becomes of numbers in place of the elements of an array, where an equation only moves these."""
    name, p, x = eqn.primitive.name, eqn.params, values[0]
    shapes = [v.aval.shape for v in eqn.outvars]
    if not all(isinstance(v, np.ndarray) for v in values):
        return None
    if name in ("copy", "convert_element_type", "reshape", "squeeze", "expand_dims", "sharding_constraint"):
        return [x.reshape(shapes[0])]
    if name in ("device_put", "optimization_barrier"):
        return values
    if name == "slice":
        steps = p["strides"] or (1,) * x.ndim
        return [x[tuple(slice(*s) for s in zip(p["start_indices"], p["limit_indices"], steps, strict=True))]]
    if name == "broadcast_in_dim":
        kept = [s if i in p["broadcast_dimensions"] else 1 for i, s in enumerate(shapes[0])]
        kept = [x.shape[p["broadcast_dimensions"].index(i)] if s != 1 else 1 for i, s in enumerate(kept)]
        return [np.broadcast_to(x.reshape(kept), shapes[0])]
    if name == "transpose":
        return [x.transpose(p["permutation"])]
    if name == "concatenate":
        return [np.concatenate(values, p["dimension"])]
    if name in ("split", "gather", "dynamic_slice", "dynamic_update_slice", "scatter", "rev"):
        with jax.ensure_compile_time_eval():
            found = eqn.primitive.bind(*values, **p)
        return [np.asarray(y) for y in (found if eqn.primitive.multiple_results else [found])]
    return None


def known(eqn: Any, values: list) -> np.ndarray | None:
    """The result of an equation over known constants, where it takes no more than moving and adding."""
    name, (out, *more) = eqn.primitive.name, [v.aval for v in eqn.outvars] or [None]
    if more or out is None or int(np.prod(out.shape)) > LARGEST or not all(isinstance(v, np.ndarray) for v in values):
        return None
    if name == "iota":
        shape = [-1 if i == eqn.params["dimension"] else 1 for i in range(len(out.shape))]
        return np.broadcast_to(np.arange(out.shape[eqn.params["dimension"]], dtype=out.dtype).reshape(shape), out.shape)
    if name in FOLDED:
        return np.asarray(FOLDED[name](*values), out.dtype)
    if name == "select_n":
        return np.asarray(np.choose(values[0].astype(int), values[1:]), out.dtype)
    found = moved(eqn, values) if values else None
    return None if found is None else found[0].astype(out.dtype)


def where_is(eqn: Any) -> str:
    from jax._src import source_info_util

    return source_info_util.summarize(eqn.source_info)
