"""DQN: fixed points on tabular MDPs, one update by loops, what the rows of a batch mean."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
import toys

from jaxrl import action_values, losses, networks
from jaxrl.agents.dqn import DQNHparams, dqn
from jaxrl.distributions import categorical
from jaxrl.factory.value_based import build_dqn, default_action_values
from jaxrl.spaces import Box
from jaxrl.types import Policy, Transition, item

KEY = jax.random.key(0)
S, A = 5, 3


def one_hot(copies=1):
    """Features of integer observations, so many times over: a linear head on them is a table."""
    features = jnp.tile(jnp.eye(S), (1, copies))
    return networks.feed_forward(lambda key, observation: {}, lambda params, s: features[s])


def decaying(num_updates):
    """Adam whose step falls to a thousandth over the last 70 % of a run."""
    return lambda hp: optax.adam(lambda t: hp.learning_rate * jnp.minimum(1.0, 1e-3 ** ((t / num_updates - 0.3) / 0.7)))


def learn(agent, hp, data, num_updates):
    """The state after `num_updates` on all of the data, for data [M, B] of M MDPs at once; Q [M, S, A]."""

    def train(data):
        state = agent.init(KEY, hp, data)
        step = lambda state, key: (agent.update(key, state, data)[0], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(KEY, num_updates))[0]

    return jax.jit(jax.vmap(train))(data)


def table(values, states):
    """Q [M, S, A]."""
    q = lambda params: values.mean(values.apply(None, params["values"], (), jnp.arange(S))[1])  # noqa: E731
    return np.asarray(jax.vmap(q)(states.params))


def fixed_point(values, mdps, *, num_updates=4000, learning_rate=0.03, data=None, numbers=None, **static):
    agent = dqn(values, optimizer=decaying(num_updates), **static)
    hp = DQNHparams(learning_rate, mdps[0].discount, target_rate=0.05)._replace(**numbers or {})
    if data is None:
        data = tabular.stack([tabular.rows(m, np.full((S, A), 1 / (S * A))) for m in mdps])
    return learn(agent, hp, data, num_updates)


@pytest.fixture(scope="module")
def mdps():
    return [tabular.random_mdp(seed, S, A, 0.8) for seed in range(4)]


@pytest.fixture(scope="module")
def best(mdps):
    return np.array([tabular.q_of(m, tabular.value_iteration(m)) for m in mdps])


@pytest.mark.parametrize("static", [dict(double=True), dict(double=False)], ids=["double", "max"])
def test_fixed_point_of_scalars(static, mdps, best):
    values = action_values.scalar(one_hot(), A)
    states = fixed_point(values, mdps, **static)
    np.testing.assert_allclose(table(values, states), best, atol=1e-3)


def test_fixed_point_with_a_hard_target_and_dueling(mdps, best):
    values = action_values.scalar(one_hot(2), A, dueling=True)
    states = fixed_point(values, mdps, target_period=20, numbers=dict(target_rate=1.0))
    np.testing.assert_allclose(table(values, states), best, atol=1e-3)


def test_fixed_point_of_c51(mdps, best):
    """The mean is exact where no return leaves the atoms; the distribution is that of the projected operator."""
    atoms = np.linspace(-20, 20, 21)
    values = action_values.categorical(one_hot(), A, num_atoms=21, low=-20.0, high=20.0, scale=0.01)
    states = fixed_point(values, mdps, learning_rate=0.1, num_updates=6000)
    np.testing.assert_allclose(table(values, states), best, atol=1e-3)
    logits = jax.vmap(lambda p: values.apply(None, p["values"], (), jnp.arange(S))[1].values)(states.params)
    for mdp, q, learned in zip(mdps, best, np.asarray(jax.nn.softmax(logits))):
        p = np.full((S, A, 21), 1 / 21)
        for _ in range(200):
            after = p[np.arange(S), q.argmax(1)]
            moved = np.zeros((S, A, 21))
            for s, a, j in np.ndindex(S, A, 21):
                b = (mdp.reward[s, a] + mdp.discount * atoms[j] + 20) / 2
                b = np.clip(b, 0, 20)
                mass = mdp.transition[s, a] @ after[:, j]
                low = min(int(b), 19)
                moved[s, a, low] += mass * (low + 1 - b)
                moved[s, a, low + 1] += mass * (b - low)
            p = moved
        np.testing.assert_allclose(learned, p, atol=5e-3)


@pytest.mark.parametrize("family", ["quantile", "implicit_quantile", "random_mixture"])
def test_fixed_point_of_quantiles_and_mixtures(family):
    """Of deterministic MDPs, where all quantiles are the value."""
    mdps = [tabular.random_mdp(seed, S, A, 0.8, branching=1) for seed in range(4)]
    static = {
        "quantile": dict(num_quantiles=4),
        "implicit_quantile": dict(num_samples=4, num_greedy=4, num_cosines=4, widths=()),
        "random_mixture": dict(num_heads=3, loss=losses.squared),
    }[family]
    # Several features a state, since one may be dead behind the rectifier of the embedding of levels.
    values = getattr(action_values, family)(one_hot(8), A, **static)
    states = fixed_point(values, mdps)
    exact = [tabular.q_of(m, tabular.value_iteration(m)) for m in mdps]
    # Implicit quantiles share weights between levels that are drawn at random.
    tolerance = 1e-2 if family == "implicit_quantile" else 1e-3
    np.testing.assert_allclose(table(values, states), exact, atol=tolerance)


def test_quantiles_of_random_rewards():
    """Rewards that end the episode: kappa = 0 learns their exact quantiles."""
    rng = np.random.default_rng(0)
    reward = np.sort(rng.normal(size=(2, 7)))
    data = Transition(
        jnp.repeat(jnp.arange(2), 7), jnp.zeros(14, jnp.int32), jnp.asarray(reward.ravel(), jnp.float32),
        jnp.ones(14, bool), jnp.zeros(14, bool), jnp.zeros(14, jnp.int32),
    )  # fmt: skip
    values = action_values.quantile(one_hot(), 1, num_quantiles=4, kappa=0.0)
    agent = dqn(values, optimizer=decaying(6000))
    state = jax.tree.map(lambda x: x[0], learn(agent, DQNHparams(0.05), jax.tree.map(lambda x: x[None], data), 6000))
    learned = values.apply(None, state.params["values"], (), jnp.arange(2))[1].values[:, 0]
    # Levels 1/8, 3/8, 5/8, 7/8 of 7 equal masses: the samples 0, 2, 4, 6.
    np.testing.assert_allclose(learned, reward[:, [0, 2, 4, 6]], atol=2e-3)


def test_fixed_point_of_cql(mdps):
    """Q = B Q - alpha (softmax(Q) / pi_b - 1), each pair weighted by the behavior (Kumar et al. 2020, equation 11)."""
    alpha = 0.5
    behaviors = [tabular.random_policy(seed, S, A) * 0.7 + 0.1 for seed in range(4)]
    data = tabular.stack([tabular.rows(m, b / S) for m, b in zip(mdps, behaviors)])
    values = action_values.scalar(one_hot(), A)
    states = fixed_point(values, mdps, data=data, numbers=dict(conservative=alpha), num_updates=6000)
    learned = table(values, states)
    for mdp, behavior, q in zip(mdps, behaviors, learned):
        exact = np.zeros((S, A))
        for _ in range(20_000):  # gradient flow of the convex loss toward targets that follow
            softmax = np.exp(exact - exact.max(1, keepdims=True))
            softmax /= softmax.sum(1, keepdims=True)
            target = tabular.q_of(mdp, exact.max(1))
            exact = exact - 0.05 * (exact - target + alpha * (softmax / behavior - 1))
        np.testing.assert_allclose(q, exact, atol=2e-3)


def test_fixed_point_of_bcq(mdps):
    """The best policy among actions that are likely enough under the behavior."""
    behavior = np.tile([0.6, 0.3, 0.1], (S, 1))
    behavior[::2] = [0.05, 0.5, 0.45]
    data = tabular.stack([tabular.rows(m, behavior / S) for m in mdps])
    values = action_values.scalar(one_hot(), A)
    policy = Policy(tabular.logits_table(S, A), categorical(A))
    static = dict(behavior=policy, data=data, numbers=dict(threshold=0.3))
    states = fixed_point(values, mdps, **static)
    support = behavior / behavior.max(1, keepdims=True) > 0.3
    assert not support.all() and support.sum(1).min() == 2
    exact = np.array([tabular.q_of(m, tabular.value_iteration(m, support)) for m in mdps])
    free = np.array([tabular.q_of(m, tabular.value_iteration(m)) for m in mdps])
    assert np.abs(exact - free).max() > 0.1
    np.testing.assert_allclose(table(values, states), exact, atol=1e-3)
    agent = dqn(values, behavior=policy)
    state = jax.tree.map(lambda x: x[0], states)
    for acting in (agent.act, agent.act_greedy):
        action = acting(KEY, state, (), jnp.arange(S))[1]
        np.testing.assert_array_equal(action, np.where(support, exact[0], -np.inf).argmax(1))


def test_values_of_the_data_policy(mdps):
    """With the data's next actions the fixed point is Q of the behavior."""
    policies = [tabular.random_policy(seed, S, A) for seed in range(4)]
    rows = []
    for mdp, policy in zip(mdps, policies):
        data = tabular.rows(mdp, np.full((S, A), 1 / (S * A)))
        each = [
            data._replace(
                extras={
                    "weight": data.extras["weight"] * jnp.asarray(policy, jnp.float32)[data.next_observation, a],
                    "next_action": jnp.full(data.action.shape, a),
                }
            )
            for a in range(A)
        ]
        rows.append(jax.tree.map(lambda *xs: jnp.concatenate(xs), *each))
    values = action_values.scalar(one_hot(), A)
    states = fixed_point(values, mdps, data=tabular.stack(rows), next_action="data")
    exact = [tabular.q_of(m, tabular.evaluate_policy(m, p)) for m, p in zip(mdps, policies)]
    np.testing.assert_allclose(table(values, states), exact, atol=1e-3)


