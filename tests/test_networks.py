"""`jaxrl.networks`: the laws of `Network` for every factory, initial weights, and masks."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from jaxrl import distributions, networks
from jaxrl.networks import cnn, critic, dense, gru, masked, matmul, mlp, policy, pretrained, sequential, view

KEY = jax.random.key(0)
T, N, D = 6, 3, 4


def zero_carry(size):
    return lambda observation: jnp.zeros((*observation.shape[:-1], size))


class Counter(linen.Module):
    """A recurrent module whose carry starts at the first observation: resets must use the observation of their step."""

    @linen.compact
    def __call__(self, carry, observation):
        carry = carry + 1.0
        return carry, linen.Dense(2)(observation) + carry


VECTOR = jax.random.normal(KEY, (T, N, D))
AGENTS = jax.random.normal(KEY, (T, N, 2, D))
DICT = {"observation": VECTOR, "action_mask": jax.random.bernoulli(KEY, 0.7, (T, N, 5)).at[..., 0].set(True)}
IMAGE = jax.random.bernoulli(KEY, 0.2, (T, N, 6, 6, 2))
CATEGORICAL = distributions.categorical(5)
# name -> (network, observation [T, N, ...], shape of the outputs after [T, N])
CASES = {
    "dense": (dense(3), VECTOR, (3,)),
    "mlp": (mlp((8, 7), activation="elu", layer_norm=True), VECTOR, (7,)),
    "mlp_agents": (mlp((8,)), AGENTS, (2, 8)),
    "cnn": (cnn((3,), widths=(8,)), IMAGE, (8,)),
    "cnn_stride": (cnn((3, 4), (3, 1), (2, 1), widths=(8,)), IMAGE, (8,)),
    "gru": (gru(5), VECTOR, (5,)),
    "gru_agents": (gru(5), AGENTS, (2, 5)),
    "feed_forward_chain": (sequential(mlp((8,)), dense(2)), VECTOR, (2,)),
    "recurrent_chain": (sequential(mlp((8,)), gru(5), dense(2)), VECTOR, (2,)),
    "two_recurrent": (sequential(gru(4), sequential(gru(5), dense(2)), gru(3)), VECTOR, (3,)),
    "view": (view(gru(5), lambda o: o["observation"]), DICT, (5,)),
    "policy": (policy(mlp((8,)), CATEGORICAL).network, VECTOR, (5,)),
    "policy_gaussian": (policy(gru(5), distributions.diagonal_gaussian((2,))).network, VECTOR, (4,)),
    "masked": (masked(policy(gru(5), CATEGORICAL)).network, DICT, (5,)),
    "critic": (critic(mlp((8,))), VECTOR, ()),
    "critic_recurrent": (critic(sequential(mlp((8,)), gru(5))), AGENTS, (2,)),
    "linen": (networks.from_linen(linen.Sequential([linen.Dense(5), linen.tanh])), VECTOR, (5,)),
    "linen_gru": (networks.from_linen(linen.GRUCell(5), initialize_carry=zero_carry(5)), VECTOR, (5,)),
    "linen_in_a_chain": (
        sequential(dense(2), networks.from_linen(Counter(), initialize_carry=lambda x: x), dense(3)),
        VECTOR,
        (3,),
    ),
    "nnx": (networks.from_nnx(lambda rngs: nnx.Linear(D, 5, rngs=rngs)), VECTOR, (5,)),
    "nnx_gru": (
        networks.from_nnx(lambda rngs: nnx.GRUCell(D, 5, rngs=rngs), initialize_carry=zero_carry(5)),
        VECTOR,
        (5,),
    ),
}
RECURRENT = {
    name for name in CASES if any(w in name for w in ("gru", "recurrent", "view", "masked", "gaussian", "chain"))
}
RECURRENT -= {"feed_forward_chain"}


def weights(network, observation):
    """Random params, of the shapes that `init` makes: compiling `init` is most of what a test would cost."""
    shapes = jax.eval_shape(network.init, KEY, jax.tree.map(lambda x: x[0], observation))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), shapes)


def close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("name", CASES)
def test_unroll_is_apply_step_by_step_with_resets(name):
    network, observation, shape = CASES[name]
    first = np.zeros((T, N), bool)
    first[0, 1] = first[2, 0] = first[3, 0] = first[5, 2] = True
    params = weights(network, observation)

    @jax.jit
    def run(params, observation, first):
        # A memory in the middle of an episode: that of one step from the start.
        now = jax.tree.map(lambda x: x[-1], observation)
        start, _ = network.apply(params, network.init_memory(params, now), now)
        memory, outputs = start, []
        for t in range(T):
            now = jax.tree.map(lambda x, t=t: x[t], observation)
            # Row by row, and with `init_memory` of the rows alone: no vectorised reset to be wrong in the same way.
            initial = network.init_memory(params, now)
            rows = [initial if first_row else memory for first_row in (True, False)]
            memory = jax.tree.map(
                lambda i, m, t=t: jnp.stack([jax.lax.select(first[t, n], i[n], m[n]) for n in range(N)]), *rows
            )
            memory, output = network.apply(params, memory, now)
            outputs.append(output)
        return network.unroll(params, start, observation, first), jnp.stack(outputs), start

    unrolled, stepped, memory = run(params, observation, first)
    assert unrolled.shape == (T, N, *shape) and unrolled.dtype == jnp.float32
    close(unrolled, stepped)
    assert bool(jax.tree.leaves(memory)) == (name in RECURRENT)
    if name in RECURRENT:
        without = run(params, observation, np.zeros((T, N), bool))[0]
        changed = np.abs(without - unrolled).reshape(T, N, -1).max(-1) > 1e-6
        # A reset changes its own column from its own step on, and nothing else.
        assert not changed[:2, 0].any() and not changed[:5, 2].any()
        assert changed[2, 0] and changed[3, 0] and changed[0, 1] and changed[5, 2]
    else:
        assert memory == ()


@pytest.mark.parametrize("name", ["cnn", "two_recurrent", "policy_gaussian", "linen_gru", "nnx"])
def test_vmap_over_seeds_is_each_seed_alone(name):
    network, observation, _ = CASES[name]
    now = jax.tree.map(lambda x: x[0], observation)

    def run(key):
        params = network.init(key, now)
        return params, network.apply(params, network.init_memory(params, now), now)

    keys = jax.random.split(KEY, 2)
    mapped = jax.jit(jax.vmap(run))(keys)
    alone = jax.jit(run)(keys[1])
    close(jax.tree.map(lambda x: x[1], mapped), alone)
    different = [np.any(x[0] != x[1]) for x in jax.tree.leaves(mapped[0]) if x.ndim > 2]
    assert all(different)


@pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "two_recurrent", "policy_gaussian"])
def test_outputs_are_elementwise_over_leading_axes(name):
    network, observation, _ = CASES[name]
    params = weights(network, observation)

    @jax.jit
    def run(x):
        return network.apply(params, network.init_memory(params, x), x)[1]

    grid, rows = run(observation), run(observation.reshape((-1, *observation.shape[2:])))
    close(grid, rows.reshape(grid.shape))
    close(run(observation[0, 0]), grid[0, 0])


def test_gru_equations():
    network = gru(3)
    params = jax.tree.map(lambda x: x + 0.1, network.init(KEY, VECTOR[0]))
    h, x = jax.random.normal(KEY, (N, 3)), VECTOR[0]
    memory, output = network.apply(params, h, x)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h, x = np.asarray(h, np.float64), np.asarray(x, np.float64)
    (w_r, w_z, w_n), (u_r, u_z, u_n) = (np.split(p[k]["kernel"], 3, -1) for k in ("input", "recurrent"))
    b_r, b_z, b_n = np.split(p["input"]["bias"], 3)
    r = 1 / (1 + np.exp(-(x @ w_r + b_r + h @ u_r)))
    z = 1 / (1 + np.exp(-(x @ w_z + b_z + h @ u_z)))
    n = np.tanh(x @ w_n + b_n + r * (h @ u_n + p["recurrent"]["bias"]))
    np.testing.assert_allclose(output, (1 - z) * n + z * h, rtol=1e-5)
    np.testing.assert_array_equal(memory, output)


def test_gru_is_that_of_flax():
    """The same numbers as `linen.GRUCell` with our weights in its places."""
    ours, cell = gru(3), linen.GRUCell(3)
    params = jax.tree.map(lambda x: x + 0.1, ours.init(KEY, VECTOR[0]))
    names = ("r", "z", "n")
    theirs = {}
    for name, kernel, bias in zip(
        names, jnp.split(params["input"]["kernel"], 3, -1), jnp.split(params["input"]["bias"], 3), strict=True
    ):
        theirs["i" + name] = {"kernel": kernel, "bias": bias}
    for name, kernel in zip(names, jnp.split(params["recurrent"]["kernel"], 3, -1), strict=True):
        theirs["h" + name] = {"kernel": kernel}
    theirs["hn"]["bias"] = params["recurrent"]["bias"]
    h = jax.random.normal(KEY, (N, 3))
    close(ours.apply(params, h, VECTOR[0])[1], cell.apply({"params": theirs}, h, VECTOR[0])[1])


# Initial weights ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (3, 3, 2, 5), (1, 1)])
def test_orthogonal(shape):
    scale = 1.5
    matrix = np.asarray(networks.orthogonal(scale)(KEY, shape), np.float64).reshape(-1, shape[-1])
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, scale**2 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_is_uniform():
    """Without the correction of the signs the diagonal of Q would have a mean far from 0."""
    keys = jax.random.split(KEY, 2000)
    q = jax.jit(jax.vmap(lambda key: networks.orthogonal()(key, (2, 2))))(keys)
    np.testing.assert_allclose(jnp.mean(q, 0), 0.0, atol=0.08)  # 5 standard errors: entries have variance 1/2
    np.testing.assert_allclose(jnp.mean(q**2, 0), 0.5, atol=0.05)


@pytest.mark.slow
def test_vmapped_initialisation_does_not_deadlock():
    """Batched LAPACK calls may hang in jaxlib 0.10.2 when several run at once; then only ending the process helps."""
    program = """
