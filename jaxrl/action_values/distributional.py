"""Action values that are distributions of returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import losses
from jaxrl.action_values.core import ActionValues, Head, bundle, check, linear_head, masked, scaling, take
from jaxrl.networks.feedforward import linear
from jaxrl.networks.initializers import orthogonals
from jaxrl.types import Network


def categorical(
    torso: Network,
    num_actions: int,
    *,
    num_atoms: int = 51,
    low: float = -10.0,
    high: float = 10.0,
    dueling: bool = False,
    scale: float = 1.0,
    dtype: Any = jnp.int32,
) -> ActionValues:
    """C51: probabilities of `num_atoms` returns from `low` to `high` (Bellemare et al. 2017,
    https://arxiv.org/abs/1707.06887).

    The loss is the cross-entropy to the projected target; `error` is its excess over the least possible, the KL
    divergence, as Rainbow has it (Hessel et al. 2018, https://arxiv.org/abs/1710.02298). Other arguments as
    in `scalar`.

    Raises:
      ValueError: if num_actions < 1, num_atoms < 2 or low >= high; from `init`, if dueling and D is odd.
    """
    if num_atoms < 2 or not low < high:
        raise ValueError(f"categorical: num_atoms is {num_atoms}, low {low}, high {high}; needs >= 2 and low < high")
    head = linear_head("categorical", num_actions, num_atoms, dueling, scale)
    atoms = np.linspace(low, high, num_atoms).astype(np.float32)

    def mean(outputs):
        return masked(jnp.sum(jax.nn.softmax(outputs.values, -1) * atoms, -1), outputs)

    def target(selected, reward, bootstrap):
        value = reward[..., None] + bootstrap[..., None] * atoms
        return losses.categorical_projection(jax.nn.softmax(selected, -1), value, atoms)

    def loss(selected, target):
        return -jnp.sum(target * jax.nn.log_softmax(selected, -1), -1)

    def error(selected, target):
        least = jnp.sum(jax.scipy.special.entr(target), -1)
        return jnp.maximum(loss(selected, target) - least, 0.0)

    select = lambda outputs, action: take(outputs.values, action)  # noqa: E731
    return bundle(torso, head, num_actions, dtype, mean, select, target, loss, error)


def quantile(
    torso: Network,
    num_actions: int,
    *,
    num_quantiles: int = 51,
    kappa: float = 1.0,
    dueling: bool = False,
    rescale: bool = False,
    scale: float = 1.0,
    dtype: Any = jnp.int32,
) -> ActionValues:
    """QR-DQN: quantiles at levels (i + 1/2) / N (Dabney et al. 2018, https://arxiv.org/abs/1710.10044).

    Args:
      kappa: >= 0, of `losses.quantile_huber`. Others as in `scalar`.

    Raises:
      ValueError: if num_actions or num_quantiles < 1, or kappa < 0; from `init`, if dueling and D is odd.
    """
    check("quantile", num_quantiles=num_quantiles)
    head = linear_head("quantile", num_actions, num_quantiles, dueling, scale)
    return _of_quantiles(torso, head, num_actions, dtype, kappa, rescale, _middles(num_quantiles))


def implicit_quantile(
    torso: Network,
    num_actions: int,
    *,
    num_samples: int = 8,
    num_greedy: int = 32,
    num_cosines: int = 64,
    widths: Sequence[int] = (64,),
    kappa: float = 1.0,
    dueling: bool = False,
    rescale: bool = False,
    scale: float = 1.0,
    dtype: Any = jnp.int32,
) -> ActionValues:
    """IQN: Z_tau(s, .) = f(psi(s) * phi(tau)) (Dabney et al. 2018, https://arxiv.org/abs/1806.06923, equation 4).

        phi(tau) = relu(sum_{i < n} cos(pi i tau) w_i + b),  psi the torso, f a ReLU network and a linear head

    Args:
      num_samples: N = N', random levels of predictions and, drawn apart, of targets.
      num_greedy: K, levels for choosing actions: the middles of K equal parts of [0, 1], where the paper draws them.
      num_cosines: n.
      widths: of the hidden layers of f; () is a linear f.
      kappa: >= 0, of `losses.quantile_huber`. Others as in `scalar`.

    Raises:
      ValueError: if a count < 1 or kappa < 0; from `init`, if dueling and the head's input is odd.
    """
    check("implicit_quantile", num_samples=num_samples, num_greedy=num_greedy, num_cosines=num_cosines)
    last = linear_head("implicit_quantile", num_actions, 0, dueling, scale)

    def init(key, size):
        body_key, head_key = jax.random.split(key)
        sizes = (size, *widths)
        shapes = [(num_cosines, size), *zip(sizes[:-1], sizes[1:])]
        kernels = orthogonals(body_key, shapes, math.sqrt(2))
        names = ["embedding", *(f"dense_{i}" for i in range(len(widths)))]
        layers = {name: {"kernel": k, "bias": jnp.zeros(k.shape[-1])} for name, k in zip(names, kernels)}
        return layers | {"head": last.init(head_key, sizes[-1])}

    def apply(key, params, features):
        batch = features.shape[:-1]
        if key is None:  # the same levels in all rows, embedded once
            levels = _middles(num_greedy)
        else:  # a flat draw compiles faster
            levels = jax.random.uniform(key, (math.prod(batch) * num_samples,)).reshape(*batch, num_samples)
        cosines = jnp.cos(jnp.pi * np.arange(num_cosines, dtype=np.float32) * levels[..., None])
        x = features[..., None, :] * jax.nn.relu(linear(params["embedding"], cosines))
        for i in range(len(widths)):
            x = jax.nn.relu(linear(params[f"dense_{i}"], x))
        values = jnp.swapaxes(last.apply(None, params["head"], x)[0], -1, -2)
        return values, jnp.broadcast_to(levels, (*batch, levels.shape[-1]))

    def keys(key):
        return (*jax.random.split(key), None)

    values = _of_quantiles(torso, Head(init, apply), num_actions, dtype, kappa, rescale)
    return values._replace(keys=keys)


def _of_quantiles(torso, head, num_actions, dtype, kappa, rescale, levels=None):
    """Values that are quantiles [..., A, M], at `levels` or at those of the outputs; selected: (values, levels)."""
    if kappa < 0:
        raise ValueError(f"quantile: kappa is {kappa}, must be >= 0")
    squeeze, expand = scaling(rescale)

    def target(selected, reward, bootstrap):
        return squeeze(reward[..., None] + bootstrap[..., None] * expand(selected[0]))

    def loss(selected, target):
        return losses.quantile_huber(selected[0], selected[1] if levels is None else levels, target, kappa)

    return bundle(
        torso,
        head,
        num_actions,
        dtype,
        mean=lambda outputs: masked(jnp.mean(expand(outputs.values), -1), outputs),
        select=lambda outputs, action: (take(outputs.values, action), outputs.levels),
        target=target,
        loss=loss,
        error=lambda selected, target: jnp.abs(jnp.mean(selected[0], -1) - jnp.mean(target, -1)),
    )


def _middles(n: int) -> np.ndarray:
    return (np.arange(n, dtype=np.float32) + 0.5) / n
