"""Soft actor-critic for finitely many actions (Christodoulou 2019, https://arxiv.org/abs/1910.07207).

Expectations over actions are exact sums, so nothing is sampled in `update`; otherwise as SAC (Haarnoja et al. 2018,
https://arxiv.org/abs/1812.05905): twin critics, and a temperature that keeps the policy's entropy at a share of the
largest. `update` expects transitions [B] from replay or a dataset.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.action_values import ActionValues, take
from jaxrl.gradients import blank
from jaxrl.optim import adam, descend
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, Policy, PyTree, Transition, bootstrap, item, no_memory, weighted_mean


class DiscreteSACHparams(NamedTuple):
    """Numbers of discrete SAC, all traced."""

    learning_rate: float = 3e-4  # of the critics
    policy_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4  # 0 keeps the temperature where it starts
    initial_temperature: float = 1.0  # > 0
    target_entropy_share: float = 0.5  # [0, 1], of log A, A the number of legal actions; the paper has 0.98
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.005  # [0, 1], Polyak: target <- target + rate (params - target)


class DiscreteSACState(NamedTuple):
    """State of discrete SAC."""

    hparams: DiscreteSACHparams
    params: dict[str, PyTree]  # {"policy", "critic": leaves [num_critics, ...], "log_temperature": []}
    target_params: PyTree  # of the critics
    opt_state: dict[str, PyTree]  # of each of params


def discrete_sac(
    policy: Policy,
    values: ActionValues,
    *,
    num_critics: int = 2,
    optimizer: Callable[[DiscreteSACHparams], optax.GradientTransformation] = adam,
    hparams: DiscreteSACHparams = DiscreteSACHparams(),
) -> Agent:
    """Discrete SAC. All three gradients of an update are taken at its start.

        V(s') = sum_a pi(a | s') (min_i Q_target_i(s', a) - temperature log pi(a | s'))
        L_Q = sum_i E loss(Q_i(s, a), r + discount V(s')),   L_pi = E sum_a pi(a | s) (temperature log pi - min_i Q_i)

    Args:
      policy: feed-forward network that gives logits [..., A], and their distribution.
      values: feed-forward; of a distribution only the mean is read, and the sums above are its returns.
      num_critics: independent copies of `values`, each with a target.
      optimizer: from the hparams, whose `learning_rate` is that of the critics, policy or temperature.

    Returns:
      An `Agent` that learns from transitions [B]; `act` samples, `act_greedy` takes the likeliest action.

    Raises:
      ValueError: if num_critics < 1, or the policy is not over `values.num_actions` actions.
    """
    network, distribution = policy
    if num_critics < 1:
        raise ValueError(f"discrete_sac: num_critics is {num_critics}, must be >= 1")
    if distribution.num_scale or distribution.num_params != values.num_actions:
        raise ValueError(f"discrete_sac: the policy must give one logit for each of {values.num_actions} actions")

    def optimizers(hp: DiscreteSACHparams) -> dict[str, optax.GradientTransformation]:
        rates = {"policy": hp.policy_learning_rate, "log_temperature": hp.temperature_learning_rate}
        return {"critic": optimizer(hp)} | {k: optimizer(hp._replace(learning_rate=rate)) for k, rate in rates.items()}

    def init(key: Array, hparams: DiscreteSACHparams, example: Transition) -> DiscreteSACState:
        hp, observation, (key_policy, key_critic) = as_arrays(hparams), item(example.observation), jax.random.split(key)
        params = {
            "policy": network.init(key_policy, observation),
            "critic": jax.vmap(values.init, (0, None))(jax.random.split(key_critic, num_critics), observation),
            "log_temperature": jnp.log(hp.initial_temperature),
        }
        target_params = jax.tree.map(jnp.copy, params["critic"])  # buffers of its own: states may be donated
        opt_state = {name: step.init(params[name]) for name, step in optimizers(hp).items()}
        return DiscreteSACState(hp, params, target_params, opt_state)

    def act(key: Array, state: DiscreteSACState, memory: PyTree, observation: PyTree):
        logits = network.apply(state.params["policy"], (), observation)[1]
        return memory, distribution.transform(distribution.sample(key, logits)), {}

    def act_greedy(key: Array, state: DiscreteSACState, memory: PyTree, observation: PyTree):
        del key
        logits = network.apply(state.params["policy"], (), observation)[1]
        action = distribution.transform(distribution.mode(logits))
        if not state.params["critic"]:
            return memory, action, {}
        value = jnp.sum(jax.nn.softmax(logits) * least(state.params["critic"], observation), -1)
        return memory, action, {"value": value}

    def actor(state: DiscreteSACState) -> DiscreteSACState:
        return state._replace(params=state.params | {"critic": ()}, target_params=(), opt_state=())

    def outputs(key: Array | None, params: PyTree, observation: PyTree) -> PyTree:
        """Of all critics, leaves [num_critics, B, ...]."""
        return jax.vmap(lambda p: values.apply(key, p, (), observation)[1])(params)

    def least(params: PyTree, observation: PyTree) -> Array:
        """min_i Q_i(s, .), [B, A]."""
        return jnp.min(values.mean(outputs(None, params, observation)), 0)

    def soft_value(log_prob: Array, q: Array, temperature: Array) -> Array:
        """sum_a pi(a) (Q(a) - temperature log pi(a))."""
        return jnp.sum(jnp.exp(log_prob) * (q - temperature * log_prob), -1)

    def critic_loss(params: PyTree, key: Array | None, returned: Array, data: Transition):
        def one(outputs: PyTree) -> tuple[Array, Array, Array]:
            selected = values.select(outputs, data.action)
            # The representation of a known return: what comes after is in it already.
            target = jax.lax.stop_gradient(values.target(selected, returned, jnp.zeros_like(returned)))
            q = take(values.mean(outputs), data.action)
            return values.loss(selected, target), values.error(selected, target), q

        loss, error, q = jax.vmap(one)(outputs(key, params, data.observation))
        return weighted_mean(jnp.sum(loss, 0), data), (jnp.mean(error, 0), jnp.mean(q, 0))

    def policy_loss(params: PyTree, q: Array, temperature: Array, data: Transition) -> tuple[Array, Array]:
        log_prob = jax.nn.log_softmax(network.apply(params, (), data.observation)[1])
        return -weighted_mean(soft_value(log_prob, q, temperature), data), log_prob

    def update(key: Array, state: DiscreteSACState, data: Transition) -> tuple[DiscreteSACState, Metrics]:
        hp, data, old = state.hparams, blank(data), state.params
        temperature = jnp.exp(old["log_temperature"])
        after = jax.nn.log_softmax(network.apply(old["policy"], (), data.next_observation)[1])
        next_value = soft_value(after, least(state.target_params, data.next_observation), temperature)
        returned = data.reward + bootstrap(data, hp.discount) * next_value
        (loss, (error, q)), of_critic = jax.value_and_grad(critic_loss, has_aux=True)(
            old["critic"], values.keys(key)[0], returned, data
        )
        (loss_of_policy, log_prob), of_policy = jax.value_and_grad(policy_loss, has_aux=True)(
            old["policy"], least(old["critic"], data.observation), temperature, data
        )
        entropy = soft_value(log_prob, jnp.zeros_like(log_prob), 1.0)
        num_legal = jnp.sum(log_prob > -1e8, -1)  # illegal actions have logits of -1e9
        excess = weighted_mean(entropy - hp.target_entropy_share * jnp.log(num_legal), data)
        # Of temperature (entropy - target entropy) with respect to log temperature.
        gradients = {"critic": of_critic, "policy": of_policy, "log_temperature": temperature * excess}
        steps = optimizers(hp)
        learned = {k: descend(steps[k], g, state.opt_state[k], old[k]) for k, g in gradients.items()}
        params, opt_state = ({name: both[i] for name, both in learned.items()} for i in range(2))
        target_params = optax.incremental_update(params["critic"], state.target_params, hp.target_rate)
        metrics = {
            "critic_loss": loss,
            "policy_loss": loss_of_policy,
            "q_value": weighted_mean(q, data),
            "entropy": weighted_mean(entropy, data),
            "temperature": jnp.exp(params["log_temperature"]),
        }
        if "index" in data.extras:
            metrics["priority"] = error
        return DiscreteSACState(hp, params, target_params, opt_state), metrics

    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=hparams)
