"""Tables of learners by datasets: one program trains a learner on all datasets and seeds."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.data import Dataset
from jaxrl.loop import offline, run
from jaxrl.tree import field_names, replace_fields
from jaxrl.types import Agent, Env, PyTree, Transition


class Learner(NamedTuple):
    """How a learner is made, and what it needs to see of a dataset."""

    name: str
    static: dict[str, Any] = {}
    hparams: dict[str, float] = {}
    view: Callable[[Dataset], Dataset] = lambda dataset: dataset


def learn(
    learner: Learner,
    env: Env,
    datasets: list[Dataset],
    shared: dict[str, float],
    *,
    num_updates: int,
    num_seeds: int,
    num_episodes: int = 32,
    batch_size: int = 128,
    widths: tuple[int, ...] = (64, 64),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Trains a learner on M datasets with S seeds each, on standardized observations.

    Args:
      shared: hyperparameters of all learners; one takes those that it has, and its own over them.

    Returns:
      mean greedy returns [M, S]; metrics {name: [M, S]}, means over the last tenth of the updates.
    """
    agent, hparams = jaxrl.make_agent(
        learner.name, env, offline=True, widths=widths, normalize_observation=True, **learner.static
    )
    numbers = {k: v for k, v in shared.items() if k in field_names(hparams)}
    hparams = replace_fields(hparams, **{**numbers, **learner.hparams})

    def one(key, rows):
        init_key, eval_key = jax.random.split(key)
        loop = offline(agent, rows, batch_size=batch_size)
        state, metrics = run(loop, loop.init(init_key, hparams), num_updates)
        played = jaxrl.evaluate(eval_key, agent, state.agent, env, num_episodes=num_episodes)
        return played.returns.mean(), {k: v[-max(num_updates // 10, 1) :].mean() for k, v in metrics.items()}

    both = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))
    keys = jax.random.split(jax.random.key(0), num_seeds)
    return jax.tree.map(np.asarray, both(keys, stack([learner.view(d) for d in datasets])))


def stack(datasets: list[Dataset]) -> Transition:
    """Leaves [M, D, ...]: D are the rows of the largest, and the others are repeated until they have as many."""
    size = max(len(d.transitions.reward) for d in datasets)

    def join(*leaves):
        return jnp.asarray(np.stack([np.asarray(x)[np.arange(size) % len(x)] for x in leaves]))

    return jax.tree.map(join, *(d.transitions for d in datasets))


def mean_return(env: Env, agent: Agent, state: PyTree, num_episodes: int = 512, greedy: bool = True) -> float:
    """Of a policy, over whole episodes."""

    def play(state):
        key = jax.random.key(99)
        return jaxrl.evaluate(key, agent, state, env, num_episodes=num_episodes, greedy=greedy).returns.mean()

    return float(jax.jit(play)(state))
