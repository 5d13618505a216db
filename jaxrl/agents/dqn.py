"""Deep Q-learning (Mnih et al. 2015, https://doi.org/10.1038/nature14236) and its family, online or offline.

What values are (numbers, C51, QR, IQN, dueling, ...) is `ActionValues`; what a step spans and how often it is drawn is
in the data (`num_steps`, `weight`, `index`: n-step and prioritized replay). Left here is how the next state is valued:
by its best action (double: van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461), by its best action
that a behavior policy would take (BCQ: Fujimoto et al. 2019, https://arxiv.org/abs/1910.01708), or by the action in the
data (BVE: Gulcehre et al. 2021, https://arxiv.org/abs/2103.09575); and CQL's penalty (Kumar et al. 2020,
https://arxiv.org/abs/2006.04779). On rows that span the rest of their episode all of them are Monte-Carlo estimation.
`update` expects transitions [B].
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.action_values import ActionValues, take
from jaxrl.gradients import blank
from jaxrl.optim import clipped_adam
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, Policy, PyTree, Transition, bootstrap, item, no_memory, weighted_mean

NEXT_ACTIONS = ("greedy", "data")


class DQNHparams(NamedTuple):
    """Numbers of DQN, all traced."""

    learning_rate: float = 5e-4  # of Adam
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.01  # [0, 1], target <- target + rate (params - target) each `target_period` updates
    conservative: float = 0.0  # >= 0, weight of CQL's penalty
    threshold: float = 0.3  # [0, 1], with `behavior`: least probability of an action, relative to the likeliest
    max_grad_norm: float = 10.0  # global


class DQNState(NamedTuple):
    """State of DQN."""

    hparams: DQNHparams
    params: dict[str, PyTree]  # {"values"} and, where there is one, {"behavior"}
    target_params: PyTree  # of the values
    opt_state: PyTree
    num_updates: Array  # [] int32


def dqn(
    values: ActionValues,
    *,
    double: bool = True,
    behavior: Policy | None = None,
    next_action: str = "greedy",
    target_period: int = 1,
    optimizer: Callable[[DQNHparams], optax.GradientTransformation] = clipped_adam,
    hparams: DQNHparams = DQNHparams(),
) -> Agent:
    """DQN for finitely many actions; one gradient step an update.

        target = r + discount ** num_steps (1 - terminated) Z_target(s', a'),   a' = argmax_a Q(s', a)
        loss = E loss(Z(s, a), target) + conservative E (log sum_b exp Q(s, b) - Q(s, a))

    Args:
      values: feed-forward.
      double: choose a' by the learning parameters instead of by the target's.
      behavior: a policy that is fitted to the data's actions by likelihood (its network gives logits [..., A]); then a'
        and the actions of the agent are chosen among those with pi_b(a | s) > threshold max_b pi_b(b | s).
      next_action: "greedy", or "data": a' is `extras["next_action"]`, so that the data's own policy is evaluated.
      target_period: updates between two of the target.
      optimizer: from the hparams.

    Returns:
      An `Agent` that learns from transitions [B] and acts greedily (explore by a combinator).

    Raises:
      ValueError: if target_period < 1 or `next_action` is unknown; in `update`, if the data has no next action.
    """
    if target_period < 1:
        raise ValueError(f"dqn: target_period is {target_period}, must be >= 1")
    if next_action not in NEXT_ACTIONS:
        raise ValueError(f"dqn: next_action is {next_action!r}, allowed: {', '.join(NEXT_ACTIONS)}")

    def init(key: Array, hparams: DQNHparams, example: Transition) -> DQNState:
        hp, observation = as_arrays(hparams), item(example.observation)
        values_key, behavior_key = jax.random.split(key)
        params = {"values": values.init(values_key, observation)}
        if behavior is not None:
            params["behavior"] = behavior.network.init(behavior_key, observation)
        target_params = jax.tree.map(jnp.copy, params["values"])  # buffers of its own: states may be donated
        return DQNState(hp, params, target_params, optimizer(hp).init(params), jnp.zeros((), jnp.int32))

    def best(key: Array | None, params: PyTree, hp: DQNHparams, observation: PyTree) -> tuple[Array, Array]:
        """The greedy action among the allowed, and its value."""
        q = values.mean(values.apply(key, params["values"], (), observation)[1])
        allowed = q
        if behavior is not None:
            logits = behavior.network.apply(params["behavior"], (), observation)[1]
            likely = logits - jnp.max(logits, -1, keepdims=True) >= jnp.log(hp.threshold)
            allowed = jnp.where(likely, q, -jnp.inf)
        action = jnp.argmax(allowed, -1).astype(values.dtype)
        return action, take(q, action)

    def act(key: Array, state: DQNState, memory: PyTree, observation: PyTree):
        del key
        return memory, best(None, state.params, state.hparams, observation)[0], {}

    def act_greedy(key: Array, state: DQNState, memory: PyTree, observation: PyTree):
        del key
        action, value = best(None, state.params, state.hparams, observation)
        return memory, action, {"value": value}

    def targets(keys: tuple, state: DQNState, data: Transition) -> PyTree:
        """What the data's actions should be worth."""
        target_key, choice_key = keys
        if next_action == "data":
            if "next_action" not in data.extras:
                raise ValueError("dqn: next_action is 'data', but the data has no extras['next_action']")
            action = data.extras["next_action"]
        else:
            chooser = state.params if double else state.params | {"values": state.target_params}
            action, _ = best(choice_key, chooser, state.hparams, data.next_observation)
        after = values.apply(target_key, state.target_params, (), data.next_observation)[1]
        return values.target(values.select(after, action), data.reward, bootstrap(data, state.hparams.discount))

    def loss(params: PyTree, key: Array | None, hp: DQNHparams, data: Transition, target: PyTree):
        outputs = values.apply(key, params["values"], (), data.observation)[1]
        selected, q = values.select(outputs, data.action), values.mean(outputs)
        chosen = take(q, data.action)
        metrics = {
            "value_loss": weighted_mean(values.loss(selected, target), data),
            "conservative_loss": weighted_mean(losses.conservative(q, chosen), data),
            "q_value": weighted_mean(chosen, data),
        }
        total = metrics["value_loss"] + hp.conservative * metrics["conservative_loss"]
        if behavior is not None:
            logits = behavior.network.apply(params["behavior"], (), data.observation)[1]
            log_prob = behavior.distribution.log_prob(logits, behavior.distribution.inverse(data.action))
            metrics["behavior_loss"] = -weighted_mean(log_prob, data)
            total += metrics["behavior_loss"]
        return total, (metrics, values.error(selected, target))

    def update(key: Array, state: DQNState, data: Transition) -> tuple[DQNState, Metrics]:
        hp, data = state.hparams, blank(data)
        key, *keys = values.keys(key)
        target = targets(keys, state, data)
        gradient, (metrics, error) = jax.grad(loss, has_aux=True)(state.params, key, hp, data, target)
        step, opt_state = optimizer(hp).update(gradient, state.opt_state, state.params)
        params, num_updates = optax.apply_updates(state.params, step), state.num_updates + 1
        rate = jnp.where(num_updates % target_period == 0, hp.target_rate, 0.0)
        target_params = optax.incremental_update(params["values"], state.target_params, rate)
        if "index" in data.extras:
            metrics["priority"] = error
        return DQNState(hp, params, target_params, opt_state, num_updates), metrics

    return Agent(
        init,
        no_memory,
        act,
        act_greedy,
        update,
        actor=lambda state: state._replace(target_params=(), opt_state=()),
        hparams=hparams,
    )
