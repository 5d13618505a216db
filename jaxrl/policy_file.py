"""Policy files: one safetensors file with what acting needs, and a JSON header that says how to rebuild the agent.

The file holds the arrays of `agent.actor(state)` under their key paths ("agent/params/policy/...") and, in its
metadata, the names and choices that `make_agent` takes. There is no code in it: reading one never runs what it names.
The metadata also holds the SHA-256 of the whole file, with zeros in its place: what is damaged is never loaded.
Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.keys import is_key
from jaxrl.types import Agent, Env, PyTree
from jaxrl.untrusted import BadFile, read_json, require_file, require_modest

SCHEMA = 2
FILE_NAME = "policy.safetensors"
LEARNER_FILE_NAME = "learner.safetensors"  # of a run: all that the learner learned, where another run can start
_KEY = "jaxrl"  # of the metadata entry that holds the header


class SavedPolicy(NamedTuple):
    """A policy and all that acting and evaluating need."""

    agent: Agent
    state: PyTree
    env: Env
    header: dict[str, Any]


def save_policy(path: str | os.PathLike, actor: PyTree, header: dict[str, Any]) -> None:
    """Writes arrays and header to one file, atomically: a reader sees the old file or the new one.

    Args:
      actor: `agent.actor(state)`. Typed PRNG keys in it are not stored.
      header: JSON values; `schema` is added. For `load`: `agent` (name), `env` ({"name", "params"}), `static`
        (keywords of the builder), `offline` (whether the learner stood alone), `num_envs`, `unroll_length`.

    Raises:
      ValueError: if two leaves have the same key path.
    """
    from jaxrl.data.containers import save_safetensors

    leaves = [(name, leaf) for name, leaf in named_leaves(actor) if not is_key(leaf)]
    arrays = {name: np.asarray(jax.device_get(leaf), order="C") for name, leaf in leaves}
    if len(arrays) != len(leaves):
        raise ValueError("save_policy: two leaves have the same key path; rename a dictionary key that contains '/'")
    save_safetensors(path, arrays, {_KEY: json.dumps({"schema": SCHEMA, **header}, allow_nan=False)})


def load_policy(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a policy file. Returns the arrays by key path, and the header.

    Raises:
      ValueError: if the file is missing, malformed, truncated, damaged, of another schema, or not a policy file.
    """
    from jaxrl.data.containers import digest_holds, load, safetensors_entries

    require_file(path)
    try:
        sound = digest_holds(path)
        entries, metadata = safetensors_entries(path)
    except (OSError, ValueError) as error:
        raise BadFile(f"{path}: not a readable safetensors file ({str(error).removeprefix(f'{path}: ')})") from None
    try:
        header = read_json(metadata[_KEY], path)
        schema = header["schema"]
    except (KeyError, TypeError):
        raise BadFile(f"{path}: has no jaxrl header, so it is not a policy file of jaxrl") from None
    if schema != SCHEMA:
        raise BadFile(
            f"{path}: written in schema {str(schema)[:30]}, this jaxrl reads {SCHEMA}; install the version it names"
        )
    if not sound:
        raise BadFile(f"{path}: is damaged: its digest is {'missing' if sound is None else 'wrong'}")
    return {name: load(entry) for name, entry in entries.items()}, header


def restore(template: PyTree, arrays: dict[str, np.ndarray]) -> PyTree:
    """The arrays in the structure of `template` (arrays or `jax.ShapeDtypeStruct`s).

    Raises:
      ValueError: naming every array that is missing, unexpected, or of another shape or dtype.
    """
    expected = {name: leaf for name, leaf in named_leaves(template) if not is_key(leaf)}
    problems = [f"{name!r} is missing" for name in expected if name not in arrays]
    problems += [f"{name!r} is unexpected" for name in arrays if name not in expected]
    for name, leaf in expected.items():
        if name in arrays and (arrays[name].shape, arrays[name].dtype) != (leaf.shape, leaf.dtype):
            problems.append(f"{name!r} is {_kind(arrays[name])}, must be {_kind(leaf)}")
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise ValueError(f"the arrays do not fit the agent: {shown}")

    def filled(name: str, like: Any) -> jax.Array:
        if is_key(like):  # acting takes its key as an argument; a key in the state is the learner's
            return jax.random.split(jax.random.key(0), like.shape)
        return jax.numpy.asarray(arrays[name])

    return jax.tree.unflatten(jax.tree.structure(template), [filled(*pair) for pair in named_leaves(template)])


def load(path: str | os.PathLike, env: Env | None = None) -> tuple[Agent, PyTree]:
    """A trained agent, ready to act: `agent.act_greedy(key, state, memory, observation)`.

    Args:
      path: a run directory or a policy file.
      env: the environment it was trained in; needed only if that was not one of `jaxrl.envs.names()`.

    Returns:
      agent, and its state without what only learning needs.

    Raises:
      ValueError: if the file cannot be read, or does not fit the agent that its header describes.
    """
    saved = load_saved(path, env)
    return saved.agent, saved.state


def load_saved(path: str | os.PathLike, env: Env | None = None) -> SavedPolicy:
    """`load`, with the environment and the header."""
    from jaxrl.envs import make, names
    from jaxrl.factory import make_agent
    from jaxrl.loop import example_data

    path = pathlib.Path(path)
    file = path / FILE_NAME if path.is_dir() else path
    arrays, header = load_policy(file)
    try:
        name, env_name, env_params = header["agent"], header["env"]["name"], _tuples(header["env"]["params"])
        static, shape = _tuples(header["static"]), (int(header["num_envs"]), int(header["unroll_length"]))
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise BadFile(f"{file}: its header lacks {error}") from None
    if env is None and (not isinstance(env_name, str) or env_name not in names()):
        # A file must not choose code to run: MODULE:NAME could be any function of any module.
        raise BadFile(
            f"{file}: trained in {str(env_name)[:60]}, which is none of jaxrl's environments: give it as `env`"
        )
    require_modest({"env": env_params, "static": static, "num_envs": shape}, f"{file}: its header")
    try:
        env = make(env_name, **env_params) if env is None else env
        agent, hparams = make_agent(name, env, offline=bool(header.get("offline", False)), **static)
        example = jax.eval_shape(lambda: example_data(env, *shape))
        template = jax.eval_shape(lambda key: agent.actor(agent.init(key, hparams, _zeros(example))), jax.random.key(0))
        return SavedPolicy(agent, restore(template, arrays), env, header)
    except Exception as error:  # noqa: BLE001  a header may ask for anything: a size of 0, a gigabyte, a name as a number
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        raise BadFile(f"{file}: {kind}{' '.join(str(error).split())[:300]}") from None


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file that is never seen half-written: a temporary one beside it, then a rename."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """(key path, leaf) of every leaf: "agent/params/policy/..."."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/") or "value", leaf) for path, leaf in paths]


def _kind(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), shapes)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
