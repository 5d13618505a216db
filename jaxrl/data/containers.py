"""Arrays in .safetensors and .npz files: where each one lies, so that it can be read or memory-mapped; atomic writers.

Every header is checked against the size of the file before anything is allocated, and nothing is ever unpickled.
Formats: https://huggingface.co/docs/safetensors, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import struct
import zipfile
from typing import Any, Iterator, NamedTuple

import ml_dtypes
import numpy as np

from jaxrl.untrusted import MAX_JSON, BadFile, read_json, require_memory

MAX_MEMBERS = 10_000  # arrays of an .npz file
MAX_RATIO = 1100  # deflate packs 1032 bytes into one at best: who claims more lies
_CODES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "F16": "float16"}
_CODES |= {"U32": "uint32", "I32": "int32", "F32": "float32", "U64": "uint64", "I64": "int64", "F64": "float64"}
_DTYPES = {code: np.dtype(name) for code, name in _CODES.items()} | {"BF16": np.dtype(ml_dtypes.bfloat16)}
_DTYPES["C64"] = np.dtype("complex64")
_LOCAL = struct.Struct("<4s5H3L2H")  # a zip member's local header
_UNSIGNED = b"0" * 64  # stands in the place of the digest while it is computed
_BEFORE_DIGEST = b'{"__metadata__": {"sha256": "'  # how the header of our own .safetensors files begins
_ZIP_COMMENT = b"sha256 "


class Entry(NamedTuple):
    """One array of a file.

    Attributes:
      offset: of its first byte; None where it is compressed.
      order: "C" or "F".
    """

    path: str
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int | None
    order: str = "C"

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@contextlib.contextmanager
def reading(path: Any) -> Iterator[None]:
    """Turns whatever a library raises on a broken file into `BadFile`."""
    try:
        yield
    except BadFile:
        raise
    except Exception as error:  # noqa: BLE001  zipfile, json and h5py raise about fifteen types on broken bytes
        line = " ".join(str(error).split())[:200]
        raise BadFile(f"{path}: is damaged or not of this format ({type(error).__name__}: {line})") from None


def safetensors_entries(path: str | os.PathLike) -> tuple[dict[str, Entry], dict[str, str]]:
    """The arrays of a .safetensors file by name, and its metadata."""
    size = os.path.getsize(path)
    with reading(path), open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise BadFile(f"{path}: is cut short: its header says {length} bytes, {size - 8} are there")
        if length > MAX_JSON:
            raise BadFile(f"{path}: has a header of {length} bytes, at most {MAX_JSON} are read")
        header = read_json(file.read(length), path)
        metadata = header.pop("__metadata__", {})
        spans, entries = [], {}
        for name, item in header.items():
            shape, (begin, end) = tuple(item["shape"]), item["data_offsets"]
            if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
                raise BadFile(f"{path}: {name}: shape or offsets are not natural numbers")
            entry = Entry(str(path), name, _DTYPES[item["dtype"]], shape, 8 + length + begin)
            if end - begin != entry.nbytes:
                raise BadFile(f"{path}: {name}: has {end - begin} bytes, its shape needs {entry.nbytes}")
            spans.append((begin, end, name))
            entries[name] = entry
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise BadFile(f"{path}: {name}: begins at byte {begin}, must at {reached}")
        reached = end
    if 8 + length + reached != size:
        raise BadFile(f"{path}: is cut short or too long: its arrays end at byte {8 + length + reached} of {size}")
    return entries, metadata


def npz_entries(path: str | os.PathLike) -> dict[str, Entry]:
    """The arrays of an .npz file by name."""
    size = os.path.getsize(path)
    entries = {}
    with reading(path), open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            raise BadFile(f"{path}: has {len(archive.infolist())} members, at most {MAX_MEMBERS} are read")
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in entries:
                raise BadFile(f"{path}: {member.filename}: is not an array, or there twice")
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(stream)
                head = stream.tell()
            if dtype.kind not in "biuf":
                problem = "holds Python objects, which are never unpickled" if dtype.hasobject else f"is {dtype}"
                raise BadFile(f"{path}: {name}: {problem}; must be numbers")
            stored = member.compress_type == zipfile.ZIP_STORED
            offset = None
            if stored:
                file.seek(member.header_offset)
                fields = _LOCAL.unpack(file.read(_LOCAL.size))
                offset = member.header_offset + _LOCAL.size + fields[-2] + fields[-1] + head
            entry = Entry(str(path), name, dtype, shape, offset, "F" if fortran else "C")
            if entry.nbytes != member.file_size - head or any(n < 0 for n in shape):
                raise BadFile(f"{path}: {name}: has {member.file_size - head} bytes, its shape needs {entry.nbytes}")
            if entry.nbytes > MAX_RATIO * size or (stored and offset + entry.nbytes > size):
                raise BadFile(f"{path}: {name}: claims {entry.nbytes} bytes, more than the file of {size} can hold")
            entries[name] = entry
    return entries


def load(entry: Entry, mmap: bool = False) -> np.ndarray:
    """The array; with `mmap`, one whose pages are read when they are touched."""
    if mmap and entry.offset is None:
        raise BadFile(f"{entry.path}: {entry.name}: is compressed and cannot be memory-mapped; read without mmap")
    if not mmap:
        require_memory(entry.nbytes, f"{entry.path}: {entry.name}")
    with reading(f"{entry.path}: {entry.name}"):
        if entry.offset is not None and math.prod(entry.shape):
            mode = dict(mode="r", offset=entry.offset, shape=entry.shape, order=entry.order)
            mapped = np.memmap(entry.path, entry.dtype, **mode)
            array = mapped if mmap else np.array(mapped, order="C")
        elif entry.offset is not None:
            array = np.zeros(entry.shape, entry.dtype)
        else:
            with np.load(entry.path, allow_pickle=False) as archive:
                array = archive[entry.name]
    if array.dtype == np.bool_ and np.any(array.view(np.uint8) > 1):
        raise BadFile(f"{entry.path}: {entry.name}: holds bytes that are neither 0 nor 1, must be bool")
    return array


def save_safetensors(path: str | os.PathLike, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes the file atomically, array by array."""
    codes = {dtype: code for code, dtype in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"sha256": _UNSIGNED.decode(), **metadata}}
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))  # so that all of them are aligned
    begin = 0
    for name in order:
        x = arrays[name]
        item = {"dtype": codes[np.dtype(x.dtype)], "shape": list(x.shape), "data_offsets": [begin, begin + x.nbytes]}
        header[name], begin = item, begin + x.nbytes
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            for part in parts(arrays[name]):
                file.write(part)
        _seal(file, 8 + len(_BEFORE_DIGEST))


