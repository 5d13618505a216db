"""The part of `check_env` that only traces: what `reset` and `step` return, and whether JAX can work with them."""

from __future__ import annotations

import re
import traceback
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.types import Array, Env, PyTree, TimeStep

_AGENTS = ("log_prob", "memory", "next_value", "raw_action", "value")  # names that agents record
_ROWS = ("weight", "num_steps")  # names that an environment may record, as numbers with a meaning for every learner
_RETURNS = {"reset": "state, observation", "step": "state, TimeStep"}


def problems(env: Env, key: Array) -> tuple[list[str], bool]:
    """Problems, and whether the environment can be played at all."""
    found, types = _returns(env, key)
    if types is None:
        return found, False
    broken = _purity(env, key, types) or _vmapped(env, key, types) or _keys(env, key, types)
    return found + broken, not (found or broken)


# What reset and step return ------------------------------------------------------------------------------------------


def _returns(env: Env, key: Array) -> tuple[list[str], tuple | None]:
    """Problems, and the types of (state, action), or None where a step cannot be traced or is not a step."""
    started, error = _trace("reset", env.reset, key, env.params)
    if error or not _is_pair(started):
        return [error or _not_a_pair("reset", started)], None
    state, observation = started
    found = _observation("reset", env.observation_space, observation)
    if found and not _observation("reset", env.observation_space, state):
        return ["reset returns observation, state: must return state, observation"], None
    action = jax.eval_shape(env.action_space.sample, key)
    stepped, error = _trace("step", env.step, key, state, action, env.params)
    if error or not _is_pair(stepped):
        return [*found, error or _not_a_pair("step", stepped)], None
    then, timestep = stepped
    if not isinstance(timestep, TimeStep):
        return [*found, f"step returns state and a value {kind(timestep)}, must return state, TimeStep"], None
    found += _observation("step", env.observation_space, timestep.observation) + _outcome(timestep)
    found += _agents(env, timestep)
    changes = _changes(state, then)
    return found + changes, None if changes else (state, action)


def _is_pair(returned: Any) -> bool:
    return type(returned) in (tuple, list) and len(returned) == 2


def _not_a_pair(name: str, returned: Any) -> str:
    what = f"{len(returned)} values" if type(returned) in (tuple, list) else f"one value {kind(returned)}"
    return f"{name} returns {what}, must return 2: {_RETURNS[name]}"


def _observation(source: str, space: spaces.Space, x: PyTree, path: str = "") -> list[str]:
    """An observation's structure, shapes and dtypes against its space."""
    name = f"{source}: observation{path}"
    if isinstance(space, spaces.Dict):
        if not isinstance(x, dict) or x.keys() != space.spaces.keys():
            has = sorted(x) if isinstance(x, dict) else kind(x)
            return [f"{name} is {has}, its space is a Dict of {sorted(space.spaces)}"]
        return [line for key, s in space.items for line in _observation(source, s, x[key], f"{path}[{key!r}]")]
    if isinstance(space, spaces.Tuple):
        if not isinstance(x, tuple) or len(x) != len(space.spaces):
            has = f"a tuple of {len(x)}" if isinstance(x, tuple) else kind(x)
            return [f"{name} is {has}, its space is a Tuple of {len(space.spaces)}"]
        return [line for i, s in enumerate(space.spaces) for line in _observation(source, s, x[i], f"{path}[{i}]")]
    if isinstance(space, spaces.Repeated):
        return _observation(source, spaces.stacked(space), x, path)
    if not _is_array(x):
        return [f"{name} is {kind(x)}, must be one array, as its space {space} says"]
    found = []
    if x.shape != space.shape:
        found.append(f"{name} has shape {x.shape}, its space says {space.shape}")
    if x.dtype != jnp.dtype(space.dtype):
        found.append(f"{name} is {x.dtype}, its space says {jnp.dtype(space.dtype)}")
    return found


