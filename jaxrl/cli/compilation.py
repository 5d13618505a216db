"""Compiling ahead of time, with a cache on disk."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any, Callable


def cache_folder() -> pathlib.Path:
    """JAX_COMPILATION_CACHE_DIR, or jaxrl/xla in the user's cache folder."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(chosen) if chosen else pathlib.Path(home) / "jaxrl" / "xla"


def use_cache() -> str:
    """Turns the persistent compilation cache on, where the program has not yet; says where it is."""
    import jax

    if jax.config.jax_compilation_cache_dir:
        return jax.config.jax_compilation_cache_dir
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"off ({error})"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return str(folder)


def device_name() -> str:
    """As in "cpu" or "NVIDIA H100 (x 4)"."""
    import jax

    devices = jax.devices()
    return devices[0].device_kind + (f" (x {len(devices)})" if len(devices) > 1 else "")


def timed(fn: Callable[[], Any]) -> tuple[Any, float]:
    """fn() and the seconds that it took."""
    started = time.perf_counter()
    return fn(), time.perf_counter() - started
