"""The manifest of a step: a JSON file beside its folder that says what is in it, to the bit.

It is written last, in one rename, so a step with a manifest was complete. The bytes of the file are the only ones that
its contents can have, and the digest in it covers the rest: any other byte anywhere is damage.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import stat
from typing import Any

import numpy as np

from jaxrl import untrusted
from jaxrl.policy_file import write_atomically

SCHEMA = 1
_CHUNK = 2**20


class Damaged(Exception):
    """A step that is not what its manifest says: which file, and what is wrong with it, in one line."""

    def __init__(self, line: str):
        super().__init__(printable(line))


def printable(text: str) -> str:
    """One line of at most 500 letters, with a "?" for what cannot be printed: names and errors come from files."""
    return "".join(c if c.isprintable() else "?" for c in text[:500])


def path_of(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"{step}.json"


def numbers(folder: pathlib.Path, suffix: str = "") -> list[int]:
    """Steps N, ascending, for which the folder has an entry called N + suffix."""
    names = [name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)]
    return sorted(int(name) for name in names if _is_number(name))


def write(path: pathlib.Path, fields: dict[str, Any]) -> None:
    """Writes a manifest so that it outlasts a crash of the machine.

    Raises:
      ValueError: if it is too long to be read again. OSError: if the disk is full.
    """
    data = _bytes(fields)
    if len(data) > untrusted.MAX_JSON:
        raise ValueError(f"{path.name} would have {len(data)} bytes, at most {untrusted.MAX_JSON} are read")
    write_atomically(path, data)
    sync(path.parent)


def read(path: pathlib.Path) -> dict[str, Any]:
    """The fields of a manifest.

    Raises:
      Damaged: if it cannot be read or is not, to the bit, what was written.
      ValueError: if it is of another schema.
    """
    try:
        data = _read_bytes(path)
        fields = untrusted.read_json(data, path.name)
        fields.pop("sha256")
        schema, as_written = fields["schema"], _bytes(fields)
    except FileNotFoundError:
        raise Damaged(f"{path.name} is missing") from None
    except untrusted.BadFile as error:
        raise Damaged(str(error)) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(f"{path.name} is not a manifest ({short(error)})") from None
    if data != as_written:
        raise Damaged(f"{path.name} does not agree with its own digest (sha-256)")
    if schema != SCHEMA:
        written = printable(repr(schema)[:40])
        raise ValueError(
            f"{path}: written in schema {written}, this jaxrl reads {SCHEMA}; install the one that wrote it"
        )
    problem = _problem(fields, path)
    if problem:
        raise Damaged(f"{path.name}: {problem}")
    return fields


def digests(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """{"size", "sha256"} of every file under a folder, by its path relative to it.

    Raises:
      Damaged: if there is anything else than files and folders in it.
    """
    return {name: _digest(folder / name, name) for name in _files(folder)}


def verify(folder: pathlib.Path, files: dict[str, dict[str, Any]]) -> None:
    """Checks that a step's folder has exactly these files, and that they are as they were.

    Raises:
      Damaged: naming the first file that is not.
    """
    found = _files(folder)
    for name in sorted(files.keys() | found.keys()):
        shown = f"{folder.name}/{name}"
        if name not in found:
            raise Damaged(f"{shown} is missing")
        if name not in files:
            raise Damaged(f"{shown} is not in the manifest")
        size = found[name]
        if size != files[name]["size"]:
            raise Damaged(f"{shown} has {size} bytes, must have {files[name]['size']}")
        if _digest(folder / name, shown)["sha256"] != files[name]["sha256"]:
            raise Damaged(f"{shown} has other contents than were written (sha-256)")


def array_digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def sync(path: pathlib.Path) -> None:
    """Asks the disk to keep a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: pathlib.Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            sync(pathlib.Path(root, name))
        sync(pathlib.Path(root))
    sync(folder.parent)


def _files(folder: pathlib.Path) -> dict[str, int]:
    """Sizes of all files under a folder."""
    if folder.is_symlink() or not folder.is_dir():
        raise Damaged(f"{folder.name} is not a folder")
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = pathlib.Path(root, name)
            shown = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            try:
                status = path.lstat()
            except OSError as error:
                raise Damaged(f"{shown} cannot be read ({short(error)})") from None
            if stat.S_ISREG(status.st_mode):
                found[path.relative_to(folder).as_posix()] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise Damaged(f"{shown} is a link or a device, must be a file")
    return found


def _digest(path: pathlib.Path, shown: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    try:
        with _open(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise Damaged(f"{shown} cannot be read ({short(error)})") from None
    return {"size": size, "sha256": digest.hexdigest()}


def _open(path: pathlib.Path) -> Any:
    """Opens a file that is one: a link is not followed, a pipe does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("not a file")
    return open(descriptor, "rb")


def _read_bytes(path: pathlib.Path) -> bytes:
    with _open(path) as file:
        return file.read(untrusted.MAX_JSON + 1)


def _bytes(fields: dict[str, Any]) -> bytes:
    """The one way to write these fields down, digest first."""
    digest = hashlib.sha256(json_text(fields).encode()).hexdigest()
    return (json_text({"sha256": digest, **fields}) + "\n").encode()


def json_text(value: Any) -> str:
    return json.dumps(value, indent=1, allow_nan=False)


def _problem(fields: dict[str, Any], path: pathlib.Path) -> str | None:
    """What in a manifest with a right digest no jaxrl has written."""

    def is_digest(x: Any) -> bool:
        return isinstance(x, str) and len(x) == 64

    def is_leaf(x: Any) -> bool:
        shape = x["shape"]
        return (
            isinstance(x["path"], str)
            and isinstance(shape, list)
            and all(type(n) is int and n >= 0 for n in shape)
            and isinstance(x["dtype"], str)
            and is_digest(x["sha256"])
        )

    checks = {
        "step": lambda x: type(x) is int and f"{x}.json" == path.name,
        "config": lambda x: x is None or isinstance(x, dict),
        "notes": lambda x: isinstance(x, dict),
        "score": lambda x: x is None or (type(x) in (int, float) and math.isfinite(x)),
        "files": lambda x: all(type(f["size"]) is int and is_digest(f["sha256"]) for f in x.values()),
        "leaves": lambda x: all(map(is_leaf, x)),
        "nodes": lambda x: all(isinstance(n["path"], str) and isinstance(n["kind"], str) for n in x),
    }
    for name, check in checks.items():
        try:
            if not check(fields[name]):
                return f"{name!r} is malformed"
        except (KeyError, TypeError, AttributeError, OverflowError):
            return f"{name!r} is missing or malformed"
    return None


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 20 and str(int(name)) == name


def short(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
