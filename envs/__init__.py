"""Environments as bundles of pure functions: adapters for simulators, our own tasks, transforms, checks.

`make(name, **params)` builds any of `names()`. Simulators are imported when one of their environments is made.
"""

import importlib

from jaxrl.envs.registry import make, names

__all__ = ["check_env", "diagnostic", "make", "memory", "names", "transforms"]


def __getattr__(name):
    if name == "check_env":
        return importlib.import_module("jaxrl.envs.check").check_env
    if name in ("diagnostic", "memory", "transforms"):
        return importlib.import_module(f"jaxrl.envs.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
