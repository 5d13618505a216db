"""Games in normal form: general payoff tensors, played once, again and again, or until chance ends them.

`matrix_game(payoffs)` makes an environment of any tensor; the games of the literature are here as tables with their
equilibria. A Nash equilibrium is a joint strategy from which no agent gains by deviating alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts, pictures
from jaxrl.types import Array, Env, TimeStep


class Game(NamedTuple):
    payoffs: np.ndarray  # [A, n_1, ..., n_A] float32; payoffs[i, a_1, ..., a_A] is what agent i gets
    pure: tuple[tuple[int, ...], ...]  # all Nash equilibria in pure strategies, as joint actions
    mixed: tuple[tuple[tuple[float, ...], ...], ...] = ()  # others, as probabilities of every agent; not always all


class MatrixGameParams(NamedTuple):
    payoffs: Array  # [A, n_1, ..., n_A]
    continuation: Array  # [] probability that a repeated game goes on after a round
    max_steps: Array  # [] int32, rounds


class MatrixGameState(NamedTuple):
    history: Array  # [max(memory, 1), A] int32, joint actions, the last one first; -1 where there was none yet
    time: Array  # [] int32, rounds played


def matrix_game(payoffs: Array, *, num_steps: int = 1, memory: int = 1, continuation: float = 1.0) -> Env:
    """A game of A agents that act at once: reward_i = payoffs[i, a_1, ..., a_A].

    A game of one round terminates with it. A repeated game is truncated by the clock, and terminates for all after any
    round with probability 1 - continuation: where nobody looks beyond the end, that is the game with this discount.

    An agent sees the last `memory` joint actions, one-hot [memory * (n_1 + ... + n_A)]: its own first, then those of
    the agents after it, around to the one before it (so that in a symmetric game all see the same thing); zeros where
    there was none. In a repeated game the share of rounds played, in [0, 1], comes last. Agents are alike (`Repeated`)
    where all have as many actions, else unlike (`Tuple`).

    Args:
      payoffs: [A, n_1, ..., n_A], A >= 2: `Env.params`, traced, as `continuation` is and `num_steps`, as `max_steps`
        (whether it is 1 or more is fixed here).
      memory: how many joint actions are seen, >= 0.

    Raises:
      ValueError: if payoffs are not such a tensor, num_steps < 1, memory < 0, nothing would be seen (memory 0 in a game
        of one round), or continuation is outside of [0, 1].
    """
    shape = tuple(np.shape(payoffs))
    if len(shape) < 3 or shape[0] != len(shape) - 1 or 0 in shape:
        raise ValueError(f"matrix_game: payoffs have shape {list(shape)}, must be [A, n_1, ..., n_A] with A >= 2")
    parts.require(num_steps, lambda x: x >= 1, "matrix_game: num_steps", "must be >= 1")
    parts.require(memory, lambda x: x >= 0, "matrix_game: memory", "must be >= 0")
    parts.require(continuation, lambda x: 0 <= x <= 1, "matrix_game: continuation", "must be in [0, 1]")
    repeated = num_steps > 1
    if not (memory or repeated):
        raise ValueError("matrix_game: memory is 0 and num_steps 1: agents would see nothing; raise one of them")
    num_agents, nums = shape[0], shape[1:]
    alike = len(set(nums)) == 1
    together = jnp.stack if alike else tuple

    def observe(state: MatrixGameState, params: MatrixGameParams):
        seen = [jax.nn.one_hot(state.history[:memory, i], n) for i, n in enumerate(nums)]
        passed = [(state.time / params.max_steps)[None]] if repeated else []
        return together(
            [jnp.concatenate([jnp.concatenate(seen[i:] + seen[:i], 1).ravel(), *passed]) for i in range(num_agents)]
        )

    def reset(key: Array, params: MatrixGameParams):
        del key
        state = MatrixGameState(jnp.full((max(memory, 1), num_agents), -1, jnp.int32), jnp.int32(0))
        return state, observe(state, params)

    def step(key: Array, state: MatrixGameState, action, params: MatrixGameParams):
        action = action if alike else jnp.stack(action)
        reward = params.payoffs.reshape(num_agents, -1).T[jnp.sum(action * _strides(nums))]
        state = MatrixGameState(jnp.concatenate([action[None], state.history[:-1]]), state.time + 1)
        late = state.time >= params.max_steps
        over = jax.random.uniform(key) >= params.continuation if repeated else late
        ends = (jnp.broadcast_to(x, (num_agents,)) for x in (over, late & ~over))
        return state, TimeStep(observe(state, params), reward, *ends)

    def render(state: MatrixGameState, params: MatrixGameParams) -> Array:
        """A row an agent, a column an action; discs are what was chosen last."""
        del params
        picture = pictures.board(np.arange(max(nums)) >= np.array(nums)[:, None])
        for i in range(num_agents):
            center = jnp.stack([i + 0.5, state.history[0, i] + 0.5])  # to the left of the picture where there is none
            picture = pictures.disc(picture, center, 0.35, pictures.AGENT)
        return picture

    params = MatrixGameParams(jnp.asarray(payoffs, jnp.float32), jnp.float32(continuation), jnp.int32(num_steps))
    seen = spaces.Box(0.0, 1.0, (memory * sum(nums) + repeated,))
    actions = tuple(spaces.Discrete(n) for n in nums)
    if alike:
        space, actions = spaces.Repeated(seen, num_agents), spaces.Repeated(actions[0], num_agents)
    else:
        space, actions = spaces.Tuple((seen,) * num_agents), spaces.Tuple(actions)
    return Env(reset, step, params, space, actions, render)


def game(name: str, *, num_steps: int = 1, memory: int = 1, continuation: float = 1.0) -> Env:
    """`matrix_game` of a table of `GAMES`, with the numbers that it has by default.

    Raises:
      ValueError: an unknown name, or what `matrix_game` refuses.
    """
    if name not in GAMES:
        raise ValueError(f"game: name is {name!r}, allowed: {', '.join(GAMES)}")
    return matrix_game(GAMES[name]().payoffs, num_steps=num_steps, memory=memory, continuation=continuation)


# Tables --------------------------------------------------------------------------------------------------------------


def prisoners_dilemma(temptation: float = 5, reward: float = 3, punishment: float = 1, sucker: float = 0) -> Game:
    """Cooperate (0) or defect (1); defecting dominates. Numbers of Axelrod's tournament by default.

    Raises:
      ValueError: unless temptation > reward > punishment > sucker.
    """
    if not temptation > reward > punishment > sucker:
        numbers = f"{temptation}, {reward}, {punishment}, {sucker}"
        raise ValueError(f"prisoners_dilemma: payoffs are {numbers}, must be temptation > reward > punishment > sucker")
    return Game(_symmetric([[reward, sucker], [temptation, punishment]]), ((1, 1),))


def stag_hunt(stag: float = 4, hare: float = 3, alone: float = 0) -> Game:
    """Hunt the stag (0), which takes two, or a hare (1), which is safe.

    Both hunting the stag is better for both, but a hare is risk dominant where 2 hare > stag + alone, as by default:
    the best answer to an opponent of whom nothing is known (Harsanyi and Selten 1988). In the mixed equilibrium the
    stag has probability (hare - alone) / (stag - alone). It is the game in which risk averse agents give up the stag
    (Slumbers et al. 2023, https://arxiv.org/abs/2205.15434); the numbers are ours.

    Raises:
      ValueError: unless stag > hare > alone.
    """
    if not stag > hare > alone:
        raise ValueError(f"stag_hunt: payoffs are {stag}, {hare}, {alone}, must be stag > hare > alone")
    p = (hare - alone) / (stag - alone)
    return Game(_symmetric([[stag, alone], [hare, hare]]), ((0, 0), (1, 1)), (((p, 1 - p),) * 2,))


def chicken(go: float = 1, wait: float = -1, crash: float = -10) -> Game:
    """Yield (0) or go (1) where two cars meet: `go` to who goes first, `wait` to who lets it, `crash` to both.

    Both yielding pays 0. In the mixed equilibrium, yielding has the probability (wait - crash) / (wait - crash + go).

    Raises:
      ValueError: unless go > 0 > wait > crash.
    """
    if not go > 0 > wait > crash:
        raise ValueError(f"chicken: payoffs are {go}, {wait}, {crash}, must be go > 0 > wait > crash")
    p = (wait - crash) / (wait - crash + go)
    return Game(_symmetric([[0, wait], [go, crash]]), ((0, 1), (1, 0)), (((p, 1 - p),) * 2,))


def matching_pennies() -> Game:
    """The first wins 1 of the second where both show the same side, else loses it; both show each as often."""
    first = np.float32([[1, -1], [-1, 1]])
    return Game(np.stack([first, -first]), (), (((0.5, 0.5),) * 2,))


def cyclic(num_actions: int = 10) -> Game:
    """Rock, paper, scissors of any size: each action beats the one before it, around the circle, 1 to -1.

    All others tie. Playing every action as often is an equilibrium; where their number is even, so is any mixture of
    all even ones with all odd ones, as often each.

    Raises:
      ValueError: if num_actions < 3.
    """
    parts.require(num_actions, lambda x: x >= 3, "cyclic: num_actions", "must be >= 3")
    ahead = (np.arange(num_actions)[:, None] - np.arange(num_actions)) % num_actions
    wins = (ahead == 1).astype(np.float32) - (ahead == num_actions - 1)
    uniform = (1 / num_actions,) * num_actions
    mixed = [(uniform, uniform)]
    if num_actions % 2 == 0:
        odd = tuple(2 / num_actions * (i % 2) for i in range(num_actions))
        mixed += [(uniform, odd), (odd, odd[1:] + odd[:1])]
    return Game(np.stack([wins, -wins]), (), tuple(mixed))


def rock_paper_scissors() -> Game:
    """Rock (0), paper (1), scissors (2): `cyclic(3)`; each as often."""
    return cyclic(3)


def climbing(num_agents: int = 2) -> Game:
    """The climbing game (Claus and Boutilier 1998, AAAI): the way to the best joint action leads through the worst.

    A team's game. All at 0 pays 11, all at 1 pays 7: the equilibria. Who leaves the best alone brings down all. For
    more than two agents (ours): the mean of the table over all pairs of agents, which has the same equilibria.

    Raises:
      ValueError: if num_agents < 2.
    """
    return Game(_team([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], num_agents, "climbing"), _all_at(num_agents, 0, 1))


def penalty(num_agents: int = 2, penalty: float = -100) -> Game:
    """The penalty game (Claus and Boutilier 1998): two best joint actions, and a price of mistaking one for the other.

    A team's game. All at 0, or all at 2, pays 10; all at 1 pays 2: the equilibria. 0 against 2 pays `penalty`. For
    more than two agents (ours): the mean of the table over all pairs of agents, which has the same equilibria.

    Raises:
      ValueError: if num_agents < 2, or penalty > 0.
    """
    parts.require(penalty, lambda x: x <= 0, "penalty: penalty", "must be <= 0")
    table = [[10, 0, penalty], [0, 2, 0], [penalty, 0, 10]]
    return Game(_team(table, num_agents, "penalty"), _all_at(num_agents, 0, 1, 2))


GAMES: dict[str, Callable[[], Game]] = {
    "prisoners_dilemma": prisoners_dilemma,
    "stag_hunt": stag_hunt,
    "chicken": chicken,
    "matching_pennies": matching_pennies,
    "rock_paper_scissors": rock_paper_scissors,
    "cyclic": cyclic,
    "climbing": climbing,
    "climbing_3": lambda: climbing(3),
    "penalty": penalty,
    "penalty_3": lambda: penalty(3),
}


def _symmetric(table: list) -> np.ndarray:
    """[2, n, n]: the table for the first agent, transposed for the second."""
    first = np.asarray(table, np.float32)
    return np.stack([first, first.T])


def _team(table: list, num_agents: int, name: str) -> np.ndarray:
    """[A, n, ..., n]: for all agents, the mean of table[a_i, a_j] over pairs i < j."""
    parts.require(num_agents, lambda x: x >= 2, f"{name}: num_agents", "must be >= 2")
    table = np.asarray(table, np.float64)
    actions = np.indices((len(table),) * num_agents)
    pairs = list(itertools.combinations(actions, 2))
    mean = sum(table[first, second] for first, second in pairs) / len(pairs)
    return np.repeat(mean[None], num_agents, 0).astype(np.float32)


def _all_at(num_agents: int, *actions: int) -> tuple:
    return tuple((action,) * num_agents for action in actions)


def _strides(nums: tuple[int, ...]) -> np.ndarray:
    """[A] int32: of a joint action in a payoff tensor, in entries."""
    return np.array([int(np.prod(nums[i + 1 :])) for i in range(len(nums))], np.int32)
