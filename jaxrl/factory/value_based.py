"""Builders of learners of discrete action values."""

from __future__ import annotations

from jaxrl import action_values, losses, networks
from jaxrl.action_values import ActionValues
from jaxrl.agents.discrete_sac import discrete_sac
from jaxrl.agents.dqn import dqn
from jaxrl.agents.pqn import pqn
from jaxrl.agents.r2d2 import r2d2
from jaxrl.distributions import for_space
from jaxrl.factory.parts import actor_space, critic_space, default_policy, default_torso
from jaxrl.spaces import Discrete, Space
from jaxrl.types import Agent, Env, Network

LOSSES = {"squared": losses.squared, "huber": losses.huber}


def build_dqn(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    layer_norm: bool = False,
    distribution: str = "scalar",
    num_atoms: int = 51,
    low: float = -10.0,
    high: float = 10.0,
    num_quantiles: int = 32,
    num_samples: int = 8,
    num_heads: int = 32,
    dueling: bool = False,
    rescale: bool = False,
    loss: str = "squared",
    double: bool = True,
    constrained: bool = False,
    next_action: str = "greedy",
    target_period: int = 1,
) -> Agent:
    """DQN, QR-DQN, C51, IQN, REM, discrete CQL (`hparams.conservative`), BCQ, BVE, MCE and CRR.

    Args:
      widths: of the hidden layers.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      layer_norm: normalise the hidden layers before their activation.
      distribution: of returns: scalar (the mean alone), categorical (C51), quantile (QR-DQN), implicit_quantile (IQN),
        or random_mixture (REM).
      num_atoms: of categorical.
      low: the least return of categorical.
      high: the largest return of categorical.
      num_quantiles: of quantile; of implicit_quantile, those that actions are chosen by.
      num_samples: of implicit_quantile, random levels in the loss.
      num_heads: of random_mixture.
      dueling: value and advantage streams, each with a hidden layer of widths[-1] (64 of implicit_quantile).
      rescale: learn values on the scale sign(x) (sqrt(|x| + 1) - 1), for large returns; not of categorical.
      loss: of TD errors where values are numbers: squared or huber.
      double: choose the next action by the learning parameters.
      constrained: fit a policy to the data, and choose only actions that it is likely to take (BCQ).
      next_action: greedy; data (BVE), the data's `next_action`; behavior, drawn from the policy of `constrained` (CRR,
        with `hparams.inverse_temperature` 1 and `hparams.threshold` 1); none (MCE), values are the data's `mc_return`.
      target_period: updates between two of the target.
    """
    hidden = _torso_widths(widths, distribution, dueling)
    values = default_action_values(
        default_torso(actor_space(env.observation_space), hidden, activation, channels, layer_norm=layer_norm),
        env.action_space,
        distribution,
        dueling=dueling,
        rescale=rescale,
        loss=loss,
        num_atoms=num_atoms,
        low=low,
        high=high,
        num_quantiles=num_quantiles,
        num_samples=num_samples,
        num_heads=num_heads,
    )
    behavior = None
    if constrained:
        torso = default_torso(actor_space(env.observation_space), widths, activation, channels)
        behavior = default_policy(env.observation_space, torso, for_space(env.action_space))
    return dqn(values, double=double, behavior=behavior, next_action=next_action, target_period=target_period)


def default_action_values(
    torso: Network,
    space: Space,
    distribution: str,
    *,
    dueling: bool = False,
    rescale: bool = False,
    loss: str = "squared",
    num_atoms: int = 51,
    low: float = -10.0,
    high: float = 10.0,
    num_quantiles: int = 32,
    num_samples: int = 8,
    num_heads: int = 32,
) -> ActionValues:
    """Action values on `torso`; arguments as in `build_dqn`.

    Raises:
      ValueError: for other spaces than `Discrete`, an unknown `distribution` or `loss`, or what a distribution has not.
    """
    if not isinstance(space, Discrete):
        raise ValueError(f"action values: the action space is {space}, must be Discrete")
    if loss not in LOSSES:
        raise ValueError(f"action values: loss is {loss!r}, allowed: {', '.join(LOSSES)}")
    if rescale and distribution in ("categorical", "random_mixture"):
        raise ValueError(f"action values: rescale is True, but {distribution} has no scale to learn on")
    if dueling and distribution == "random_mixture":
        raise ValueError("action values: dueling is True, but random_mixture has one stream")
    choices = {
        "scalar": lambda **k: action_values.scalar(dueling=dueling, rescale=rescale, loss=LOSSES[loss], **k),
        "categorical": lambda **k: action_values.categorical(
            num_atoms=num_atoms, low=low, high=high, dueling=dueling, **k
        ),
        "quantile": lambda **k: action_values.quantile(
            num_quantiles=num_quantiles, dueling=dueling, rescale=rescale, **k
        ),
        "implicit_quantile": lambda **k: action_values.implicit_quantile(
            num_samples=num_samples,
            num_greedy=num_quantiles,
            widths=(128 if dueling else 64,),
            dueling=dueling,
            rescale=rescale,
            **k,
        ),
        "random_mixture": lambda **k: action_values.random_mixture(num_heads=num_heads, loss=LOSSES[loss], **k),
    }
    if distribution not in choices:
        raise ValueError(f"action values: distribution is {distribution!r}, allowed: {', '.join(choices)}")
    return choices[distribution](torso=torso, num_actions=space.n, dtype=space.dtype)


