"""Environments by name: those of jaxrl, and MODULE:NAME for a user's own."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from jaxrl.cli.errors import BadInput, bad_input

_OTHERS = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError)


def make_env(name: str, params: dict[str, Any]) -> Any:
    """The environment called `name`.

    Args:
      name: one of `jaxrl.envs.names()`, or MODULE:NAME: a `jaxrl.Env`, or a function of `params` that makes one.

    Raises:
      BadInput: if there is none, or making it fails.
    """
    if ":" not in name:
        from jaxrl import envs

        given = "".join(f" --env.{key} {value}" for key, value in params.items())
        with bad_input(*_OTHERS, what=f"{name}{given[:200]}"), bad_input(ValueError, ImportError):
            return envs.make(name, **params)
    from jaxrl.types import Env

    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise BadInput(f"{name!r} is not MODULE:NAME")
    if os.getcwd() not in sys.path:  # as for `python -m`: a console script does not see the working directory
        sys.path.insert(0, os.getcwd())
    with bad_input(Exception, what=f"{name}: importing {module_name}"):
        value = importlib.import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise BadInput(f"{name}: module {module_name} has no {attribute!r}")
        value = getattr(value, part)
    if callable(value) and not isinstance(value, Env):
        with bad_input(Exception, what=f"{name}: calling it"):
            value = value(**params)
    elif params:
        raise BadInput(f"{name} is an Env, not a function: it takes no --env.{next(iter(params))}")
    if not isinstance(value, Env):
        raise BadInput(f"{name} is a {type(value).__name__}, must be a jaxrl.Env or a function that returns one")
    return value


def env_numbers(env: Any) -> dict[str, Any]:
    """Fields of `env.params` that are one number: what `--env.KEY` can change, with the values in force."""
    import dataclasses

    import numpy as np

    params = env.params
    names = getattr(params, "_fields", ()) or (
        [f.name for f in dataclasses.fields(params)] if dataclasses.is_dataclass(params) else ()
    )
    values = {name: getattr(params, name) for name in names}
    return {k: np.asarray(v).item() for k, v in values.items() if hasattr(v, "dtype") and np.shape(v) == ()}
