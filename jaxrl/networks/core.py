"""What makes a `Network` out of functions, and networks out of networks."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrl.types import Network, PyTree


def feed_forward(init: Callable, apply: Callable) -> Network:
    """A network without memory, from `init(key, observation) -> params` and `apply(params, observation) -> outputs`.

    `apply` must be elementwise over any leading axes; `unroll` is then one application over [T, N].
    """

    def unroll(params, memory, observation, is_first):
        del memory, is_first
        return apply(params, observation)

    return Network(init, lambda params, memory, observation: (memory, apply(params, observation)), _no_memory, unroll)


def default_unroll(apply: Callable, init_memory: Callable) -> Callable:
    """`Network.unroll` as a scan of `apply`, with the memory replaced by `init_memory` where `is_first`.

    Args:
      apply: (params, memory, observation) -> memory, outputs.
      init_memory: (params, observation) -> memory.
    """

    def unroll(params, memory, observation, is_first):
        def step(memory, inputs):
            observation, is_first = inputs
            memory = reset(is_first, init_memory(params, observation), memory)
            return apply(params, memory, observation)

        if not jax.tree.leaves(memory):
            return apply(params, memory, observation)[1]
        return jax.lax.scan(step, memory, (observation, is_first))[1]

    return unroll


def reset(is_first: jax.Array, initial: PyTree, memory: PyTree) -> PyTree:
    """`initial` where `is_first` [N], else `memory` (leaves [N, ...])."""

    def choose(initial, memory):
        mask = is_first.reshape(is_first.shape + (1,) * (memory.ndim - is_first.ndim))
        return jnp.where(mask, initial, memory)

    return jax.tree.map(choose, initial, memory)


def sequential(*networks: Network) -> Network:
    """The outputs of each network are the observation of the next one.

    The memory is the tuple of the members' memories, or () if none of them has any.

    Raises:
      ValueError: without networks.
    """
    if not networks:
        raise ValueError("sequential: needs at least one network")
    names = [f"layer_{i}" for i in range(len(networks))]

    def init(key, observation):
        params, keys = {}, jax.random.split(key, len(networks))
        for name, network, layer_key in zip(names, networks, keys):
            params[name] = network.init(layer_key, observation)
            observation = example_outputs(network, params[name], observation)
        return params

    def apply(params, memory, observation):
        new_memory = []
        for name, network, inner in zip(names, networks, memory or [()] * len(networks)):
            inner, observation = network.apply(params[name], inner, observation)
            new_memory.append(inner)
        return tuple(new_memory) if memory else (), observation

    def init_memory(params, observation):
        memory = []
        for name, network in zip(names, networks):
            memory.append(network.init_memory(params[name], observation))
            # Most memories depend on the shape of the observation only; then XLA removes what computes its value.
            _, observation = network.apply(params[name], memory[-1], observation)
        return tuple(memory) if jax.tree.leaves(memory) else ()

    def unroll(params, memory, observation, is_first):
        for name, network, inner in zip(names, networks, memory or [()] * len(networks)):
            observation = network.unroll(params[name], inner, observation, is_first)
        return observation

    if all(network.init_memory is _no_memory for network in networks):
        return Network(init, apply, _no_memory, unroll)
    return Network(init, apply, init_memory, unroll)


def view(network: Network, get: Callable[[PyTree], PyTree]) -> Network:
    """`network` applied to `get(observation)`: a critic on another view of a dict, a mask left aside."""
    return Network(
        lambda key, observation: network.init(key, get(observation)),
        lambda params, memory, observation: network.apply(params, memory, get(observation)),
        lambda params, observation: network.init_memory(params, get(observation)),
        lambda params, memory, observation, is_first: network.unroll(params, memory, get(observation), is_first),
    )


def map_outputs(network: Network, fn: Callable[[PyTree, PyTree], PyTree]) -> Network:
    """`network` with outputs `fn(outputs, observation)`; fn is elementwise over leading axes."""

    def apply(params, memory, observation):
        memory, outputs = network.apply(params, memory, observation)
        return memory, fn(outputs, observation)

    def unroll(params, memory, observation, is_first):
        return fn(network.unroll(params, memory, observation, is_first), observation)

    return network._replace(apply=apply, unroll=unroll)


def pretrained(network: Network, params: PyTree) -> Network:
    """`network` that starts from given weights: `init` returns a copy of `params`, so that donating it is harmless.

    Raises:
      ValueError: from `init`, if structure or shapes are not those that `network.init` would make.
    """

    def init(key, observation):
        expected = jax.eval_shape(network.init, key, observation)
        if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, expected):
            shapes = [jax.tree.map(jnp.shape, p) for p in (params, expected)]
            raise ValueError(f"pretrained: params have shapes {shapes[0]}, the network needs {shapes[1]}")
        return jax.tree.map(lambda x: jnp.array(x, copy=True), params)

    return network._replace(init=init)


def example_outputs(network: Network, params: PyTree, observation: PyTree) -> PyTree:
    """Zeros of the shapes and dtypes of the outputs: an observation for the `init` of a next network."""

    def outputs(params, observation):
        return network.apply(params, network.init_memory(params, observation), observation)[1]

    shapes = jax.eval_shape(outputs, params, observation)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _no_memory(params, observation):
    del params, observation
    return ()
