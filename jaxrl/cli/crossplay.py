"""`jaxrl crossplay RUN [RUN ...]`: trained policies of many agents play with, or against, each other."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Sequence

from jaxrl.cli.errors import BadInput, bad_input

FILES = ("crossplay.json", "crossplay.png")
DESCRIPTION = (
    "Plays episodes in which one policy has some of the seats of an environment and another one has the others, for "
    "all pairs of policies. Rows of the table are the policies in --seats, columns those in the others; each pair "
    "plays the same episodes. Where agents compete (their returns add up to a constant) there are Elo ratings."
)


def main(argv: list[str]) -> int:
    from jaxrl.cli.flags import Flag, parse, split_env_flags

    flags = [
        Flag("seats", tuple[int, ...], (0,), "the agents that the row's policy plays; the column's plays all others"),
        Flag("episodes", int, 128, "how many to play, of each pair"),
        Flag("seed", int, 0, "of the environments, and of policies if they sample"),
        Flag("sample", bool, False, "act by sampling instead of greedily"),
        Flag("max_steps", int, 10_000, "an episode is cut there"),
        Flag("env", str, "", "play in this environment; needed for runs in MODULE:NAME, or in unlike ones"),
        Flag("out", str, "", f"folder for {' and '.join(FILES)}; default runs/crossplay-ENV-SEED-TIME"),
        Flag("overwrite", bool, False, "replace these files in --out"),
    ]
    asks_for_help = bool(argv) and argv[0] in ("-h", "--help")
    if not asks_for_help and (not argv or argv[0].startswith("-")):
        raise BadInput("write jaxrl crossplay RUN [RUN ...] [flags]; a RUN is a run directory or a policy.safetensors")
    first = next((i for i, text in enumerate(argv) if text.startswith("-")), len(argv))
    env_params, rest = split_env_flags(argv[first:])
    options = parse(flags, rest, "jaxrl crossplay RUN [RUN ...]", DESCRIPTION)
    for name in ("episodes", "max_steps"):
        if options[name] < 1:
            raise BadInput(f"--{name.replace('_', '-')} is {options[name]}, must be >= 1")
    if not 0 <= options["seed"] < 2**32:
        raise BadInput(f"--seed is {options['seed']}, must be in [0, 2**32)")
    if env_params and not options["env"]:
        raise BadInput("--env.KEY needs --env NAME")
    if options["out"]:
        check_folder(pathlib.Path(options["out"]), options["overwrite"])
    return play(argv[:first], options, env_params)


def check_folder(out: pathlib.Path, overwrite: bool) -> None:
    """Whether the files can be written there, before anything is loaded.

    Raises:
      BadInput: if not, or they are there and are not to be overwritten.
    """
    from jaxrl.cli.run_directory import require_place

    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out} is a file, must be a folder")
    there = [name for name in FILES if (out / name).exists()]
    if there and not overwrite:
        raise BadInput(f"--out {out} has a {there[0]}; choose another, or add --overwrite")
    require_place(out)


def play(runs: Sequence[str], options: dict[str, Any], env_params: dict[str, Any]) -> int:
    import jax

    from jaxrl import crossplay
    from jaxrl.cli import compilation
    from jaxrl.cli.run_directory import unused

    saved = load(runs, options, env_params)
    name, seats = options["env"] or saved[0].header["env"]["name"], options["seats"]
    out = pathlib.Path(options["out"]) if options["out"] else unused(f"crossplay-{name}-{options['seed']}")
    compilation.use_cache()

    def go(key, states):
        return crossplay.crossplay(
            key,
            [(policy.agent, state) for policy, state in zip(saved, states)],
            saved[0].env,
            seats=seats,
            num_episodes=options["episodes"],
            max_steps=options["max_steps"],
            greedy=not options["sample"],
        )

    arguments = jax.random.key(options["seed"]), [policy.state for policy in saved]
    with bad_input(Exception, what=name):
        compiled = jax.jit(go).lower(*arguments)
    with bad_input(jax.errors.JaxRuntimeError, what=name):  # out of memory
        played = jax.device_get(compiled.compile()(*arguments))
    result = results(played, seats)
    about = {
        "environment": {"name": name, "params": env_params if options["env"] else saved[0].header["env"]["params"]},
        "runs": [{"run": run, "agent": policy.header["agent"]} for run, policy in zip(runs, saved)],
        **{k: list(v) if k == "seats" else v for k, v in options.items() if k not in ("env", "out", "overwrite")},
    }
    print("\n".join(table(about, result)))
    write(out, {**about, **result})
    return 0


def load(runs: Sequence[str], options: dict[str, Any], env_params: dict[str, Any]) -> list[Any]:
    """The policies, in one environment; those of the same making have the same agent, so that they are compiled once.

    Raises:
      BadInput: if one cannot be read, or they are of unlike environments.
    """
    from jaxrl.cli.environment import make_env
    from jaxrl.policy_file import load_saved

    env = make_env(options["env"], env_params) if options["env"] else None
    saved, made = [], {}
    for run in runs:
        with bad_input(ValueError):
            policy = load_saved(run, env)
        if saved and not options["env"] and policy.header["env"] != saved[0].header["env"]:
            raise BadInput(
                f"{run} was trained in {described(policy)}, {runs[0]} in {described(saved[0])}; --env NAME chooses one"
            )
        making = json.dumps([policy.header.get(k) for k in ("agent", "static", "offline")], sort_keys=True)
        saved.append(policy._replace(agent=made.setdefault(making, policy.agent)))
    return saved


def described(policy: Any) -> str:
    env = policy.header["env"]
    return " ".join([str(env["name"]), *(f"--env.{k} {v}" for k, v in env["params"].items())])[:200]


def results(played: Any, seats: Sequence[int]) -> dict[str, Any]:
    """What crossplay.json holds of the episodes, as JSON values; a number that is not finite is null.

    Args:
      played: `Evaluation` with leaves [R, R, E, A].
    """
    import numpy as np

    from jaxrl import crossplay

    mine = np.isin(np.arange(played.returns.shape[-1]), seats)
    returns = np.asarray(played.returns, np.float64)
    same, elo = crossplay.all_earn_the_same(returns), crossplay.ratings(returns, seats)
    views = {"row": returns[..., mine].mean(-1), "column": returns[..., ~mine].mean(-1), "all": returns.sum(-1)}
    competing = crossplay.is_constant_sum(returns)
    return {
        "rewards": "the same for all" if same else "constant sum" if competing else "general",
        **{name: strict(crossplay.score(x)._asdict()) for name, x in views.items()},
        "win_rates": strict(crossplay.win_rates(returns, seats)) if competing else None,
        "elo": None if elo is None else strict(elo),
        "mean_length": float(played.lengths.max(-1).mean()),
        "cut": int((~played.finished.all(-1)).sum()),
    }


def strict(value: Any) -> Any:
    """Arrays as lists, and None where a number is not finite."""
    from jaxrl.cli.run_directory import finite

    if isinstance(value, dict):
        return {k: strict(v) for k, v in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    return [strict(v) for v in value] if isinstance(value, (list, tuple)) else finite(value)


def table(about: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """What is printed."""
    seats = " ".join(map(str, about["seats"]))
    cut = f"  ({result['cut']} cut at {about['max_steps']} steps)" if result["cut"] else ""
    rows = [("environment", about["environment"]["name"]), ("episodes", f"{about['episodes']} of each pair{cut}")]
    rows += [(f"policy {i}", f"{run['run']}  ({run['agent']})") for i, run in enumerate(about["runs"])]
    lines = [f"  {name:<20}{value}" for name, value in rows]
    titles = {"row": f"mean return of each agent that the row's policy plays ({seats})", "all": "of all agents (sum)"}
    if result["rewards"] == "the same for all":
        titles["row"] = f"mean return of each agent; the row's policy plays {seats}"
    if result["rewards"] != "general":
        del titles["all"]
    for name, title in titles.items():
        found = result[name]
        elo = result["elo"] if name == "row" else None
        lines += ["", f"  {title}", *matrix(found["mean"], elo)]
        each = {"self-play": "self_play", "cross-play": "cross_play", "gap": "gap"}
        lines += [f"  {label:<20}{with_error(*found[key])}" for label, key in each.items()]
    return lines


def matrix(mean: list[list[float | None]], elo: list[float] | None) -> list[str]:
    """Rows with their indices, and ratings behind them."""
    heads = ["", *map(str, range(len(mean))), *["Elo"] * (elo is not None)]
    rows = [[str(i), *("-" if x is None else f"{x:.2f}" for x in row)] for i, row in enumerate(mean)]
    rows = [row + ([] if elo is None else [f"{elo[i]:+.0f}"]) for i, row in enumerate(rows)]
    widths = [max(map(len, column)) for column in zip(heads, *rows)]
    return ["  " + "  ".join(x.rjust(width) for x, width in zip(line, widths)) for line in (heads, *rows)]


def with_error(mean: float | None, error: float | None) -> str:
    return "-" if mean is None else f"{mean:.2f}" + ("" if error is None else f"  (standard error {error:.2f})")


def write(out: pathlib.Path, content: dict[str, Any]) -> None:
    import numpy as np

    from jaxrl.cli.heat_map import heat_map
    from jaxrl.cli.run_directory import json_bytes
    from jaxrl.envs import pictures
    from jaxrl.policy_file import write_atomically

    with bad_input(OSError, what=f"--out {out}"):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / FILES[0], json_bytes(content))
        pictures.write_png(out / FILES[1], heat_map(np.array(content["row"]["mean"], np.float64)))
    print("", *(f"  {out / name}" for name in FILES), sep="\n")