def test_fixed_point_of_crr(mdps):
    """pi = pi_data exp(k Q) / Z and Q = Q of pi: a fixed point of both at once."""
    k = 0.7
    behaviors = [tabular.random_policy(seed, S, A) * 0.7 + 0.1 for seed in range(4)]
    data = tabular.stack([tabular.rows(m, b / S) for m, b in zip(mdps, behaviors)])
    data = jax.tree.map(lambda x: jnp.tile(x, (1, 8)), data)  # next actions are drawn: more of them, less noise
    values = action_values.scalar(one_hot(), A)
    policy = Policy(tabular.logits_table(S, A), categorical(A))
    numbers = dict(inverse_temperature=k, max_weight=1e9, threshold=1.0)
    static = dict(behavior=policy, next_action="behavior", data=data, numbers=numbers, num_updates=8000)
    states = fixed_point(values, mdps, **static)
    learned = table(values, states)
    for i, (mdp, behavior) in enumerate(zip(mdps, behaviors)):
        pi = behavior
        for _ in range(500):
            q = tabular.q_of(mdp, tabular.evaluate_policy(mdp, pi))
            new = behavior * np.exp(k * (q - q.max(1, keepdims=True)))
            pi = 0.5 * pi + 0.5 * new / new.sum(1, keepdims=True)
        np.testing.assert_allclose(jax.nn.softmax(states.params["behavior"][i]), pi, atol=0.01)
        np.testing.assert_allclose(learned[i], q, atol=0.03)
        state = jax.tree.map(lambda x, i=i: x[i], states)
        np.testing.assert_array_equal(dqn(values, behavior=policy).act(KEY, state, (), jnp.arange(S))[1], pi.argmax(1))


