"""Small environments and agents whose every number is known."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import networks
from jaxrl.distributions import for_space
from jaxrl.spaces import Box, Dict, Discrete, Repeated, Tuple
from jaxrl.types import Agent, Env, TimeStep, no_memory


class ClockParams(NamedTuple):
    """`length` steps an episode; `truncates` says whether the clock or the MDP ends it; reward is `reward`."""

    length: jax.Array
    truncates: jax.Array
    reward: jax.Array


class ClockState(NamedTuple):
    time: jax.Array
    episode: jax.Array  # a number drawn at reset: tells episodes apart


def clock(length=3, truncates=True, reward=1.0, actions=2):
    """Observation (time, episode number); the episode number is uniform in [0, 1)."""

    def observe(state):
        return jnp.stack([state.time.astype(jnp.float32), state.episode])

    def reset(key, params):
        del params
        state = ClockState(jnp.zeros((), jnp.int32), jax.random.uniform(key))
        return state, observe(state)

    def step(key, state, action, params):
        del key, action
        state = state._replace(time=state.time + 1)
        over = state.time >= params.length
        return state, TimeStep(
            observe(state),
            params.reward,
            over & ~params.truncates,
            over & params.truncates,
            {"time": state.time.astype(jnp.float32)},
        )

    params = ClockParams(jnp.int32(length), jnp.bool_(truncates), jnp.float32(reward))
    return Env(reset, step, params, Box(0.0, float("inf"), (2,)), Discrete(actions))


def with_goals(env):
    """Observations as dicts, whose goals are places in the observations of `env`."""

    def view(observation):
        return {"observation": observation, "achieved_goal": observation, "desired_goal": observation}

    def reset(key, params):
        state, observation = env.reset(key, params)
        return state, view(observation)

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        return state, timestep._replace(observation=view(timestep.observation))

    return env._replace(reset=reset, step=step, observation_space=Dict(view(env.observation_space)))


def two_players(lengths=(2, 4)):
    """Two agents [A = 2] in one environment; agent i terminates after lengths[i] steps; reward is its own time."""
    lengths = jnp.array(lengths)

    def reset(key, params):
        del params
        state = ClockState(jnp.zeros((), jnp.int32), jax.random.uniform(key))
        return state, jnp.stack([jnp.array([0.0, 0.0]), jnp.array([0.0, 1.0])])

    def step(key, state, action, params):
        del key, action, params
        state = state._replace(time=state.time + 1)
        time = state.time.astype(jnp.float32)
        observation = jnp.stack([jnp.stack([time, 0.0 * time]), jnp.stack([time, 0.0 * time + 1])])
        over = state.time >= lengths
        return state, TimeStep(observation, jnp.full(2, time), over, jnp.zeros(2, bool))

    return Env(reset, step, (), Box(0.0, float("inf"), (2, 2)), Box(-1.0, 1.0, (2,)))


CROWD = 3


def crowd(several=False, actions=Discrete(2)):
    """Three agents; agent i is out after 2 + i steps. Observations (time, agent) and rewards differ from one another.

    Args:
      actions: of each; of a box the sign of the first entry counts.
      several: observations and actions are tuples, and the last agent sees one entry more.
    """

    def observe(time):
        seen = jnp.stack([jnp.full(CROWD, time, jnp.float32), jnp.arange(CROWD, dtype=jnp.float32)], -1) / CROWD
        return (seen[0], seen[1], jnp.append(seen[2], 1.0)) if several else seen

    def reset(key, params):
        return jnp.int32(0), observe(jnp.int32(0))

    def step(key, time, action, params):
        time, chosen = time + 1, jnp.stack(action) if several else action
        chosen = chosen[:, 0] > 0 if chosen.ndim > 1 else chosen
        reward = jnp.where(chosen == jnp.arange(CROWD) % 2, 1.0, -1.0) * (1.0 + jnp.arange(CROWD))
        ends = time >= 2 + jnp.arange(CROWD)
        return time, TimeStep(observe(time), reward, ends & (jnp.arange(CROWD) < 2), ends & (jnp.arange(CROWD) == 2))

    one = Box(0.0, 9.0, (2,))
    if several:
        return Env(reset, step, (), Tuple((one, one, Box(0.0, 9.0, (3,)))), Tuple((Discrete(2),) * 3))
    return Env(reset, step, (), Repeated(one, CROWD), Repeated(actions, CROWD))


class CounterState(NamedTuple):
    hparams: tuple
    total: jax.Array


def counting_agent():
    """Memory counts the steps since the episode began; `act` records it. Actions are zeros."""

    def init(key, hparams, example):
        del key
        return CounterState(hparams, jnp.zeros(()) + 0.0 * jnp.sum(example.reward))

    def init_memory(key, state, observation):
        del key, state
        return jnp.zeros(observation.shape[0])

    def act(key, state, memory, observation):
        del key, state
        return memory + 1, jnp.zeros(observation.shape[0], jnp.int32), {"count": memory}

    def update(key, state, data):
        del key
        return state._replace(total=state.total + jnp.sum(data.reward)), {"reward": jnp.mean(data.reward)}

    return Agent(init, init_memory, act, act, update)


def idle_agent(env):
    """Takes the zero action; nothing is learned."""

    def act(key, state, memory, observation):
        del key, state
        n = jax.tree.leaves(observation)[0].shape[0]
        return memory, jnp.zeros((n, *env.action_space.shape), env.action_space.dtype), {}

    return Agent(
        lambda key, hparams, example: CounterState(hparams, jnp.zeros(())),
        no_memory,
        act,
        act,
        lambda key, state, data: (state, {}),
    )


def actor_and_critic(env, *, recurrent=False, width=8):
    """A small policy and critic for vector observations."""

    def torso():
        body = networks.mlp((width,))
        return networks.sequential(body, networks.gru(width)) if recurrent else body

    return networks.policy(torso(), for_space(env.action_space), scale=1.0), networks.critic(torso())
