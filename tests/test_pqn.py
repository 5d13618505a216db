"""PQN: one update against plain loops, the fixed point on tabular MDPs, recurrent columns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
import toys

import jaxrl
from jaxrl import action_values, networks
from jaxrl.agents.pqn import PQNHparams, pqn
from jaxrl.combinators.exploration import with_exploration
from jaxrl.exploration import EpsilonGreedyHparams, epsilon_greedy
from jaxrl.factory.value_based import build_pqn
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.spaces import Box
from jaxrl.types import Transition

KEY = jax.random.key(0)
A, T, N = 3, 6, 2


def make(recurrent):
    body = networks.mlp((8,), layer_norm=True)
    values = action_values.scalar(networks.sequential(body, networks.gru(4)) if recurrent else body, A)
    agent = pqn(values, num_epochs=1, num_minibatches=1, optimizer=lambda hp: optax.sgd(hp.learning_rate))
    return values, agent


def played(agent, hp, num_envs=N, length=T):
    """A rollout of a clock with random rewards, actions and ends."""
    env = toys.clock(4, actions=A)
    state = agent.init(KEY, hp, example_data(env, num_envs, length))
    now = start(KEY, agent, state, env, env.params, num_envs)
    _, data, _ = jax.jit(lambda: rollout(KEY, agent, state, env, now, length))()
    rng = np.random.default_rng(0)
    terminated, truncated = rng.random((2, length, num_envs)) < 0.25
    return state, data._replace(
        action=jnp.asarray(rng.integers(0, A, (length, num_envs)), jnp.int32),
        reward=jnp.asarray(rng.normal(size=(length, num_envs)), jnp.float32),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated & ~terminated),
    )


@pytest.mark.parametrize("recurrent", [False, True])
def test_one_update_against_a_reference(recurrent):
    """Peng's Q(lambda) from its definition as a mixture of n-step returns, column by column."""
    values, agent = make(recurrent)
    hp = PQNHparams(learning_rate=1.0, discount=0.9, lambda_=0.7)
    state, data = played(agent, hp)
    assert data.terminated.any() and data.truncated.any()

    def initial(n, t):
        return values.init_memory(state.params, data.observation[t, n])

    def unrolled(params, n):
        """Q [T, A] of a column, and max Q at its true successors, with memory anew where episodes began."""
        memory = jax.tree.map(lambda x: x[0, n], data.extras["memory"]) if recurrent else ()
        q, after = [], []
        for t in range(T):
            if recurrent and t and (data.terminated[t - 1, n] or data.truncated[t - 1, n]):
                memory = initial(n, t)
            memory, outputs = values.apply(None, params, memory, data.observation[t, n])
            q.append(values.mean(outputs))
            after.append(values.mean(values.apply(None, params, memory, data.next_observation[t, n])[1]).max())
        return jnp.stack(q), jnp.stack(after)

    def returned(n):
        """(1 - lambda) sum_k lambda^(k-1) G^k + lambda^(m-1) G^m, where m rows are left of the episode or window."""
        after = np.asarray(unrolled(state.params, n)[1])
        targets = []
        for t in range(T):
            n_step, total, decay = [], 0.0, 1.0
            for k in range(t, T):
                total += decay * float(data.reward[k, n])
                decay *= 0.9
                ended = bool(data.terminated[k, n])
                n_step.append(total + (0.0 if ended else decay * after[k]))
                if ended or data.truncated[k, n]:
                    break
            weights = [0.3 * 0.7**i for i in range(len(n_step) - 1)] + [0.7 ** (len(n_step) - 1)]
            targets.append(np.dot(weights, n_step))
        return np.array(targets)

    targets = np.stack([returned(n) for n in range(N)], 1)
    if recurrent:  # memory before each step as acting would have recorded it, with these ends
        rows = []
        for n in range(N):
            memory, column = jax.tree.map(lambda x: x[0, n], data.extras["memory"]), []
            for t in range(T):
                if t and (data.terminated[t - 1, n] or data.truncated[t - 1, n]):
                    memory = initial(n, t)
                column.append(memory)
                memory = values.apply(None, state.params, memory, data.observation[t, n])[0]
            rows.append(jax.tree.map(lambda *x: jnp.stack(x), *column))
        data = data._replace(extras={"memory": jax.tree.map(lambda *x: jnp.stack(x, 1), *rows)})

    def reference(params):
        total = 0.0
        for n in range(N):
            q = unrolled(params, n)[0]
            total += sum(0.5 * (q[t, data.action[t, n]] - targets[t, n]) ** 2 for t in range(T))
        return total / (T * N)

    loss, gradient = jax.value_and_grad(reference)(state.params)
    after, metrics = jax.jit(agent.update)(KEY, state, data)
    for new, old, g in zip(*map(jax.tree.leaves, (after.params, state.params, gradient))):
        np.testing.assert_allclose(old - new, g, atol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], loss, rtol=1e-4)
    assert after.num_updates == 1


