"""R2D2: one update against plain loops, memory and ends within a sequence, priorities, a memory task."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
import toys

from jaxrl import action_values, buffers, networks, returns
from jaxrl.agents.r2d2 import R2D2Hparams, priority, r2d2
from jaxrl.combinators.exploration import with_exploration
from jaxrl.combinators.replay import with_replay
from jaxrl.exploration import epsilon_greedy
from jaxrl.factory.value_based import build_r2d2
from jaxrl.loop import online, run
from jaxrl.types import Transition

KEY = jax.random.key(0)
A, L, B = 3, 7, 2


def make(family="scalar", num_steps=3, burn_in=2, recurrent=True, **static):
    body = networks.mlp((8,))
    torso = networks.sequential(body, networks.gru(4)) if recurrent else body
    values = getattr(action_values, family)(torso, A, **static)
    return values, r2d2(values, num_steps=num_steps, burn_in=burn_in, optimizer=lambda hp: optax.sgd(hp.learning_rate))


def sequences(seed=0, length=L, **extras):
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, length, B)) < 0.2
    numbers = rng.normal(size=(2, length, B, 4))
    return Transition(
        jnp.asarray(numbers[0], jnp.float32),
        jnp.asarray(rng.integers(0, A, (length, B)), jnp.int32),
        jnp.asarray(rng.normal(size=(length, B)), jnp.float32),
        jnp.asarray(terminated),
        jnp.asarray(truncated & ~terminated),
        jnp.asarray(numbers[1], jnp.float32),
        extras,
    )


def start_of(agent, hp, data, target_seed=9):
    state = jax.jit(agent.init)(KEY, hp, data)
    return state._replace(target_params=jax.jit(agent.init)(jax.random.key(target_seed), hp, data).params)


@pytest.mark.parametrize("burn_in", [0, 2])
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "fresh"])
def test_one_update_against_a_reference(burn_in, stored):
    """Memory, ends, n-step double targets on the rescaled values, and the gradient, row by row."""
    values, agent = make(rescale=True, burn_in=burn_in)
    data = sequences()
    assert data.terminated.any() and data.truncated.any() and (data.terminated | data.truncated)[burn_in + 1 : -1].any()
    if stored:
        data = data._replace(extras={"memory": ((), jnp.asarray(np.random.default_rng(1).normal(size=(L, B, 4))))})
        data = data._replace(extras=jax.tree.map(lambda x: x.astype(jnp.float32), data.extras))
    hp = R2D2Hparams(learning_rate=1.0, discount=0.9, target_rate=0.25)
    state = start_of(agent, hp, data)

    def unrolled(params, n, stop=0):
        """Raw outputs [L, A] and at true successors; gradients stop at the memory of row `stop`."""
        fresh = values.init_memory(params, data.observation[0, n])
        memory = jax.tree.map(lambda x: x[0, n], data.extras["memory"]) if stored else fresh
        now, after = [], []
        for t in range(L):
            if t and (data.terminated[t - 1, n] or data.truncated[t - 1, n]):
                memory = fresh
            if t <= stop:
                memory = jax.lax.stop_gradient(memory)
            memory, outputs = values.apply(None, params, memory, data.observation[t, n])
            now.append(outputs.values)
            after.append(values.apply(None, params, memory, data.next_observation[t, n])[1].values)
        return jnp.stack(now), np.asarray(after) if not isinstance(after[0], jax.core.Tracer) else None

    def h(x):
        return np.sign(x) * (np.sqrt(np.abs(x) + 1) - 1) + 1e-3 * x

    def inverse(x):
        root = (np.sqrt(1 + 4e-3 * (np.abs(x) + 1 + 1e-3)) - 1) / 2e-3
        return np.sign(x) * (root**2 - 1)

    target = np.zeros((L, B))
    for n in range(B):
        online, later = unrolled(state.params, n)[1], unrolled(state.target_params, n)[1]
        for t in range(L):
            decay = 1.0
            for k in range(t, min(t + 3, L)):
                target[t, n] += decay * float(data.reward[k, n])
                decay *= 0.0 if data.terminated[k, n] else 0.9
                if data.terminated[k, n] or data.truncated[k, n]:
                    break
            target[t, n] += decay * inverse(float(later[k][online[k].argmax()]))
    target = h(target)

    def reference(params):
        total = 0.0
        for n in range(B):
            q = unrolled(params, n, burn_in)[0]
            total += sum(0.5 * (q[t, data.action[t, n]] - target[t, n]) ** 2 for t in range(burn_in, L))
        return total / (B * (L - burn_in))

    value, gradient = jax.value_and_grad(reference)(state.params)
    after, metrics = jax.jit(agent.update)(KEY, state, data)
    np.testing.assert_allclose(metrics["value_loss"], value, rtol=1e-4)
    for new, old, g, now, then in zip(
        *map(jax.tree.leaves, (after.params, state.params, gradient, after.target_params, state.target_params))
    ):
        np.testing.assert_allclose(old - new, g, atol=1e-5)
        np.testing.assert_allclose(now, 0.75 * then + 0.25 * new, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 20])
@pytest.mark.parametrize("weighted", [False, True])
def test_n_step_parts(n, weighted):
    """What is added up is `n_step_returns`."""
    data = sequences(3, length=12)
    last, discount = data.terminated | data.truncated, 0.9 * (1.0 - data.terminated)
    value = jnp.asarray(np.random.default_rng(5).normal(size=(12, B)), jnp.float32)
    weight = jnp.asarray(np.random.default_rng(6).random((12, B)) < 0.7, jnp.float32) if weighted else None
    expected = returns.n_step_returns(data.reward, value, discount, last, n, weight)
    total, decay, row = returns.n_step_parts(data.reward, discount, last, n, weight)
    there = np.ones((12, B), bool) if weight is None else np.asarray(weight) > 0
    actual = total + decay * jnp.take_along_axis(value, row, 0)
    np.testing.assert_allclose(actual[there], expected[there], rtol=1e-5, atol=1e-6)
    assert row.dtype == jnp.int32
    with pytest.raises(ValueError, match="n is 0"):
        returns.n_step_parts(data.reward, discount, last, 0)


@pytest.mark.parametrize("family", ["scalar", "categorical", "quantile"])
def test_fixed_point(family):
    """Sequences of one row without memory are DQN: Q*."""
    mdps = [tabular.random_mdp(seed, 5, A, 0.8, branching=2 if family == "scalar" else 1) for seed in range(4)]
    static = {"categorical": dict(num_atoms=21, low=-20.0, high=20.0, scale=0.01), "quantile": dict(num_quantiles=3)}
    torso = networks.feed_forward(lambda key, observation: {}, lambda params, s: jnp.eye(5)[s])
    values = getattr(action_values, family)(torso, A, **static.get(family, {}))
    data = tabular.stack([tabular.rows(m, np.full((5, A), 1 / (5 * A))) for m in mdps])
    data = jax.tree.map(lambda x: x[:, None], data)  # [M, L = 1, B]
    num_updates = 5000

    def optimizer(hp):
        return optax.adam(lambda t: 0.1 * jnp.minimum(1.0, 1e-3 ** ((t / num_updates - 0.3) / 0.7)))

    agent = r2d2(values, optimizer=optimizer)
    hp = R2D2Hparams(discount=0.8, target_rate=0.05)

    def train(data):
        state = agent.init(KEY, hp, data)
        step = lambda state, key: (agent.update(key, state, data)[0], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(KEY, num_updates))[0]

    states = jax.jit(jax.vmap(train))(data)
    q = jax.vmap(lambda p: values.mean(values.apply(None, p, (), jnp.arange(5))[1]))(states.params)
    exact = [tabular.q_of(m, tabular.value_iteration(m)) for m in mdps]
    np.testing.assert_allclose(q, exact, atol=1e-3)


def test_n_step_distributions():
    """The target of a distribution is that of the bootstrap row, moved by the rewards on the way."""
    values, agent = make("quantile", num_steps=3, burn_in=0, num_quantiles=4, recurrent=False, kappa=0.0)
    data = sequences()._replace(terminated=jnp.zeros((L, B), bool), truncated=jnp.zeros((L, B), bool))
    hp = R2D2Hparams(learning_rate=0.0, discount=0.9)
    state = start_of(agent, hp, data)

    def quantiles(params, observation):
        return np.asarray(values.apply(None, params, (), observation)[1].values)

    now = quantiles(state.params, data.observation)
    online, later = (quantiles(p, data.next_observation) for p in (state.params, state.target_params))
    total = 0.0
    for t in range(L):
        for n in range(B):
            k = min(t + 2, L - 1)
            sums = sum(0.9 ** (i - t) * float(data.reward[i, n]) for i in range(t, k + 1))
            target = sums + 0.9 ** (k - t + 1) * later[k, n, online[k, n].mean(-1).argmax()]
            u = target[None] - now[t, n, data.action[t, n]][:, None]
            level = (np.arange(4)[:, None] + 0.5) / 4
            total += (np.abs(level - (u < 0)) * np.abs(u)).mean(1).sum()
    _, metrics = jax.jit(agent.update)(KEY, state, data)
    np.testing.assert_allclose(metrics["value_loss"], total / (L * B), rtol=1e-4)


def test_absent_rows_and_priorities():
    """Rows of weight 0 at the end may hold NaN; they count neither in the update nor in priorities."""
    values, agent = make()
    data = sequences()
    state = start_of(agent, R2D2Hparams(), data)
    update = jax.jit(agent.update)
    clean, metrics = update(KEY, state, data)
    assert "priority" not in metrics and all(x.shape == () for x in metrics.values())
    absent = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, sequences(1, 3))
    padded = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), data, absent)
    weight = jnp.concatenate([jnp.ones((L, B)), jnp.zeros((3, B))])
    index = jnp.zeros((L + 3, B), jnp.int32)
    after, metrics = update(KEY, state, padded._replace(extras={"weight": weight, "index": index}))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), clean, after)
    long = metrics.pop("priority")
    short = update(KEY, state, data._replace(extras={"index": index[:L]}))[1]["priority"]
    np.testing.assert_allclose(long, short, rtol=1e-5)
    assert long.shape == (B,)
    error = jnp.array([[1.0, 2.0], [3.0, 0.0], [5.0, jnp.nan]])
    weight = jnp.array([[1.0, 1.0], [0.5, 2.0], [1.0, 0.0]])
    np.testing.assert_allclose(priority(error, weight, 0.9), [0.9 * 5 + 0.1 * 3, 0.9 * 2 + 0.1 * 1], rtol=1e-6)


def test_acting_records_memory_before_each_step():
    values, agent = make()
    data = sequences()
    state = start_of(agent, R2D2Hparams(), data)
    memory = agent.init_memory(KEY, state, data.observation[0])
    then, action, extras = agent.act(KEY, state, memory, data.observation[0])
    jax.tree.map(np.testing.assert_array_equal, extras["memory"], memory)
    _, greedy, extras = agent.act_greedy(KEY, agent.actor(state), then, data.observation[1])
    q = values.mean(values.unroll(None, state.params, memory, data.observation[:2], jnp.zeros((2, B), bool)))
    np.testing.assert_array_equal(jnp.stack([action, greedy]), q.argmax(-1))
    np.testing.assert_allclose(extras["value"], q[1].max(-1), rtol=1e-4)


def test_learns_to_remember():
    """The reward of the last of four rows asks for the first observation: 1 for the right action, else 0."""
    env = toys.clock(actions=2)
    agent = build_r2d2(env, widths=(16,), memory_size=16, rescale=True, td_steps=1)  # actions of the data are random
    length, batch = 4, 64

    def draw(key):
        cue_key, action_key = jax.random.split(key)
        cue = jax.random.bernoulli(cue_key, 0.5, (batch,)).astype(jnp.float32)
        time = jnp.arange(length + 1.0)[:, None]
        seen = jnp.stack([jnp.where(time == 0, 2 * cue - 1, 0.0), jnp.broadcast_to(time, (length + 1, batch))], -1)
        action = jax.random.bernoulli(action_key, 0.5, (length, batch)).astype(jnp.int32)
        over = jnp.broadcast_to(time[:-1] == length - 1, (length, batch))
        reward = jnp.where(over & (action == cue.astype(jnp.int32)), 1.0, 0.0)
        return Transition(seen[:-1], action, reward, over, jnp.zeros_like(over), seen[1:]), cue

    hp = agent.hparams._replace(learning_rate=5e-3, discount=0.9, target_rate=0.05)

    @jax.jit
    def train():
        state = agent.init(KEY, hp, draw(KEY)[0])
        step = lambda state, key: (agent.update(key, state, draw(key)[0])[0], None)  # noqa: E731
        state = jax.lax.scan(step, state, jax.random.split(KEY, 400))[0]
        data, cue = draw(KEY)
        memory = agent.init_memory(KEY, state, data.observation[0])
        values = []
        for t in range(length):
            memory, action, extras = agent.act_greedy(KEY, state, memory, data.observation[t])
            values.append(extras["value"])
        return action, cue, jnp.stack(values)

    action, cue, value = train()
    np.testing.assert_array_equal(action, cue)
    np.testing.assert_allclose(value, 0.9 ** np.arange(3, -1, -1)[:, None] * np.ones((1, batch)), atol=0.05)


def test_from_a_buffer_of_sequences():
    """In the loop, with exploration and priorities: memory is replayed as it was stored."""
    env = toys.clock(5)
    agent = build_r2d2(env, widths=(8,), memory_size=4, burn_in=1, td_steps=2)
    buffer = buffers.replay(128, 4, min_size=16, sampler=buffers.prioritized(), reader=buffers.sequences(4))
    whole = with_replay(with_exploration(agent, epsilon_greedy(env.action_space)), buffer)
    loop = online(whole, env, num_envs=4, unroll_length=8)
    state, metrics = jax.jit(lambda: run(loop, loop.init(KEY), 4))()
    assert np.isfinite(metrics["value_loss"]).all() and metrics["value_loss"][-1] > 0 and "priority" not in metrics
    data = buffer.sample(KEY, state.agent.buffer)
    assert data.reward.shape == (4, 4) and jax.tree.leaves(data.extras["memory"])[0].shape == (4, 4, 4)


@pytest.mark.parametrize(
    "static, message",
    [
        (dict(num_steps=0), "num_steps is 0, must be >= 1"),
        (dict(burn_in=-1), "burn_in is -1, must be >= 0"),
        (dict(burn_in=L), "burn_in is 7, must be < the 7 rows"),
    ],
)
def test_bad_arguments(static, message):
    with pytest.raises(ValueError, match=message):
        _, agent = make(**static)
        data = sequences()
        agent.update(KEY, agent.init(KEY, agent.hparams, data), data)
