"""Policy-space response oracles (Lanctot et al. 2017, https://arxiv.org/abs/1711.00832): populations of policies that
grow by responses to mixtures of one another.

    populations <- {first policies}
    again: M    <- payoffs of all profiles of policies          (`Game.play`)
           sigma <- meta_solver(M)                               (`game_theory.meta_solver`)
           each player adds a response to sigma of the others   (`Game.respond`)

With exact responses and Nash equilibria it is the double oracle algorithm (McMahan et al. 2003), which ends at an
equilibrium of the whole game. Populations grow, so the loop is on the host; what it calls is compiled once.
"""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterable, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.combinators.multi_agent import teams
from jaxrl.curricula import randomized
from jaxrl.envs.against import against
from jaxrl.evaluation import evaluate
from jaxrl.game_theory import action_values, covariance_under, num_actions
from jaxrl.game_theory.meta import MetaSolver
from jaxrl.loop import online, run
from jaxrl.spaces import Repeated, Tuple
from jaxrl.types import Agent, Array, Env, PyTree

Populations = list[list[Any]]


class Game(NamedTuple):
    """What PSRO plays.

    Attributes:
      first: a policy for each player.
      play: (key, profile) -> payoffs [A] of one policy for each player; or [2, A], payoffs, and the variances of what
        is paid.
      respond: (key, player, populations, strategies) -> a policy, in answer to the others' mixtures of theirs.
    """

    first: Sequence[Any]
    play: Callable[[Array, tuple], Any]
    respond: Callable[[Array, int, Populations, Sequence[np.ndarray]], Any]


class Result(NamedTuple):
    """What PSRO found.

    Attributes:
      populations: a list of policies for each player.
      payoffs: [A, n_1, ..., n_A] of all their profiles.
      strategies: the meta-solver's mixture for each player, [n_i].
      gains: [iterations, A], what each response got above the mixture of its player: in sum a lower bound of
        `nash_conv` in the whole game, and equal to it where responses are exact.
      variances: [A, n_1, ..., n_A] of what profiles pay, where the game tells them; else None.
    """

    populations: Populations
    payoffs: np.ndarray
    strategies: list[np.ndarray]
    gains: np.ndarray
    variances: np.ndarray | None = None


def psro(key: Array, game: Game, meta_solver: MetaSolver, *, num_iterations: int, tolerance: float = 1e-6) -> Result:
    """Grows populations for `num_iterations`, or until nobody gains by a response.

    Args:
      meta_solver: `jaxrl.game_theory.meta_solver("nash")`, "uniform", "replicator", "rae", ..., or a function; of
        payoffs, and of variances where the game tells them.
      tolerance: a response that gains no more is not added; -inf adds all, as it should be where responses do not aim
        at payoffs alone.

    Raises:
      ValueError: if num_iterations < 1.
    """
    if num_iterations < 1:
        raise ValueError(f"psro: num_iterations is {num_iterations}, must be >= 1")
    play_key, respond_key = jax.random.split(key)
    populations: Populations = [[policy] for policy in game.first]
    players, num_played = range(len(populations)), itertools.count()

    def play(profiles: Iterable[tuple], policies: Populations) -> dict[tuple, np.ndarray]:
        """Payoffs [1, A], or with variances [2, A], by profile, of those that are not known."""
        new = [profile for profile in profiles if profile not in table]
        keys = [jax.random.fold_in(play_key, next(num_played)) for _ in new]
        chosen = [tuple(population[j] for population, j in zip(policies, profile)) for profile in new]
        return {p: np.atleast_2d(np.asarray(game.play(k, c), np.float64)) for p, k, c in zip(new, keys, chosen)}

    def solve() -> tuple[list[np.ndarray], list[np.ndarray]]:
        sizes = [len(population) for population in populations]
        profiles = list(itertools.product(*map(range, sizes)))
        table.update(play(profiles, populations))
        moments = [x.reshape(len(sizes), *sizes) for x in np.stack([table[p] for p in profiles], -1)]
        return moments, [np.asarray(s, np.float64) for s in meta_solver(*moments)]

    def gain(player: int, response: Any) -> tuple[float, dict]:
        """What a response gets above the mixture of its player, and the payoffs that tell so."""
        row = len(populations[player])
        policies = [population + [response] * (i == player) for i, population in enumerate(populations)]
        rows = [[row] if i == player else range(len(population)) for i, population in enumerate(populations)]
        played = play(itertools.product(*rows), policies)
        others = (p[:player] + p[player + 1 :] for p in played)
        mixed = np.array([np.prod([s[j] for s, j in zip(_without(strategies, player), other)]) for other in others])
        return float(mixed @ [x[0, player] for x in played.values()] - now[player]), played

    table: dict[tuple, np.ndarray] = {}
    moments, strategies = solve()
    gains = []
    for iteration in range(num_iterations):
        now = [action_values(moments[0], strategies, i) @ strategies[i] for i in players]
        keys = jax.random.split(jax.random.fold_in(respond_key, iteration), len(players))
        responses = [game.respond(keys[i], i, populations, strategies) for i in players]
        gained, played = zip(*(gain(i, response) for i, response in enumerate(responses)))
        gains.append(gained)
        for i in players:
            if gained[i] > tolerance:
                populations[i].append(responses[i])
                table.update(played[i])
        if max(gained) <= tolerance:
            break
        moments, strategies = solve()
    return Result(populations, moments[0], strategies, np.array(gains), *moments[1:])


def _without(items: Sequence, player: int) -> list:
    return [x for i, x in enumerate(items) if i != player]