@pytest.mark.parametrize("family", ["scalar", "categorical", "quantile"])
def test_fixed_point(family):
    """Rows of all transitions as rollouts of one step: Q*, for distributions as their means."""
    mdps = [tabular.random_mdp(seed, 5, A, 0.8, branching=2 if family == "scalar" else 1) for seed in range(4)]
    static = {"categorical": dict(num_atoms=21, low=-20.0, high=20.0, scale=0.01), "quantile": dict(num_quantiles=3)}
    torso = networks.feed_forward(lambda key, observation: {}, lambda params, s: jnp.eye(5)[s])
    values = getattr(action_values, family)(torso, A, **static.get(family, {}))
    data = tabular.stack([tabular.rows(m, np.full((5, A), 1 / (5 * A))) for m in mdps])
    data = jax.tree.map(lambda x: x[:, None], data)  # [M, T = 1, N]
    num_updates = 3000

    def optimizer(hp):
        return optax.adam(lambda t: 0.1 * jnp.minimum(1.0, 1e-3 ** ((t / num_updates - 0.3) / 0.7)))

    agent = pqn(values, num_epochs=1, num_minibatches=1, optimizer=optimizer)
    hp = PQNHparams(discount=0.8)

    def train(data):
        state = agent.init(KEY, hp, data)
        step = lambda state, key: (agent.update(key, state, data)[0], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(KEY, num_updates))[0]

    states = jax.jit(jax.vmap(train))(data)
    q = jax.vmap(lambda p: values.mean(values.apply(None, p, (), jnp.arange(5))[1]))(states.params)
    exact = [tabular.q_of(m, tabular.value_iteration(m)) for m in mdps]
    # Atoms that no return is near keep some probability: their logits have a long way to go.
    np.testing.assert_allclose(q, exact, atol=1e-2 if family == "categorical" else 1e-3)


def test_absent_rows():
    """Rows of weight 0 are passed over by returns and losses, even where they hold NaN."""
    _, agent = make(False)
    state, data = played(agent, PQNHparams(learning_rate=0.1))
    weight = jnp.ones((T, N)).at[2, 0].set(0).at[4:, 1].set(0)
    holes = weight == 0
    poisoned = data._replace(
        reward=jnp.where(holes, jnp.nan, data.reward),
        observation=jnp.where(holes[..., None], jnp.nan, data.observation),
        extras={"weight": weight},
    )
    clean, _ = jax.jit(agent.update)(KEY, state, data._replace(extras={"weight": weight}))
    after, metrics = jax.jit(agent.update)(KEY, state, poisoned)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), clean, after)
    # The hole in the first column cut out by hand; the other column ends earlier.
    columns = [np.array([0, 1, 3, 4, 5]), np.arange(4)]
    losses_ = []
    for n, rows in enumerate(columns):
        column = jax.tree.map(lambda x, n=n, rows=rows: x[rows, n : n + 1], data)
        losses_.append(float(jax.jit(agent.update)(KEY, state, column)[1]["value_loss"]) * len(rows))
    np.testing.assert_allclose(metrics["value_loss"], sum(losses_) / 9, rtol=1e-4)


