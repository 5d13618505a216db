"""Soft actor-critic (Haarnoja et al. 2018, https://arxiv.org/abs/1812.05905), and what differs from it by a setting.

Off-policy, for continuous actions: critics regress on r + discount (min Q'(s', a') - temperature log pi(a' | s')), the
policy minimises temperature log pi - Q through reparameterised actions, and the temperature keeps the policy's entropy
at a target. `update` expects leaves [B] (or any leading axes) from replay or a dataset.

What differs by a setting: REDQ (Chen et al. 2021, https://arxiv.org/abs/2101.05982) is `num_critics=10,
num_target_critics=2, policy_value="mean"` at 20 updates a step; RLPD (Ball et al. 2023,
https://arxiv.org/abs/2302.02948) is that with layer norm in the critics, `policy_period=20`, `backup_entropy=False` on
some tasks, and half of each batch from a dataset; off-policy MDPO (Tomar et al. 2020, https://arxiv.org/abs/2005.09814)
is `reference_period=1000`; CQL is `regularizer=conservative(...)` of `jaxrl.agents.cql`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.counters import increment
from jaxrl.gradients import blank
from jaxrl.networks import ensemble, subset
from jaxrl.optim import adam, descend
from jaxrl.tree import as_arrays, select
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


class SACHparams(NamedTuple):
    """Numbers of SAC, all traced."""

    learning_rate: float = 3e-4  # of the critics
    policy_learning_rate: float = 3e-4
    temperature_learning_rate: float = 3e-4  # 0 keeps the temperature where it starts
    initial_temperature: float = 1.0  # >= 0; 0 with temperature_learning_rate 0 is no entropy bonus at all
    target_entropy: float = -1.0  # nats; -dim(A) is usual, for actions in [-1, 1]: builders set it
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.005  # [0, 1], Polyak: how far target critics move towards the critics in an update
    mirror_step: float = 1.0  # with reference_period: t_0, how far the policy moves from its reference towards Q
    mirror_decay_updates: float = float("inf")  # with reference_period: updates over which t_k falls linearly to 0
    regularizer: PyTree = ()  # numbers of `regularizer`


class SACState(NamedTuple):
    """State of SAC."""

    hparams: SACHparams
    params: dict[str, PyTree]  # {"policy", "critic": leaves [num_critics, ...], "log_temperature": []}
    target_params: PyTree  # of the critics
    reference_params: PyTree  # pi_k, a policy of up to `reference_period` updates ago; () without
    opt_state: dict[str, PyTree]  # of each of params
    num_updates: Array  # [] int32


def sac(
    policy: Policy,
    critic: Network,
    *,
    num_critics: int = 2,
    num_target_critics: int | None = None,
    policy_value: str = "min",
    policy_period: int = 1,
    backup_entropy: bool = True,
    reference_period: int = 0,
    regularizer: Callable | None = None,
    optimizer: Callable[[SACHparams], optax.GradientTransformation] = adam,
    hparams: SACHparams = SACHparams(),
) -> Agent:
    """SAC. All three gradients of an update are taken at its start, as in the authors' code.

    Args:
      policy: feed-forward network and a distribution with reparameterised samples (`for_space(space, squash=True)`).
      critic: network with outputs [...] for the observation `(observation, action)`.
      num_critics: independent copies of `critic`, each with a target.
      num_target_critics: targets take the minimum over a random subset of so many, drawn anew in each update (REDQ);
        None takes it over all.
      policy_value: what the policy climbs: the "min" (SAC) or the "mean" (REDQ) over all critics.
      policy_period: updates of the critics for each of policy and temperature, for high ratios of updates to data.
      backup_entropy: whether targets contain the entropy of the next action.
      reference_period: 0, or the policy minimises log pi - log pi_k + t_k (temperature log pi - Q) instead, a step of
        mirror descent from pi_k, which becomes the current policy every so many updates. At 1 the first term has no
        gradient, hence at least 2; a temperature of 0 gives MDPO with hard values. SAC is the case of a uniform pi_k.
      regularizer: (key, hparams.regularizer, sample, q, value [num_critics, B], data) -> what is added to the loss of
        each critic [num_critics, B], where sample(key, observation) -> action, log_prob is the policy and
        q(observation, action) -> [num_critics, B] the critics; see `jaxrl.agents.cql.conservative`.
      optimizer: from the hparams, whose `learning_rate` is that of the critics, policy or temperature.

    Returns:
      An `Agent`; `act` samples, `act_greedy` records `value` where the state has critics.

    Raises:
      ValueError: for counts out of range, an unknown `policy_value`, or a policy over finitely many actions.
    """
    minima = (("num_critics", num_critics, 1), ("policy_period", policy_period, 1))
    for name, value, low in minima:
        if value < low:
            raise ValueError(f"sac: {name} is {value}, must be >= {low}")
    if num_target_critics is not None and not 1 <= num_target_critics <= num_critics:
        raise ValueError(f"sac: num_target_critics is {num_target_critics}, must be in [1, {num_critics}] or None")
    if reference_period < 0 or reference_period == 1:
        raise ValueError(f"sac: reference_period is {reference_period}, must be 0 (no reference) or >= 2")
    if policy_value not in ("min", "mean"):
        raise ValueError(f"sac: policy_value is {policy_value!r}, allowed: 'min', 'mean'")
    network, distribution = policy
    if not distribution.num_scale:
        raise ValueError("sac: policy has no scale parameters, needs a distribution over continuous actions")
    critics = ensemble(critic, num_critics)
    reduce = jnp.min if policy_value == "min" else jnp.mean

    def optimizers(hp: SACHparams) -> dict[str, optax.GradientTransformation]:
        rates = {"policy": hp.policy_learning_rate, "log_temperature": hp.temperature_learning_rate}
        return {"critic": optimizer(hp)} | {k: optimizer(hp._replace(learning_rate=rate)) for k, rate in rates.items()}

    def init(key: Array, hparams: SACHparams, example: Transition) -> SACState:
        hp, (key_policy, key_critic) = as_arrays(hparams), jax.random.split(key)
        observation, action = item((example.observation, example.action))
        params = {
            "policy": network.init(key_policy, observation),
            "critic": critics.init(key_critic, (observation, action)),
            "log_temperature": jnp.log(hp.initial_temperature),
        }
        # Copies, so that a donated state does not hold one array twice.
        target, reference = jax.tree.map(jnp.copy, (params["critic"], params["policy"] if reference_period else ()))
        opt_state = {name: optimizer.init(params[name]) for name, optimizer in optimizers(hp).items()}
        return SACState(hp, params, target, reference, opt_state, jnp.zeros((), jnp.int32))

    def act(key: Array, state: SACState, memory: PyTree, observation: PyTree):
        outputs = network.apply(state.params["policy"], (), observation)[1]
        return memory, distribution.transform(distribution.sample(key, outputs)), {}

    def act_greedy(key: Array, state: SACState, memory: PyTree, observation: PyTree):
        del key
        outputs = network.apply(state.params["policy"], (), observation)[1]
        action = distribution.transform(distribution.mode(outputs))
        if not state.params["critic"]:
            return memory, action, {}
        return memory, action, {"value": jnp.min(q(state.params["critic"], observation, action), 0)}

    def actor(state: SACState) -> SACState:
        return state._replace(params=state.params | {"critic": ()}, target_params=(), reference_params=(), opt_state=())

    def q(params: PyTree, observation: PyTree, action: Array) -> Array:
        return critics.apply(params, (), (observation, action))[1]

    def sample(key: Array, params: PyTree, observation: PyTree) -> tuple[Array, Array]:
        """Raw actions of the policy and their log-probabilities."""
        outputs = network.apply(params, (), observation)[1]
        raw = distribution.sample(key, outputs)
        return raw, distribution.log_prob(outputs, raw)

    def targets(key: Array, state: SACState, data: Transition) -> tuple[Array, Array]:
        """r + discount (min Q'(s', a') - temperature log pi(a' | s')); log pi(a' | s')."""
        key_action, key_subset = jax.random.split(key)
        raw, log_prob = sample(key_action, state.params["policy"], data.next_observation)
        params = state.target_params
        if num_target_critics is not None:
            params = subset(key_subset, params, num_target_critics)
        next_value = jnp.min(q(params, data.next_observation, distribution.transform(raw)), 0)
        if backup_entropy:
            next_value = next_value - jnp.exp(state.params["log_temperature"]) * log_prob
        return data.reward + bootstrap(data, state.hparams.discount) * next_value, log_prob

    def critic_loss(params: PyTree, key: Array, state: SACState, target: Array, data: Transition):
        def draw(key: Array, observation: PyTree) -> tuple[Array, Array]:
            raw, log_prob = sample(key, state.params["policy"], observation)
            return distribution.transform(raw), log_prob

        value = q(params, data.observation, data.action)
        loss = losses.squared(value - target)
        if regularizer is not None:
            loss = loss + regularizer(key, state.hparams.regularizer, draw, partial(q, params), value, data)
        return weighted_mean(jnp.sum(loss, 0), data), value

    def policy_loss(params: PyTree, key: Array, state: SACState, data: Transition) -> tuple[Array, Array]:
        hp = state.hparams
        raw, log_prob = sample(key, params, data.observation)
        value = reduce(q(state.params["critic"], data.observation, distribution.transform(raw)), 0)
        loss = jnp.exp(state.params["log_temperature"]) * log_prob - value
        if reference_period:
            outputs = network.apply(state.reference_params, (), data.observation)[1]
            step = hp.mirror_step * jnp.maximum(1.0 - state.num_updates / hp.mirror_decay_updates, 0.0)
            loss = log_prob - distribution.log_prob(outputs, raw) + step * loss
        return weighted_mean(loss, data), log_prob

    def learn_policy(key: Array, state: SACState, data: Transition):
        """Steps of policy and temperature: their params and optimisers, the loss."""
        (loss, log_prob), gradient = jax.value_and_grad(policy_loss, has_aux=True)(
            state.params["policy"], key, state, data
        )
        # Of -temperature (log pi + target entropy) with respect to log temperature.
        excess = weighted_mean(log_prob + state.hparams.target_entropy, data)
        gradients = {"policy": gradient, "log_temperature": -jnp.exp(state.params["log_temperature"]) * excess}
        steps = optimizers(state.hparams)
        learned = {k: descend(steps[k], g, state.opt_state[k], state.params[k]) for k, g in gradients.items()}
        return learned, policy_period * loss  # the mean over updates is the loss

    def skip_policy(key: Array, state: SACState, data: Transition):
        del key, data
        return {k: (state.params[k], state.opt_state[k]) for k in ("policy", "log_temperature")}, jnp.zeros(())

    def update(key: Array, state: SACState, data: Transition) -> tuple[SACState, Metrics]:
        hp, data = state.hparams, blank(data)
        count = increment(state.num_updates, math.lcm(policy_period, reference_period or 1))
        key_target, key_critic, key_policy = jax.random.split(key, 3)
        target, log_prob = targets(key_target, state, data)
        (loss, value), gradient = jax.value_and_grad(critic_loss, has_aux=True)(
            state.params["critic"], key_critic, state, target, data
        )
        critic_step = descend(optimizers(hp)["critic"], gradient, state.opt_state["critic"], state.params["critic"])
        if policy_period == 1:
            learned, loss_of_policy = learn_policy(key_policy, state, data)
        else:
            turn = count % policy_period == 0
            learned, loss_of_policy = jax.lax.cond(turn, learn_policy, skip_policy, key_policy, state, data)
        learned["critic"] = critic_step
        params, opt_state = ({name: both[i] for name, both in learned.items()} for i in range(2))
        target_params = optax.incremental_update(params["critic"], state.target_params, hp.target_rate)
        reference = state.reference_params
        if reference_period:
            reference = select(count % reference_period == 0, params["policy"], reference)
        metrics = {
            "critic_loss": loss,
            "policy_loss": loss_of_policy,
            "value": weighted_mean(jnp.mean(value, 0), data),
            "entropy": -weighted_mean(log_prob, data),  # at the next observations
            "temperature": jnp.exp(params["log_temperature"]),
        }
        if "index" in data.extras:
            metrics["priority"] = jnp.mean(jnp.abs(value - target), 0)
        return SACState(hp, params, target_params, reference, opt_state, count), metrics

    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=hparams)
