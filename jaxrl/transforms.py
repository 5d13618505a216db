"""Transforms rewrite data on its way to an agent's `update`; `chain` composes them.

Order is meaning: `chain(a, b)` applies a first, so b sees what a wrote.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import counters, parallel
from jaxrl.counters import Count
from jaxrl.loop import merge_metrics
from jaxrl.normalize import Statistics, init_statistics, update_statistics
from jaxrl.tree import as_arrays
from jaxrl.types import Array, Metrics, PyTree, Transform, Transition, is_last, weight


def stateless(fn) -> Transform:
    """A transform from a pure function `data -> data`."""
    return Transform(
        init=lambda key, hparams, example: (),
        apply=lambda key, state, data: fn(data),
        observe=lambda key, state, fresh: (state, {}),
    )


def chain(*transforms: Transform) -> Transform:
    """Applies transforms in order; `chain()` is the identity. `observe` shows each of them the raw fresh data."""

    def init(key: Array, hparams: PyTree, example: Transition) -> PyTree:
        return tuple(t.init(_key(key, i), hp, example) for i, (t, hp) in enumerate(zip(transforms, hparams)))

    def apply(key: Array, state: PyTree, data: Transition) -> Transition:
        for i, (transform, s) in enumerate(zip(transforms, state)):
            data = transform.apply(_key(key, i), s, data)
        return data

    def observe(key: Array, state: PyTree, fresh: Transition) -> tuple[PyTree, Metrics]:
        states, metrics = [], {}
        for i, (transform, s) in enumerate(zip(transforms, state)):
            s, reported = transform.observe(_key(key, i), s, fresh)
            states.append(s)
            metrics = merge_metrics(metrics, reported)
        return tuple(states), metrics

    return Transform(init, apply, observe, tuple(t.hparams for t in transforms))


def scale_reward(scale: float) -> Transform:
    """reward * scale."""
    return stateless(lambda data: data._replace(reward=data.reward * scale))


def recompute_reward(reward: Callable[[Transition], Array]) -> Transform:
    """reward(data) in place of the recorded one: inside of `with_replay`, stored data under today's function.

    Args:
      reward: data -> shape of `data.reward`. For files there is `jaxrl.data.recompute`.
    """
    return stateless(lambda data: data._replace(reward=reward(data)))


class WeighRewardsHparams(NamedTuple):
    """Numbers of `weigh_rewards`."""

    reward_period: float = 100_000.0  # > 0 environment steps between two changes of the weights


class WeighRewardsState(NamedTuple):
    """State of `weigh_rewards`."""

    hparams: WeighRewardsHparams
    num_steps: Count  # environment steps so far


def weigh_rewards(
    weights: tuple[float, ...],
    growth: tuple[float, ...],
    limits: tuple[float, ...],
    hparams: WeighRewardsHparams = WeighRewardsHparams(),
) -> Transform:
    """reward = w . extras["reward_terms"], w = min(weights growth^(n // reward_period), limits) after n steps.

    A curriculum of rewards (Eschmann et al. 2023, https://arxiv.org/abs/2311.13081). Inside of `with_replay` every
    sampled row has today's reward, as if all stored rewards had been computed again; outside of it there is no effect,
    as buffers store what the environment recorded.

    Args:
      weights: [K] of the terms, at first.
      growth: [K] what they are multiplied with each period.
      limits: [K] what they do not exceed.

    Raises:
      ValueError: for lengths that differ; in `init`, for data whose terms are missing or not K.
    """
    if not len(weights) == len(growth) == len(limits):
        sizes = f"{len(weights)}, {len(growth)} and {len(limits)}"
        raise ValueError(f"weigh_rewards: weights, growth and limits have {sizes} entries, must agree")
    base, factor, limit = (jnp.asarray(x, jnp.float32) for x in (weights, growth, limits))

    def init(key: Array, hparams: WeighRewardsHparams, example: Transition) -> WeighRewardsState:
        del key
        terms = example.extras.get("reward_terms")
        if terms is None or terms.shape[-1:] != base.shape:
            has = "is missing" if terms is None else f"has {terms.shape[-1]} entries"
            raise ValueError(f"weigh_rewards: there are {len(weights)} weights, extras['reward_terms'] {has}")
        return WeighRewardsState(as_arrays(hparams), counters.zero())

    def apply(key: Array, state: WeighRewardsState, data: Transition) -> Transition:
        del key
        periods = jnp.floor(state.num_steps.rounded / state.hparams.reward_period)
        today = jnp.minimum(base * jnp.minimum(factor**periods, 1e30), limit)  # 0 times infinity is NaN
        return data._replace(reward=jnp.sum(today * data.extras["reward_terms"], -1))

    def observe(key: Array, state: WeighRewardsState, fresh: Transition) -> tuple[WeighRewardsState, Metrics]:
        del key
        return state._replace(num_steps=counters.advance(state.num_steps, parallel.rollout_steps(fresh.reward))), {}

    return Transform(init, apply, observe, hparams)


def clip_reward(low: float = -1.0, high: float = 1.0) -> Transform:
    """clip(reward, low, high)."""
    return stateless(lambda data: data._replace(reward=jnp.clip(data.reward, low, high)))


class NormalizeRewardHparams(NamedTuple):
    """Numbers of `normalize_reward`."""

    return_discount: float = 0.99  # of the learner, whose returns are to have unit scale
    reward_clip: float = 10.0  # bound on the scaled reward's magnitude


class NormalizeRewardState(NamedTuple):
    """State of `normalize_reward`."""

    hparams: NormalizeRewardHparams
    statistics: Statistics  # of discounted returns so far within an episode
    return_: Array  # [N] the running ones


def normalize_reward(hparams: NormalizeRewardHparams = NormalizeRewardHparams()) -> Transform:
    """reward / std(G) with G_t = r_t + discount * G_{t-1} within an episode.

    Engstrom et al. 2020, "Implementation matters in deep policy gradients", https://arxiv.org/abs/2005.12729.
    Rewards are scaled and never shifted, so that the sign of "this step was worth something" survives. For on-policy
    data [T, N].

    Raises:
      ValueError: in `init`, if the example has no time axis.
    """

    def init(key: Array, hparams: PyTree, example: Transition) -> NormalizeRewardState:
        del key
        if example.reward.ndim < 2:
            raise ValueError(
                f"normalize_reward: rewards are {example.reward.shape}, needs rollouts [T, N]; "
                "place it outside of a replay combinator"
            )
        columns = example.reward.shape[1:]
        return NormalizeRewardState(as_arrays(hparams), init_statistics(jnp.zeros(())), jnp.zeros(columns))

    def observe(key: Array, state: NormalizeRewardState, fresh: Transition):
        del key

        def accumulate(return_, step):
            reward, last, w = step
            return_ = jnp.where(w > 0, reward + state.hparams.return_discount * return_, return_)
            return jnp.where(last, 0.0, return_), return_

        w = weight(fresh)
        return_, returns = jax.lax.scan(accumulate, state.return_, (fresh.reward, is_last(fresh), w))
        return state._replace(statistics=update_statistics(state.statistics, returns, w), return_=return_), {}

    def apply(key: Array, state: NormalizeRewardState, data: Transition) -> Transition:
        del key
        clip = state.hparams.reward_clip
        reward = data.reward * jax.lax.rsqrt(state.statistics.var + 1e-8)
        return data._replace(reward=jnp.clip(reward, -clip, clip))

    return Transform(init, apply, observe, hparams)


def _key(key: Array, i: int) -> Array:
    """The first member of a chain gets the chain's key itself, so that `chain(t)` equals `t` to the bit."""
    return key if i == 0 else jax.random.fold_in(key, 0x7A3F0000 + i)
