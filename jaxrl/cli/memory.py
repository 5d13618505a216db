"""Memory of a process that runs for days."""

from __future__ import annotations

import contextlib
import ctypes
import os

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h


def keep_flat() -> None:
    """Has the C library give freed memory back, and keep few pools of it, where it is glibc; before jax is imported.

    It would else raise the size from which freed arrays go back to the system to that of the largest one so far, and
    have up to eight pools for each core, which the many threads of XLA and of checkpoints fill with holes, a little
    more every hour (`benchmarks/reliability/soak.py`).
    """
    with contextlib.suppress(OSError, AttributeError):
        malloc_option = ctypes.CDLL(None).mallopt
        malloc_option(M_MMAP_THRESHOLD, 256 * 1024)
        malloc_option(M_ARENA_MAX, max(2, os.cpu_count() or 2))