def test_monte_carlo_estimation():
    """Values are means of the data's returns, nothing is bootstrapped."""
    returned = np.random.default_rng(0).normal(size=(S, A, 2))
    s, a, k = (jnp.asarray(x.ravel(), jnp.int32) for x in np.meshgrid(range(S), range(A), range(2), indexing="ij"))
    nothing = jnp.zeros(s.shape, bool)
    extras = {"mc_return": jnp.asarray(returned.ravel(), jnp.float32)}
    data = Transition(s, a, jnp.full(s.shape, 100.0), nothing, nothing, s, extras)
    values = action_values.scalar(one_hot(), A)
    agent = dqn(values, next_action="none", optimizer=decaying(2000))
    states = learn(agent, DQNHparams(0.03), jax.tree.map(lambda x: x[None], data), 2000)
    np.testing.assert_allclose(table(values, states)[0], returned.mean(-1), atol=1e-3)


def sgd(hp):
    return optax.sgd(hp.learning_rate)


def random_data(batch_size=8, seed=0, **extras):
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, batch_size)) < 0.4
    numbers = rng.normal(size=(2, batch_size, 4))
    return Transition(
        jnp.asarray(numbers[0], jnp.float32),
        jnp.asarray(rng.integers(0, A, batch_size), jnp.int32),
        jnp.asarray(rng.normal(size=batch_size), jnp.float32),
        jnp.asarray(terminated),
        jnp.asarray(truncated & ~terminated),
        jnp.asarray(numbers[1], jnp.float32),
        extras,
    )


