"""Joint policies of agents who see what some of the others do before they act: Bayesian networks over their actions.

    pi(a | s) = prod_i pi_i(a_i | o_i, {(o_j, a_j): j in parents(i)}),   parents in a graph without cycles

(Chen and Zhang 2023, https://arxiv.org/abs/2306.01920). The gradient of such a policy is that of one agent, summed over
agents, so that a learner of log-probabilities [..., A] learns it as it is, and with it the graph.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.distributions import ILLEGAL
from jaxrl.types import Array, Distribution, PyTree


class Parts(NamedTuple):
    """Outputs [..., A, num_params] of a network, cut into what they are for."""

    logits: Array  # [..., A, K] of an agent that sees nobody's action
    hidden: Array  # [..., A, H] what it adds to what it is told
    read: Array  # [..., A, H, K] how that becomes logits
    message: Array  # [..., A, K, H] what it tells of itself and of each of its actions
    attention: Array  # [..., A, A, H] how agent i takes what agent j tells
    edge: Array  # [..., A, A] log odds of an edge into i from j, where j is before i
    order: Array  # [..., A] agents with larger numbers are before others


def size_of(num_agents: int, num_actions: int, size: int) -> int:
    """Outputs an agent, for messages of `size` entries."""
    return num_actions + size + 2 * size * num_actions + num_agents * size + num_agents + 1


def parts(params: Array, num_actions: int, size: int) -> Parts:
    """Outputs [..., A, num_params], cut.

    Before anything is learned an action is told one-hot, taken as it is told, and read as nothing: the graph then does
    not change the policy.
    """
    num, lead = params.shape[-2], params.shape[:-1]
    lengths = (num_actions, size, size * num_actions, num_actions * size, num * size, num, 1)
    logits, hidden, read, message, attention, edge, order = jnp.split(params, np.cumsum(lengths)[:-1].tolist(), -1)
    told = (np.arange(size)[None, :] % num_actions == np.arange(num_actions)[:, None]).astype(np.float32)
    return Parts(
        logits,
        hidden,
        read.reshape(*lead, size, num_actions),
        told + message.reshape(*lead, num_actions, size),
        1.0 + attention.reshape(*lead, num, size),
        edge,
        order[..., 0],
    )


def sample_graph(edge: Array, order: Array, edge_noise: Array, order_noise: Array, temperature: float) -> Array:
    """A graph without cycles: [..., A, A], 1.0 at [i, j] where j is a parent of i, exactly, with a gradient.

        G_ij = 1[order_j + g_j > order_i + g_i] 1[edge_ij + l_ij > 0]     g Gumbel, l logistic noise

    The order is drawn from the model of Plackett and Luce: P(j before i) = sigmoid(order_j - order_i). The gradient is
    that of both comparisons as sigmoids (straight through), as where graphs are made of permutations (Charpentier et
    al. 2022, https://arxiv.org/abs/2203.08509). Of equal numbers the smaller index is first.
    """
    place = order + order_noise
    ahead = place[..., None, :] - place[..., :, None]
    index = np.arange(order.shape[-1])
    before = (ahead > 0) | ((ahead == 0) & (index[None, :] < index[:, None]))
    odds = edge + edge_noise
    exact = (before & (odds > 0)).astype(jnp.float32)
    smooth = jax.nn.sigmoid(ahead / temperature) * jax.nn.sigmoid(odds / temperature) * (1.0 - np.eye(len(index)))
    return exact + (smooth - jax.lax.stop_gradient(smooth))


def density(params: Array, num_actions: int, size: int) -> Array:
    """Expected edges over A (A - 1) / 2, the most that there can be: [..., A], the same for all agents of a row."""
    of = parts(params, num_actions, size)
    before = jax.nn.sigmoid(of.order[..., None, :] - of.order[..., :, None])
    num = params.shape[-2]
    edges = before * jax.nn.sigmoid(of.edge) * (1.0 - np.eye(num))
    share = jnp.sum(edges, (-2, -1)) / max(num * (num - 1) / 2, 1)
    return jnp.broadcast_to(share[..., None], params.shape[:-1])


def bayesian_network(
    num_agents: int,
    num_actions: int,
    *,
    size: int = 16,
    temperature: float = 1.0,
    edges: bool = True,
    dtype: Any = jnp.int32,
) -> Distribution:
    """A joint policy over actions [..., A] in 0 .. K - 1; all of its functions of params [..., A, num_params].

        logits_i = l_i + R_i [tanh(h_i + sum_j G_ij c_ij * m_j(a_j)) - tanh(h_i)]

    with all of l, R, h, c, m and the graph made by a network: weights of one hidden layer, as a mixer of QMIX has them.
    A raw sample is {"action": [..., A], "edge_noise": [..., A, A], "order_noise": [..., A]}: the graph is part of what
    was drawn, so that the ratio of two policies is that on the same noise, and 1 where they are equal.

    `log_prob` and `entropy` are those of each agent given its parents in raw, [..., A]; summed over agents they are the
    log-probability of the joint action given the noise, and an unbiased estimate of its entropy. `mode` takes the graph
    without noise, of edges that are likelier than not, and the likeliest actions one after another.

    Args:
      num_agents: A.
      num_actions: K.
      size: H, entries of a message.
      temperature: > 0, of the gradient of the graph.
      edges: False: nobody sees what others do (the same params, executed apart).

    Raises:
      ValueError: for counts below 1; from `kl`, which has no closed form.
    """
    for name, value in (("num_agents", num_agents), ("num_actions", num_actions), ("size", size)):
        if value < 1:
            raise ValueError(f"bayesian_network: {name} is {value}, must be >= 1")

    def graph(of: Parts, raw: PyTree) -> Array:
        drawn = sample_graph(of.edge, of.order, raw["edge_noise"], raw["order_noise"], temperature)
        return drawn if edges else jnp.zeros_like(drawn)

    def logits(of: Parts, drawn: Array, action: Array) -> Array:
        told = jnp.sum(jax.nn.one_hot(action, num_actions)[..., None] * of.message, -2)  # [..., A, H]
        heard = jnp.sum(drawn[..., None] * of.attention * told[..., None, :, :], -2)
        change = jnp.tanh(of.hidden + heard) - jnp.tanh(of.hidden)
        return of.logits + jnp.sum(change[..., None] * of.read, -2)

    def choose(of: Parts, raw: PyTree, noise: Array) -> PyTree:
        """Each action is the largest of logits + noise, given the parents' actions: after as many rounds as the longest
        path of the graph has agents, nothing changes any more."""
        drawn = graph(of, raw)

        def again(_, action: Array) -> Array:
            return jnp.argmax(logits(of, drawn, action) + noise, -1).astype(dtype)

        return raw | {"action": jax.lax.fori_loop(0, num_agents, again, raw["action"])}

    def without_noise(action: Array) -> PyTree:
        noise = jnp.zeros(action.shape, jnp.float32)
        edge_noise = jnp.broadcast_to(noise[..., None], (*action.shape, num_agents))
        return {"action": action, "edge_noise": edge_noise, "order_noise": noise}

    def sample(key: Array, params: Array) -> PyTree:
        of = parts(params, num_actions, size)
        keys = jax.random.split(key, 3)
        raw = without_noise(jnp.zeros(params.shape[:-1], dtype))
        raw["edge_noise"] = jax.random.logistic(keys[0], raw["edge_noise"].shape)
        raw["order_noise"] = jax.random.gumbel(keys[1], raw["order_noise"].shape)
        return choose(of, raw, jax.random.gumbel(keys[2], of.logits.shape))

    def mode(params: Array) -> PyTree:
        of = parts(params, num_actions, size)
        return choose(of, without_noise(jnp.zeros(params.shape[:-1], dtype)), jnp.zeros(()))

    def conditional(params: Array, raw: PyTree) -> Array:
        of = parts(params, num_actions, size)
        return jax.nn.log_softmax(logits(of, graph(of, raw), raw["action"]), -1)

    def log_prob(params: Array, raw: PyTree) -> Array:
        chosen = raw["action"][..., None] == jnp.arange(num_actions)
        return jnp.sum(jnp.where(chosen, conditional(params, raw), 0.0), -1)

    def entropy(params: Array, raw: PyTree) -> Array:
        log_p = conditional(params, raw)
        return -jnp.sum(jnp.exp(log_p) * log_p, -1)

    def kl(params: Array, other: Array) -> Array:
        raise ValueError("bayesian_network: the divergence of two joint policies has no closed form")

    return Distribution(
        size_of(num_agents, num_actions, size),
        0,
        sample,
        mode,
        log_prob,
        entropy,
        kl,
        transform=lambda raw: raw["action"],
        inverse=without_noise,
    )


def mask_params(params: Array, mask: Array) -> Array:
    """Params [..., A, num_params] with probability 0 for actions that mask [..., A, K] does not allow."""
    num_actions = mask.shape[-1]
    return jnp.concatenate([jnp.where(mask, params[..., :num_actions], ILLEGAL), params[..., num_actions:]], -1)
