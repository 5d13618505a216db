"""COMA, counterfactual multi-agent policy gradients (Foerster et al. 2018, https://arxiv.org/abs/1705.08926).

On-policy actor-critic of agents that share a reward: a critic of what all see and do says what each agent's action was
worth beside what else it could have done, while the others did what they did. `update` expects a rollout [T, N] with
an axis of agents behind it, [T, N, A]: the critic learns in minibatches towards TD(lambda) targets of the whole
rollout, then the policy takes a single step. The paper keeps exploring by a floor under the probabilities, here an
entropy bonus does.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, returns
from jaxrl.action_values import take
from jaxrl.minibatch import minibatches
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
    is_last,
    item,
    trace,
    weight,
    weighted_mean,
)

OUT = -1  # in place of the action of who is out


class COMAHparams(NamedTuple):
    """Numbers of COMA, all traced."""

    learning_rate: float = 5e-4  # of Adam, for the critic
    policy_learning_rate: float = 5e-4
    discount: float = 0.99  # [0, 1]
    lambda_: float = 0.8  # [0, 1], TD(lambda): 0 is one-step, 1 is Monte-Carlo
    entropy_coefficient: float = 0.01
    max_grad_norm: float = 10.0  # of the policy and of the critic, each by itself
    target_rate: float = 0.2  # [0, 1], Polyak: how far the target critic moves towards the critic in an update


class COMAState(NamedTuple):
    """State of COMA."""

    hparams: COMAHparams
    params: dict[str, PyTree]  # {"policy", "critic"}
    target_params: PyTree  # of the critic
    opt_state: dict[str, PyTree]  # of each of params


class Batch(NamedTuple):
    """What the critic learns from: shuffled rows [b, A]."""

    data: Transition
    joint: Array  # the action of each; OUT for who is out
    target: Array


def coma(
    policy: Policy,
    critic: Network,
    *,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    optimizer: Callable[[COMAHparams], optax.GradientTransformation] = clipped_adam,
    hparams: COMAHparams = COMAHparams(),
) -> Agent:
    """COMA for agents that are alike, with finitely many actions.

        G_t = r_t + discount ((1 - lambda) Q'(s'_t, a'_t) + lambda G_{t+1}),   L_Q = E (Q(s, a) - G)^2 / 2
        A_i = Q_i(s, a) - sum_k pi_i(k | o_i) Q_i(s, (a_-i, k)),   L_pi = -E log pi_i(a_i | o_i) A_i - coefficient H

    a'_t is the joint action of the next row; where an episode was truncated, or the rollout ends, one that the policy
    draws at the true successor. The baseline is an exact sum, so that A has mean 0 under pi_i. The paper's critic takes
    one pass, with a step for each time step from the last one to the first; here minibatches are shuffled.

    Args:
      policy: gives logits [..., A, K] of observations with leaves [..., A, obs], and their distribution; recurrent if
        the network has memory.
      critic: feed-forward; Q_i(s, (a_-i, .)), [..., A, K], of (observation, action int [..., A]), where an action of -1
        is that of who is out (`networks.counterfactual_critic`).
      num_epochs: passes of the critic over each rollout.
      num_minibatches: per epoch; divides T * N rows.
      optimizer: from the hparams, whose `learning_rate` is that of the critic or of the policy.

    Returns:
      An `Agent` that learns from its own rollouts [T, N, A]; `act` records, if recurrent, `memory` before each step.

    Raises:
      ValueError: for counts below 1, or a policy that is not over finitely many actions; from `init`, if an action is
        not one number an agent, or the critic has memory or outputs of another shape; in `update`, if rows do not
        divide.
    """
    for name, value in (("num_epochs", num_epochs), ("num_minibatches", num_minibatches)):
        if value < 1:
            raise ValueError(f"coma: {name} is {value}, must be >= 1")
    network, distribution = policy
    if distribution.num_scale:
        raise ValueError("coma: the policy's distribution has scale parameters, needs one over finitely many actions")

    def optimizers(hp: COMAHparams) -> dict[str, optax.GradientTransformation]:
        return {"policy": optimizer(hp._replace(learning_rate=hp.policy_learning_rate)), "critic": optimizer(hp)}

    def init(key: Array, hparams: COMAHparams, example: Transition) -> COMAState:
        hp, (key_policy, key_critic) = as_arrays(hparams), jax.random.split(key)
        seen = item((example.observation, example.action))
        check_actions(example.action, example.reward)
        params = {"policy": network.init(key_policy, seen[0]), "critic": critic.init(key_critic, seen)}
        check_critic(critic, params["critic"], seen, distribution.num_params)
        target_params = jax.tree.map(jnp.copy, params["critic"])  # buffers of its own: states may be donated
        opt_state = {name: step.init(params[name]) for name, step in optimizers(hp).items()}
        return COMAState(hp, params, target_params, opt_state)

    def init_memory(key: Array, state: COMAState, observation: PyTree) -> PyTree:
        del key
        return network.init_memory(state.params["policy"], observation)

    def act(key: Array, state: COMAState, memory: PyTree, observation: PyTree):
        then, logits = network.apply(state.params["policy"], memory, observation)
        action = distribution.transform(distribution.sample(key, logits))
        return then, action, {"memory": memory} if jax.tree.leaves(memory) else {}

    def act_greedy(key: Array, state: COMAState, memory: PyTree, observation: PyTree):
        del key
        then, logits = network.apply(state.params["policy"], memory, observation)
        action = distribution.transform(distribution.mode(logits))
        if not state.params["critic"]:
            return then, action, {}
        q = values(state.params["critic"], observation, action)
        return then, action, {"value": jnp.sum(jax.nn.softmax(logits) * q, -1)}

    def actor(state: COMAState) -> COMAState:
        return state._replace(params=state.params | {"critic": ()}, target_params=(), opt_state=())

    def values(params: PyTree, observation: PyTree, action: Array) -> Array:
        """Q_i(s, (a_-i, .)), [..., A, K]."""
        return critic.apply(params, (), (observation, action))[1]

    def draw(key: Array, params: PyTree, data: Transition) -> Array:
        """Actions of the policy at the true successors, [T, N, A]."""
        memory = data.extras.get("memory", ())
        then = network.apply(params, memory, data.observation)[0] if jax.tree.leaves(memory) else ()
        logits = network.apply(params, then, data.next_observation)[1]
        # A key for each environment: what is drawn in one does not depend on how many others there are.
        keys = jax.random.split(key, logits.shape[1])
        return distribution.transform(jax.vmap(distribution.sample, (0, 1), 1)(keys, logits))

    def targets(key: Array, state: COMAState, data: Transition) -> Array:
        """TD(lambda) targets G, [T, N, A]."""
        hp, w = state.hparams, data.extras.get("weight")
        joint, own = next_actions(data, draw(key, state.params["policy"], data))
        next_value = take(values(state.target_params, data.next_observation, joint), own)
        decay, carried = bootstrap(data, hp.discount), trace(data, hp.discount, hp.lambda_)
        return returns.lambda_returns(data.reward, next_value, decay, carried, w)

    def critic_loss(params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        q = take(values(params, batch.data.observation, batch.joint), batch.data.action)
        loss = weighted_mean(losses.squared(q - batch.target), batch.data)
        return loss, {"value_loss": loss, "q_value": weighted_mean(q, batch.data)}

    def policy_loss(params: PyTree, hp: COMAHparams, q: Array, data: Transition) -> tuple[Array, Metrics]:
        last = is_last(data)
        is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])
        logits = network.unroll(params, item(data.extras.get("memory", ())), data.observation, is_first)
        advantage = jax.lax.stop_gradient(counterfactual_advantage(q, jax.nn.softmax(logits), data.action))
        log_prob = distribution.log_prob(logits, distribution.inverse(data.action))
        loss = -weighted_mean(log_prob * advantage, data)
        entropy = weighted_mean(distribution.entropy(logits), data)
        deviation = jnp.sqrt(weighted_mean(jnp.square(advantage), data))  # from 0, the mean under the policy
        metrics = {"policy_loss": loss, "entropy": entropy, "advantage_deviation": deviation}
        return loss - hp.entropy_coefficient * entropy, metrics

    def update(key: Array, state: COMAState, data: Transition) -> tuple[COMAState, Metrics]:
        hp, steps, joint = state.hparams, optimizers(state.hparams), joint_action(data)
        draw_key, shuffle_key = jax.random.split(key)
        read = data._replace(
            **dict.fromkeys(("reward", "terminated", "truncated", "next_observation"), ()),
            extras={name: data.extras[name] for name in ("weight",) if name in data.extras},
        )
        batch = Batch(read, joint, targets(draw_key, state, data))
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

        def minibatch(carry, batch: Batch):
            gradient, metrics = jax.grad(critic_loss, has_aux=True)(carry[0], batch)
            return descend(steps["critic"], gradient, carry[1], carry[0]), metrics

        def epoch(carry, key: Array):
            return jax.lax.scan(minibatch, carry, minibatches(key, batch, num_minibatches))

        carry, keys = (state.params["critic"], state.opt_state["critic"]), jax.random.split(shuffle_key, num_epochs)
        learned, metrics = jax.lax.scan(epoch, carry, keys)
        q = values(learned[0], data.observation, joint)
        gradient, of_policy = jax.grad(policy_loss, has_aux=True)(state.params["policy"], hp, q, data)
        improved = descend(steps["policy"], gradient, state.opt_state["policy"], state.params["policy"])
        params, opt_state = ({"policy": improved[i], "critic": learned[i]} for i in range(2))
        target_params = optax.incremental_update(params["critic"], state.target_params, hp.target_rate)
        return COMAState(hp, params, target_params, opt_state), jax.tree.map(jnp.mean, metrics) | of_policy

    return Agent(init, init_memory, act, act_greedy, update, actor=actor, hparams=hparams)


def counterfactual_advantage(q: Array, probability: Array, action: Array) -> Array:
    """A_i = Q_i(s, a) - sum_k pi_i(k | o_i) Q_i(s, (a_-i, k)), [..., A] (Foerster et al. 2018, equation 4).

    Args:
      q: Q_i(s, (a_-i, .)), [..., A, K].
      probability: pi_i, [..., A, K]; 0 where an action is illegal.
      action: int [..., A].
    """
    return take(q, action) - jnp.sum(probability * q, -1)


def joint_action(data: Transition) -> Array:
    """`data.action` [..., A], with OUT for who is out."""
    return jnp.where(weight(data) > 0, data.action, OUT)


def next_actions(data: Transition, drawn: Array) -> tuple[Array, Array]:
    """What follows on each row, [T, N, A].

    Args:
      data: [T, N, A].
      drawn: actions [T, N, A] at the true successors.

    Returns:
      joint: the joint action of the next row that is there, with OUT for who is out then; `drawn` where the episode or
        the window ends, for those who did not terminate.
      own: the action that bootstraps an agent's value: the same, but `drawn` also where the agent alone was truncated.
    """
    there, last, num_steps = weight(data) > 0, is_last(data), data.reward.shape[0]
    row = jnp.where(jnp.any(there, -1), jnp.arange(num_steps)[:, None], num_steps)
    later = jax.lax.cummin(row, axis=0, reverse=True)  # the first row from here on that is there
    later = jnp.concatenate([later[1:], jnp.full_like(later[:1], num_steps)])[..., None]
    following = jnp.take_along_axis(joint_action(data), jnp.minimum(later, num_steps - 1), 0)
    ends = jnp.all(last | ~there, -1, keepdims=True) | (later == num_steps)
    joint = jnp.where(ends, jnp.where(there & ~data.terminated, drawn, OUT), following)
    return joint, jnp.where(last | (joint == OUT), drawn, joint)


def check_actions(action: PyTree, reward: Array) -> None:
    """Raises ValueError unless there is one number an agent."""
    shapes = [getattr(x, "shape", None) for x in (action, reward)]
    if shapes[0] != shapes[1] or not jnp.issubdtype(action.dtype, jnp.integer):
        raise ValueError(f"coma: actions have shape {shapes[0]}, must be one integer an agent, {shapes[1]}")


def check_critic(critic: Network, params: PyTree, seen: tuple[PyTree, Array], num_actions: int) -> None:
    """Raises ValueError unless the critic is feed-forward, with a value for each agent and action."""
    if jax.tree.leaves(jax.eval_shape(critic.init_memory, params, seen)):
        raise ValueError("coma: the critic has memory, must be feed-forward")
    found, expected = jax.eval_shape(critic.apply, params, (), seen)[1].shape, (*seen[1].shape, num_actions)
    if found != expected:
        raise ValueError(f"coma: the critic's outputs have shape {found}, must be {expected}: [..., A, K]")