import jax, jax.numpy as jnp, numpy as np
from jaxrl.networks import critic, mlp
network, observation = critic(mlp((64, 64))), jnp.zeros((1, 4))
init = jax.jit(jax.vmap(lambda key: [network.init(k, observation) for k in jax.random.split(key)]))
for params in [init(jax.random.split(jax.random.key(seed), 32)) for seed in range(200)]:  # all 200 in flight
    for p in params:
        kernel = np.asarray(p["torso"]["dense_1"]["kernel"])
        gram = kernel @ kernel.swapaxes(1, 2)
        np.testing.assert_allclose(gram, np.broadcast_to(2 * np.eye(64), gram.shape), atol=1e-4)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_gains_and_structure():
    params = mlp((8, 8), scale=2.0, layer_norm=True).init(KEY, VECTOR[0])
    assert set(params) == {"dense_0", "dense_1", "norm_0", "norm_1"}
    np.testing.assert_allclose(params["dense_1"]["kernel"] @ params["dense_1"]["kernel"].T, 4 * np.eye(8), atol=1e-5)
    assert all((p["bias"] == 0).all() for p in params.values())

    actor = policy(mlp((8,)), CATEGORICAL, scale=0.01).network.init(KEY, VECTOR[0])
    assert set(actor) == {"torso", "head"}
    np.testing.assert_allclose(actor["head"]["kernel"].T @ actor["head"]["kernel"], 1e-4 * np.eye(5), atol=1e-8)
    value = critic(mlp((8,)), scale=3.0).init(KEY, VECTOR[0])
    np.testing.assert_allclose(jnp.sum(value["head"]["kernel"] ** 2), 9.0, rtol=1e-5)
    assert sum(x.size for x in jax.tree.leaves(gru(5).init(KEY, VECTOR[0]))) == 3 * 5 * (D + 5 + 1) + 5