def test_replay_equals_acting():
    """A recurrent network unrolled over a rollout gives the values that acting had."""
    values, agent = make(True)
    env = toys.clock(4, actions=A)
    state = agent.init(KEY, agent.hparams, example_data(env, N, T))
    now = start(KEY, agent, state, env, env.params, N)
    _, data, _ = jax.jit(lambda: rollout(KEY, agent, state, env, now, T))()
    last = data.terminated | data.truncated
    assert last.any()
    is_first = jnp.concatenate([jnp.zeros((1, N), bool), last[:-1]])
    memory = jax.tree.map(lambda x: x[0], data.extras["memory"])
    q = values.mean(values.unroll(None, state.params, memory, data.observation, is_first))
    np.testing.assert_array_equal(q.argmax(-1), data.action)
    stored = values.mean(values.apply(None, state.params, data.extras["memory"], data.observation)[1])
    np.testing.assert_allclose(q, stored, atol=1e-5)


def test_the_learning_rate_falls():
    _, agent = make(False)
    state, data = played(agent, PQNHparams(learning_rate=0.1, decay_steps=2.0 * T * N))
    update = jax.jit(agent.update)
    rates = []
    for _ in range(3):
        state, metrics = update(KEY, state, data)
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [0.1, 0.05, 0.0], rtol=1e-5)


def test_layers_of_a_cnn_are_normalized():
    """By channel after a convolution, by unit after a dense layer: the scale of an image makes no difference."""
    env = toys.clock()._replace(observation_space=Box(0.0, 1.0, (5, 5, 2)))
    agent = build_pqn(env, widths=(8,), channels=(4,))
    image = jax.random.uniform(KEY, (3, 5, 5, 2))
    nothing = jnp.zeros(3, bool)
    state = agent.init(
        KEY, agent.hparams, Transition(image[None], nothing, jnp.zeros(3), nothing, nothing, image[None])
    )
    torso = state.params["torso"]
    assert torso["norm_0"]["scale"].shape == (4,) and torso["mlp"]["norm_0"]["scale"].shape == (8,)
    one, hundred = (agent.act_greedy(KEY, state, (), x)[2]["value"] for x in (image, 100 * image))
    np.testing.assert_allclose(one, hundred, rtol=1e-3)
    layer = torso["conv_0"]
    patches = jax.lax.conv_general_dilated(
        image, layer["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    normal = jax.nn.relu((patches - patches.mean(-1, keepdims=True)) / patches.std(-1, keepdims=True))
    x = normal.reshape(3, -1) @ torso["mlp"]["dense_0"]["kernel"]
    x = jax.nn.relu((x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True))
    head = state.params["head"]["action"]
    np.testing.assert_allclose(one, (x @ head["kernel"] + head["bias"]).max(-1), rtol=1e-3)


@pytest.mark.slow
def test_learns_cartpole():
    env = jaxrl.envs.make("CartPole-v1")
    exploration = epsilon_greedy(env.action_space, hparams=EpsilonGreedyHparams(1.0, 0.05, 100_000.0))
    agent = with_exploration(build_pqn(env, num_minibatches=16, num_epochs=4), exploration)
    hparams = agent.hparams._replace(agent=agent.hparams.agent._replace(learning_rate=1e-3, lambda_=0.95))
    loop = jaxrl.online(agent, env, num_envs=32, unroll_length=64)
    state, _ = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY, hparams), 150))()
    result = jaxrl.evaluate(KEY, agent, state.agent, env, num_episodes=32)
    assert result.returns.mean() > 400


@pytest.mark.parametrize("static", [dict(num_epochs=0), dict(num_minibatches=0)])
def test_bad_arguments(static):
    with pytest.raises(ValueError, match=f"pqn: {list(static)[0]} is 0, must be >= 1"):
        pqn(action_values.scalar(networks.mlp((8,)), A), **static)
