"""One persistent compilation cache for all tests: compile time is what makes them slow."""

import os
import pathlib

import jax

cache = pathlib.Path(__file__).parent.parent / ".pytest_cache" / "jax"
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(cache)))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
