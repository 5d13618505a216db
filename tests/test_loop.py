"""Laws of the online loop: determinism, vmap, chunks, resumption, sharding, sweeps that compile once."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.loop import merge_metrics
from jaxrl.types import Curriculum

KEY = jax.random.key(3)


def small_loop(num_envs=4, recurrent=False, **kwargs):
    env = toys.clock(3)
    agent = ppo(*toys.actor_and_critic(env, recurrent=recurrent), num_epochs=2, num_minibatches=2)
    return jaxrl.online(agent, env, num_envs=num_envs, unroll_length=4, **kwargs)


def bits(tree):
    """Every leaf as numpy, keys as their words."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return [np.asarray(jax.random.key_data(x) if is_key(x) else x) for x in jax.tree.leaves(tree)]


def assert_same(a, b, **tolerance):
    compare = (
        (lambda x, y: np.testing.assert_allclose(x, y, **tolerance)) if tolerance else np.testing.assert_array_equal
    )
    for x, y in zip(bits(a), bits(b), strict=True):
        compare(x, y)


@pytest.fixture(scope="module")
def trained():
    loop = small_loop()
    init, six = jax.jit(loop.init), jax.jit(lambda s: jaxrl.run(loop, s, 6))
    return loop, init, six, six(init(KEY))


def test_same_key_same_run(trained):
    _, init, six, (state, metrics) = trained
    again, more = six(init(KEY))
    assert_same(state, again)
    assert_same(metrics, more)
    other, _ = six(init(jax.random.key(4)))
    assert any((a != b).any() for a, b in zip(bits(state.agent), bits(other.agent)))


def test_chunks_and_resumption_are_exact(trained):
    """Two chunks, with the state taken apart into bytes between them, equal one run to the bit."""
    loop, init, _, (state, metrics) = trained
    three = jax.jit(lambda s: jaxrl.run(loop, s, 3))
    half, first = three(init(KEY))
    leaves, structure = jax.tree.flatten(half)
    stored = [x.tobytes() for x in bits(half)]
    loaded = [np.frombuffer(raw, x.dtype).reshape(x.shape) for raw, x in zip(stored, bits(half))]
    keys = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    loaded = [jax.random.wrap_key_data(x) if is_key else jnp.asarray(x) for x, is_key in zip(loaded, keys)]
    resumed, second = three(jax.tree.unflatten(structure, loaded))
    assert_same(resumed, state)
    for name in metrics:
        np.testing.assert_array_equal(jnp.concatenate([first[name], second[name]]), metrics[name])


def test_a_vmapped_seed_equals_the_seed_alone(trained):
    """Numbers agree to rounding (the compiler vectorises another width), counts and actions exactly."""
    loop, _, _, (state, metrics) = trained
    keys = jnp.stack([jax.random.key(9), KEY])
    states, many = jax.jit(jax.vmap(lambda key: jaxrl.run(loop, loop.init(key), 6)))(keys)
    np.testing.assert_array_equal(many["episode/count"][1], metrics["episode/count"])
    assert_same(jax.tree.map(lambda x: x[1], states), state, atol=2e-5)


def test_a_sweep_compiles_once():
    loop, traces = small_loop(), []

    def train(key, learning_rate, discount):
        traces.append(1)
        hparams = PPOHparams(learning_rate=learning_rate, discount=discount)
        state, metrics = jaxrl.run(loop, loop.init(key, hparams), 2)
        return state.agent.params, metrics["value_loss"]

    sweep = jax.jit(jax.vmap(train, (None, 0, 0)))
    params, _ = sweep(KEY, jnp.array([1e-3, 1e-2, 1e-3]), jnp.array([0.9, 0.9, 0.5]))
    sweep(KEY, jnp.array([1e-4, 1e-5, 3e-3]), jnp.array([0.1, 0.2, 0.3]))
    assert len(traces) == 1 and sweep._cache_size() == 1
    kernels = params["critic"]["head"]["kernel"]
    assert (kernels[0] != kernels[1]).any() and (kernels[0] != kernels[2]).any()


