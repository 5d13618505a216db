"""`jaxrl collect RUN --out FILE`: a dataset from a trained policy."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from jaxrl.cli.errors import BadInput, bad_input

PROG = "jaxrl collect RUN"
QUALITIES = {
    "random": "actions drawn uniformly from the action space",
    "expert": "the policy of RUN, greedily",
    "noisy": "the expert, with a uniform action at probability --epsilon",
    "mixed": "80 % random and 20 % expert",
    "medium": "the policy of --medium RUN2, which was trained to about a third of RUN's return",
    "medium-expert": "half medium, half expert",
    "replay": "--steps rows, in episodes, of what RUN saw in training; it is trained again, by its config.json",
    "medium-replay": "what --medium RUN2 saw in training",
}
DESCRIPTION = (
    "Writes a dataset, .safetensors or .npz, of what a trained policy does. RUN is a run directory.\n\nQualities:\n"
)
DESCRIPTION += "\n\n".join(f"{name}: {text}." for name, text in QUALITIES.items())


def main(argv: list[str]) -> int:
    from jaxrl.cli.flags import Flag, parse, split_env_flags

    flags = [
        Flag("steps", int, 100_000, "rows of the dataset"),
        Flag("out", str, "", "file to write, ending in .safetensors or .npz"),
        Flag("quality", str, "expert", ", ".join(QUALITIES) + "; see above"),
        Flag(
            "medium",
            str,
            "",
            "run directory of a policy that was trained less, for the qualities with medium in their name",
        ),
        Flag("epsilon", float, 0.2, "[0, 1] how often the noisy expert acts at random"),
        Flag("sample", bool, False, "policies act by sampling instead of greedily"),
        Flag("num_envs", int, 16, "environments side by side; the episode under way in each is cut at the end"),
        Flag("seed", int, 0, "the same seed gives the same dataset"),
        Flag(
            "episodes",
            int,
            128,
            "episodes that the reference scores (random, and RUN's policy) are means of; 0: no scores",
        ),
        Flag("env", str, "", "play in this environment; needed for a run in MODULE:NAME"),
        Flag("overwrite", bool, False, "replace the file in --out"),
    ]
    asks_for_help = bool(argv) and argv[0] in ("-h", "--help")
    if not asks_for_help and (not argv or argv[0].startswith("-")):
        raise BadInput("write jaxrl collect RUN --out FILE [flags]; RUN is a run directory or a policy.safetensors")
    env_params, rest = split_env_flags(argv if asks_for_help else argv[1:])
    options = parse(flags, rest, PROG, DESCRIPTION)
    check_options(options)
    if env_params and not options["env"]:
        raise BadInput("--env.KEY needs --env NAME")
    return write_dataset(argv[0], options, env_params)


def check_options(options: dict[str, Any]) -> None:
    quality, out = options["quality"], pathlib.Path(options["out"])
    if quality not in QUALITIES:
        raise BadInput(f"--quality is {quality}, must be one of {', '.join(QUALITIES)}")
    if ("medium" in quality) != bool(options["medium"]):
        raise BadInput(
            f"--quality {quality} needs --medium RUN2, trained less: a finished run keeps no earlier policy"
            if "medium" in quality
            else f"--medium goes with the qualities medium, medium-expert and medium-replay, not with {quality}"
        )
    if out.suffix not in (".safetensors", ".npz"):
        raise BadInput(f"--out is {options['out'] or 'missing'}, must end in .safetensors or .npz")
    if out.exists() and not (options["overwrite"] and out.is_file()):
        raise BadInput(f"--out {out} exists; choose another{', or add --overwrite' * out.is_file()}")
    if not out.absolute().parent.is_dir() or not os.access(out.absolute().parent, os.W_OK):
        raise BadInput(f"--out {out} cannot be written: {out.absolute().parent} is not a folder that can be written to")
    if not 1 <= options["num_envs"] <= options["steps"]:
        raise BadInput(f"--num-envs is {options['num_envs']}, must be in [1, {options['steps']}], the --steps")
    for name, low, high in (("epsilon", 0, 1), ("seed", 0, 2**32 - 1), ("episodes", 0, 2**31 - 1)):
        if not low <= options[name] <= high:
            raise BadInput(f"--{name} is {options[name]}, must be in [{low}, {high}]")


def write_dataset(run: str, options: dict[str, Any], env_params: dict[str, Any]) -> int:
    import jax

    from jaxrl import data
    from jaxrl.cli import compilation
    from jaxrl.cli.environment import make_env
    from jaxrl.policy_file import load_saved

    env = make_env(options["env"], env_params) if options["env"] else None
    with bad_input(ValueError):
        saved = load_saved(run, env)
        medium = load_saved(options["medium"], saved.env) if options["medium"] else None
    if medium and medium.header["env"] != saved.header["env"]:
        raise BadInput(
            f"--medium {options['medium']} was trained in {medium.header['env']}, RUN in {saved.header['env']}"
        )
    compilation.use_cache()
    name = options["env"] or saved.header["env"]["name"]
    collect_key, score_key = jax.random.split(jax.random.key(options["seed"]))
    again = None
    if "replay" in options["quality"]:
        again = retraining(options["medium"] or run, medium or saved, options["steps"])
    with bad_input(Exception, what=run):
        dataset = make_dataset(collect_key, saved, medium, again, options)
        metadata = {"environment": name, "quality": options["quality"], "agent": saved.header["agent"]}
        metadata |= {"environment_params": env_params if options["env"] else saved.header["env"]["params"]}
        dataset = dataset._replace(metadata={**dataset.metadata, **metadata, "seed": options["seed"]})
        if options["episodes"]:
            dataset = data.with_scores(dataset, *reference_scores(score_key, saved, options))
    with bad_input(ValueError):
        size = data.write(options["out"], dataset)
    returns = data.episode_returns(dataset)
    rows = [("environment", name), ("quality", f"{options['quality']} ({dataset.metadata['behavior']})")]
    rows += [("rows", f"{data.num_transitions(dataset):,}"), ("episodes", f"{len(returns):,}")]
    rows += [("mean return", f"{returns.mean():.2f}")]
    if options["episodes"]:
        random, expert = data.reference_scores(dataset)
        score = data.normalized_score(returns.mean(), random, expert)
        rows += [("normalized score", f"{score:.1f}  (random {random:.2f}, RUN {expert:.2f})")]
    for name, value in [*rows, ("file", options["out"]), ("bytes", f"{size:,}")]:
        print(f"  {name:<20}{value}")
    return 0


def make_dataset(key: Any, saved: Any, medium: Any, again: Any, options: dict[str, Any]) -> Any:
    """The dataset of the quality that was asked for."""
    import jax

    from jaxrl import data

    steps, quality, num_envs = options["steps"], options["quality"], options["num_envs"]
    first, second = jax.random.split(key)

    def play(key, policy, name, epsilon=0.0):
        how = {"greedy": not options["sample"], "num_envs": num_envs, "epsilon": epsilon}
        return data.named(data.collect(key, policy.agent, policy.state, saved.env, steps, **how), name)

    def random():
        return data.collect_random(first, saved.env, steps, num_envs=num_envs)

    def expert(epsilon=0.0):
        return play(second, saved, "expert", epsilon)

    made = {
        "random": random,
        "expert": expert,
        "noisy": lambda: expert(options["epsilon"]),
        "mixed": lambda: data.mixture([random(), expert()], [0.8, 0.2], steps, options["seed"]),
        "medium": lambda: play(first, medium, "medium"),
        "medium-expert": lambda: data.mixture(
            [play(first, medium, "medium"), expert()], [0.5, 0.5], steps, options["seed"]
        ),
        "replay": lambda: replay(saved, again, options),
        "medium-replay": lambda: replay(medium, again, options),
    }
    return made[quality]()


def retraining(run: str, saved: Any, steps: int) -> dict[str, Any]:
    """What `record_training` needs to make a run again, from its config.json.

    Raises:
      BadInput: if the run has no such file, it does not fit, or `steps` is more than the run played.
    """
    import jax

    from jaxrl.cli.flags import named_numbers
    from jaxrl.loop import example_data
    from jaxrl.untrusted import read_json_file, require_memory, require_modest

    path = pathlib.Path(run) / "config.json"
    if not path.is_file():
        raise BadInput(f"{path} is missing, by which replay trains a run again: RUN must be a run directory")
    with bad_input(ValueError):
        config = read_json_file(path)
    try:
        sizes = {name: int(config[name]) for name in ("num_envs", "unroll_length", "reset_pool", "seed")}
        numbers = {name: float(value) for name, value in config["hparams"].items()}  # "inf" is a string there
        played = int(saved.header["steps"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        offline = " (a run from a dataset has no replay)" if saved.header.get("offline") else ""
        raise BadInput(f"{path}: {type(error).__name__}: {error}; it says not how to train again{offline}") from None
    if config.get("init_from"):
        raise BadInput(f"{run} was trained --init-from {config['init_from']}, which replay cannot do again")
    names = [name for name, _, _ in named_numbers(saved.agent.hparams)]
    if sorted(names) != sorted(numbers):
        raise BadInput(f"{path}: hparams are {', '.join(numbers)}; the agent has {', '.join(names)}")
    if steps > played:
        raise BadInput(f"--steps is {steps}, {run} was trained for {played}")
    one = sizes["num_envs"] * sizes["unroll_length"]
    if min(sizes["num_envs"], sizes["unroll_length"]) < 1 or one > played:
        raise BadInput(f"{path}: {one} steps an update (num_envs * unroll_length) do not make the {played} of the run")
    row = sum(x.nbytes for x in jax.tree.leaves(example_data(saved.env, 1, 1)))
    with bad_input(ValueError):
        require_modest(sizes, str(path))
        require_memory((played + one + sizes["reset_pool"]) * row, f"{path}: all that the run saw")
    return {
        "key": jax.random.split(jax.random.key(sizes.pop("seed")))[0],  # as `jaxrl train` splits it
        "num_updates": played // one,
        "hparams": jax.tree.unflatten(jax.tree.structure(saved.agent.hparams), [numbers[name] for name in names]),
        **sizes,
    }


def replay(saved: Any, again: dict[str, Any], options: dict[str, Any]) -> Any:
    """The transitions of a training run, made again; it says whether that ended in the policy of the file."""
    import jax
    import numpy as np

    from jaxrl import data

    training = data.record_training(agent=saved.agent, env=saved.env, num_actors=1, **again)
    pairs = zip(jax.tree.leaves(training.actors[-1]), jax.tree.leaves(saved.state))
    arrays = [(a, b) for a, b in pairs if not jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key)]
    same = all(np.array_equal(a, b) for a, b in arrays)
    print(f"  {'trained again':<20}{'to the same policy' if same else 'to ANOTHER policy than the one in the file'}")
    dataset = data.sample_episodes(training.replay, options["steps"], options["seed"])
    return dataset._replace(metadata={**dataset.metadata, "trained_to_the_same_policy": same})


def reference_scores(key: Any, saved: Any, options: dict[str, Any]) -> tuple[float, float]:
    """Mean returns of the random policy and of the run's."""
    import jax
    import numpy as np

    from jaxrl.data import random_policy
    from jaxrl.evaluation import evaluate

    def mean(key, agent, state, greedy):
        play = jax.jit(
            lambda key, state: evaluate(key, agent, state, saved.env, num_episodes=count, greedy=greedy).returns
        )
        return float(np.mean(play(key, state)))

    count = options["episodes"]
    keys = jax.random.split(key)
    random = mean(keys[0], random_policy(saved.env.action_space), (), True)
    return random, mean(keys[1], saved.agent, saved.state, not options["sample"])
