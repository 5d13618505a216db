"""Self-play: a pool of past actors as a curriculum of opponents, and two populations that take turns.

    env = against(game, agent)
    loop = online(agent, env, num_envs=..., unroll_length=..., curriculum=pool(agent, capacity=32, period=10))

Simultaneous self-play, in which all agents are today's, is `shared(agent, A)` on the game itself.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Sequence

import jax
import jax.numpy as jnp

from jaxrl.counters import increment
from jaxrl.envs.against import AgainstParams
from jaxrl.loop import run
from jaxrl.tree import edit, find
from jaxrl.types import Agent, Array, Curriculum, Loop, Metrics, PyTree, Transition, is_last, weight

TODAY = -1  # the label of the learner itself


class PoolState(NamedTuple):
    """K places for actors.

    Attributes:
      params: of the environment.
      actors: leaves [K, ...].
      label: [K] int32, the number of each, in the order in which they came; TODAY where there is none.
      wins, games: [K] float32, of the learner against each; draws are half a win. Old ones count less and less.
      num_added, num_updates: [] int32.
    """

    params: PyTree
    actors: PyTree
    label: Array
    wins: Array
    games: Array
    num_added: Array
    num_updates: Array

    @property
    def win_rate(self) -> Array:
        """[K], with half of a game more that was won and one half that was lost."""
        return (self.wins + 0.5) / (self.games + 1.0)


Weights = Callable[[PoolState], Array]  # -> [K] > 0; places that are empty are not looked at


def uniform() -> Weights:
    """All past actors alike (fictitious self-play, Heinrich et al. 2015)."""
    return lambda state: jnp.ones(state.games.shape)


def recent(half_life: float) -> Weights:
    """Half as likely with every `half_life` actors that came later."""
    if half_life <= 0:
        raise ValueError(f"recent: half_life is {half_life}, must be > 0")
    return lambda state: 0.5 ** ((state.num_added - state.label) / half_life)


def prioritized(power: float = 2.0) -> Weights:
    """(1 - win rate)^p: who is hard to beat comes often (Vinyals et al. 2019, https://doi.org/10.1038/s41586-019-1724-z)."""
    if power < 0:
        raise ValueError(f"prioritized: power is {power}, must be >= 0")
    return lambda state: (1.0 - state.win_rate) ** power


def even() -> Weights:
    """x (1 - x) of the win rate x: who is as strong comes often, for learners that lose to most (the same)."""
    return lambda state: state.win_rate * (1.0 - state.win_rate)


def pool(
    agent: Agent,
    *,
    capacity: int,
    period: int,
    weights: Weights = uniform(),
    today: float = 0.0,
    decay: float = 0.95,
    score: Callable[[Transition], Array] = lambda data: data.extras["lead"],
) -> Curriculum:
    """Opponents for `against`: past actors of the learner, drawn anew at every reset.

    The first is the state that `against` was given. Every `period` updates the learner's actor is added, in the place
    of the oldest one where the pool is full. An episode that began goes on with whom it began, also if that actor is
    given up meanwhile; its result then counts for nobody.

    Args:
      agent: the learner. What `actor` makes of its state is what the opponents act with.
      capacity: K >= 1; each takes the memory of an actor, and so does each environment.
      weights: how likely each is: `uniform()`, `recent(half_life)`, `prioritized(power)`, `even()`.
      today: the share of resets at which the opponent is the learner as it is now.
      decay: in (0, 1], what a rollout leaves of the counts of games before: the learner changes.
      score: of rows that end an episode [T, N]: > 0 is a win, < 0 a loss, 0 a draw. By default whether the player's
        return is above that of the others.

    Returns:
      A `Curriculum`. Metrics: `self_play/wins`, `self_play/games` of episodes against past actors, `self_play/size`.

    Raises:
      ValueError: if an argument is outside of its range; while tracing, if the environment is not `against` anybody, or
        the opponents' state is not an actor of the learner.
    """
    if capacity < 1 or period < 1:
        raise ValueError(f"pool: capacity is {capacity} and period {period}, must be >= 1")
    if not 0 <= today <= 1 or not 0 < decay <= 1:
        raise ValueError(f"pool: today is {today} and decay {decay}, must be in [0, 1] and in (0, 1]")

    def init(key: Array, params: PyTree) -> PoolState:
        first = find(params, AgainstParams)
        if not first:
            raise ValueError("pool: the environment has no opponents, must be made by jaxrl.envs.against")
        actors = jax.tree.map(lambda x: jnp.broadcast_to(x, (capacity, *jnp.shape(x))), first[0].opponents)
        label = jnp.full(capacity, TODAY, jnp.int32).at[0].set(0)
        none = jnp.zeros(capacity)
        return PoolState(params, actors, label, none, none, jnp.int32(1), jnp.int32(0))

    def sample(key: Array, state: PoolState, agent_state: PyTree, num_envs: int) -> PyTree:
        today_key, choice_key = jax.random.split(key)
        logits = jnp.where(state.label >= 0, jnp.log(weights(state)), -jnp.inf)
        place = jax.random.categorical(choice_key, logits, shape=(num_envs,))
        chosen, label = jax.tree.map(lambda x: x[place], state.actors), state.label[place]
        if today:
            own = jax.random.bernoulli(today_key, today, (num_envs,))
            now = agent.actor(agent_state)
            chosen = jax.tree.map(lambda x, y: jnp.where(own.reshape(-1, *(1,) * y.ndim), y, x), chosen, now)
            label = jnp.where(own, TODAY, label)
        params = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *jnp.shape(x))), state.params)
        return edit(params, AgainstParams, lambda p: p._replace(opponents=chosen, label=label))

    def update(key: Array, state: PoolState, agent_state: PyTree, data: Transition) -> tuple[PoolState, Metrics]:
        over = (is_last(data) & (weight(data) > 0)).reshape(-1)
        won = (1.0 + jnp.sign(score(data).reshape(-1))) / 2.0
        who = (data.extras["opponent"].reshape(-1, 1) == state.label) & (state.label >= 0) & over[:, None]
        games, wins = jnp.sum(who, 0).astype(jnp.float32), jnp.sum(who * won[:, None], 0)
        state = state._replace(wins=decay * state.wins + wins, games=decay * state.games + games)
        num_updates = increment(state.num_updates, period)
        due = num_updates % period == 0
        state = jax.tree.map(lambda new, old: jnp.where(due, new, old), _add(state, agent.actor(agent_state)), state)
        size = jnp.sum(state.label >= 0).astype(jnp.float32)
        metrics = {"self_play/wins": jnp.sum(wins), "self_play/games": jnp.sum(games), "self_play/size": size}
        return state._replace(num_updates=num_updates), metrics

    return Curriculum(init, sample, update, axes=0)