def test_layer_norm_and_activation():
    network = mlp((8,), activation=lambda x: x, layer_norm=True)
    outputs = network.apply(network.init(KEY, VECTOR[0]), (), VECTOR)[1]
    np.testing.assert_allclose(jnp.mean(outputs, -1), 0.0, atol=1e-5)
    np.testing.assert_allclose(jnp.var(outputs, -1), 1.0, atol=1e-3)
    plain = mlp((8,), activation="relu")
    params = plain.init(KEY, VECTOR[0])
    kernel = params["dense_0"]["kernel"]
    np.testing.assert_allclose(
        plain.apply(params, (), VECTOR)[1], np.maximum(VECTOR @ kernel, 0.0), rtol=1e-5, atol=1e-6
    )


def test_dtypes_of_images():
    network = cnn((3,), widths=(8,), activation=lambda x: x)
    image = jax.random.randint(KEY, (2, 6, 6, 2), 0, 256).astype(jnp.uint8)
    params = network.init(KEY, image)
    bytes_, floats = (network.apply(params, (), x)[1] for x in (image, image / 255.0))
    close(bytes_, floats)
    close(network.apply(params, (), image > 100)[1], network.apply(params, (), (image > 100).astype(jnp.float32))[1])


def test_convolution_by_hand():
    network = cnn((1,), kernel=2, widths=(1,), activation=lambda x: x)
    image = jnp.arange(9.0).reshape(1, 3, 3, 1)
    params = network.init(KEY, image)
    params["conv_0"] = {"kernel": jnp.array([1.0, 10.0, 100.0, 1000.0]).reshape(2, 2, 1, 1), "bias": jnp.array([0.5])}
    params["mlp"]["dense_0"] = {"kernel": jnp.array([[1.0], [0.0], [0.0], [2.0]]), "bias": jnp.zeros(1)}
    # Windows [0 1 3 4] and [4 5 7 8]
    expected = (10 + 300 + 4000 + 0.5) + 2 * (4 + 50 + 700 + 8000 + 0.5)
    np.testing.assert_allclose(network.apply(params, (), image)[1], [[expected]])


