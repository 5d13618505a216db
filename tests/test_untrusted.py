"""Strict JSON, settings of a modest size, regular files: what files of others are read with."""

import os

import pytest

from jaxrl import untrusted
from jaxrl.untrusted import BadFile, read_json, read_json_file, require_file, require_memory, require_modest


def nested(depth):
    return "[" * depth + "]" * depth


def test_json_comes_back():
    assert read_json('{"a": [1, -2.5, "x", null, true], "b": {"a": 1e300}}', "f") == {
        "a": [1, -2.5, "x", None, True],
        "b": {"a": 1e300},
    }
    assert read_json(b'"\xc3\xbc"', "f") == "ü" and read_json(nested(untrusted.MAX_DEPTH), "f")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a' is there twice"),
        ('{"x": [{"a": 1, "a": 2}]}', "'a' is there twice"),
        ("NaN", "NaN is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("1e999", "1e999 is not a JSON number"),
        ("9" * 5000, "4300 digits"),
        (nested(untrusted.MAX_DEPTH + 1), "nested deeper than 64"),
        ("[" * 100_000, "nested deeper than 64"),
        ('"' + "x" * untrusted.MAX_JSON + '"', "more than 8 MiB"),
        (b"\x80", "not valid JSON"),
        ("", "not valid JSON"),
        ("{} {}", "not valid JSON"),
    ],
)
def test_what_is_no_json_is_one_line(tmp_path, text, says):
    with pytest.raises(BadFile, match=says) as error:
        read_json(text, "some/file")
    assert str(error.value).startswith("some/file: ") and str(error.value).isprintable()
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadFile, match=says):
        read_json_file(path)


def test_settings_are_modest():
    require_modest({"widths": [8] * 256, "name": "x" * 256, "n": 2**31 - 1, "x": 1e300, "on": True, "none": None}, "f")
    for value in ([8] * 257, "x" * 257, 2**31, -(2**31) - 1, [[1], [[2**31]]], {"a": {"b": [0] * 257}}):
        with pytest.raises(BadFile, match=r"^f\.widths"):
            require_modest({"widths": value}, "f")


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    require_file(tmp_path / "file")
    require_file(tmp_path / "link")
    for name, says in (("loop", "no such file"), ("pipe", "a pipe"), (".", "is a folder"), ("a\0b", "no such file")):
        with pytest.raises(BadFile, match=says):
            require_file(f"{tmp_path}/{name}")


def test_memory_that_nobody_has():
    require_memory(1, "f")
    with pytest.raises(BadFile, match="^f: needs 1,152,921,504,606,846,976 bytes of memory"):
        require_memory(2**60, "f")


def test_a_message_cannot_command_a_terminal():
    assert str(BadFile("a\x1b[2J\n\u202eb")) == "a?[2J??b"
