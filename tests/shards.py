"""Sharded loops on 8 forced host devices: `python tests/shards.py OUT.npz` runs each there and on one device.

A process of its own, because the number of devices is fixed when jax begins.
"""

import os
import sys

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
import toys

import jaxrl
from jaxrl.combinators.shard import devices_mesh, one_of, shard
from jaxrl.spaces import Box, Discrete, Repeated

SHARDS, UPDATES = 8, 6
SMALL = dict(widths=(4,), num_minibatches=2, num_epochs=2, buffer_size=24, min_buffer_size=8, batch_size=4)
PLANE = Box(-2.0, 2.0, (2,))

# agent, static arguments, action space
LEARNERS = {
    "ppo": ("ppo", dict(normalize_observation=True, normalize_reward=True), Discrete(3)),
    "dqn": ("dqn", dict(prioritized=True, n_step=2), Discrete(3)),
    "sac": ("sac", dict(updates_per_step=2), PLANE),
    "td3": ("td3", dict(normalize_observation=True), PLANE),
    "pqn": ("pqn", {}, Discrete(3)),
    "hierarchical": ("hierarchical", dict(period=2, goal_entries=(0,), goal_grid=3), Discrete(3)),
    "qmix": ("qmix", dict(mixing_size=4), Repeated(Discrete(2), toys.CROWD)),
}


def make(name, num_envs=1, unroll_length=4):
    """A loop of one shard's share, and hparams."""
    from jaxrl.factory import AGENTS, static_arguments

    agent_name, static, space = LEARNERS[name]
    many = isinstance(space, Repeated)
    env = toys.crowd(actions=space.space) if many else toys.clock(3, truncates=False)._replace(action_space=space)
    allowed = static_arguments(AGENTS[agent_name], env=env)
    static = {k: v for k, v in {**SMALL, **static}.items() if k in allowed}
    agent, hparams = jaxrl.make_agent(agent_name, env, **static)
    return jaxrl.online(agent, env, num_envs=num_envs, unroll_length=unroll_length), hparams


def train(loop, hparams):
    """State and metrics after some updates; small compilations."""
    program = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), UPDATES))
    return program(jax.random.key(3))


def numbers(prefix, tree):
    """Leaves by path, keys as their data."""

    def plain(x):
        return np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    named = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{prefix}/{jax.tree_util.keystr(path, simple=True, separator='/')}": plain(x) for path, x in named}


def main(out, names):
    assert jax.device_count() == SHARDS
    found = {}
    for name in names:
        loop, hparams = make(name)
        for way, over in (("mesh", devices_mesh()), ("vmap", SHARDS)):
            state, metrics = train(shard(loop, over), hparams)
            found |= numbers(f"{name}/{way}/state", state) | numbers(f"{name}/{way}/metrics", metrics)
            if way == "mesh":
                assert all(len(x.sharding.device_set) == SHARDS for x in jax.tree.leaves(state))
                found |= numbers(f"{name}/one", one_of(state))
    np.savez(out, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2].split(","))