def matrix_game(payoffs: Array, *, lambda_: float = 0.0, first: Sequence[int] | None = None) -> Game:
    """A game whose payoffs are known: policies are actions, responses are exact.

    Args:
      payoffs: [A, n_1, ..., n_A].
      lambda_: > 0: responses are the actions of largest mean - lambda * variance against the others' mixtures (Slumbers
        et al. 2023, https://arxiv.org/abs/2205.15434), for the meta-solver "rae".
      first: an action for each player; None: the first ones.
    """
    actions = num_actions(payoffs)
    payoffs = np.asarray(payoffs, np.float32)

    def respond(key: Array, player: int, populations: Populations, strategies: Sequence[np.ndarray]) -> int:
        full = [mixture(p, s, n) for p, s, n in zip(populations, strategies, actions)]
        values = action_values(payoffs, full, player)
        if lambda_:
            values = values - lambda_ * np.diag(covariance_under(payoffs, full, player))
        return int(np.argmax(values))

    first = [0] * len(actions) if first is None else list(first)
    return Game(first, lambda key, profile: payoffs[(slice(None), *profile)], respond)


def mixture(population: Sequence[int], strategy: np.ndarray, num: int) -> np.ndarray:
    """A mixture of actions [num], of one over a population of them."""
    return np.bincount(population, weights=strategy, minlength=num).astype(np.float32)


def environment_game(
    key: Array,
    env: Env,
    agents: Agent | Sequence[Agent],
    *,
    num_envs: int,
    unroll_length: int,
    num_updates: int,
    capacity: int = 16,
    num_episodes: int = 128,
    max_steps: int = 10_000,
    hparams: Sequence[PyTree] | None = None,
    variances: bool = False,
) -> Game:
    """A game of learned policies: an actor of an agent each.

    A response is what the player's agent learns from scratch by `online` on `against(env, ...)`, where each reset draws
    every opponent from the mixture of its population. Payoffs are mean returns of `evaluate`, of policies that act as
    they learned, at random where they do.

    Args:
      agents: the learner of each player, of one agent; or one for all of them.
      num_envs, unroll_length, num_updates: of learning a response.
      capacity: how large populations may become, at most; responses are compiled once for all sizes.
      num_episodes, max_steps: of a payoff.
      hparams: for each player; None: the agents' own.
      variances: whether to tell the variances of returns, too.

    Raises:
      ValueError: if there are not as many agents as the environment has; when a population would exceed `capacity`.
    """
    space = env.action_space
    if not isinstance(space, (Repeated, Tuple)):
        raise ValueError(
            f"environment_game: actions are {space}, must be those of several agents: Repeated, or a Tuple"
        )
    num = space.num if isinstance(space, Repeated) else len(space.spaces)
    agents = [agents] * num if isinstance(agents, Agent) else list(agents)
    hparams = [agent.hparams for agent in agents] if hparams is None else list(hparams)
    if len(agents) != num or len(hparams) != num:
        raise ValueError(f"environment_game: {len(agents)} agents and {len(hparams)} hparams, must be {num} of each")
    sizes = dict(num_envs=num_envs, unroll_length=unroll_length)

    def opponents(player: int) -> Agent:
        """Who acts for all but the player."""
        rest = _without(agents, player)
        if num == 2:
            return rest[0]
        there = (
            Repeated(space.space, num - 1)
            if isinstance(space, Repeated)
            else Tuple(tuple(_without(space.spaces, player)))
        )
        return teams(list(zip(rest, range(num - 1))), there)

    def begin(key: Array, player: int) -> PyTree:
        loop = online(agents[player], against(env, opponents(player), player=player), **sizes)
        return agents[player].actor(loop.init(key, hparams[player]).agent)

    def train(key: Array, tables: tuple, chances: tuple, player: int) -> PyTree:
        def draw(key: Array, params: PyTree) -> PyTree:
            places = [jax.random.categorical(k, jnp.log(p)) for k, p in zip(jax.random.split(key, num - 1), chances)]
            chosen = tuple(jax.tree.map(lambda x: x[i], table) for i, table in zip(places, tables))  # noqa: B023
            return params._replace(opponents=chosen[0] if num == 2 else chosen)

        first = jax.tree.map(lambda x: x[0], tables)
        faced = against(env, opponents(player), first[0] if num == 2 else first, player=player)
        loop = online(agents[player], faced, **sizes, curriculum=randomized(draw))
        state, _ = run(loop, loop.init(key, hparams[player]), num_updates)
        return agents[player].actor(state.agent)

    def payoff(key: Array, policies: tuple) -> Array:
        team = teams(list(zip(agents, range(num))), space)
        played = evaluate(key, team, policies, env, None, max_steps, num_episodes=num_episodes, greedy=False)
        mean = jnp.mean(played.returns, 0)
        return jnp.stack([mean, jnp.var(played.returns, 0)]) if variances else mean

    learn = jax.jit(train, static_argnames="player")

    def respond(key: Array, player: int, populations: Populations, strategies: Sequence[np.ndarray]) -> PyTree:
        if len(populations[player]) >= capacity:
            raise ValueError(f"environment_game: capacity is {capacity}, must be above the number of iterations")
        others = _without(range(num), player)
        filled = [(populations[i] + [populations[i][0]] * capacity)[:capacity] for i in others]
        tables = tuple(jax.tree.map(lambda *x: jnp.stack(x), *policies) for policies in filled)
        chances = tuple(jnp.zeros(capacity).at[: len(strategies[i])].set(strategies[i]) for i in others)
        return learn(key, tables, chances, player=player)

    first = [begin(k, i) for i, k in enumerate(jax.random.split(key, num))]
    return Game(first, jax.jit(payoff), respond)