def _torso_widths(widths: tuple[int, ...], distribution: str, dueling: bool) -> tuple[int, ...]:
    """With room for two streams in the last layer, where no hidden layer of the head follows."""
    return (*widths[:-1], 2 * widths[-1]) if dueling and distribution != "implicit_quantile" else widths


def build_pqn(
    env: Env,
    *,
    widths: tuple[int, ...] = (128, 128),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    layer_norm: bool = True,
    recurrent: bool = False,
    memory_size: int = 64,
    distribution: str = "scalar",
    num_atoms: int = 51,
    low: float = -10.0,
    high: float = 10.0,
    num_quantiles: int = 32,
    dueling: bool = False,
    num_epochs: int = 2,
    num_minibatches: int = 4,
) -> Agent:
    """PQN: Q(lambda) on rollouts of many environments, without replay or target network.

    Args:
      widths: of the hidden layers.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      layer_norm: normalise the layers before their activation; what keeps PQN stable.
      recurrent: put a GRU after the hidden layers.
      memory_size: of the GRU.
      distribution: of returns: scalar, categorical, quantile, implicit_quantile or random_mixture.
      num_atoms: of categorical.
      low: the least return of categorical.
      high: the largest return of categorical.
      num_quantiles: of quantile; of implicit_quantile, those that actions are chosen by.
      dueling: value and advantage streams.
      num_epochs: passes over each rollout.
      num_minibatches: per epoch; divides num_envs * unroll_length, or num_envs where recurrent.
    """
    hidden = _torso_widths(widths, distribution, dueling and not recurrent)
    torso = default_torso(actor_space(env.observation_space), hidden, activation, channels, layer_norm=layer_norm)
    values = default_action_values(
        networks.sequential(torso, networks.gru(memory_size)) if recurrent else torso,
        env.action_space,
        distribution,
        dueling=dueling,
        num_atoms=num_atoms,
        low=low,
        high=high,
        num_quantiles=num_quantiles,
    )
    return pqn(values, num_epochs=num_epochs, num_minibatches=num_minibatches)


def build_r2d2(
    env: Env,
    *,
    widths: tuple[int, ...] = (64,),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    layer_norm: bool = False,
    memory_size: int = 64,
    distribution: str = "scalar",
    num_atoms: int = 51,
    low: float = -10.0,
    high: float = 10.0,
    num_quantiles: int = 32,
    dueling: bool = True,
    rescale: bool = True,
    td_steps: int = 5,
    burn_in: int = 0,
    target_period: int = 1,
) -> Agent:
    """R2D2: double Q-learning of a recurrent network on sequences.

    Args:
      widths: of the hidden layers before the GRU.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      layer_norm: normalise the hidden layers before their activation.
      memory_size: of the GRU.
      distribution: of returns: scalar, categorical, quantile, implicit_quantile or random_mixture.
      num_atoms: of categorical.
      low: the least return of categorical.
      high: the largest return of categorical.
      num_quantiles: of quantile; of implicit_quantile, those that actions are chosen by.
      dueling: value and advantage streams, each reading one half of the memory.
      rescale: learn values on the scale sign(x) (sqrt(|x| + 1) - 1); not of categorical.
      td_steps: rewards in a target, within its sequence.
      burn_in: rows at the start of a sequence that only refresh the memory.
      target_period: updates between two of the target.
    """
    torso = default_torso(actor_space(env.observation_space), widths, activation, channels, layer_norm=layer_norm)
    values = default_action_values(
        networks.sequential(torso, networks.gru(memory_size)),
        env.action_space,
        distribution,
        dueling=dueling,
        rescale=rescale,
        num_atoms=num_atoms,
        low=low,
        high=high,
        num_quantiles=num_quantiles,
    )
    return r2d2(values, num_steps=td_steps, burn_in=burn_in, target_period=target_period)


def build_discrete_sac(
    env: Env,
    *,
    widths: tuple[int, ...] = (64, 64),
    activation: str = "relu",
    channels: tuple[int, ...] = (16,),
    layer_norm: bool = False,
    distribution: str = "scalar",
    num_atoms: int = 51,
    low: float = -10.0,
    high: float = 10.0,
    num_quantiles: int = 32,
    dueling: bool = False,
    num_critics: int = 2,
) -> Agent:
    """SAC for finitely many actions, with separate networks for the policy and the critics.

    Args:
      widths: of the hidden layers of each.
      activation: tanh, relu, elu, swish or gelu.
      channels: of the convolutions before them, where observations are images [H, W, C].
      layer_norm: normalise the hidden layers of the critics before their activation.
      distribution: of the critics' returns: scalar, categorical, quantile, implicit_quantile or random_mixture.
      num_atoms: of categorical.
      low: the least return of categorical.
      high: the largest return of categorical.
      num_quantiles: of quantile; of implicit_quantile, those that values are computed by.
      dueling: value and advantage streams in the critics.
      num_critics: whose minimum is taken.
    """
    space = env.observation_space
    hidden = _torso_widths(widths, distribution, dueling)
    values = default_action_values(
        default_torso(critic_space(space), hidden, activation, channels, layer_norm=layer_norm),
        env.action_space,
        distribution,
        dueling=dueling,
        num_atoms=num_atoms,
        low=low,
        high=high,
        num_quantiles=num_quantiles,
    )
    torso = default_torso(actor_space(space), widths, activation, channels)
    policy = default_policy(space, torso, for_space(env.action_space))
    return discrete_sac(policy, values, num_critics=num_critics)
