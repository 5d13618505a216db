"""What a policy minimizes on data of an older policy: PPO's clip, steps of mirror descent, penalties."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax.numpy as jnp

from jaxrl import losses
from jaxrl.types import Array, Distribution, PyTree


class PolicyLoss(NamedTuple):
    """What the policy minimizes, beside its entropy bonus.

    Attributes:
      loss: (hparams, log_prob, old_log_prob, advantage, penalty, steps) -> [...], elementwise, of `PPOHparams` and of
        the environment steps before this update.
      penalty: None, or (distribution, outputs, old_outputs) -> [...], what `loss` is given as `penalty`.
      compares: whether `penalty` reads the outputs of the policy that acted; if not it is given (), and none are kept.
      hparams: defaults of its own numbers, `PPOHparams.policy_loss`.
    """

    loss: Any
    penalty: Callable[[Distribution, PyTree, PyTree], Array] | None = None
    compares: bool = False
    hparams: PyTree = ()


class MirrorDescentHparams(NamedTuple):
    """Numbers of `mirror_descent`."""

    mirror_step: float = 1.0  # > 0, t_0: how far the policy moves from the one that acted, in units of 1 / advantage
    mirror_decay_steps: float = float("inf")  # environment steps over which t_k falls linearly to t_0 / 1000


class KLPenaltyHparams(NamedTuple):
    """Numbers of `kl_penalty`."""

    kl_coefficient: float = 1.0  # >= 0


class SparsityHparams(NamedTuple):
    """Numbers of `sparse`."""

    sparsity_coefficient: float = 1.0  # >= 0, of a density beyond the one that is free
    sparsity_steps: float = float("inf")  # environment steps over which the density that is free falls linearly to 0


def clipped() -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7)."""

    def loss(hp, log_prob, old_log_prob, advantage, penalty, steps):
        del penalty, steps
        return losses.clipped_surrogate(log_prob, old_log_prob, advantage, hp.clip)

    return PolicyLoss(loss)


def mirror_descent() -> PolicyLoss:
    """A step of mirror descent, MDPO (Tomar et al. 2020, https://arxiv.org/abs/2005.09814, equation 10).

        -ratio A + KL(pi || pi_k) / t_k,   minimal at pi = pi_k exp(t_k A) / Z

    Each update takes num_epochs * num_minibatches gradient steps from pi_k; the first one is that of the plain policy
    gradient, since KL has no gradient there, so that one step alone knows of no pi_k. The authors' code
    (https://github.com/manantomar/Mirror-Descent-Policy-Optimization) has num_epochs=5 to 10, num_minibatches=1,
    normalize_advantage="batch", no entropy bonus, and t_k from 1 to 0 over the run; its critic has an optimizer of its
    own, and three epochs of minibatches.
    """

    def loss(hp, log_prob, old_log_prob, advantage, kl, steps):
        # Never quite 0, so that the penalty stays finite.
        step = hp.policy_loss.mirror_step * jnp.maximum(1.0 - steps / hp.policy_loss.mirror_decay_steps, 1e-3)
        return losses.penalized_surrogate(log_prob, old_log_prob, advantage, kl, 1.0 / step)

    return PolicyLoss(loss, lambda distribution, new, old: distribution.kl(new, old), True, MirrorDescentHparams())


def kl_penalty() -> PolicyLoss:
    """-ratio A + coefficient KL(pi_k || pi): PPO's penalty with a fixed coefficient (Schulman et al. 2017, equation 8);
    what TRPO has as a constraint (Schulman et al. 2015, https://arxiv.org/abs/1502.05477)."""

    def loss(hp, log_prob, old_log_prob, advantage, kl, steps):
        del steps
        return losses.penalized_surrogate(log_prob, old_log_prob, advantage, kl, hp.policy_loss.kl_coefficient)

    return PolicyLoss(loss, lambda distribution, new, old: distribution.kl(old, new), True, KLPenaltyHparams())


def sparse(density: Callable[[PyTree], Array]) -> PolicyLoss:
    """PPO's clip, and a penalty on edges of a Bayesian network of agents, of which ever fewer are free (Chen and Zhang
    2023, https://arxiv.org/abs/2306.01920).

        clipped surrogate + coefficient max(density - max(1 - steps / sparsity_steps, 0), 0)

    Args:
      density: outputs of the policy -> [...], in [0, 1]; `bayesian_network.density`.
    """

    def loss(hp, log_prob, old_log_prob, advantage, density, steps):
        free = jnp.maximum(1.0 - steps / hp.policy_loss.sparsity_steps, 0.0)
        excess = jnp.maximum(density - free, 0.0)
        surrogate = losses.clipped_surrogate(log_prob, old_log_prob, advantage, hp.clip)
        return surrogate + hp.policy_loss.sparsity_coefficient * excess

    return PolicyLoss(loss, lambda distribution, outputs, old: density(outputs), hparams=SparsityHparams())
