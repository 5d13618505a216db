"""What a sweep compiles: the run of a member, whole, or as a beginning and parts that follow it (`--halving`)."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from jaxrl.cli.errors import BadInput, bad_input


class Runs(NamedTuple):
    """The members of a group as functions.

    Attributes:
      whole: (key, hparams, counts [K], data) -> results [K]; an evaluation follows after each count of updates.
      first: (key, hparams, count, data) -> state, results; then: (state, count, data) -> state, results.
      shapes: of a member's arguments to `whole` and `first`, and to `then`.
      ends: updates up to each evaluation, [K]; unit: steps in an update.
      data: what a run takes beside its key and numbers, () online.
    """

    whole: Callable
    first: Callable
    then: Callable
    shapes: tuple[tuple, tuple]
    ends: list[int]
    unit: int
    data: Any

    def counts(self) -> list[int]:
        return [b - a for a, b in zip([0, *self.ends], self.ends)]


def make(group: Any, ends: Callable[[int], list[int]], name: str) -> Runs:
    """The runs of a group.

    A member is the run that `jaxrl train --seed` is: the same keys, the same number of updates, and an evaluation in
    the same episodes, here after every part of the run.

    Args:
      ends: (updates of a run) -> updates up to each evaluation.

    Raises:
      BadInput: for what an agent or environment objects to, and for what does not fit in memory.
    """
    import jax

    from jaxrl.cli import programs
    from jaxrl.evaluation import evaluate
    from jaxrl.halving import staged

    settings = group.settings
    program = programs.make(settings)
    unit = program.chunk_steps // program.updates
    agent, env, episodes = settings.agent, settings.env, settings.options["episodes"]

    def init(key, hparams, data):
        init_key, evaluation_key = jax.random.split(key)
        return program.make_loop(data).init(init_key, hparams), evaluation_key

    def advance(state, num_updates, data):
        state, evaluation_key = state
        state, sums = updates(program.make_loop(data), state, num_updates)
        # The key is the same after every part: so are the episodes' beginnings, and their differences are the policy's.
        found = evaluate(evaluation_key, agent, agent.actor(state.agent), env, num_episodes=episodes)
        return (state, evaluation_key), {
            "return": found.returns.mean(),
            "length": found.lengths.astype("float32").mean(),
            **sums,
        }

    def whole(key, hparams, counts, data):
        step = lambda state, count: advance(state, count, data)  # noqa: E731
        return jax.lax.scan(step, init(key, hparams, data), counts)[1]

    with bad_input(Exception, what=name):
        one = jax.tree.map(lambda x: x[0], group.hparams)
        start, go_on, shapes = staged(init, advance, one, (program.data,))

    def first(key, hparams, count, data):
        return go_on(start(key, hparams, data), count, data)

    return Runs(whole, first, go_on, shapes, ends(program.total // unit), unit, program.data)


def updates(loop: Any, state: Any, num_updates: Any) -> tuple[Any, dict[str, Any]]:
    """Steps of a loop, as many as a traced number says, and sums of what they report.

    Returns:
      state; `episode/..._sum`, `episode/count` over all steps, and `bad`: numbers that are not finite.
    """
    import jax
    import jax.numpy as jnp

    def step(_, carry):
        state, sums = carry
        state, metrics = loop.step(state)
        return state, jax.tree.map(jnp.add, sums, sums_of(metrics))

    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda x: sums_of(loop.step(x)[1]), state)
    )
    return jax.lax.fori_loop(0, num_updates, step, (state, zeros))


def sums_of(metrics: dict[str, Any]) -> dict[str, Any]:
    import jax.numpy as jnp

    from jaxrl.finite import PREFIX

    counts = [x for name, x in metrics.items() if name.startswith(PREFIX) and name.endswith("_count")]
    others = [x for name, x in metrics.items() if not name.startswith((PREFIX, "episode/"))]
    bad = sum((jnp.sum(x > 0) for x in counts), jnp.int32(0)) + sum(jnp.sum(~jnp.isfinite(x)) for x in others)
    kept = ("episode/return_sum", "episode/length_sum", "episode/count")
    sums = {name: jnp.sum(metrics[name]).astype(jnp.float32) for name in kept if name in metrics}
    return {**sums, "bad": jnp.minimum(bad, 1).astype(jnp.int32)}


def planned(runs: Runs, function: Callable, num_members: int, layout: str, name: str) -> Any:
    """A function of `Runs`, compiled and laid out.

    Raises:
      BadInput: if a single member does not fit in memory.
    """
    import jax

    from jaxrl import sweeps
    from jaxrl.cli import programs

    shapes = runs.shapes[1 if function is runs.then else 0]
    with bad_input(ValueError, jax.errors.JaxRuntimeError, what=name):
        return sweeps.plan(
            function,
            shapes,
            num_members,
            shared=jax.tree.map(jax.typeof, shared(runs, function, 0)),
            layout=layout,
            memory=programs.free_memory(),
        )


def shared(runs: Runs, function: Callable, part: int) -> tuple:
    """What all members are given: counts of updates, and data."""
    import jax.numpy as jnp

    counts = jnp.asarray(runs.counts(), jnp.int32)
    return (counts if function is runs.whole else counts[part]), runs.data


def beginnings(group: Any, seeds: list[int]) -> Callable[[list], tuple]:
    """The arguments of `whole` and `first` for members (setting, seed)."""
    from jaxrl import sweeps

    arguments = sweeps.beginnings(group.hparams, seeds)
    places, numbers = ({x: at for at, x in enumerate(xs)} for xs in (group.members, seeds))
    return lambda chosen: arguments([(places[setting], numbers[seed]) for setting, seed in chosen])


def label(names: list[str], group: Any) -> str:
    """A group in messages."""
    static = "".join(f", {name} {value}" for name, value in group.static.items())
    return f"{' in '.join(names)}{static}"


def even(parts: int) -> Callable[[int], list[int]]:
    """Evaluations after `parts` parts of a run that are as equal as they can be."""

    def ends(updates: int) -> list[int]:
        if updates < parts:
            raise BadInput(f"--evaluations is {parts}, and the run has {updates} updates")
        return [round(updates * (k + 1) / parts) for k in range(parts)]

    return ends


def at_rungs(num_settings: int, ratio: int) -> Callable[[int], list[int]]:
    """Evaluations at the rungs of successive halving."""
    from jaxrl.halving import rungs

    def ends(updates: int) -> list[int]:
        with bad_input(ValueError, what="--halving"):
            return [until for until, _ in rungs(updates, num_settings, ratio)]

    return ends
