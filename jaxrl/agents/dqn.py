"""Deep Q-learning (Mnih et al. 2015, https://doi.org/10.1038/nature14236) and its family, online or offline.

What values are (numbers, C51, QR, IQN, dueling, ...) is `ActionValues`; what a step spans and how often it is drawn is
in the data (`num_steps`, `weight`, `index`: n-step and prioritized replay). Left here is how the next state is valued:
by its best action (double: van Hasselt et al. 2016, https://arxiv.org/abs/1509.06461), by its best action that a
behavior policy would take (BCQ: Fujimoto et al. 2019, https://arxiv.org/abs/1910.01708), by the action that the data
took (BVE: Gulcehre et al. 2021, https://arxiv.org/abs/2103.09575), by one of a policy that is fitted to the data's
better actions (CRR: Wang et al. 2020, https://arxiv.org/abs/2006.15134) or not at all, where the data knows its returns
(MCE, Monte-Carlo estimation); and the penalty of CQL (Kumar et al. 2020, https://arxiv.org/abs/2006.04779). `update`
expects transitions [B].
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.action_values import ActionValues, take
from jaxrl.counters import increment
from jaxrl.gradients import blank
from jaxrl.optim import clipped_adam, descend
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, Policy, PyTree, Transition, bootstrap, item, no_memory, weighted_mean

# And the extras that they need.
NEXT_ACTIONS = {"greedy": None, "data": "next_action", "behavior": None, "none": "mc_return"}


class DQNHparams(NamedTuple):
    """Numbers of DQN, all traced."""

    learning_rate: float = 5e-4  # of Adam
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.01  # [0, 1], target <- target + rate (params - target) each `target_period` updates
    conservative: float = 0.0  # >= 0, weight of CQL's penalty
    threshold: float = 0.3  # [0, 1], with `behavior`: least probability of an action, relative to the likeliest
    inverse_temperature: float = 0.0  # >= 0, with `behavior`: 0 clones the data, more prefers its better actions
    max_weight: float = 20.0  # bound on exp(inverse_temperature * advantage)
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
        and the actions of the agent are chosen among those with pi_b(a | s) >= threshold max_b pi_b(b | s). A row
        counts exp(inverse_temperature (Q(s, a) - sum_b pi_b(b | s) Q(s, b))) times in the likelihood.
      next_action: "greedy"; "data", where a' is `extras["next_action"]`, so that the data's own policy is evaluated;
        "behavior", where a' is drawn from pi_b (CRR, with inverse_temperature > 0 and threshold 1, by which the agent
        acts by pi_b alone; theirs is drawn from a target network of pi_b); "none": the target is `extras["mc_return"]`.
      target_period: updates between two of the target.
      optimizer: from the hparams.

    Returns:
      An `Agent` that learns from transitions [B] and acts greedily (explore by a combinator).

    Raises:
      ValueError: if target_period < 1, or `next_action` is unknown or lacks a `behavior`; in `update`, if the data
        lacks what it needs.
    """
    if target_period < 1:
        raise ValueError(f"dqn: target_period is {target_period}, must be >= 1")
    if next_action not in NEXT_ACTIONS:
        raise ValueError(f"dqn: next_action is {next_action!r}, allowed: {', '.join(NEXT_ACTIONS)}")
    if next_action == "behavior" and behavior is None:
        raise ValueError("dqn: next_action is 'behavior', needs a behavior")

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

    def targets(key: Array, keys: tuple, state: DQNState, data: Transition) -> PyTree:
        """What the data's actions should be worth."""
        target_key, choice_key = keys
        needed, reward, decay = NEXT_ACTIONS[next_action], data.reward, bootstrap(data, state.hparams.discount)
        if needed is not None and needed not in data.extras:
            raise ValueError(f"dqn: next_action is {next_action!r}, but the data has no extras[{needed!r}]")
        if next_action == "greedy":
            chooser = state.params if double else state.params | {"values": state.target_params}
            action, _ = best(choice_key, chooser, state.hparams, data.next_observation)
        elif next_action == "data":
            action = data.extras["next_action"]
        elif next_action == "behavior":
            logits = behavior.network.apply(state.params["behavior"], (), data.next_observation)[1]
            action = behavior.distribution.transform(behavior.distribution.sample(key, logits))
        else:
            returned = blank(data._replace(reward=data.extras["mc_return"]))
            action, reward, decay = data.action, returned.reward, jnp.zeros_like(decay)
        after = values.apply(target_key, state.target_params, (), data.next_observation)[1]
        return values.target(values.select(after, action), reward, decay)

    def loss(params: PyTree, key: Array | None, hp: DQNHparams, data: Transition, target: PyTree):
        outputs = values.apply(key, params["values"], (), data.observation)[1]
        selected, q = values.select(outputs, data.action), values.mean(outputs)
        chosen = take(q, data.action)
        metrics = {
            "value_loss": weighted_mean(values.loss(selected, target), data),
            "conservative_loss": weighted_mean(losses.per_row(losses.conservative(q, chosen), data.reward.ndim), data),
            "q_value": weighted_mean(losses.per_row(chosen, data.reward.ndim), data),
        }
        total = metrics["value_loss"] + hp.conservative * metrics["conservative_loss"]
        if behavior is not None:
            logits = behavior.network.apply(params["behavior"], (), data.observation)[1]
            log_prob = behavior.distribution.log_prob(logits, behavior.distribution.inverse(data.action))
            advantage = chosen - jnp.sum(jax.nn.softmax(logits) * q, -1)
            better = losses.advantage_weight(advantage, hp.inverse_temperature, hp.max_weight)
            metrics["behavior_loss"] = -weighted_mean(better * log_prob, data)
            total += metrics["behavior_loss"]
        return total, (metrics, values.error(selected, target))

    def update(key: Array, state: DQNState, data: Transition) -> tuple[DQNState, Metrics]:
        hp, data = state.hparams, blank(data)
        key, behavior_key = jax.random.split(key)
        key, *keys = values.keys(key)
        target = targets(behavior_key, keys, state, data)
        gradient, (metrics, error) = jax.grad(loss, has_aux=True)(state.params, key, hp, data, target)
        params, opt_state = descend(optimizer(hp), gradient, state.opt_state, state.params)
        num_updates = increment(state.num_updates, target_period)
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
