"""`sweep`: one training function over settings and seeds, laid out as the machine likes it best.

    settings, hparams = grid(agent.hparams, {"learning_rate": [1e-4, 3e-4, 1e-3], "discount": [0.97, 0.99]})
    results = sweep(train, hparams, seeds=range(8))      # leaves [6, 8, ...]

On an accelerator the members are one wide `vmap`. On a CPU that is slower than one program a core, each for a single
member, in turns, which also takes the same memory however many members there are.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import time
from functools import partial
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.statistics import iqm
from jaxrl.tree import as_arrays, edit_fields, field_names
from jaxrl.types import Array, PyTree

LAYOUTS = ("auto", "vmap", "threads")


class Plan(NamedTuple):
    """How the members of a sweep are laid out.

    Attributes:
      program: compiled, arguments of members -> results, leaves [width], or of one member where `width` is None.
      calls: programs at once; nbytes: what all of these take on a device, as XLA says; seconds: of compiling.
    """

    program: Any
    width: int | None
    calls: int
    nbytes: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.width or 1} in a program, {self.calls} at once, {self.nbytes / 1e6:,.1f} MB"


def grid(hparams: PyTree, values: dict[str, Sequence[float]]) -> tuple[list[dict[str, float]], PyTree]:
    """All combinations of values of hyperparameters, the last name changing fastest.

    Returns:
      The combinations by name, S of them, and `hparams` with leaves [S]: a name is set wherever it is found inside.

    Raises:
      ValueError: if there is no such name, or no value for one.
    """
    for name, given in values.items():
        if name not in field_names(hparams):
            raise ValueError(f"grid: there is no {name!r}; there are {', '.join(sorted(field_names(hparams)))}")
        if len(given) == 0:
            raise ValueError(f"grid: there is no value for {name!r}")
    settings = [dict(zip(values, point)) for point in itertools.product(*values.values())]
    return settings, stack([edit_fields(hparams, {n: lambda _, x=x: x for n, x in s.items()}) for s in settings])


def stack(trees: Sequence[PyTree]) -> PyTree:
    """Hyperparameters of S settings as one bundle of float32 with leaves [S]."""
    return jax.tree.map(lambda *x: jnp.stack(x), *map(as_arrays, trees))


def sweep(
    train: Callable[[Array, PyTree], PyTree],
    hparams: PyTree,
    seeds: Iterable[int],
    *,
    layout: str = "auto",
    memory: int | None = None,
    skip: Iterable[tuple[int, int]] = (),
    say: Callable[[str], None] | None = None,
    on_result: Callable[[int, int, PyTree], None] | None = None,
) -> PyTree:
    """Trains every setting with every seed; compiles once.

    Args:
      train: (key, hparams) -> results: a whole run as a pure function of a typed key and hyperparameters.
      hparams: of S settings, leaves [S]; see `grid` and `stack`.
      seeds: a member of each setting has the key `jax.random.key(seed)`.
      layout: "vmap": as many members in one program as fit in memory, spread over all devices, in turns if need be;
        "threads": programs of one member, one on each core at a time; "auto": threads on a CPU, else vmap.
      memory: bytes that may be used on a device; None: what it has free, where it says.
      skip: (setting, number of the seed) of members that are not trained; their results are zeros.
      say: takes one line about the plan before the first member runs.
      on_result: called with (setting, number of the seed, results on the host) whenever a member is finished.

    Returns:
      Results on the host, leaves [S, number of seeds, ...].

    Raises:
      ValueError: if an argument is not valid, or a single member takes more memory than there is.
    """
    seeds, size = list(seeds), _num_settings(hparams)
    if not seeds:
        raise ValueError("sweep: there are no seeds")
    skip, shape = set(skip), (size, len(seeds))
    members = [member for member in np.ndindex(shape) if member not in skip]
    arguments = beginnings(hparams, seeds)
    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), jax.eval_shape(partial(arguments, [(0, 0)]))
    )
    results = jax.tree.map(lambda x: np.zeros((*shape, *x.shape), x.dtype), jax.eval_shape(train, *one))
    if not members:
        return results
    planned = plan(train, one, len(members), layout=layout, memory=memory)
    if say is not None:
        say(f"{len(members)} members, {planned}")
    for chosen, found, _ in finished(planned, members, arguments):
        for member, result in zip(chosen, found):
            jax.tree.map(partial(_put, member), results, result)
            if on_result is not None:
                on_result(*member, result)
    return results


def beginnings(hparams: PyTree, seeds: Sequence[int]) -> Callable[[list], tuple[Array, PyTree]]:
    """What runs begin with: (members) -> keys [n] and hyperparameters [n], for members (setting, number of the seed).

    Args:
      hparams: of S settings, leaves [S].
    """
    hparams = jax.tree.map(lambda x: np.asarray(jnp.asarray(x)), hparams)  # slices of it cost no programs

    def arguments(chosen: list[tuple[int, ...]]) -> tuple[Array, PyTree]:
        setting, seed = np.transpose(chosen)
        keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32)[seed])
        return keys, jax.tree.map(lambda x: x[setting], hparams)

    return arguments


def plan(
    function: Callable[..., PyTree],
    one: tuple,
    num_members: int,
    *,
    shared: tuple = (),
    layout: str = "auto",
    memory: int | None = None,
) -> Plan:
    """Compiles a function of a member, and says how many run at once; `layout` and `memory` as in `sweep`.

    Args:
      one: the arguments of a member, as shapes.
      shared: further arguments, the same for all members, as shapes.

    Raises:
      ValueError: if the layout is not one, or a single member takes more memory than there is.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"sweep: layout is {layout!r}, must be one of {', '.join(LAYOUTS)}")
    if layout == "auto":
        layout = "threads" if jax.default_backend() == "cpu" and jax.local_device_count() == 1 else "vmap"
    free = _free_bytes() if memory is None else memory
    started = time.perf_counter()
    planned = (_threads if layout == "threads" else _vmap)(function, one, shared, num_members, free)
    return planned._replace(seconds=time.perf_counter() - started)


