"""`jaxrl train AGENT ENV`: settings from names, flags and presets; `running` has the run itself."""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

from jaxrl.cli.errors import BadInput, bad_input

USAGE = """usage: jaxrl train AGENT ENV [flags]
       jaxrl train AGENT [ENV] --dataset FILE [flags]
       jaxrl train [AGENT [ENV]] --resume RUN [--steps N] [flags of checkpoints]

`jaxrl train AGENT ENV --help` lists the flags with the settings tuned for that environment;
`jaxrl list agents` and `jaxrl list envs` print the names. The first two arguments are AGENT and ENV, flags follow.
With --dataset the agent learns from a file (see `jaxrl collect`); ENV, where it is given, is what it is evaluated in
instead of the environment that the file names. With --resume the run in the directory RUN goes on from its newest good
checkpoint, with the settings that it has.

--devices all learns on all devices of this machine together. Several processes, on one machine or many, are one run
where each is given the same command and --coordinator HOST:PORT --num-processes P --process-id I, I from 0 to P - 1 and
HOST that of process 0; --coordinator auto asks the cluster (Slurm, Open MPI, TPU pods). Process 0 writes and prints;
all must see its files to resume.
"""

SHARED = ("num_envs", "batch_size")  # of a run, divided among its devices


class Settings(NamedTuple):
    """A training run, resolved. `options`: steps, num_envs, unroll_length, reset_pool, episodes, seed, out, ...

    Attributes:
      dataset: what is learned from, or None.
      plays: whether `env` can be played in, and is no more than the spaces of a dataset.
    """

    agent_name: str
    env_name: str
    env_params: dict[str, Any]
    static: dict[str, Any]
    options: dict[str, Any]
    hparams: Any
    agent: Any
    env: Any
    dataset: Any = None
    plays: bool = True


def main(argv: list[str]) -> int:
    started = time.perf_counter()
    if argv in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    from jaxrl.cli import hosts, memory

    memory.keep_flat()
    argv = hosts.join(argv)
    if any(token == "--resume" or token.startswith("--resume=") for token in argv):
        from jaxrl.cli import resume

        return resume.main(argv, started)
    settings = read_settings(argv)

    from jaxrl.cli import run_directory
    from jaxrl.cli.running import train

    out = run_directory.choose(settings) if hosts.is_first() else None
    return train(settings, out, started)


def read_settings(argv: list[str]) -> Settings:
    """Names, flags and presets into a `Settings`; the agent and the environment are made on the way."""
    from jaxrl.presets import DEFAULTS

    from_data = any(token == "--dataset" or token.startswith("--dataset=") for token in argv)
    named = len(argv) > 1 and not argv[1].startswith("-")
    if not argv or argv[0].startswith("-") or not (named or from_data):
        raise BadInput("write jaxrl train AGENT ENV [flags], as in jaxrl train ppo CartPole-v1; see jaxrl train --help")
    agent_name, *rest = argv
    env_name = rest.pop(0) if named else ""
    if agent_name not in DEFAULTS:
        raise BadInput(f"no agent is called {agent_name!r}; there are {', '.join(DEFAULTS)}")

    from jaxrl.cli import flags
    from jaxrl.cli.environment import make_env

    env_params, rest = flags.split_env_flags(rest)
    dataset, plays = None, True
    if from_data:
        from jaxrl.cli.dataset import open_dataset

        dataset, env_name, env_params, env, plays = open_dataset(rest, env_name, env_params)
    else:
        env = make_env(env_name, env_params)
    scene = Settings(agent_name, env_name, env_params, {}, {}, None, None, env, dataset, plays)
    return resolve(scene, lambda _: rest)


