"""`jaxrl evaluate RUN`: episodes with a trained policy."""

from __future__ import annotations

from typing import Any

from jaxrl.cli import film
from jaxrl.cli.errors import BadInput, bad_input


def main(argv: list[str]) -> int:
    from jaxrl.cli.flags import Flag, parse

    prog = "jaxrl evaluate RUN"
    flags = [
        Flag("episodes", int, 128, "how many to play"),
        Flag("seed", int, 0, "of the environments, and of the policy if it samples"),
        Flag("sample", bool, False, "act by sampling instead of greedily"),
        Flag("max_steps", int, 10_000, "an episode is cut there"),
        Flag("env", str, "", "play in this environment; needed for a run in MODULE:NAME"),
        Flag("render", str, "", "write films of some more episodes to this folder, as animated PNG; - prints a text"),
        Flag("films", int, 4, "how many films, with --render"),
    ]
    asks_for_help = bool(argv) and argv[0] in ("-h", "--help")
    if not asks_for_help and (not argv or argv[0].startswith("-")):
        raise BadInput("write jaxrl evaluate RUN [flags]; RUN is a run directory or a policy.safetensors")
    from jaxrl.cli.flags import split_env_flags

    env_params, rest = split_env_flags(argv if asks_for_help else argv[1:])
    options = parse(flags, rest, prog, "Plays episodes with the policy of a run directory or policy file.")
    for name in ("episodes", "max_steps"):
        if options[name] < 1:
            raise BadInput(f"--{name.replace('_', '-')} is {options[name]}, must be >= 1")
    if not 0 <= options["seed"] < 2**32:
        raise BadInput(f"--seed is {options['seed']}, must be in [0, 2**32)")
    if options["render"]:
        film.check(options["render"], options["films"])
    return play_episodes(argv[0], options, env_params)


def play_episodes(run: str, options: dict[str, Any], env_params: dict[str, Any]) -> int:
    import jax

    from jaxrl.cli import compilation, report
    from jaxrl.cli.environment import make_env
    from jaxrl.cli.run_directory import summary
    from jaxrl.evaluation import evaluate
    from jaxrl.policy_file import load_saved

    env = make_env(options["env"], env_params) if options["env"] else None
    if env is None and env_params:
        raise BadInput("--env.KEY needs --env NAME")
    with bad_input(ValueError):
        saved = load_saved(run, env)
    compilation.use_cache()

    def play(key, state):
        return evaluate(
            key,
            saved.agent,
            state,
            saved.env,
            num_episodes=options["episodes"],
            max_steps=options["max_steps"],
            greedy=not options["sample"],
        )

    with bad_input(Exception, what=run):
        compiled = jax.jit(play).lower(jax.random.key(options["seed"]), saved.state)
    with bad_input(jax.errors.JaxRuntimeError, what=run):  # out of memory
        result = jax.device_get(compiled.compile()(jax.random.key(options["seed"]), saved.state))
    cut = int((~result.finished).sum())
    lengths = f"{result.lengths.mean():.1f}" + (f"  ({cut} cut at {options['max_steps']} steps)" if cut else "")
    rows = [("agent", saved.header["agent"]), ("environment", options["env"] or saved.header["env"]["name"])]
    for name, value in [*rows, *report.evaluation_rows(summary(result)), ("mean length", lengths)]:
        print(f"  {name:<20}{value}")
    if options["render"]:
        key = jax.random.fold_in(jax.random.key(options["seed"]), 0xF11)
        films = film.write(options["render"], key, saved, options["films"], options["max_steps"], not options["sample"])
        print("", *films, sep="\n")
    return 0
