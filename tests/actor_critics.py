"""Batches, small networks and a one-state task for the tests of off-policy actor-critics."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import networks
from jaxrl.types import Transition

LOW, HIGH = -2.0, 1.0
CENTER, HALF_RANGE = -0.5, 1.5
KEY = jax.random.key(0)


def batch(size=5, seed=0, dims=(3, 2), **extras):
    """Random transitions [size] with every kind of end; actions inside of (LOW, HIGH)."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    terminated, truncated = jnp.arange(size) % 3 == 0, jnp.arange(size) % 3 == 1
    return Transition(
        normal(size, dims[0]),
        CENTER + HALF_RANGE * jnp.tanh(normal(size, dims[1])),
        normal(size),
        terminated,
        truncated,
        normal(size, dims[0]),
        {name: jnp.asarray(x, jnp.float32) for name, x in extras.items()},
    )


def join(inputs):
    return jnp.concatenate(inputs, -1)


def action_critic(width=4):
    return networks.critic(networks.view(networks.mlp((width,)), join))


def start(agent, data, hparams=None):
    return agent.init(KEY, hparams or agent.hparams, jax.tree.map(lambda x: x[None], data))


def perturbed(state, scale=0.1, seed=1):
    """The state with other target parameters, so that they differ from what they follow."""
    leaves, tree = jax.tree.flatten(state.target_params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [x + scale * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys)]
    return state._replace(target_params=jax.tree.unflatten(tree, moved))


def member(params, i):
    return jax.tree.map(lambda x: x[i], params)


def assert_close(actual, expected, tolerance=2e-5):
    """Leaves agree to `tolerance` of the largest entry of all."""
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * scale), actual, expected)


def assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def difference(before, after):
    return jax.tree.map(lambda a, b: a - b, before, after)


def quadratic_critic():
    """Q(s, a) = w_0 + w_1 a + w_2 a^2 for actions [..., 1]: exact for quadratic rewards in one state."""

    def apply(params, inputs):
        action = inputs[1][..., 0]
        return params["w"][0] + params["w"][1] * action + params["w"][2] * action**2

    return networks.feed_forward(lambda key, inputs: {"w": 0.1 * jax.random.normal(key, (3,))}, apply)


def constant(outputs):
    """A network without inputs: `outputs` are its parameters."""
    outputs = jnp.asarray(outputs, jnp.float32)

    def apply(params, observation):
        return jnp.broadcast_to(params["outputs"], (*observation.shape[:-1], *outputs.shape))

    return networks.feed_forward(lambda key, observation: {"outputs": outputs + 0.0}, apply)


def bandit(reward, size=256, low=-1.0, high=1.0, seed=0, terminated=True):
    """One state, uniform actions [size, 1], `reward(action)`; all rows terminate, or all are truncated."""
    action = jnp.asarray(np.random.default_rng(seed).uniform(low, high, (size, 1)), jnp.float32)
    state, ends = jnp.zeros((size, 1)), jnp.full(size, terminated)
    return Transition(state, action, reward(action[:, 0]), ends, ~ends, state)


def learn(agent, data, num_updates, seed=0, hparams=None):
    """`num_updates` updates on the same data; the state and the metrics [num_updates]."""

    def run(key):
        state = start(agent, data, hparams)
        return jax.lax.scan(lambda s, k: agent.update(k, s, data), state, jax.random.split(key, num_updates))

    return jax.jit(run)(jax.random.key(seed))
