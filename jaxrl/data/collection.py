"""Datasets from policies: compiled rollouts, whose columns become episodes one after another."""

from __future__ import annotations

from typing import Any, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl import spaces
from jaxrl.data.dataset import Dataset, take_rows
from jaxrl.interaction import rollout, start, timestep_shape
from jaxrl.keys import typed
from jaxrl.tree import select
from jaxrl.types import Agent, Array, Env, PyTree, Transition, no_memory, nothing

_CHUNK_BYTES = 1 << 28  # of data on the device at a time


def collect(
    key: Array,
    agent: Agent,
    state: PyTree,
    env: Env,
    num_steps: int,
    *,
    num_envs: int = 16,
    greedy: bool = False,
    epsilon: float = 0.0,
    noise: float = 0.0,
    extras: Sequence[str] = (),
    metadata: dict[str, Any] | None = None,
) -> Dataset:
    """Plays a policy that does not learn, and keeps what it sees. The same key gives the same bits.

    Each of `num_envs` environments plays episodes one after another, and its unfinished one is truncated; so few long
    columns cut fewer episodes than many short ones.

    Args:
      state: the agent's state, or its `actor` part.
      num_steps: rows of the dataset, exactly.
      greedy: act by `act_greedy` instead of `act`.
      epsilon: in [0, 1], the probability of an action drawn uniformly from the action space instead.
      noise: >= 0, standard deviation of a Gaussian that is added to continuous actions, in units of half the range
        between their bounds; the sum is clipped to the bounds.
      extras: what `act` or the environment records and the dataset is to keep, by name.
      metadata: added to "jaxrl", "behavior", "observation_space" and "action_space".

    Raises:
      ValueError: if a number is out of range, there are several agents, or what `extras` names is not recorded.
    """
    if num_steps < 1 or not 1 <= num_envs <= num_steps:
        raise ValueError(f"collect: num_envs is {num_envs}, num_steps {num_steps}; needs 1 <= num_envs <= num_steps")
    if not 0 <= epsilon <= 1 or not noise >= 0:
        raise ValueError(f"collect: epsilon is {epsilon}, must be in [0, 1]; noise is {noise}, must be >= 0")
    reward_shape = timestep_shape(env, env.params).reward.shape
    if reward_shape:
        raise ValueError(f"collect: the environment rewards {reward_shape[0]} agents, datasets are of one")
    player = _player(agent, env, greedy, epsilon, noise)
    start_key, play_key = jax.random.split(typed(key, "collect"))
    interaction = jax.jit(lambda key, state: start(key, player, state, env, env.params, num_envs))(start_key, state)

    def play(key, state, interaction, length):
        interaction, data, _ = rollout(key, player, state, env, interaction, length)
        return interaction, core(data, extras)

    columns = -(-num_steps // num_envs)
    one = jax.eval_shape(lambda *args: play(*args, 1), play_key, state, interaction)[1]
    row = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one))
    length = min(columns, max(1, _CHUNK_BYTES // row))
    chunk = jax.jit(play, static_argnums=3, donate_argnums=2)
    chunks = []
    for i in range(-(-columns // length)):
        interaction, data = chunk(jax.random.fold_in(play_key, i), state, interaction, length)
        chunks.append(jax.device_get(data))
    data = stitch(chunks, columns)
    behavior = "greedy" if greedy else "sampled"
    behavior += f", epsilon {epsilon:g}" * (epsilon > 0) + f", noise {noise:g}" * (noise > 0)
    found = {"jaxrl": jaxrl.__version__, "behavior": behavior}
    found |= {"observation_space": str(env.observation_space), "action_space": str(env.action_space)}
    return take_rows(Dataset(data, {**found, **(metadata or {})}), slice(num_steps))


def collect_random(key: Array, env: Env, num_steps: int, **options: Any) -> Dataset:
    """`collect` by the random policy; `options` are its keywords."""
    metadata = {"behavior": "random", **(options.pop("metadata", None) or {})}
    return collect(key, random_policy(env.action_space), (), env, num_steps, metadata=metadata, **options)


def core(data: Transition, extras: Sequence[str] = ()) -> Transition:
    """Without what was recorded, but for what `extras` names.

    Raises:
      ValueError: if something is not there.
    """
    for name in extras:
        if name not in data.extras:
            raise ValueError(f"collect: extras has {name!r}, which is not recorded; there are {sorted(data.extras)}")
    return data._replace(extras={name: data.extras[name] for name in extras})


def stitch(chunks: Sequence[Transition], length: int | None = None) -> Transition:
    """Rollouts [T, N] that follow each other as rows [N * T]: column after column, each truncated at its end.

    Args:
      length: how many steps to take; None: all.
    """

    def join(*parts):
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.ascontiguousarray(np.swapaxes(whole[:length], 0, 1))

    data = jax.tree.map(join, *chunks)
    truncated = data.truncated.copy()
    truncated[:, -1] |= ~data.terminated[:, -1]
    data = data._replace(truncated=truncated)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)


def random_policy(space: spaces.Space) -> Agent:
    """An agent that draws actions uniformly (`space.sample`) and does not learn; its state is ()."""

    def act(key, state, memory, observation):
        count = jax.tree.leaves(observation)[0].shape[0]
        return memory, space.sample(key, (count,)), {}

    return Agent(lambda key, hparams, example: (), no_memory, act, act, nothing)


def _player(agent: Agent, env: Env, greedy: bool, epsilon: float, noise: float) -> Agent:
    """The agent with noisy actions."""
    chosen = agent.act_greedy if greedy else agent.act
    if not epsilon and not noise:
        return agent._replace(act=chosen)

    def act(key, state, memory, observation):
        key, noise_key, choice_key, random_key = jax.random.split(key, 4)
        memory, action, extras = chosen(key, state, memory, observation)
        if noise:
            action = _add_noise(noise_key, env.action_space, action, noise)
        if epsilon:
            count = jax.tree.leaves(action)[0].shape[0]
            drawn = env.action_space.sample(random_key, (count,))
            action = select(jax.random.uniform(choice_key, (count,)) < epsilon, drawn, action)
        return memory, action, extras

    return agent._replace(act=act)


def _add_noise(key: Array, space: spaces.Space, action: Array, noise: float) -> Array:
    if not isinstance(space, spaces.Box) or not space.bounded:
        raise ValueError(f"collect: noise is {noise}, must be 0 for the action space {space}, which is no bounded Box")
    low, high = space.bounds()
    step = noise * (high - low) / 2 * jax.random.normal(key, action.shape)
    return jnp.clip(action + step, low, high).astype(action.dtype)