def resolve(scene: Settings, arguments: Callable[[list], list[str]]) -> Settings:
    """The agent, its numbers and the options, for names and an environment.

    Args:
      scene: a `Settings` without what is to be found.
      arguments: (flags) -> the command line that has values for them, with or without others.

    Raises:
      BadInput: if a value is not of its flag's type or outside of its range, or the agent cannot be made of them.
    """
    from jaxrl.cli import flags, hosts
    from jaxrl.cli.environment import env_numbers
    from jaxrl.factory import AGENTS, make_agent, parts, static_arguments
    from jaxrl.presets import lookup
    from jaxrl.tree import replace_fields

    agent_name, env_name, env, from_data = scene.agent_name, scene.env_name, scene.env, scene.dataset is not None
    preset = lookup(agent_name, env_name)
    prog, recipe = f"jaxrl train {agent_name} {env_name}".rstrip(), AGENTS[agent_name]
    if recipe.online is None and not from_data:
        raise BadInput(f"{agent_name} learns from a dataset alone: give --dataset FILE")
    own = data_flags(preset) if from_data else run_flags(preset)
    defaults = static_arguments(recipe, from_data, env)
    static_flags = flags.of_parts(parts(recipe, from_data, env), {k: preset.get(k, v) for k, v in defaults.items()})
    # The structure of the hyperparameters depends on static choices, so those are read first.
    first = flags.parse(own + static_flags, arguments(own + static_flags), prog, "", partial=True)
    static = {flag.name: first[flag.name] for flag in static_flags}
    devices = hosts.num_devices(first["devices"])
    sizes = {k: static[k] for k in ("batch_size", "buffer_size", "min_buffer_size") if k in static}
    with bad_input(ValueError, TypeError):
        given = demonstrations(first, env)
        if first.get("window") and recipe.looks_up:
            raise ValueError(f"--window has single rows; {agent_name} needs whole episodes")
        if first.get("window") and (static.get("calibrated") or static.get("next_action") in ("data", "none")):
            raise ValueError(
                "--window has single rows; --calibrated and --next-action data or none need whole episodes"
            )
        made = static | hosts.share(sizes, devices, "batch_size")
        agent, hparams = make_agent(agent_name, env, preset=env_name, offline=from_data, **given, **made)
    if not from_data and preset["hparams"].get("decay_steps") == preset["steps"]:
        hparams = replace_fields(hparams, decay_steps=float(first["steps"]))  # tuned to end with the run: so it does
    hparam_flags = flags.of_hparams(hparams)
    numbers = ", ".join(f"{k} {v:g}" for k, v in env_numbers(env).items()) or "none"
    description = f"Environment parameters, as --env.KEY VALUE: {numbers}; and keywords of the environment's factory."
    every = own + static_flags + hparam_flags
    values = flags.parse(every, arguments(every), prog, description)

    hparams = with_numbers(hparams, {flag.name: values[flag.name] for flag in hparam_flags})
    options = {flag.name: values[flag.name] for flag in own} | {"devices": devices}
    check_options(options)
    return scene._replace(static=static, options=options, hparams=hparams, agent=agent)


def with_numbers(hparams: Any, values: dict[str, Any]) -> Any:
    """Hyperparameters with other numbers, by the names of their flags.

    Raises:
      BadInput: if one is outside of its flag's range.
    """
    import jax

    from jaxrl.cli import flags
    from jaxrl.factory import discounts
    from jaxrl.tree import get_field, replace_fields

    found = flags.of_hparams(hparams)
    for flag in found:
        flags.check_range(flag, values.get(flag.name, flag.default))
    numbers = [values.get(flag.name, flag.default) for flag in found]
    changed = jax.tree.unflatten(jax.tree.structure(hparams), numbers)
    # Other discounts go with the learner's, unless they are given themselves.
    wanted = {k: v for k, v in discounts(changed).items() if get_field(hparams, k) == get_field(changed, k)}
    return replace_fields(changed, **wanted)


def demonstrations(options: dict[str, Any], env: Any) -> dict[str, Any]:
    """What `make_agent` takes for --demonstrations FILE."""
    if not options["demonstrations"]:
        return {}
    from jaxrl import data

    given = data.read(options["demonstrations"])
    with bad_input(ValueError, what=options["demonstrations"]):
        data.check_fits(given, env)
    fraction = options["demonstration_fraction"]
    return {"demonstrations": data.to_device(given).transitions, "demonstration_fraction": fraction}


def run_flags(preset: dict[str, Any]) -> list:
    """The flags of every online run."""
    from jaxrl.cli.flags import Flag

    return [
        Flag("steps", int, preset["steps"], "environment steps, all environments together"),
        Flag("num_envs", int, preset["num_envs"], "environments side by side"),
        Flag("unroll_length", int, preset["unroll_length"], "steps of each environment between two updates"),
        Flag(
            "reset_pool", int, preset["reset_pool"], "fresh states that resets draw from (0: every reset is computed)"
        ),
        *common_flags(),
    ]


