"""Diagnostic environments: each isolates one thing that a learner can get wrong, and has an exact solution.

Seven environments (`probes` lists them with their values and right actions), and the action probes again with illegal
actions and with several discrete actions at once. Every one takes part in two versions, with `Discrete(2)` actions or
with one continuous action in [-1, 1]; observations are float32 vectors; payoffs are traced in `Env.params`.

If an agent fails `constant_reward`, its value loss or optimiser is wrong; `observation_reward`: the value network's
inputs; `discount`: bootstrapping; `action_reward`: the policy's loss; `observation_action_reward`: both together, or
rows that are shuffled apart; `truncation`: the bootstrap at an episode's end; `memory`: the recurrent state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.types import Array, Env, TimeStep

BEST = 0.5  # the best continuous action is BEST, or -BEST where the observation asks for it: well inside [-1, 1]


class Probe(NamedTuple):
    """A diagnostic environment with its exact solution.

    A history [L, D] holds the observations of an episode from its reset until now. A feed-forward agent is asked at
    `history[-1]`; a recurrent one must be fed all of it, since it never meets a later observation first.

    Attributes:
      values: (discount) -> list of (history, value under the best policy).
      right_actions: list of (history, best action); empty where actions do not matter. Actions are Python ints, or
        float32 [1] where continuous.
    """

    env: Env
    values: Callable[[float], list[tuple[np.ndarray, float]]]
    right_actions: list[tuple[np.ndarray, Any]]


class RewardParams(NamedTuple):
    reward: Array  # [] what is paid


class TruncationParams(NamedTuple):
    reward: Array  # [] what a step from B pays
    probability: Array  # [] that a step is the last


class MemoryParams(NamedTuple):
    num_steps: Array  # [] int32, length of an episode


class MemoryState(NamedTuple):
    cue: Array  # [] -1 or 1
    time: Array  # [] int32


def constant_reward(continuous: bool = False) -> Env:
    """One step that pays 1, then termination: V = 1."""

    def reset(key, params):
        return (), _vector(0.0)

    def step(key, state, action, params):
        return (), _timestep(_vector(0.0), params.reward, terminated=True)

    return Env(reset, step, RewardParams(jnp.float32(1.0)), _box(0.0, 1.0), _actions(continuous))


def observation_reward(continuous: bool = False) -> Env:
    """One step that pays the observation, -1 or 1 at random: V(o) = o."""

    def reset(key, params):
        sign = _sign(key)
        return sign, _vector(sign)

    def step(key, sign, action, params):
        return sign, _timestep(_vector(sign), params.reward * sign, terminated=True)

    return Env(reset, step, RewardParams(jnp.float32(1.0)), _box(-1.0, 1.0), _actions(continuous))


def discount(continuous: bool = False) -> Env:
    """Two steps, observations 0 and 1, that pay 0 and 1: V(0) = discount, V(1) = 1."""

    def reset(key, params):
        return jnp.int32(0), _vector(0.0)

    def step(key, time, action, params):
        last = time == 1
        return time + 1, _timestep(_vector(1.0), jnp.where(last, params.reward, 0.0), terminated=last)

    return Env(reset, step, RewardParams(jnp.float32(1.0)), _box(0.0, 1.0), _actions(continuous))


def action_reward(continuous: bool = False) -> Env:
    """One step that pays 1 for action 1 and -1 for action 0; continuous: 1 - 4 (a - 0.5)^2. V = 1."""

    def reset(key, params):
        return (), _vector(0.0)

    def step(key, state, action, params):
        return (), _timestep(_vector(0.0), params.reward * _payoff(action, 1.0, continuous), terminated=True)

    return Env(reset, step, RewardParams(jnp.float32(1.0)), _box(0.0, 1.0), _actions(continuous))


def observation_action_reward(continuous: bool = False) -> Env:
    """One step, observation o = -1 or 1; pays 1 for action (o > 0), else -1; continuous: 1 - 4 (a - o / 2)^2. V = 1."""

    def reset(key, params):
        sign = _sign(key)
        return sign, _vector(sign)

    def step(key, sign, action, params):
        return sign, _timestep(_vector(sign), params.reward * _payoff(action, sign, continuous), terminated=True)

    return Env(reset, step, RewardParams(jnp.float32(1.0)), _box(-1.0, 1.0), _actions(continuous))


def truncation(continuous: bool = False) -> Env:
    """Pays r for ever, in episodes that only the clock ends: V(B) = r / (1 - discount), V(A) = discount V(B).

    State A (observation 0) starts an episode and leads to B (observation 1), which leads to itself. A step from A
    pays 0, one from B pays r = 1. Each step truncates with probability p = 1/2, so that every history is met in the
    middle of an episode too, and a recurrent agent cannot count down. What the classic mistakes learn, with g the
    discount (values of A and B at g = 0.5, where the truth is 1 and 2):

      truncation as termination:   V(B) = r / (1 - g (1 - p)),   V(A) = g (1 - p) V(B)           (0.33, 1.33)
      bootstrap from the reset:    V(A) = g (1 - p) r / (1 - g), V(B) = V(A) + r                 (0.50, 1.50)
    """

    def reset(key, params):
        return jnp.int32(0), _vector(0.0)

    def step(key, state, action, params):
        ends = jax.random.bernoulli(key, params.probability)
        return jnp.int32(1), _timestep(_vector(1.0), jnp.where(state == 1, params.reward, 0.0), truncated=ends)

    return Env(reset, step, TruncationParams(jnp.float32(1.0), jnp.float32(0.5)), _box(0.0, 1.0), _actions(continuous))


def memory(continuous: bool = False, num_steps: int = 4) -> Env:
    """Recall the first observation: it alone shows a cue c = -1 or 1, and the last step pays for the action that fits.

    Observations are [cue or 0, go]; go is 1 before the last step. The last action pays 1 if it is (c > 0), else -1;
    continuous: 1 - 4 (a - c / 2)^2; all other steps pay 0. V = discount^(steps left - 1). Without memory the expected
    return is at most 0.

    Raises:
      ValueError: if num_steps < 2 (there is nothing to remember).
    """
    if num_steps < 2:
        raise ValueError(f"memory: num_steps is {num_steps}, must be >= 2")

    def observe(cue, time, params):
        return jnp.stack([jnp.where(time == 0, cue, 0.0), (time == params.num_steps - 1).astype(jnp.float32)])

    def reset(key, params):
        state = MemoryState(_sign(key), jnp.int32(0))
        return state, observe(*state, params)

    def step(key, state, action, params):
        last = state.time >= params.num_steps - 1
        reward = jnp.where(last, _payoff(action, state.cue, continuous), 0.0)
        state = state._replace(time=state.time + 1)
        return state, _timestep(observe(*state, params), reward, terminated=last)

    space = spaces.Box((-1.0, 0.0), (1.0, 1.0), (2,))
    return Env(reset, step, MemoryParams(jnp.int32(num_steps)), space, _actions(continuous))


def masked_action_reward() -> Env:
    """Actions 0, 1, 2 pay 0, 1/2, 1; where the observation is -1, action 2 is illegal: V(1) = 1, V(-1) = 1/2.

    Observations are {"observation": [1], "action_mask": [3] bool, True where legal}. An illegal action pays too, so
    that whoever forgets the mask takes it, and learns V(-1) = 1.
    """

    def observe(sign):
        return {"observation": _vector(sign), "action_mask": jnp.array([True, True, False]).at[2].set(sign > 0)}

    def reset(key, params):
        sign = _sign(key)
        return sign, observe(sign)

    def step(key, sign, action, params):
        return sign, _timestep(observe(sign), params.reward * action / 2, terminated=True)

    space = spaces.Dict({"observation": _box(-1.0, 1.0), "action_mask": spaces.Box(0, 1, (3,), "bool")})
    return Env(reset, step, RewardParams(jnp.float32(1.0)), space, spaces.Discrete(3))


def multi_discrete_action_reward() -> Env:
    """One step, observation o = -1 or 1, actions in 2 x 3; pays the fraction of entries that are right. V = 1.

    The right action is [1, 2] where o = 1, [0, 1] where o = -1.
    """

    def reset(key, params):
        sign = _sign(key)
        return sign, _vector(sign)

    def step(key, sign, action, params):
        right = jnp.where(sign > 0, jnp.array([1, 2]), jnp.array([0, 1]))
        return sign, _timestep(_vector(sign), params.reward * jnp.mean(action == right), terminated=True)

    return Env(reset, step, RewardParams(jnp.float32(1.0)), _box(-1.0, 1.0), spaces.MultiDiscrete((2, 3)))


def probes(continuous: bool = False) -> dict[str, Probe]:
    """The seven diagnostic environments by name, with exact values and right actions."""
    zero, one, minus, plus = (np.array(h, np.float32) for h in ([[0]], [[0], [1]], [[-1]], [[1]]))

    def right(sign):
        return np.array([sign * BEST], np.float32) if continuous else int(sign > 0)

    def recall(cue, length):  # the first `length` observations of the memory probe of 4 steps
        return np.array([[cue, 0], [0, 0], [0, 0], [0, 1]], np.float32)[:length]

    recalls = [(cue, length) for cue in (-1, 1) for length in (1, 2, 3, 4)]
    return {
        "constant_reward": Probe(constant_reward(continuous), lambda g: [(zero, 1.0)], []),
        "observation_reward": Probe(observation_reward(continuous), lambda g: [(minus, -1.0), (plus, 1.0)], []),
        "discount": Probe(discount(continuous), lambda g: [(zero, g), (one, 1.0)], []),
        "action_reward": Probe(action_reward(continuous), lambda g: [(zero, 1.0)], [(zero, right(1))]),
        "observation_action_reward": Probe(
            observation_action_reward(continuous),
            lambda g: [(minus, 1.0), (plus, 1.0)],
            [(minus, right(-1)), (plus, right(1))],
        ),
        "truncation": Probe(truncation(continuous), lambda g: [(zero, g / (1 - g)), (one, 1 / (1 - g))], []),
        "memory": Probe(
            memory(continuous),
            lambda g: [(recall(*r), g ** (4 - r[1])) for r in recalls],
            [(recall(cue, 4), right(cue)) for cue in (-1, 1)],
        ),
    }


def _actions(continuous: bool) -> spaces.Space:
    return spaces.Box(-1.0, 1.0, (1,)) if continuous else spaces.Discrete(2)


def _payoff(action: Array, sign: Array | float, continuous: bool) -> Array:
    """1 for the right action; 1 - 4 (a - sign / 2)^2 at a continuous one, which is 0 on average for a guess of 0."""
    if continuous:
        return 1.0 - jnp.square((action[0] - sign * BEST) / BEST)
    return jnp.where(action == (jnp.asarray(sign) > 0), 1.0, -1.0)


def _timestep(observation: Any, reward: Array, terminated: Any = False, truncated: Any = False) -> TimeStep:
    return TimeStep(observation, jnp.float32(reward), jnp.asarray(terminated), jnp.asarray(truncated))


def _box(low: float, high: float) -> spaces.Box:
    return spaces.Box(low, high, (1,))


def _sign(key: Array) -> Array:
    """-1 or 1, equally likely."""
    return jax.random.rademacher(key, (), jnp.float32)


def _vector(x: Array | float) -> Array:
    return jnp.full((1,), x, jnp.float32)
