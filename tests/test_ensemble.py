"""`jaxrl.networks.ensemble`: members are the network itself, apart from each other; subsets are uniform."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import networks

KEY = jax.random.key(0)


def test_members_are_the_network_with_weights_of_their_own():
    network = networks.critic(networks.mlp((8,)))
    many = networks.ensemble(network, 3)
    observation = jax.random.normal(KEY, (5, 4))
    params = many.init(KEY, observation)
    memory, outputs = many.apply(params, (), observation)
    assert memory == () and outputs.shape == (3, 5) and many.init_memory(params, observation) == ()
    for i in range(3):
        member = jax.tree.map(lambda x: x[i], params)
        np.testing.assert_allclose(outputs[i], network.apply(member, (), observation)[1], atol=1e-6)
    kernels = params["torso"]["dense_0"]["kernel"]
    assert all((kernels[i] != kernels[j]).all() for i, j in itertools.combinations(range(3), 2))
    unrolled = many.unroll(params, (), observation[None], jnp.zeros((1, 5), bool))
    np.testing.assert_allclose(unrolled[:, 0], outputs, atol=1e-6)


def test_recurrent_members_keep_memories_of_their_own():
    network = networks.sequential(networks.gru(4), networks.dense(2))
    many = networks.ensemble(network, 3)
    observation = jax.random.normal(KEY, (6, 5, 4))  # [T, N, D]
    is_first = jnp.zeros((6, 5), bool).at[3, 1].set(True)
    params = many.init(KEY, observation[0])
    memory = many.init_memory(params, observation[0])
    outputs = many.unroll(params, memory, observation, is_first)
    stepped, now = [], memory
    for t in range(6):
        fresh = many.init_memory(params, observation[t])
        now = networks.core.reset(is_first[t], fresh, now)  # the loop's reset: the axis of environments stays first
        now, output = many.apply(params, now, observation[t])
        stepped.append(output)
    np.testing.assert_allclose(outputs, jnp.stack(stepped, 1), atol=1e-6)
    for i in range(3):
        member = jax.tree.map(lambda x: x[i], params)
        alone = network.unroll(member, network.init_memory(member, observation[0]), observation, is_first)
        np.testing.assert_allclose(outputs[i], alone, atol=1e-6)


def test_subsets_are_equally_likely():
    """Pairs of 4 members: 6 of them, each 1/6 of 6000 draws within 4.5 standard deviations; no member twice."""
    params = {"id": jnp.arange(4.0), "kernel": jnp.arange(8.0).reshape(4, 2)}
    drawn = jax.jit(jax.vmap(lambda key: networks.subset(key, params, 2)))(jax.random.split(KEY, 6000))
    np.testing.assert_array_equal(drawn["kernel"][..., 0], 2 * drawn["id"])  # all leaves take the same members
    pairs = np.sort(np.asarray(drawn["id"]), axis=-1)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(counts) == 6 and (np.abs(counts - 1000) < 4.5 * np.sqrt(6000 * 1 / 6 * 5 / 6)).all()
    np.testing.assert_array_equal(np.sort(networks.subset(KEY, params, 4)["id"]), np.arange(4))


def test_bad_size():
    with pytest.raises(ValueError, match="ensemble: size is 0, must be >= 1"):
        networks.ensemble(networks.mlp(), 0)
