"""The two-step game of Rashid et al. 2018 (https://arxiv.org/abs/1803.11485, section 5.1), for mixers of values."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import pictures
from jaxrl.types import Array, Env, TimeStep


class TwoStepParams(NamedTuple):
    payoffs: Array  # [2, 2, 2] of the game that was chosen and both actions


class TwoStepState(NamedTuple):
    place: Array  # [] int32: 0 at first, then 1 or 2, the game


def two_step() -> Env:
    """The first agent's action (0 or 1) chooses one of two games, which both then play; they are paid alike.

    In game 0 every joint action pays 7; in game 1 both at 0 pay 0, both at 1 pay 8, else 1. The best return is 8. A sum
    of values (VDN) cannot say what game 1 is worth, and takes the sure 7; a monotonic mixer (QMIX) can.

    Observations [3]: where the game is, one-hot, the same for both.
    """

    def observe(state: TwoStepState) -> Array:
        return jnp.broadcast_to(jax.nn.one_hot(state.place, 3), (2, 3))

    def reset(key: Array, params: TwoStepParams):
        del key, params
        state = TwoStepState(jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: TwoStepState, action: Array, params: TwoStepParams):
        del key
        first = state.place == 0
        paid = params.payoffs[jnp.maximum(state.place - 1, 0), action[0], action[1]]
        reward = jnp.where(first, 0.0, paid)
        state = TwoStepState(jnp.where(first, 1 + action[0].astype(jnp.int32), state.place))
        ends = jnp.broadcast_to(~first, (2,))
        return state, TimeStep(observe(state), jnp.broadcast_to(reward, (2,)), ends, jnp.zeros(2, bool))

    def render(state: TwoStepState, params: TwoStepParams) -> Array:
        """Three cells in a row: the choice, and the two games; a disc is in the one that is played."""
        del params
        center = jnp.stack([jnp.float32(0.5), state.place + 0.5])
        return pictures.disc(pictures.board(np.zeros((1, 3), bool)), center, 0.35, pictures.AGENT)

    params = TwoStepParams(jnp.float32([[[7, 7], [7, 7]], [[0, 1], [1, 8]]]))
    space = spaces.Box(0.0, 1.0, (3,))
    return Env(reset, step, params, spaces.Repeated(space, 2), spaces.Repeated(spaces.Discrete(2), 2), render)
