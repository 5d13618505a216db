"""What a user did wrong ends in one line and exit status 2; what we did wrong keeps its traceback."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

HINT = "JAXRL_TRACEBACK=1 shows where"


class BadInput(Exception):
    """Bad input, in words for the one who gave it."""


@contextlib.contextmanager
def bad_input(*errors: type[Exception], what: str = "") -> Iterator[None]:
    """Turns exceptions of the given types into `BadInput`; JAXRL_TRACEBACK=1 lets them through.

    Args:
      what: who failed; goes before the message, together with the type of an error that is not a ValueError.
    """
    try:
        yield
    except errors or ValueError as error:
        if os.environ.get("JAXRL_TRACEBACK"):
            raise
        lines = str(error).strip().splitlines() or [""]
        kind, hint = ("", "") if isinstance(error, ValueError) else (f"{type(error).__name__}: ", f" ({HINT})")
        raise BadInput(f"{what}{': ' if what else ''}{kind}{lines[0]}{hint}") from None
