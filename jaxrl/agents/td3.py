"""Twin delayed deep deterministic policy gradient (TD3, Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477).

Off-policy, for continuous actions, with a deterministic policy: critics regress on r + discount min Q'(s', pi'(s') +
clipped noise), and every `policy_period` updates the policy climbs the first critic and all targets move. `update`
expects leaves [B] (or any leading axes) from replay or a dataset; the agent does not explore by itself.

What differs by a setting: DDPG (Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971) is `num_critics=1,
policy_period=1` and `target_noise=0`; TD3+BC (Fujimoto & Gu 2021, https://arxiv.org/abs/2106.06860) is
`bc_coefficient=0.4`.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, parallel
from jaxrl.counters import increment
from jaxrl.gradients import blank
from jaxrl.networks import ensemble
from jaxrl.optim import adam, descend
from jaxrl.tree import as_arrays, select
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


class TD3Hparams(NamedTuple):
    """Numbers of TD3, all traced. Noise is in raw units, where the box of actions is [-1, 1]."""

    learning_rate: float = 3e-4  # of the critics
    policy_learning_rate: float = 3e-4
    decay_updates: float = float("inf")  # > 0 updates over which both rates fall linearly to 0; inf: they do not
    discount: float = 0.99  # [0, 1]
    target_rate: float = 0.005  # [0, 1], Polyak: how far targets move when they do
    target_noise: float = 0.2  # deviation of the noise on the target policy's actions
    target_noise_clip: float = 0.5  # bound on its magnitude
    policy_warm_up_updates: float = 0.0  # updates of the critics and targets before the first of the policy
    bc_coefficient: float = 0.0  # of TD3+BC: its 1 / alpha (alpha 2.5 is 0.4); 0 is TD3


class TD3State(NamedTuple):
    """State of TD3."""

    hparams: TD3Hparams
    params: dict[str, PyTree]  # {"policy", "critic": leaves [num_critics, ...]}
    target_params: dict[str, PyTree]
    opt_state: dict[str, PyTree]
    num_updates: Array  # [] int32


def td3(
    policy: Policy,
    critic: Network,
    *,
    num_critics: int = 2,
    policy_period: int = 2,
    optimizer: Callable[[TD3Hparams], optax.GradientTransformation] = adam,
    hparams: TD3Hparams = TD3Hparams(),
) -> Agent:
    """TD3; the policy minimises -Q_1(s, pi(s)), or with a `bc_coefficient` c > 0

        -Q_1(s, pi(s)) / mean |Q_1| + c |pi(s) - a|^2 / dim(A)

    which is the loss of TD3+BC divided by its alpha = 1 / c.

    Args:
      policy: feed-forward network and a distribution of which the mode alone acts. Noise is added to the raw action and
        distances are between raw ones, so `diagonal_gaussian` with a network that ends in tanh has the paper's units.
      critic: network with outputs [...] for the observation `(observation, action)`.
      num_critics: independent copies of `critic`; targets take their minimum.
      policy_period: updates of the critics for each of the policy and of the targets.
      optimizer: from the hparams, whose `learning_rate` is that of the critics or of the policy.

    Returns:
      An `Agent`; acting is greedy; `act_greedy` records `value` where the state has critics.

    Raises:
      ValueError: for counts below 1, or a policy over finitely many actions.
    """
    for name, value in (("num_critics", num_critics), ("policy_period", policy_period)):
        if value < 1:
            raise ValueError(f"td3: {name} is {value}, must be >= 1")
    network, distribution = policy
    if not distribution.num_scale:
        raise ValueError("td3: policy has no scale parameters, needs a distribution over continuous actions")
    critics = ensemble(critic, num_critics)

    def optimizers(hp: TD3Hparams, count: Array | int = 0) -> dict[str, optax.GradientTransformation]:
        left = jnp.maximum(1.0 - count / hp.decay_updates, 0.0)
        rates = {"critic": hp.learning_rate * left, "policy": hp.policy_learning_rate * left}
        return {name: optimizer(hp._replace(learning_rate=rate)) for name, rate in rates.items()}

    def init(key: Array, hparams: TD3Hparams, example: Transition) -> TD3State:
        hp, (key_policy, key_critic) = as_arrays(hparams), jax.random.split(key)
        observation, action = item((example.observation, example.action))
        params = {
            "policy": network.init(key_policy, observation),
            "critic": critics.init(key_critic, (observation, action)),
        }
        target = jax.tree.map(jnp.copy, params)  # a donated state may not hold one array twice
        opt_state = {name: optimizer.init(params[name]) for name, optimizer in optimizers(hp).items()}
        return TD3State(hp, params, target, opt_state, jnp.zeros((), jnp.int32))

    def q(params: PyTree, observation: PyTree, action: Array) -> Array:
        return critics.apply(params, (), (observation, action))[1]

    def raw_action(params: PyTree, observation: PyTree) -> Array:
        return distribution.mode(network.apply(params, (), observation)[1])

    def act_greedy(key: Array, state: TD3State, memory: PyTree, observation: PyTree):
        del key
        action = distribution.transform(raw_action(state.params["policy"], observation))
        if not state.params["critic"]:
            return memory, action, {}
        return memory, action, {"value": q(state.params["critic"], observation, action)[0]}

    def act(key: Array, state: TD3State, memory: PyTree, observation: PyTree):
        memory, action, _ = act_greedy(key, state, memory, observation)
        return memory, action, {}

    def actor(state: TD3State) -> TD3State:
        return state._replace(params=state.params | {"critic": ()}, target_params=(), opt_state=())

    def targets(key: Array, hp: TD3Hparams, params: PyTree, data: Transition) -> Array:
        """r + discount min Q'(s', pi'(s') + clip(noise))."""
        raw = raw_action(params["policy"], data.next_observation)
        noise = hp.target_noise * jax.random.normal(key, (raw.size,)).reshape(raw.shape)
        raw = raw + jnp.clip(noise, -hp.target_noise_clip, hp.target_noise_clip)
        next_value = jnp.min(q(params["critic"], data.next_observation, distribution.transform(raw)), 0)
        return data.reward + bootstrap(data, hp.discount) * next_value

    def critic_loss(params: PyTree, target: Array, data: Transition) -> tuple[Array, Array]:
        value = q(params, data.observation, data.action)
        return weighted_mean(jnp.sum(losses.squared(value - target), 0), data), value

    def policy_loss(params: PyTree, hp: TD3Hparams, critic_params: PyTree, data: Transition) -> Array:
        raw = raw_action(params, data.observation)
        first = jax.tree.map(lambda x: x[0], critic_params)
        value = critic.apply(first, (), (data.observation, distribution.transform(raw)))[1]
        size = parallel.mean(weighted_mean(jnp.abs(jax.lax.stop_gradient(value)), data))
        scale = jnp.where(hp.bc_coefficient > 0, 1.0 / jnp.maximum(size, 1e-8), 1.0)
        error = (raw - distribution.inverse(data.action)).reshape(*value.shape, -1)
        return weighted_mean(hp.bc_coefficient * jnp.mean(error * error, -1) - scale * value, data)

    def learn_policy(
        hp: TD3Hparams, moving: tuple, critic_params: PyTree, data: Transition, count: Array
    ) -> tuple[tuple, Array]:
        """A step of the policy, once the critics are warm, and one of all targets."""
        params, opt_state, target_params = moving
        loss, gradient = jax.value_and_grad(policy_loss)(params, hp, critic_params, data)
        stepped = descend(optimizers(hp, count)["policy"], gradient, opt_state, params)
        params, opt_state = select(count > hp.policy_warm_up_updates, stepped, (params, opt_state))
        learned = {"policy": params, "critic": critic_params}
        target_params = optax.incremental_update(learned, target_params, hp.target_rate)
        return (params, opt_state, target_params), policy_period * loss  # the mean over updates is the loss

    def skip_policy(
        hp: TD3Hparams, moving: tuple, critic_params: PyTree, data: Transition, count: Array
    ) -> tuple[tuple, Array]:
        del hp, critic_params, data, count
        return moving, jnp.zeros(())

    def update(key: Array, state: TD3State, data: Transition) -> tuple[TD3State, Metrics]:
        hp, params, opt_state = state.hparams, state.params, state.opt_state
        data, count = blank(data), increment(state.num_updates, policy_period)
        target = targets(key, hp, state.target_params, data)
        (loss, value), gradient = jax.value_and_grad(critic_loss, has_aux=True)(params["critic"], target, data)
        of_critic = optimizers(hp, count)["critic"]
        critic_params, critic_opt = descend(of_critic, gradient, opt_state["critic"], params["critic"])
        inputs = hp, (params["policy"], opt_state["policy"], state.target_params), critic_params, data, count
        if policy_period == 1:
            moved, loss_of_policy = learn_policy(*inputs)
        else:
            moved, loss_of_policy = jax.lax.cond(count % policy_period == 0, learn_policy, skip_policy, *inputs)
        policy_params, policy_opt, target_params = moved
        metrics = {
            "critic_loss": loss,
            "policy_loss": loss_of_policy,
            "value": weighted_mean(jnp.mean(value, 0), data),
        }
        if "index" in data.extras:
            metrics["priority"] = losses.per_row(jnp.mean(jnp.abs(value - target), 0), 1)
        params = {"policy": policy_params, "critic": critic_params}
        opt_state = {"policy": policy_opt, "critic": critic_opt}
        return TD3State(hp, params, target_params, opt_state, count), metrics

    return Agent(init, no_memory, act, act_greedy, update, actor=actor, hparams=hparams)
