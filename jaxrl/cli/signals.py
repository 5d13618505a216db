"""Ctrl-C and SIGTERM collected, instead of died of."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import Callable, Iterator


@contextlib.contextmanager
def collected(react: Callable[[list[int]], None]) -> Iterator[list[int]]:
    """The signals that came while the context was open.

    Args:
      react: called with all of them so far, the newest last, whenever one comes.
    """
    received: list[int] = []

    def handler(number: int, frame: object) -> None:
        received.append(number)
        react(received)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in before.items():
            signal.signal(number, old)