def test_hyperparameters_live_in_the_state(trained):
    """Editing the state changes the next update; a gradient through an update reaches them."""
    loop, _, _, (state, _) = trained
    frozen = jaxrl.tree.edit_hparams(state, PPOHparams, learning_rate=0.0)
    after, _ = jax.jit(loop.step)(frozen)
    assert_same(after.agent.params, state.agent.params)

    def later_loss(learning_rate):
        edited = jaxrl.tree.edit_hparams(state, PPOHparams, learning_rate=learning_rate)
        return loop.step(edited)[0].agent.params["critic"]["head"]["kernel"].sum()

    value = jax.jit(later_loss)
    slope = jax.jit(jax.grad(later_loss))(1e-3)
    np.testing.assert_allclose(slope, (value(1.1e-3) - value(0.9e-3)) / 2e-4, rtol=0.05)


def test_a_sharded_step_equals_an_unsharded_one():
    """Environments split over 4 devices by the compiler: the same run within rounding."""
    program = """
        import jax, numpy as np, jaxrl, test_loop
        from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
        loop = test_loop.small_loop(num_envs=8)
        state = jax.jit(loop.init)(test_loop.KEY)
        mesh = jax.make_mesh((4,), ("env",), axis_types=(AxisType.Auto,))
        split = lambda x: P("env") if x.ndim and x.shape[0] == 8 else P()
        interaction = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, split(x))), state.interaction)
        rest = jax.device_put(state, NamedSharding(mesh, P()))
        sharded = rest._replace(interaction=interaction)
        assert len(interaction.observation.sharding.device_set) == 4
        run = jax.jit(lambda s: jaxrl.run(loop, s, 3))
        one, many = run(state), run(sharded)
        test_loop.assert_same(many, one, atol=1e-5)
        print("equal")
    """
    flags = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.path.dirname(__file__),
    }
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=flags, capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_a_curriculum_hands_params_to_resets():
    """Each environment gets its own length at its own reset; what was learned about them reaches the curriculum."""
    env = toys.clock(3)

    def sample(key, state, agent_state, n):
        del agent_state
        length = jax.random.randint(key, (n,), 1, 4) + state["shift"]
        return toys.ClockParams(length, jnp.ones(n, bool), jnp.ones(n))

    teacher = Curriculum(
        init=lambda key, params: {"shift": jnp.int32(0), "seen": jnp.float32(0)},
        sample=sample,
        update=lambda key, state, agent_state, data: (
            state | {"seen": state["seen"] + data.reward.sum()},
            {"taught": 1.0},
        ),
    )
    agent = ppo(*toys.actor_and_critic(env), num_minibatches=1)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=8, curriculum=teacher)
    state, metrics = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY), 3))()
    assert set(np.unique(state.interaction.params.length)) == {1, 2, 3}
    assert state.curriculum["seen"] == 3 * 16 * 8 and (metrics["taught"] == 1).all()


def test_shared_params_are_traced(trained):
    """A change of the state's params changes the environment without another compilation."""
    loop, init, six, _ = trained
    state = init(KEY)
    params = state.interaction.params._replace(reward=jnp.float32(5.0))
    _, metrics = six(state._replace(interaction=state.interaction._replace(params=params)))
    assert six._cache_size() == 1
    np.testing.assert_allclose(metrics["episode/return_sum"] / metrics["episode/count"], 15.0)


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(num_envs=0), "num_envs is 0, must be >= 1"),
        (dict(unroll_length=-2), "unroll_length is -2"),
        (dict(reset_pool=-1), "reset_pool is -1"),
        (dict(reset_pool=4, episodic=True), "reset_pool is 4.*episodic"),
    ],
)
def test_bad_arguments(kwargs, message):
    env = toys.clock()
    with pytest.raises(ValueError, match=message):
        jaxrl.online(toys.idle_agent(env), env, **{"num_envs": 1, "unroll_length": 1, **kwargs})


def test_metrics_reported_twice():
    with pytest.raises(ValueError, match="loss.*reported twice"):
        merge_metrics({"loss": 1.0}, {"loss": 2.0})
