"""Memory of a process that runs for days."""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def keep_flat() -> None:
    """Has the C library give large arrays back to the system as soon as they are freed, where it is glibc.

    It would else raise the size from which it does so to that of the largest array freed so far, and keep smaller ones
    for each of the many threads that copy states into checkpoints (`benchmarks/reliability/soak.py`).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 256 * 1024)
