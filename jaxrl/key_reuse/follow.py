"""Follows keys through a traced program."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxrl.key_reuse.equations import LARGEST, called, known, moved, where_is
from jaxrl.keys import is_key

DRAWS = {"random_bits", "random_split", "random_gamma"}
NOT_A_USE = {"eq", "ne", "random_unwrap", "debug_callback"}


class Keys:
    """An array of keys: a number for each, equal where the keys are."""

    def __init__(self, ids: np.ndarray):
        self.ids = np.asarray(ids)


class Follower:
    """Interprets a jaxpr over `Keys`, numpy arrays (known constants) and ints (numbers of values not known)."""

    def __init__(self) -> None:
        self.problems: dict[str, None] = {}  # ordered
        self.numbers: dict[Any, int] = {}  # what a value is -> its number
        self.loops: list[frozenset] = []  # number -> the loops whose iterations it differs in
        self.parts: dict[int, tuple[int, ...]] = {}  # one of several keys -> those
        self.uses: dict[int, str] = {}  # key -> where it was used
        self.picks: dict[int, tuple[int, ...]] = {}  # one of an array of keys, at a place not known -> all of them
        self.under_way: frozenset = frozenset()  # loops
        self.places = [""]  # of the calls under way

    def number(self, what: Any, *of: int) -> int:
        """The number of the value that `what` describes, made of the values `of`."""
        what = (what, of)
        if what not in self.numbers:
            self.numbers[what] = len(self.loops)
            self.loops.append(frozenset().union(*(self.loops[i] for i in of)))
        return self.numbers[what]

    def opaque(self, loops: frozenset = frozenset()) -> int:
        i = self.number(("fresh", len(self.loops)))
        self.loops[i] = loops
        return i

    def fresh(self, shape: tuple, loops: frozenset = frozenset()) -> Keys:
        return Keys(np.array([self.opaque(loops) for _ in range(int(np.prod(shape)))], int).reshape(shape))

    def constant(self, value: Any) -> Any:
        """The abstract value of a concrete array."""
        if is_key(jax.typeof(value)):
            data = np.asarray(jax.random.key_data(value))
            rows = data.reshape(-1, data.shape[-1])
            return Keys(np.array([self.number(("data", r.tobytes())) for r in rows], int).reshape(value.shape))
        return np.asarray(value) if np.size(value) <= LARGEST else self.opaque()

    def as_number(self, value: Any) -> int:
        if isinstance(value, np.ndarray):
            return self.number(("known", value.dtype.str, value.shape, value.tobytes()))
        if isinstance(value, Keys):
            return self.number("keys", *value.ids.ravel().tolist())
        return value

    def elements(self, value: Any, shape: tuple) -> np.ndarray:
        """A number for each element of an array."""
        if isinstance(value, np.ndarray):
            value = np.broadcast_to(value, shape)
            return np.array([self.number(("int", int(x))) for x in value.ravel()], int).reshape(shape)
        if not shape:
            return np.array(value)
        return np.array([self.number(("at", i), value) for i in range(int(np.prod(shape)))], int).reshape(shape)

    def report(self, problem: str) -> None:
        self.problems[problem] = None

    def used_at(self, i: int, but: int | None = None) -> str | None:
        """Where key i, or one that it may be, was used."""
        found = [self.used_at(j) for j in self.parts.get(i, ()) if j != but]
        picked = [self.uses.get(j) for j in self.picks.get(i, (i,))]
        return next((x for x in (self.uses.get(i), *found, *picked[: None not in picked]) if x is not None), None)

    def use(self, i: int, where: str) -> None:
        before = self.used_at(i)
        if before is not None:
            self.report(f"a key is used twice: at {before}" + (f" and at {where}" if where != before else ""))
        self._mark(i, where)

    def _mark(self, i: int, where: str) -> None:
        self.uses.setdefault(i, where)
        for j in self.parts.get(i, ()):
            self._mark(j, where)

    def use_all(self, keys: Keys, where: str) -> None:
        ids, counts = np.unique(keys.ids, return_counts=True)
        if (counts > 1).any():
            self.report(f"the same key is used for several elements of an array at {where}")
        for i in ids.tolist():
            self.use(i, where)

    def either(self, what: Any, *choices: np.ndarray) -> np.ndarray:
        """Keys of which it is not known which of several they are."""
        found = np.empty(choices[0].shape, int)
        for at in np.ndindex(found.shape):
            options = tuple(dict.fromkeys(int(c[at]) for c in choices))
            found[at] = options[0] if len(options) == 1 else self.number(("one of", what), *options)
            if len(options) > 1:
                self.parts[int(found[at])] = options
        return found

    # Programs --------------------------------------------------------------------------------------------------------

    def run(self, closed: Any, inputs: list) -> list:
        """The values that a program returns; what it uses is noted."""
        jaxpr = closed.jaxpr
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, map(self.constant, closed.consts), strict=True))
        env.update(zip(jaxpr.invars, inputs, strict=True))

        def read(x: Any) -> Any:
            return np.asarray(x.val) if hasattr(x, "val") else env[x]

        for eqn in jaxpr.eqns:
            self.places.append(where_is(eqn) or self.places[-1])  # jax's own functions have no place
            results = self.equation(eqn, [read(x) for x in eqn.invars])
            self.places.pop()
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def equation(self, eqn: Any, values: list) -> list:
        name, keys = eqn.primitive.name, [x for x in values if isinstance(x, Keys)]
        if (rule := getattr(self, f"on_{name}", None)) is not None:
            return rule(eqn, values)
        if (inner := called(eqn)) is not None:
            if eqn.params.get("differentiated"):  # `checkpoint` draws the same again, on purpose
                return self.unknown(eqn, values)
            return self.run(inner, values)
        if name in DRAWS:
            self.use_all(keys[0], self.places[-1])
        elif keys and (found := moved(eqn, [x.ids if isinstance(x, Keys) else x for x in values])) is not None:
            return [Keys(x) for x in found]
        elif not keys and (value := known(eqn, values)) is not None:
            return [value]
        elif name in ("gather", "dynamic_slice"):
            return [self.pick(eqn, values)]
        elif name not in NOT_A_USE:
            for x in keys:
                self.use_all(x, self.places[-1])
        return self.unknown(eqn, values)

    def unknown(self, eqn: Any, values: list) -> list:
        """New keys; numbers that are equal where the same operation had the same operands."""
        of = [self.as_number(x) for x in values]
        loops = frozenset().union(*(self.loops[i] for i in of))
        try:
            what = (eqn.primitive.name, hash(tuple(sorted(eqn.params.items()))))
        except TypeError:  # a parameter that cannot be compared
            what = ("fresh", len(self.loops))
        return [
            self.fresh(var.aval.shape, loops) if is_key(var.aval) else self.number((what, n), *of)
            for n, var in enumerate(eqn.outvars)
        ]

    def pick(self, eqn: Any, values: list) -> Any:
        """Keys of an array at places that are not known."""
        if not isinstance(values[0], Keys):
            return self.unknown(eqn, values)[0]
        of, shape = tuple(values[0].ids.ravel().tolist()), eqn.outvars[0].aval.shape
        where = self.number(repr(eqn.params), *(self.as_number(x) for x in values[1:]))
        made = [self.number(("pick", n), where, *of) for n in range(int(np.prod(shape)))]
        self.picks.update(dict.fromkeys(made, of))
        return Keys(np.array(made, int).reshape(shape))

    def on_random_split(self, eqn: Any, values: list) -> list:
        self.use_all(values[0], self.places[-1])
        ids, shape = values[0].ids, eqn.params["shape"]
        size = int(np.prod(shape))
        # With partitionable threefry, split(k, n)[i] is fold_in(k, i).
        tag = "fold" if jax.config.jax_threefry_partitionable else ("split", size)
        made = [self.number(tag, i, self.number(("int", n))) for i in ids.ravel().tolist() for n in range(size)]
        return [Keys(np.array(made, int).reshape(*ids.shape, *shape))]

    def on_random_fold_in(self, eqn: Any, values: list) -> list:
        data = self.elements(values[1], eqn.outvars[0].aval.shape)
        ids = np.broadcast_to(values[0].ids, data.shape)
        made = [self.number("fold", int(i), int(d)) for i, d in zip(ids.ravel(), data.ravel(), strict=True)]
        return [Keys(np.array(made, int).reshape(data.shape))]

    def on_random_seed(self, eqn: Any, values: list) -> list:
        seeds = self.elements(values[0], eqn.outvars[0].aval.shape)
        made = [self.number("seed", int(i)) for i in seeds.ravel()]
        return [Keys(np.array(made, int).reshape(seeds.shape))]

    def on_random_wrap(self, eqn: Any, values: list) -> list:
        self.report(f"a legacy key (an array of uint32) at {self.places[-1]}: make keys with jax.random.key")
        return [Keys(self.elements(self.as_number(values[0]), eqn.outvars[0].aval.shape))]

    def on_random_clone(self, eqn: Any, values: list) -> list:
        return [self.fresh(values[0].ids.shape, self.under_way)]

    def on_select_n(self, eqn: Any, values: list) -> list:
        which, *choices = values
        if not isinstance(choices[0], Keys):
            value = known(eqn, values)
            return self.unknown(eqn, values) if value is None else [value]
        return [Keys(self.either(self.as_number(which), *(x.ids for x in choices)))]

    def on_cond(self, eqn: Any, values: list) -> list:
        before, after, outputs = self.uses, {}, []
        for branch in eqn.params["branches"]:
            self.uses = dict(before)
            outputs.append(self.run(branch, values[1:]))
            after |= self.uses
        self.uses, which = after, self.as_number(values[0])
        return [
            Keys(self.either(which, *(x.ids for x in several)))
            if isinstance(several[0], Keys)
            else self.opaque(self.under_way)
            for several in zip(*outputs, strict=True)
        ]

    # Loops -----------------------------------------------------------------------------------------------------------

    def on_scan(self, eqn: Any, values: list) -> list:
        p = eqn.params
        consts, rest = values[: p["num_consts"]], values[p["num_consts"] :]
        carry, xs = rest[: p["num_carry"]], rest[p["num_carry"] :]
        shapes = [v.aval.shape[1:] for v in eqn.invars[len(values) - len(xs) :]]
        return self.loop([(p["jaxpr"], consts)], carry, xs, shapes, p["length"])

    def on_while(self, eqn: Any, values: list) -> list:
        p = eqn.params
        n, m = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
        return self.loop([(p["cond_jaxpr"], values[:n]), (p["body_jaxpr"], values[n:m])], values[m:], [], [], None)

    def loop(self, programs: list, carry: list, xs: list, shapes: list, length: int | None) -> list:
        """Runs a body once for all iterations: what is used there must differ from one to the next."""
        tag, outside, before = frozenset([len(self.loops)]), self.under_way, set(self.uses)
        self.opaque()
        self.under_way = varies = outside | tag
        body, consts = programs[-1]
        passed = [a is b for a, b in zip(body.jaxpr.invars[len(consts) :], body.jaxpr.outvars)]
        now = [x if same else self.like(x, np.shape(ids_of(x)), varies) for x, same in zip(carry, passed)]
        rows = [self.like(x, shape, varies) for x, shape in zip(xs, shapes, strict=True)]
        for program, own in programs:
            outputs = self.run(program, [*own, *now, *rows])
        self.under_way, after = outside, outputs[: len(carry)]
        repeated = length is None or length > 1
        for i in self.uses.keys() - before:
            if repeated and not self.loops[i] & tag:
                self.report(f"the same key is used in every iteration of a loop, at {self.uses[i]}")
        used = set()  # what the next iteration uses
        for first, here, then, same in zip(carry, now, after, passed):
            if isinstance(first, Keys) and not same:
                for i, j, k in zip(first.ids.ravel().tolist(), here.ids.ravel().tolist(), then.ids.ravel().tolist()):
                    if (where := self.uses.get(j)) is None:
                        continue
                    self.use(i, where)
                    used.add(k)
                    kept = j if length is None else None  # a `while` under vmap keeps the carry where it has ended
                    if repeated and (again := self.used_at(k, but=kept)) is not None:
                        self.report(f"a key that was used at {again} is carried to the next iteration")
                    elif repeated and not self.loops[k] & tag:
                        self.report(f"the same key is used in every iteration of a loop, at {where}")
        for outer, row in zip(xs, rows, strict=True):
            if isinstance(outer, Keys):
                for at in np.ndindex(row.ids.shape):
                    if (where := self.uses.get(int(row.ids[at]))) is not None:
                        self.use_all(Keys(outer.ids[(slice(None), *at)]), where)
        carried = [x if same else self.after(y, np.shape(ids_of(y)), set()) for x, y, same in zip(carry, after, passed)]
        stacked = [self.after(y, (length or 0, *np.shape(ids_of(y))), used) for y in outputs[len(carry) :]]
        return carried + stacked

    def like(self, value: Any, shape: tuple, loops: frozenset) -> Any:
        return self.fresh(shape, loops) if isinstance(value, Keys) else self.opaque(loops)

    def after(self, value: Any, shape: tuple, used: set) -> Any:
        """What a loop leaves of a value of its last iteration, or of all of them."""
        if not isinstance(value, Keys):
            return self.opaque(self.under_way)
        left = self.fresh(shape, self.under_way)
        for i, made in zip(np.broadcast_to(value.ids, shape).ravel().tolist(), left.ids.ravel().tolist()):
            where = self.used_at(i) or ("the next iteration" if i in used else None)
            if where is not None:
                self.uses[made] = where
        return left


def ids_of(value: Any) -> Any:
    return value.ids if isinstance(value, Keys) else ()
