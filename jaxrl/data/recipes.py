"""The usual kinds of datasets, made of policies and of a training run.

The five types of Schweighofer et al. 2022 (https://arxiv.org/abs/2111.04714), section 4, and the levels of D4RL (Fu et
al. 2020, https://arxiv.org/abs/2004.07219), section 5.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Sequence

import jax
import numpy as np

import jaxrl
from jaxrl.data.collection import collect, collect_random, core, stitch
from jaxrl.data.dataset import Dataset, concatenate, episode_bounds, num_transitions, take_episodes, take_rows
from jaxrl.loop import online
from jaxrl.types import Agent, Array, Env, PyTree


class Training(NamedTuple):
    """What `record_training` saw.

    Attributes:
      replay: every transition of the run; the episodes of one environment after those of another.
      actors: `agent.actor(state)`, the first one before any update, the last one after all.
      updates: how many updates came before each of them.
      state: the loop's state at the end.
    """

    replay: Dataset
    actors: list[PyTree]
    updates: list[int]
    state: PyTree


def record_training(
    key: Array,
    agent: Agent,
    env: Env,
    num_updates: int,
    *,
    num_envs: int,
    unroll_length: int,
    reset_pool: int = 0,
    hparams: PyTree = None,
    num_actors: int = 10,
    metadata: dict[str, Any] | None = None,
) -> Training:
    """Trains by the online loop and keeps all of its transitions on the host, and policies on the way.

    It is the run that `online` makes of the same key, to the bit.

    Args:
      num_actors: how many policies to keep after the first, at equal distances.

    Raises:
      ValueError: if `num_updates` or `num_actors` is below 1, or the loop refuses its sizes.
    """
    if num_updates < 1 or num_actors < 1:
        raise ValueError(f"record_training: num_updates is {num_updates}, num_actors {num_actors}; must be >= 1")

    def observe(key, state, fresh):
        state, metrics = agent.observe(key, state, fresh)
        return state, {**metrics, "replay": core(fresh)}  # what is seen leaves the loop with what is measured

    loop = online(
        agent._replace(observe=observe), env, num_envs=num_envs, unroll_length=unroll_length, reset_pool=reset_pool
    )
    step = jax.jit(loop.step)
    state = jax.jit(loop.init)(key, agent.hparams if hparams is None else hparams)
    actors, updates, chunks = [agent.actor(state.agent)], [0], []
    wanted = {round(num_updates * (i + 1) / num_actors) for i in range(num_actors)}
    for i in range(1, num_updates + 1):
        state, metrics = step(state)
        chunks.append(jax.device_get(metrics["replay"]))
        if i in wanted:
            actors.append(agent.actor(state.agent))
            updates.append(i)
    found = {"jaxrl": jaxrl.__version__, "behavior": "replay"}
    return Training(Dataset(stitch(chunks), {**found, **(metadata or {})}), actors, updates, state)


def named(dataset: Dataset, name: str) -> Dataset:
    """The dataset with the name of its policy in metadata "behavior", as in "expert (greedy)"."""
    return dataset._replace(metadata={**dataset.metadata, "behavior": f"{name} ({dataset.metadata['behavior']})"})


def medium_index(returns: Sequence[float], random: float, expert: float, fraction: float = 1 / 3) -> int:
    """Which of the policies of a run is the first that goes `fraction` of the way from random to expert.

    D4RL's medium policies have "approximately 1/3 the performance of the expert".

    Args:
      returns: of the policies, in the order of training.

    Raises:
      ValueError: if none does.
    """
    reached = np.flatnonzero(np.asarray(returns) >= random + fraction * (expert - random))
    if not reached.size:
        raise ValueError(
            f"medium_index: the best return is {max(returns)}, none goes {fraction:.2g} of the way to {expert}"
        )
    return int(reached[0])


def sample_episodes(dataset: Dataset, num_steps: int, seed: int = 0) -> Dataset:
    """`num_steps` rows of episodes drawn without replacement, of which the last is cut.

    Raises:
      ValueError: if there are fewer rows.
    """
    count = num_transitions(dataset)
    if not 1 <= num_steps <= count:
        raise ValueError(f"sample_episodes: num_steps is {num_steps}, must be in [1, {count}]")
    starts, stops = episode_bounds(dataset)
    order = np.random.default_rng(seed).permutation(len(starts))
    needed = int(np.searchsorted(np.cumsum((stops - starts)[order]), num_steps)) + 1
    return take_rows(take_episodes(dataset, order[:needed]), slice(num_steps))


def mixture(
    datasets: Sequence[Dataset], fractions: Sequence[float], num_steps: int | None = None, seed: int = 0
) -> Dataset:
    """Rows of several datasets in given proportions, as whole episodes drawn without replacement.

    Args:
      fractions: of the rows, one a dataset, summing to 1.
      num_steps: rows of the result; None: as many as the datasets allow.

    Raises:
      ValueError: if the fractions do not fit, or a dataset has too few rows.
    """
    if len(fractions) != len(datasets) or min(fractions, default=0) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"mixture: fractions are {tuple(fractions)}, must be > 0, one a dataset, and sum to 1")
    if num_steps is None:
        num_steps = min(int(num_transitions(d) / f + 1e-6) for d, f in zip(datasets, fractions))
    ends = [round(num_steps * total) for total in np.cumsum(fractions)]
    counts = np.diff([0, *ends])
    drawn = [sample_episodes(d, int(n), seed + i) for i, (d, n) in enumerate(zip(datasets, counts))]
    mixed = concatenate(drawn)
    shares = (f"{100 * f:g} % {d.metadata.get('behavior', 'unnamed')}" for d, f in zip(datasets, fractions))
    return mixed._replace(metadata={**mixed.metadata, "behavior": " + ".join(shares)})


def five_types(
    key: Array, agent: Agent, expert: PyTree, env: Env, replay: Dataset, num_steps: int, **options: Any
) -> dict[str, Dataset]:
    """random, expert, mixed (80 % random, 20 % expert), noisy (the expert with epsilon 0.2) and replay.

    Args:
      expert: a state of the agent, which acts greedily.
      replay: of the run that trained it (`record_training`); `num_steps` rows of it are drawn if it has more.
      num_steps: rows of each dataset.
      options: of `collect`, such as `num_envs` and `metadata`.
    """
    keys = jax.random.split(key, 3)
    play = functools.partial(collect, env=env, num_steps=num_steps, **options)
    random = collect_random(keys[0], env, num_steps, **options)
    best = named(play(keys[1], agent, expert, greedy=True), "expert")
    return {
        "random": random,
        "expert": best,
        "mixed": mixture([random, best], [0.8, 0.2], num_steps),
        "noisy": named(play(keys[2], agent, expert, greedy=True, epsilon=0.2), "expert"),
        "replay": replay if num_transitions(replay) <= num_steps else sample_episodes(replay, num_steps),
    }


def d4rl_levels(
    key: Array,
    agent: Agent,
    medium: PyTree,
    expert: PyTree,
    env: Env,
    replay: Dataset,
    num_steps: int,
    *,
    greedy: bool = False,
    **options: Any,
) -> dict[str, Dataset]:
    """random, medium, medium-replay, medium-expert (half of each) and expert.

    Args:
      medium, expert: states of the agent; `medium_index` finds the first of them in a training run.
      replay: of the run until it was medium.
      greedy: how both act; D4RL's policies sample.
      options: of `collect`.
    """
    keys = jax.random.split(key, 3)
    play = functools.partial(collect, env=env, num_steps=num_steps, **options)
    random = collect_random(keys[0], env, num_steps, **options)
    half = named(play(keys[1], agent, medium, greedy=greedy), "medium")
    best = named(play(keys[2], agent, expert, greedy=greedy), "expert")
    return {
        "random": random,
        "medium": half,
        "medium-replay": replay,
        "medium-expert": mixture([half, best], [0.5, 0.5], num_steps),
        "expert": best,
    }
