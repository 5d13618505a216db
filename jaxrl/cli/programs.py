"""What a training run compiles: initialisation, and one chunk of updates, online or from a dataset."""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple

from jaxrl.cli import hosts
from jaxrl.cli.errors import BadInput, bad_input

MOST_UPDATES = 20_000  # of a chunk


class Program(NamedTuple):
    """A run as two functions and its sizes.

    Attributes:
      make_loop: (data) -> Loop.
      data: the dataset's transitions, an argument of both functions; () online.
      draw: (chunk) -> the data of that chunk, 0 the first: `data` again, or rows of a file that stays on disk, which
        depend on the seed and the chunk alone.
      updates: of a chunk; chunk_steps: steps of it; total: steps of the run, a multiple; requested: before rounding.
      unit: what a step is: "steps" of the environment, or "updates".
      notes: lines to print before the start.
    """

    make_loop: Callable[[Any], Any]
    data: Any
    draw: Callable[[int], Any]
    updates: int
    chunk_steps: int
    total: int
    requested: int
    unit: str
    notes: list[str]


def make(settings: Any) -> Program:
    """The program for what was asked.

    Raises:
      BadInput: if the replay buffer does not fit in memory.
    """
    options = settings.options
    if settings.dataset is not None:
        return from_dataset(settings)
    one = options["num_envs"] * options["unroll_length"]
    updates, chunks = plan(options["steps"], one, options.get("updates_per_chunk"))
    with bad_input(Exception, what=f"{settings.agent_name} in {settings.env_name}"):
        loop = online_loop(settings)
        notes = replay_notes(settings)
    total = updates * one * chunks
    return Program(lambda data: loop, (), lambda _: (), updates, updates * one, total, options["steps"], "steps", notes)


def online_loop(settings: Any) -> Any:
    return hosts.spread(one_loop(settings), settings.options["devices"])


def one_loop(settings: Any) -> Any:
    """The loop of one device's share."""
    from jaxrl.loop import online

    options = settings.options
    sizes = hosts.share({k: options[k] for k in ("num_envs", "reset_pool")}, options["devices"], "num_envs")
    return online(settings.agent, settings.env, unroll_length=options["unroll_length"], **sizes)


def from_dataset(settings: Any) -> Program:
    """Learning from a dataset: all of it on the device, or a window of rows a chunk with `--window`."""
    import numpy as np

    from jaxrl.data import nbytes, num_transitions, take_rows, to_device
    from jaxrl.data.goals import trajectories
    from jaxrl.factory import AGENTS
    from jaxrl.loop import offline

    options, dataset = settings.options, settings.dataset
    rows, size, window = num_transitions(dataset), nbytes(dataset), options["window"]
    if window:
        size = size * window // rows

        def draw(chunk: int) -> Any:
            random = np.random.default_rng((options["seed"], chunk))
            return to_device(take_rows(dataset, np.sort(random.integers(0, rows, window)))).transitions

        note = f"dataset: {rows:,} rows on disk, {window:,} of them ({readable(size)}) for each chunk"
    else:
        note = f"dataset: {rows:,} rows, {readable(size)}"
    check_memory(size, f"{options['dataset']}, {window or rows:,} rows,")
    if window:
        data = draw(0)
    else:
        data = to_device(wanted_extras(settings)).transitions
        draw = lambda _: data  # noqa: E731
    updates, chunks = plan(options["updates"], 1, options.get("updates_per_chunk"))
    size, count = options["batch_size"] // options["devices"], options["devices"]

    def loop(data: Any) -> Any:
        shared = trajectories(data) if AGENTS[settings.agent_name].looks_up else None
        return hosts.spread(offline(settings.agent, data, batch_size=size, shared=shared), count)

    return Program(loop, data, draw, updates, updates, updates * chunks, options["updates"], "updates", [note])


def wanted_extras(settings: Any) -> Any:
    """The dataset with what static choices of the learner ask for beside the transitions."""
    from jaxrl.data import with_next_actions, with_returns
    from jaxrl.data.goals import with_rows
    from jaxrl.factory import AGENTS
    from jaxrl.tree import get_field

    dataset = settings.dataset
    if AGENTS[settings.agent_name].looks_up:
        dataset = dataset._replace(transitions=with_rows(dataset.transitions))
    if settings.static.get("calibrated") or settings.static.get("next_action") == "none":
        dataset = with_returns(dataset, get_field(settings.hparams, "discount"))
    if settings.static.get("next_action") == "data":
        dataset = with_next_actions(dataset)
    return dataset


