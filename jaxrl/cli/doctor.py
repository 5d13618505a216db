"""`jaxrl doctor`: versions, devices, rendering, cache; and how to get what is missing."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import operator as op
import os
import platform
import re
import sys
from typing import Callable

from jaxrl.cli import compilation
from jaxrl.cli.errors import BadInput

USAGE = """usage: jaxrl doctor [--render]

Checks versions, devices, rendering and the compilation cache. Exit status 1 if something that jaxrl needs is missing.
--render also draws a picture with MuJoCo, which takes some seconds.
"""
COMPARE = {">=": op.ge, "<=": op.le, "==": op.eq, "!=": op.ne, "<": op.lt, ">": op.gt}
LIBRARIES = {"egl": ("EGL", "apt install libegl1 libgl1-mesa-dri"), "osmesa": ("OSMesa", "apt install libosmesa6")}


def main(argv: list[str]) -> int:
    if argv in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    if argv not in ([], ["--render"]):
        raise BadInput(f"jaxrl doctor takes --render or nothing, not {' '.join(argv)}")
    sections: list[tuple[str, Callable[[], list[tuple[str, str, str]]]]] = [
        ("Versions", versions),
        ("Devices", devices),
        ("Rendering", lambda: rendering(draw=bool(argv))),
        ("Compilation cache", cache),
        ("Optional extras", extras),
    ]
    healthy = True
    for title, section in sections:
        print(title)
        for mark, name, text in section():
            healthy &= mark != "bad"
            print(f"  {mark:<6}{name:<18}{text}")
    print("\nAll is well." if healthy else "\nSomething that jaxrl needs is missing: see the lines marked bad.")
    return 0 if healthy else 1


def versions() -> list[tuple[str, str, str]]:
    """Python and every required package against the ranges that jaxrl declares."""
    try:
        metadata = importlib.metadata.metadata("jaxrl")
    except importlib.metadata.PackageNotFoundError:
        return [("bad", "jaxrl", "is not installed: pip install . (or -e .) in its folder")]
    python, supported = platform.python_version(), metadata["Requires-Python"] or ""
    lines = [check("python", python, supported, f"get Python {supported}")]
    for name, specifier, extra in requirements():
        if not extra:
            lines.append(check(name, installed(name), specifier, f"pip install '{name}{specifier}'"))
    lines.append(check("jaxlib", installed("jaxlib"), "", "pip install jaxlib"))
    return lines


def devices() -> list[tuple[str, str, str]]:
    try:
        import jax

        found = jax.devices()
    except Exception as error:  # a broken plugin raises whatever it likes
        return [("bad", "jax", str(error).strip().splitlines()[0])]
    lines = [("ok", device.platform, device.device_kind) for device in found]
    if found[0].platform == "cpu" and os.path.exists("/proc/driver/nvidia/version"):
        lines.append(("hint", "cuda", "there is an NVIDIA driver; pip install 'jax[cuda12]' to use it"))
    return lines


def rendering(draw: bool) -> list[tuple[str, str, str]]:
    """What pictures of MuJoCo need; training needs none of it."""
    chosen = os.environ.get("MUJOCO_GL", "")
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    lines = [("ok" if chosen or display else "hint", "MUJOCO_GL", chosen or "not set")]
    if not chosen and not display and sys.platform.startswith("linux"):
        lines[0] = ("hint", "MUJOCO_GL", "not set, and there is no display: export MUJOCO_GL=egl")
    for name, (library, how) in LIBRARIES.items() if sys.platform.startswith("linux") else ():
        found = ctypes.util.find_library(library)
        lines.append(("ok", name, found) if found else ("-", name, f"lib{library} is not there; {how}"))
    if draw:
        lines.append(picture(chosen or ("" if display else "egl")))
    return lines


def picture(backend: str) -> tuple[str, str, str]:
    if backend:
        os.environ["MUJOCO_GL"] = backend  # before mujoco is imported: it reads it then
    try:
        import mujoco

        model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
        with mujoco.Renderer(model, 16, 16) as renderer:
            renderer.update_scene(mujoco.MjData(model))
            renderer.render()
        return ("ok", "picture", f"drawn with {backend or 'the display'}")
    except Exception as error:  # each backend fails in its own way
        return ("-", "picture", f"{backend or 'the display'} failed: {(str(error).splitlines() or [''])[0]}")


def cache() -> list[tuple[str, str, str]]:
    folder = compilation.cache_folder()
    files = [f for f in folder.rglob("*") if f.is_file()] if folder.is_dir() else []
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not os.access(parent, os.W_OK):
        return [("hint", "folder", f"{folder} cannot be written to; set JAX_COMPILATION_CACHE_DIR")]
    return [("ok", "folder", f"{folder}, {len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB")]


def extras() -> list[tuple[str, str, str]]:
    missing: dict[str, list[str]] = {extra: [] for _, _, extra in requirements() if extra}
    for name, specifier, extra in requirements():
        if extra and not in_range(installed(name), specifier):
            missing[extra].append(name)
    return [
        ("-", extra, f"missing {', '.join(names)}; pip install 'jaxrl[{extra}]'") if names else ("ok", extra, "")
        for extra, names in missing.items()
    ]


def requirements() -> list[tuple[str, str, str]]:
    """(package, version specifier, extra or "") of what jaxrl declares."""
    try:
        declared = importlib.metadata.requires("jaxrl") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for line in declared:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        name, specifier = re.fullmatch(r"([\w.-]+)(?:\[[^]]*\])?\s*(.*)", requirement.strip()).groups()
        found.append((name, specifier.strip("() "), extra[1] if extra else ""))
    return found


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check(name: str, version: str | None, specifier: str, how: str) -> tuple[str, str, str]:
    if version is None:
        return ("bad", name, f"missing; {how}")
    if not in_range(version, specifier):
        return ("bad", name, f"{version} is not {specifier}; {how}")
    return ("ok", name, f"{version:<12}{specifier}")


def in_range(version: str | None, specifier: str) -> bool:
    """Whether a version satisfies ">=1.2,<2": the comparisons that jaxrl's own metadata use."""
    parts = [
        re.fullmatch(r"([<>=!]=|<|>)(.+)", part).groups() for part in specifier.replace(" ", "").split(",") if part
    ]
    return version is not None and all(COMPARE[sign](release(version), release(bound)) for sign, bound in parts)


def release(version: str) -> tuple[int, ...]:
    """1.2.3rc1 -> (1, 2, 3), without trailing zeros."""
    numbers = [int(n) for n in re.match(r"\d+(?:\.\d+)*", version)[0].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
