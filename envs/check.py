"""`check_env(env)`: does an environment keep the contract of `jaxrl.types`? Each problem is one line.

First everything that tracing tells (`jaxrl.envs.check_trace`: structures, shapes, dtypes, key reuse; nothing is
compiled), then a short run of random actions in one compiled program, judged on the host (`jaxrl.envs.check_run`, and
`jaxrl.envs.check_silent` for counters and indices).
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import check_run, check_trace
from jaxrl.envs.check_trace import kind
from jaxrl.types import Array, Env


def check_env(env: Env, *, num_steps: int = 64, key: Array | None = None) -> None:
    """Raises if `env` is malformed; see `problems` for what is looked at.

    Raises:
      ValueError: one line for each problem, with what was found and what is allowed.
    """
    found = problems(env, num_steps=num_steps, key=key)
    if found:
        lines = "\n".join(f"- {line}" for line in found)
        raise ValueError(f"check_env: {len(found)} problem{'s' if len(found) > 1 else ''}\n{lines}")


def problems(env: Env, *, num_steps: int = 64, key: Array | None = None) -> list[str]:
    """What is wrong with `env`, a line each; empty if nothing is.

    Looked at: the bundle (kinds, signatures, static spaces, numeric params); whether `reset` and `step` can be traced
    and mapped (over params too), use no key twice, and give the same program when traced again; what they return,
    against the spaces and against each other, with a row an agent where rewards are [A]; then, in a run, whether
    values are finite and inside the space, whether a second run is the same, whether a step resets by itself, whether
    a counter in the state would wrap or stand still before it ends an episode, and whether an index is out of its
    array.

    Args:
      num_steps: length of the run; what happens at ends of episodes is seen only if there are some within it.
      key: of the run; typed. `jax.random.key(0)` if None.
    """
    found = _bundle(env)
    if found:
        return found
    key = jax.random.key(0) if key is None else key
    env = env._replace(params=jax.tree.map(_strong, env.params))
    found, playable = check_trace.problems(env, key)
    return found + check_run.problems(env, num_steps, key) if playable else found


# The bundle ----------------------------------------------------------------------------------------------------------


def _bundle(env: Any) -> list[str]:
    if not isinstance(env, Env):
        return [f"env is {kind(env)}, must be a jaxrl.types.Env (jaxrl.envs has adapters for other libraries)"]
    found = []
    for name, arguments in (("reset", "key, params"), ("step", "key, state, action, params")):
        function = getattr(env, name)
        if not callable(function):
            found.append(f"{name} is {kind(function)}, must be a function ({arguments})")
        elif not _accepts(function, len(arguments.split(", "))):
            found.append(f"{name} takes {inspect.signature(function)}, must take ({arguments})")
    for path, leaf in jax.tree_util.tree_leaves_with_path(env.params):
        if not _is_number(leaf):
            found.append(
                f"params{jax.tree_util.keystr(path)} is {kind(leaf)}, must be an array or a number "
                "(close over static choices)"
            )
    return found + _space("observation_space", env.observation_space) + _space("action_space", env.action_space)


def _accepts(function: Any, num: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * num)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def _is_number(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, (bool, int, float, np.ndarray, np.generic)) and np.asarray(leaf).dtype.kind in "biuf"


def _space(name: str, space: Any) -> list[str]:
    if not isinstance(space, spaces.Space):
        return [f"{name} is {kind(space)}, must be one of jaxrl.spaces: Discrete, MultiDiscrete, Box, Dict, Tuple"]
    if isinstance(space, spaces.Dict):
        return [line for key, inner in space.items for line in _space(f"{name}[{key!r}]", inner)]
    if isinstance(space, spaces.Tuple):
        return [line for i, inner in enumerate(space.spaces) for line in _space(f"{name}[{i}]", inner)]
    if isinstance(space, spaces.Repeated):
        return _space(f"{name}.space", space.space)
    try:
        hash(space)
    except TypeError:
        return [f"{name} cannot be hashed (does it hold an array?), must be static: numbers, strings and tuples"]
    if isinstance(space, spaces.Box):
        try:
            low, high = (np.broadcast_to(b, space.shape) for b in (space.low, space.high))
        except ValueError:
            shapes = f"{np.shape(space.low)} and {np.shape(space.high)}"
            return [f"{name}: low and high have shapes {shapes}, must be numbers or have the shape {space.shape}"]
        if not np.all(low <= high):
            return [f"{name}: low is {space.low} and high is {space.high}, must be low <= high"]
    return []


def _strong(x: Any) -> Array:
    """An array without weak type: what a traced parameter is."""
    return x if isinstance(x, jax.Array) and not x.weak_type else jnp.asarray(x, jnp.result_type(x))
