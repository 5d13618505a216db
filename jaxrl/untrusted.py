"""What is read from files that anyone may have written: regular files, strict JSON of a bounded size, room in memory.

Nothing in jaxrl unpickles, or imports or calls what a file names; what is here keeps a file from stalling a program or
filling its memory.
"""

from __future__ import annotations

import json
import math
import os
import stat
from typing import Any

MAX_JSON = 8 << 20  # bytes; a header of a thousand arrays has 0.2 MB
MAX_DEPTH = 64  # objects and lists inside of each other
MAX_ITEMS = 256  # of a list, and letters of a name, where a header chooses settings


class BadFile(ValueError):
    """What is wrong with a file, in one line that names it and the field; what cannot be printed is a "?" in it."""

    def __init__(self, line: str):
        super().__init__("".join(c if c.isprintable() else "?" for c in line))


def require_file(path: str | os.PathLike) -> None:
    """Raises BadFile unless `path` is a regular file, or a link to one: a pipe or a device may never end."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # a loop of links; a name with a NUL
        raise BadFile(f"{path}: there is no such file") from None
    if not stat.S_ISREG(mode):
        raise BadFile(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'}, must be a file")


def read_json_file(path: str | os.PathLike) -> Any:
    """`read_json` of all that is in a file."""
    require_file(path)
    with open(path, "rb") as file:
        return read_json(file.read(MAX_JSON + 1), path)


def read_json(text: str | bytes, what: Any) -> Any:
    """JSON as the standard has it: no NaN or Infinity, no name twice in an object, a depth of at most `MAX_DEPTH`.

    Args:
      what: the file, and the field if need be; begins the message.

    Raises:
      BadFile: saying what is wrong, in one line.
    """
    if len(text) > MAX_JSON:
        raise BadFile(f"{what}: has more than {MAX_JSON >> 20} MiB of JSON")
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_object)
    except RecursionError:
        raise BadFile(f"{what}: has JSON nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:  # of an encoding, too
        raise BadFile(f"{what}: is not valid JSON ({' '.join(str(error).split())[:200]})") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return value
    raise BadFile(f"{what}: has JSON nested deeper than {MAX_DEPTH}")


def require_modest(value: Any, name: str) -> None:
    """Checks settings that a file chooses: they become sizes, and loops while an agent is built.

    Raises:
      BadFile: for a list or a string of more than `MAX_ITEMS` entries, or an integer that takes more than 32 bits.
    """
    if isinstance(value, (str, list, tuple, dict)) and len(value) > MAX_ITEMS:
        raise BadFile(f"{name} has {len(value)} entries, at most {MAX_ITEMS} are read from a file")
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        raise BadFile(f"{name} is {str(value)[:30]}, must fit 32 bits")
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, child in pairs:
        require_modest(child, f"{name}.{key}")


def require_memory(nbytes: int, what: str) -> None:
    """Raises BadFile if `nbytes` are more than the host has free; says nothing where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return
    if nbytes > free:
        raise BadFile(f"{what}: needs {nbytes:,} bytes of memory, and {free:,} are free")


def _children(node: Any) -> list:
    return list(node.values()) if isinstance(node, dict) else node if isinstance(node, list) else []


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text[:30])


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice[:60]!r} is there twice")
    return found