# Heads ----------------------------------------------------------------------------------------------------------------


def test_state_independent_scale():
    family = distributions.diagonal_gaussian((2,))
    network = policy(mlp((8,)), family).network
    params = network.init(KEY, VECTOR[0])
    np.testing.assert_array_equal(params["log_scale"], 0.0)
    params["log_scale"] = jnp.array([0.5, -1.0])
    outputs = network.apply(params, (), VECTOR)[1]
    np.testing.assert_array_equal(outputs[..., 2:], np.broadcast_to([0.5, -1.0], (T, N, 2)))
    free = policy(mlp((8,)), family, scale=1.0, state_dependent_scale=True).network
    outputs = free.apply(free.init(KEY, VECTOR[0]), (), VECTOR)[1]
    assert outputs.shape == (T, N, 4) and jnp.std(outputs[..., 2:]) > 0.01


@pytest.mark.parametrize("family", [CATEGORICAL, distributions.multi_categorical((2, 3))])
def test_masked_policy_takes_legal_actions_only(family):
    actor = masked(policy(mlp((8,)), family))
    mask = jnp.array([False, True, True, False, True])
    observation = {"observation": VECTOR, "action_mask": jnp.broadcast_to(mask, (T, N, 5))}

    @jax.jit
    def run(key):
        params = actor.network.init(key, jax.tree.map(lambda x: x[0], observation))
        logits = actor.network.apply(params, (), observation)[1]
        return logits, jax.vmap(family.sample, (0, None))(jax.random.split(key, 200), logits), family.mode(logits)

    logits, raw, mode = run(KEY)
    assert (logits[..., ~mask] == -1e9).all() and (jnp.abs(logits[..., mask]) < 10).all()
    legal = [{1, 2, 4}] if family is CATEGORICAL else [{1}, {0, 2}]
    for actions in (raw, mode):
        columns = np.asarray(actions).reshape((-1, len(legal)))
        assert [set(c.tolist()) <= s for c, s in zip(columns.T, legal, strict=True)] == [True] * len(legal)
    assert [set(c.tolist()) for c in np.asarray(raw).reshape((-1, len(legal))).T] == legal


def test_pretrained_copies_and_checks():
    network = mlp((8,))
    given = network.init(jax.random.key(7), VECTOR[0])
    params = pretrained(network, given).init(KEY, VECTOR[0])
    close(params, given, 0)
    jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(given))  # still there
    mapped = jax.vmap(lambda key: pretrained(network, given).init(key, VECTOR[0]))(jax.random.split(KEY, 3))
    assert mapped["dense_0"]["kernel"].shape == (3, D, 8)
    with pytest.raises(ValueError, match="pretrained: params have shapes"):
        pretrained(mlp((9,)), given).init(KEY, VECTOR[0])


# Adapters -------------------------------------------------------------------------------------------------------------


def test_from_linen_and_nnx_compute_what_the_modules_do():
    module = linen.Dense(5)
    network = networks.from_linen(module)
    params = network.init(KEY, VECTOR[0])
    close(network.apply(params, (), VECTOR)[1], module.apply({"params": params}, VECTOR))
    close(params, module.init(KEY, VECTOR[0])["params"], 0)

    network = networks.from_nnx(lambda rngs: nnx.Linear(D, 5, rngs=rngs))
    params = network.init(KEY, VECTOR[0])
    close(network.apply(params, (), VECTOR)[1], VECTOR @ params["kernel"] + params["bias"])
    close(params["kernel"], nnx.Linear(D, 5, rngs=nnx.Rngs(KEY)).kernel[...], 0)
    gradient = jax.grad(lambda p: jnp.sum(network.apply(p, (), VECTOR)[1]))(params)
    close(gradient["bias"], jnp.full(5, T * N))


