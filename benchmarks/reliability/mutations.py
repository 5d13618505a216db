"""Plants one bug at a time in a copy of the library and asks which test bites.

    python benchmarks/reliability/mutations.py            # all; prints a table, exit status 1 if a bug survives
    python benchmarks/reliability/mutations.py advantage  # those whose name contains the word

Every row is one edit of one line, the kind of mistake that a learning curve does not show, and the named test that is
to catch it. A row whose text is no longer in the source is an error: the table must be kept true.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent.parent


class Mutation(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    test: str  # what must fail


REFERENCE = "tests/test_ppo.py::test_one_update_against_a_reference"
MUTATIONS = [
    Mutation(
        "advantage flipped",
        "jaxrl/losses.py",
        "return -jnp.minimum(ratio * advantage",
        "return jnp.minimum(ratio * advantage",
        "tests/test_losses.py",
    ),
    Mutation(
        "GAE not cut at an end",
        "jaxrl/types.py",
        "lambda_ * (1.0 - is_last(data))",
        "lambda_ * (1.0 - 0 * is_last(data))",
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "truncation treated as termination",
        "jaxrl/types.py",
        "num_steps(data) * (1.0 - data.terminated)",
        "num_steps(data) * (1.0 - is_last(data))",
        "tests/test_ppo.py::test_diagnostic_environments[discrete-feed_forward]",
    ),
    Mutation(
        "termination treated as truncation",
        "jaxrl/types.py",
        "num_steps(data) * (1.0 - data.terminated)",
        "num_steps(data) * (1.0 - 0 * data.terminated)",
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "bootstrap from the reset observation",
        "jaxrl/interaction.py",
        "        return _where(_all_out(ended), reset(reset_key), then, params_axis), data\n",
        "        then = _where(_all_out(ended), reset(reset_key), then, params_axis)\n"
        "        return then, data._replace(next_observation=then.observation)\n",
        "tests/test_interaction.py::test_true_successor_and_reset",
    ),
    Mutation(
        "log-probabilities off by one row",
        "jaxrl/agents/ppo.py",
        'old = data.extras["log_prob"]',
        'old = jnp.roll(data.extras["log_prob"], 1)',
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "logits of illegal actions not masked",
        "jaxrl/distributions.py",
        "return jnp.where(mask, logits, ILLEGAL)",
        "return logits",
        "tests/test_ppo.py::test_masked_and_multi_discrete",
    ),
    Mutation(
        "memory not reset in the rollout",
        "jaxrl/interaction.py",
        "return select(condition, *columns)._replace(params=params, episode=on_false.episode)",
        "return select(condition, *columns)._replace(params=params, episode=on_false.episode, memory=on_false.memory)",
        "tests/test_interaction.py::test_memory_starts_anew_where_an_episode_ended",
    ),
    Mutation(
        "memory not reset in the learner's sequence",
        "jaxrl/agents/ppo.py",
        "is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])",
        "is_first = jnp.zeros_like(last)",
        f"{REFERENCE}[discrete-True]",
    ),
    Mutation(
        "memory reset one step late in the learner",
        "jaxrl/agents/ppo.py",
        "is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])",
        "is_first = jnp.concatenate([jnp.zeros_like(last[:2]), last[:-2]])",
        f"{REFERENCE}[discrete-True]",
    ),
    Mutation(
        "value target from normalised advantages",
        "jaxrl/agents/ppo.py",
        "target = advantage + value",
        "target = losses.normalize(advantage) + value",
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "entropy punished",
        "jaxrl/agents/ppo.py",
        "- hp.entropy_coefficient * entropy",
        "+ hp.entropy_coefficient * entropy",
        f"{REFERENCE}[continuous-False]",
    ),
    Mutation(
        "observation statistics move before the update",
        "jaxrl/combinators/normalize.py",
        "return state._replace(agent=agent_state, pending=pending), metrics",
        "return state._replace(agent=agent_state, pending=pending, current=pending), metrics",
        "tests/test_normalize.py::test_statistics_stand_still_between_acting_and_learning",
    ),
    Mutation(
        "rewards centred, not only scaled",
        "jaxrl/transforms.py",
        "reward = data.reward * jax.lax.rsqrt",
        "reward = (data.reward - state.statistics.mean) * jax.lax.rsqrt",
        "tests/test_normalize.py::test_reward_scale_against_a_loop",
    ),
    Mutation(
        "every reset draws the same start",
        "jaxrl/interaction.py",
        "reset(jax.random.split(reset_key, shape[0]), params)",
        "reset(jax.random.split(jax.random.key(0), shape[0]), params)",
        "tests/test_interaction.py::test_true_successor_and_reset",
    ),
    Mutation(
        "a reset keeps the old parameters",
        "jaxrl/interaction.py",
        "params = on_false.params if params_axis is None else select(condition, on_true.params, on_false.params)",
        "params = on_false.params",
        "tests/test_interaction.py::test_params_of_a_column_change_at_its_reset",
    ),
    Mutation(
        "evaluation counts rewards after the end",
        "jaxrl/evaluation.py",
        "jnp.where(now.ended, 0.0, data.reward)",
        "data.reward",
        "tests/test_evaluation.py::test_no_bias_toward_short_episodes",
    ),
    Mutation(
        "evaluation stops when the first episodes end",
        "jaxrl/evaluation.py",
        "~jnp.all(now.ended)",
        "~jnp.any(now.ended)",
        "tests/test_evaluation.py::test_no_bias_toward_short_episodes",
    ),
    Mutation(
        "weights ignored in the loss",
        "jaxrl/types.py",
        "return jnp.sum(jnp.where(w > 0, w * x, 0.0)) / jnp.maximum(jnp.sum(w), jnp.finfo(w.dtype).tiny)",
        "return jnp.mean(x)",
        "tests/test_contract.py::test_rows_of_weight_zero_are_not_there",
    ),
    Mutation(
        "leaves of a minibatch shuffled apart",
        "jaxrl/minibatch.py",
        "axis, index].get(",
        "axis, permutation(jax.random.key(int(jnp.sum(x))), size)].get(",
        "tests/test_tree.py::test_minibatches",
    ),
    Mutation(
        "density of a squashed action without the tanh's slope",
        "jaxrl/distributions.py",
        "_normal_log_prob(clipped(params), raw) - jnp.sum(_log_slope(raw), -1) - log_volume",
        "_normal_log_prob(clipped(params), raw) - log_volume",
        "tests/test_distributions.py",
    ),
    Mutation(
        "V-trace weights not clipped",
        "jaxrl/returns.py",
        "trace * jnp.minimum(clip_c, ratio)",
        "trace * ratio",
        "tests/test_returns.py",
    ),
    Mutation(
        "learning rate does not decay",
        "jaxrl/agents/ppo.py",
        "hp._replace(learning_rate=hp.learning_rate * remaining)",
        "hp",
        "tests/test_ppo.py::test_kl_early_stop_and_decay",
    ),
    Mutation(
        "KL early stop ignored",
        "jaxrl/agents/ppo.py",
        "jnp.where(stopped, old, new)",
        "new",
        "tests/test_ppo.py::test_kl_early_stop_and_decay",
    ),
]


def plant(mutation: Mutation, folder: pathlib.Path) -> None:
    """A copy of the library in `folder` with the bug in it. The copy shadows the installed one on PYTHONPATH.

    Raises:
      ValueError: if the text is not in the file exactly once.
    """
    for part in ("jaxrl", "envs", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "jaxrl" / "envs").symlink_to(folder / "envs")
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / mutation.file
    source = path.read_text()
    if source.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: the text is {source.count(mutation.old)} times in {mutation.file}, not once"
        )
    path.write_text(source.replace(mutation.old, mutation.new))


def bites(mutation: Mutation) -> tuple[bool, float, str]:
    """Whether the named test fails, the seconds that it took, and the line of the failure."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        plant(mutation, folder)
        environment = os.environ | {"PYTHONPATH": name}
        environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
        command = [sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider", "--tb=line", mutation.test]
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutation.name}: pytest could not run\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        return done.returncode == 1, time.perf_counter() - begin, lines[0].partition(" - ")[0][7:] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only bugs whose name contains one of these")
    words = parser.parse_args().words
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    print("| planted bug | in | caught | by | s |\n|---|---|---|---|---|")
    survivors = 0
    for mutation in chosen:
        caught, seconds, test = bites(mutation)
        survivors += not caught
        by = test or mutation.test
        print(f"| {mutation.name} | {mutation.file} | {'yes' if caught else 'NO'} | {by} | {seconds:.0f} |", flush=True)
    print(f"\n{len(chosen) - survivors} of {len(chosen)} caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
