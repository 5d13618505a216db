"""`shard`: a loop on several devices, each with environments and buffers of its own, and one learner.

The learner's parameters begin from one key on every shard and stay equal to the bit, because all of them take the same
steps: gradients are averaged where every agent's go through, in `optim.descend`. What a batch is normalized by is
averaged too (`jaxrl.parallel`).
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxrl import finite, parallel
from jaxrl.parallel import SHARDS
from jaxrl.types import Array, Loop, Metrics, PyTree

# Metrics that are one number for all shards already, though their names are those of counts.
SHARED = (f"{finite.PREFIX}parameter_count", f"{finite.PREFIX}reward_first", f"{finite.PREFIX}observation_first")


def shard(loop: Loop, over: Mesh | int) -> Loop:
    """Runs `loop` on D shards which learn together: D times its environments, its batches, its buffers.

    A loop of N environments and batches of B is then one of D N and D B in all: `shard(online(agent, env, num_envs=N,
    ...), devices_mesh())`. Environments, keys and buffers differ by shard; parameters, optimizers and statistics of
    observations are equal. Each shard shuffles and samples its own data, so that a minibatch is made of D parts. Where
    nothing is drawn (one minibatch, the same rollouts), a step equals that of the loop with all environments up to
    rounding.

    Args:
      loop: `online`, `offline`, or a loop made of them. An agent of your own must take its steps by `optim.descend` and
        its means by `weighted_mean`; what else it learns from data goes through the functions of `jaxrl.parallel`.
      over: a mesh with one axis, "shards", as from `devices_mesh`; or D, shards that are mapped on one device (`vmap`):
        the same computation, up to rounding, on whatever there is.

    Returns:
      A `Loop` whose state has leaves [D, ...], laid out over the devices; `one_of(state)` is what one shard holds.
      Metrics are those of the loop: what is counted is summed over shards, all else is averaged.

    Raises:
      ValueError: if `over` is neither.
    """
    if isinstance(over, int) and over >= 1:
        spread = dict(axis_name=SHARDS, axis_size=over)
        init = jax.vmap(loop.init, in_axes=None, out_axes=0, **spread)
        return Loop(lambda key, hparams=None: init(key, hparams), jax.vmap(_step(loop), out_axes=(0, None), **spread))
    if not isinstance(over, Mesh) or over.axis_names != (SHARDS,):
        raise ValueError(f"shard: over is {over!r}, must be a mesh with one axis {SHARDS!r}, or a number D >= 1")
    each, all_ = PartitionSpec(SHARDS), PartitionSpec()

    def init(key: Array, hparams: PyTree) -> PyTree:
        return _with_axis(loop.init(key, hparams))

    def step(state: PyTree) -> tuple[PyTree, Metrics]:
        state, metrics = _step(loop)(jax.tree.map(lambda x: x[0], state))
        return _with_axis(state), metrics

    start = jax.shard_map(init, mesh=over, in_specs=(all_, all_), out_specs=each, check_vma=False)
    advance = jax.shard_map(step, mesh=over, in_specs=each, out_specs=(each, all_), check_vma=False)
    return Loop(lambda key, hparams=None: start(key, hparams), advance)


def devices_mesh(devices: list[Any] | None = None) -> Mesh:
    """A mesh of devices, all of every process if not said, with the axis "shards"."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (SHARDS,), devices=devices, axis_types=(AxisType.Auto,))


def layout(mesh: Mesh) -> NamedSharding:
    """Where the leaves of a sharded state lie."""
    return NamedSharding(mesh, PartitionSpec(SHARDS))


def one_of(state: PyTree) -> PyTree:
    """What one shard holds, the first on this process: leaves without their axis [D].

    Of a learner that is what all hold.
    """

    def first(x: Array) -> Array:
        return x.addressable_shards[0].data[0] if isinstance(x, jax.Array) and not _is_traced(x) else x[0]

    return jax.tree.map(first, state)


def _step(loop: Loop) -> Any:
    """The step of one shard, with the metrics of all."""

    def step(state: PyTree) -> tuple[PyTree, Metrics]:
        state, metrics = loop.step(state)
        return state, _combined(metrics)

    return step


def _combined(metrics: Metrics) -> Metrics:
    """Of all shards; what is of one kind and dtype is exchanged together."""
    kinds: dict[Any, Metrics] = {}
    for name, x in metrics.items():
        counted = parallel.sum if name.endswith(("_sum", "count")) else parallel.mean
        kinds.setdefault((parallel.max if name in SHARED else counted, x.dtype), {})[name] = x
    found = {name: x for (reduce, _), group in kinds.items() for name, x in reduce(group).items()}
    return {name: found[name] for name in metrics}


def _with_axis(state: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[None], state)


def _is_traced(x: Array) -> bool:
    return isinstance(x, jax.core.Tracer)