def data_flags(preset: dict[str, Any]) -> list:
    """The flags of every run from a dataset."""
    from jaxrl.cli.flags import Flag

    return [
        Flag("dataset", str, "", "file to learn from"),
        Flag("updates", int, preset.get("updates", 100_000), "batches to learn from"),
        Flag("batch_size", int, preset.get("batch_size", 256), "transitions in a batch"),
        Flag(
            "window", int, 0, "rows drawn anew for each chunk, from a file that stays on disk; 0: all at once in memory"
        ),
        *common_flags(),
    ]


def common_flags() -> list:
    from jaxrl.cli.flags import Flag

    return [
        Flag("episodes", int, 128, "episodes of the final evaluation"),
        Flag("seed", int, 0, "of everything random"),
        Flag("demonstrations", str, "", "file whose transitions are added to every batch (RLPD; experts for recoil)"),
        Flag("demonstration_fraction", float, 0.5, "(0, 1) of a batch"),
        Flag("init_from", str, "", "run directory whose learner is where this one starts (online or offline)"),
        Flag("out", str, "", "run directory; default runs/AGENT-ENV-SEED-TIME"),
        Flag("overwrite", bool, False, "replace the run in --out"),
        Flag("devices", str, "", "devices to learn on together: a number, or all; default 1, of several processes all"),
        Flag("quiet", bool, False, "print errors only"),
        Flag("debug", bool, False, "check actions, observations and indices; say which line made a NaN (slower)"),
        Flag("profile", str, "", "folder for a trace of one chunk; prints where its time went"),
        Flag("checkpoints", bool, True, "save all of the run now and then, so that --resume RUN goes on from there"),
        *checkpoint_flags(),
        Flag("checkpoint_replay", bool, True, "with the replay buffer; without it, a resumed run starts an empty one"),
    ]


def checkpoint_flags(values: dict[str, Any] = {}) -> list:
    """The flags of checkpoints that a resumed run takes too; `values` are other defaults."""
    from jaxrl.cli.flags import Flag

    flags = [
        Flag("checkpoint_steps", int, 0, "steps (updates, from a dataset) between two checkpoints; 0: by time alone"),
        Flag("checkpoint_minutes", float, 5.0, "minutes between two checkpoints; 0: by steps alone"),
        Flag("keep", int, 3, "newest checkpoints that are kept, beside the one with the best return in training"),
    ]
    return [flag._replace(default=values.get(flag.name, flag.default)) for flag in flags]


def check_options(options: dict[str, Any]) -> None:
    for name in ("num_envs", "unroll_length", "episodes", "updates", "batch_size"):
        if options.get(name, 1) < 1:
            raise BadInput(f"--{name.replace('_', '-')} is {options[name]}, must be >= 1")
    if options.get("window", 0) < 0:
        raise BadInput(f"--window is {options['window']}, must be >= 0")
    check_schedule(options)
    check_devices(options)
    if not 0 <= options["seed"] < 2**32:
        raise BadInput(f"--seed is {options['seed']}, must be in [0, 2**32)")
    if "steps" in options:
        one = options["num_envs"] * options["unroll_length"]
        if options["steps"] < one:
            raise BadInput(f"--steps is {options['steps']}, less than one update: {one} (num_envs * unroll_length)")


def check_devices(options: dict[str, Any]) -> None:
    from jaxrl.cli import hosts

    if options["devices"] > 1:
        hosts.share({k: options.get(k, 0) for k in SHARED}, options["devices"], *SHARED)
        for name in ("debug", "init_from"):
            if options[name]:
                raise BadInput(f"--{name.replace('_', '-')} is for one device, and --devices is {options['devices']}")


def check_schedule(options: dict[str, Any]) -> None:
    for name, low in (("checkpoint_steps", 0), ("checkpoint_minutes", 0.0), ("keep", 1)):
        if not options[name] >= low:
            raise BadInput(f"--{name.replace('_', '-')} is {options[name]}, must be >= {low:g}")
