"""Networks that see all agents at once."""

from __future__ import annotations

from typing import Callable

import jax.numpy as jnp

from jaxrl.networks.core import sequential, view
from jaxrl.networks.feedforward import dense
from jaxrl.types import Array, Network, PyTree


def central_critic(torso: Network, num_agents: int, joint: Callable[[PyTree], Array]) -> Network:
    """A value for each agent from what is known of all: outputs [..., A] for observations with leaves [..., A, obs].

    The critic of MAPPO (Yu et al. 2022, https://arxiv.org/abs/2103.01955). It is evaluated once for an environment,
    not once for an agent; a recurrent torso has one memory an environment, which starts anew where all are out.

    Args:
      torso: for what `joint` gives.
      joint: observation [..., A, obs] -> what the torso sees, [..., joint]: the global state, or `side_by_side`.
    """
    network = view(sequential(torso, dense(num_agents)), joint)

    def unroll(params, memory, observation, is_first):
        return network.unroll(params, memory, observation, jnp.all(is_first, -1))

    return network._replace(unroll=unroll)


def side_by_side(flat: Callable[[PyTree], Array]) -> Callable[[PyTree], Array]:
    """The observations of all agents in one vector: `flat` gives [..., A, D], and this [..., A * D]."""

    def joint(observation: PyTree) -> Array:
        x = flat(observation)
        return x.reshape(*x.shape[:-2], -1)

    return joint
