"""ODICE: distribution correction with orthogonal gradients (Mao et al. 2024, https://arxiv.org/abs/2402.00348).

V-DICE solves the dual of offline reinforcement learning that is regularized by an f-divergence between the visits of
the policy and those of the data, in V alone. The gradient of its residual r + gamma V(s') - V(s) has a forward part
through V(s) and a backward part through V(s'), which often work against each other; ODICE keeps of the backward part
what is at a right angle to the forward one. The policy clones the data's actions, weighted by the residual. `update`
expects transitions [B]. Details and defaults are those of the authors' code, https://github.com/maoliyuan/ODICE-Pytorch.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import parallel
from jaxrl.divergences import Divergence, pearson_chi2
from jaxrl.gradients import blank, cosine, project_out
from jaxrl.optim import clipped_adam, descend
from jaxrl.tree import as_arrays
from jaxrl.types import (
    Agent,
    Array,
    Metrics,
    Network,
    Policy,
    PyTree,
    Transition,
    bootstrap,
    item,
    no_memory,
    weighted_mean,
)


class ODICEHparams(NamedTuple):
    """Numbers of ODICE, all traced."""

    learning_rate: float = 2e-4  # of Adam
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.005  # [0, 1], Polyak: target <- target + rate (params - target)
    value_lambda: float = 0.6  # (0, 1), weight of the divergence's term; the authors tune it in 0.4 .. 0.9 per dataset
    backward_weight: float = 1.0  # >= 0, eta: of the backward gradient; tuned in 0.2 .. 1
    max_weight: float = 100.0  # bound on what a row counts for the policy
    max_grad_norm: float = float("inf")


class ODICEState(NamedTuple):
    """State of ODICE."""

    hparams: ODICEHparams
    params: dict[str, PyTree]  # {"policy", "value"}
    target_params: PyTree  # of the value
    opt_state: PyTree


def odice(
    policy: Policy,
    value: Network,
    *,
    gradient: str = "orthogonal",
    divergence: Divergence = pearson_chi2(),
    policy_weight: Callable[[Array], Array] = jax.nn.relu,
    optimizer: Callable[[ODICEHparams], optax.GradientTransformation] = clipped_adam,
    hparams: ODICEHparams = ODICEHparams(),
) -> Agent:
    """V-DICE for any action space that has a `Distribution`.

        E (1 - lambda) V(s) + lambda f*_p(e),   e = r + gamma V(s') - V(s)
        g_f: of lambda f*_p(r + gamma V_target(s') - V(s));   g_b: of lambda f*_p(r + gamma V(s') - V_target(s))
        orthogonal: g_f + eta (g_b - (g_b . g_f / |g_f|^2) g_f)
        semi:       g_f
        true:       the gradient through V(s') and V(s) at once, without a target

    besides that of (1 - lambda) V(s). The policy: -E min(weight(e), max_weight) log pi(a | s) with the e of g_f (of the
    true gradient's own for "true").

    Args:
      policy: network and distribution; both networks are feed-forward.
      value: an ensemble of observations, outputs [E, ...]; its targets take the least, its losses the mean of members.
      gradient: "orthogonal", "semi" or "true".
      divergence: whose conjugate is used.
      policy_weight: of the residual; the authors' code has max(0, e), where the theory has `divergence.weight`.
      optimizer: from the hparams.

    Returns:
      An `Agent` that learns from transitions [B]; `act` samples, `act_greedy` takes the mode and records `value`, the
      least of the ensemble. The metric `gradient_cosine` is that of g_f and g_b.

    Raises:
      ValueError: for an unknown `gradient`.
    """
    if gradient not in ("orthogonal", "semi", "true"):
        raise ValueError(f"odice: gradient is {gradient!r}, allowed: 'orthogonal', 'semi', 'true'")
    distribution = policy.distribution

    def init(key: Array, hparams: ODICEHparams, example: Transition) -> ODICEState:
        (policy_key, value_key), hp, observation = jax.random.split(key), as_arrays(hparams), item(example.observation)
        params = {"policy": policy.network.init(policy_key, observation), "value": value.init(value_key, observation)}
        # A copy, so that the state may be donated.
        return ODICEState(hp, params, jax.tree.map(jnp.copy, params["value"]), optimizer(hp).init(params))

    def act(key: Array, state: ODICEState, memory: PyTree, observation: PyTree):
        outputs = policy.network.apply(state.params["policy"], (), observation)[1]
        return memory, distribution.transform(distribution.sample(key, outputs)), {}

    def act_greedy(key: Array, state: ODICEState, memory: PyTree, observation: PyTree):
        del key
        outputs = policy.network.apply(state.params["policy"], (), observation)[1]
        return memory, distribution.transform(distribution.mode(outputs)), {"value": least(state.params, observation)}

    def values(params: PyTree, observation: PyTree) -> Array:
        return value.apply(params["value"], (), observation)[1]

    def least(params: PyTree, observation: PyTree) -> Array:
        return jnp.min(values(params, observation), axis=0)

    def dual(hp: ODICEHparams, residual: Array, data: Transition) -> Array:
        """lambda E f*_p(e), e [E, B]."""
        return hp.value_lambda * weighted_mean(jnp.mean(divergence.conjugate(residual), axis=0), data)

    def value_gradient(state: ODICEState, data: Transition) -> tuple[PyTree, Array, Metrics]:
        """The gradient for the value, the residuals [E, B] that weight the policy, metrics."""
        hp, decay, target = state.hparams, bootstrap(data, state.hparams.discount), {"value": state.target_params}
        v, next_v = least(target, data.observation), least(target, data.next_observation)

        def linear(params: PyTree) -> tuple[Array, Array]:
            mean = weighted_mean(jnp.mean(values(params, data.observation), axis=0), data)
            return (1.0 - hp.value_lambda) * mean, mean

        def forward(params: PyTree) -> tuple[Array, Array]:
            residual = data.reward + decay * next_v - values(params, data.observation)
            return dual(hp, residual, data), residual

        def backward(params: PyTree) -> Array:
            return dual(hp, data.reward + decay * values(params, data.next_observation) - v, data)

        def both(params: PyTree) -> tuple[Array, Array]:
            following, now = (values(params, o) for o in (data.next_observation, data.observation))
            residual = data.reward + decay * following - now
            return dual(hp, residual, data), residual

        params = {"value": state.params["value"]}
        push, mean = jax.grad(linear, has_aux=True)(params)
        g_f, residual = jax.grad(forward, has_aux=True)(params)
        g_f, g_b = parallel.mean((g_f, jax.grad(backward)(params)))  # what they are projected on is of all shards
        metrics = {"value": mean, "gradient_cosine": cosine(g_f, g_b)}
        if gradient == "true":
            g_f, residual = jax.grad(both, has_aux=True)(params)
        if gradient == "orthogonal":
            g_f = jax.tree.map(lambda f, b: f + hp.backward_weight * b, g_f, project_out(g_b, g_f))
        metrics["value_loss"] = (1.0 - hp.value_lambda) * mean + dual(hp, residual, data)
        return jax.tree.map(jnp.add, push, g_f)["value"], residual, metrics

    def update(key: Array, state: ODICEState, data: Transition) -> tuple[ODICEState, Metrics]:
        del key
        hp, extras, data = state.hparams, data.extras, blank(data)
        value_grad, residual, metrics = value_gradient(state, data)
        row_weight = jnp.mean(jnp.minimum(policy_weight(residual), hp.max_weight), axis=0)

        def policy_loss(params: PyTree) -> Array:
            outputs = policy.network.apply(params, (), data.observation)[1]
            return -weighted_mean(row_weight * distribution.log_prob(outputs, distribution.inverse(data.action)), data)

        metrics["policy_loss"], policy_grad = jax.value_and_grad(policy_loss)(state.params["policy"])
        metrics["policy_weight"] = weighted_mean(row_weight, data)
        both = {"policy": policy_grad, "value": value_grad}
        params, opt_state = descend(optimizer(hp), both, state.opt_state, state.params)
        target_params = optax.incremental_update(params["value"], state.target_params, hp.target_rate)
        if "index" in extras:
            metrics["priority"] = jnp.max(jnp.abs(residual), axis=0)
        return ODICEState(hp, params, target_params, opt_state), metrics

    def actor(state: ODICEState) -> ODICEState:
        return state._replace(target_params=(), opt_state=())

    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=hparams)
