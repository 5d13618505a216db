"""Random keys that are used twice: what `jax.debug_key_reuse` looks for, and what it cannot see.

`check(function, *arguments)` traces the function and follows every key through the program by what it *is*: the key
number i that `split` makes of k, or `fold_in(k, 3)`, are the same value wherever they are made. So it finds, beside
direct reuse: the same constant folded in twice, `fold_in(k, i)` beside `split(k, n)` with i < n (threefry makes the
same key), a fixed seed inside a loop, a key that all elements of a `vmap` share, a key kept in a state after its use.

    problems = key_reuse.check(lambda key: run(loop, loop.init(key), 2), jax.random.key(0))
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator

import jax

from jaxrl.key_reuse.follow import DRAWS, Follower, Keys
from jaxrl.keys import is_key

SHARED = "all elements of a vmap use the same key at"


def check(function: Callable[..., Any], *arguments: Any) -> list[str]:
    """The keys that `function(*arguments)` uses more than once.

    Traces, and neither compiles nor runs; caches of earlier traces are dropped, because what is cached is not seen. A
    key that two things are meant to share is passed on as `jax.random.clone(key)`.

    Args:
      arguments: arrays or `jax.ShapeDtypeStruct`s, as `jax.make_jaxpr` takes them.

    Returns:
      One line a problem with the places in the source; empty if there is none.
    """
    jax.clear_caches()
    follow = Follower()
    with _vmap_watched(follow.problems):
        closed = jax.make_jaxpr(function)(*arguments)
    inputs = [follow.fresh(v.aval.shape) if is_key(v.aval) else follow.opaque() for v in closed.jaxpr.invars]
    outputs = follow.run(closed, inputs)
    for i in follow.picks.keys() & follow.uses.keys():
        if all(j in follow.uses for j in follow.picks[i]):
            follow.report(f"a key of an array is used at {follow.uses[i]}, and all of the array elsewhere")
    returned = [i for x in outputs if isinstance(x, Keys) for i in x.ids.ravel().tolist()]
    for i in dict.fromkeys(returned):
        if (where := follow.used_at(i)) is not None:
            follow.report(f"a key that was used at {where} is returned")
        elif returned.count(i) > 1:
            follow.report(f"the same key is returned {returned.count(i)} times")
    return list(follow.problems)


@contextlib.contextmanager
def _vmap_watched(problems: dict[str, None]) -> Iterator[None]:
    """Notes draws from keys that have no axis of the `vmap` around them: in the program they look like one draw."""
    from jax._src import source_info_util
    from jax._src.interpreters import batching

    source_info_util.register_exclusion(__file__)
    original = batching.BatchTrace.process_primitive

    def process(self, primitive, tracers, params, /):
        shared = [is_key(jax.typeof(x)) and self.to_batch_info(x)[1] is None for x in tracers]
        if any(shared) and self.axis_data.size > 1:
            if primitive.name in DRAWS or (primitive.name == "jit" and _draws_from(params["jaxpr"], shared)):
                where = source_info_util.summarize(source_info_util.current())
                if where or not any(p.startswith(SHARED) for p in problems):  # within jax's own functions: known
                    problems[f"{SHARED} {where}"] = None
        return original(self, primitive, tracers, params)

    batching.BatchTrace.process_primitive = process
    try:
        yield
    finally:
        batching.BatchTrace.process_primitive = original


def _draws_from(closed: Any, which: list[bool]) -> bool:
    follow = Follower()
    inputs = [follow.like(Keys(()) if is_key(v.aval) else 0, v.aval.shape, frozenset()) for v in closed.jaxpr.invars]
    follow.run(closed, inputs)
    return any(
        i in follow.uses for x, given in zip(inputs, which, strict=True) if given for i in x.ids.ravel().tolist()
    )
