"""Recurrent cores."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.networks.core import reset
from jaxrl.networks.feedforward import array, as_float, linear
from jaxrl.networks.initializers import orthogonals
from jaxrl.types import Network


def gru(size: int) -> Network:
    """A gated recurrent unit in the variant that resets after the product, as cuDNN and flax have it.

        r = sigmoid(x W_r + b_r + h U_r)
        z = sigmoid(x W_z + b_z + h U_z)
        n = tanh(x W_n + b_n + r * (h U_n + c))
        h' = (1 - z) * n + z * h

    (Cho et al. 2014, https://arxiv.org/abs/1406.1078, in its version 1: one product with [U_r, U_z, U_n] a step.)
    Inputs [..., in], memory h [..., size] float32, zeros by `init_memory`; outputs h'. Every W and U is orthogonal, b
    and c are zeros. `unroll` computes x W + b for all of [T, N] at once, so that the scan holds but the product with U.

    Raises:
      ValueError: if size < 1.
    """
    if size < 1:
        raise ValueError(f"gru: size is {size}, must be >= 1")

    def init(key, observation):
        shapes = [(array(observation, "gru").shape[-1], size)] * 3 + [(size, size)] * 3
        kernels = orthogonals(key, shapes)
        return {
            "input": {"kernel": jnp.concatenate(kernels[:3], -1), "bias": jnp.zeros(3 * size)},
            "recurrent": {"kernel": jnp.concatenate(kernels[3:], -1), "bias": jnp.zeros(size)},
        }

    def cell(params, memory, projected):
        gates, candidate = jnp.split(projected, [2 * size], -1)
        recurrent_gates, recurrent_candidate = jnp.split(memory @ params["kernel"], [2 * size], -1)
        r, z = jnp.split(jax.nn.sigmoid(gates + recurrent_gates), 2, -1)
        n = jnp.tanh(candidate + r * (recurrent_candidate + params["bias"]))
        return n + z * (memory - n)

    def apply(params, memory, observation):
        memory = cell(params["recurrent"], memory, linear(params["input"], as_float(observation, "gru")))
        return memory, memory

    def init_memory(params, observation):
        del params
        return jnp.zeros((*observation.shape[:-1], size))

    def unroll(params, memory, observation, is_first):
        def step(memory, inputs):
            projected, is_first = inputs
            memory = cell(params["recurrent"], reset(is_first, jnp.zeros_like(memory), memory), projected)
            return memory, memory

        projected = linear(params["input"], as_float(observation, "gru"))
        return jax.lax.scan(step, memory, (projected, is_first))[1]

    return Network(init, apply, init_memory, unroll)