def plan(steps: int, steps_per_update: int, size: int | None = None) -> tuple[int, int]:
    """updates per chunk, number of chunks: 50 to 100 chunks of one size (one compilation), the least rounding up.

    More of them in very long runs: numbers are looked at, signals answered and states saved between chunks alone.

    Args:
      size: updates per chunk, where a run goes on that has it.
    """
    updates = -(-steps // steps_per_update)
    if size is not None:
        return size, -(-updates // size)
    smallest = min(-(-updates // 100), MOST_UPDATES)
    largest = min(max(updates // 50, smallest), MOST_UPDATES)
    size = min(range(smallest, largest + 1)[:1000], key=lambda k: (-updates % k, -k))
    return size, -(-updates // size)


def replay_notes(settings: Any) -> list[str]:
    """The size of the replay buffer, where there is one."""
    import jax

    from jaxrl.buffers import num_bytes
    from jaxrl.combinators.replay import WithReplayState
    from jaxrl.tree import find

    state = jax.eval_shape(one_loop(settings).init, jax.random.key(0), settings.hparams)
    buffers = [x.buffer for x in find(state, WithReplayState)]
    for buffer in buffers:
        check_memory(num_bytes(buffer), f"--buffer-size {settings.static['buffer_size']}: the replay buffer")
    each = f" on each of {settings.options['devices']} devices" if settings.options["devices"] > 1 else ""
    return [f"replay buffer: {_rows(x):,} transitions, {readable(num_bytes(x))}{each}" for x in buffers]


def _rows(buffer: Any) -> int:
    rows, columns = buffer.ring.data.reward.shape[:2]
    return rows * columns


def check_memory(size: int, what: str) -> None:
    """Raises BadInput if `size` bytes are more than the device has free."""
    free = free_memory()
    if free is not None and size > free:
        raise BadInput(f"{what} needs {readable(size)}, and {readable(free)} are free")


def free_memory() -> int | None:
    """Bytes free on the first device, None where nobody says."""
    import jax

    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def readable(size: int) -> str:
    """1234567 -> "1.2 MB"."""
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.{int(units[0] != 'bytes')}f} {units[0]}"


class Traced(NamedTuple):
    """The two functions of a run, lowered and not yet compiled.

    Attributes:
      template: shapes of the state, whole.
      function: the chunk as it is without the checks of --debug.
    """

    init: Any
    chunk: Any
    template: Any
    function: Any


def traced(program: Program, key: Any, settings: Any, name: str) -> Traced:
    """Initialisation and one chunk, lowered. What an agent or environment objects to shows here.

    Raises:
      BadInput: for whatever is raised under tracing, and for a state that does not fit in memory.
    """
    import jax

    from jaxrl.buffers import num_bytes
    from jaxrl.cli import debug
    from jaxrl.loop import run

    def init(key, hparams, data):
        return program.make_loop(data).init(key, hparams)

    def chunk(state, data):
        return run(program.make_loop(data), state, program.updates)

    def checked(state, data):
        loop = online_loop(settings._replace(agent=debug.checked_agent(settings.agent, settings.env)))
        return run(loop, state, program.updates)

    with bad_input(Exception, what=name):
        first = jax.jit(init).trace(key, settings.hparams, program.data)
        template = first.out_info
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(template))
    if settings.options.get("reset_pool"):
        fresh = jax.eval_shape(settings.env.reset, key, settings.env.params)
        size += settings.options["reset_pool"] * num_bytes(fresh)
    count = settings.options["devices"]
    size //= count if jax.default_backend() != "cpu" else 1
    check_memory(size, f"{name}: the state of the run")  # XLA would end the process without a word
    with bad_input(Exception, what=name):
        if settings.options["debug"]:  # the state before the chunk is needed again if a check fails
            function = chunk if settings.dataset is not None else checked
            lowered = jax.jit(debug.checked_chunk(function)).lower(template, program.data)
        else:
            given = hosts.laid_out(template, count)
            function, lowered = chunk, jax.jit(chunk, donate_argnums=0).lower(given, program.data)
        return Traced(first.lower(), lowered, template, function)


def without_buffers(state: Any) -> Any:
    """The state without what is in replay buffers, for checkpoints that leave them out."""
    from jaxrl.combinators.replay import WithReplayState
    from jaxrl.tree import edit, find

    return edit(state, WithReplayState, lambda x: x._replace(buffer=())) if find(state, WithReplayState) else state


def with_buffers(state: Any, fresh: Any) -> Any:
    """`without_buffers(state)` with the empty buffers of a run's first state."""
    import jax

    from jaxrl.combinators.replay import WithReplayState

    def fill(node, start):
        return node._replace(buffer=start.buffer) if isinstance(node, WithReplayState) else node

    return jax.tree.map(fill, state, fresh, is_leaf=lambda x: isinstance(x, WithReplayState))


def open_learner(settings: Any) -> dict[str, Any] | None:
    """The arrays of the learner of `--init-from RUN`.

    Raises:
      BadInput: if there is none, or it is of another agent.
    """
    from jaxrl.policy_file import LEARNER_FILE_NAME, load_policy

    run = settings.options["init_from"]
    if not run:
        return None
    with bad_input(ValueError):
        arrays, header = load_policy(f"{run}/{LEARNER_FILE_NAME}")
    if header.get("agent") != settings.agent_name:
        raise BadInput(f"--init-from {run}: a run of {header.get('agent')}, not of {settings.agent_name}")
    return arrays


def with_learner(state: Any, arrays: dict[str, Any] | None, run: str) -> Any:
    """The state with the learner of another run in it, which keeps the hyperparameters of this one.

    Raises:
      BadInput: if it does not fit.
    """
    from jaxrl.combinators.replay import learner_state, replace_learner
    from jaxrl.policy_file import named_leaves, restore

    if arrays is None:
        return state
    fresh = learner_state(state.agent)
    own = {name: leaf for name, leaf in named_leaves(fresh) if "hparams" in name.split("/")}
    with bad_input(ValueError, what=f"--init-from {run}"):
        learner = restore(fresh, {**arrays, **own})
    return state._replace(agent=replace_learner(state.agent, learner))
