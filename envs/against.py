"""`against`: an environment of many agents for one of them, whom frozen policies play the others against."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.spaces import Repeated, Space, Tuple, zeros
from jaxrl.types import Agent, Array, Env, PyTree, TimeStep, Transition, is_last

_SALT = 0x7A6A00  # and 1 for memories at resets: the environment inside gets the caller's key untouched
ONCE = ("weight", "num_steps", "index")  # extras that may be one number for all agents


class AgainstParams(NamedTuple):
    """Of an environment of one player.

    Attributes:
      env: params of the environment inside.
      opponents: the state of the opponents' agent, or its `actor` part.
      label: [] int32, who they are: recorded as extras["opponent"].
    """

    env: PyTree
    opponents: PyTree
    label: Array


class AgainstState(NamedTuple):
    env: PyTree  # the state of the environment inside
    observation: PyTree  # what the opponents see, [1, ...], or [1, A - 1, ...]
    memory: PyTree  # theirs
    ended: Array  # [1] or [1, A - 1] bool: which of them are out
    lead: Array  # [] float32: the player's return so far, minus the mean of the others'


def against(env: Env, agent: Agent, state: PyTree = None, *, player: int = 0, greedy: bool = False) -> Env:
    """One agent of an environment of A learns; a given agent, which does not, acts for the others.

    Any learner of one agent plays it. Weights are in `Env.params`, one set a row where they are [N], so that a
    curriculum hands opponents to resets (`jaxrl.combinators.self_play.pool`). Opponents have memories of their own,
    which start anew at resets; who of them is out has rows of weight 0 there, as in the rollout. The episode is the
    player's: it ends when the player's does. `extras["opponent"]` says who the opponents are (`AgainstParams.label`),
    and `extras["lead"]` by how much the player's return is above the mean of theirs so far.

    Args:
      agent: of the opponents. For A = 2 it sees observations [N, ...] of one agent, for more [N, A - 1, ...] (or
        tuples, where they are unlike) of all but the player, in order: `shared(agent, A - 1)` is one for all, with the
        state of `agent` itself, `independent(agent, A - 1)` one each of a kind, `teams` plays any together.
      state: what it acts with; None: what its `init` makes, to be replaced by a curriculum.
      player: whom the learner plays, 0 to A - 1.
      greedy: whether opponents act by `act_greedy`.

    Raises:
      ValueError: if the environment is not one of several agents (actions `Repeated`, or a `Tuple` with an entry an
        agent), or has no such player; while tracing, if extras are not [A, ...].
    """
    space = env.action_space
    if not isinstance(space, (Repeated, Tuple)):
        raise ValueError(f"against: actions are {space}, must be those of several agents: Repeated, or a Tuple")
    num = space.num if isinstance(space, Repeated) else len(space.spaces)
    if num < 2 or not 0 <= player < num:
        raise ValueError(f"against: player is {player} of {num} agents, must be 0 to {num - 1}, of at least 2")
    others = [i for i in range(num) if i != player]
    act = agent.act_greedy if greedy else agent.act

    def mine(space: Space, tree: PyTree) -> PyTree:
        return tree[player] if isinstance(space, Tuple) else jax.tree.map(lambda x: x[player], tree)

    def theirs(space: Space | None, tree: PyTree) -> PyTree:
        """Of the opponents, for a batch of one environment."""
        if isinstance(space, Tuple):
            rows = tuple(jax.tree.map(lambda x: x[None], tree[i]) for i in others)
            return rows[0] if num == 2 else rows
        index = others[0] if num == 2 else jnp.array(others)
        return jax.tree.map(lambda x: x[index][None], tree)

    def joined(action: PyTree, rows: PyTree) -> PyTree:
        """Of all agents, of the player's action and those of the opponents, [1, ...]."""
        rows = jax.tree.map(lambda x: x[0], rows)
        if isinstance(space, Tuple):
            rows = (rows,) if num == 2 else rows
            return (*rows[:player], action, *rows[player:])
        if num == 2:
            rows = jax.tree.map(lambda x: x[None], rows)
        return jax.tree.map(
            lambda x, r: jnp.concatenate([r[:player], jnp.asarray(x, r.dtype)[None], r[player:]]), action, rows
        )

    def part(extras: dict[str, PyTree], take: Any) -> dict[str, PyTree]:
        """Extras of the player, or of the opponents: those that all share, and rows of the others."""
        one = {name: x for name, x in extras.items() if name in ONCE and jnp.ndim(x) == 0}
        rows = {name: x for name, x in extras.items() if name not in one}
        if any(x.shape[:1] != (num,) for x in jax.tree.leaves(rows)):
            raise ValueError(f"against: extras {sorted(rows)} must have a row for each of {num} agents")
        return one | take(None, rows)

    def reset(key: Array, params: AgainstParams) -> tuple[AgainstState, PyTree]:
        inner, observation = env.reset(key, params.env)
        seen = theirs(env.observation_space, observation)
        memory = agent.init_memory(jax.random.fold_in(key, _SALT + 1), params.opponents, seen)
        ended = jnp.zeros((1,) if num == 2 else (1, num - 1), bool)
        return AgainstState(inner, seen, memory, ended, jnp.zeros(())), mine(env.observation_space, observation)

    def step(key: Array, now: AgainstState, action: PyTree, params: AgainstParams) -> tuple[AgainstState, TimeStep]:
        memory, answer, recorded = act(jax.random.fold_in(key, _SALT), params.opponents, now.memory, now.observation)
        inner, timestep = env.step(key, now.env, joined(action, answer), params.env)
        seen = theirs(env.observation_space, timestep.observation)
        shared = {name: x[None] for name, x in part(timestep.extras, lambda _, rows: {}).items()}
        rows = part(timestep.extras, theirs) | shared | recorded
        reward, terminated, truncated = (
            theirs(None, x) for x in (timestep.reward, timestep.terminated, timestep.truncated)
        )
        outcome = Transition(
            now.observation,
            answer,
            jnp.where(now.ended, 0.0, reward),
            terminated | now.ended,
            truncated,
            seen,
            rows | {"weight": rows.get("weight", 1.0) * (1.0 - now.ended.astype(jnp.float32))},
        )
        memory = agent.remember(params.opponents, memory, outcome)
        ended = is_last(outcome)
        lead = now.lead + timestep.reward[player] - jnp.mean(outcome.reward)
        extras = part(timestep.extras, mine) | {"opponent": params.label, "lead": lead}
        seen_by_me, reward, terminated, truncated = (
            mine(env.observation_space, timestep.observation),
            *(mine(None, x) for x in (timestep.reward, timestep.terminated, timestep.truncated)),
        )
        then = AgainstState(inner, seen, memory, ended, lead)
        return then, TimeStep(seen_by_me, reward, terminated, truncated, extras)

    own = [s.spaces[player] if isinstance(s, Tuple) else s.space for s in (env.observation_space, space)]
    if state is None:
        state = _untrained(env, agent, theirs)
    render = env.render and (lambda state, params: env.render(state.env, params.env))
    return Env(reset, step, AgainstParams(env.params, state, jnp.int32(0)), *own, render)


def _untrained(env: Env, agent: Agent, theirs: Any) -> PyTree:
    """The actor of an agent's state as `init` makes it, for the rows of the opponents."""

    def example(key: Array) -> Transition:
        inner, observation = env.reset(key, env.params)
        action = zeros(env.action_space)
        timestep = env.step(key, inner, action, env.params)[1]
        seen, then = (theirs(env.observation_space, x) for x in (observation, timestep.observation))
        ends = (theirs(None, x) for x in (timestep.reward, timestep.terminated, timestep.truncated))
        return Transition(seen, theirs(env.action_space, action), *ends, then)

    key = jax.random.key(0)
    rows = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), jax.eval_shape(example, key))
    return agent.actor(agent.init(key, agent.hparams, rows))
