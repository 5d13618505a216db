"""Exploration as parts: what becomes of the actions of a greedy agent, on schedules of environment steps.

`with_exploration(agent, epsilon_greedy(space))` puts one on an agent; several nest.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.spaces import Box, Discrete, Repeated, Space
from jaxrl.types import Array, PyTree, no_memory


class Exploration(NamedTuple):
    """A way of exploring.

    Attributes:
      apply: (key, hparams, num_steps, memory, action, observation) -> memory, action; leaves [N, ...]. num_steps: []
        float32, environment steps so far, all environments together.
      init_memory: (key, hparams, observation) -> memory [N] at the start of an episode.
      hparams: defaults.
    """

    apply: Any
    init_memory: Any = no_memory
    hparams: PyTree = ()


class EpsilonGreedyHparams(NamedTuple):
    """Numbers of `epsilon_greedy`."""

    epsilon_start: float = 1.0  # [0, 1]
    epsilon_end: float = 0.05  # [0, 1]
    epsilon_steps: float = 10_000.0  # environment steps over which epsilon moves linearly from start to end


def epsilon_greedy(
    space: Space,
    *,
    legal: Callable[[PyTree], Array] | None = None,
    hparams: EpsilonGreedyHparams = EpsilonGreedyHparams(),
) -> Exploration:
    """With probability epsilon a uniform action instead of the agent's (Watkins 1989; Mnih et al. 2015).

    Of `Repeated` actions each is explored by itself.

    Args:
      space: any space of actions.
      legal: observation [N, ...] -> mask [N, n] of a `Discrete` space ([N, A, n] of a `Repeated` one): what is
        sampled from; None: everything.

    Raises:
      ValueError: if `legal` is given for a space that is not `Discrete`.
    """
    each = (space.num,) if isinstance(space, Repeated) else ()
    draw = _uniform("epsilon_greedy", space, legal)

    def apply(key: Array, hp: EpsilonGreedyHparams, num_steps: Array, memory: PyTree, action: PyTree, observation):
        whether_key, action_key = jax.random.split(key)
        done = jnp.clip(num_steps / jnp.maximum(hp.epsilon_steps, 1.0), 0.0, 1.0)
        epsilon = hp.epsilon_start + done * (hp.epsilon_end - hp.epsilon_start)
        explores = jax.random.uniform(whether_key, (_num_envs(action), *each)) < epsilon
        return memory, _where(explores, draw(action_key, action, observation), action)

    return Exploration(apply, hparams=hparams)


class WarmUpHparams(NamedTuple):
    """Numbers of `warm_up`."""

    warm_up_steps: float = 1_000.0  # environment steps of uniform actions before the agent's own


def warm_up(
    space: Space, *, legal: Callable[[PyTree], Array] | None = None, hparams: WarmUpHparams = WarmUpHparams()
) -> Exploration:
    """Uniform actions for the first `warm_up_steps`; arguments as in `epsilon_greedy`."""
    draw = _uniform("warm_up", space, legal)

    def apply(key: Array, hp: WarmUpHparams, num_steps: Array, memory: PyTree, action: PyTree, observation: PyTree):
        key = jax.random.clone(key)  # exploration inside may have drawn from it too; of the two, one action is used
        return memory, _where(num_steps < hp.warm_up_steps, draw(key, action, observation), action)

    return Exploration(apply, hparams=hparams)


class GaussianHparams(NamedTuple):
    """Numbers of `gaussian`."""

    noise: float = 0.1  # standard deviation, in halves of the range of each action


def gaussian(space: Box, *, hparams: GaussianHparams = GaussianHparams()) -> Exploration:
    """clip(action + noise * half_range * N(0, 1), low, high) (Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477).

    Raises:
      ValueError: if `space` is not a bounded `Box`.
    """
    low, high = _bounds("gaussian", space)

    def apply(key: Array, hp: GaussianHparams, num_steps: Array, memory: PyTree, action: Array, observation: PyTree):
        noise = hp.noise * (high - low) / 2 * jax.random.normal(key, action.shape)
        return memory, jnp.clip(action + noise, low, high)

    return Exploration(apply, hparams=hparams)


class OrnsteinUhlenbeckHparams(NamedTuple):
    """Numbers of `ornstein_uhlenbeck`."""

    noise: float = 0.2  # sigma, in halves of the range of each action
    reversion: float = 0.15  # [0, 1], theta: the part of the noise that a step takes away


def ornstein_uhlenbeck(space: Box, *, hparams: OrnsteinUhlenbeckHparams = OrnsteinUhlenbeckHparams()) -> Exploration:
    """Noise x <- x - reversion x + noise N(0, 1), correlated in time; 0 at the start of each episode.

    Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971. Raises as `gaussian`.
    """
    low, high = _bounds("ornstein_uhlenbeck", space)

    def init_memory(key: Array, hp: OrnsteinUhlenbeckHparams, observation: PyTree) -> Array:
        del key, hp
        return jnp.zeros((_num_envs(observation), *space.shape))

    def apply(key: Array, hp: OrnsteinUhlenbeckHparams, num_steps: Array, memory: Array, action: Array, observation):
        x = (1.0 - hp.reversion) * memory + hp.noise * jax.random.normal(key, memory.shape)
        return x, jnp.clip(action + (high - low) / 2 * x, low, high)

    return Exploration(apply, init_memory, hparams)


def _uniform(name: str, space: Space, legal: Callable | None) -> Callable:
    """(key, action [N, ...], observation [N, ...]) -> uniform actions [N, ...]"""
    if legal is None:
        return lambda key, action, observation: space.sample(key, (_num_envs(action),))
    if not isinstance(space.space if isinstance(space, Repeated) else space, Discrete):
        raise ValueError(f"{name}: legal is given for {space}; only a Discrete space has a mask over its actions")

    def draw(key: Array, action: Array, observation: PyTree) -> Array:
        logits = jnp.where(legal(observation), 0.0, -1e9)
        return jax.random.categorical(key, logits).astype(action.dtype)

    return draw


def _bounds(name: str, space: Any) -> tuple[Array, Array]:
    space = space.space if isinstance(space, Repeated) else space  # the same for each of several
    if not (isinstance(space, Box) and space.bounded):
        raise ValueError(f"{name}: the action space is {space}, must be a bounded Box")
    return space.bounds()


def _num_envs(tree: PyTree) -> int:
    return jax.tree.leaves(tree)[0].shape[0]


def _where(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Selects rows (condition [N] or [N, A]) or everything (condition [])."""

    def where(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (b.ndim - condition.ndim)), a, b).astype(b.dtype)

    return jax.tree.map(where, on_true, on_false)
