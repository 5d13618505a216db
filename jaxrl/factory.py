"""`make_agent`: the default networks and settings for an environment, as the command line uses them."""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp

from jaxrl import distributions, networks, presets
from jaxrl.agents.ppo import ppo
from jaxrl.combinators.normalize import normalize_observations as with_normalized_observations
from jaxrl.combinators.transform import with_transform
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Space
from jaxrl.transforms import normalize_reward as reward_normalizer
from jaxrl.tree import field_names, replace_fields
from jaxrl.types import Agent, Env, Network, Policy, PyTree


def make_agent(name: str, env: Env, *, preset: str | None = None, **static: Any) -> tuple[Agent, PyTree]:
    """An agent for an environment.

    Args:
      name: one of `AGENTS`.
      preset: name of an environment whose tuned settings are taken (`jaxrl.presets`); None takes the defaults.
      **static: keywords of the builder (`widths=(256, 256)`, `recurrent=True`, `num_epochs=8`), over the preset's.

    Returns:
      agent, hparams (the agent's defaults with the preset's numbers).

    Raises:
      ValueError: an unknown agent, keyword or preset, or a space that the agent has no default network for.
    """
    if name not in AGENTS:
        raise ValueError(f"make_agent: no agent is called {name!r}; there are {', '.join(AGENTS)}")
    tuned = presets.lookup(name, preset) if preset is not None else {}
    build = AGENTS[name]
    allowed = static_arguments(build)
    for keyword in static:
        if keyword not in allowed:
            raise ValueError(f"make_agent: {name} has no argument {keyword!r}; it has {', '.join(allowed)}")
    agent = build(env, **{**{k: v for k, v in tuned.items() if k in allowed}, **static})
    # A static choice may leave out a part that the preset has numbers for (`normalize_reward=False`).
    numbers = {k: v for k, v in tuned.get("hparams", {}).items() if k in field_names(agent.hparams)}
    return agent, replace_fields(agent.hparams, **numbers)


def static_arguments(build: Callable) -> dict[str, Any]:
    """The keyword arguments of a builder and their defaults."""
    return dict(build.__kwdefaults__ or {})


def build_ppo(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "tanh",
    channels: tuple[int, ...] = (16,),
    recurrent: bool = False,
    memory_size: int = 64,
    squash: bool = False,
    normalize_observation: bool = False,
    normalize_reward: bool = False,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    normalize_advantage: str = "minibatch",
    kl_early_stop: bool = False,
) -> Agent:
    """PPO with separate actor and critic networks.

    Args:
      widths: of the hidden layers of the actor and of the critic.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      recurrent: put a GRU after the hidden layers of both.
      memory_size: of the GRU.
      squash: continuous actions through tanh, instead of clipping.
      normalize_observation: standardise observations by running moments.
      normalize_reward: divide rewards by the running deviation of returns.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides num_envs * unroll_length, or num_envs where recurrent.
      normalize_advantage: over each minibatch, over the batch, or none.
      kl_early_stop: skip the rest of an update past hparams.target_kl.
    """

    def torso() -> Network:
        encoder = default_torso(env.observation_space, widths, activation, channels)
        return networks.sequential(encoder, networks.gru(memory_size)) if recurrent else encoder

    distribution = distributions.for_space(env.action_space, squash=squash)
    agent = ppo(
        default_policy(env.observation_space, torso(), distribution),
        networks.critic(torso()),
        num_epochs=num_epochs,
        num_minibatches=num_minibatches,
        normalize_advantage=normalize_advantage,
        kl_early_stop=kl_early_stop,
    )
    if normalize_reward:
        agent = with_transform(agent, reward_normalizer())
    return with_normalized_observations(agent) if normalize_observation else agent


AGENTS: dict[str, Callable[..., Agent]] = {"ppo": build_ppo}


def default_torso(space: Space, widths: tuple[int, ...], activation: str, channels: tuple[int, ...]) -> Network:
    """An MLP for vectors, a CNN for images [H, W, C]; Discrete is one-hot; Dict and Tuple of vectors are joined.

    A key "action_mask" of a Dict is for the policy's logits and is left out.
    """
    if isinstance(space, Box) and len(space.shape) == 3:
        return networks.cnn(channels=channels, widths=widths, activation=activation)
    return networks.view(networks.mlp(widths, activation=activation), vector_view(space))


def default_policy(space: Space, torso: Network, distribution: Any) -> Policy:
    """A head on `torso`; logits are masked where observations have an "action_mask"."""
    policy = networks.policy(torso, distribution)
    if not (isinstance(space, Dict) and "action_mask" in space.spaces):
        return policy
    return networks.masked(policy, observation=None)


def vector_view(space: Space) -> Callable[[PyTree], jax.Array]:
    """observation [..., *space] -> vector [..., D].

    Raises:
      ValueError: for an image inside of a Dict or Tuple.
    """
    if isinstance(space, Discrete):
        return lambda x: jax.nn.one_hot(x, space.n)
    if isinstance(space, MultiDiscrete):
        return lambda x: jnp.concatenate([jax.nn.one_hot(x[..., i], n) for i, n in enumerate(space.nvec)], -1)
    if isinstance(space, Box):
        rank = len(space.shape)
        return lambda x: x.astype(jnp.float32).reshape(*x.shape[: x.ndim - rank], -1)
    items = space.items if isinstance(space, Dict) else tuple(enumerate(space.spaces))
    views = [(name, vector_view(inner)) for name, inner in items if name != "action_mask"]
    return lambda x: jnp.concatenate([view(x[name]) for name, view in views], -1)
