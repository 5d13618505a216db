"""Cross-play: policies that were trained apart play with, or against, each other.

Policies that do well with themselves alone have agreed on something that others do not know (Hu et al. 2020,
https://arxiv.org/abs/2003.02979): the gap between self-play and cross-play measures that. Where agents compete, what
each gets against each is a game of policies, which `jaxrl.game_theory` rates.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.combinators.multi_agent import seated
from jaxrl.evaluation import Evaluation, evaluate
from jaxrl.game_theory import elo
from jaxrl.spaces import Repeated, Tuple
from jaxrl.types import Agent, Array, Env, PyTree

TOLERANCE = 1e-4  # of sums and differences of returns that count as none, beside the largest return


class Score(NamedTuple):
    """Means over episodes, and their standard errors (NaN of one episode).

    All pairs play the same episodes (`crossplay`), so that errors of means over pairs are those of means over episodes;
    what other policies would have got is not in them.

    Attributes:
      mean, error: [R, R].
      self_play: mean and error of the diagonal.
      cross_play, gap: mean and error off the diagonal, and of what self-play gets more; NaN of one policy.
    """

    mean: np.ndarray
    error: np.ndarray
    self_play: tuple[float, float]
    cross_play: tuple[float, float]
    gap: tuple[float, float]


def crossplay(
    key: Array,
    policies: Sequence[tuple[Agent, PyTree]],
    env: Env,
    *,
    seats: Sequence[int] = (0,),
    num_episodes: int = 128,
    max_steps: int = 10_000,
    greedy: bool = True,
) -> Evaluation:
    """Entry [i, j]: policy i plays `seats`, and policy j all others.

    All pairs begin with the same keys, so that they differ by who plays and not by where episodes begin. Entry [i, i]
    is what `evaluate` with this key makes of policy i, as far as that draws nothing when it acts.

    Policies whose agent is the same object, and whose states have the same shapes, are played by one compiled loop over
    pairs; others take one for each pair of kinds.

    Args:
      policies: R of (agent of all A agents, its state or the `actor` part).
      seats: of the row's policy, within 0 to A - 1; others remain.
      num_episodes, max_steps, greedy: of `evaluate`, for each pair.

    Returns:
      An `Evaluation` with leaves [R, R, E, A].

    Raises:
      ValueError: if there are no policies, the environment is not one of several agents (actions `Repeated`, or a
        `Tuple` with an entry an agent), or `seats` are none, all, twice the same or out of range.
    """
    num = _num_agents(env)
    if not policies:
        raise ValueError("crossplay: policies is empty, needs at least one")
    if not seats or len(set(seats)) != len(seats) or not set(seats) < set(range(num)):
        raise ValueError(f"crossplay: seats is {list(seats)}, must be some of 0 to {num - 1}, each once, and not all")
    who = [0 if seat in seats else 1 for seat in range(num)]
    kinds: dict[Any, list[int]] = {}
    for i, (agent, state) in enumerate(policies):
        leaves, structure = jax.tree.flatten(state)
        kinds.setdefault((id(agent), structure, *map(jax.typeof, leaves)), []).append(i)
    groups = [(policies[members[0]][0], np.array(members)) for members in kinds.values()]
    states = [jax.tree.map(lambda *x: jnp.stack(x), *(policies[i][1] for i in members)) for _, members in groups]

    def play(row: int, column: int) -> Evaluation:
        """Of all pairs of two groups, [rows, columns, E, A]."""
        pair = seated((groups[row][0], groups[column][0]), who, env.action_space)
        sizes = len(groups[row][1]), len(groups[column][1])

        def one(places: tuple[Array, Array]) -> Evaluation:
            chosen = tuple(jax.tree.map(lambda x: x[i], states[group]) for group, i in zip((row, column), places))
            return evaluate(key, pair, chosen, env, None, max_steps, num_episodes=num_episodes, greedy=greedy)

        played = jax.lax.map(one, tuple(x.reshape(-1) for x in jnp.indices(sizes)))
        return jax.tree.map(lambda x: x.reshape(*sizes, *x.shape[1:]), played)

    parts = [[play(i, j) for j in range(len(groups))] for i in range(len(groups))]
    rows = [jax.tree.map(lambda *x: jnp.concatenate(x, 1), *part) for part in parts]
    place = np.argsort(np.concatenate([members for _, members in groups]))
    return jax.tree.map(lambda *x: jnp.concatenate(x, 0)[place][:, place], *rows)


def score(returns: np.ndarray) -> Score:
    """What pairs got.

    Args:
      returns: [R, R, E], one number for each episode of each pair.
    """
    returns = np.asarray(returns, np.float64)
    diagonal = np.eye(len(returns), dtype=bool)

    def over_episodes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        num = x.shape[-1]
        error = x.std(-1, ddof=1) / np.sqrt(num) if num > 1 else np.full(x.shape[:-1], np.nan)
        return x.mean(-1), error

    def line(x: np.ndarray) -> tuple[float, float]:
        mean, error = over_episodes(x)
        return float(mean), float(error)

    own = returns[diagonal].mean(0)
    others = returns[~diagonal].mean(0) if len(returns) > 1 else np.full_like(own, np.nan)
    return Score(*over_episodes(returns), line(own), line(others), line(own - others))


def all_earn_the_same(returns: np.ndarray) -> bool:
    """Whether all agents got the same in every episode, as in a team. Returns [..., A]."""
    returns = np.asarray(returns, np.float64)
    return bool(np.ptp(returns, -1).max() <= TOLERANCE * np.abs(returns).max())


def is_constant_sum(returns: np.ndarray) -> bool:
    """Whether agents competed: their returns [..., A] differ, and add up to the same in every episode."""
    returns = np.asarray(returns, np.float64)
    total = returns.sum(-1)
    return bool(np.ptp(total) <= TOLERANCE * np.abs(returns).max()) and not all_earn_the_same(returns)


def win_rates(returns: np.ndarray, seats: Sequence[int] = (0,)) -> np.ndarray:
    """How often policy i is ahead of policy j, [R, R], over both ways of seating them, so that p_ji = 1 - p_ij.

    Ahead is whose seats got more on average in an episode; a draw counts 1/2.

    Args:
      returns: [R, R, E, A], of `crossplay` with these seats.
    """
    returns = np.asarray(returns, np.float64)
    mine = np.isin(np.arange(returns.shape[-1]), seats)
    lead = returns[..., mine].mean(-1) - returns[..., ~mine].mean(-1)
    won = (1.0 + np.sign(np.where(np.abs(lead) <= TOLERANCE * np.abs(returns).max(), 0.0, lead))) / 2.0
    as_row = won.mean(-1)
    return (as_row + 1.0 - as_row.T) / 2.0


def ratings(returns: np.ndarray, seats: Sequence[int] = (0,)) -> np.ndarray | None:
    """Elo ratings [R] by `win_rates`, with a mean of 0; None where agents do not compete (`is_constant_sum`).

    Args:
      returns: [R, R, E, A], of `crossplay` with these seats.
    """
    if len(returns) < 2 or not is_constant_sum(returns):
        return None
    return np.asarray(elo(jnp.asarray(win_rates(returns, seats))))


def _num_agents(env: Env) -> int:
    space = env.action_space
    num = space.num if isinstance(space, Repeated) else len(space.spaces) if isinstance(space, Tuple) else 1
    if num < 2:
        raise ValueError(f"crossplay: actions are {space}, must be those of several agents: Repeated, or a Tuple")
    return num
