"""Population-based training, as a function of loops (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.loop import run
from jaxrl.tree import edit_fields, field_names, map_hparams
from jaxrl.types import Array, Loop, Metrics, PyTree


class PBTState(NamedTuple):
    """P runs side by side. `members`: their states, leaves [P, ...], each with its own environments and keys."""

    key: Array
    members: PyTree


def pbt(
    loop: Loop,
    size: int,
    search: dict[str, tuple[float, float]],
    *,
    period: int,
    fraction: float = 0.25,
    factors: tuple[float, ...] = (0.8, 1.25),
    metric: str = "episode/return",
) -> Loop:
    """Trains `size` members of a loop; the worst take over the agents of the best and search on from there.

    A step is `period` steps of every member and an exchange. Members are ranked by the mean of `metric` over the period
    (without a finished episode they come last). Each of the worst ceil(fraction * size) then copies the whole agent of
    one of as many best, drawn at random (truncation selection): parameters, optimizer, buffer, hyperparameters. Those
    in `search` are multiplied by one of `factors` each, drawn at random, and clipped to their bounds. Environments and
    keys stay where they are.

    Args:
      loop: whose state has a field `agent`: `online`, `offline`, or a loop made of them.
      search: bounds (low, high) by name. `init` draws each member's value from them, log-uniformly where low > 0,
        uniformly where not; a name that several layers of the agent have gets one value in all of them. Numbers that
        have to agree under other names (`discount` and `n_step_discount`) are not searched for one by one.
      period: steps of the loop between exchanges.
      fraction: (0, 0.5].
      metric: as in the metrics of the loop; `NAME_sum` is divided by the count beside it, as the command line does.

    Returns:
      A `Loop` over `PBTState`. Metrics of the members are [period, P]; `pbt/fitness` [P] is what they were ranked by,
      `pbt/NAME` [P] are the values of `search` that they had then, and `pbt/parent` [P] whose agent each goes on with.

    Raises:
      ValueError: if an argument is outside of its range; in `init`, if there is no such hyperparameter.
    """
    if size < 2 or period < 1:
        raise ValueError(f"pbt: size is {size} and period {period}, must be >= 2 and >= 1")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"pbt: fraction is {fraction}, must be in (0, 0.5]")
    if not search or not all(math.isfinite(high - low) and low < high for low, high in search.values()):
        raise ValueError(f"pbt: search is {search}, must have finite bounds (low, high) by name, low < high")
    names, num_moved = list(search), math.ceil(fraction * size)

    def draw(key: Array) -> dict[str, Array]:
        keys = jax.random.split(key, len(names))
        return {name: _draw(key, *search[name], size) for key, name in zip(keys, names)}

    def init(key: Array, hparams: PyTree = None) -> PBTState:
        key, draw_key, init_key = jax.random.split(key, 3)
        if hparams is None:
            raise ValueError("pbt: init needs hparams, such as agent.hparams: the values that are not searched for")
        missing = [name for name in names if name not in field_names(hparams)]
        if missing:
            raise ValueError(f"pbt: there is no {missing[0]!r}; there are {', '.join(sorted(field_names(hparams)))}")
        drawn = draw(draw_key)

        def one(key: Array, values: dict[str, Array]) -> PyTree:
            return loop.init(key, edit_fields(hparams, {name: lambda _, x=x: x for name, x in values.items()}))

        return PBTState(key, jax.vmap(one)(jax.random.split(init_key, size), drawn))

    def exchange(key: Array, agents: PyTree, fitness: Array) -> tuple[PyTree, Array]:
        """The agents that training goes on with, and whose they were, [P]."""
        parent_key, *factor_keys = jax.random.split(key, 1 + len(names))
        order = jnp.argsort(jnp.nan_to_num(fitness, nan=-jnp.inf, neginf=-jnp.inf))  # worst first
        parents = jax.random.choice(parent_key, order[-num_moved:], (num_moved,))
        parent = jnp.arange(size).at[order[:num_moved]].set(parents)

        def explore(key: Array, low: float, high: float):
            factor = jax.random.choice(key, jnp.asarray(factors, jnp.float32), (size,))
            moved = parent != jnp.arange(size)
            return lambda value: jnp.where(moved, jnp.clip(value * factor, low, high), value)

        edits = {name: explore(key, *search[name]) for key, name in zip(factor_keys, names)}
        return map_hparams(jax.tree.map(lambda x: x[parent], agents), edits), parent

    def step(state: PBTState) -> tuple[PBTState, Metrics]:
        key, exchange_key = jax.random.split(state.key)
        every = Loop(loop.init, jax.vmap(loop.step))
        members, metrics = run(every, state.members, period)
        fitness = _fitness(metric, metrics)
        values = _values(members.agent, names)
        agents, parent = exchange(exchange_key, members.agent, fitness)
        metrics = metrics | values | {"pbt/fitness": fitness, "pbt/parent": parent}
        return PBTState(key, members._replace(agent=agents)), metrics

    return Loop(init, step)


def _draw(key: Array, low: float, high: float, size: int) -> Array:
    if low > 0:
        return jnp.exp(jax.random.uniform(key, (size,), minval=math.log(low), maxval=math.log(high)))
    return jax.random.uniform(key, (size,), minval=low, maxval=high)


def _fitness(metric: str, metrics: Metrics) -> Array:
    """Mean of a metric [period, P] over the period; NaN where it has a count of 0."""
    count = metric.rsplit("/", 1)[0] + "/count"
    if f"{metric}_sum" in metrics and count in metrics:
        total, episodes = parallel.sum((jnp.sum(metrics[f"{metric}_sum"], 0), jnp.sum(metrics[count], 0)))
        return total / episodes
    if metric not in metrics:
        raise ValueError(f"pbt: there is no metric {metric!r}; there are {', '.join(sorted(metrics))}")
    return parallel.mean(jnp.mean(metrics[metric], 0))


def _values(agent: PyTree, names: list[str]) -> Metrics:
    """`pbt/NAME`, [P], of hyperparameters in a state."""
    found: dict[str, Array] = {}
    map_hparams(agent, {name: lambda x, name=name: found.setdefault(name, x) for name in names})
    return {f"pbt/{name}": x for name, x in found.items()}
