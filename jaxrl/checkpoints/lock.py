"""One writer a folder: a lock that the kernel lets go of when its holder dies."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Callable

NAME = "jaxrl.lock"  # also the sign that a folder is one of ours


def acquire(folder: pathlib.Path, say: Callable[[str], None]) -> int:
    """Locks a folder. Returns a descriptor to close, which unlocks it.

    Raises:
      ValueError: naming the process that holds it.
    """
    import fcntl

    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            say(f"checkpoint: {folder} cannot be locked ({error.strerror}): let no second process write there")
            return descriptor
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise ValueError(f"{folder}: process {holder or 'unknown'} is writing there; one writer at a time") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
