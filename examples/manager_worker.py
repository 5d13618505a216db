"""A manager over a worker, from their parts: a key at one end of a corridor, a door at the other.

The manager, PPO, says every twelve steps how far to go; the worker, PPO too, is paid for getting there. So the manager
explores with whole walks where a flat agent explores with steps. Either may be any other agent: put `with_replay`
around a learner from batches.
"""

import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.combinators.hierarchy import hierarchical
from jaxrl.envs.key_door import key_door
from jaxrl.spaces import Box, Dict, Discrete

LENGTH, PERIOD, UPDATES = 24, 12, 30
WAYS = jnp.array([-1.0, 0.0, 1.0])  # the manager's three actions, in halves of the corridor


def place(observation):
    return observation[..., :1]


def resolve(start, action):
    """Where the manager's action leads to, from where it was chosen."""
    return jnp.clip(place(start) + WAYS[action][..., None], -1.0, 1.0)


def embed(observation, goal):
    """What the worker sees: how far the goal is, and in which direction."""
    return {"observation": observation, "goal": goal - place(observation)}


def closeness(step, goal):
    """What the worker is paid."""
    return -jnp.abs(place(step.next_observation) - goal)[..., 0]


def two_levels(env):
    goals = Discrete(len(WAYS))
    seen = Dict({"observation": env.observation_space, "goal": Box(-2.0, 2.0, (1,))})
    manager, _ = jaxrl.make_agent("ppo", env._replace(action_space=goals), widths=(32,))
    worker, _ = jaxrl.make_agent("ppo", env._replace(observation_space=seen), widths=(32,))
    return hierarchical(
        manager, worker, goal_space=goals, embed=embed, resolve=resolve, period=PERIOD, intrinsic=closeness
    )


def opened(agent, env):
    """The share of episodes in which the door is opened, in the course of training."""
    loop = jaxrl.online(agent, env, num_envs=32, unroll_length=96)
    hparams = jax.tree.map(lambda x: 3e-3 if x == 2.5e-4 else x, agent.hparams)  # both learning rates
    _, metrics = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), UPDATES))(jax.random.key(0))
    return metrics["episode/return_sum"].reshape(6, -1).sum(1) / metrics["episode/count"].reshape(6, -1).sum(1)


def main():
    env = key_door(LENGTH)
    flat, _ = jaxrl.make_agent("ppo", env, widths=(32,))
    found = {name: opened(agent, env) for name, agent in (("flat", flat), ("two levels", two_levels(env)))}
    for name, share in found.items():
        print(f"{name:10} opens {', '.join(f'{x:.0%}' for x in share)} of the doors")
    return found


if __name__ == "__main__":
    main()
