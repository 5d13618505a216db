"""`--dataset FILE`: the data, and the environment that it comes from."""

from __future__ import annotations

import os
from typing import Any

from jaxrl.cli.errors import BadInput, bad_input


def open_dataset(argv: list[str], env_name: str, env_params: dict[str, Any]) -> tuple[Any, str, dict, Any, bool]:
    """Reads the file that `--dataset` names in `argv`.

    Returns:
      dataset, the environment's name and parameters, the environment, and whether it can be played in. Where neither
      the file nor the user names an environment of jaxrl, it is what the data shows of its spaces.

    Raises:
      BadInput: if the file cannot be read, or its shapes are not those of the environment.
    """
    from jaxrl import data, envs
    from jaxrl.cli.environment import make_env
    from jaxrl.cli.flags import Flag, parse
    from jaxrl.untrusted import require_modest

    flags = [Flag("dataset", str, "", ""), Flag("window", int, 0, "")]
    path, window = parse(flags, argv, "jaxrl train", "", partial=True).values()
    with bad_input(ValueError):
        dataset = data.read(path, mmap=window > 0)
        metadata = dataset.metadata if isinstance(dataset.metadata, dict) else {}
        known, known_params = str(metadata.get("environment", "")), metadata.get("environment_params", {})
        require_modest(known_params, f"{path}: environment_params")
        if not isinstance(known_params, dict):
            raise ValueError(f"{path}: environment_params is {known_params!r}, must be an object")
    if not env_name:
        if env_params:
            raise BadInput("--env.KEY needs ENV, as in jaxrl train AGENT ENV --dataset FILE --env.KEY VALUE")
        if known not in envs.names():  # a file does not choose code to run
            shown = known or os.path.basename(path)
            return dataset, re_name(shown), {}, data.spaces_env(dataset), False
        env_name, env_params = known, known_params
    env = make_env(env_name, env_params)
    with bad_input(ValueError, what=path):
        data.check_fits(dataset, env)
    return dataset, env_name, env_params, env, True


def re_name(text: str) -> str:
    """A name for a run directory."""
    return os.path.splitext(text)[0].replace(":", "_").replace("/", "_")