def _add(state: PoolState, actor: PyTree) -> PoolState:
    """The pool with an actor in the place of the oldest."""
    if jax.tree.structure(actor) != jax.tree.structure(jax.tree.map(lambda x: x[0], state.actors)):
        raise ValueError("pool: opponents act with another state than the learner's actor, must be of one agent")
    place = state.num_added % state.games.shape[0]
    return state._replace(
        actors=jax.tree.map(lambda all_, x: all_.at[place].set(x), state.actors, actor),
        label=state.label.at[place].set(state.num_added),
        wins=state.wins.at[place].set(0.0),
        games=state.games.at[place].set(0.0),
        num_added=increment(state.num_added, state.games.shape[0]),
    )


def alternating(parts: Sequence[tuple[Agent, Loop]], *, period: int = 1) -> Loop:
    """Two populations that take turns: one learns for `period` steps of its loop, then the other, against its actor.

    A loop over the states of both. Opponents change in the middle of episodes, which their memories outlast.

    Args:
      parts: (agent, `online(agent, against(game, the other's agent, player=i), ...)`), i = 0, 1, without curricula.

    Returns:
      A `Loop`. Metrics of part i are under "i/", [period]. `init` takes a pair of hparams.

    Raises:
      ValueError: if there are not two parts, or period < 1.
    """
    if len(parts) != 2 or period < 1:
        raise ValueError(f"alternating: {len(parts)} parts and period {period}, must be 2 and >= 1")
    (first, _), (second, _) = parts
    loops = [loop for _, loop in parts]

    def face(state: PyTree, opponents: PyTree) -> PyTree:
        """A loop's state with the other's actor in place of its opponent."""
        params = edit(state.interaction.params, AgainstParams, lambda p: p._replace(opponents=opponents))
        return state._replace(interaction=state.interaction._replace(params=params))

    def init(key: Array, hparams: Sequence[PyTree] = (None, None)) -> tuple:
        one, other = (loop.init(k, hp) for loop, k, hp in zip(loops, jax.random.split(key), hparams or (None, None)))
        return face(one, second.actor(other.agent)), face(other, first.actor(one.agent))

    def step(state: tuple) -> tuple[tuple, Metrics]:
        one, other = state
        one, learned = run(loops[0], face(one, second.actor(other.agent)), period)
        other, answered = run(loops[1], face(other, first.actor(one.agent)), period)
        metrics = {f"{i}/{name}": x for i, part in enumerate((learned, answered)) for name, x in part.items()}
        return (one, other), metrics

    return Loop(init, step)
