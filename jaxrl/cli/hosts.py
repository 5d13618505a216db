"""One run on several devices, and on several hosts: processes that began with the same command.

Each process has a part of the state, and all of the learner. The first one writes and prints for all; what the others
have to know of it (that it was told to stop, that it is time to save) goes through `agree`.
"""

from __future__ import annotations

from typing import Any

from jaxrl.cli.errors import BadInput, bad_input

FLAGS = ("--coordinator", "--num-processes", "--process-id")
PATIENCE = 60  # seconds that a process which failed waits for the others, until it ends them


def join(argv: list[str]) -> list[str]:
    """Joins the other processes, before jax looks for devices; returns the arguments without what says where they are.

    Raises:
      BadInput: if that is said in part only, or they cannot be found.
    """
    given, rest, tokens = {}, [], list(argv)
    while tokens:
        token = tokens.pop(0)
        flag, equals, value = token.partition("=")
        if flag not in FLAGS:
            rest.append(token)
        elif flag in given or not (equals or tokens):
            raise BadInput(f"{flag} is given twice" if flag in given else f"{flag}: a value is missing")
        else:
            given[flag] = value if equals else tokens.pop(0)
    if not given:
        return rest
    address = given.get("--coordinator")
    if address is None or (address != "auto" and len(given) < len(FLAGS)):
        raise BadInput(f"several processes need all of {', '.join(FLAGS)}, or --coordinator auto on a cluster")
    total, mine = (_number(flag, given[flag]) if flag in given else None for flag in FLAGS[1:])
    if total is not None and mine is not None and not 0 <= mine < total:
        raise BadInput(f"--process-id is {mine}, must be in [0, {total}), --num-processes")

    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
    with bad_input(ValueError, RuntimeError, what=f"--coordinator {address}"):
        address = None if address == "auto" else address
        jax.distributed.initialize(address, total, mine, shutdown_timeout_seconds=PATIENCE)
    return rest


def wait_for_all(where: str) -> None:
    """Until every process is here, for an hour at most.

    The first exchange of numbers gives up after half a minute, and compiling may take one process much longer.
    """
    import jax

    if jax.process_count() > 1:
        from jax._src import distributed  # the public barriers are exchanges of numbers themselves

        distributed.global_state.client.wait_at_barrier(f"jaxrl: {where}", timeout_in_ms=3_600_000)


def is_first() -> bool:
    """Whether this process writes and prints."""
    import jax

    return jax.process_index() == 0


def num_devices(wanted: str) -> int:
    """Devices that learn together, for a value of --devices.

    Raises:
      BadInput: if there are not so many.
    """
    import jax

    here, processes = jax.device_count(), jax.process_count()
    if processes > 1:
        if wanted not in ("", "all", str(here)):
            raise BadInput(f"--devices is {wanted}, and {processes} processes have {here}, which all take part")
        return here
    if wanted == "all":
        return here
    if not (wanted or "1").isdecimal() or not 1 <= int(wanted or 1) <= here:
        raise BadInput(f"--devices is {wanted!r}, must be all or in [1, {here}], the number of devices here")
    return int(wanted or 1)


def share(sizes: dict[str, Any], count: int, *exactly: str) -> dict[str, Any]:
    """The sizes of one of `count` devices, rounded up, for those of all.

    Args:
      exactly: names of those which must be divisible.

    Raises:
      BadInput: if one is not.
    """
    for name in exactly:
        if sizes.get(name, count) % count:
            raise BadInput(f"--{name.replace('_', '-')} is {sizes[name]}, must be a multiple of the {count} devices")
    return {name: -(-size // count) for name, size in sizes.items()}


def spread(loop: Any, count: int) -> Any:
    """The loop of one device's share on all of them; the loop itself where there is one."""
    if count == 1:
        return loop
    from jaxrl.combinators.shard import shard

    return shard(loop, mesh(count))


def mesh(count: int) -> Any:
    import jax

    from jaxrl.combinators.shard import devices_mesh

    return devices_mesh(jax.devices()[:count])


def laid_out(template: Any, count: int) -> Any:
    """Shapes of a state with where it lies."""
    import jax

    from jaxrl.combinators.shard import layout

    if count == 1:
        return template
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout(mesh(count))), template)


def place(state: Any, count: int) -> Any:
    """A whole state, which every process has, laid out over the devices."""
    import jax
    import numpy as np

    from jaxrl.combinators.shard import layout
    from jaxrl.keys import is_key

    if count == 1:
        return state
    where = layout(mesh(count))

    def put(x: Any) -> Any:
        if is_key(x):
            return jax.random.wrap_key_data(put(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        array = np.asarray(x)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree.map(put, state)


def gather(state: Any) -> Any:
    """The whole state on every process; as it is where there is one process."""
    import jax

    if jax.process_count() == 1:
        return state
    from jax.experimental import multihost_utils

    from jaxrl.keys import is_key

    def whole(x: Any) -> Any:
        if is_key(x):
            return jax.random.wrap_key_data(whole(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(whole, state)


def one(state: Any, count: int) -> Any:
    """What one device of this process holds of a state; of the learner that is all."""
    if count == 1:
        return state
    from jaxrl.combinators.shard import one_of

    return one_of(state)


def agree(*mine: int) -> list[list[int]]:
    """What every process says, the first one's first."""
    import jax

    if jax.process_count() == 1:
        return [list(mine)]
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.asarray(mine, np.int32)).tolist()


def told_to_stop(received: list[int]) -> bool:
    """Whether any process has received a signal, which then all have."""
    told = max(said[0] for said in agree(received[0] if received else 0))
    if told and not received:
        received.append(told)
    return bool(told)


def _number(flag: str, text: str) -> int:
    if not text.isdecimal():
        raise BadInput(f"{flag} is {text!r}, must be a number >= 0")
    return int(text)
