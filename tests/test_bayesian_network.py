"""Joint policies whose agents see others' actions: probabilities, graphs and gradients, by enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.bayesian_network import bayesian_network, density, mask_params, parts, sample_graph, size_of
from jaxrl.tree import edit_fields

A, K, H = 3, 2, 4
FAMILY = bayesian_network(A, K, size=H)
JOINT = np.array(list(itertools.product(range(K), repeat=A)))  # [K^A, A]


@pytest.fixture(scope="module")
def params():
    return 0.8 * jax.random.normal(jax.random.key(0), (A, size_of(A, K, H)))


def with_graph(params, edges, order=(2.0, 1.0, 0.0)):
    """Params whose graph is certain: `edges` are (parent, child), and parents come first in `order`."""
    start = size_of(A, K, H) - A - 1
    odds = np.full((A, A), -50.0)
    for parent, child in edges:
        odds[child, parent] = 50.0
    return params.at[:, start:-1].set(odds).at[:, -1].set(50.0 * np.array(order))


def by_hand(params, raw):
    """Log-probabilities [A, K] of each agent's actions given its parents' in raw, with loops."""
    of = jax.tree.map(np.asarray, parts(params, K, H))
    place, odds = of.order + raw["order_noise"], of.edge + raw["edge_noise"]
    result = np.zeros((A, K))
    for i in range(A):
        heard = of.hidden[i].astype(np.float64)
        for j in range(A):
            if place[j] > place[i] and odds[i, j] > 0:
                heard = heard + of.attention[i, j] * of.message[j, raw["action"][j]]
        logits = of.logits[i] + (np.tanh(heard) - np.tanh(of.hidden[i])) @ of.read[i]
        result[i] = logits - np.log(np.sum(np.exp(logits)))
    return result


def test_probabilities_and_entropies_are_those_of_loops_and_sum_to_one(params):
    raw = jax.vmap(lambda key: FAMILY.sample(key, params))(jax.random.split(jax.random.key(1), 50))
    log_prob = jax.jit(jax.vmap(FAMILY.log_prob, (None, 0)))(params, raw)
    entropy = jax.jit(jax.vmap(FAMILY.entropy, (None, 0)))(params, raw)
    graphs = set()
    for i in range(50):
        one = jax.tree.map(lambda x: np.asarray(x[i]), raw)
        expected = by_hand(params, one)
        np.testing.assert_allclose(log_prob[i], expected[range(A), one["action"]], atol=1e-5)
        np.testing.assert_allclose(entropy[i], -np.sum(np.exp(expected) * expected, -1), atol=1e-5)
        graphs.add(float(log_prob[i].sum().round(4)))
        noise = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(JOINT), *x.shape)), one)
        total = jax.vmap(FAMILY.log_prob, (None, 0))(params, noise | {"action": JOINT}).sum(-1)
        np.testing.assert_allclose(np.exp(total).sum(), 1.0, atol=1e-5)
    assert len(graphs) > 8  # more than joint actions: graphs differ


@pytest.mark.parametrize("edges", [(), ((0, 1),), ((0, 1), (0, 2), (1, 2))])
def test_samples_have_the_probabilities_of_the_joint_policy(params, edges):
    params = with_graph(2.0 * params, edges)
    raw = FAMILY.sample(jax.random.key(2), jnp.broadcast_to(params, (40_000, *params.shape)))
    noise = {"edge_noise": jnp.zeros((len(JOINT), A, A)), "order_noise": jnp.zeros((len(JOINT), A))}
    p = np.exp(jax.vmap(FAMILY.log_prob, (None, 0))(params, noise | {"action": JOINT}).sum(-1))
    share = np.bincount(raw["action"] @ K ** np.arange(A)[::-1], minlength=K**A) / 40_000
    np.testing.assert_allclose(share, p, atol=4 * np.sqrt(0.25 / 40_000))
    independent = np.prod([np.array([p[JOINT[:, i] == k].sum() for k in range(K)])[JOINT[:, i]] for i in range(A)], 0)
    assert (np.abs(p - independent).max() > 1e-3) == bool(edges)


def test_graphs_have_no_cycles_and_the_probabilities_that_density_sums():
    keys = jax.random.split(jax.random.key(3), 3)
    params = 2.0 * jax.random.normal(keys[0], (5, size_of(5, K, H)))
    of = parts(params, K, H)
    noise = jax.random.logistic(keys[1], (10_000, 5, 5)), jax.random.gumbel(keys[2], (10_000, 5))
    graphs = jax.vmap(lambda e, o: sample_graph(of.edge, of.order, e, o, 1.0))(*noise)
    assert set(np.unique(graphs)) == {0.0, 1.0}
    powers = np.linalg.matrix_power(np.asarray(graphs), 5)
    assert not powers.any()  # no path of five edges among five agents
    expected = jax.nn.sigmoid(of.order[None, :] - of.order[:, None]) * jax.nn.sigmoid(of.edge) * (1 - np.eye(5))
    np.testing.assert_allclose(graphs.mean(0), expected, atol=0.02)
    np.testing.assert_allclose(density(params, K, H), np.full(5, graphs.mean(0).sum() / 10), atol=0.02)


def test_equal_numbers_make_no_cycle():
    graph = sample_graph(jnp.full((3, 3), 9.0), jnp.zeros(3), jnp.zeros((3, 3)), jnp.zeros(3), 1.0)
    np.testing.assert_array_equal(graph, np.tri(3, k=-1))


def test_mode_takes_the_likeliest_actions_one_after_another(params):
    for order in ((2.0, 1.0, 0.0), (0.0, 2.0, 1.0)):
        first = np.argsort(order)[::-1]
        edges = [(first[0], first[1]), (first[0], first[2]), (first[1], first[2])]
        certain = with_graph(3.0 * params, edges, order)
        raw = jax.tree.map(np.array, FAMILY.inverse(jnp.zeros(A, jnp.int32)))
        for i in first:
            raw["action"][i] = np.argmax(by_hand(certain, raw)[i])
        np.testing.assert_array_equal(FAMILY.transform(FAMILY.mode(certain)), raw["action"])


def test_without_edges_agents_are_independent_categoricals(params):
    apart = bayesian_network(A, K, size=H, edges=False)
    raw = FAMILY.sample(jax.random.key(4), params)
    expected = jax.nn.log_softmax(params[:, :K])[np.arange(A), raw["action"]]
    np.testing.assert_allclose(apart.log_prob(params, raw), expected, atol=1e-6)
    np.testing.assert_array_equal(apart.mode(params)["action"], jnp.argmax(params[:, :K], -1))


def test_nothing_learned_is_no_network():
    params = jnp.zeros((A, size_of(A, K, H)))
    raw = FAMILY.sample(jax.random.key(5), params)
    np.testing.assert_allclose(FAMILY.log_prob(params, raw), -np.log(K) * np.ones(A), atol=1e-6)
    assert np.abs(jax.grad(lambda p: FAMILY.log_prob(p, raw).sum())(params)).max() > 0


def test_policy_gradient_is_that_of_the_expected_payoff(params):
    """E[sum_i grad log pi_i(a_i | parents) r(a)] = grad E[r], where the graph is certain."""
    params = with_graph(params, ((0, 1), (1, 2)))
    payoff = np.random.default_rng(0).normal(size=len(JOINT)).astype(np.float32)
    noise = {"edge_noise": jnp.zeros((len(JOINT), A, A)), "order_noise": jnp.zeros((len(JOINT), A))}

    def log_prob(params):
        return jax.vmap(FAMILY.log_prob, (None, 0))(params, noise | {"action": JOINT}).sum(-1)

    exact = jax.grad(lambda p: jnp.sum(jnp.exp(log_prob(p)) * payoff))(params)
    p = jnp.exp(log_prob(params))
    estimate = jax.grad(lambda q: jnp.sum(p * payoff * log_prob(q)))(params)
    start = size_of(A, K, H) - A - 1
    np.testing.assert_allclose(estimate[:, :start], exact[:, :start], atol=1e-5)


def test_an_edge_is_wanted_where_it_makes_the_action_likelier(params):
    """The gradient of odds and of the order has the sign of what the edge changes."""
    params = with_graph(params, ()).at[:, -1].set(0.0)
    raw = FAMILY.inverse(jnp.array([0, 1, 0]))
    raw["order_noise"] = jnp.array([1.0, 0.0, -9.0])  # 0 before 1 before 2
    odds = slice(size_of(A, K, H) - A - 1, size_of(A, K, H) - 1)
    params = params.at[1, odds.start].set(-0.01)

    def of_agent_1(params):
        return FAMILY.log_prob(params, raw)[1]

    with_edge = of_agent_1(params.at[1, odds.start].set(0.01))
    gradient = jax.grad(of_agent_1)(params)
    change = with_edge - of_agent_1(params)
    assert abs(change) > 1e-3
    # Straight through: not the derivative of the step, but it points the way that the linearised change does.
    raised = jax.grad(lambda g: by_weight(params, raw, g))(0.0)
    assert np.sign(gradient[1, odds.start]) == np.sign(raised) and np.sign(gradient[0, -1]) == np.sign(raised)


def by_weight(params, raw, weight):
    """Log-probability of agent 1's action if agent 0 were its parent to some degree."""
    of = parts(params, K, H)
    heard = of.hidden[1] + weight * of.attention[1, 0] * of.message[0, raw["action"][0]]
    logits = of.logits[1] + (jnp.tanh(heard) - jnp.tanh(of.hidden[1])) @ of.read[1]
    return jax.nn.log_softmax(logits)[raw["action"][1]]


