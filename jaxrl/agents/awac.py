"""Advantage-weighted actor-critic (AWAC, Nair et al. 2020, https://arxiv.org/abs/2006.09359).

Off-policy and offline: critics learn the values of the policy by one-step targets, and the policy is fitted to the
actions of the data, weighted by the exponential of their advantage, so that it never leaves the data's actions and goes
on learning online from the same buffer. `update` expects leaves [B] (or any leading axes) from replay or a dataset.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.gradients import blank
from jaxrl.networks import ensemble
from jaxrl.optim import adam, descend
from jaxrl.tree import as_arrays
from jaxrl.types import (
    Agent,
    Array,
    Metrics,
    Network,
    Policy,
    PyTree,
    Transition,
    bootstrap,
    item,
    no_memory,
    weighted_mean,
)


class AWACHparams(NamedTuple):
    """Numbers of AWAC, all traced."""

    learning_rate: float = 3e-4  # of Adam, for all networks
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.005  # [0, 1], Polyak: target <- target + rate (params - target)
    inverse_temperature: float = 1.0  # >= 0, the paper's 1 / lambda: 0 clones the data
    max_weight: float = 100.0  # bound on exp(inverse_temperature * advantage)


class AWACState(NamedTuple):
    """State of AWAC."""

    hparams: AWACHparams
    params: dict[str, PyTree]  # {"policy", "critic": leaves [num_critics, ...]}
    target_params: PyTree  # of the critics
    opt_state: PyTree


def awac(
    policy: Policy,
    critic: Network,
    *,
    num_critics: int = 2,
    optimizer: Callable[[AWACHparams], optax.GradientTransformation] = adam,
    hparams: AWACHparams = AWACHparams(),
) -> Agent:
    """AWAC, for any action space that has a `Distribution`.

        L_Q = E 0.5 (r + gamma min_j Q_target_j(s', a') - Q_i(s, a))^2, summed over i,   a' ~ pi(s')
        L_pi = -E min(exp(A / lambda), max_weight) log pi(a | s)
        A = min_i Q_i(s, a) - min_i Q_i(s, a''),   a'' ~ pi(s)

    The paper's weights have a normaliser Z(s) that its code drops or replaces by a softmax over the batch; here they
    are bounded instead, as in implicit Q-learning. Both steps start from the same parameters.

    Args:
      policy: feed-forward network and distribution; log-probabilities are those of `distribution.inverse(action)`.
      critic: network with outputs [...] for the observation `(observation, action)`.
      num_critics: independent copies of `critic`, each with a target.
      optimizer: from the hparams.

    Returns:
      An `Agent`; `act` samples, `act_greedy` takes the mode and records `value` where the state has critics.

    Raises:
      ValueError: if num_critics < 1.
    """
    if num_critics < 1:
        raise ValueError(f"awac: num_critics is {num_critics}, must be >= 1")
    network, distribution = policy
    critics = ensemble(critic, num_critics)

    def init(key: Array, hparams: AWACHparams, example: Transition) -> AWACState:
        hp, (key_policy, key_critic) = as_arrays(hparams), jax.random.split(key)
        observation, action = item((example.observation, example.action))
        params = {
            "policy": network.init(key_policy, observation),
            "critic": critics.init(key_critic, (observation, action)),
        }
        # A copy, so that the state may be donated.
        return AWACState(hp, params, jax.tree.map(jnp.copy, params["critic"]), optimizer(hp).init(params))

    def act(key: Array, state: AWACState, memory: PyTree, observation: PyTree):
        return memory, sample(key, state.params["policy"], observation), {}

    def act_greedy(key: Array, state: AWACState, memory: PyTree, observation: PyTree):
        del key
        outputs = network.apply(state.params["policy"], (), observation)[1]
        action = distribution.transform(distribution.mode(outputs))
        if not state.params["critic"]:
            return memory, action, {}
        return memory, action, {"value": least(state.params["critic"], observation, action)}

    def actor(state: AWACState) -> AWACState:
        return state._replace(params=state.params | {"critic": ()}, target_params=(), opt_state=())

    def sample(key: Array, params: PyTree, observation: PyTree) -> Array:
        outputs = network.apply(params, (), observation)[1]
        return distribution.transform(distribution.sample(key, outputs))

    def q(params: PyTree, observation: PyTree, action: Array) -> Array:
        return critics.apply(params, (), (observation, action))[1]

    def least(params: PyTree, observation: PyTree, action: Array) -> Array:
        return jnp.min(q(params, observation, action), 0)

    def loss(params: PyTree, key: Array, state: AWACState, data: Transition) -> tuple[Array, tuple[Metrics, Array]]:
        hp, now = state.hparams, state.params  # what targets and weights are made of is not differentiated
        key_here, key_next = jax.random.split(key)
        next_action = sample(key_next, now["policy"], data.next_observation)
        next_value = least(state.target_params, data.next_observation, next_action)
        value = q(params["critic"], data.observation, data.action)
        error = value - (data.reward + bootstrap(data, hp.discount) * next_value)
        critic_loss = weighted_mean(jnp.sum(losses.squared(error), 0), data)

        state_value = least(now["critic"], data.observation, sample(key_here, now["policy"], data.observation))
        advantage = jnp.min(value, 0) - state_value
        row_weight = losses.advantage_weight(advantage, hp.inverse_temperature, hp.max_weight)
        outputs = network.apply(params["policy"], (), data.observation)[1]
        log_prob = distribution.log_prob(outputs, distribution.inverse(data.action))
        policy_loss = -weighted_mean(row_weight * log_prob, data)
        metrics = {
            "critic_loss": critic_loss,
            "policy_loss": policy_loss,
            "value": weighted_mean(state_value, data),
            "advantage": weighted_mean(advantage, data),
            "advantage_weight": weighted_mean(row_weight, data),
        }
        return critic_loss + policy_loss, (metrics, jnp.mean(jnp.abs(error), 0))

    def update(key: Array, state: AWACState, data: Transition) -> tuple[AWACState, Metrics]:
        hp = state.hparams
        gradient, (metrics, priority) = jax.grad(loss, has_aux=True)(state.params, key, state, blank(data))
        params, opt_state = descend(optimizer(hp), gradient, state.opt_state, state.params)
        target_params = optax.incremental_update(params["critic"], state.target_params, hp.target_rate)
        if "index" in data.extras:
            metrics["priority"] = priority
        return AWACState(hp, params, target_params, opt_state), metrics

    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=hparams)
