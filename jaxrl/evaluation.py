"""Evaluation over an exact number of episodes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.interaction import interact, start
from jaxrl.keys import typed
from jaxrl.types import Agent, Array, Env, PyTree, is_last


class Evaluation(NamedTuple):
    """One row an episode.

    Attributes:
      returns: [E] or [E, A] float32, undiscounted sums of rewards.
      lengths: [E] or [E, A] int32.
      finished: [E] or [E, A] bool; False where `max_steps` cut the episode, whose return is then only a part.
    """

    returns: Array
    lengths: Array
    finished: Array


def evaluate(
    key: Array,
    agent: Agent,
    state: PyTree,
    env: Env,
    params: PyTree = None,
    max_steps: int = 10_000,
    *,
    num_episodes: int = 128,
    greedy: bool = True,
) -> Evaluation:
    """Plays exactly `num_episodes` episodes, one in each of as many environments.

    Every episode that is started is counted and no environment plays a second one; counting whatever finishes first
    would favour short episodes.

    Args:
      state: the agent's state, or its `actor` part.
      params: environment parameters [num_episodes, ...], one level an episode; None: `env.params` for all.
      max_steps: the loop stops there, or as soon as all episodes are over.
      greedy: act by `act_greedy`; False samples by `act`.
    """
    axis = None if params is None else 0
    params = env.params if params is None else params
    act = agent.act_greedy if greedy else agent.act
    start_key, play_key = jax.random.split(typed(key, "evaluate"))
    now = start(start_key, agent, state, env, params, num_episodes, axis)
    zero = jnp.zeros(now.ended.shape)

    def unfinished(carry):
        t, now, _ = carry
        return (t < max_steps) & ~jnp.all(now.ended)

    def step(carry):
        t, now, result = carry
        act_key, step_key = jax.random.split(jax.random.fold_in(play_key, t))
        step_keys = jax.random.split(step_key, num_episodes)
        env_state, memory, data = interact(act_key, step_keys, act, state, env, now, axis)
        memory = agent.remember(state, memory, data)
        result = Evaluation(
            result.returns + jnp.where(now.ended, 0.0, data.reward),
            result.lengths + (~now.ended).astype(jnp.int32),
            now.ended | is_last(data),
        )
        now = now._replace(env_state=env_state, observation=data.next_observation, memory=memory, ended=result.finished)
        return t + 1, now, result

    first = (jnp.zeros((), jnp.int32), now, Evaluation(zero, zero.astype(jnp.int32), now.ended))
    return jax.lax.while_loop(unfinished, step, first)[2]
