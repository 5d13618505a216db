"""Functions of a key: `BAD` ones use a key twice, `GOOD` ones do not. `keys.py` shows them to the checkers."""

import jax
import jax.numpy as jnp
from jax import lax, random

X = jnp.arange(3.0)


def draw(key, shape=()):
    return random.normal(key, shape)


def split_state(state, _=None):
    key, sub = random.split(state)
    return key, draw(sub)


def first_of(pair):
    return pair[0]


# RELIABILITY's eleven: jax finds the first eight of them --------------------------------------------------------------


def direct(key):
    return draw(key) + random.uniform(key)


def scan_closure(key):
    return lax.scan(lambda c, x: (c + draw(key), None), 0.0, X)[0]


def while_closure(key):
    return lax.while_loop(lambda c: c < 3, lambda c: c + jnp.abs(draw(key)), 0.0)


def fori_closure(key):
    return lax.fori_loop(0, 3, lambda i, c: c + draw(key), 0.0)


def after_cond(key):
    return lax.cond(X[0] > 0, draw, lambda k: 0.0, key) + draw(key)


def split_then_use(key):
    return draw(random.split(key)[0]) + draw(key)


def batched_twice(key):
    keys = random.split(key, 3)
    return jax.vmap(draw)(keys) + jax.vmap(random.uniform)(keys)


def index_twice(key):
    keys = random.split(key, 3)
    return draw(keys[1]) + random.uniform(keys[1])


def fold_in_twice(key):
    return draw(random.fold_in(key, 1)) + draw(random.fold_in(key, 1))


def vmap_closure(key):
    return jax.vmap(lambda x: x + draw(key))(X)


def returned(key):
    return key, draw(key)


# More of the kinds that jax does not see ------------------------------------------------------------------------------


def fold_in_beside_split(key):
    return draw(random.split(key, 2)[1]) + draw(random.fold_in(key, 1))


def fold_in_constant_in_scan(key):
    return lax.scan(lambda c, x: (c + draw(random.fold_in(key, 7)), None), 0.0, X)[0]


def fold_in_arange_beside_split(key):
    folded = jax.vmap(random.fold_in, (None, 0))(key, jnp.arange(3))
    return jax.vmap(draw)(folded) + jax.vmap(draw)(random.split(key, 3))


def same_seed_twice(key):
    return draw(random.key(0)) + draw(random.key(0))


def seed_in_a_loop(key):
    return lax.scan(lambda c, x: (c + draw(random.key(3)), None), 0.0, X)[0]


def kept_in_a_carry(key):
    def step(state, _):
        new, sub = random.split(state)
        return random.fold_in(key, 5), draw(sub) + draw(new)

    return lax.scan(step, key, X)[1]


def kept_where_done(key):
    def step(state, x):
        new, sub = random.split(state)
        return lax.select(x > 1, new, state), draw(sub)

    return lax.scan(step, key, X)[1]


def vmap_of_split(key):
    return jax.vmap(lambda x: x + draw(random.split(key)[1]))(X)


def vmap_of_constant_fold(key):
    return jax.vmap(lambda x: x + draw(random.fold_in(key, 2)))(X)


def broadcast_keys(key):
    return jax.vmap(draw)(jnp.broadcast_to(key, (3,)))


def kept_in_a_state(key):
    first, second = random.split(key)
    return {"observation": draw(first), "key": {"next": first, "other": second}}


def returned_twice(key):
    return random.split(key, 2)[jnp.array([0, 0])]


def stacked_and_carried(key):
    def step(state, _):
        new, sub = random.split(state)
        return new, (new, draw(sub))

    _, (keys, _) = lax.scan(step, key, X)
    return jax.vmap(draw)(keys)


def scanned_twice(key):
    keys = random.split(key, 3)
    body = lambda c, k: (c + draw(k), None)  # noqa: E731
    return lax.scan(body, 0.0, keys)[0] + lax.scan(body, 0.0, keys)[0]


def select_then_part(key):
    first, second = random.split(key)
    return draw(lax.select(X[0] > 0, first, second)) + draw(first)


def picked_and_all(key):
    keys = random.split(key, 3)
    return draw(keys[X[1].astype(int)]) + jax.vmap(draw)(keys)


def legacy(key):
    old = random.PRNGKey(0)
    return random.normal(old) + random.normal(old)


def legacy_carried(key):
    def step(state, _):
        _, sub = random.split(state)
        return state, random.normal(sub)

    return lax.scan(step, random.PRNGKey(1), X)[1]


