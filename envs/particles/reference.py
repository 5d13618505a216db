"""Two speakers that are listeners, too (Lowe et al. 2017, https://arxiv.org/abs/1706.02275): simple_reference_v3."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import spaces
from jaxrl.envs import parts
from jaxrl.envs.particles import world
from jaxrl.types import Array, Env, TimeStep

NUM_AGENTS, NUM_LANDMARKS, NUM_WORDS = 2, 3, 10
_RADIUS = 0.05  # of pictures; nobody touches anybody
_COLORS = np.uint8([(191, 64, 64), (64, 191, 64), (64, 64, 191)])


class ReferenceParams(NamedTuple):
    local_ratio: Array  # [] in [0, 1], weight of the own term of the reward
    acceleration: Array  # [] of a move
    damping: Array  # [] in [0, 1]
    max_steps: Array  # [] int32


class ReferenceState(NamedTuple):
    position: Array  # [2, 2]
    velocity: Array  # [2, 2]
    landmarks: Array  # [3, 2]
    goal: Array  # [2] int32, the landmark that each should go to
    said: Array  # [2, 10], what each said in the last step
    time: Array  # [] int32


def reference(
    *,
    continuous: bool = False,
    privileged: bool = False,
    local_ratio: float = 0.5,
    acceleration: float = world.ACCELERATION,
    damping: float = world.DAMPING,
    max_steps: int = 25,
) -> Env:
    """Each of two agents knows where the other should go, and can tell.

    r_i = -|p_j - goal_j| for the other agent j; reward_i = local_ratio r_i + (1 - local_ratio) (r_0 + r_1) / 2.

    Both start at rest, agents and landmarks at random in [-1, 1] x [-1, 1], goals are drawn independently. An agent's
    observation [21] is its velocity (2), landmarks from where it is (6), the color of the *other's* goal (3: 0.75 for
    its own channel, else 0.25) and what the other said in the step before (10).

    Args:
      continuous: actions [15] in [0, 1]: how much of each move, then the word; else 50 actions, of which
        `action % 5` is the move (none, left, right, down, up) and `action // 5` the word, said one-hot.
      privileged: observations are {"observation": own, "privileged": [40] positions, velocities, landmarks, goals
        (one-hot), words}.
      local_ratio, acceleration, damping, max_steps: `Env.params`, traced.

    Raises:
      ValueError: if local_ratio or damping is outside of [0, 1], acceleration is not > 0, or max_steps < 1.
    """
    parts.require(local_ratio, lambda x: 0 <= x <= 1, "reference: local_ratio", "must be in [0, 1]")
    world.require_common("reference", max_steps, damping, acceleration=acceleration)

    def observe(state: ReferenceState):
        seen = state.landmarks[None] - state.position[:, None]
        goals = jax.nn.one_hot(state.goal, NUM_LANDMARKS)
        own = jnp.concatenate(
            [state.velocity, seen.reshape(NUM_AGENTS, -1), 0.25 + 0.5 * goals[::-1], state.said[::-1]], 1
        )
        if not privileged:
            return own
        whole = (state.position, state.velocity, state.landmarks, goals, state.said)
        return world.reveal(own, jnp.concatenate([x.ravel() for x in whole]))

    def reset(key: Array, params: ReferenceParams):
        del params
        drawn = jax.random.uniform(key, (2 * (NUM_AGENTS + NUM_LANDMARKS) + NUM_AGENTS,))
        places = 2.0 * drawn[:-NUM_AGENTS].reshape(-1, 2) - 1.0
        position, landmarks = places[:NUM_AGENTS], places[NUM_AGENTS:]
        goal = (drawn[-NUM_AGENTS:] * NUM_LANDMARKS).astype(jnp.int32)
        said = jnp.zeros((NUM_AGENTS, NUM_WORDS))
        state = ReferenceState(position, jnp.zeros_like(position), landmarks, goal, said, jnp.int32(0))
        return state, observe(state)

    def step(key: Array, state: ReferenceState, action: Array, params: ReferenceParams):
        del key
        if continuous:
            move, said = action[:, : world.NUM_MOVES], jnp.clip(action[:, world.NUM_MOVES :], 0.0, 1.0)
        else:
            move, said = action % world.NUM_MOVES, jax.nn.one_hot(action // world.NUM_MOVES, NUM_WORDS)
        forces = params.acceleration * world.directions(move, continuous)
        position, velocity = world.integrate(state.position, state.velocity, forces, params.damping)
        state = ReferenceState(position, velocity, state.landmarks, state.goal, said, state.time + 1)
        goals = jax.nn.one_hot(state.goal, NUM_LANDMARKS) @ state.landmarks
        others = -jnp.sqrt(jnp.sum((position - goals) ** 2, 1))[::-1]
        reward = params.local_ratio * others + (1.0 - params.local_ratio) * jnp.mean(others)
        truncated = jnp.broadcast_to(state.time >= params.max_steps, (NUM_AGENTS,))
        return state, TimeStep(observe(state), reward, jnp.zeros(NUM_AGENTS, bool), truncated)

    def render(state: ReferenceState, params: ReferenceParams) -> Array:
        """Agents are large, in the color of the landmark that each should go to."""
        del params
        centers = jnp.concatenate([state.landmarks, state.position])
        colors = jnp.concatenate([_COLORS, jnp.asarray(_COLORS)[state.goal] // 2])
        radii = jnp.repeat(jnp.float32([_RADIUS, 2 * _RADIUS]), np.array([NUM_LANDMARKS, NUM_AGENTS]))
        return world.draw(centers, radii, colors, state.said)

    params = ReferenceParams(*(jnp.float32(x) for x in (local_ratio, acceleration, damping)), jnp.int32(max_steps))
    space = spaces.Repeated(world.unbounded(21), NUM_AGENTS)
    space = world.revealed(space, 40) if privileged else space
    num_actions = world.NUM_MOVES * NUM_WORDS
    actions = spaces.Box(0.0, 1.0, (world.NUM_MOVES + NUM_WORDS,)) if continuous else spaces.Discrete(num_actions)
    return Env(reset, step, params, space, spaces.Repeated(actions, NUM_AGENTS), render)