def _outcome(timestep: TimeStep) -> list[str]:
    """Reward, ends and extras of a step."""
    found = []
    reward = timestep.reward
    shape = None  # of the ends and the weight, where the reward tells
    if not _is_array(reward):
        found.append(f"step: reward is {kind(reward)}, must be one float32 array")
    else:
        if reward.ndim > 1 or reward.shape == (1,):
            found.append(f"step: reward has shape {reward.shape}, must be a scalar () (or [A] with A > 1 agents)")
        else:
            shape = reward.shape
        if reward.dtype != jnp.float32:
            found.append(f"step: reward is {reward.dtype}, must be float32")
    for name in ("terminated", "truncated"):
        end = getattr(timestep, name)
        if not _is_array(end):
            found.append(f"step: {name} is {kind(end)}, must be a bool array (False where it never happens)")
            continue
        if end.dtype != jnp.bool_:
            found.append(f"step: {name} is {end.dtype}, must be bool")
        if shape not in (None, end.shape):
            found.append(f"step: {name} has shape {end.shape}, must have the shape of the reward, {shape}")
    if not isinstance(timestep.extras, dict):
        return [*found, f"step: extras is {kind(timestep.extras)}, must be a dict"]
    for name, value in timestep.extras.items():
        if name in _AGENTS:
            found.append(f"step: extras has {name!r}, which agents record ({', '.join(_AGENTS)}): rename it")
        if name in _ROWS and not (_is_array(value) and value.shape in ((), shape)):
            has = getattr(value, "shape", kind(value))
            found.append(f"step: extras[{name!r}] has shape {has}, must be a scalar or have the shape of the reward")
    return found


def _agents(env: Env, timestep: TimeStep) -> list[str]:
    """Where a reward is [A]: one action, one observation, and one row of every extra, an agent."""
    if not _is_array(timestep.reward) or timestep.reward.ndim > 1:
        return []  # said already
    num = timestep.reward.shape[0] if timestep.reward.shape else 1
    kinds = {"action_space": env.action_space, "observation_space": env.observation_space}
    sizes = {name: _num_items(space) for name, space in kinds.items()}
    if num == 1:
        many = isinstance(env.action_space, spaces.Repeated)
        return [
            f"step: reward has shape (), must be [{sizes['action_space']}] as actions are {env.action_space}"
        ] * many
    found = [
        f"{name} is {kinds[name]}, must be a Repeated or a Tuple of {num} spaces, as the reward is of {num} agents"
        for name, size in sizes.items()
        if size != num
    ]
    for path, leaf in jax.tree_util.tree_leaves_with_path(timestep.extras):
        alone = path[0].key in _ROWS and leaf.shape == ()
        if not alone and leaf.shape[:1] != (num,):
            found.append(
                f"step: extras{jax.tree_util.keystr(path)} has shape {leaf.shape}, must be [{num}, ...]: a row an agent"
            )
    return found


def _num_items(space: spaces.Space) -> int:
    """For how many agents values of a space are."""
    if isinstance(space, spaces.Repeated):
        return space.num
    return len(space.spaces) if isinstance(space, spaces.Tuple) else 1


def _changes(state: PyTree, then: PyTree) -> list[str]:
    """How the types of the state after a step differ from those after a reset."""
    before, after = (dict(jax.tree_util.tree_leaves_with_path(s)) for s in (state, then))
    before, after = ({jax.tree_util.keystr(p): x for p, x in leaves.items()} for leaves in (before, after))
    if jax.tree.structure(state) != jax.tree.structure(then):
        lost, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
        how = (
            "; ".join(
                f"{name}: {', '.join(f'state{p}' for p in paths)}"
                for name, paths in (("without", lost), ("with", new))
                if paths
            )
            or f"{kind(state)} became {kind(then)}"
        )
        return [f"step: state has another structure than after reset ({how})"]
    found = []
    for path, old in before.items():
        new = after[path]
        if old.shape != new.shape:
            found.append(f"step: state{path} has shape {new.shape}, after reset {old.shape}: must not change")
        elif old.dtype != new.dtype:
            found.append(f"step: state{path} is {new.dtype}, after reset {old.dtype}: must not change")
        elif old.weak_type != new.weak_type:
            kinds = ["weakly typed (a Python number)" if x.weak_type else "strongly typed" for x in (new, old)]
            found.append(f"step: state{path} is {kinds[0]}, after reset {kinds[1]}: must not change (jnp.float32(x))")
    return found


# Tracing -------------------------------------------------------------------------------------------------------------


def _vmapped(env: Env, key: Array, types: tuple) -> list[str]:
    keys = jax.random.split(key, 2)
    state, action = jax.tree.map(_two, types)
    found = []
    for axis, params, over in ((None, env.params, ""), (0, jax.tree.map(_two, env.params), " over params")):
        for name, arguments in (("reset", ()), ("step", (state, action))):
            function = jax.vmap(getattr(env, name), in_axes=(0,) * (1 + len(arguments)) + (axis,))
            _, error = _trace(name, function, keys, *arguments, params, how=f"vmapped{over}")
            if error:
                found.append(error)
        if found:
            break
    return found