def test_modules_with_other_state_are_refused():
    with pytest.raises(ValueError, match="batch_stats"):
        networks.from_linen(linen.BatchNorm(use_running_average=False)).init(KEY, VECTOR[0])
    with pytest.raises(ValueError, match="from_nnx: the module has state"):
        networks.from_nnx(lambda rngs: nnx.BatchNorm(D, rngs=rngs))


def test_errors_name_the_argument():
    cases = [
        (lambda: mlp(()), "mlp: widths is"),
        (lambda: mlp((8, 0)), "mlp: widths is"),
        (lambda: mlp(activation="tan"), "activation is 'tan'"),
        (lambda: dense(0), "dense: size is"),
        (lambda: gru(0), "gru: size is 0"),
        (lambda: cnn((3, 4), (3,)), "cnn: kernel"),
        (lambda: cnn().init(KEY, jnp.zeros((1, 2, 2, 1))), "kernel 3 does not fit in what is left, 2 x 2"),
        (lambda: cnn().init(KEY, jnp.zeros((10, 10))), "the image has shape"),
        (lambda: sequential(), "sequential: needs"),
        (lambda: masked(policy(mlp(), distributions.diagonal_gaussian((2,)))), "masked: the policy's distribution"),
    ]
    for fn, message in cases:
        with pytest.raises(ValueError, match=message):
            fn()
    with pytest.raises(TypeError, match="choose one with view"):
        mlp().init(KEY, {"observation": VECTOR})


def test_numbers_of_operations_stay_small():
    """Tracing and, for small networks, run time go with the number of operations: a layer is a product, a bias spread
    and added, an activation."""
    network = mlp((64, 64))
    params = jax.eval_shape(network.init, KEY, VECTOR[0])
    jaxpr = jax.make_jaxpr(lambda p, x: network.apply(p, (), x)[1])(params, VECTOR)
    assert len([e for e in jaxpr.eqns if e.primitive.name != "broadcast_in_dim"]) == 8
    assert math.isclose(sum(math.prod(x.shape) for x in jax.tree.leaves(params)), D * 64 + 64 * 64 + 128)


@pytest.mark.parametrize("size", [(64, 64), (64, 3), (3, 64), (64, 1)])
def test_gradients_in_blocks_are_those_of_a_product(size):
    """[2, 256] rows are four blocks: the first and second derivative, forwards and backwards, alone and vmapped."""
    shapes = (2, 256, size[0]), size, (2, 256, size[1])
    x, kernel, cotangent = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    assert matmul._is_blocked(x, kernel)
    assert not matmul._is_blocked(x[:, :100], kernel) and not matmul._is_blocked(x[:1, :128], kernel)

    def derivatives(product):
        def loss(x, kernel):
            return jnp.sum(jnp.tanh(product(x, kernel)) * cotangent)

        slope = jax.grad(loss, (0, 1))
        return (
            product(x, kernel),
            slope(x, kernel),
            jax.jvp(product, (x, kernel), (cotangent @ kernel.T, kernel[::-1])),
            jax.grad(lambda k: jnp.sum(slope(x, k)[1] ** 2))(kernel),
            jax.vmap(slope, (None, 0))(x, jnp.stack([kernel, 2 * kernel])),
        )

    ours, plain = jax.jit(lambda: [derivatives(matmul.matmul), derivatives(jnp.matmul)])()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.max(jnp.abs(b)))), ours, plain)


@pytest.mark.parametrize("size", [(64,), (256, 1)])
def test_what_is_spread_has_the_gradients_of_a_broadcast(size):
    x, cotangent = jax.random.normal(KEY, size), jax.random.normal(jax.random.key(1), (256, 64))

    def derivatives(spread):
        slope = jax.grad(lambda x: jnp.sum(jnp.tanh(spread(x, (256, 64)) * cotangent)))
        curved = jax.grad(lambda x: jnp.sum(slope(x) ** 2))
        both = jax.vmap(slope)(jnp.stack([x, 2 * x]))
        return spread(x, (256, 64)), slope(x), curved(x), both, jax.jvp(slope, (x,), (x,))

    ours, plain = jax.jit(lambda: [derivatives(matmul.spread), derivatives(jnp.broadcast_to)])()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.max(jnp.abs(b)))), ours, plain)
