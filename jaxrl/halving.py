"""Successive halving: poor settings are given up early, good ones go on from where they are (Jamieson and Talwalkar
2016, "Non-stochastic best arm identification and hyperparameter optimization", https://arxiv.org/abs/1502.07943).

    settings, hparams = grid(agent.hparams, {"learning_rate": [1e-5, 1e-4, 1e-3, 1e-2]})
    found = halving(init, advance, hparams, seeds=range(8), num_updates=400)
    settings[found.best], found.updates                  # the winner, and what it has cost
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Iterable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.keys import is_key
from jaxrl.sweeps import beginnings, finished, plan, ranking
from jaxrl.types import Array, PyTree


class Rung(NamedTuple):
    """What the settings that were left had reached after `num_updates`.

    Attributes:
      settings: n of them; results: on the host, leaves [n, number of seeds, ...].
    """

    num_updates: int
    settings: list[int]
    results: PyTree


class Halving(NamedTuple):
    """`best`: the setting that won; `updates`: of all members together."""

    rungs: list[Rung]
    best: int
    updates: int


def rungs(num_updates: int, num_settings: int, ratio: int) -> list[tuple[int, int]]:
    """(updates until the rung, settings in it): 1 / ratio of them, rounded down, go on to `ratio` times as many.

    The last rung is at `num_updates`, the k-th before it at num_updates / ratio**k; the first has all settings.

    Raises:
      ValueError: if ratio < 2, or the first rung would be shorter than one update.
    """
    sizes = survivors(num_settings, ratio)
    least = ratio ** (len(sizes) - 1)
    if num_updates < least:
        raise ValueError(f"halving: {num_updates} updates are too few, must be >= {least} (ratio ** halvings)")
    return [(round(num_updates / ratio**k), n) for k, n in zip(reversed(range(len(sizes))), sizes)]


def survivors(num_settings: int, ratio: int) -> list[int]:
    """Settings in each rung, down to one."""
    if ratio < 2:
        raise ValueError(f"halving: ratio is {ratio}, must be >= 2")
    sizes = [num_settings]
    while sizes[-1] > 1:
        sizes.append(max(1, sizes[-1] // ratio))
    return sizes


def halving(
    init: Callable[[Array, PyTree], PyTree],
    advance: Callable[[PyTree, Array], tuple[PyTree, PyTree]],
    hparams: PyTree,
    seeds: Iterable[int],
    *,
    num_updates: int,
    ratio: int = 2,
    score: str = "return",
    layout: str = "auto",
    memory: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Halving:
    """Trains all settings for a short time, the best 1 / ratio of them for longer, and so on; see `rungs`.

    A setting goes on or not with all of its seeds, by the IQM of their scores (`sweeps.ranking`: what diverged comes
    last). Members continue: nothing is trained twice. States wait on the host between the rungs.

    Args:
      init: (key, hparams) -> state of a run.
      advance: (state, num_updates) -> state, results of a run; `num_updates` is traced: use `fori_loop`, not `scan`.
      hparams, seeds, layout, memory, say: as for `sweep`.
      score: which of the results, a number, settings are ranked by.

    Raises:
      ValueError: if an argument is not valid, or a single member takes more memory than there is.
    """
    seeds, size = list(seeds), len(jax.tree.leaves(hparams)[0])
    stages = rungs(num_updates, size, ratio)
    if not seeds:
        raise ValueError("halving: there are no seeds")
    start, go_on, one = staged(init, advance, jax.tree.map(lambda x: x[0], hparams))
    count = (jax.ShapeDtypeStruct((), jnp.int32),)  # shared: under vmap, loops of all members have one length
    members = [(i, j) for i in range(size) for j in range(len(seeds))]
    layouts = {"layout": layout, "memory": memory}
    planned = plan(start, one[0], len(members), **layouts)
    states = {
        m: x
        for chosen, found, _ in finished(planned, members, beginnings(hparams, seeds))
        for m, x in zip(chosen, found)
    }
    done, spent, planned, found_rungs = 0, 0, None, []
    for until, number in stages:
        kept = ranking(found_rungs[-1].results[score])[:number] if found_rungs else range(size)
        kept = sorted(found_rungs[-1].settings[i] for i in kept) if found_rungs else list(kept)
        members = [(i, j) for i in kept for j in range(len(seeds))]
        states = {m: states[m] for m in members}
        if planned is None or planned.width is not None:  # a program of one member serves every rung
            planned = plan(go_on, one[1], len(members), shared=count, **layouts)
        if say is not None:
            say(f"{len(kept)} settings to {until:,} updates: {len(members)} members, {planned}")
        results = {}
        for chosen, found, _ in finished(planned, members, partial(stacked, states), (jnp.int32(until - done),)):
            for member, (state, result) in zip(chosen, found):
                states[member], results[member] = state, result
        rows = [jax.tree.map(lambda *x: np.stack(x), *(results[i, j] for j in range(len(seeds)))) for i in kept]
        found_rungs.append(Rung(until, kept, jax.tree.map(lambda *x: np.stack(x), *rows)))
        done, spent = until, spent + len(members) * (until - done)
    last = found_rungs[-1]
    return Halving(found_rungs, last.settings[ranking(last.results[score])[0]], spent)


def stacked(states: dict[Any, list], chosen: list) -> tuple[list]:
    """What `go_on` takes for some members, leaves with a leading axis of them."""
    return ([np.stack(leaves) for leaves in zip(*(states[member] for member in chosen))],)


def staged(
    init: Callable, advance: Callable, hparams: PyTree, shared: tuple = ()
) -> tuple[Callable, Callable, tuple[tuple, tuple]]:
    """`init` and `advance` on states as a host keeps them: lists of arrays, typed keys as their data.

    Args:
      hparams: of one member.
      shared: further arguments of both, as shapes.

    Returns:
      start, go_on, and the shapes of what is a member's own among their arguments.
    """
    known: dict[str, Any] = {}

    def start(key: Array, hparams: PyTree, *shared: PyTree) -> list[Array]:
        leaves, known["structure"] = jax.tree.flatten(init(key, hparams, *shared))
        known["keys"] = [jax.random.key_impl(x) if is_key(x) else None for x in leaves]
        return packed(leaves)

    def packed(leaves: list[Array]) -> list[Array]:
        return [jax.random.key_data(x) if is_key(x) else jnp.asarray(x) for x in leaves]

    def go_on(state: list[Array], num_updates: Array, *shared: PyTree) -> tuple[list[Array], PyTree]:
        kinds = known["keys"]
        leaves = [x if kind is None else jax.random.wrap_key_data(x, impl=kind) for x, kind in zip(state, kinds)]
        state, results = advance(jax.tree.unflatten(known["structure"], leaves), num_updates, *shared)
        return packed(jax.tree.leaves(state)), results

    one = jax.eval_shape(lambda: (jax.random.key(0), jax.tree.map(jnp.asarray, hparams)))
    return start, go_on, (one, (jax.eval_shape(start, *one, *shared),))
