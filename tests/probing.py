"""Trains an agent on all diagnostic environments at once and reads off values and actions.

The environments run side by side as one: a traced index in `params` says whose reward and ends count. So a whole suite
(every environment, several seeds) is a vmap, and compiles once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.combinators.replay import learner_state
from jaxrl.envs import diagnostic
from jaxrl.spaces import Box
from jaxrl.types import Env, TimeStep

DISCOUNT = 0.6
TOLERANCE = 0.25  # a continuous action this close to the best one is right


class Result(NamedTuple):
    """Of one probe: rows are histories, columns seeds."""

    values: np.ndarray  # [H, S] learned
    exact: np.ndarray  # [H, 1]
    right: np.ndarray  # [R, S] probability of the right action
    reward: np.ndarray  # [S] mean over the last rollouts


def side_by_side(probes) -> Env:
    """All probes as one environment, observations padded to 2 entries; `params` is the index of the one that counts."""
    envs = [probe.env for probe in probes.values()]

    def pad(observation):
        return jnp.pad(observation, (0, 2 - observation.shape[0]))

    def reset(key, index):
        states, observations = zip(*(env.reset(key, env.params) for env in envs))
        return states, jnp.stack([pad(o) for o in observations])[index]

    def step(key, states, action, index):
        results = [env.step(key, state, action, env.params) for env, state in zip(envs, states)]
        steps = [ts._replace(observation=pad(ts.observation)) for _, ts in results]
        chosen = jax.tree.map(lambda *xs: jnp.stack(xs)[index], *steps)
        return tuple(state for state, _ in results), TimeStep(*chosen)

    return Env(reset, step, jnp.int32(0), Box(-1.0, 1.0, (2,)), envs[0].action_space)


def learn(make_agent, continuous, *, learner=None, num_envs=16, unroll_length=16, num_updates=160, num_seeds=4, seed=0):
    """Trains on every probe with several seeds, in one compiled program. Returns {name: Result}.

    Args:
      make_agent: (env) -> agent, hparams; hparams must use `DISCOUNT`.
      learner: (env) -> the learner inside of replay and exploration, which is asked instead.
    """
    probes = diagnostic.probes(continuous)
    env = side_by_side(probes)
    agent, hparams = make_agent(env)

    def train(key, index):
        loop = jaxrl.online(agent, env._replace(params=index), num_envs=num_envs, unroll_length=unroll_length)
        state, metrics = jaxrl.run(loop, loop.init(key, hparams), num_updates)
        tail = jax.tree.map(lambda x: x[-num_updates // 4 :], metrics)
        return state.agent, tail["episode/return_sum"].sum() / tail["episode/count"].sum()

    keys, indices = jax.random.split(jax.random.key(seed), num_seeds), jnp.arange(len(probes))
    both = jax.vmap(jax.vmap(train, (0, None)), (None, 0))
    states, rewards = jax.jit(both)(keys, indices)
    asked, part = (agent, lambda state: state) if learner is None else (learner(env), learner_state)
    ask = jax.jit(jax.vmap(lambda state, history: replay(asked, part(state), history), (0, None)))
    results = {}
    for i, (name, probe) in enumerate(probes.items()):
        state = jax.tree.map(lambda x: x[i], states)
        answers = {history.tobytes(): ask(state, pad_history(history)) for history, _ in probe.values(DISCOUNT)}
        values, exact, right = [], [], []
        for history, value in probe.values(DISCOUNT):
            values.append(np.asarray(answers[history.tobytes()][0])[:, len(history) - 1])
            exact.append([value])
        for history, action in probe.right_actions:
            sampled = np.asarray(answers[history.tobytes()][1])[:, len(history) - 1]
            hit = np.abs(sampled[..., 0] - action[0]) < TOLERANCE if continuous else sampled == action
            right.append(hit.mean(axis=1))
        results[name] = Result(np.array(values), np.array(exact), np.array(right), np.asarray(rewards[i]))
    return results


def pad_history(history, length=4):
    """[L, D] -> [length, 2], zeros behind."""
    return jnp.pad(jnp.asarray(history), ((0, length - len(history)), (0, 2 - history.shape[1])))


def replay(agent, state, history, num_samples=512):
    """Feeds a history [L, D] to copies of an agent: values [L] and sampled actions [L, num_samples]."""
    observations = jnp.broadcast_to(history[:, None], (history.shape[0], num_samples, history.shape[1]))
    memory = agent.init_memory(jax.random.key(1), state, observations[0])

    def step(memory, inputs):
        key, observation = inputs
        value = agent.act_greedy(key, state, memory, observation)[2]["value"][0]
        memory, action, _ = agent.act(key, state, memory, observation)
        return memory, (value, action)

    keys = jax.random.split(jax.random.key(2), history.shape[0])
    return jax.lax.scan(step, memory, (keys, observations))[1]
