"""Transforms rewrite data on its way to an agent's `update`; `chain` composes them.

Order is meaning: `chain(a, b)` applies a first, so b sees what a wrote.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

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