def finished(
    plan: Plan,
    members: Sequence[Any],
    arguments: Callable[[list], tuple],
    shared: tuple = (),
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[list, list[PyTree], float]]:
    """Runs members, and yields them as calls of the program end.

    Args:
      members: names of them, in the order in which they start.
      arguments: (some of the members) -> what the program takes, leaves with a leading axis of them.
      shared: what it takes beside that.
      stop: asked before each call; once it says so, no more are made, and those that run are waited for.

    Yields:
      the members of a call, the results of each on the host, and the seconds that it took.
    """
    width = plan.width or 1

    def call(chosen: list) -> tuple[list, list[PyTree], float] | None:
        if stop():
            return None
        given = arguments(chosen + chosen[:1] * (width - len(chosen)))
        started = time.perf_counter()
        if plan.width is None:
            found = [jax.device_get(plan.program(*jax.tree.map(lambda x: x[0], given), *shared))]
        else:
            all_found = jax.device_get(plan.program(*given, *shared))
            found = [jax.tree.map(lambda x: x[i], all_found) for i in range(len(chosen))]
        return chosen, found, time.perf_counter() - started

    members = list(members)
    pool = concurrent.futures.ThreadPoolExecutor(plan.calls)
    try:
        groups = [members[i : i + width] for i in range(0, len(members), width)]
        for future in concurrent.futures.as_completed([pool.submit(call, group) for group in groups]):
            if future.result() is not None:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _threads(function: Any, one: tuple, shared: tuple, num_members: int, free: int | None) -> Plan:
    """A program of one member, on as many cores as there are members and memory for."""
    program = jax.jit(function).lower(*one, *shared).compile()
    nbytes, calls = _nbytes(program), min(len(os.sched_getaffinity(0)), num_members)
    _require(nbytes, free)
    calls = calls if free is None else max(1, min(calls, free // max(nbytes, 1)))
    return Plan(program, None, calls, calls * nbytes, 0.0)


def _vmap(function: Any, one: tuple, shared: tuple, num_members: int, free: int | None) -> Plan:
    """A program of as many members as fit, the same number on every device."""
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("members",), devices=devices, axis_types=(jax.sharding.AxisType.Auto,))

    def compiled(width: int) -> Any:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((width, *x.shape), x.dtype), one)
        mapped = jax.vmap(function, in_axes=(0,) * len(one) + (None,) * len(shared))
        if len(devices) > 1:  # each device trains its own members: nothing is exchanged
            own, all_of_it = jax.sharding.PartitionSpec("members"), jax.sharding.PartitionSpec()
            specs = (own,) * len(one) + (all_of_it,) * len(shared)
            mapped = jax.shard_map(mapped, mesh=mesh, in_specs=specs, out_specs=own, check_vma=False)
        return jax.jit(mapped).lower(*shapes, *shared).compile()

    width = -(-num_members // len(devices))
    while True:
        program = compiled(width * len(devices))
        nbytes = _nbytes(program)  # of each device
        if free is None or nbytes <= free:
            return Plan(program, width * len(devices), 1, nbytes, 0.0)
        if width == 1:
            _require(nbytes, free)
        width = max(1, min(width // 2, int(width * 0.9 * free / nbytes)))


def ranking(returns: Any) -> list[int]:
    """Settings from best to worst, by the IQM over seeds; those with members that diverged (NaN) come last.

    Among them, fewer such members are better; ties keep their order.

    Args:
      returns: [S, number of seeds].
    """
    returns = np.asarray(returns, np.float64)
    diverged = np.sum(~np.isfinite(returns), axis=1)
    score = [iqm(row[np.isfinite(row)]) if np.isfinite(row).any() else -np.inf for row in returns]
    return sorted(range(len(returns)), key=lambda i: (diverged[i], -score[i]))


def _put(member: tuple[int, ...], into: np.ndarray, value: Any) -> None:
    into[member] = value


def _num_settings(hparams: PyTree) -> int:
    sizes = {np.shape(x)[:1] for x in jax.tree.leaves(hparams)}
    if len(sizes) != 1 or sizes & {(), (0,)}:
        raise ValueError(f"sweep: hparams have leading axes {sorted(sizes)}, must have one of settings, as from `grid`")
    return sizes.pop()[0]


def _nbytes(program: Any) -> int:
    found = program.memory_analysis()
    return 0 if found is None else found.temp_size_in_bytes + found.output_size_in_bytes + found.argument_size_in_bytes


def _require(nbytes: int, free: int | None) -> None:
    if free is not None and nbytes > free:
        raise ValueError(f"sweep: one member takes {nbytes:,} bytes, and {free:,} may be used")


def _free_bytes() -> int | None:
    """What the first device has free, where it says."""
    found = jax.local_devices()[0].memory_stats()
    return found["bytes_limit"] - found.get("bytes_in_use", 0) if found and "bytes_limit" in found else None
