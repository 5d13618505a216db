"""What a run directory holds: config.json, metrics.jsonl, policy.safetensors, learner.safetensors, result.json, and a
folder of checkpoints.

JSON is strict: a number that is not finite is null in metrics and results, and "inf", "-inf" or "nan" in settings.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import subprocess
from typing import Any

import numpy as np

from jaxrl.cli.errors import BadInput, bad_input

CHECKPOINTS = "checkpoints"
FILES = ("config.json", "metrics.jsonl", "policy.safetensors", "learner.safetensors", "result.json", CHECKPOINTS)

# Of the options, those in config.json.
RECORDED = "reset_pool seed episodes dataset batch_size window demonstrations demonstration_fraction init_from".split()
RECORDED += ["devices", "checkpoints", "checkpoint_steps", "checkpoint_minutes", "keep", "checkpoint_replay"]
FROM_FILES = ("dataset", "demonstrations")  # of them, those that name a file which must still be there to resume


def choose(settings: Any) -> pathlib.Path:
    """The directory for a run, checked and not yet made.

    Raises:
      BadInput: if it exists and is not to be overwritten, or could not be made.
    """
    if settings.options["out"]:
        out = pathlib.Path(settings.options["out"])
    else:
        out = unused(f"{settings.agent_name}-{settings.env_name}-{settings.options['seed']}")
    if out.exists():
        if not settings.options["overwrite"]:
            raise BadInput(f"--out {out} exists; choose another, or add --overwrite")
        names = [p.name for p in out.iterdir() if not is_unfinished(p)] if out.is_dir() else [out.name]
        strangers = [name for name in names if name not in FILES]
        if strangers:
            raise BadInput(f"--out {out} is not a run directory (it has {strangers[0]}); it will not be overwritten")
    require_place(out)
    return out


def require_place(out: pathlib.Path) -> None:
    """Raises BadInput if a folder could not be made, or written to if it is there."""
    parent = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(f"--out {out} cannot be made: {parent} is not a folder that can be written to")


def unused(name: str) -> pathlib.Path:
    """runs/NAME-TIME, which is not there yet."""
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    base = pathlib.Path("runs") / re.sub(r"[^\w.-]+", "_", f"{name}-{time}")
    return next(p for i in range(1000) if not (p := pathlib.Path(f"{base}{f'-{i}' if i else ''}")).exists())


def is_unfinished(path: pathlib.Path) -> bool:
    """Whether this is what a killed run leaves behind of a file of ours that it was writing."""
    return any(re.fullmatch(rf"\.{re.escape(name)}\.\d+\.tmp", path.name) for name in FILES)


def create(out: pathlib.Path, settings: Any, resolved: dict[str, Any]) -> dict[str, Any]:
    """Makes the directory with its config.json, and returns that; what a run that was there has left is removed.

    Raises:
      BadInput: if it cannot be made, or a run is writing there.
    """
    config = {
        **description(settings),
        "plays": settings.plays,
        "requested_steps": settings.options.get("steps", settings.options.get("updates")),
        **{k: v for k, v in settings.options.items() if k in RECORDED},
        **resolved,
        "files": {k: fingerprint(settings.options[k]) for k in FROM_FILES if settings.options.get(k)},
        "versions": versions(),
        "platform": platform.platform(),
        "device": devices(),
        "git": git_state(),
    }
    config = settings_json(config)
    with bad_input(OSError, ValueError, what=f"--out {out}"):
        out.mkdir(parents=True, exist_ok=settings.options["overwrite"])
        remove_checkpoints(out / CHECKPOINTS)
        for path in out.iterdir():
            if path.name in FILES or is_unfinished(path):
                path.unlink()
        write_config(out, config)
    return config


def write_config(out: pathlib.Path, config: dict[str, Any]) -> None:
    from jaxrl.policy_file import write_atomically

    write_atomically(out / "config.json", json_bytes(config))


def remove_checkpoints(folder: pathlib.Path) -> None:
    """Removes the checkpoints of a run that is to be overwritten.

    Raises:
      ValueError: if a run is writing there, or they are not ours.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    from jaxrl.checkpoints import Checkpoints
    from jaxrl.checkpoints.store import remove

    with Checkpoints(folder, say=lambda _: None):  # so no other run writes there
        remove(folder)


