"""The part of `check_env` that looks for what JAX does without a word: counters that wrap or stand still, indices that
are clamped.

A counter is a number of the state that grows by one in every step: a float, or an integer of 8 or 16 bits (one of 32
counts two thousand million steps of one episode). Where an episode goes on through all of the run, it is set to the
last value that its dtype can count to, and to the one before: a step must end the episode there, or an integer stay.

An index is looked at where the step of an environment is a small program; others would take a minute to compile with
the checks in them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxrl.types import Array, Env, PyTree, is_last

_MAX_EQUATIONS = 1000
_NUM_ROWS = 64
_INDEXES = {"gather", "dynamic_slice", "dynamic_update_slice"}


def nothing_held(state: PyTree) -> list[tuple[bool, Any]]:
    """Whether to hold each leaf of a state, and where: nowhere."""
    return [(False, jnp.zeros((), x.dtype if _counts(x) else jnp.int32)) for x in jax.tree.leaves(state)]


def one_less(held: list[tuple[bool, Any]]) -> list[tuple[bool, Any]]:
    return [(is_held, value - value.dtype.type(1)) for is_held, value in held]


def hold(state: PyTree, held: list[tuple[Any, Any]]) -> PyTree:
    """States [N] with the leaves that are held set to their values."""
    leaves, structure = jax.tree.flatten(state)
    leaves = [jnp.where(h, v, x) if _counts(x) and x.ndim == 1 else x for x, (h, v) in zip(leaves, held)]
    return jax.tree.unflatten(structure, leaves)


def last_counts(rows: Any) -> list[tuple[bool, Any]] | None:
    """The counters of a run and the last values that they can take, as `hold` wants them; None if there are none."""
    before, after, ended = _run(rows)
    found = []
    for (_, old), (_, new) in zip(before, after):
        narrow = _counts(old) and old.ndim == 1 and not (jnp.issubdtype(old.dtype, jnp.integer) and old.itemsize > 2)
        change = (new.astype(np.float64) - old.astype(np.float64))[~ended] if narrow else np.zeros(1)
        if len(change) < 2 or not np.all(change == 1):
            found.append((False, jnp.zeros((), old.dtype if _counts(old) else jnp.int32)))
        elif jnp.issubdtype(old.dtype, jnp.integer):
            found.append((True, jnp.asarray(np.iinfo(old.dtype).max, old.dtype)))
        else:
            found.append((True, jnp.asarray(2.0 ** (jnp.finfo(old.dtype).nmant + 1), old.dtype)))
    endless = not np.asarray(is_last(rows.timestep)).any(0).all()
    return found if endless and any(held for held, _ in found) else None


def counters(at_last: Any, one_before: Any, held: list[tuple[bool, Any]]) -> list[str]:
    """Problems, from two runs whose counters were set to their last values, or one less, before every step."""
    _, after, ended = _run(at_last)
    if _run(one_before)[2].any() or ended.any():
        return []
    found = []
    for (path, new), (is_held, value) in zip(after, held):
        last, kind = value.item(), new.dtype.name
        if is_held and jnp.issubdtype(new.dtype, jnp.integer) and np.all(new < last):
            found.append(f"step: state{path} is {kind}, which wraps from {last} to {new[0]}: use int32, or end before")
        elif is_held and not jnp.issubdtype(new.dtype, jnp.integer) and np.all(new == last):
            found.append(f"step: state{path} is {kind}, which cannot count beyond {last:.0f}: use int32, or end before")
    return found


def indices(env: Env, rows: Any, key: Array) -> list[str]:
    """Problems: an index that is out of its array in a step that ends no episode."""
    _, _, ended = _run(rows)
    going = np.resize(np.flatnonzero(~ended), _NUM_ROWS) if not ended.all() else []
    if not len(going):
        return []
    state, action = (
        jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[going], x) for x in (rows.before[0], rows.action)
    )
    one = jax.tree.map(lambda x: x[0], (state, action))
    size, indexes = _size(jax.make_jaxpr(lambda *a: env.step(*a))(key, *one, env.params).jaxpr)
    if size > _MAX_EQUATIONS or not indexes:
        return []
    checked = checkify.checkify(lambda *a: is_last(env.step(*a)[1]), errors=checkify.index_checks)
    try:
        step = jax.jit(jax.vmap(lambda *a: checked(*a)[0], (0, 0, 0, None)))
        error = step(jax.random.split(key, _NUM_ROWS), state, action, env.params).get()
    except (NotImplementedError, IndexError, ValueError):  # checkify does not know how to check everything
        return []
    if error is None:
        return []
    line = error.splitlines()[0].rpartition("out-of-bounds indexing ")[2]
    return [f"step: indexes out of bounds, {line.strip().rstrip('.')}: JAX takes the nearest entry, or writes nothing"]


def _run(rows: Any) -> tuple[list, list, np.ndarray]:
    """(path, leaf [T * N, ...]) of the states before and after every step, and whether it ended an episode."""
    ended = np.asarray(is_last(rows.timestep))
    ended = ended.reshape(*ended.shape[:2], -1).all(axis=2).reshape(-1)

    def flat(state):
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return [
            (jax.tree_util.keystr(p), np.asarray(x).reshape(-1, *x.shape[2:]) if _counts(x) else x) for p, x in leaves
        ]

    return flat(rows.before[0]), flat(rows.after), ended


def _counts(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.integer) or jnp.issubdtype(x.dtype, jnp.floating)


def _size(jaxpr: Any) -> tuple[int, bool]:
    """How many equations a program has, and whether it indexes."""
    size, indexes = 0, False
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        size, indexes = size + 1, indexes or name in _INDEXES or name.startswith("scatter")
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    more, index = _size(inner)
                    size, indexes = size + more, indexes or index
    return size, indexes
