"""Proximal policy optimisation (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).

On-policy actor-critic: advantages by GAE (Schulman et al. 2016) under the policy that acted, then several epochs of
minibatch steps on the clipped surrogate. `update` expects a rollout [T, N] with the extras that `act` recorded. The
details are those of Huang et al. 2022 ("The 37 implementation details of PPO"), each a named choice below; where an
episode was truncated, targets bootstrap from the true successor.

What the policy minimizes is a part, `policy_loss`: PPO's clip; `mirror_descent()` makes the agent on-policy MDPO (Tomar
et al. 2020, https://arxiv.org/abs/2005.09814); others are in `jaxrl/policy_losses.py`.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, parallel, returns
from jaxrl.counters import increment
from jaxrl.minibatch import minibatches
from jaxrl.optim import clipped_adam, descend
from jaxrl.policy_losses import PolicyLoss, clipped
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
    is_last,
    item,
    trace,
    weighted_mean,
)


class PPOHparams(NamedTuple):
    """Numbers of PPO, all traced."""

    learning_rate: float = 2.5e-4  # of Adam
    decay_steps: float = float("inf")  # environment steps over which the learning rate falls linearly to 0
    discount: float = 0.99  # [0, 1]
    lambda_: float = 0.95  # [0, 1], GAE: 0 is one-step, 1 is Monte-Carlo
    clip: float = 0.2  # > 0, bound on |ratio - 1|
    value_clip: float = float("inf")  # > 0, bound on the change of a value; inf does not clip
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 0.5  # global, actor and critic together
    target_kl: float = float("inf")  # with kl_early_stop: updates stop when the estimate passes it
    policy_loss: PyTree = ()  # numbers of the policy loss


class PPOState(NamedTuple):
    """State of PPO."""

    hparams: PPOHparams
    params: dict[str, PyTree]  # {"policy", "critic"}
    opt_state: PyTree
    num_updates: Array  # [] int32


class Batch(NamedTuple):
    """What the loss reads; leaves [L, b, ...] if recurrent, whole columns; if not, shuffled rows [b, ...]."""

    data: Transition
    outputs: PyTree  # of the policy that acted, where the policy loss compares with them; else ()
    memory: PyTree  # at the first row
    is_first: Array
    advantage: Array
    target: Array


def ppo(
    policy: Policy,
    critic: Network,
    *,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    normalize_advantage: str = "minibatch",
    kl_early_stop: bool = False,
    policy_loss: PolicyLoss = clipped(),
    optimizer: Callable[[PPOHparams], optax.GradientTransformation] = clipped_adam,
    hparams: PPOHparams | None = None,
) -> Agent:
    """PPO for any action space that has a `Distribution`, feed-forward or recurrent.

    Args:
      policy: network and distribution; recurrent if the network has memory.
      critic: network with outputs [...].
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides T * N rows, or N columns where a network is recurrent (its memory is then
        carried through each column from what it was at the start of the rollout, and starts anew at episode ends).
      normalize_advantage: to mean 0 and variance 1 over each "minibatch", over the "batch", or "none".
      kl_early_stop: skip the rest of an update once a minibatch's `approx_kl` exceeds `hparams.target_kl`.
      policy_loss: what the policy minimizes, beside its entropy bonus.
      optimizer: from the hparams, whose `learning_rate` is already decayed.
      hparams: None: `PPOHparams(policy_loss=policy_loss.hparams)`.

    Returns:
      An `Agent` whose `act` records `log_prob`, `value`, `raw_action` and, if recurrent, `memory` before each step.

    Raises:
      ValueError: for counts below 1, or an unknown `normalize_advantage`; from `init`, if `hparams.policy_loss` is not
        of the policy loss; in `update`, if rows do not divide.
    """
    for name, value in (("num_epochs", num_epochs), ("num_minibatches", num_minibatches)):
        if value < 1:
            raise ValueError(f"ppo: {name} is {value}, must be >= 1")
    if normalize_advantage not in ("minibatch", "batch", "none"):
        raise ValueError(f"ppo: normalize_advantage is {normalize_advantage!r}, allowed: 'minibatch', 'batch', 'none'")
    distribution = policy.distribution
    networks = (("policy", policy.network), ("critic", critic))
    feed_forward = ((), ())  # memory of networks that have none
    defaults = PPOHparams(policy_loss=policy_loss.hparams) if hparams is None else hparams

    def init(key: Array, hparams: PPOHparams, example: Transition) -> PPOState:
        if type(hparams.policy_loss) is not type(policy_loss.hparams):
            kinds = [type(x).__name__ for x in (hparams.policy_loss, policy_loss.hparams)]
            raise ValueError(f"ppo: hparams.policy_loss is {kinds[0]}, the policy loss needs {kinds[1]}")
        keys, observation = jax.random.split(key), item(example.observation)
        params = {name: network.init(k, observation) for (name, network), k in zip(networks, keys)}
        hp = as_arrays(hparams)
        return PPOState(hp, params, optimizer(hp).init(params), jnp.zeros((), jnp.int32))

    def init_memory(key: Array, state: PPOState, observation: PyTree) -> PyTree:
        del key
        return tuple(network.init_memory(state.params[name], observation) for name, network in networks)

    def apply(params: PyTree, memory: PyTree, observation: PyTree):
        """Both networks, elementwise over leading axes: memory', (outputs, value)."""
        both = (network.apply(params[name], m, observation) for (name, network), m in zip(networks, memory))
        return tuple(zip(*both))

    def act(key: Array, state: PPOState, memory: PyTree, observation: PyTree):
        then, (outputs, value) = apply(state.params, memory, observation)
        raw = distribution.sample(key, outputs)
        extras = {"log_prob": distribution.log_prob(outputs, raw), "value": value, "raw_action": raw}
        if jax.tree.leaves(memory):
            extras["memory"] = memory
        return then, distribution.transform(raw), extras

    def act_greedy(key: Array, state: PPOState, memory: PyTree, observation: PyTree):
        del key
        then, (outputs, value) = apply(state.params, memory, observation)
        return then, distribution.transform(distribution.mode(outputs)), {"value": value}

    def prepare(hp: PPOHparams, params: PyTree, data: Transition) -> Batch:
        """Advantages and targets of a rollout, laid out for minibatches along axis 1."""
        memory = data.extras.get("memory", feed_forward)
        then, (outputs, _) = apply(params, memory, data.observation)
        _, (_, next_value) = apply(params, then, data.next_observation)
        value, w = data.extras["value"], data.extras.get("weight")
        decay, carried = bootstrap(data, hp.discount), trace(data, hp.discount, hp.lambda_)
        advantage = returns.gae(data.reward, value, next_value, decay, carried, w)
        target = advantage + value
        if normalize_advantage == "batch":
            advantage = losses.normalize(advantage, w)
        last = is_last(data)
        is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
        read = {
            name: data.extras[name] for name in ("log_prob", "value", "raw_action", "weight") if name in data.extras
        }
        unread = dict.fromkeys(("action", "reward", "terminated", "truncated", "next_observation"), ())
        data = data._replace(**unread, extras=read)
        outputs = outputs if policy_loss.compares else ()
        batch = Batch(data, outputs, jax.tree.map(lambda x: x[:1], memory), is_first, advantage, target)
        if jax.tree.leaves(memory):
            return batch  # columns
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)  # T * N rows

    def loss(params: PyTree, hp: PPOHparams, steps: Array, batch: Batch) -> tuple[Array, Metrics]:
        data = batch.data
        start = zip(networks, item(batch.memory))
        outputs, value = (net.unroll(params[k], m, data.observation, batch.is_first) for (k, net), m in start)
        log_prob = distribution.log_prob(outputs, data.extras["raw_action"])
        advantage = batch.advantage
        if normalize_advantage == "minibatch":
            advantage = losses.normalize(advantage, data.extras.get("weight"))
        old = data.extras["log_prob"]
        penalty = policy_loss.penalty(distribution, outputs, batch.outputs) if policy_loss.penalty else None
        loss_of_policy = weighted_mean(policy_loss.loss(hp, log_prob, old, advantage, penalty, steps), data)
        value_loss = weighted_mean(losses.clipped_value(value, data.extras["value"], batch.target, hp.value_clip), data)
        entropy = weighted_mean(distribution.entropy(outputs, data.extras["raw_action"]), data)
        total = loss_of_policy + hp.value_coefficient * value_loss - hp.entropy_coefficient * entropy
        return total, {
            "policy_loss": loss_of_policy,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": weighted_mean(losses.approx_kl(log_prob, old), data),
            "clip_fraction": weighted_mean((jnp.abs(jnp.exp(log_prob - old) - 1) > hp.clip).astype(jnp.float32), data),
            **({} if penalty is None else {"penalty": weighted_mean(penalty, data)}),
        }

    def update(key: Array, state: PPOState, data: Transition) -> tuple[PPOState, Metrics]:
        hp = state.hparams
        steps = state.num_updates.astype(jnp.float32) * parallel.rollout_steps(data.reward)
        remaining = jnp.maximum(1.0 - steps / hp.decay_steps, 0.0)
        decayed = optimizer(hp._replace(learning_rate=hp.learning_rate * remaining))
        batch = prepare(hp, state.params, data)
        axis = 1 if jax.tree.leaves(batch.memory) else 0

        def minibatch(carry, batch: Batch):
            params, opt_state, stopped = carry
            gradient, metrics = jax.grad(loss, has_aux=True)(params, hp, steps, batch)
            then = descend(decayed, gradient, opt_state, params)
            if kl_early_stop:
                stopped = stopped | (parallel.mean(metrics["approx_kl"]) > hp.target_kl)
                then = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), then, (params, opt_state))
            return (*then, stopped), metrics

        def epoch(carry, key: Array):
            return jax.lax.scan(minibatch, carry, minibatches(key, batch, num_minibatches, axis=axis))

        carry = (state.params, state.opt_state, jnp.zeros((), bool))
        (params, opt_state, _), metrics = jax.lax.scan(epoch, carry, jax.random.split(key, num_epochs))
        metrics = jax.tree.map(jnp.mean, metrics)
        metrics["learning_rate"] = hp.learning_rate * remaining
        return PPOState(hp, params, opt_state, increment(state.num_updates)), metrics

    return Agent(
        init, init_memory, act, act_greedy, update, actor=lambda state: state._replace(opt_state=()), hparams=defaults
    )
