"""Multi-layer perceptrons and convolutional networks, over any leading axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxrl.networks.core import feed_forward
from jaxrl.networks.initializers import orthogonals
from jaxrl.networks.matmul import matmul, spread
from jaxrl.types import Network

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def dense(size: int, *, scale: float = 1.0) -> Network:
    """x W + b on the last axis: [..., in] -> [..., size]; W orthogonal of gain `scale`, b = 0.

    Raises:
      ValueError: if size < 1.
    """
    _check_sizes("dense", size=(size,))

    def init(key, observation):
        return linear_init(key, array(observation, "dense").shape[-1], size, scale)

    def apply(params, observation):
        return linear(params, as_float(observation, "dense"))

    return feed_forward(init, apply)


def mlp(
    widths: Sequence[int] = (64, 64),
    *,
    activation: str | Callable = "tanh",
    layer_norm: bool = False,
    scale: float = math.sqrt(2),
) -> Network:
    """x <- activation(norm(x W_i + b_i)) for every width: [..., in] -> [..., widths[-1]].

    Args:
      widths: sizes of the layers; the last one is activated too.
      activation: "tanh", "relu", "elu", "swish", "gelu", "silu" or a function.
      layer_norm: normalise over the last axis before the activation (Ba et al. 2016, https://arxiv.org/abs/1607.06450).
      scale: gain of the orthogonal W_i; b_i = 0.

    Raises:
      ValueError: if there is no width, one is < 1, or the activation is unknown.
    """
    widths = tuple(widths)
    _check_sizes("mlp", widths=widths)
    activate = get_activation("mlp", activation)

    def init(key, observation):
        sizes = (array(observation, "mlp").shape[-1], *widths)
        params = {}
        for i, kernel in enumerate(orthogonals(key, list(zip(sizes[:-1], sizes[1:])), scale)):
            params[f"dense_{i}"] = {"kernel": kernel, "bias": jnp.zeros(widths[i])}
            if layer_norm:
                params[f"norm_{i}"] = {"scale": jnp.ones(widths[i]), "bias": jnp.zeros(widths[i])}
        return params

    def apply(params, observation):
        x = as_float(observation, "mlp")
        for i in range(len(widths)):
            x = linear(params[f"dense_{i}"], x)
            x = activate(normalize(params[f"norm_{i}"], x) if layer_norm else x)
        return x

    return feed_forward(init, apply)


def cnn(
    channels: Sequence[int] = (16,),
    kernel: int | Sequence[int] = 3,
    stride: int | Sequence[int] = 1,
    widths: Sequence[int] = (128,),
    activation: str | Callable = "relu",
    *,
    layer_norm: bool = False,
) -> Network:
    """Convolutions without padding, then an `mlp` on what is left: images [..., H, W, C] -> [..., widths[-1]].

    The defaults are those of MinAtar (Young and Tian 2019, https://arxiv.org/abs/1903.03176), images of [10, 10, C].

    Args:
      channels: output channels of each convolution.
      kernel, stride: of all convolutions, or one for each.
      widths: of the dense layers after the convolutions.
      activation: as in `mlp`.
      layer_norm: as in `mlp`; after a convolution over the channels of each pixel.

    Images of uint8 are divided by 255; other dtypes (bool, int32) only become float32.

    Raises:
      ValueError: if a size is < 1 or the lengths of kernel or stride differ from that of channels; from `init`, if an
        image is smaller than a kernel.
    """
    channels = tuple(channels)
    kernels, strides = ((x,) * len(channels) if isinstance(x, int) else tuple(x) for x in (kernel, stride))
    _check_sizes("cnn", channels=channels, kernel=kernels, stride=strides)
    if not len(channels) == len(kernels) == len(strides):
        raise ValueError(f"cnn: kernel {kernel} and stride {stride} need one entry for each of channels {channels}")
    activate = get_activation("cnn", activation)
    head = mlp(widths, activation=activation, layer_norm=layer_norm)

    def init(key, observation):
        if observation.ndim < 3:
            raise ValueError(f"cnn: the image has shape {observation.shape}, needs [..., H, W, C]")
        height, width, depth = observation.shape[-3:]
        shapes = []
        for size, channel, step in zip(kernels, channels, strides):
            if min(height, width) < size:
                raise ValueError(f"cnn: kernel {kernel} does not fit in what is left, {height} x {width}")
            shapes.append((size, size, depth, channel))
            height, width, depth = (height - size) // step + 1, (width - size) // step + 1, channel
        key_conv, key_mlp = jax.random.split(key)
        params = {
            f"conv_{i}": {"kernel": kernel, "bias": jnp.zeros(channels[i])}
            for i, kernel in enumerate(orthogonals(key_conv, shapes, math.sqrt(2)))
        }
        if layer_norm:
            params |= {f"norm_{i}": {"scale": jnp.ones(n), "bias": jnp.zeros(n)} for i, n in enumerate(channels)}
        return params | {"mlp": head.init(key_mlp, jnp.zeros(height * width * depth))}

    def apply(params, observation):
        x = as_float(observation, "cnn")
        for i, step in enumerate(strides):
            x = convolve(params[f"conv_{i}"], x, step)
            x = activate(normalize(params[f"norm_{i}"], x) if layer_norm else x)
        flat = x.reshape((*x.shape[:-3], math.prod(x.shape[-3:])))
        return head.apply(params["mlp"], (), flat)[1]

    return feed_forward(init, apply)


def linear_init(key, size_in, size_out, scale):
    """{"kernel": [size_in, size_out] orthogonal, "bias": [size_out] zeros}."""
    return {"kernel": orthogonals(key, [(size_in, size_out)], scale)[0], "bias": jnp.zeros(size_out)}


def linear(params, x):
    """x W + b."""
    y = matmul(x, params["kernel"])
    return y + spread(params["bias"], y.shape)


def normalize(params, x, eps=1e-6):
    """Layer normalisation over the last axis."""
    x = x - spread(jnp.mean(x, -1, keepdims=True), x.shape)
    factor = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps)
    return x * spread(factor, x.shape) * spread(params["scale"], x.shape) + spread(params["bias"], x.shape)


def convolve(params, x, stride):
    """A VALID convolution of [..., H, W, C] with kernel [k, k, C, out]."""
    kernel = params["kernel"]
    batch = x.reshape((-1, *x.shape[-3:]))
    # XLA's gradient of a convolution inside of a loop is far slower on a CPU than that of one product of patches.
    out = jax.lax.platform_dependent(batch, kernel, cpu=_patch_product(stride), default=_convolution(stride))
    return (out + params["bias"]).reshape((*x.shape[:-3], *out.shape[1:]))


def _convolution(stride):
    return lambda x, kernel: jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _patch_product(stride):
    """The same as a matrix product of all patches [..., k k C] with the kernel."""

    def product(x, kernel):
        size = kernel.shape[0]
        height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
        rows, columns = stride * (height - 1) + 1, stride * (width - 1) + 1
        corners = [(i, j) for i in range(size) for j in range(size)]
        patches = [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in corners]
        return matmul(jnp.concatenate(patches, -1), kernel.reshape(-1, kernel.shape[-1]))

    return product


def array(x, name):
    """x, which must be an array, not a tree."""
    if not hasattr(x, "dtype"):
        raise TypeError(f"{name}: the observation is a {type(x).__name__}, needs an array; choose one with view()")
    return x


def as_float(x, name):
    """Floats stay as they are, the images of a cnn are divided by 255 if uint8, other dtypes become float32."""
    if jnp.issubdtype(array(x, name).dtype, jnp.floating):
        return x
    return jnp.asarray(x, jnp.float32) / (255.0 if x.dtype == jnp.uint8 and name == "cnn" else 1.0)


def get_activation(name, activation):
    if callable(activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name}: activation is {activation!r}, must be one of {sorted(ACTIVATIONS)} or a function")
    return ACTIVATIONS[activation]


def _check_sizes(name, **sizes):
    for argument, values in sizes.items():
        if not values or min(values) < 1:
            raise ValueError(f"{name}: {argument} is {values}, needs at least one entry and all >= 1")
