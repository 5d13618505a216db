"""What a state looks like, written down: its nodes and leaves, what of it does not fit another, and how to rebuild it.

A leaf is {"path", "shape", "dtype"}, a node {"path", "kind"}: "tuple", "list", "dict", "Name(field, field)" for a
NamedTuple, the name of the class for others. Paths are those of policy files: "agent/params/policy/...".
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.checkpoints import arrays
from jaxrl.keys import is_key
from jaxrl.policy_file import named_leaves
from jaxrl.types import PyTree

KEY_IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")


def snapshot(state: PyTree) -> tuple[arrays.Packs, dict[str, np.ndarray]]:
    """Copies all leaves to the host, typed keys as their data. The state may be donated afterwards.

    Returns:
      the arrays to store, and the leaves by path, which are views of them.

    Raises:
      ValueError: if a leaf is not an array of numbers, two have the same path, or there is none.
    """
    leaves = named_leaves(state)
    for name, leaf in leaves:
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)) or not (is_key(leaf) or _is_plain(leaf.dtype)):
            raise ValueError(f"save: {name!r} is {_describe(leaf)}, must be an array of numbers")
    data = {name: jax.random.key_data(leaf) if is_key(leaf) else leaf for name, leaf in leaves}
    if len(data) != len(leaves):
        raise ValueError("save: two leaves have the same key path; rename a dictionary key that contains '/'")
    shapes = {name: stored(leaf) for name, leaf in data.items()}
    packs = arrays.empty(shapes)
    if not packs:
        raise ValueError("save: the state has no numbers")
    for leaf in data.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    copies = arrays.split(packs, shapes)
    for name, leaf in data.items():
        copies[name][...] = np.asarray(leaf)
    return packs, copies


def describe(tree: PyTree) -> dict[str, list[dict[str, Any]]]:
    """{"nodes", "leaves"} of a tree of arrays or `jax.ShapeDtypeStruct`s, in the order of `jax.tree.leaves`."""
    leaves = [{"path": n, "shape": list(np.shape(x)), "dtype": str(_dtype(x))} for n, x in named_leaves(tree)]
    return {"nodes": _nodes(tree, ()), "leaves": leaves}


def misfits(saved: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What of a saved structure is not as wanted, each in a few words."""
    found = {x["path"]: f"{x['dtype']}{x['shape']}" for x in saved["leaves"]}
    needed = {x["path"]: f"{x['dtype']}{x['shape']}" for x in wanted["leaves"]}
    problems = [f"{name!r} is not in the checkpoint" for name in needed if name not in found]
    problems += [f"{name!r} is in the checkpoint only" for name in found if name not in needed]
    problems += [
        f"{n!r} is {found[n]}, must be {kind}" for n, kind in needed.items() if n in found and found[n] != kind
    ]
    kinds, needed_kinds = ({x["path"]: x["kind"] for x in side["nodes"]} for side in (saved, wanted))
    for name, kind in needed_kinds.items():
        if kinds.get(name, kind) != kind:
            problems.append(f"{name!r} is a {kinds[name]}, must be a {kind}")
    if not problems and list(found) != list(needed):
        problems.append("the leaves come in another order")
    if not problems and saved["nodes"] != wanted["nodes"]:
        other = {x["path"] for x in saved["nodes"]} ^ {x["path"] for x in wanted["nodes"]}
        problems.append(f"other containers: {', '.join(map(repr, sorted(other)))}")
    return problems


def stored(like: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the array in which a leaf is stored."""
    if is_key(like):
        like = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(like.shape, like.dtype))
    return tuple(like.shape), np.dtype(like.dtype)


def rebuild(template: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """The arrays in the structure of `template`: numpy where it has numpy, on its devices if it is sharded.

    Raises:
      ValueError: if a leaf's dtype needs jax_enable_x64, or a key an implementation that jaxrl does not know.
    """
    leaves = [_leaf(name, like, arrays[name]) for name, like in named_leaves(template)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _leaf(name: str, like: Any, array: np.ndarray) -> Any:
    if isinstance(like, (np.ndarray, np.generic)):
        return array
    if is_key(like):
        value = jax.random.wrap_key_data(jnp.array(array), impl=_implementation(name, like.dtype))
    else:
        value = jnp.array(array)  # a copy, which may be donated
        if value.dtype != array.dtype:
            raise ValueError(f"{name!r} is {array.dtype}, and needs jax_enable_x64")
        if getattr(like, "weak_type", False) and value.dtype in (jnp.float32, jnp.int32):
            zero = jnp.asarray(0.0 if value.dtype == jnp.float32 else 0)  # a Python number is weak, and stays so
            value = jnp.broadcast_to(zero, value.shape).at[...].set(value)
    sharding = getattr(like, "sharding", None)
    return jax.device_put(value, sharding) if sharding is not None and len(sharding.device_set) > 1 else value


def _implementation(name: str, dtype: Any) -> str:
    known = {str(jax.eval_shape(lambda i=i: jax.random.key(0, impl=i)).dtype): i for i in KEY_IMPLEMENTATIONS}
    if str(dtype) not in known:
        raise ValueError(f"{name!r} is {dtype}, must be one of {', '.join(known)}")
    return known[str(dtype)]


def _is_plain(dtype: Any) -> bool:
    """Numbers and booleans in the byte order of this machine; the dtypes of jax are among them."""
    return dtype.kind in "biufcV" and str(dtype).isidentifier()


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else f"a {type(leaf).__name__}"


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else f"{type(leaf).__name__} "


def _nodes(node: Any, path: tuple) -> list[dict[str, str]]:
    children = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)[0]
    if len(children) == 1 and children[0][0] == ():  # a leaf
        return []
    here = {"path": jax.tree_util.keystr(path, simple=True, separator="/") or "state", "kind": _kind(node)}
    return [here, *(x for (key,), child in children for x in _nodes(child, (*path, key)))]


def _kind(node: Any) -> str:
    name = type(node).__name__
    if hasattr(node, "_fields"):
        return f"{name}({', '.join(node._fields)})"
    if isinstance(node, dict) and not all(isinstance(key, str) for key in node):
        return f"{name} of {', '.join(sorted({type(key).__name__ for key in node}))}"
    return name
