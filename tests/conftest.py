"""One persistent compilation cache for all tests: compile time is what makes them slow."""

import os
import pathlib
import sys

import jax
import pytest

cache = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; sys.path is given back, and modules that were imported from the directory go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before fixtures: most programs here run for a moment, and two thirds of their time goes into optimizing them.

    Results are the same to rounding. Tests marked slow, or `optimized`, compile as users do, and so do processes that
    they start.
    """
    quick = not any(item.get_closest_marker(name) for name in ("slow", "optimized"))
    jax.config.update("jax_disable_most_optimizations", quick)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(quick).lower()
