"""Networks of other libraries as `Network`s; flax is imported when one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxrl.networks.core import default_unroll, feed_forward
from jaxrl.types import Network, PyTree


def from_linen(module: Any, *, initialize_carry: Callable[[PyTree], PyTree] | None = None) -> Network:
    """A `flax.linen` module.

    Args:
      module: called as `module(observation) -> outputs`, elementwise over leading axes; with `initialize_carry`, as
        `module(carry, observation) -> carry, outputs`, like linen's own cells.
      initialize_carry: observation [..., obs] -> carry [..., m]: makes the network recurrent.

    The params are the collection "params". Its initialisers are the module's own; flax's orthogonal one may hang under
    `vmap` on CPU, `jaxrl.networks.orthogonal()` has the same signature and does not.

    Raises:
      ValueError: from `init`, if the module has other collections (such as batch statistics).
    """

    def init(key, *inputs):
        variables = dict(module.init(key, *inputs))
        params = variables.pop("params", {})
        if variables:
            raise ValueError(
                f"from_linen: {type(module).__name__} has collections {sorted(variables)}, needs params only"
            )
        return params

    return _adapt(init, lambda params, *inputs: module.apply({"params": params}, *inputs), initialize_carry)


def from_nnx(make: Callable, *, initialize_carry: Callable[[PyTree], PyTree] | None = None) -> Network:
    """A `flax.nnx` module.

    Args:
      make: `make(rngs) -> module`, where rngs is a `flax.nnx.Rngs`; the module is called as in `from_linen`.
      initialize_carry: as in `from_linen`.

    The params are the module's `nnx.Param`s as a nested dict.

    Raises:
      ValueError: if the module has other state (such as batch statistics, or the generator of a dropout).
    """
    from flax import nnx

    def split(module):
        graph, params, rest = nnx.split(module, nnx.Param, ...)
        return graph, params, rest

    graph, abstract, rest = split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    if jax.tree.leaves(rest):
        raise ValueError(f"from_nnx: the module has state besides nnx.Param ({rest}), needs params only")

    def init(key, *inputs):
        del inputs
        return nnx.to_pure_dict(split(make(nnx.Rngs(key)))[1])

    def apply(params, *inputs):
        state = jax.tree.map(lambda x: x, abstract)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state, rest)(*inputs)

    return _adapt(init, apply, initialize_carry)


def _adapt(init, apply, initialize_carry):
    if initialize_carry is None:
        return feed_forward(init, apply)

    def init_memory(params, observation):
        del params
        return initialize_carry(observation)

    def init_recurrent(key, observation):
        return init(key, initialize_carry(observation), observation)

    return Network(init_recurrent, apply, init_memory, default_unroll(apply, init_memory))
