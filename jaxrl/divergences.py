"""f-divergences with their conjugates, and the implicit maximizers that offline learners fit a value with.

D_f(p || q) = E_q f(p / q) with f convex and f(1) = 0. Where a distribution of visits is regularized by it, the dual
problem needs the conjugate over ratios w >= 0,

    f*_p(y) = max_{w >= 0} w y - f(w),      w(y) = max(0, (f')^-1(y)) = d f*_p / d y,

and the best distribution is w(y) times the data's (Nachum and Dai 2020, https://arxiv.org/abs/2001.01866; Sikchi et al.
2024, https://arxiv.org/abs/2302.08560). All functions are elementwise and keep the shape of their argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses

Array = jax.Array


class Divergence(NamedTuple):
    """An f-divergence.

    Attributes:
      f: (w) -> f(w), w >= 0.
      conjugate: (y) -> f*_p(y), convex and nondecreasing.
      weight: (y) -> w(y) >= 0, its derivative.
      surrogate: (y) -> what f-DVL uses in place of f*_p, 0 for y <= 0; None if there is none.
    """

    f: Any
    conjugate: Any
    weight: Any
    surrogate: Any = None


def pearson_chi2() -> Divergence:
    """f(w) = (w - 1)^2;  w(y) = max(0, y / 2 + 1);  f*_p(y) = y + y^2 / 4 for y >= -2, else -1.

    The surrogate is f*_p for y > 0, else 0. The authors' code (https://github.com/hari-sikchi/DVL) has
    max(y + y^2 / 4, 0), which rises again below -4, where f*_p does not.
    """

    def weight(y):
        return jnp.maximum(0.5 * y + 1.0, 0.0)

    def conjugate(y):
        w = weight(y)
        return y * w - (w - 1.0) ** 2

    return Divergence(lambda w: (w - 1.0) ** 2, conjugate, weight, lambda y: jnp.where(y > 0, y + 0.25 * y * y, 0.0))


def kl() -> Divergence:
    """f(w) = w log w, so that D_f(p || q) = KL(p || q);  w(y) = f*_p(y) = exp(y - 1)."""

    def f(w):
        return jnp.where(w > 0, w * jnp.log(jnp.where(w > 0, w, 1.0)), 0.0)

    def weight(y):
        return jnp.exp(y - 1.0)

    return Divergence(f, weight, weight)


def soft_chi2() -> Divergence:
    """f(w) = w log w - w + 1 for w < 1, (w - 1)^2 / 2 above: KL below, chi2 above (Lee et al. 2021,
    https://arxiv.org/abs/2106.10783, appendix E).

    w(y) = exp(y) for y < 0, else y + 1;  f*_p(y) = exp(y) - 1 for y < 0, else y + y^2 / 2
    """
    base = kl()

    def f(w):
        return jnp.where(w < 1, base.f(w) - w + 1.0, 0.5 * (w - 1.0) ** 2)

    def conjugate(y):
        return jnp.where(y < 0, jnp.expm1(jnp.minimum(y, 0.0)), y + 0.5 * y * y)

    return Divergence(f, conjugate, lambda y: jnp.where(y < 0, jnp.exp(jnp.minimum(y, 0.0)), y + 1.0))


def total_variation() -> Divergence:
    """f(w) = |w - 1| / 2;  f*_p(y) = max(y, -1 / 2) for y <= 1 / 2, infinite above.

    w(y) is 1 for |y| <= 1 / 2, 0 below. The surrogate is max(y, 0), which makes f-DVL a quantile regression.
    """

    def conjugate(y):
        return jnp.where(y <= 0.5, jnp.maximum(y, -0.5), jnp.inf)

    def weight(y):
        return jnp.where(y <= 0.5, (y >= -0.5).astype(y.dtype), jnp.inf)

    return Divergence(lambda w: 0.5 * jnp.abs(w - 1.0), conjugate, weight, lambda y: jnp.maximum(y, 0.0))


DIVERGENCES = {"pearson_chi2": pearson_chi2, "kl": kl, "soft_chi2": soft_chi2, "total_variation": total_variation}


class ImplicitMaximizer(NamedTuple):
    """A loss whose minimizer over V lies between the mean and the maximum of Q over the data's actions.

    Attributes:
      loss: (hparams, difference, weight) -> losses, shape of `difference` = Q - V; `weight` is None, or its shape: rows
        of weight 0 are not there.
      hparams: defaults of its own numbers.
    """

    loss: Any
    hparams: Any


class ExpectileHparams(NamedTuple):
    """Numbers of `expectile`."""

    expectile: float = 0.7  # (0, 1): 0.5 is the mean, 1 the maximum


class GumbelHparams(NamedTuple):
    """Numbers of `gumbel`."""

    value_temperature: float = 2.0  # > 0: 0 is the maximum, infinity the mean; in units of return
    value_clip: float = 7.0  # of (Q - V) / temperature; infinity does not clip


class DualHparams(NamedTuple):
    """Numbers of `dual`."""

    value_lambda: float = 0.7  # (0.5, 1): 1 is the maximum


def expectile() -> ImplicitMaximizer:
    """Expectile regression, as in IQL (Kostrikov et al. 2021, https://arxiv.org/abs/2110.06169)."""
    return ImplicitMaximizer(lambda hp, x, weight: losses.expectile(x, hp.expectile), ExpectileHparams())


def gumbel() -> ImplicitMaximizer:
    """Gumbel regression, as in XQL (Garg et al. 2023, https://arxiv.org/abs/2301.02328): the dual of KL."""

    def loss(hp, x, weight):
        return losses.gumbel(x / hp.value_temperature, hp.value_clip, weight)

    return ImplicitMaximizer(loss, GumbelHparams())


def dual(name: str = "pearson_chi2") -> ImplicitMaximizer:
    """f-DVL (Sikchi et al. 2024, https://arxiv.org/abs/2302.08560):  (1 - lambda) V + lambda f(Q - V), written as

        -(1 - lambda) x + lambda f(x),   x = Q - V,

    which differs by a constant, with the surrogate f of the divergence.

    Raises:
      ValueError: for a divergence that has no surrogate.
    """
    allowed = [known for known, make in DIVERGENCES.items() if make().surrogate is not None]
    if name not in allowed:
        raise ValueError(f"dual: the divergence is {name!r}, allowed: {', '.join(map(repr, allowed))}")
    surrogate = DIVERGENCES[name]().surrogate

    def loss(hp, x, weight):
        return hp.value_lambda * surrogate(x) - (1.0 - hp.value_lambda) * x

    return ImplicitMaximizer(loss, DualHparams())


MAXIMIZERS = {
    "expectile": expectile,
    "gumbel": gumbel,
    "pearson_chi2": dual,
    "total_variation": lambda: dual("total_variation"),
}
