"""Action values: each representation against its equations in plain NumPy, and against rlax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import action_values, losses, networks
from jaxrl.distributions import ILLEGAL

KEY = jax.random.key(0)
A, B = 3, 6
FAMILIES = {
    "scalar": dict(),
    "categorical": dict(num_atoms=7, low=-3.0, high=3.0),
    "quantile": dict(num_quantiles=5),
    "implicit_quantile": dict(num_samples=4, num_greedy=6, num_cosines=5, widths=(8,)),
    "random_mixture": dict(num_heads=4),
}


def make(family, torso=None, **static):
    torso = torso or networks.mlp((8,))
    return getattr(action_values, family)(torso, A, **FAMILIES[family] | static)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "observation": jnp.asarray(rng.normal(size=(B, 4)), jnp.float32),
        "next_observation": jnp.asarray(rng.normal(size=(B, 4)), jnp.float32),
        "action": jnp.asarray([0, 1, 2, 2, 1, 0]),
        "reward": jnp.asarray(rng.normal(size=B), jnp.float32),
        "bootstrap": jnp.asarray([0.9, 0.0, 0.81, 0.9, 0.0, 0.9], jnp.float32),
    }


def learned(values, batch):
    """Selected outputs, next outputs and Q' of two sets of weights."""
    keys = values.keys(KEY)
    params, target_params = (values.init(k, batch["observation"]) for k in jax.random.split(jax.random.key(3)))
    outputs = values.apply(keys[0], params, (), batch["observation"])[1]
    after = values.apply(keys[1], target_params, (), batch["next_observation"])[1]
    chooser = values.mean(values.apply(keys[2], params, (), batch["next_observation"])[1])
    return outputs, after, np.asarray(chooser)


def targets(values, batch, after, chooser):
    best = jnp.asarray(chooser.argmax(-1))
    return values.target(values.select(after, best), batch["reward"], batch["bootstrap"])


def test_scalar(batch):
    values = make("scalar")
    outputs, after, chooser = learned(values, batch)
    assert outputs.values.shape == (B, A)
    np.testing.assert_array_equal(values.mean(outputs), outputs.values)
    selected, target = values.select(outputs, batch["action"]), targets(values, batch, after, chooser)
    rlax = pytest.importorskip("rlax")
    error = jax.vmap(rlax.double_q_learning)(
        outputs.values, batch["action"], batch["reward"], batch["bootstrap"], after.values, chooser
    )
    np.testing.assert_allclose(values.loss(selected, target), 0.5 * error**2, rtol=1e-5)
    np.testing.assert_allclose(values.error(selected, target), np.abs(error), rtol=1e-5)
    clipped = make("scalar", loss=losses.huber)
    np.testing.assert_allclose(clipped.loss(selected, target), rlax.huber_loss(error), rtol=1e-5)


def test_rescaled_scalar(batch):
    """Learns h(Q): means are on the scale of rewards, targets and errors on that of h."""
    eps = 1e-3

    def h(x):
        return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + eps * x

    def inverse(x):
        root = (np.sqrt(1 + 4 * eps * (np.abs(x) + 1 + eps)) - 1) / (2 * eps)
        return np.sign(x) * (root**2 - 1)

    values = make("scalar", rescale=True)
    outputs, after, chooser = learned(values, batch)
    np.testing.assert_allclose(values.mean(outputs), inverse(np.float64(outputs.values)), rtol=1e-4, atol=1e-5)
    selected, target = values.select(outputs, batch["action"]), targets(values, batch, after, chooser)
    after = np.float64(after.values)[np.arange(B), chooser.argmax(-1)]
    expected = h(np.float64(batch["reward"]) + np.float64(batch["bootstrap"]) * inverse(after))
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values.error(selected, target), np.abs(selected - expected), atol=1e-5)


def test_categorical(batch):
    rlax = pytest.importorskip("rlax")
    values = make("categorical")
    atoms = np.linspace(-3, 3, 7)
    outputs, after, chooser = learned(values, batch)
    assert outputs.values.shape == (B, A, 7)
    np.testing.assert_allclose(values.mean(outputs), jax.nn.softmax(outputs.values) @ atoms, rtol=1e-5, atol=1e-6)
    selected, target = values.select(outputs, batch["action"]), targets(values, batch, after, chooser)
    np.testing.assert_allclose(target.sum(-1), 1.0, rtol=1e-5)
    expected = [
        rlax.categorical_double_q_learning(
            jnp.asarray(atoms, jnp.float32), outputs.values[i], batch["action"][i], batch["reward"][i],
            batch["bootstrap"][i], jnp.asarray(atoms, jnp.float32), after.values[i], jnp.asarray(chooser[i]),
        )
        for i in range(B)
    ]  # fmt: skip
    np.testing.assert_allclose(values.loss(selected, target), expected, rtol=1e-4)
    p = np.asarray(jax.nn.softmax(selected))
    target = np.asarray(target)
    kl = (target * (np.log(np.where(target > 0, target, 1)) - np.log(p))).sum(-1)
    np.testing.assert_allclose(values.error(selected, jnp.asarray(target)), kl, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["quantile", "implicit_quantile"])
