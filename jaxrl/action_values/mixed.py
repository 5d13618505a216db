"""Values of joint actions from values of each agent's: value decomposition.

`mixed(values, mixer)` is an `ActionValues` of a team, for learners that know nothing of agents: `dqn(mixed(...))` and
`r2d2(mixed(...))` learn Q_tot(s, a_1 .. a_A), and act by each agent's own values. That is greedy in Q_tot, too, since
Q_tot grows with each of them. Observations have leaves [..., A, obs], and a part "alive" [..., A]: who is out counts as
nothing (`combinators.multi_agent.as_team` makes them, with the team's reward and ends).
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.action_values.core import ActionValues
from jaxrl.networks.feedforward import linear, linear_init
from jaxrl.types import Array, PyTree


class Mixer(NamedTuple):
    """How values of agents become one.

    Attributes:
      init: (key, observation [..., A, obs]) -> params.
      weights: (params, observation [..., A, obs]) -> whatever `mix` needs of the state.
      mix: (weights, values [..., A]) -> [...], which does not fall where any of the values grows.
    """

    init: Any
    weights: Any
    mix: Any


class MixedOutputs(NamedTuple):
    """What a network says about the actions of all agents."""

    values: PyTree  # the outputs of each agent's values, [..., A, *]
    weights: PyTree
    alive: Array  # [..., A]


def additive() -> Mixer:
    """VDN: Q_tot = sum_a Q_a (Sunehag et al. 2018, https://arxiv.org/abs/1706.05296)."""
    return Mixer(lambda key, observation: {}, lambda params, observation: (), lambda weights, values: values.sum(-1))


def monotonic(joint: Callable[[PyTree], Array], num_agents: int, *, size: int = 32) -> Mixer:
    """QMIX (Rashid et al. 2018, https://arxiv.org/abs/1803.11485): weights that are a function of the state, >= 0.

        Q_tot = |w_2(s)| . elu(|W_1(s)| Q + b_1(s)) + b_2(s)

    with linear W_1, b_1, w_2, and b_2 a layer of ReLUs and a linear one, as in the paper.

    Args:
      joint: observation [..., A, obs] -> s [..., S].
      size: of the mixing layer.

    Raises:
      ValueError: if size < 1.
    """
    if size < 1:
        raise ValueError(f"monotonic: size is {size}, must be >= 1")
    sizes = {"first": num_agents * size, "first_bias": size, "second": size, "hidden": size}

    def init(key: Array, observation: PyTree) -> PyTree:
        *keys, last_key = jax.random.split(key, len(sizes) + 1)
        state = joint(observation)
        params = {name: linear_init(k, state.shape[-1], n, 1.0) for k, (name, n) in zip(keys, sizes.items())}
        return {**params, "second_bias": linear_init(last_key, size, 1, 1.0)}

    def weights(params: PyTree, observation: PyTree) -> tuple[Array, ...]:
        state = joint(observation)
        made = {name: linear(params[name], state) for name in sizes}
        first = jnp.abs(made["first"]).reshape(*state.shape[:-1], num_agents, size)
        second_bias = linear(params["second_bias"], jax.nn.relu(made["hidden"]))[..., 0]
        return first, made["first_bias"], jnp.abs(made["second"]), second_bias

    def mix(weights: tuple[Array, ...], values: Array) -> Array:
        first, first_bias, second, second_bias = weights
        hidden = jax.nn.elu(jnp.einsum("...a,...ae->...e", values, first) + first_bias)
        return jnp.sum(hidden * second, -1) + second_bias

    return Mixer(init, weights, mix)


def mixed(values: ActionValues, mixer: Mixer) -> ActionValues:
    """The values of a team: `mean` is each agent's, [..., A, n], and what is selected, learned and aimed at is Q_tot.

    Args:
      values: of one agent, with one number an action (`scalar`), shared by all; its network ignores the part "alive".
    """

    def init(key: Array, observation: PyTree) -> PyTree:
        values_key, mixer_key = jax.random.split(key)
        return {"values": values.init(values_key, observation), "mixer": mixer.init(mixer_key, observation)}

    def outputs(params: PyTree, of_each: PyTree, observation: PyTree) -> MixedOutputs:
        return MixedOutputs(of_each, mixer.weights(params["mixer"], observation), observation["alive"])

    def apply(key: Array, params: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, MixedOutputs]:
        memory, of_each = values.apply(key, params["values"], memory, observation)
        return memory, outputs(params, of_each, observation)

    def unroll(key: Array, params: PyTree, memory: PyTree, observation: PyTree, is_first: Array) -> MixedOutputs:
        return outputs(params, values.unroll(key, params["values"], memory, observation, is_first), observation)

    def select(outputs: MixedOutputs, action: Array) -> Array:
        chosen = values.select(outputs.values, action)
        return mixer.mix(outputs.weights, jnp.where(outputs.alive > 0, chosen, 0.0))

    return values._replace(
        init=init,
        init_memory=lambda params, observation: values.init_memory(params["values"], observation),
        apply=apply,
        unroll=unroll,
        mean=lambda outputs: values.mean(outputs.values),
        select=select,
    )
