"""ReCOIL: imitation from few demonstrations and arbitrary data, without a discriminator (Sikchi et al. 2024,
"Dual RL", https://arxiv.org/abs/2302.08560).

The paper matches mixtures, beta d^pi + (1 - beta) d^O to beta d^E + (1 - beta) d^O, so that the data O need not cover
the expert E. The dual is a score Q that is high on demonstrations, low on what the policy would do elsewhere, and
consistent with gamma V(s') on the mixture. The authors' code (linked from https://hari-sikchi.github.io/dual-rl) has it
by least squares, as LS-IQ does (Al-Hafez et al. 2023, https://arxiv.org/abs/2303.00599):

    demonstrations: (Q(s, a) - q)^2
    other rows:     (Q(s, a) - (-(1 - gamma) q + gamma V(s')))^2,   V = -q where terminated

with V an implicit maximum of Q over the data's actions and the policy by advantage-weighted regression. Both targets
are those of implicit Q-learning on other rewards and ends, and this is how it is written here. The code trains V on the
other rows alone; we train it on all, since the two kinds of rows may not meet anywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxrl import divergences
from jaxrl.agents.iql import iql
from jaxrl.combinators.transform import with_transform
from jaxrl.tree import as_arrays
from jaxrl.types import Agent, Array, Network, Policy, PyTree, Transform, Transition, num_steps


class RecoilHparams(NamedTuple):
    """Numbers of `recoil_targets`."""

    expert_value: float = 200.0  # q > 0: the score of a demonstrated action; the worst is -q
    step_reward: float = -2.0  # of every other step: -(1 - gamma) q of the learner's discount


class RecoilState(NamedTuple):
    """State of `recoil_targets`."""

    hparams: RecoilHparams


def recoil_targets() -> Transform:
    """Rewards and ends that make one-step targets of ReCOIL's; the environment's own rewards are not read.

    demonstrations: reward q, terminated. Other rows: reward step_reward * num_steps, or -q where terminated.

    Raises:
      ValueError: in `apply`, if the data has no extras["demonstration"] (1: an expert's row, 0: any other).
    """

    def init(key: Array, hparams: RecoilHparams, example: Transition) -> RecoilState:
        del key, example
        return RecoilState(as_arrays(hparams))

    def apply(key: Array, state: RecoilState, data: Transition) -> Transition:
        del key
        if "demonstration" not in data.extras:
            raise ValueError('recoil: the data has no extras["demonstration"]; see with_demonstrations')
        hp, expert = state.hparams, data.extras["demonstration"] > 0
        other = jnp.where(data.terminated, -hp.expert_value, hp.step_reward * num_steps(data))
        return data._replace(reward=jnp.where(expert, hp.expert_value, other), terminated=data.terminated | expert)

    return Transform(init, apply, observe=lambda key, state, fresh: (state, {}), hparams=RecoilHparams())


def recoil(
    policy: Policy,
    value: Network,
    critic: Network,
    *,
    value_loss: divergences.ImplicitMaximizer = divergences.gumbel(),
    **keywords: PyTree,
) -> Agent:
    """ReCOIL for any action space that has a `Distribution`.

    Args:
      policy, value, critic, **keywords: as those of `iql`.
      value_loss: the implicit maximizer; the authors' code has Gumbel regression of temperature 2.5 to 20 (larger
        where Q diverges) and expectiles.

    Returns:
      An `Agent` that learns from transitions [B] with extras["demonstration"] [B], such as
      `with_demonstrations(recoil(...), expert_data)` makes. Hparams `Wrapped(agent=IQLHparams, own=RecoilHparams)`.
    """
    return with_transform(iql(policy, value, critic, value_loss=value_loss, **keywords), recoil_targets())