def test_quantiles(family, batch):
    rlax = pytest.importorskip("rlax")
    values = make(family)
    outputs, after, chooser = learned(values, batch)
    num = 5 if family == "quantile" else 4
    levels = np.broadcast_to((np.arange(5) + 0.5) / 5, (B, 5)) if family == "quantile" else np.asarray(outputs.levels)
    assert outputs.values.shape == (B, A, num) and levels.shape == (B, num)
    assert ((levels > 0) & (levels < 1)).all()
    np.testing.assert_allclose(values.mean(outputs), outputs.values.mean(-1), rtol=1e-5)
    selected, target = values.select(outputs, batch["action"]), targets(values, batch, after, chooser)
    expected = [
        rlax.quantile_q_learning(
            outputs.values[i].T, jnp.asarray(levels[i], jnp.float32), batch["action"][i], batch["reward"][i],
            batch["bootstrap"][i], jnp.asarray(chooser[i])[None], after.values[i].T, 1.0,
        )
        for i in range(B)
    ]  # fmt: skip
    np.testing.assert_allclose(values.loss(selected, target), expected, rtol=1e-4)
    error = np.abs(selected[0].mean(-1) - target.mean(-1))
    np.testing.assert_allclose(values.error(selected, target), error, rtol=1e-4)


def test_implicit_quantile_network(batch):
    """The equation of the network by NumPy, at the levels that it reports; those of targets are drawn apart."""
    values = make("implicit_quantile")
    params = values.init(KEY, batch["observation"])
    outputs = values.apply(KEY, params, (), batch["observation"])[1]
    p = jax.tree.map(np.asarray, params["head"])
    features = np.asarray(networks.mlp((8,)).apply(params["torso"], (), batch["observation"])[1])
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    linear = lambda q, x: x @ q["kernel"] + q["bias"]  # noqa: E731
    for b in range(B):
        for i, level in enumerate(np.asarray(outputs.levels[b])):
            phi = relu(linear(p["embedding"], np.cos(np.pi * np.arange(5) * level)))
            z = linear(p["head"]["action"], relu(linear(p["dense_0"], features[b] * phi)))
            np.testing.assert_allclose(outputs.values[b, :, i], z, rtol=1e-4, atol=1e-5)
    greedy = values.apply(None, params, (), batch["observation"])[1]
    np.testing.assert_allclose(greedy.levels, np.broadcast_to((np.arange(6) + 0.5) / 6, (B, 6)), rtol=1e-6)
    learn, target, choose = values.keys(KEY)
    assert choose is None
    a, b = (values.apply(key, params, (), batch["observation"])[1].levels for key in (learn, target))
    assert (a != b).all() and len(np.unique(a)) == a.size


def test_random_mixture(batch):
    """One convex mixture for all that an update computes; acting takes the mean of the heads."""
    values = make("random_mixture")
    params = values.init(KEY, batch["observation"])
    features = networks.mlp((8,)).apply(params["torso"], (), batch["observation"])[1]
    head = params["head"]["action"]
    heads = np.asarray(features @ head["kernel"] + head["bias"]).reshape(B, A, 4)
    acting = values.apply(None, params, (), batch["observation"])[1].values
    np.testing.assert_allclose(acting, heads.mean(-1), rtol=1e-4)
    keys = values.keys(KEY)
    mixed = [np.asarray(values.apply(key, params, (), batch["observation"])[1].values) for key in keys]
    np.testing.assert_array_equal(mixed[0], mixed[1])
    np.testing.assert_array_equal(mixed[0], mixed[2])
    alpha, residual, *_ = np.linalg.lstsq(heads.reshape(-1, 4), mixed[0].ravel(), rcond=None)
    assert residual < 1e-8 and (alpha > 0).all() and len(np.unique(alpha)) == 4
    np.testing.assert_allclose(alpha.sum(), 1.0, rtol=1e-4)
    other = values.apply(jax.random.key(1), params, (), batch["observation"])[1].values
    assert (np.abs(other - mixed[0]) > 1e-4).any()


