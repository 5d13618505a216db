"""What goes around a learner so that it learns from interaction: replay, exploration, both or neither."""

from __future__ import annotations

from typing import Any, Callable

from jaxrl import buffers, exploration
from jaxrl.combinators.exploration import with_exploration
from jaxrl.combinators.normalize import normalize_observations
from jaxrl.combinators.replay import with_replay
from jaxrl.combinators.transform import with_transform
from jaxrl.spaces import Dict, Repeated
from jaxrl.transforms import weigh_rewards
from jaxrl.types import Agent, Env

Explore = Callable[[Agent, Env], Agent]


def on_rollouts(agent: Agent, env: Env) -> Agent:
    """Learns from its own rollouts, and explores by itself."""
    del env
    return agent


def on_explored_rollouts(agent: Agent, env: Env) -> Agent:
    """Learns from rollouts with epsilon-greedy exploration."""
    return epsilon_greedy(agent, env)


def normalized(
    agent: Agent,
    env: Env,
    *,
    normalize_observation: bool = False,
    reward_growth: tuple[float, ...] = (),
    reward_limits: tuple[float, ...] = (),
) -> Agent:
    """The learner, seeing standardised observations and a curriculum of rewards if asked.

    Args:
      normalize_observation: standardise observations by running moments.
      reward_growth: where an environment records reward_terms: what the weight of each, at first that of its params,
        is multiplied with every hparams.reward_period steps, in all data; none: rewards are as they were recorded.
      reward_limits: what the weights then do not exceed.
    """
    if reward_growth:
        weights = getattr(env.params, "reward_weights", (1.0,) * len(reward_growth))
        agent = with_transform(agent, weigh_rewards(weights, reward_growth, reward_limits))
    return normalize_observations(agent) if normalize_observation else agent


def on_replay(explore: Explore) -> Callable[..., Agent]:
    """Learning from a buffer of transitions, with a way of exploring."""

    def replayed(
        agent: Agent,
        env: Env,
        *,
        buffer_size: int = 100_000,
        min_buffer_size: int = 1_000,
        batch_size: int = 256,
        updates_per_step: int = 1,
        n_step: int = 1,
        prioritized: bool = False,
        store_next_observation: bool = True,
    ) -> Agent:
        """Replay around a learner.

        Args:
          buffer_size: transitions kept.
          min_buffer_size: transitions before there is learning.
          batch_size: transitions a gradient step.
          updates_per_step: gradient steps for each rollout of num_envs * unroll_length steps.
          n_step: steps that a transition spans.
          prioritized: sample by TD error, with importance weights.
          store_next_observation: keep successors beside observations; without them half of the memory is needed, and
            the last step of a truncated episode is not learned from.
        """
        buffer = buffers.replay(
            buffer_size,
            batch_size,
            min_size=min_buffer_size,
            sampler=buffers.prioritized() if prioritized else buffers.uniform(),
            reader=buffers.n_step(n_step) if n_step != 1 else buffers.rows(),
            store_next_observation=store_next_observation,
        )
        return with_replay(explore(agent, env), buffer, updates_per_step)

    return replayed


def on_sequence_replay(explore: Explore) -> Callable[..., Agent]:
    """Learning from a buffer of sequences, with a way of exploring."""

    def replayed(
        agent: Agent,
        env: Env,
        *,
        buffer_size: int = 100_000,
        min_buffer_size: int = 1_000,
        batch_size: int = 32,
        sequence_length: int = 20,
        updates_per_step: int = 1,
        prioritized: bool = True,
    ) -> Agent:
        """Replay of sequences around a recurrent learner.

        Args:
          buffer_size: transitions kept.
          min_buffer_size: transitions before there is learning.
          batch_size: sequences a gradient step.
          sequence_length: steps of a sequence, those of the burn-in among them.
          updates_per_step: gradient steps for each rollout of num_envs * unroll_length steps.
          prioritized: sample by TD error, with importance weights.
        """
        buffer = buffers.replay(
            buffer_size,
            batch_size,
            min_size=min_buffer_size,
            sampler=buffers.prioritized() if prioritized else buffers.uniform(),
            reader=buffers.sequences(sequence_length),
        )
        return with_replay(explore(agent, env), buffer, updates_per_step)

    return replayed


def epsilon_greedy(agent: Agent, env: Env) -> Agent:
    return with_exploration(agent, exploration.epsilon_greedy(env.action_space, legal=legal_actions(env)))


def warm_up(agent: Agent, env: Env) -> Agent:
    return with_exploration(agent, exploration.warm_up(env.action_space, legal=legal_actions(env)))


def gaussian(agent: Agent, env: Env) -> Agent:
    """Uniform actions at first, then the agent's with Gaussian noise."""
    return warm_up(with_exploration(agent, exploration.gaussian(env.action_space)), env)


def legal_actions(env: Env) -> Any:
    """Where the legal actions are among observations, or None."""
    space = env.observation_space
    space = space.space if isinstance(space, Repeated) else space
    if isinstance(space, Dict) and "action_mask" in space.spaces:
        return lambda observation: observation["action_mask"]
    return None
