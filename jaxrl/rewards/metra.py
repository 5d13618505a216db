"""METRA (Park et al. 2024, https://arxiv.org/abs/2310.08887): skills that go far in a latent space whose distances are
bounded by how many steps there are between two states.

    max over phi of E[(phi(s') - phi(s)) . z]  such that  |phi(s') - phi(s)|^2 <= 1 for every step
    reward = (phi(s') - phi(s)) . z

The constraint is kept by dual gradient descent, with the multiplier in log space and the slack of the authors' code
(https://github.com/seohongpark/METRA), which means |.|^2 over latent dimensions where the paper, and this, sums it.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl.gradients import blank
from jaxrl.optim import adam, descend
from jaxrl.rewards.core import SkillModel, SkillModelState, Skills, followed, without_optimizer
from jaxrl.tree import as_arrays
from jaxrl.types import Array, Metrics, Network, PyTree, Transition, item, weighted_mean


class METRAHparams(NamedTuple):
    """Numbers of `metra`."""

    skill_learning_rate: float = 1e-4  # of phi
    multiplier_learning_rate: float = 1e-4  # of log lambda
    initial_multiplier: float = 30.0  # > 0, lambda
    slack: float = 1e-3  # >= 0: steps shorter than 1 by more than this count as this


def metra(
    phi: Network,
    skills: Skills,
    *,
    optimizer: Callable[[Any], optax.GradientTransformation] = adam,
    hparams: METRAHparams = METRAHparams(),
) -> SkillModel:
    """reward = (phi(s') - phi(s)) . direction(z), where phi is learned to make it large and no step longer than 1.

    Args:
      phi: network with outputs [..., K] for observations [..., obs].
      skills: `sphere(K)`, or `one_hot(K)` whose directions are centered.
      optimizer: from a bundle with a field `learning_rate`, that of phi or of the multiplier.

    Returns:
      A `SkillModel`; its `toward` is the skill nearest to phi(goal) - phi(observation).
    """

    def embed(params: PyTree, observation: PyTree) -> Array:
        return phi.apply(params, (), observation)[1]

    def optimizers(hp: METRAHparams) -> dict[str, optax.GradientTransformation]:
        rates = {"phi": hp.skill_learning_rate, "log_multiplier": hp.multiplier_learning_rate}
        return {name: optimizer(_Rate(rate)) for name, rate in rates.items()}

    def init(key: Array, hparams: METRAHparams, example: Transition) -> SkillModelState:
        hp = as_arrays(hparams)
        params = {
            "phi": phi.init(key, item(example.observation)),
            "log_multiplier": jnp.log(hp.initial_multiplier),
        }
        return SkillModelState(hp, params, {name: o.init(params[name]) for name, o in optimizers(hp).items()})

    def step_of(params: PyTree, data: Transition) -> Array:
        return embed(params, data.next_observation) - embed(params, data.observation)

    def reward(state: SkillModelState, data: Transition) -> Array:
        return jnp.sum(step_of(state.params["phi"], data) * skills.direction(data.extras["skill"]), -1)

    def update(key: Array, state: SkillModelState, data: Transition) -> tuple[SkillModelState, Metrics]:
        del key
        hp, data, direction = state.hparams, blank(data), skills.direction(followed(data))
        multiplier = jnp.exp(state.params["log_multiplier"])

        def loss(params: PyTree):
            step = step_of(params, data)
            along, length = jnp.sum(step * direction, -1), jnp.sum(step**2, -1)
            room = jnp.minimum(1.0 - length, hp.slack)  # negative where the constraint is violated
            aux = {"along": along, "squared_step": length, "room": room}
            return -weighted_mean(along + multiplier * room, data), aux

        (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(state.params["phi"])
        means = {name: weighted_mean(x, data) for name, x in aux.items()}
        # Of log lambda times the room: lambda falls where there is room, and grows where there is none.
        gradients = {"phi": gradient, "log_multiplier": means["room"]}
        learned = {
            name: descend(o, gradients[name], state.opt_state[name], state.params[name])
            for name, o in optimizers(hp).items()
        }
        params, opt_state = ({name: both[i] for name, both in learned.items()} for i in range(2))
        metrics = {
            "loss": value,
            "multiplier": multiplier,
            "squared_step": means["squared_step"],  # at most 1 where the constraint holds
            "room": means["room"],
        }
        return SkillModelState(hp, params, opt_state), metrics

    def toward(state: SkillModelState, observation: PyTree, goal: PyTree) -> Array:
        return skills.toward(embed(state.params["phi"], goal) - embed(state.params["phi"], observation))

    return SkillModel(skills, init, reward, update, toward, without_optimizer, hparams)


class _Rate(NamedTuple):
    learning_rate: Array