def _keys(env: Env, key: Array, types: tuple) -> list[str]:
    """Keys that are used twice: within a reset, within a step, or by way of the state."""
    state, action = types

    def chain(reset_key, first, second, action, params):
        state, _ = env.reset(reset_key, params)
        state, _ = env.step(first, state, action, params)
        return env.step(second, state, action, params)

    k = jax.random.split(key, 3)
    for what, function, arguments in (
        ("reset uses a key twice", env.reset, (k[0], env.params)),
        ("step uses a key twice", env.step, (k[0], state, action, env.params)),
        ("a key that was used before stays in the state", chain, (k[0], k[1], k[2], action, env.params)),
    ):
        try:
            with jax.debug_key_reuse(True):
                jax.jit(lambda *a, function=function: function(*a)).trace(*arguments)
        except jax.errors.KeyReuseError as error:
            # A `scan` that selects between keys is reported too, although each is used once.
            if "don't match sourced outputs" not in str(error):
                return [f"{what}{_where(error)}: use jax.random.split, and each key once"]
    return []


def _purity(env: Env, key: Array, types: tuple) -> list[str]:
    """Functions that give something else when traced again: a counter, a global, numpy's random numbers."""
    found = []
    for name, arguments in (("reset", (key, env.params)), ("step", (key, *types, env.params))):
        try:
            first, second = (_program(getattr(env, name), *arguments) for _ in range(2))
        except jax.errors.JAXTypeError as error:  # the first time, it could be traced
            return [*found, f"{name} cannot be traced twice: {_explain(error)}{_where(error)}"]
        if first != second:
            found.append(
                f"{name} is not a function of its arguments: traced twice, it gives two programs "
                "(a counter, a global, or numpy.random?)"
            )
    return found


def _program(function: Any, *arguments: Any) -> tuple:
    """A traced function as something to compare."""
    closed = jax.make_jaxpr(lambda *a: function(*a))(*arguments)
    for const in closed.consts:
        if isinstance(const, jax.core.Tracer):
            raise jax.errors.UnexpectedTracerError(f"{const} of an earlier trace")
    consts = [jax.random.key_data(c) if jnp.issubdtype(c.dtype, jax.dtypes.prng_key) else c for c in closed.consts]
    return re.sub(r"0x[0-9a-f]+", "", str(closed.jaxpr)), [np.asarray(c).tobytes() for c in consts]


def _trace(name: str, function: Any, *arguments: Any, how: str = "traced") -> tuple[Any, str]:
    """Types of what the function returns, or why it cannot be traced."""
    try:
        return jax.eval_shape(function, *arguments), ""
    except Exception as error:  # whatever the user's code raises is the finding
        return None, f"{name} cannot be {how}: {_explain(error)}{_where(error)}"


def _explain(error: Exception) -> str:
    errors = jax.errors
    if isinstance(error, errors.TracerBoolConversionError):
        return "it branches in Python on a traced value (use jnp.where or jax.lax.cond)"
    if isinstance(error, errors.NonConcreteBooleanIndexError):
        return "it indexes with a traced bool mask, so the shape depends on values (use jnp.where)"
    if isinstance(
        error, (errors.ConcretizationTypeError, errors.TracerArrayConversionError, errors.TracerIntegerConversionError)
    ):
        return "it needs a traced value as a Python or numpy number (use jax.numpy; sizes must be static)"
    if isinstance(error, TypeError) and "concrete values of integer type" in str(error):
        return "it makes an array whose size is a traced value (sizes must be static)"
    if isinstance(error, errors.UnexpectedTracerError):
        return "it keeps a traced value in a global or an attribute (return it in the state)"
    return f"it raises {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def _where(error: Exception) -> str:
    """The last line of the user's own code in a traceback."""
    library = re.compile(r"[/\\](jax|jaxlib|numpy|jaxrl[/\\]envs[/\\]check\w*\.py|envs[/\\]check\w*\.py)([/\\]|$)")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not library.search(f.filename)]
    return f", {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _two(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((2, *jnp.shape(x)), x.dtype)


def kind(x: Any) -> str:
    """What a value is, for a message."""
    if _is_array(x):
        return f"an array {x.dtype}{list(x.shape)}"
    if x is None or isinstance(x, (bool, int, float, str)):
        return repr(x)
    return f"of type {type(x).__module__}.{type(x).__qualname__}".replace("builtins.", "")
