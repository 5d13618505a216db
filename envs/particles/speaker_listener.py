"""One speaks, one listens (Lowe et al. 2017, https://arxiv.org/abs/1706.02275): simple_speaker_listener_v4."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs.particles import world
from jaxrl.types import Array, Env, TimeStep

NUM_LANDMARKS = NUM_WORDS = 3
_RADII = np.float32([0.04, 0.04, 0.04, 0.075])
_COLORS = np.uint8([(166, 38, 38), (38, 166, 38), (38, 38, 166)])


class SpeakerListenerParams(NamedTuple):
    acceleration: Array  # [] of the listener's move
    damping: Array  # [] in [0, 1]
    max_steps: Array  # [] int32


class SpeakerListenerState(NamedTuple):
    position: Array  # [2] of the listener
    velocity: Array  # [2]
    landmarks: Array  # [3, 2]
    goal: Array  # [] int32, the landmark that the listener should go to
    said: Array  # [3], the speaker's word of the last step
    time: Array  # [] int32


def speaker_listener(
    *,
    continuous: bool = False,
    privileged: bool = False,
    acceleration: float = world.ACCELERATION,
    damping: float = world.DAMPING,
    max_steps: int = 25,
) -> Env:
    """The speaker knows the goal and cannot move, the listener moves and does not know. Both get -|p - goal|^2.

    The listener starts at rest, it and the landmarks at random in [-1, 1] x [-1, 1]. Agents are unlike: the speaker
    comes first. It sees the color of the goal (3: 0.65 for its own channel, else 0.15). The listener sees [11] its
    velocity (2), landmarks from where it is (6) and the word of this step (3). (The speaker has a place in the
    original, which nobody sees; here it has none.)

    Args:
      continuous: the speaker's actions [3] in [0, 1] are what it says, the listener's [5] in [0, 1] how much of each
        move; else 3 words, said one-hot, and 5 moves (none, left, right, down, up).
      privileged: observations are {"observation": own, "privileged": [16] position, velocity, landmarks, goal
        (one-hot), word}.
      acceleration, damping, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if damping is outside of [0, 1], acceleration is not > 0, or max_steps < 1.
    """
    world.require_common("speaker_listener", max_steps, damping, acceleration=acceleration)

    def observe(state: SpeakerListenerState):
        goal = jax.nn.one_hot(state.goal, NUM_LANDMARKS)
        heard = jnp.concatenate([state.velocity, (state.landmarks - state.position).ravel(), state.said])
        own = (0.15 + 0.5 * goal, heard)
        if not privileged:
            return own
        whole = (state.position, state.velocity, state.landmarks.ravel(), goal, state.said)
        return world.reveal(own, jnp.concatenate(whole))

    def reset(key: Array, params: SpeakerListenerParams):
        del params
        drawn = jax.random.uniform(key, (2 * (1 + NUM_LANDMARKS) + 1,))
        places = 2.0 * drawn[:-1].reshape(-1, 2) - 1.0
        goal = (drawn[-1] * NUM_LANDMARKS).astype(jnp.int32)
        state = SpeakerListenerState(places[0], jnp.zeros(2), places[1:], goal, jnp.zeros(NUM_WORDS), jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: SpeakerListenerState, action: tuple[Array, Array], params: SpeakerListenerParams):
        del key
        word, move = action
        said = jnp.clip(word, 0.0, 1.0) if continuous else jax.nn.one_hot(word, NUM_WORDS)
        force = params.acceleration * world.directions(move, continuous)
        position, velocity = world.integrate(state.position[None], state.velocity[None], force[None], params.damping)
        state = SpeakerListenerState(position[0], velocity[0], state.landmarks, state.goal, said, state.time + 1)
        goal = jax.nn.one_hot(state.goal, NUM_LANDMARKS) @ state.landmarks
        reward = jnp.broadcast_to(-jnp.sum((state.position - goal) ** 2), (2,))
        truncated = jnp.broadcast_to(state.time >= params.max_steps, (2,))
        return state, TimeStep(observe(state), reward, jnp.zeros(2, bool), truncated)

    def render(state: SpeakerListenerState, params: SpeakerListenerParams) -> Array:
        """The listener is the large disc, in the color of its goal."""
        del params
        centers = jnp.concatenate([state.landmarks, state.position[None]])
        colors = jnp.concatenate([_COLORS, jnp.asarray(_COLORS)[state.goal][None] // 2])
        return world.draw(centers, _RADII, colors, state.said[None])

    params = SpeakerListenerParams(jnp.float32(acceleration), jnp.float32(damping), jnp.int32(max_steps))
    space = spaces.Tuple((world.unbounded(3), world.unbounded(11)))
    space = world.revealed(space, 16) if privileged else space
    words = spaces.Box(0.0, 1.0, (NUM_WORDS,)) if continuous else spaces.Discrete(NUM_WORDS)
    return Env(reset, step, params, space, spaces.Tuple((words, world.move_space(continuous))), render)
