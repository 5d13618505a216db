"""The host's look at the numbers of a chunk: `problem` ends a run, `divergence` is worth a line.

After each chunk, before anything of it is written or saved:

    reason = health.problem(metrics, steps_before, sizes, state)    # None, or one line: stop, exit status 1
    line = health.divergence(metrics)                               # None, or one line to say; the run goes on
    row = run_directory.row(health.without_checks(metrics), ...)    # what is logged has no `nonfinite/...`
"""

from __future__ import annotations

from typing import Any

import numpy as np

DIVERGED = 0.01  # of the episodes of a chunk: above it is said


def problem(metrics: dict[str, np.ndarray], steps_before: int, sizes: tuple[int, int] | None, state: Any) -> str | None:
    """The first number of a chunk that is not finite, in one line; None if all are.

    "reward is not finite at environment step 81,925 (environment 5, update 41), 3 in all": environment steps are
    counted from 0 over all environments together, so that the environment is the step modulo their number.

    Args:
      metrics: of the chunk, on the host, leaves [updates].
      steps_before: environment steps (offline: updates) of the run before this chunk.
      sizes: (unroll_length, num_envs), or None offline.
      state: the loop's state after the chunk; its learner's arrays are looked at, too, as what follows would be saved.
    """
    from jaxrl.combinators.replay import learner_state
    from jaxrl.finite import PREFIX, parameters

    length, num_envs = sizes or (1, 1)
    found = []  # (update of the chunk, rank within it, the line, how many more)
    for rank, name in enumerate(("observation", "reward")):
        count, first = metrics.get(f"{PREFIX}{name}_count"), metrics.get(f"{PREFIX}{name}_first")
        if count is not None and np.any(count):
            update = int(np.flatnonzero(count)[0])
            row = int(first[update])
            step = steps_before + update * length * num_envs + row
            where = f"environment step {step:,} (environment {row % num_envs}, {_update(update, steps_before, sizes)})"
            found.append((update, row // num_envs - length, rank, name, where, int(np.sum(count))))
    for rank, (name, values) in enumerate(without_checks(metrics).items()):
        bad = ~np.isfinite(values)
        if bad.any() and not name.startswith("episode/"):  # those are sums of rewards, found above
            update = int(np.flatnonzero(bad.reshape(len(bad), -1).any(-1))[0])  # [updates, P] of a population
            found.append((update, 0, rank, f"metric {name}", _update(update, steps_before, sizes), int(bad.sum())))
    bad = {name: int(np.sum(~np.isfinite(x))) for name, x in _on_host(parameters(learner_state(state.agent)))}
    bad = {name: count for name, count in bad.items() if count}
    counts = metrics.get(f"{PREFIX}parameter_count", np.zeros(1))
    if bad or np.any(counts):
        update = int(np.flatnonzero(counts)[0]) if np.any(counts) else len(counts) - 1
        total = int(counts[update]) or sum(bad.values())
        name = f"parameter {next(iter(bad))}" if bad else "a parameter"
        found.append((update, 1, 0, name, _update(update, steps_before, sizes), total))
    if not found:
        return None
    (_, _, _, name, where, count), *others = sorted(found)
    also = f"; then {', '.join(f'{other[3]} ({other[5]:,})' for other in others[:3])}" if others else ""
    return f"{name} is not finite at {where}, {count:,} in all{also}"


def divergence(metrics: dict[str, np.ndarray]) -> str | None:
    """A line where more than 1 % of a chunk's episodes ended because the physics diverged; None otherwise."""
    diverged = int(np.sum(metrics.get("episode/diverged_sum", 0)))
    episodes = int(np.sum(metrics.get("episode/count", 0)))
    if diverged <= DIVERGED * episodes:
        return None
    return f"physics diverged in {diverged:,} of {episodes:,} episodes, which were cut short; a smaller time step helps"


def without_checks(metrics: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics for the log."""
    return {name: values for name, values in metrics.items() if not name.startswith("nonfinite/")}


def _update(update: int, steps_before: int, sizes: tuple[int, int] | None) -> str:
    """Updates are counted from 1."""
    length, num_envs = sizes or (1, 1)
    return f"update {steps_before // (length * num_envs) + update + 1:,}"


def _on_host(leaves: list) -> list:
    import jax

    return [(name, np.asarray(x, np.float32)) for name, x in jax.device_get(leaves)]
