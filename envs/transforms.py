"""Environment -> environment: clocks, observations, actions, rewards, noise.

A transform is applied by calling it, and composed by calling the next on the result:

    env = frame_stack(scale_action(time_limit(env, 200)), num=4)

All keep the true successor and the two kinds of ends apart, leave `Env.params` what it was (so that `vmap` over it is
still domain randomisation), and hand the inner environment the caller's key untouched: a transform that does nothing
(noise of 0, a repeat of 1) is the identity to the bit. For that reason noise of one kind is applied once: the same
transform twice would draw the same numbers twice. Numbers may be traced where they do not change a shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import spaces
from jaxrl.envs import parts
from jaxrl.types import Array, Env, PyTree, is_last

# A transform draws its own randomness from fold_in(key, its salt).
_REPEAT, _OBSERVATION_NOISE, _ACTION_NOISE, _STICKY = range(0x7A5EED, 0x7A5EED + 4)


class TimeLimitState(NamedTuple):
    env: PyTree  # the state of the environment inside
    time: Array  # [] int32, steps since the reset


class FrameStackState(NamedTuple):
    env: PyTree
    frames: PyTree  # the stacked observation


class StickyState(NamedTuple):
    env: PyTree
    action: PyTree  # the last one executed
    is_first: Array  # [] bool


# Time and reward -----------------------------------------------------------------------------------------------------


def time_limit(env: Env, max_steps: int) -> Env:
    """Truncates an episode after `max_steps` steps; where it terminates in that step, termination wins.

    Raises:
      ValueError: max_steps < 1.
    """
    parts.require(max_steps, lambda x: x >= 1, "time_limit: max_steps", "must be >= 1")

    def reset(key, params):
        state, observation = env.reset(key, params)
        return TimeLimitState(state, jnp.int32(0)), observation

    def step(key, state, action, params):
        inner, timestep = env.step(key, state.env, action, params)
        time = state.time + 1
        truncated = (timestep.truncated | (time >= max_steps)) & ~timestep.terminated
        return TimeLimitState(inner, time), timestep._replace(truncated=truncated)

    return env._replace(reset=reset, step=step, render=parts.render_inner(env))


def repeat_action(env: Env, num: int, *, discount: float | None = None) -> Env:
    """Executes each action `num` times, fewer where the episode ends within them.

    Without `discount`, the reward is the sum and a decision counts as one step (as with frame skipping in Atari). With
    it, reward = sum_k discount^k r_k and `extras["num_steps"]` is how many steps were executed, so that learners see
    the semi-Markov process exactly: their discount must be the same number. Other extras are those of the last step.

    Raises:
      ValueError: num < 1, or discount outside [0, 1].
    """
    parts.require(num, lambda x: x >= 1, "repeat_action: num", "must be >= 1")
    if discount is not None:
        parts.require(discount, lambda x: 0 <= x <= 1, "repeat_action: discount", "must be in [0, 1]")

    def step(key, state, action, params):
        def again(carry, key):
            state, done, elapsed = carry
            state_next, new = env.step(key, state, action, params)
            out = is_last(done)  # [A] with many agents: some may be out while the environment runs on
            weight = 1.0 if discount is None else discount**elapsed
            new = new._replace(
                reward=done.reward + jnp.where(out, 0.0, weight * new.reward),
                terminated=done.terminated | (new.terminated & ~out),
                truncated=done.truncated | (new.truncated & ~out),
            )
            then = (state_next, new, elapsed + new.extras.get("num_steps", 1.0))
            return jax.tree.map(lambda old, new: jnp.where(jnp.all(out), old, new), carry, then), None

        state, timestep = env.step(key, state, action, params)
        carry = (state, timestep, jnp.float32(timestep.extras.get("num_steps", 1.0)))
        if num > 1:
            carry, _ = jax.lax.scan(again, carry, jax.random.split(jax.random.fold_in(key, _REPEAT), num - 1))
        state, timestep, elapsed = carry
        if discount is not None or "num_steps" in timestep.extras:
            timestep = timestep._replace(extras={**timestep.extras, "num_steps": elapsed})
        return state, timestep

    return env._replace(step=step)


def scale_reward(env: Env, scale: float) -> Env:
    """reward * scale."""

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        return state, timestep._replace(reward=timestep.reward * scale)

    return env._replace(step=step)


# Observations --------------------------------------------------------------------------------------------------------


def flatten_observation(env: Env, *, keep: tuple[str, ...] = ("action_mask",)) -> Env:
    """Any observation as one float32 vector: parts in the order of the space, integers of discrete parts as one-hot.

    Args:
      keep: keys of a `Dict` observation that are not flattened, such as the mask of illegal actions. Where one of them
        is present, the new observation is {"observation": vector, **kept}.
    """
    space = env.observation_space
    names = tuple(name for name in keep if isinstance(space, spaces.Dict) and name in space.spaces)
    if names:
        rest = spaces.Dict({name: s for name, s in space.items if name not in names})
        new_space = spaces.Dict({"observation": parts.flat_space(rest), **{name: space[name] for name in names}})
    else:
        rest, new_space = space, parts.flat_space(space)

    def flatten(key, observation):
        vector = parts.flatten(rest, observation)
        return {"observation": vector, **{name: observation[name] for name in names}} if names else vector

    return _map_observation(env, flatten, new_space)


def one_hot(env: Env) -> Env:
    """Discrete observations, and discrete parts of structured ones, as float32 one-hot vectors; the rest stays.

    Raises:
      ValueError: if no part is Discrete or MultiDiscrete.
    """
    space = env.observation_space
    if not any(map(parts.is_discrete, parts.leaves(space))):
        raise ValueError(f"one_hot: no part of the observation is discrete, it is {space}")

    def encode(key, observation):
        return parts.map_values(parts.flatten, space, observation, parts.is_discrete)

    return _map_observation(env, encode, parts.map_space(parts.flat_space, space, parts.is_discrete))


def frame_stack(env: Env, num: int) -> Env:
    """The last `num` observations, oldest first, concatenated along the last axis; a reset repeats the first one.

    A vector [D] becomes [num * D], an image [H, W, C] becomes [H, W, num * C], a scalar [num].

    Raises:
      ValueError: num < 1, or an observation with a part that is not a Box (apply `one_hot` first).
    """
    parts.require(num, lambda x: x >= 1, "frame_stack: num", "must be >= 1")
    if not all(isinstance(leaf, spaces.Box) for leaf in parts.leaves(env.observation_space)):
        raise ValueError(f"frame_stack: every part must be a Box (apply one_hot first), it is {env.observation_space}")

    def reset(key, params):
        state, observation = env.reset(key, params)
        frames = jax.tree.map(lambda x: jnp.concatenate([jnp.atleast_1d(x)] * num, axis=-1), observation)
        return FrameStackState(state, frames), frames

    def push(frames, x):
        x = jnp.atleast_1d(x)
        return jnp.concatenate([frames[..., x.shape[-1] :], x], axis=-1)

    def step(key, state, action, params):
        inner, timestep = env.step(key, state.env, action, params)
        frames = jax.tree.map(push, state.frames, timestep.observation)
        return FrameStackState(inner, frames), timestep._replace(observation=frames)

    space = parts.map_space(lambda s: parts.stack(s, num), env.observation_space, where=lambda s: True)
    return env._replace(reset=reset, step=step, observation_space=space, render=parts.render_inner(env))


def observation_noise(env: Env, std: float) -> Env:
    """Adds Gaussian noise to float parts of the observation (their Box becomes unbounded); the state stays exact.

    Raises:
      ValueError: std < 0, or no part of the observation is a Box of floats.
    """
    parts.require(std, lambda x: x >= 0, "observation_noise: std", "must be >= 0")
    space = env.observation_space
    parts.require_floats(space, "observation_noise: the observation")

    def add(key, observation):
        return parts.add_noise(jax.random.fold_in(key, _OBSERVATION_NOISE), space, observation, std)

    return _map_observation(env, add, parts.unbounded(space))


# Actions -------------------------------------------------------------------------------------------------------------


def scale_action(env: Env, low: float = -1.0, high: float = 1.0) -> Env:
    """Actions in [low, high], mapped linearly onto the bounds of the environment's Box (of every Box in it).

    Raises:
      ValueError: low >= high, or no part of the action is a Box, or one is unbounded.
    """
    parts.require(high - low, lambda x: x > 0, "scale_action: high - low", "must be > 0")
    parts.require_floats(env.action_space, "scale_action: the action", bounded=True)

    space = env.action_space

    def scale(s, x):
        lowest, highest = s.bounds()
        u = (x - low) / (high - low)
        return lowest * (1.0 - u) + highest * u  # exact at both ends

    scaled = parts.map_space(lambda s: spaces.Box(low, high, s.shape, s.dtype), space)
    return _map_action(env, lambda key, action: parts.map_values(scale, space, action), scaled)


def clip_action(env: Env) -> Env:
    """Accepts any action and clips it to the bounds of the environment's Box: the new action space is unbounded.

    Raises:
      ValueError: if no part of the action is a Box.
    """
    parts.require_floats(env.action_space, "clip_action: the action")
    space = env.action_space
    return _map_action(env, lambda key, action: parts.clip(space, action), parts.unbounded(space))


def action_noise(env: Env, std: float) -> Env:
    """Adds Gaussian noise to continuous actions and clips the sum to the bounds; the agent does not see it.

    Raises:
      ValueError: std < 0, or no part of the action is a Box.
    """
    parts.require(std, lambda x: x >= 0, "action_noise: std", "must be >= 0")
    parts.require_floats(env.action_space, "action_noise: the action")

    space = env.action_space

    def add(key, action):
        return parts.clip(space, parts.add_noise(jax.random.fold_in(key, _ACTION_NOISE), space, action, std))

    return _map_action(env, add, space)


def sticky_actions(env: Env, probability: float = 0.25) -> Env:
    """Executes the previous action instead of the given one with `probability`; the first of an episode never.

    (Machado et al. 2018, https://arxiv.org/abs/1709.06009.) What is repeated may be illegal by then, where actions are
    masked.

    Raises:
      ValueError: probability outside [0, 1].
    """
    parts.require(probability, lambda x: 0 <= x <= 1, "sticky_actions: probability", "must be in [0, 1]")

    def reset(key, params):
        state, observation = env.reset(key, params)
        return StickyState(state, spaces.zeros(env.action_space), jnp.bool_(True)), observation

    def step(key, state, action, params):
        sticks = jax.random.bernoulli(jax.random.fold_in(key, _STICKY), probability) & ~state.is_first
        executed = jax.tree.map(lambda old, new: jnp.where(sticks, old, new).astype(old.dtype), state.action, action)
        inner, timestep = env.step(key, state.env, executed, params)
        return StickyState(inner, executed, jnp.bool_(False)), timestep

    return env._replace(reset=reset, step=step, render=parts.render_inner(env))


def _map_observation(env: Env, fn: Callable, space: spaces.Space) -> Env:
    """fn(key, observation), of a reset and of a step."""

    def reset(key, params):
        state, observation = env.reset(key, params)
        return state, fn(key, observation)

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        return state, timestep._replace(observation=fn(key, timestep.observation))

    return env._replace(reset=reset, step=step, observation_space=space)


def _map_action(env: Env, fn: Callable, space: spaces.Space) -> Env:
    def step(key, state, action, params):
        return env.step(key, state, fn(key, action), params)

    return env._replace(step=step, action_space=space)