def test_illegal_actions_have_no_probability(params):
    mask = jnp.array([[True, False], [False, True], [True, True]])
    rows = jnp.broadcast_to(mask_params(params, mask), (2000, *params.shape))
    action = FAMILY.sample(jax.random.key(6), rows)["action"]
    assert not action[:, 0].any() and action[:, 1].all() and 0 < action[:, 2].mean() < 1
    assert np.all(np.isfinite(jax.grad(lambda p: FAMILY.log_prob(mask_params(p, mask), FAMILY.mode(p)).sum())(params)))


def test_errors(params):
    with pytest.raises(ValueError, match="num_actions is 0, must be >= 1"):
        bayesian_network(2, 0)
    with pytest.raises(ValueError, match="no closed form"):
        FAMILY.kl(params, params)


@pytest.mark.slow
def test_it_climbs_and_then_does_without_edges():
    """It ends at the best joint action of the game (apart, policies end at 7), and stays there without edges."""
    env = jaxrl.envs.make("games/climbing")
    made = [jaxrl.make_agent("cabn", env, widths=(16,), identify=True, apart=apart) for apart in (False, True)]
    (agent, hparams), (apart, _) = made
    numbers = dict(learning_rate=3e-3, sparsity_steps=20_000.0, sparsity_coefficient=1.0)
    hparams = edit_fields(hparams, {name: lambda _, x=x: jnp.float32(x) for name, x in numbers.items()})
    loop = jaxrl.online(agent, env, num_envs=32, unroll_length=16)

    def train(key):
        state, metrics = jaxrl.run(loop, loop.init(key, hparams), 80)
        played = [jaxrl.evaluate(key, x, state.agent, env, num_episodes=4).returns.mean() for x in (agent, apart)]
        return jnp.stack(played), metrics["penalty"]

    returns, edges = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(7), 4))
    np.testing.assert_allclose(returns, 11.0, atol=1e-3)
    assert edges[:, 0].min() > 0.4 and edges[:, -1].max() < 0.25