@pytest.mark.parametrize("family", ["scalar", "categorical", "quantile", "implicit_quantile"])
def test_dueling(family, batch):
    """Values are V + A - mean A, atom by atom; V reads the first half of the features, A the other."""
    values = make(family, dueling=True)
    params = values.init(KEY, batch["observation"])
    bias = jnp.arange(params["head"].get("head", params["head"])["action"]["bias"].shape[0], dtype=jnp.float32)

    def shifted(which, by):
        def shift(path, x):
            names = [k.key for k in path]
            return x + by if which in names and names[-1] == "bias" else x

        return jax.tree_util.tree_map_with_path(shift, params)

    def of(params):
        return values.apply(None, params, (), batch["observation"])[1].values

    base = of(params)
    np.testing.assert_allclose(of(shifted("action", 1.0)), base, atol=1e-5)  # a common advantage is no advantage
    np.testing.assert_allclose(of(shifted("value", 1.0)), base + 1.0, atol=1e-5)
    moved = of(shifted("action", bias)) - base
    assert np.abs(moved).max() > 0.1
    np.testing.assert_allclose(moved.sum(1), 0.0, atol=1e-4)
    if family == "scalar":
        features = networks.mlp((8,)).apply(params["torso"], (), batch["observation"])[1]
        assert params["head"]["value"]["kernel"].shape == (4, 1) and params["head"]["action"]["kernel"].shape == (4, A)
        value = features[:, :4] @ params["head"]["value"]["kernel"]
        np.testing.assert_allclose(base.mean(-1, keepdims=True), value, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_illegal_actions(family, batch):
    """Their mean is -1e9, whatever the network says; their gradient is 0 and finite."""
    values = make(family, networks.view(networks.mlp((8,)), lambda x: x["observation"]))
    mask = jnp.ones((B, A), bool).at[:, 1].set(False).at[0].set(jnp.array([False, False, True]))
    observation = {"observation": batch["observation"], "action_mask": mask}
    params = values.init(KEY, observation)
    q = values.mean(values.apply(None, params, (), observation)[1])
    np.testing.assert_array_equal(q == np.float32(ILLEGAL), ~mask)
    free = values.mean(values.apply(None, params, (), {"observation": batch["observation"]})[1])
    np.testing.assert_array_equal(q[mask], free[mask])

    def penalty(params):
        q = values.mean(values.apply(None, params, (), observation)[1])
        return jnp.sum(losses.conservative(q, action_values.take(q, jnp.full(B, 2))))

    gradient = jax.grad(penalty)(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_leading_axes_and_memory(batch):
    """[T, N] at once is each row alone; a recurrent torso's memory passes through."""
    observation = jnp.stack([batch["observation"], batch["next_observation"]])
    for family in FAMILIES:
        values = make(family, networks.sequential(networks.mlp((8,)), networks.gru(8)))
        params = values.init(KEY, batch["observation"])
        memory = values.init_memory(params, batch["observation"])
        is_first = jnp.zeros((2, B), bool).at[1, 0].set(True)
        unrolled = values.mean(values.unroll(None, params, memory, observation, is_first))
        then, first = values.apply(None, params, memory, observation[0])
        _, second = values.apply(None, params, then, observation[1])
        np.testing.assert_allclose(unrolled[0], values.mean(first), atol=1e-5)
        np.testing.assert_allclose(unrolled[1, 1:], values.mean(second)[1:], atol=1e-5)
        _, fresh = values.apply(None, params, memory, observation[1])
        np.testing.assert_allclose(unrolled[1, 0], values.mean(fresh)[0], atol=1e-5)
        selected = values.select(values.unroll(KEY, params, memory, observation, is_first), jnp.zeros((2, B), int))
        target = values.target(selected, jnp.ones((2, B)), jnp.zeros((2, B)))
        assert values.loss(selected, target).shape == values.error(selected, target).shape == (2, B)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_known_return(family, batch):
    """With bootstrap 0 the target is the reward, whatever the next values are."""
    values = make(family)
    outputs, _, _ = learned(values, batch)
    selected = values.select(outputs, batch["action"])
    target = values.target(selected, jnp.full(B, 1.5), jnp.zeros(B))
    if family == "categorical":  # half-way between the atoms 1 and 2
        np.testing.assert_allclose(target, np.tile([0, 0, 0, 0, 0.5, 0.5, 0], (B, 1)), atol=1e-6)
    else:
        np.testing.assert_allclose(target, 1.5)


@pytest.mark.parametrize(
    "family, static, message",
    [
        ("scalar", dict(num_actions=0), "scalar: num_actions is 0"),
        ("categorical", dict(low=1.0, high=1.0), "low 1.0, high 1.0; needs"),
        ("categorical", dict(num_atoms=1), "num_atoms is 1"),
        ("quantile", dict(num_quantiles=0), "num_quantiles is 0"),
        ("quantile", dict(kappa=-1.0), "kappa is -1.0"),
        ("implicit_quantile", dict(num_samples=0), "num_samples is 0"),
        ("random_mixture", dict(num_heads=0), "num_heads is 0"),
    ],
)
def test_bad_arguments(family, static, message):
    with pytest.raises(ValueError, match=message):
        getattr(action_values, family)(networks.mlp((8,)), **dict(num_actions=A) | static)
    with pytest.raises(ValueError, match="dueling halves the features, of which there are 7"):
        action_values.scalar(networks.mlp((7,)), A, dueling=True).init(KEY, jnp.zeros((1, 4)))
