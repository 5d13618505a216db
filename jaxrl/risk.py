"""Rewards for learners that avoid variance: transforms that make a mean less a variance of what is an expectation.

    mean_variance_reward()   E[r] - lambda Var[r], of the rewards of single steps
    mean_variance_return()   E[R] - lambda Var[R], of the returns of episodes

Squares of expectations are no expectations; but E[x] - lambda Var[x] = max_y E[x - lambda (x - y)^2], at y = E[x] (Xie
et al. 2018, "A block coordinate ascent algorithm for mean-variance optimization", https://arxiv.org/abs/1809.02292). So
y follows the mean, and the learner, any that there is, improves the expectation for this y. Where it ends nobody gains
by a small change; who has several optima may stay at the one that it began at.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.counters import increment
from jaxrl.tree import as_arrays
from jaxrl.types import Array, Metrics, PyTree, Transform, Transition, is_last, weight


class MeanVarianceHparams(NamedTuple):
    """Numbers of `mean_variance_reward` and `mean_variance_return`."""

    risk_aversion: float = 1.0  # lambda >= 0, in units of 1 / reward; 0 leaves rewards as they are
    mean_rate: float = 0.1  # (0, 1], how far y goes to the mean of a rollout; the first ones are averaged


class Mean(NamedTuple):
    """y, and from how many rollouts it is."""

    value: Array  # []
    num_updates: Array  # [] int32


class MeanVarianceState(NamedTuple):
    """State of `mean_variance_reward` and `mean_variance_return`."""

    hparams: MeanVarianceHparams
    mean: Mean  # of rewards, or of returns
    first: PyTree = ()  # [N] returns so far where the last rollout begins
    now: PyTree = ()  # [N] where it ends


def mean_variance_reward(hparams: MeanVarianceHparams = MeanVarianceHparams()) -> Transform:
    """reward - lambda reward^2 + 2 lambda reward y, y the mean reward.

    Mean-variance policy iteration (Zhang, Liu and Whiteson 2021, https://arxiv.org/abs/2004.10888), for tasks that go
    on: it maximizes E[r] - lambda Var[r] over the steps that a policy takes; up to a factor, that variance bounds the
    one of discounted returns from above (Bisi et al. 2020, https://arxiv.org/abs/1912.03193). What is left out of
    -lambda (reward - y)^2 is lambda y^2 a step, a constant where no episode ends early.

    For data of any shape; y is that of fresh data, of all rows whose weight is above 0.
    """

    def init(key: Array, hparams: PyTree, example: Transition) -> MeanVarianceState:
        del key, example
        return MeanVarianceState(as_arrays(hparams), _nothing())

    def observe(key: Array, state: MeanVarianceState, fresh: Transition) -> tuple[MeanVarianceState, Metrics]:
        del key
        mean = _follow(state.mean, fresh.reward, weight(fresh) > 0, state.hparams.mean_rate)
        return state._replace(mean=mean), {"risk/mean": mean.value}

    def apply(key: Array, state: MeanVarianceState, data: Transition) -> Transition:
        del key
        return data._replace(reward=_averse(state, data.reward, 0.0))

    return Transform(init, apply, observe, hparams)


def mean_variance_return(hparams: MeanVarianceHparams = MeanVarianceHparams()) -> Transform:
    """reward - lambda [(G + reward - y)^2 - (G - y)^2], G the return before the step, y the mean return R.

    Over an episode these add up to R - lambda (R - y)^2 + lambda y^2. Therefore it maximizes E[R] - lambda Var[R] of
    undiscounted returns, what players of risk-averse equilibria do (Slumbers et al. 2023,
    https://arxiv.org/abs/2205.15434), with a discount of 1; with less, shares of the variance that come late count
    less. A critic needs to see G, or what it follows from.

    For on-policy data [T, N], as `observe` saw it last. y is that of the episodes that ended in a rollout, truncated
    ones with what they had got.

    Raises:
      ValueError: in `init`, if the example has no time axis.
    """

    def init(key: Array, hparams: PyTree, example: Transition) -> MeanVarianceState:
        del key
        if example.reward.ndim < 2:
            raise ValueError(
                f"mean_variance_return: rewards are {example.reward.shape}, needs rollouts [T, N]; "
                "place it outside of a replay combinator"
            )
        zero = jnp.zeros(example.reward.shape[1:])
        return MeanVarianceState(as_arrays(hparams), _nothing(), zero, zero)

    def before(first: Array, data: Transition) -> tuple[Array, Array]:
        """Returns so far, after the last row and before each one."""

        def step(so_far: Array, row: tuple) -> tuple[Array, Array]:
            reward, last, there = row
            return jnp.where(last, 0.0, so_far + jnp.where(there, reward, 0.0)), so_far

        return jax.lax.scan(step, first, (data.reward, is_last(data), weight(data) > 0))

    def observe(key: Array, state: MeanVarianceState, fresh: Transition) -> tuple[MeanVarianceState, Metrics]:
        del key
        now, so_far = before(state.now, fresh)
        ended = is_last(fresh) & (weight(fresh) > 0)
        mean = _follow(state.mean, so_far + fresh.reward, ended, state.hparams.mean_rate)
        return state._replace(mean=mean, first=state.now, now=now), {"risk/mean": mean.value}

    def apply(key: Array, state: MeanVarianceState, data: Transition) -> Transition:
        del key
        return data._replace(reward=_averse(state, data.reward, before(state.first, data)[1]))

    return Transform(init, apply, observe, hparams)


def _averse(state: MeanVarianceState, reward: Array, so_far: Array | float) -> Array:
    """reward - lambda [(G + reward - y)^2 - (G - y)^2]."""
    return reward - state.hparams.risk_aversion * reward * (reward + 2.0 * (so_far - state.mean.value))


def _nothing() -> Mean:
    return Mean(jnp.zeros(()), jnp.zeros((), jnp.int32))


def _follow(mean: Mean, x: Array, chosen: Array, rate: Array) -> Mean:
    """Toward the mean of the chosen entries, of all shards; where there are none, nothing changes."""
    count = parallel.sum(jnp.sum(chosen.astype(jnp.float32)))
    there = parallel.sum(jnp.sum(jnp.where(chosen, x, 0.0))) / jnp.maximum(count, 1.0)
    rate = jnp.maximum(rate, 1.0 / (mean.num_updates + 1.0))
    new = Mean(mean.value + rate * (there - mean.value), increment(mean.num_updates))
    return jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), new, mean)
