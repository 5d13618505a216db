"""Hierarchical implicit Q-learning (Park et al. 2023, https://arxiv.org/abs/2307.11949) and OTA (Ahn et al. 2025,
https://arxiv.org/abs/2505.12737), which differs from it in how the high level's value is made.

Offline learning of goals without values of actions: a value of states and goals is fitted to its own one-step targets
by an expectile, a high-level policy says where to be k steps ahead, and a low-level one how to get there; both clone
the data, weighted by how much nearer it came. In HIQL both policies read one value. Far from the goal its differences
are small beside its errors, and their sign is often wrong; OTA gives the high level a value of its own, which counts
options of n steps. `update` expects transitions [B] with the extras of `jaxrl.data.goals`.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.data.goals import with_goal, without_goal
from jaxrl.gradients import blank
from jaxrl.optim import clipped_adam, descend
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

FIELDS = ("subgoal", "high_goal", "high_target", "option")  # of extras; options only with a value of their own


class HIQLHparams(NamedTuple):
    """Numbers of HIQL, all traced; those of OGBench (Park et al. 2024, https://arxiv.org/abs/2410.20092)."""

    learning_rate: float = 3e-4  # of Adam, for all networks
    discount: float = 0.99  # [0, 1], of a step, and of an option
    target_rate: float = 0.005  # [0, 1], Polyak: target <- target + rate (params - target)
    expectile: float = 0.7  # (0, 1), of the values: 0.5 is the data's own policy, 1 the best inside of it
    high_inverse_temperature: float = 3.0  # >= 0: 0 clones the data
    low_inverse_temperature: float = 3.0  # >= 0
    max_weight: float = 100.0  # bound on exp(inverse temperature * advantage)
    max_grad_norm: float = float("inf")  # global, all networks together


class HIQLState(NamedTuple):
    """State of HIQL."""

    hparams: HIQLHparams
    params: dict[str, PyTree]  # {"representation", "value", "high_policy", "low_policy"}, with OTA "high_value"
    target_params: dict[str, PyTree]  # of the representation and the values
    opt_state: PyTree


def length_normalized(x: Array) -> Array:
    """x sqrt(R) / |x| over the last axis, of size R: the sphere that subgoals are on."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-12)


def hiql(
    high_policy: Policy,
    low_policy: Policy,
    representation: Network,
    value: Network,
    high_value: Network | None = None,
    *,
    project: Callable[[Array], Array] = length_normalized,
    optimizer: Callable[[HIQLHparams], optax.GradientTransformation] = clipped_adam,
    hparams: HIQLHparams = HIQLHparams(),
) -> Agent:
    """HIQL, or OTA where the high level has a value of its own.

        L_V  = E |tau - 1(A < 0)| (r + gamma V'_i(s', g) - V_i(s, g))^2, summed over the ensemble V_i
               A = r + gamma min_i V'_i(s', g) - mean_i V'_i(s, g),  V' the target networks
        L_hi = -E exp(beta_h (V(s_{t+k}, g) - V(s_t, g))) log pi_h(phi(s_t, s_{t+k}) | s_t, g)
        L_lo = -E exp(beta_l (V(s_{t+1}, w) - V(s_t, w))) log pi_l(a_t | s_t, phi(s_t, w)),  w the goal of s_{t+k}

    with V(s, g) = V(s, phi(s, g)). OTA has V^h in L_hi, and L_V for it with r, s' of an option in place of a step. The
    representation phi learns from the values alone. Both policies act at every step.

    Args:
      high_policy: over observations (dicts with "desired_goal"), its actions are [R].
      low_policy: over tuples (observation without "desired_goal", representation [R]).
      representation: phi, over observations, outputs [..., R]; `project` is applied to them.
      value: an ensemble over such tuples as the low policy's, outputs [E, ...].
      high_value: None: `value` serves both levels.
      project: where representations are, which holds what the high policy says too.
      optimizer: from the hparams.

    Returns:
      An `Agent` that learns from transitions [B] with extras "subgoal", "high_goal" and "high_target", and "option"
      with a high value. `act` samples both policies, `act_greedy` takes modes and records the high level's `value`.

    Raises:
      ValueError: from `update`, if one of the extras is missing.
    """
    values = {"value": value} if high_value is None else {"value": value, "high_value": high_value}
    high = list(values)[-1]  # the value that the high level reads
    fields = FIELDS[: 2 + len(values)]

    def embed(params: PyTree, observation: PyTree) -> tuple[PyTree, Array]:
        return without_goal(observation), project(representation.apply(params["representation"], (), observation)[1])

    def evaluate(name: str, params: PyTree, *observations: PyTree) -> list[Array]:
        """[E, ...] of each, from one pass through the networks."""
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *observations)
        v = values[name].apply(params[name], (), embed(params, stacked))[1]
        return [v[:, i] for i in range(len(observations))]

    def init(key: Array, hparams: HIQLHparams, example: Transition) -> HIQLState:
        keys, observation, hp = jax.random.split(key, 5), item(example.observation), as_arrays(hparams)
        params = {"representation": representation.init(keys[0], observation)}
        inputs = embed(params, observation)
        params |= {name: values[name].init(k, inputs) for name, k in zip(values, keys[1:])}
        target_params = jax.tree.map(jnp.copy, params)  # a copy, so that the state may be donated
        params["high_policy"] = high_policy.network.init(keys[3], observation)
        params["low_policy"] = low_policy.network.init(keys[4], inputs)
        return HIQLState(hp, params, target_params, optimizer(hp).init(params))

    def act_by(choose_high: Callable, choose_low: Callable):
        def act(key: Array, state: HIQLState, memory: PyTree, observation: PyTree):
            high_key, low_key = jax.random.split(key)
            outputs = high_policy.network.apply(state.params["high_policy"], (), observation)[1]
            subgoal = project(high_policy.distribution.transform(choose_high(high_key, outputs)))
            inputs = without_goal(observation), subgoal
            outputs = low_policy.network.apply(state.params["low_policy"], (), inputs)[1]
            return memory, low_policy.distribution.transform(choose_low(low_key, outputs)), {}

        return act

    high_mode, low_mode = high_policy.distribution.mode, low_policy.distribution.mode
    by_mode = act_by(lambda key, outputs: high_mode(outputs), lambda key, outputs: low_mode(outputs))

    def act_greedy(key: Array, state: HIQLState, memory: PyTree, observation: PyTree):
        v = jnp.mean(evaluate(high, state.params, observation)[0], axis=0)
        memory, action, _ = by_mode(key, state, memory, observation)
        return memory, action, {"value": v}

    def value_loss(name: str, params: PyTree, state: HIQLState, data: Transition) -> tuple[Array, Array]:
        hp = state.hparams
        following, now = evaluate(name, state.target_params, data.next_observation, data.observation)
        target = data.reward + bootstrap(data, hp.discount) * following
        advantage = jnp.min(target, axis=0) - jnp.mean(now, axis=0)
        error = target - evaluate(name, params, data.observation)[0]
        lean = jnp.where(advantage < 0, 1.0 - hp.expectile, hp.expectile)
        return weighted_mean(jnp.sum(lean * error**2, axis=0), data), jnp.max(jnp.abs(error), axis=0)

    def loss(params: PyTree, state: HIQLState, data: Transition, made: dict[str, PyTree]) -> tuple[Array, tuple]:
        hp, rows = state.hparams, {"value": data, "high_value": made.get("option")}
        fits = {name: value_loss(name, params, state, rows[name]) for name in values}
        metrics = {f"{name}_loss": fit for name, (fit, _) in fits.items()}

        ahead, goal, subgoal = made["high_target"], made["high_goal"], made["subgoal"]
        far, near, named = (with_goal(data.observation, g) for g in (goal, subgoal, ahead["achieved_goal"]))
        before, after = evaluate(high, state.params, far, with_goal(ahead, goal))
        high_advantage = jnp.mean(after - before, axis=0)
        before, after = evaluate("value", state.params, near, with_goal(data.next_observation, subgoal))
        low_advantage = jnp.mean(after - before, axis=0)
        phi = embed(state.params, jax.tree.map(lambda *x: jnp.stack(x), near, named))[1]  # a constant to gradients

        outputs = high_policy.network.apply(params["high_policy"], (), far)[1]
        log_prob = high_policy.distribution.log_prob(outputs, high_policy.distribution.inverse(phi[1]))
        counts = losses.advantage_weight(high_advantage, hp.high_inverse_temperature, hp.max_weight)
        metrics["high_policy_loss"] = -weighted_mean(counts * log_prob, data)
        outputs = low_policy.network.apply(params["low_policy"], (), (without_goal(data.observation), phi[0]))[1]
        log_prob = low_policy.distribution.log_prob(outputs, low_policy.distribution.inverse(data.action))
        counts = losses.advantage_weight(low_advantage, hp.low_inverse_temperature, hp.max_weight)
        metrics["low_policy_loss"] = -weighted_mean(counts * log_prob, data)
        advantages = {"high_advantage": high_advantage, "low_advantage": low_advantage}
        told = {name: weighted_mean(x, data) for name, x in advantages.items()}
        return sum(metrics.values()), (metrics | told, fits["value"][1])

    def update(key: Array, state: HIQLState, data: Transition) -> tuple[HIQLState, Metrics]:
        del key
        missing = [name for name in fields if name not in data.extras]
        if missing:
            raise ValueError(f"hiql: the data has no extras {missing}; see jaxrl.data.goals")
        hp, made = state.hparams, {name: data.extras[name] for name in fields}
        if "weight" in data.extras:  # what stands in rows of weight 0 must not reach a gradient, as in `blank`
            there = data.extras["weight"] > 0
            made = select(there, made, jax.tree.map(jnp.zeros_like, made))
        gradient, (metrics, priority) = jax.grad(loss, has_aux=True)(state.params, state, blank(data), made)
        params, opt_state = descend(optimizer(hp), gradient, state.opt_state, state.params)
        followed = {name: params[name] for name in state.target_params}
        target_params = optax.incremental_update(followed, state.target_params, hp.target_rate)
        if "index" in data.extras:
            metrics["priority"] = priority
        return HIQLState(hp, params, target_params, opt_state), metrics

    def actor(state: HIQLState) -> HIQLState:
        return state._replace(target_params=(), opt_state=())

    act = act_by(high_policy.distribution.sample, low_policy.distribution.sample)
    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=hparams)
