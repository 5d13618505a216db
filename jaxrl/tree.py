"""Reaching into nested states: `find`, `edit`, `edit_hparams`, and selection between whole pytrees."""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp


def select(condition: jax.Array, on_true: Any, on_false: Any) -> Any:
    """`where` over pytrees; `condition` [N] is broadcast over the trailing axes of each leaf."""

    def where(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b)

    return jax.tree.map(where, on_true, on_false)


def find(tree: Any, cls: type) -> list:
    """All nodes of type `cls` in a pytree, in order, outermost first where they nest."""
    found = [x for x in jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, cls)) if isinstance(x, cls)]
    return [y for x in found for y in (x, *(z for child in _children(x) for z in find(child, cls)))]


def edit(tree: Any, cls: type, fn: Callable[[Any], Any]) -> Any:
    """Replaces every outermost node x of type `cls` by `fn(x)`.

    Moving an agent from one loop to another is `edit(state, DQNState, lambda _: other.agent)`.

    Raises:
      ValueError: if there is none.
    """
    if not find(tree, cls):
        raise ValueError(f"edit: there is no {cls.__name__} in the tree, which has a {type(tree).__name__} at its root")
    is_leaf = lambda x: isinstance(x, cls)  # noqa: E731
    return jax.tree.map(lambda x: fn(x) if is_leaf(x) else x, tree, is_leaf=is_leaf)


def edit_hparams(tree: Any, cls: type, **values: Any) -> Any:
    """Sets fields of every hparams bundle of type `cls` inside a state, keeping dtypes.

    Example: `edit_hparams(state, PPOHparams, learning_rate=1e-3)`.

    Raises:
      ValueError: if there is no such bundle, or it has no such field.
    """
    for name in values:
        if name not in cls._fields:
            raise ValueError(f"edit_hparams: {cls.__name__} has no field {name!r}; it has {', '.join(cls._fields)}")

    def set_fields(hp):
        cast = {
            name: jnp.broadcast_to(jnp.asarray(v, jnp.float32), jnp.shape(getattr(hp, name)))
            for name, v in values.items()
        }
        return hp._replace(**cast)

    return edit(tree, cls, set_fields)


def replace_fields(bundle: Any, **values: Any) -> Any:
    """New values for fields of a nested NamedTuple, each found by its name wherever it is unique.

    A name with dots begins at the top: `**{"manager.learning_rate": 1e-3}` looks inside of the field `manager`,
    "0.learning_rate" inside of the first entry of a plain tuple.

    Raises:
      ValueError: if no bundle inside has such a field, or more than one has.
    """
    for name, value in values.items():
        part, dot, rest = name.partition(".")
        if dot and part in getattr(bundle, "_fields", ()):
            bundle = bundle._replace(**{part: replace_fields(getattr(bundle, part), **{rest: value})})
            continue
        if dot and part.isdigit() and type(bundle) is tuple and int(part) < len(bundle):
            bundle = tuple(replace_fields(x, **{rest: value}) if i == int(part) else x for i, x in enumerate(bundle))
            continue
        bundle, count = _replace_field(bundle, name, value)
        if count != 1:
            known = ", ".join(sorted(field_names(bundle)))
            problem = "is ambiguous" if count else "does not exist"
            raise ValueError(f"hparams: {name!r} {problem}; there are {known}")
    return bundle


def edit_fields(bundle: Any, edits: dict[str, Callable[[Any], Any]]) -> Any:
    """A nested NamedTuple with every number called `name`, at every depth, replaced by `edits[name](number)`."""
    if not isinstance(bundle, tuple):
        return bundle
    if not hasattr(bundle, "_fields"):
        return tuple(edit_fields(x, edits) for x in bundle)
    pairs = zip(bundle._fields, bundle)
    return type(bundle)(
        *(edits[name](x) if name in edits and not isinstance(x, tuple) else edit_fields(x, edits) for name, x in pairs)
    )


def map_hparams(state: Any, edits: dict[str, Callable[[Any], Any]]) -> Any:
    """`edit_fields` on every field called `hparams` inside a state, however deep it is in tuples and dictionaries."""
    if isinstance(state, dict):
        return {name: map_hparams(x, edits) for name, x in state.items()}
    if not isinstance(state, (tuple, list)):
        return state
    if not hasattr(state, "_fields"):
        return type(state)(map_hparams(x, edits) for x in state)
    pairs = zip(state._fields, state)
    return type(state)(*(edit_fields(x, edits) if name == "hparams" else map_hparams(x, edits) for name, x in pairs))


def get_field(bundle: Any, name: str) -> Any:
    """The value of the first field called `name` in a nested NamedTuple, outermost first, or None.

    A name with dots begins at the top, as in `replace_fields`.
    """
    part, dot, rest = name.partition(".")
    if dot and part in getattr(bundle, "_fields", ()):
        return get_field(getattr(bundle, part), rest)
    if dot and part.isdigit() and type(bundle) is tuple and int(part) < len(bundle):
        return get_field(bundle[int(part)], rest)
    if not isinstance(bundle, tuple):
        return None
    if name in getattr(bundle, "_fields", ()) and not isinstance(getattr(bundle, name), tuple):
        return getattr(bundle, name)
    return next((value for value in (get_field(x, name) for x in bundle) if value is not None), None)


def as_arrays(hparams: Any) -> Any:
    """Hyperparameters as float32 arrays, so that they can be traced, swept and checkpointed."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hparams)


def _children(node: Any) -> list:
    children, _ = jax.tree.flatten(node, is_leaf=lambda x: x is not node)
    return children


def _replace_field(bundle: Any, name: str, value: Any) -> tuple[Any, int]:
    """The bundle with its field called `name`, a number, replaced at every depth; how many there were."""
    if not isinstance(bundle, tuple):
        return bundle, 0
    if name in getattr(bundle, "_fields", ()) and not isinstance(getattr(bundle, name), tuple):
        return bundle._replace(**{name: value}), 1
    pairs = [_replace_field(x, name, value) for x in bundle]
    rebuilt = type(bundle)(*(x for x, _ in pairs)) if hasattr(bundle, "_fields") else tuple(x for x, _ in pairs)
    return rebuilt, sum(n for _, n in pairs)


def field_names(bundle: Any) -> set[str]:
    """Names of all numbers in a nested NamedTuple."""
    if not isinstance(bundle, tuple):
        return set()
    numbers = {f for f in getattr(bundle, "_fields", ()) if not isinstance(getattr(bundle, f), tuple)}
    return numbers.union(*(field_names(x) for x in bundle))