def save_npz(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Writes the file atomically, stored and not compressed, so that it can be memory-mapped."""
    with replacing(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = _ZIP_COMMENT + _UNSIGNED
            for name, x in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # no clock: equal data, equal file
                with archive.open(member, "w", force_zip64=True) as stream:
                    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(x))
                    for part in parts(x):
                        stream.write(part)
        _seal(file, file.tell() - len(_UNSIGNED))


def digest_holds(path: str | os.PathLike) -> bool | None:
    """Whether the SHA-256 that a file of ours holds is its own; None where it holds none. Reads all of the file.

    The digest is that of the whole file with 64 zeros in its place: at the beginning of the header of a .safetensors
    file, at the end of the comment of an .npz file.
    """
    with open(path, "rb") as file:
        begin = file.read(8 + len(_BEFORE_DIGEST))
        at = len(begin)
        if begin[:2] == b"PK":
            at = file.seek(0, os.SEEK_END) - len(_UNSIGNED)
            file.seek(max(0, at - len(_ZIP_COMMENT)))
            if file.read(len(_ZIP_COMMENT)) != _ZIP_COMMENT:
                return None
        elif begin[8:] != _BEFORE_DIGEST:
            return None
        file.seek(at)
        return file.read(len(_UNSIGNED)) == _digest(file, at)


def _seal(file: Any, at: int) -> None:
    """Writes the digest in its place."""
    digest = _digest(file, at)
    file.seek(at)
    file.write(digest)
    file.seek(0, os.SEEK_END)


def _digest(file: Any, at: int) -> bytes:
    """SHA-256, in hexadecimal, of an open file with zeros for the 64 bytes at `at`."""
    file.seek(0)
    found = hashlib.sha256()
    while part := file.read(min(1 << 20, max(0, at - file.tell()))):
        found.update(part)
    found.update(_UNSIGNED)
    file.seek(at + len(_UNSIGNED))
    while part := file.read(1 << 20):
        found.update(part)
    return found.hexdigest().encode()


def parts(x: np.ndarray, size: int = 1 << 24) -> Iterator[memoryview]:
    """The bytes of an array in C order, some rows at a time."""
    rows = max(1, size // max(1, x.nbytes // max(1, len(x)))) if x.ndim else 1
    pieces = (x[i : i + rows] for i in range(0, len(x), rows)) if x.ndim else (x,)
    for piece in pieces:
        yield memoryview(np.ascontiguousarray(piece).reshape(-1).view(np.uint8))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Any]:
    """A file to write to, that takes the place of `path` when all is written: nobody sees half of it."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
