"""What a team earns if some of its agents do not act by their policies."""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.evaluation import evaluate
from jaxrl.spaces import Space
from jaxrl.tree import select
from jaxrl.types import Agent, Array, Env, PyTree

Replacement = Callable[[Array, PyTree], PyTree]  # (key, actions [N, A, ...] of the policies) -> what others do


class Coalition(NamedTuple):
    """State of `coalition`."""

    agent: PyTree
    members: Array  # [A] bool, who acts by its policy


def no_op(action: PyTree) -> Replacement:
    """Everybody else does `action`, one of the action space."""
    return lambda key, actions: jax.tree.map(
        lambda x, a: jnp.broadcast_to(jnp.asarray(a, x.dtype), x.shape), actions, action
    )


def uniform(action_space: Space) -> Replacement:
    """Everybody else acts at random.

    Args:
      action_space: of the environment, `Repeated`.
    """
    return lambda key, actions: action_space.sample(key, jax.tree.leaves(actions)[0].shape[:1])


def another() -> Replacement:
    """Everybody else does what the policy of another agent, drawn in each step, does."""

    def replace(key: Array, actions: PyTree) -> PyTree:
        num_envs, num_agents = jax.tree.leaves(actions)[0].shape[:2]
        ahead = jax.random.randint(key, (num_envs, num_agents), 1, num_agents)
        who = (jnp.arange(num_agents) + ahead) % num_agents
        return jax.tree.map(lambda x: x[jnp.arange(num_envs)[:, None], who], actions)

    return replace


def coalition(agent: Agent, replace: Replacement) -> Agent:
    """An agent of many, for acting: members of `Coalition(state, members)` do what its policies say, others what
    `replace` says."""

    def forward(act: Callable) -> Callable:
        def acting(key: Array, state: Coalition, memory: PyTree, observation: PyTree):
            act_key, replace_key = jax.random.split(key)
            memory, action, extras = act(act_key, state.agent, memory, observation)
            num_envs = jax.tree.leaves(action)[0].shape[0]
            members = jnp.broadcast_to(state.members, (num_envs, *state.members.shape))
            return memory, select(members, action, replace(replace_key, action)), extras

        return acting

    return agent._replace(
        init_memory=lambda key, state, observation: agent.init_memory(key, state.agent, observation),
        act=forward(agent.act),
        act_greedy=forward(agent.act_greedy),
        remember=lambda state, memory, step: agent.remember(state.agent, memory, step),
        update=lambda key, state, data: (state, {}),
        observe=lambda key, state, data: (state, {}),
        actor=lambda state: state._replace(agent=agent.actor(state.agent)),
    )


def coalition_returns(
    key: Array,
    agent: Agent,
    state: PyTree,
    env: Env,
    members: Array,
    replace: Replacement,
    *,
    num_episodes: int = 32,
    max_steps: int = 10_000,
    greedy: bool = True,
) -> Array:
    """[K]: the mean over episodes of what all agents earn together, for each of K coalitions.

    Args:
      agent, state: of all A agents, trained.
      members: [K, A] bool.
      num_episodes: for each coalition; all of them start from the same keys, so that differences between coalitions are
        not due to where episodes begin.

    `shapley_monte_carlo(key, lambda key, members: coalition_returns(key, ..., members, ...), A, M)` has the agents'
    contributions, `shapley_exact(coalition_returns(..., all_coalitions(A), ...))` without sampling orders.
    """
    playing = coalition(agent, replace)

    def of(members: Array) -> Array:
        result = evaluate(
            key, playing, Coalition(state, members), env, None, max_steps, num_episodes=num_episodes, greedy=greedy
        )
        return jnp.mean(jnp.sum(result.returns, -1))

    return jax.vmap(of)(jnp.asarray(members))
