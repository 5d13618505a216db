"""`jaxrl train --resume RUN`: a run goes on from its newest good checkpoint, in its folder, with its settings.

Settings come from the configuration in the checkpoint, and pass the checks that flags pass. That is data: it names one
of jaxrl's agents and environments and gives numbers. An environment MODULE:NAME is code, and so must be given again by
whoever resumes.
"""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any, Iterable, NamedTuple

from jaxrl.cli.errors import BadInput, bad_input
from jaxrl.cli.run_directory import CHECKPOINTS, FROM_FILES, fingerprint
from jaxrl.untrusted import read_json_file, require_modest


class Resumed(NamedTuple):
    """A run that goes on.

    Attributes:
      store: its checkpoints, locked.
      config: what config.json is to say from now on.
      extended: whether it has more steps before it than the checkpoint knows of.
    """

    store: Any
    config: dict[str, Any]
    extended: bool


def main(argv: list[str], started: float) -> int:
    from jaxrl.cli import hosts, run_directory, saving
    from jaxrl.cli.running import train

    names = list(itertools.takewhile(lambda token: not token.startswith("-"), argv))
    run, rest = run_of(argv[len(names) :])
    old = read_config(run)
    options = read_options(old, rest, run)
    size = old["updates_per_chunk"] * steps_per_update(old)
    new = {**old, **options, "steps": -(-options["requested_steps"] // size) * size}
    done = finished(run)
    if done is not None and done >= new["steps"]:
        if not options["quiet"] and hosts.is_first():
            print(f"{run} has its {done:,} {'updates' if old['offline'] else 'steps'}: there is nothing left to do")
        return 0
    settings = read_settings(new, run, names)
    here = {"versions": run_directory.versions(), "device": run_directory.devices()}
    changes = [change for name in here for change in differences(old.get(name), here[name])]
    if changes and not options["quiet"] and hosts.is_first():
        print(f"since the checkpoint: {', '.join(changes)}; what follows may differ in its last bits")
    config = {name: value for name, value in {**new, **here}.items() if name not in ("quiet", "debug", "profile")}
    with saving.open_store(run, settings.options, config) as store:
        strange = [step for step in store.steps() if step % size] if store is not None else []
        if strange:
            raise BadInput(f"{run}: its checkpoint of step {strange[-1]} is not from the end of a chunk of {size}")
        return train(settings, run, started, Resumed(store, config, new["steps"] > old["steps"]))


def run_of(argv: list[str]) -> tuple[pathlib.Path, list[str]]:
    """The directory after --resume, and the other arguments."""
    from jaxrl.cli.flags import Flag, parse

    run = parse([Flag("resume", str, "", "")], argv, "jaxrl train", "", partial=True)["resume"]
    at = next(i for i, token in enumerate(argv) if token.partition("=")[0] == "--resume")
    rest = argv[:at] + argv[at + (1 if "=" in argv[at] else 2) :]
    if "--resume" in [token.partition("=")[0] for token in rest]:
        raise BadInput("--resume is given twice")
    return pathlib.Path(run), rest


def read_config(run: pathlib.Path) -> dict[str, Any]:
    """The configuration in the newest good checkpoint of a run.

    Raises:
      BadInput: if there is none, or it is not of a run.
    """
    from jaxrl import checkpoints

    if not (run / CHECKPOINTS).is_dir():
        why = "has no checkpoints" if run.is_dir() else "is not a run directory"
        raise BadInput(f"{run}: {why}")
    with bad_input(ValueError, OSError, what=str(run)):
        config = checkpoints.read_config(run / CHECKPOINTS)
    kinds = {"agent": str, "env": dict, "static": dict, "hparams": dict, "offline": bool, "plays": bool}
    kinds |= {"requested_steps": int, "steps": int, "updates_per_chunk": int, "num_envs": int, "unroll_length": int}
    kinds |= {"episodes": int, "keep": int, "checkpoint_steps": int, "checkpoint_minutes": float}
    kinds |= {"versions": dict, "files": dict}
    for name, kind in kinds.items():
        value = config.get(name)
        if type(value) is not kind or (kind is int and not int(name != "checkpoint_steps") <= value < 2**63):
            raise BadInput(f"{run}: the checkpoint is not of a run: its {name} is {shown(value)}")
    large = ("requested_steps", "steps", "seed", "checkpoint_steps")
    with bad_input(ValueError):
        require_modest({name: x for name, x in config.items() if name not in large}, f"{run}: its checkpoint")
    if not all(name in FROM_FILES and type(config.get(name)) is str for name in config["files"]):
        raise BadInput(f"{run}: the checkpoint is not of a run: its files are {shown(config['files'])}")
    if not config["plays"] and not config["offline"]:
        raise BadInput(f"{run}: the checkpoint is not of a run: its plays is False")
    if type(config["env"].get("name")) is not str or type(config["env"].get("params")) is not dict:
        raise BadInput(f"{run}: the checkpoint is not of a run: its env is {shown(config['env'])}")
    return config


def read_options(config: dict[str, Any], argv: list[str], run: pathlib.Path) -> dict[str, Any]:
    """Values of the flags that a resumed run takes; what is not given stays as it is.

    Raises:
      BadInput: for any other flag, and for fewer steps than the run was to have.
    """
    from jaxrl.cli import train
    from jaxrl.cli.flags import Flag, option, parse

    unit, before = "updates" if config["offline"] else "steps", config["requested_steps"]
    files = [Flag(name, str, config[name], f"where that file of {name} is now") for name in config["files"]]
    flags = [
        Flag(unit, int, before, "in all; more than the run was to have extends it"),
        Flag("episodes", int, config.get("episodes", 128), "episodes of the final evaluation"),
        *train.checkpoint_flags(config),
        *files,
        *[flag for flag in train.common_flags() if flag.name in ("quiet", "debug", "profile")],
    ]
    known = [f"--{option(flag.name)}" for flag in flags]
    for token in argv:
        name = option(token.partition("=")[0].removeprefix("--no-").removeprefix("--"))
        if token.startswith("--") and f"--{name}" not in [*known, "--help"]:
            raise BadInput(f"--resume goes on with the settings of {run}, which {token.partition('=')[0]} would change")
    options = parse(flags, argv, "jaxrl train --resume RUN", "Goes on with a run, to the bit.")
    train.check_schedule(options)
    if options["episodes"] < 1:
        raise BadInput(f"--episodes is {options['episodes']}, must be >= 1")
    requested = options.pop(unit)
    if requested < before:
        raise BadInput(f"--{unit} is {requested}, less than the {before} that {run} was to have")
    return {**options, "requested_steps": requested}


def read_settings(config: dict[str, Any], run: Any, names: Iterable[str] = (), env: Any = None) -> Any:
    """The `Settings` that a configuration describes.

    Args:
      names: AGENT and ENV, where they are given again.
      env: the environment, in place of its name.

    Raises:
      BadInput: if the configuration does not pass the checks of flags, does not agree with `names`, or the environment
        is code and neither `names` nor `env` gives it.
    """
    from jaxrl.cli import run_directory, train
    from jaxrl.presets import DEFAULTS

    agent_name, env_name = config["agent"], config["env"]["name"]
    if list(names) not in ([], [agent_name], [agent_name, env_name]):
        raise BadInput(f"{run}: a run of {agent_name} {env_name}, not of {' '.join(names)}")
    if agent_name not in DEFAULTS:
        raise BadInput(f"{run}: no agent is called {shown(agent_name)}")
    if env is None and ":" in env_name and len(list(names)) < 2 and config["plays"]:
        # A file must not choose code to run: MODULE:NAME could be any function of any module.
        again = f"jaxrl train {agent_name} {env_name} --resume {run}, or jaxrl.restore(run, env)"
        raise BadInput(f"{run}: trained in {shown(env_name)}, which is code: give it again, as in {again}")
    for name, digest in config["files"].items():
        if fingerprint(config[name]) != digest:
            raise BadInput(f"{run}: --{name} {config[name]} is not the file that the run began with")
    try:
        settings = train.resolve(scene(config, env), lambda flags: command_line(flags, config))
        found = json.loads(json.dumps(run_directory.settings_json(run_directory.description(settings))))
    except BadInput as error:
        raise BadInput(f"{run}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{run}: the checkpoint's configuration is not right: {error!r}") from None
    for name in ("static", "hparams"):  # names that this agent does not have, values that became others
        wrong = [k for k in {**found[name], **config[name]} if found[name].get(k) != config[name].get(k)]
        if wrong:
            raise BadInput(
                f"{run}: {name} {wrong[0]} is {shown(config[name].get(wrong[0]))} in the checkpoint, and "
                f"{shown(found[name].get(wrong[0]))} here: written by jaxrl {shown(config['versions'].get('jaxrl'))}"
            )
    return settings._replace(options={**settings.options, "updates_per_chunk": config["updates_per_chunk"]})


def scene(config: dict[str, Any], env: Any) -> Any:
    """Names, environment and dataset of a configuration."""
    from jaxrl import data
    from jaxrl.cli.dataset import open_dataset
    from jaxrl.cli.environment import make_env
    from jaxrl.cli.train import Settings

    name, params, plays, dataset = config["env"]["name"], tuples(config["env"]["params"]), config["plays"], None
    if config["offline"]:
        path, window = str(config["dataset"]), int(config["window"])
        if plays and env is not None:
            with bad_input(ValueError):
                dataset = data.read(path, mmap=window > 0)
                data.check_fits(dataset, env)
        else:
            arguments = [f"--dataset={path}", f"--window={window}"]
            dataset, _, params, env, plays = open_dataset(arguments, name if plays else "", params)
    elif env is None:
        env = make_env(name, params)
    return Settings(config["agent"], name, params, {}, {}, None, None, env, dataset, plays)


def command_line(flags: list, config: dict[str, Any]) -> list[str]:
    """The arguments that give flags the values of a configuration: so they pass the checks that flags pass.

    Raises:
      BadInput: if there is no value for a static choice or a number of the agent, or it is not one.
    """
    from jaxrl.cli.flags import option

    unit = {"steps": "requested_steps", "updates": "requested_steps"}
    known = {**config["static"], **{f"hparams.{name}": value for name, value in config["hparams"].items()}}
    known["devices"] = "1"  # of runs from before there was a choice
    known |= {name: config[name] for name in config if name not in ("static", "hparams", "steps")}
    argv = []
    for flag in flags:
        name = unit.get(flag.name, flag.name)
        if name not in known:
            if name in ("out", "overwrite", "quiet", "debug", "profile"):
                continue
            raise BadInput(f"the checkpoint's configuration has no {flag.name}")
        value, dashed = known[name], f"--{option(flag.name)}"
        if isinstance(value, bool):
            argv.append(dashed if value else f"--no-{dashed[2:]}")
        elif isinstance(value, list):
            argv += [dashed, *(word(x, flag.name) for x in value)]
        else:
            argv.append(f"{dashed}={word(value, flag.name)}")
    return argv


def word(value: Any, name: str) -> str:
    """One value as an argument; a text that could be taken for a flag is none."""
    if not isinstance(value, (str, int, float, type(None))) or str(value).startswith("--"):
        raise BadInput(f"the checkpoint's configuration has {shown(value)} for {name}")
    return str(value)


def steps_per_update(config: dict[str, Any]) -> int:
    return 1 if config["offline"] else config["num_envs"] * config["unroll_length"]


def differences(old: Any, new: dict[str, Any]) -> list[str]:
    """What is another than it was, as in "jax 0.10.2 -> 0.11.0"."""
    old = old if isinstance(old, dict) else {}
    return [f"{name} {shown(old.get(name))} -> {shown(value)}" for name, value in new.items() if old.get(name) != value]


def finished(run: pathlib.Path) -> int | None:
    """Steps of a run that came to its end, or was stopped there, by its result.json."""
    try:
        return int(read_json_file(run / "result.json")["steps"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    if isinstance(value, dict):
        return {name: tuples(x) for name, x in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list) else value


def shown(value: Any) -> str:
    """A value of a file in an error: short."""
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