ELEVEN = [
    direct, scan_closure, while_closure, fori_closure, after_cond, split_then_use, batched_twice, index_twice,
    fold_in_twice, vmap_closure, returned,
]  # fmt: skip
MORE = [
    fold_in_beside_split, fold_in_constant_in_scan, fold_in_arange_beside_split, same_seed_twice, seed_in_a_loop,
    kept_in_a_carry, kept_where_done, vmap_of_split, vmap_of_constant_fold, broadcast_keys, kept_in_a_state,
    returned_twice, stacked_and_carried, scanned_twice, select_then_part, picked_and_all, legacy, legacy_carried,
]  # fmt: skip
BAD = {f.__name__: f for f in (*ELEVEN, *MORE)}


# Good -----------------------------------------------------------------------------------------------------------------


def scan_split(key):
    return lax.scan(split_state, key, None, 4)


def scan_keys(key):
    return lax.scan(lambda c, k: (c + draw(k), draw(random.fold_in(k, 1))), 0.0, random.split(key, 4))


def scan_fold_in_counter(key):
    return lax.scan(lambda c, i: (c + draw(random.fold_in(key, i)), None), 0.0, jnp.arange(4))


def fori_fold_in(key):
    return lax.fori_loop(0, 4, lambda i, c: c + draw(random.fold_in(key, i)), 0.0)


def while_split(key):
    return lax.while_loop(lambda s: s[1] < 3, lambda s: split_state(s[0]), (key, jnp.float32(0)))


def while_split_under_vmap(key):
    return jax.vmap(while_split)(random.split(key, 3))


def cond_either(key):
    return lax.cond(X[0] > 0, draw, random.uniform, key)


def cond_then_other(key):
    first, second = random.split(key)
    return lax.cond(X[0] > 0, draw, lambda k: 0.0, first) + draw(second)


def switch_of_three(key):
    return lax.switch(X[1].astype(int), [draw, random.uniform, lambda k: random.gamma(k, 2.0)], key)


def cond_under_vmap(key):
    return jax.vmap(lambda k: lax.cond(X[0] > 1, draw, random.uniform, k))(random.split(key, 3))


def vmap_keys(key):
    return jax.vmap(lambda k, x: x + draw(k))(random.split(key, 3), X)


def vmap_fold_in_index(key):
    return jax.vmap(lambda i: draw(random.fold_in(key, i)))(jnp.arange(3))


def vmap_of_one(key):
    return jax.vmap(lambda x: x + draw(key))(X[:1])


def nested_vmap(key):
    return jax.vmap(jax.vmap(draw))(random.split(key, (2, 3)))


def rows_of_keys(key):
    keys = random.split(key, (4, 2))
    return jax.vmap(draw)(keys[0]) + jax.vmap(draw)(keys[1]), lax.scan(lambda c, k: (c, draw(k[0])), 0, keys[2:])


def index_each(key):
    keys = random.split(key, 3)
    return draw(keys[0]) + draw(keys[1]) + random.uniform(keys[2])


def unpack(key):
    a, *rest = random.split(key, 4)
    return draw(a), [draw(k) for k in rest]


def pick_one(key):
    return draw(random.split(key, 4)[X[1].astype(int)])


def salted_and_passed_on(key):
    return draw(random.fold_in(key, 0x5EED0000)) + draw(key) + draw(random.fold_in(key, 0x5EED0001))


def salted_beside_split(key):
    return draw(random.fold_in(key, 2)) + draw(random.split(key, 2)[1])


def next_key_returned(key):
    new, sub = random.split(key)
    return {"key": new, "value": draw(sub)}


def select_between(key):
    def step(state, x):
        new, other, sub = random.split(state, 3)
        return lax.select(x > 1, new, other), draw(sub)

    return lax.scan(step, key, X)


def permuted(key):
    first, second = random.split(key)
    return random.permutation(first, 5), random.choice(second, 5, (3,), replace=False)


def through_jit(key):
    first, second = random.split(key)
    return jax.jit(draw)(first) + jax.jit(draw)(second)


def gradient_of_draw(key):
    return jax.grad(lambda x: jnp.sum(draw(key, (3,)) * x**2))(2.0)


def checkpointed(key):
    return jax.grad(lambda x: jnp.sum(jnp.sin(jax.checkpoint(lambda x: draw(key, (3,)) * x)(x))))(2.0)


def cloned(key):
    return draw(key) + draw(random.clone(key))


def unused_and_returned(key):
    return key, X


GOOD = {
    f.__name__: f
    for f in [
        scan_split, scan_keys, scan_fold_in_counter, fori_fold_in, while_split, while_split_under_vmap, cond_either,
        cond_then_other, switch_of_three, cond_under_vmap, vmap_keys, vmap_fold_in_index, vmap_of_one, nested_vmap,
        rows_of_keys, index_each, unpack, pick_one, salted_and_passed_on, salted_beside_split, next_key_returned,
        select_between, permuted, through_jit, gradient_of_draw, checkpointed, cloned, unused_and_returned,
    ]
}  # fmt: skip