@pytest.mark.parametrize("double", [True, False])
def test_one_update_against_a_reference(double):
    """n-step rows, weights, both kinds of ends: the gradient is that of a loss by plain loops; so is the target."""
    data = random_data(
        weight=jnp.array([1.0, 0.5, 2.0, 0.0, 1.0, 1.0, 0.25, 1.0]), num_steps=jnp.array([1, 3, 2, 1, 1, 2, 1, 3])
    )
    assert data.terminated.any() and data.truncated.any()
    values = action_values.scalar(networks.mlp((8,)), A)
    hp = DQNHparams(learning_rate=1.0, discount=0.9, target_rate=0.3, conservative=0.4)
    agent = dqn(values, double=double, optimizer=sgd)
    state = agent.init(KEY, hp, data)
    target_params = values.init(jax.random.key(9), data.observation)
    state = state._replace(target_params=target_params)

    def reference(params):
        def q(params, row):
            return values.mean(values.apply(None, params, (), row)[1])

        total = 0.0
        for i in range(8):
            after, online = (q(p, data.next_observation[i]) for p in (target_params, jax.lax.stop_gradient(params)))
            next_value = after[jnp.argmax(online if double else after)]
            decay = 0.0 if data.terminated[i] else 0.9 ** float(data.extras["num_steps"][i])
            now = q(params, data.observation[i])
            chosen = now[data.action[i]]
            loss = 0.5 * (chosen - (data.reward[i] + decay * next_value)) ** 2
            loss += 0.4 * (jnp.log(jnp.sum(jnp.exp(now))) - chosen)
            total += data.extras["weight"][i] * loss
        return total / jnp.sum(data.extras["weight"])

    value, gradient = jax.value_and_grad(reference)(state.params["values"])
    after, metrics = jax.jit(agent.update)(KEY, state, data)
    for new, old, g, now, then in zip(
        *map(jax.tree.leaves, (after.params, state.params, gradient, after.target_params, target_params))
    ):
        np.testing.assert_allclose(old - new, g, atol=2e-6)
        np.testing.assert_allclose(now, 0.7 * then + 0.3 * new, atol=1e-6)
    np.testing.assert_allclose(metrics["value_loss"] + 0.4 * metrics["conservative_loss"], value, rtol=1e-5)


def test_the_target_waits_for_its_period():
    data = random_data()
    agent = dqn(action_values.scalar(networks.mlp((8,)), A), target_period=3)
    state = agent.init(KEY, agent.hparams._replace(target_rate=1.0), data)
    expected, update = state.target_params, jax.jit(agent.update)
    for step in range(1, 7):
        state, _ = update(KEY, state, data)
        expected = state.params["values"] if step % 3 == 0 else expected
        jax.tree.map(np.testing.assert_array_equal, state.target_params, expected)


