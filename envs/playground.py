"""Adapter for MuJoCo Playground, and for environments like its own: `reset` and `step` of a `State`, an `mjx.Model`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxrl.envs.adapter import import_quietly, strong
from jaxrl.envs.brax import from_stateful
from jaxrl.types import Env, PyTree


class PlaygroundParams(NamedTuple):
    """What `Env.params` of a Playground environment are: its `mjx.Model`, of which every array may be randomised."""

    model: PyTree


def make_playground(name: str, *, episode_length: int | None = None, **options: Any) -> Env:
    """An environment of MuJoCo Playground's registry: "CartpoleBalance", "CheetahRun", "Go1JoystickFlatTerrain", ...

    Args:
      episode_length: of its default configuration if None.
      **options: fields of its configuration, as `ctrl_dt=0.02`.

    Raises:
      ImportError: if Playground is not installed.
      ValueError: a name or an option that it does not have.
    """
    try:
        registry = import_quietly("mujoco_playground").registry
    except ModuleNotFoundError as error:
        raise ImportError(
            f"make: 'playground/{name}' needs MuJoCo Playground, an extra: pip install playground ({error})"
        ) from None
    if name not in registry.ALL_ENVS:
        raise ValueError(f"make: MuJoCo Playground has no {name!r}; it has {', '.join(sorted(registry.ALL_ENVS))}")
    config = registry.get_default_config(name)
    for option in options:
        if option not in config:
            choice = ", ".join(sorted({*config, "episode_length"}))
            raise ValueError(f"make: playground/{name} has no parameter {option!r}; allowed: {choice}")
    if "impl" in config:  # its default may be Warp, which is neither deterministic nor on every device
        options = {"impl": "jax", **options}
    env = registry.load(name, config_overrides=options)
    return from_playground(env, episode_length=episode_length or config.get("episode_length", 1000))


def from_playground(env: Any, *, episode_length: int = 1000) -> Env:
    """Wraps an unwrapped environment with `reset(key) -> State`, `step(State, action) -> State`, `action_size`.

    `done` terminates, except where `info["truncation"]` says that the clock did it; after `episode_length` steps an
    episode is truncated. Observations are an array or a dictionary of arrays; actions are in [-1, 1]. `Env.params` is a
    `PlaygroundParams` where the environment keeps its model in `_mjx_model`, as Playground's do, else ().

    Raises:
      ValueError: if `env` resets itself, is batched, or `episode_length` < 1.
    """
    model = getattr(getattr(env, "unwrapped", env), "_mjx_model", None)
    if model is None:
        return from_stateful(env, episode_length=episode_length)

    def edit(unwrapped, params):
        unwrapped._mjx_model = params.model

    params = PlaygroundParams(jax.tree.map(strong, model))
    return from_stateful(env, episode_length=episode_length, params=params, edit=edit)
