"""R2D2, recurrent replay distributed DQN (Kapturowski et al. 2019, https://openreview.net/forum?id=r1lyTjAqYX).

Double Q-learning on replayed sequences with a recurrent network: memory starts from what acting stored, is refreshed by
the first rows of each sequence (burn-in) and starts anew where an episode began; n-step targets stay inside of the
sequence. `update` expects sequences [L, B]; without `extras["memory"]` their first row starts from fresh memory.
The paper's network also sees the last action and reward; here that is a matter of the observation. The scale of values
(`rescale`) and distributions are choices of `ActionValues`.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, returns
from jaxrl.action_values import ActionValues, take
from jaxrl.counters import increment
from jaxrl.gradients import blank
from jaxrl.optim import clipped_adam, descend
from jaxrl.tree import as_arrays, select
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, bootstrap, is_last, item, weight, weighted_mean


class R2D2Hparams(NamedTuple):
    """Numbers of R2D2, all traced."""

    learning_rate: float = 5e-4  # of Adam
    discount: float = 0.997  # [0, 1]
    target_rate: float = 0.01  # [0, 1], target <- target + rate (params - target) each `target_period` updates
    max_priority_share: float = 0.9  # [0, 1], eta: priority of a sequence = eta max |error| + (1 - eta) mean |error|
    max_grad_norm: float = 40.0  # global


class R2D2State(NamedTuple):
    """State of R2D2."""

    hparams: R2D2Hparams
    params: PyTree  # of the values
    target_params: PyTree
    opt_state: PyTree
    num_updates: Array  # [] int32


def r2d2(
    values: ActionValues,
    *,
    num_steps: int = 5,
    burn_in: int = 0,
    target_period: int = 1,
    optimizer: Callable[[R2D2Hparams], optax.GradientTransformation] = clipped_adam,
    hparams: R2D2Hparams = R2D2Hparams(),
) -> Agent:
    """R2D2 for finitely many actions; one gradient step an update.

        target_t = sum_{i<k} discount^i r_{t+i} + discount^k Z_target(s'_{t+k-1}, argmax_a Q(s'_{t+k-1}, a))

    with k = `num_steps`, or fewer where the episode or the sequence ends; nothing follows a terminated one.

    Args:
      values: usually recurrent.
      num_steps: of the targets.
      burn_in: rows at the start of each sequence that only refresh the memory.
      target_period: updates between two of the target.
      optimizer: from the hparams.

    Returns:
      An `Agent` that learns from sequences [L, B], L > burn_in, and acts greedily (explore by a combinator); `act`
      records `memory` before each step.

    Raises:
      ValueError: for numbers of rows or updates that are too small; in `update`, if L <= burn_in.
    """
    for name, value, low in (("num_steps", num_steps, 1), ("burn_in", burn_in, 0), ("target_period", target_period, 1)):
        if value < low:
            raise ValueError(f"r2d2: {name} is {value}, must be >= {low}")

    def init(key: Array, hparams: R2D2Hparams, example: Transition) -> R2D2State:
        hp, params = as_arrays(hparams), values.init(key, item(example.observation))
        target_params = jax.tree.map(jnp.copy, params)  # buffers of its own: states may be donated
        return R2D2State(hp, params, target_params, optimizer(hp).init(params), jnp.zeros((), jnp.int32))

    def init_memory(key: Array, state: R2D2State, observation: PyTree) -> PyTree:
        del key
        return values.init_memory(state.params, observation)

    def greedy(key: Array | None, params: PyTree, memory: PyTree, observation: PyTree):
        then, outputs = values.apply(key, params, memory, observation)
        q = values.mean(outputs)
        return then, jnp.argmax(q, -1).astype(values.dtype), jnp.max(q, -1)

    def act(key: Array, state: R2D2State, memory: PyTree, observation: PyTree):
        del key
        then, action, _ = greedy(None, state.params, memory, observation)
        return then, action, {"memory": memory} if jax.tree.leaves(memory) else {}

    def act_greedy(key: Array, state: R2D2State, memory: PyTree, observation: PyTree):
        del key
        then, action, value = greedy(None, state.params, memory, observation)
        return then, action, {"value": value}

    def remembered(params: PyTree, data: Transition, is_first: Array) -> tuple[PyTree, PyTree]:
        """Memory before and after each row [L, B]."""
        fresh = values.init_memory(params, item(data.observation))
        start = item(data.extras["memory"]) if "memory" in data.extras else fresh
        if not jax.tree.leaves(start):
            return start, start

        def step(memory: PyTree, row):
            observation, is_first = row
            memory = select(is_first, values.init_memory(params, observation), memory)
            then = values.apply(None, params, memory, observation)[0]
            return then, (memory, then)

        return jax.lax.scan(step, start, (data.observation, is_first))[1]

    def targets(keys: tuple, hp: R2D2Hparams, state: R2D2State, after: tuple, data: Transition) -> PyTree:
        """The representation of n-step returns [L, B], from memory after each row: of the params, of the target."""
        target_key, choice_key = keys
        _, action, _ = greedy(choice_key, state.params, after[0], data.next_observation)
        outputs = values.apply(target_key, state.target_params, after[1], data.next_observation)[1]
        total, decay, row = returns.n_step_parts(
            data.reward, bootstrap(data, hp.discount), is_last(data), num_steps, data.extras.get("weight")
        )

        def gather(x: Array) -> Array:
            return jnp.take_along_axis(x, row.reshape(row.shape + (1,) * (x.ndim - row.ndim)), 0, mode="clip")

        return values.target(jax.tree.map(gather, values.select(outputs, action)), total, decay)

    def loss(params: PyTree, key: Array | None, memory: PyTree, is_first: Array, target: PyTree, data: Transition):
        outputs = values.unroll(key, params, memory, data.observation, is_first)
        selected = values.select(outputs, data.action)
        total = weighted_mean(values.loss(selected, target), data)
        q_value = weighted_mean(losses.per_row(take(values.mean(outputs), data.action), data.reward.ndim), data)
        return total, ({"value_loss": total, "q_value": q_value}, values.error(selected, target))

    def update(key: Array, state: R2D2State, data: Transition) -> tuple[R2D2State, Metrics]:
        hp, data = state.hparams, blank(data)
        if data.reward.shape[0] <= burn_in:
            raise ValueError(f"r2d2: burn_in is {burn_in}, must be < the {data.reward.shape[0]} rows of a sequence")
        key, *keys = values.keys(key)
        last = is_last(data)
        is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
        before, after = remembered(state.params, data, is_first)
        _, target_after = remembered(state.target_params, data, is_first)
        target = targets(keys, hp, state, (after, target_after), data)

        memory = jax.tree.map(lambda x: x[burn_in], before)
        extras = {name: data.extras[name] for name in ("weight",) if name in data.extras}
        rest = jax.tree.map(lambda x: x[burn_in:], (is_first, target, data._replace(extras=extras)))
        gradient, (metrics, error) = jax.grad(loss, has_aux=True)(state.params, key, memory, *rest)
        params, opt_state = descend(optimizer(hp), gradient, state.opt_state, state.params)
        num_updates = increment(state.num_updates, target_period)
        rate = jnp.where(num_updates % target_period == 0, hp.target_rate, 0.0)
        target_params = optax.incremental_update(params, state.target_params, rate)
        if "index" in data.extras:
            metrics["priority"] = priority(error, weight(rest[2]), hp.max_priority_share)
        return R2D2State(hp, params, target_params, opt_state, num_updates), metrics

    return Agent(
        init,
        init_memory,
        act,
        act_greedy,
        update,
        actor=lambda state: state._replace(target_params=(), opt_state=()),
        hparams=hparams,
    )


def priority(error: Array, weight: Array, max_share: Array) -> Array:
    """eta max_t |error_t| + (1 - eta) mean_t |error_t| over the rows of positive weight: [L, B] -> [B].

    Args:
      error: >= 0.
      max_share: eta.
    """
    there = weight > 0
    error = jnp.where(there, error, 0.0)
    mean = jnp.sum(error, 0) / jnp.maximum(jnp.sum(there, 0), 1)
    return max_share * jnp.max(error, 0) + (1.0 - max_share) * mean
