"""PROPS: on-policy data without on-policy sampling (Corrado and Hanna 2023, https://arxiv.org/abs/2311.08290).

A finite sample of a policy is not distributed as the policy says: some actions come too often, others too rarely. A
second policy, the *behavior*, chooses the actions instead. It starts at the agent's policy and is refitted, before each
rollout, so that actions which are over-represented in the data so far become less likely:

    E_D max(g, clip(g, 1 - epsilon, 1 + epsilon)) + lambda E_D KL(pi || behavior),   g = behavior(a | s) / pi(a | s)

which is PPO's clipped loss with an advantage of -1. The agent, PPO, then learns from all of the data, old rollouts
included, as if its own policy had just collected them: log-probabilities and values are those of now.

Robust on-policy sampling (ROS; Zhong et al. 2022, https://arxiv.org/abs/2111.14552) is one plain gradient step with
lambda = 0 and no clip: `refit_epochs=1, refit_minibatches=1, optimizer=lambda hp: optax.sgd(hp.refit_learning_rate)`,
hparams refit_clip=inf, refit_target_kl=inf, refit_kl_coefficient=0, and a rollout of one step. `refit_epochs=0` is PPO
on a buffer of its last rollouts, the paper's baseline.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, parallel
from jaxrl.combinators.lift import lift, salted
from jaxrl.counters import increment
from jaxrl.loop import merge_metrics
from jaxrl.minibatch import minibatches
from jaxrl.optim import descend
from jaxrl.tree import as_arrays, select
from jaxrl.types import Agent, Array, Metrics, Policy, PyTree, Transition, Wrapped, item, weight, weighted_mean


class PropsHparams(NamedTuple):
    """Numbers of `props`, all traced. The paper tunes them for each task; these are in its ranges."""

    refit_learning_rate: float = 1e-3  # of the behavior policy
    refit_clip: float = 0.3  # > 0, epsilon: how far over-represented actions are pushed down
    refit_target_kl: float = (
        0.03  # delta: a refit ends with the step where the estimate of KL(pi || behavior) passes it
    )
    refit_kl_coefficient: float = 0.1  # >= 0, lambda
    refit_max_grad_norm: float = 0.5


class PropsState(NamedTuple):
    """State of `props`."""

    agent: PyTree
    hparams: PropsHparams
    behavior: PyTree  # parameters of the policy that acts
    opt_state: PyTree  # of the behavior; it outlives a refit, as in the authors' code
    buffer: Transition  # [K * T, N], oldest row first; extras: weight (0: not there yet) and what `act` records
    num_rollouts: Array  # [] int32


def refit_adam(hp: PropsHparams) -> optax.GradientTransformation:
    """Adam on gradients clipped to a norm."""
    clip = optax.clip_by_global_norm(hp.refit_max_grad_norm)
    return optax.chain(clip, optax.adam(hp.refit_learning_rate, eps=1e-5))


def props(
    agent: Agent,
    policy: Policy,
    *,
    num_batches: int = 2,
    update_period: int = 1,
    refit_epochs: int = 16,
    refit_minibatches: int = 4,
    error_steps: int = 0,
    optimizer: Callable[[PropsHparams], optax.GradientTransformation] = refit_adam,
    hparams: PropsHparams = PropsHparams(),
) -> Agent:
    """A feed-forward on-policy agent whose rollouts are chosen to correct the sampling error of its data.

    The behavior is refitted after every rollout, so the loop's `unroll_length * num_envs` is the paper's m, steps
    between refits; the agent is updated after every `update_period` of them, on the last `num_batches * update_period`
    rollouts, one after the other along time. A refit leaves out the oldest rollout of a full buffer, which the next one
    will replace. `act_greedy` is the agent's. Hyperparameters: `Wrapped(agent=the agent's, own=PropsHparams)`; where
    the agent counts environment steps, it sees `num_batches` times as many. Wrappers that normalise go outside:
    rollouts are kept as they were normalised when they were new. Not for loops with `episodic=True`, whose rollouts are
    no continuation of each other. Where `init` and `step` are vmapped, as over seeds, the agent's update is computed at
    every rollout, and used at each `update_period`-th.

    Args:
      agent: an actor-critic such as `ppo`; its state has `params["policy"]`, `act` records `raw_action`, `log_prob`,
        and so does `value`, which `act_greedy` records as well.
      policy: the agent's.
      num_batches: b, how many updates a row takes part in.
      update_period: rollouts between updates of the agent; the metrics of the other rollouts read 0.
      refit_epochs: passes over the buffer in each refit; with 0 the agent's own policy acts.
      refit_minibatches: per pass; divides the rows of the buffer without its oldest rollout.
      error_steps: > 0: report `props/sampling_error`, from a fit of so many steps before each update.
      optimizer: of the behavior, from the hparams.

    Raises:
      ValueError: for counts out of range; from `init`, if the agent is recurrent.
    """
    minima = dict(num_batches=1, update_period=1, refit_epochs=0, refit_minibatches=1, error_steps=0)
    counts = (num_batches, update_period, refit_epochs, refit_minibatches, error_steps)
    for (name, low), value in zip(minima.items(), counts):
        if value < low:
            raise ValueError(f"props: {name} is {value}, must be >= {low}")
    network, distribution = policy
    capacity = num_batches * update_period  # rollouts

    def init(key: Array, hparams: Wrapped, example: Transition) -> PropsState:
        example = jax.tree.map(lambda x: jnp.zeros((capacity * x.shape[0], *x.shape[1:]), x.dtype), example)
        agent_state, hp = agent.init(key, hparams.agent, example), as_arrays(hparams.own)
        first = item(example.observation)
        memory = agent.init_memory(key, agent_state, first)
        if jax.tree.leaves(memory):
            raise ValueError("props: the agent has memory, needs a feed-forward one")
        recorded = jax.eval_shape(lambda: agent.act(key, agent_state, memory, first)[2])
        extras = jax.tree.map(lambda x: jnp.zeros((len(example.reward), *x.shape), x.dtype), recorded)
        extras = {**example.extras, **extras, "weight": jnp.zeros_like(example.reward)}
        behavior = jax.tree.map(jnp.copy, agent_state.params["policy"])  # a donated state holds no array twice
        opt_state = optimizer(hp).init(behavior)
        return PropsState(
            agent_state, hp, behavior, opt_state, example._replace(extras=extras), jnp.zeros((), jnp.int32)
        )

    def act(key: Array, state: PropsState, memory: PyTree, observation: PyTree):
        acting = state.agent._replace(params={**state.agent.params, "policy": state.behavior})
        return agent.act(key, acting, memory, observation)

    def observe(key: Array, state: PropsState, fresh: Transition) -> tuple[PropsState, Metrics]:
        agent_state, metrics = agent.observe(key, state.agent, fresh)
        return state._replace(agent=agent_state), metrics

    def on_policy(agent_state: PyTree, buffer: Transition) -> Transition:
        """The buffer as if the agent's policy had collected it now."""
        outputs = network.apply(agent_state.params["policy"], (), buffer.observation)[1]
        memory = agent.init_memory(jax.random.key(0), agent_state, buffer.observation)
        value = agent.act_greedy(jax.random.key(0), agent_state, memory, buffer.observation)[2]["value"]
        log_prob = distribution.log_prob(outputs, buffer.extras["raw_action"])
        return buffer._replace(extras={**buffer.extras, "log_prob": log_prob, "value": value})

    def update(key: Array, state: PropsState, data: Transition) -> tuple[PropsState, Metrics]:
        buffer, count = push(state.buffer, data), increment(state.num_rollouts, update_period)

        def learn(agent_state: PyTree) -> tuple[PyTree, Metrics]:
            rows = on_policy(agent_state, buffer)
            agent_state, metrics = agent.update(key, agent_state, rows)
            if not error_steps:
                return agent_state, metrics
            error = sampling_error(policy, state.agent.params["policy"], rows, num_steps=error_steps)
            return agent_state, merge_metrics(metrics, {"props/sampling_error": error})

        def skip(agent_state: PyTree) -> tuple[PyTree, Metrics]:
            shapes = jax.eval_shape(learn, agent_state)[1]
            return agent_state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        if update_period == 1:
            agent_state, metrics = learn(state.agent)
        else:
            agent_state, metrics = jax.lax.cond(count % update_period == 0, learn, skip, state.agent)
        kept = jax.tree.map(lambda x: x[len(data.reward) :], buffer)
        behavior, opt_state, refitted = refit(salted(key), state, agent_state.params["policy"], kept)
        state = PropsState(agent_state, state.hparams, behavior, opt_state, buffer, count)
        return state, merge_metrics(metrics, refitted)

    def refit(key: Array, state: PropsState, params: PyTree, kept: Transition) -> tuple[PyTree, PyTree, Metrics]:
        """The behavior, from the agent's policy."""
        if capacity == 1 or not refit_epochs:
            return jax.tree.map(jnp.copy, params), state.opt_state, {}
        hp, steps = state.hparams, optimizer(state.hparams)
        outputs = network.apply(params, (), kept.observation)[1]
        raw, w = kept.extras["raw_action"], kept.extras["weight"]
        extras = {"outputs": outputs, "raw_action": raw, "weight": w, "log_prob": distribution.log_prob(outputs, raw)}
        unread = dict.fromkeys(("action", "reward", "terminated", "truncated", "next_observation"), ())
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), kept._replace(**unread, extras=extras))

        def loss(behavior: PyTree, rows: Transition) -> tuple[Array, Array]:
            outputs, old = network.apply(behavior, (), rows.observation)[1], rows.extras["log_prob"]
            log_prob = distribution.log_prob(outputs, rows.extras["raw_action"])
            push_down = losses.clipped_surrogate(log_prob, old, -1.0, hp.refit_clip)
            kl = distribution.kl(rows.extras["outputs"], outputs)
            estimate = weighted_mean(losses.approx_kl(log_prob, old), rows)
            return weighted_mean(push_down + hp.refit_kl_coefficient * kl, rows), estimate

        def minibatch(carry, rows: Transition):
            *now, ended, taken = carry
            gradient, kl = jax.grad(loss, has_aux=True)(now[0], rows)
            then = select(ended, now, list(descend(steps, gradient, now[1], now[0])))
            kl = parallel.mean(kl)
            return (*then, ended | (kl > hp.refit_target_kl), taken + ~ended), jnp.where(ended, -jnp.inf, kl)

        def one_pass(carry, key: Array):
            return jax.lax.scan(minibatch, carry, minibatches(key, rows, refit_minibatches))

        def epoch(carry, key: Array):  # without the condition, what comes after the end would cost as much
            skip = lambda carry, key: (carry, jnp.full(refit_minibatches, -jnp.inf))  # noqa: E731
            return jax.lax.cond(carry[2], skip, one_pass, carry, key)

        carry = (params, state.opt_state, jnp.zeros((), bool), jnp.zeros((), jnp.float32))
        (behavior, opt_state, _, taken), kls = jax.lax.scan(epoch, carry, jax.random.split(key, refit_epochs))
        return behavior, opt_state, {"props/refit_steps": taken, "props/refit_kl": jnp.max(kls)}

    def actor(state: PropsState) -> PropsState:
        return state._replace(agent=agent.actor(state.agent), opt_state=(), buffer=())

    return lift(agent)._replace(
        init=init, act=act, observe=observe, update=update, actor=actor, hparams=Wrapped(agent.hparams, hparams)
    )


def push(buffer: Transition, fresh: Transition) -> Transition:
    """First in, first out: the last rows of `buffer` [K * T, N] and then those of `fresh` [T, N].

    Extras of `fresh` that the buffer has no place for are left out.
    """
    extras = {**fresh.extras, "weight": weight(fresh)}
    fresh = fresh._replace(extras={name: extras[name] for name in buffer.extras})
    return jax.tree.map(lambda old, new: jnp.concatenate([old[len(new) :], new]), buffer, fresh)


def sampling_error(
    policy: Policy, params: PyTree, data: Transition, *, num_steps: int, learning_rate: float = 1e-2
) -> Array:
    """KL(pi_D || pi) = E_D [log pi_D(a | s) - log pi(a | s)], pi_D of maximum likelihood (section 6 of the paper).

    Args:
      policy: feed-forward.
      params: of pi, where the fit of pi_D starts; before it has converged, the error is a lower bound.
      data: any leading axes; reads `observation`, extras `raw_action` and `weight`.
      num_steps: of Adam on all of the data, for pi_D.

    Returns:
      [], nats.
    """
    network, distribution = policy

    def log_likelihood(params: PyTree) -> Array:
        outputs = network.apply(params, (), data.observation)[1]
        return weighted_mean(distribution.log_prob(outputs, data.extras["raw_action"]), data)

    def step(carry, _):
        params, opt_state = carry
        return descend(optimizer, jax.grad(lambda p: -log_likelihood(p))(params), opt_state, params), None

    optimizer = optax.adam(learning_rate)
    (fitted, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), None, num_steps)
    return log_likelihood(fitted) - log_likelihood(params)