def fingerprint(path: str) -> str:
    """SHA-256 of a file, or of a folder's files; of what is above 1 GiB, the size and 1024 pieces of 1 MiB.

    Raises:
      BadInput: if it cannot be read, or is neither.
    """
    digest = hashlib.sha256()
    root = pathlib.Path(path)
    with bad_input(OSError, what=path):
        for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root]:
            if not file.is_file():
                raise BadInput(f"{path}: there is no such file")
            size = file.stat().st_size
            digest.update(f"{file.relative_to(root).as_posix()} {size}\n".encode())
            with open(file, "rb") as opened:
                for start in range(0, size, max(size // 1024, 1 << 20)):
                    opened.seek(start)
                    digest.update(opened.read(1 << 20))
    return digest.hexdigest()


def description(settings: Any) -> dict[str, Any]:
    """What rebuilds the agent: the header of the policy file, and the head of config.json."""
    import jaxrl
    from jaxrl.cli.flags import named_numbers

    return {
        "agent": settings.agent_name,
        "env": {"name": settings.env_name, "params": settings.env_params},
        "static": settings.static,
        "hparams": {name: value for name, value, _ in named_numbers(settings.hparams)},
        "offline": settings.dataset is not None,
        "num_envs": settings.options.get("num_envs", 1),
        "unroll_length": settings.options.get("unroll_length", 1),
        "jaxrl": jaxrl.__version__,
    }


def save_policy(out: pathlib.Path, settings: Any, actor: Any, steps: int) -> None:
    from jaxrl import policy_file

    header = settings_json({**description(settings), "steps": steps})
    policy_file.save_policy(out / policy_file.FILE_NAME, actor, header)


def save_learner(out: pathlib.Path, settings: Any, agent_state: Any, steps: int) -> None:
    """What `--init-from` takes: the learner's state, optimiser and all, without buffer and exploration."""
    from jaxrl import policy_file
    from jaxrl.combinators.replay import learner_state

    header = settings_json({**description(settings), "steps": steps})
    policy_file.save_policy(out / policy_file.LEARNER_FILE_NAME, learner_state(agent_state), header)


def row(metrics: dict[str, np.ndarray], steps: int, seconds: float, rate: float) -> dict[str, float | None]:
    """One line of metrics.jsonl from the metrics [updates] of a chunk.

    Sums over episodes become means of the chunk's episodes ("episode/return_sum" with "episode/count" is
    "episode/return", null if no episode ended); counts and other sums are added; what is left is averaged.
    """
    found: dict[str, float | None] = {"steps": steps, "seconds": seconds, "steps_per_second": rate}
    totals = {k: float(np.sum(v, dtype=np.float64)) for k, v in metrics.items() if k.endswith(("_sum", "count"))}
    for name, value in metrics.items():
        count = name.rsplit("/", 1)[0] + "/count"
        if name.endswith("_sum") and count in totals:
            found[name.removesuffix("_sum")] = totals[name] / totals[count] if totals[count] else None
        else:
            found[name] = totals[name] if name in totals else float(np.mean(value, dtype=np.float64))
    return {name: finite(value) for name, value in found.items()}


def append(out: pathlib.Path, row: dict) -> None:
    """Adds a line to metrics.jsonl."""
    with open(out / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def write_result(
    out: pathlib.Path, evaluation: Any, steps: int, running: float, compile_seconds: float, wall: float
) -> dict[str, Any]:
    """result.json; the figures of the evaluation are null if there was none."""
    from jaxrl.policy_file import write_atomically

    result = {
        **summary(evaluation),
        "steps": steps,
        "steps_per_second": finite(steps / running) if running else None,
        "compile_seconds": compile_seconds,
        "wall_seconds": wall,
    }
    write_atomically(out / "result.json", json_bytes(result))
    return result


def summary(evaluation: Any) -> dict[str, Any]:
    """mean, iqm, its 95 % interval, and the number of episodes; of many agents their mean, with `agents` for each."""
    from jaxrl.statistics import bootstrap_interval, iqm

    if evaluation is None:
        return dict(mean=None, iqm=None, iqm_low=None, iqm_high=None, episodes=0)
    returns = np.asarray(evaluation.returns, np.float64)
    each = {"agents": [finite(float(x)) for x in returns.mean(0)]} if returns.ndim > 1 else {}
    returns = returns.reshape(len(returns), -1).mean(1)
    low, high = bootstrap_interval(returns)
    figures = dict(mean=returns.mean(), iqm=iqm(returns), iqm_low=low, iqm_high=high)
    return {**{k: finite(float(v)) for k, v in figures.items()}, **each, "episodes": len(returns)}


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def settings_json(value: Any) -> Any:
    """Settings as strict JSON values."""
    if isinstance(value, dict):
        return {k: settings_json(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [settings_json(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def versions() -> dict[str, str | None]:
    import jaxrl

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    names = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {"jaxrl": jaxrl.__version__, "python": platform.python_version(), **{n: version(n) for n in names}}


def devices() -> dict[str, Any]:
    import jax

    found = jax.devices()
    return {"platform": found[0].platform, "kind": found[0].device_kind, "count": len(found)}


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory's checkout, and whether files differ from it; None outside of one."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
