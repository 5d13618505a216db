"""PQN, parallelised Q-network (Gallici et al. 2024, https://arxiv.org/abs/2407.04811): Q-learning without replay buffer
or target network.

Many environments at once in the place of a buffer, layer normalization in the network in the place of a target:
Q(lambda) targets of a rollout, computed once, then several epochs of minibatch steps towards them. `update` expects a
rollout [T, N] of an exploring agent; it reads no extras but `memory`, and that only if the network is recurrent.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import parallel, returns
from jaxrl.action_values import ActionValues, take
from jaxrl.counters import increment
from jaxrl.gradients import blank
from jaxrl.minibatch import minibatches
from jaxrl.optim import descend
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, bootstrap, is_last, item, trace, weighted_mean


class PQNHparams(NamedTuple):
    """Numbers of PQN, all traced."""

    learning_rate: float = 2.5e-4  # of RAdam
    decay_steps: float = float("inf")  # environment steps over which the learning rate falls linearly to 0
    discount: float = 0.99  # [0, 1]
    lambda_: float = 0.65  # [0, 1], 0 is one-step Q-learning
    max_grad_norm: float = 10.0  # global


class PQNState(NamedTuple):
    """State of PQN."""

    hparams: PQNHparams
    params: PyTree  # of the values
    opt_state: PyTree
    num_updates: Array  # [] int32


class Batch(NamedTuple):
    """What the loss reads; leaves [L, b, ...] if recurrent, whole columns; if not, shuffled rows [b, ...]."""

    data: Transition
    memory: PyTree  # at the first row
    is_first: Array
    target: Array


def clipped_radam(hp) -> optax.GradientTransformation:
    """RAdam (Liu et al. 2020, https://arxiv.org/abs/1908.03265) on gradients clipped to norm `hp.max_grad_norm`."""
    return optax.chain(optax.clip_by_global_norm(hp.max_grad_norm), optax.radam(hp.learning_rate))


def pqn(
    values: ActionValues,
    *,
    num_epochs: int = 2,
    num_minibatches: int = 4,
    optimizer: Callable[[PQNHparams], optax.GradientTransformation] = clipped_radam,
    hparams: PQNHparams = PQNHparams(),
) -> Agent:
    """PQN for finitely many actions.

        G_t = r_t + discount ((1 - lambda) max_a Q(s'_t, a) + lambda G_{t+1}),   loss = E loss(Q(s_t, a_t), G_t)

    as Peng's Q(lambda), which does not ask whether an action was greedy. What ends an episode ends the recursion; where
    the clock ended it, G_t = r_t + discount max_a Q(s'_t, a).

    Args:
      values: feed-forward or recurrent; a distribution is fitted to the returns G.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides T * N rows, or N columns where the values are recurrent.
      optimizer: from the hparams, whose `learning_rate` is already decayed.

    Returns:
      An `Agent` that acts greedily (explore by a combinator); `act` records `memory` before each step if recurrent.

    Raises:
      ValueError: for counts below 1; in `update`, if rows do not divide.
    """
    for name, value in (("num_epochs", num_epochs), ("num_minibatches", num_minibatches)):
        if value < 1:
            raise ValueError(f"pqn: {name} is {value}, must be >= 1")

    def init(key: Array, hparams: PQNHparams, example: Transition) -> PQNState:
        hp, params = as_arrays(hparams), values.init(key, item(example.observation))
        return PQNState(hp, params, optimizer(hp).init(params), jnp.zeros((), jnp.int32))

    def init_memory(key: Array, state: PQNState, observation: PyTree) -> PyTree:
        del key
        return values.init_memory(state.params, observation)

    def greedy(state: PQNState, memory: PyTree, observation: PyTree):
        then, outputs = values.apply(None, state.params, memory, observation)
        q = values.mean(outputs)
        return then, jnp.argmax(q, -1).astype(values.dtype), jnp.max(q, -1)

    def act(key: Array, state: PQNState, memory: PyTree, observation: PyTree):
        del key
        then, action, _ = greedy(state, memory, observation)
        return then, action, {"memory": memory} if jax.tree.leaves(memory) else {}

    def act_greedy(key: Array, state: PQNState, memory: PyTree, observation: PyTree):
        del key
        then, action, value = greedy(state, memory, observation)
        return then, action, {"value": value}

    def prepare(hp: PQNHparams, params: PyTree, data: Transition) -> Batch:
        """Targets of a rollout, laid out for minibatches along axis 1."""
        memory, w = data.extras.get("memory", ()), data.extras.get("weight")
        then = values.apply(None, params, memory, data.observation)[0] if jax.tree.leaves(memory) else ()
        next_value = jnp.max(values.mean(values.apply(None, params, then, data.next_observation)[1]), -1)
        decay, carried = bootstrap(data, hp.discount), trace(data, hp.discount, hp.lambda_)
        target = returns.lambda_returns(data.reward, next_value, decay, carried, w)
        last = is_last(data)
        is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
        unread = dict.fromkeys(("reward", "terminated", "truncated", "next_observation"), ())
        data = data._replace(**unread, extras={} if w is None else {"weight": w})
        batch = Batch(data, jax.tree.map(lambda x: x[:1], memory), is_first, target)
        if jax.tree.leaves(memory):
            return batch  # columns
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)  # T * N rows

    def loss(params: PyTree, key: Array | None, batch: Batch) -> tuple[Array, Metrics]:
        data = batch.data
        outputs = values.unroll(key, params, item(batch.memory), data.observation, batch.is_first)
        selected = values.select(outputs, data.action)
        # The representation of a known return: what comes after is in it already.
        target = values.target(selected, batch.target, jnp.zeros_like(batch.target))
        total = weighted_mean(values.loss(selected, jax.lax.stop_gradient(target)), data)
        q_value = weighted_mean(take(values.mean(outputs), data.action), data)
        return total, {"value_loss": total, "q_value": q_value}

    def update(key: Array, state: PQNState, data: Transition) -> tuple[PQNState, Metrics]:
        hp = state.hparams
        steps = state.num_updates.astype(jnp.float32) * parallel.rollout_steps(data.reward)
        learning_rate = hp.learning_rate * jnp.maximum(1.0 - steps / hp.decay_steps, 0.0)
        decayed = optimizer(hp._replace(learning_rate=learning_rate))
        batch = prepare(hp, state.params, blank(data))
        axis = 1 if jax.tree.leaves(batch.memory) else 0

        def minibatch(carry, inputs):
            key, batch = inputs
            params, opt_state = carry
            gradient, metrics = jax.grad(loss, has_aux=True)(params, values.keys(key)[0], batch)
            return descend(decayed, gradient, opt_state, params), metrics

        def epoch(carry, key: Array):
            shuffle_key, key = jax.random.split(key)
            batches = minibatches(shuffle_key, batch, num_minibatches, axis=axis)
            return jax.lax.scan(minibatch, carry, (jax.random.split(key, num_minibatches), batches))

        keys = jax.random.split(key, num_epochs)
        (params, opt_state), metrics = jax.lax.scan(epoch, (state.params, state.opt_state), keys)
        metrics = jax.tree.map(jnp.mean, metrics) | {"learning_rate": learning_rate}
        return PQNState(hp, params, opt_state, increment(state.num_updates)), metrics

    return Agent(
        init, init_memory, act, act_greedy, update, actor=lambda state: state._replace(opt_state=()), hparams=hparams
    )