@pytest.mark.parametrize("distribution", ["scalar", "categorical", "quantile", "implicit_quantile", "random_mixture"])
def test_priorities_and_absent_rows(distribution):
    """Priorities come with an index only; rows of weight 0 may hold NaN."""
    values = default_action_values(networks.mlp((8,)), toys.clock(actions=A).action_space, distribution)
    policy = networks.policy(networks.mlp((8,)), categorical(A))
    agent = dqn(values, behavior=policy)
    data = random_data()
    state = jax.jit(agent.init)(KEY, agent.hparams, data)
    update = jax.jit(agent.update)
    plain, metrics = update(KEY, state, data)
    assert "priority" not in metrics and all(x.shape == () for x in metrics.values())
    _, metrics = update(KEY, state, data._replace(extras={"index": jnp.arange(8)}))
    priority = metrics.pop("priority")
    assert priority.shape == (8,) and (priority >= 0).all() and (priority > 0).any()
    if distribution == "scalar":
        q, then = (
            values.mean(values.apply(None, p, (), o)[1])
            for p, o in ((state.params["values"], data.observation), (state.target_params, data.next_observation))
        )
        chosen = agent.act(KEY, state, (), data.next_observation)[1]
        target = data.reward + 0.99 * (1 - data.terminated) * then[jnp.arange(8), chosen]
        np.testing.assert_allclose(priority, jnp.abs(q[jnp.arange(8), data.action] - target), rtol=1e-5)
    if distribution in ("implicit_quantile", "random_mixture"):
        return  # draws depend on the size of the batch
    absent = jax.tree.map(lambda x: x.at[:3].set(jnp.nan) if x.dtype == jnp.float32 else x, random_data(3))
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), data, absent)
    both = both._replace(extras={"weight": (jnp.arange(11) < 8).astype(jnp.float32)})
    padded, _ = update(KEY, state, both)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, padded)


def test_greedy_acting():
    env = toys.clock(actions=A)
    agent = build_dqn(env, widths=(8,))
    data = random_data()._replace(observation=jnp.ones((8, 2)) * jnp.arange(8)[:, None])
    state = agent.init(KEY, agent.hparams, data)
    _, action, extras = agent.act_greedy(KEY, state, (), data.observation)
    np.testing.assert_array_equal(agent.act(KEY, agent.actor(state), (), data.observation)[1], action)
    values = default_action_values(networks.mlp((8,), activation="relu"), env.action_space, "scalar")
    q = values.mean(values.apply(None, state.params["values"], (), data.observation)[1])
    np.testing.assert_array_equal(action, q.argmax(-1))
    np.testing.assert_allclose(extras["value"], q.max(-1), rtol=1e-6)
    assert item(action).dtype == env.action_space.dtype


@pytest.mark.parametrize(
    "static, message",
    [
        (dict(target_period=0), "target_period is 0, must be >= 1"),
        (dict(next_action="best"), "next_action is 'best', allowed"),
    ],
)
def test_bad_arguments(static, message):
    with pytest.raises(ValueError, match=message):
        dqn(action_values.scalar(networks.mlp((8,)), A), **static)


def test_bad_arguments_of_the_builder():
    env = toys.clock()
    for static, message in [
        (dict(distribution="normal"), "distribution is 'normal', allowed: scalar"),
        (dict(loss="absolute"), "loss is 'absolute', allowed"),
        (dict(distribution="categorical", rescale=True), "rescale is True, but categorical"),
        (dict(distribution="random_mixture", dueling=True), "random_mixture has one stream"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_dqn(env, **static)
    with pytest.raises(ValueError, match="next_action is 'behavior', needs a behavior"):
        build_dqn(env, next_action="behavior")
    with pytest.raises(ValueError, match="must be Discrete"):
        build_dqn(env._replace(action_space=Box(-1.0, 1.0, (2,))))


@pytest.mark.parametrize("next_action, needed", [("data", "next_action"), ("none", "mc_return")])
def test_data_without_what_a_next_action_needs(next_action, needed):
    data = random_data()
    agent = dqn(action_values.scalar(networks.mlp((8,)), A), next_action=next_action)
    state = agent.init(KEY, agent.hparams, data)
    with pytest.raises(ValueError, match=rf"next_action is '{next_action}', but the data has no extras\['{needed}'\]"):
        agent.update(KEY, state, data)
