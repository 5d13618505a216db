"""Several networks of one kind, side by side."""

from __future__ import annotations

import jax

from jaxrl.types import Array, Network, PyTree


def ensemble(network: Network, size: int) -> Network:
    """`size` copies of `network` with independent initial weights, all applied to the same observation.

    Params have a leading axis [size], outputs are [size, ...]; memory has its members along the last axis.

    On a CPU one batched product is as fast as a loop over 2 to 10 members of 64 to 256 units, and compiles at once.

    Raises:
      ValueError: if size < 1.
    """
    if size < 1:
        raise ValueError(f"ensemble: size is {size}, must be >= 1")

    def init(key, observation):
        return jax.vmap(network.init, (0, None))(jax.random.split(key, size), observation)

    # The members of a memory come last, so that the axes of the observation keep their places.
    return Network(
        init,
        jax.vmap(network.apply, (0, -1, None), (-1, 0)),
        jax.vmap(network.init_memory, (0, None), -1),
        jax.vmap(network.unroll, (0, -1, None, None), 0),
    )


def subset(key: Array, params: PyTree, size: int) -> PyTree:
    """The weights of `size` different members of an ensemble, each set equally likely, in random order.

    Args:
      params: leaves [E, ...], E >= size.
    """
    num_members = jax.tree.leaves(params)[0].shape[0]
    chosen = jax.lax.top_k(jax.random.uniform(key, (num_members,)), size)[1]
    return jax.tree.map(lambda x: x[chosen], params)
