"""Networks that see all agents at once."""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl.networks.core import sequential, view
from jaxrl.networks.feedforward import dense
from jaxrl.networks.heads import critic
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


def central_action_critic(
    torso: Network, num_agents: int, joint: Callable[[PyTree], Array], flat: Callable[[Array], Array]
) -> Network:
    """Q_i(s, a_1 .. a_A) for each agent: outputs [..., A] for (observation [..., A, obs], action [..., A, *]).

    The critics of MADDPG (Lowe et al. 2017, https://arxiv.org/abs/1706.02275), with weights that all share and a
    one-hot of whose value it is. Q_i has a gradient in a_i alone: what others do is given to an agent, also while all
    of their policies are improved at once.

    Args:
      torso: for vectors.
      joint: observation [..., A, obs] -> [..., S], what is known of all.
      flat: action [..., A, *] -> [..., A, D].
    """
    network = critic(torso)

    def inputs(both: tuple[PyTree, Array]) -> Array:
        observation, action = both
        state, action, own = joint(observation), flat(action), jnp.eye(num_agents)
        others = jax.lax.stop_gradient(action)
        lead = action.shape[:-2]
        mine = own[:, :, None] > 0  # [A, A, 1]: of agent i, what agent j does
        actions = jnp.where(mine, action[..., None, :, :], others[..., None, :, :])
        actions = actions.reshape(*lead, num_agents, -1)
        state = jnp.broadcast_to(state[..., None, :], (*lead, num_agents, state.shape[-1]))
        return jnp.concatenate([state, actions, jnp.broadcast_to(own, (*lead, num_agents, num_agents))], -1)

    return view(network, inputs)


def counterfactual_critic(
    torso: Network, num_agents: int, num_actions: int, joint: Callable[[PyTree], Array]
) -> Network:
    """Q_i(s, (a_-i, .)) for each agent and each action of its own: outputs [..., A, K] for (observation, action).

    The critic of COMA (Foerster et al. 2018, https://arxiv.org/abs/1705.08926): what its baseline sums over is one
    evaluation. All agents share the weights, and each sees the state, what the others do, one-hot (zeros in the place
    of its own action), and a one-hot of whose values these are.

    Args:
      torso: for vectors.
      num_actions: K.
      joint: observation [..., A, obs] -> [..., S], what is known of all.

    The action is int [..., A]; -1 is that of who is out, and is zeros to the others.
    """
    network = sequential(torso, dense(num_actions))

    def inputs(both: tuple[PyTree, Array]) -> Array:
        observation, action = both
        state, own, lead = joint(observation), jnp.eye(num_agents), action.shape[:-1]
        taken = jax.nn.one_hot(action, num_actions)[..., None, :, :]
        others = ((1.0 - own)[:, :, None] * taken).reshape(*lead, num_agents, -1)
        state = jnp.broadcast_to(state[..., None, :], (*lead, num_agents, state.shape[-1]))
        return jnp.concatenate([state, others, jnp.broadcast_to(own, (*lead, num_agents, num_agents))], -1)

    return view(network, inputs)


def side_by_side(flat: Callable[[PyTree], Array]) -> Callable[[PyTree], Array]:
    """The observations of all agents in one vector: `flat` gives [..., A, D], and this [..., A * D]."""

    def joint(observation: PyTree) -> Array:
        x = flat(observation)
        return x.reshape(*x.shape[:-2], -1)

    return joint
