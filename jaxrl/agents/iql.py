"""Implicit Q-learning (Kostrikov et al. 2021, https://arxiv.org/abs/2110.06169) and what differs from it in one loss.

Offline learning that never asks for the value of an action outside of the data: V is fitted to Q of the data's actions
by a loss that leans to their maximum, Q by one-step targets from V, and the policy by regression on the data's actions,
weighted by their advantage. With expectile regression it is IQL, with Gumbel regression XQL (extreme Q-learning, Garg
et al. 2023, https://arxiv.org/abs/2301.02328), with an f-divergence's surrogate f-DVL (Sikchi et al. 2024,
https://arxiv.org/abs/2302.08560). `update` expects transitions [B], from a dataset or from replay.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import divergences, losses
from jaxrl.gradients import blank
from jaxrl.optim import clipped_adam, descend
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


class IQLHparams(NamedTuple):
    """Numbers of IQL, all traced."""

    learning_rate: float = 3e-4  # of Adam, for all networks
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.005  # [0, 1], Polyak: target <- target + rate (params - target)
    inverse_temperature: float = 3.0  # >= 0, of the policy: 0 clones the data, infinity takes its best action
    max_weight: float = 100.0  # bound on exp(inverse_temperature * advantage)
    max_grad_norm: float = float("inf")  # global, all networks together
    value: Any = divergences.ExpectileHparams()  # numbers of the value loss


class IQLState(NamedTuple):
    """State of IQL."""

    hparams: IQLHparams
    params: dict[str, PyTree]  # {"policy", "value", "critic"}
    target_params: PyTree  # of the critic
    opt_state: PyTree


def iql(
    policy: Policy,
    value: Network,
    critic: Network,
    *,
    value_loss: divergences.ImplicitMaximizer = divergences.expectile(),
    optimizer: Callable[[IQLHparams], optax.GradientTransformation] = clipped_adam,
    hparams: IQLHparams | None = None,
) -> Agent:
    """IQL, XQL or f-DVL, for any action space that has a `Distribution`.

        L_V = E loss(Q_target(s, a) - V(s)),   Q_target the least of the ensemble's target networks
        L_Q = E 0.5 (r + gamma V(s') - Q_i(s, a))^2, summed over the ensemble
        L_pi = -E min(exp(beta (Q_target(s, a) - V(s))), max_weight) log pi(a | s)

    The three steps start from the same parameters (the authors' code takes that of V first).

    Args:
      policy: network and distribution; all networks are feed-forward.
      value: outputs [...].
      critic: an ensemble over the tuple (observation, action), outputs [E, ...].
      value_loss: `divergences.expectile()`, `gumbel()` or `dual(divergence)`; any `ImplicitMaximizer`.
      optimizer: from the hparams.
      hparams: None: `IQLHparams(value=value_loss.hparams)`.

    Returns:
      An `Agent` that learns from transitions [B]; `act` samples, `act_greedy` takes the mode and records `value`.

    Raises:
      ValueError: from `init`, if `hparams.value` is not of the value loss.
    """
    distribution = policy.distribution
    defaults = IQLHparams(value=value_loss.hparams) if hparams is None else hparams

    def init(key: Array, hparams: IQLHparams, example: Transition) -> IQLState:
        if type(hparams.value) is not type(value_loss.hparams):
            kinds = [type(x).__name__ for x in (hparams.value, value_loss.hparams)]
            raise ValueError(f"iql: hparams.value is {kinds[0]}, the value loss needs {kinds[1]}")
        keys, example, hp = jax.random.split(key, 3), item(example), as_arrays(hparams)
        params = {
            "policy": policy.network.init(keys[0], example.observation),
            "value": value.init(keys[1], example.observation),
            "critic": critic.init(keys[2], (example.observation, example.action)),
        }
        # A copy, so that the state may be donated.
        return IQLState(hp, params, jax.tree.map(jnp.copy, params["critic"]), optimizer(hp).init(params))

    def act(key: Array, state: IQLState, memory: PyTree, observation: PyTree):
        outputs = policy.network.apply(state.params["policy"], (), observation)[1]
        return memory, distribution.transform(distribution.sample(key, outputs)), {}

    def act_greedy(key: Array, state: IQLState, memory: PyTree, observation: PyTree):
        del key
        outputs = policy.network.apply(state.params["policy"], (), observation)[1]
        v = value.apply(state.params["value"], (), observation)[1]
        return memory, distribution.transform(distribution.mode(outputs)), {"value": v}

    def loss(params: PyTree, state: IQLState, data: Transition) -> tuple[Array, tuple[Metrics, Array]]:
        hp, inputs = state.hparams, (data.observation, data.action)
        target_q = jnp.min(critic.apply(state.target_params, (), inputs)[1], axis=0)
        v = value.apply(params["value"], (), data.observation)[1]
        next_v = value.apply(params["value"], (), data.next_observation)[1]
        q = critic.apply(params["critic"], (), inputs)[1]
        outputs = policy.network.apply(params["policy"], (), data.observation)[1]

        advantage = target_q - v
        v_loss = weighted_mean(value_loss.loss(hp.value, advantage, data.extras.get("weight")), data)
        target = jax.lax.stop_gradient(data.reward + bootstrap(data, hp.discount) * next_v)
        q_loss = weighted_mean(jnp.sum(losses.squared(target - q), axis=0), data)
        row_weight = losses.advantage_weight(advantage, hp.inverse_temperature, hp.max_weight)
        log_prob = distribution.log_prob(outputs, distribution.inverse(data.action))
        policy_loss = -weighted_mean(row_weight * log_prob, data)
        metrics = {
            "value_loss": v_loss,
            "critic_loss": q_loss,
            "policy_loss": policy_loss,
            "value": weighted_mean(v, data),
            "advantage": weighted_mean(advantage, data),
            "advantage_weight": weighted_mean(row_weight, data),
        }
        return v_loss + q_loss + policy_loss, (metrics, jnp.max(jnp.abs(target - q), axis=0))

    def update(key: Array, state: IQLState, data: Transition) -> tuple[IQLState, Metrics]:
        del key
        hp = state.hparams
        gradient, (metrics, priority) = jax.grad(loss, has_aux=True)(state.params, state, blank(data))
        params, opt_state = descend(optimizer(hp), gradient, state.opt_state, state.params)
        target_params = optax.incremental_update(params["critic"], state.target_params, hp.target_rate)
        if "index" in data.extras:
            metrics["priority"] = priority
        return IQLState(hp, params, target_params, opt_state), metrics

    def actor(state: IQLState) -> IQLState:
        return state._replace(params=state.params | {"critic": ()}, target_params=(), opt_state=())

    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=defaults)
