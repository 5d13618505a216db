"""`options` and `switch`: the option-critic's gradients against enumeration, who learns from what, call and return."""

import hierarchies
import jax
import jax.numpy as jnp
import numpy as np
import optax
import probing
import pytest
import toys

import jaxrl
from jaxrl import key_reuse, networks
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.combinators.hierarchy import gate_policy, options, scripted, switch
from jaxrl.combinators.hierarchy.options import Choice, OptionsHparams, call_and_return, row_keys
from jaxrl.distributions import categorical, for_space
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)
DISCOUNT = 0.8
S, K, A = 3, 2, 2  # states, options, actions


class Exact:
    """Values, occupancies and gradients of options with tables, in float64."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.transition = rng.dirichlet(np.ones(S), (S, A))
        self.reward, self.start = rng.normal(size=(S, A)), rng.dirichlet(np.ones(S))
        self.tables = {"mu": (S, K), "beta": (S, K), "pi": (S, K, A)}
        self.tables = {name: rng.normal(size=shape) for name, shape in self.tables.items()}
        with jax.enable_x64(True):
            found = jax.jit(lambda tables: (jax.grad(self.performance)(tables), self.solve(tables)))(self.tables)
        self.gradient, solution = jax.tree.map(np.asarray, found)
        self.q, self.kept, self.pi, self.mu, self.beta = solution

    def solve(self, tables):
        """Q [S, K], p(o' | s', o) [S', K, K'], pi, mu, beta."""
        mu, pi = jax.nn.softmax(tables["mu"]), jax.nn.softmax(tables["pi"])
        beta = jax.nn.sigmoid(tables["beta"])
        kept = (1 - beta)[:, :, None] * jnp.eye(K) + beta[:, :, None] * mu[:, None, :]
        chain = jnp.einsum("soa,sat,toq->sotq", pi, self.transition, kept).reshape(S * K, S * K)
        paid = jnp.einsum("soa,sa->so", pi, self.reward).ravel()
        q = jnp.linalg.solve(jnp.eye(S * K) - DISCOUNT * chain, paid).reshape(S, K)
        return q, kept, pi, mu, beta

    def performance(self, tables):
        q, _, _, mu, _ = self.solve(tables)
        return jnp.sum(self.start[:, None] * mu * q)

    def arrivals(self):
        """sum_t discount^t P(s_t, last option) [S, K + 1]; the last column is the start of an episode."""
        chain = np.einsum("soa,sat,toq->sotq", self.pi, self.transition, self.kept).reshape(S * K, S * K)
        first = (self.start[:, None] * self.mu).ravel()
        visits = np.linalg.solve(np.eye(S * K) - DISCOUNT * chain.T, first).reshape(S, K)
        arrive = DISCOUNT * np.einsum("so,soa,sat->to", visits, self.pi, self.transition)
        return np.concatenate([arrive, self.start[:, None]], 1), visits

    def choice(self):
        """p(o | s, last) [S, K + 1, K]."""
        return np.concatenate([self.kept, self.mu[:, None, :]], 1)


def option_index(option):
    """One-hot or zeros [..., K] -> 0 .. K."""
    return jnp.where(jnp.sum(option, -1) > 0, jnp.argmax(option, -1), K)


def tables_as_agents(exact):
    """PPO with tables for gate and worker: one step of plain gradient descent with a learning rate of 1."""
    tables = {name: jnp.float32(x) for name, x in exact.tables.items()}
    value = jnp.float32(np.einsum("slo,so->sl", exact.choice(), exact.q))

    def gate_logits(params, seen):
        state = seen["observation"]["state"]
        return call_and_return(jnp.concatenate([params["mu"][state], params["beta"][state]], -1), seen["option"])

    def at(params, seen):
        return params[seen["observation"]["state"], option_index(seen["option"])]

    def network(params, apply):
        return networks.feed_forward(lambda key, observation: params, apply)

    chosen = PPOHparams(1.0, discount=DISCOUNT, lambda_=0.0, value_coefficient=0.0, entropy_coefficient=0.0)
    plain = dict(
        num_epochs=1, num_minibatches=1, normalize_advantage="none", optimizer=lambda hp: optax.sgd(hp.learning_rate)
    )
    gate = ppo(
        Policy(network({k: tables[k] for k in ("mu", "beta")}, gate_logits), categorical(K)),
        network(value, at),
        hparams=chosen,
        **plain,
    )
    worker = ppo(
        Policy(network(tables["pi"], at), categorical(A)), network(jnp.float32(exact.q), at), hparams=chosen, **plain
    )
    return gate, worker


def enumerated(exact):
    """Every (s, last, o, a, s', o') once [1, M], weighted by how often it comes. Observations carry the option that the
    gate will draw, so that a mean over rows is the expectation over its choice."""
    s, last, o, a, t, then = (x.ravel() for x in np.meshgrid(*map(np.arange, (S, K + 1, K, A, S, K)), indexing="ij"))
    choice, arrive = exact.choice(), exact.arrivals()[0]
    weight = (
        arrive[s, last] * choice[s, last, o] * exact.pi[s, o, a] * exact.transition[s, a, t] * exact.kept[t, o, then]
    )
    value = np.einsum("slo,so->sl", choice, exact.q)
    no = np.zeros(s.shape, bool)
    before = np.concatenate([np.eye(K), np.zeros((1, K))])[last]
    gate = {"log_prob": np.log(choice[s, last, o]), "value": value[s, last], "raw_action": o}
    worker = {"log_prob": np.log(exact.pi[s, o, a]), "value": exact.q[s, o], "raw_action": a}
    data = Transition(
        {"state": s, "plan": o},
        a,
        exact.reward[s, a],
        no,
        no,
        {"state": t, "plan": then},
        {"option": Choice(before, o, gate), "worker": worker, "weight": weight},
    )
    cast = {np.dtype("float64"): jnp.float32, np.dtype("int64"): jnp.int32, np.dtype(bool): jnp.bool_}
    return jax.tree.map(lambda x: jnp.asarray(x, cast[x.dtype])[None], data)


@pytest.fixture(scope="module")
def gradients():
    """The step of one update on all rows, and what is exact."""
    exact = Exact(0)
    gate, worker = tables_as_agents(exact)
    gate = gate._replace(act=lambda key, state, memory, seen: (memory, seen["observation"]["plan"], {}))
    agent = options(worker, gate, K)
    data = enumerated(exact)

    @jax.jit
    def step(data):
        state = agent.init(KEY, agent.hparams, data)
        after, _ = agent.update(KEY, state, data)
        parts = [(x.gate.params["policy"], x.worker.params["policy"]) for x in (state, after)]
        return jax.tree.map(lambda a, b: b - a, *parts)

    return exact, *step(data)


def test_gradients_are_those_of_the_return(gradients):
    """Gate and worker climb d J / d tables, from differentiating the solution of the linear system."""
    exact, gate, worker = gradients
    for name, step in {**gate, "pi": worker}.items():
        np.testing.assert_allclose(step, (1 - DISCOUNT) * exact.gradient[name], atol=1e-5)


def test_terminations_follow_the_option_critic(gradients):
    """-sum over arrivals of grad beta_o(s') (Q(s', o) - V(s')), theorem 2 of Bacon et al. 2017."""
    exact, gate, _ = gradients
    arrive = exact.arrivals()[0][:, :K]
    advantage = exact.q - np.sum(exact.mu * exact.q, 1, keepdims=True)
    theorem = -arrive * exact.beta * (1 - exact.beta) * advantage
    np.testing.assert_allclose(gate["beta"], (1 - DISCOUNT) * theorem, atol=1e-5)
    assert np.abs(theorem).max() > 0.01


def test_policies_follow_the_option_critic(gradients):
    """sum of grad log pi_o(a|s) (r + discount U(o, s') - Q(s, o)), theorem 1."""
    exact, _, worker = gradients
    visits = exact.arrivals()[1]
    value = np.sum(exact.mu * exact.q, 1, keepdims=True)
    upon = (1 - exact.beta) * exact.q + exact.beta * value  # U [S', K]
    q_u = exact.reward[:, None, :] + DISCOUNT * np.einsum("sat,to->soa", exact.transition, upon)
    advantage = q_u - exact.q[..., None]
    theorem = visits[..., None] * exact.pi * (advantage - np.sum(exact.pi * advantage, -1, keepdims=True))
    np.testing.assert_allclose(worker, (1 - DISCOUNT) * theorem, atol=1e-5)


def test_call_and_return_by_hand():
    """mu = (1/4, 3/4), beta = (1/2, 1/5): what follows option 1, and what begins an episode."""
    logits = jnp.log(jnp.array([1.0, 3.0, 1.0, 0.25]))
    before = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    wide = jnp.broadcast_to(logits, (3, 4))
    slope = jax.grad(lambda x: call_and_return(x, before)[2, 0])
    found, gradient = jax.jit(lambda x: (jnp.exp(call_and_return(x, before)), slope(x)))(wide)
    np.testing.assert_allclose(found, [[0.05, 0.95], [0.625, 0.375], [0.25, 0.75]], atol=1e-6)
    assert np.isfinite(gradient).all() and (gradient[2, 2:] == 0).all()


def next_option():
    """A gate that goes on to the next option, from 0 at the start of an episode; keeps what it is taught."""

    def act(key, state, memory, seen):
        before = seen["option"]
        return memory, ((option_index(before) + 1) % (K + 1) % K).astype(jnp.int32), {"asked": jnp.sum(before, -1)}

    return hierarchies.keeper(K, "asked")._replace(act=act)


def test_what_gate_and_worker_learn_from():
    """Options of a plain loop: 0 after a reset, then one after the other; rewards less the cost of a new one."""
    env = hierarchies.weather()
    agent = options(hierarchies.keeper(2, "done"), next_option(), K, hparams=OptionsHparams(0.5))

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, 3, 30))
        now = start(key, agent, state, env, env.params, 3)
        data = rollout(key, agent, state, env, now, 30)[1]
        return data, agent.update(key, state, data)[0]

    data, after = jax.tree.map(np.asarray, play(KEY))
    upper, lower = after.gate.data, after.worker.data
    for i in range(3):
        before = K  # none
        for t in range(30):
            option = {K: 0, 0: 1, 1: 0}[before]
            assert data.extras["option"].action[t, i] == upper.action[t, i] == option
            hot = np.eye(K + 1)[:, :K]
            np.testing.assert_array_equal(upper.observation["option"][t, i], hot[before])
            np.testing.assert_array_equal(upper.next_observation["option"][t, i], hot[option])
            np.testing.assert_array_equal(lower.observation["option"][t, i], hot[option])
            np.testing.assert_array_equal(lower.next_observation["option"][t, i], hot[1 - option])
            np.testing.assert_array_equal(lower.reward[t, i], data.reward[t, i])
            np.testing.assert_allclose(upper.reward[t, i], data.reward[t, i] - 0.5 * (before != K), rtol=1e-6)
            before = K if data.terminated[t, i] or data.truncated[t, i] else option
    assert set(upper.extras) == {"asked", "weight", "num_steps"}
    assert set(lower.extras) == {"done", "weight", "num_steps"}


def test_each_agent_of_several_learns_from_its_own_option():
    """`switch`: weights, ends, who acted, and keys."""
    env = hierarchies.weather()
    agents = [scripted(lambda key, seen, i=i: jnp.full(seen.shape[0], i)) for i in range(2)]
    kept = hierarchies.keeper(2, "done")
    agents = [kept._replace(act=lambda k, s, m, o, a=a: (*a.act(k, s, m, o)[:2], {"done": o[:, 0]})) for a in agents]
    agent = options(agents, next_option(), K)

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, 3, 20))
        now = start(key, agent, state, env, env.params, 3)
        data = rollout(key, agent, state, env, now, 20)[1]
        return data, agent.update(key, state, data)[0].worker

    data, states = jax.tree.map(np.asarray, play(KEY))
    option = data.extras["option"].action
    np.testing.assert_array_equal(data.action, option)
    for i, state in enumerate(states):
        np.testing.assert_array_equal(state.data.extras["weight"], data.extras["weight"] * (option == i))
        assert (state.data.truncated | (option != i)).all()  # the next option is always the other one
        np.testing.assert_array_equal(state.data.observation, data.observation)


def test_a_row_has_the_priority_of_who_acted():
    def reporting(x):
        still = scripted(lambda key, seen: jnp.zeros(seen.shape[0]))
        return still._replace(update=lambda key, state, data: (state, {"priority": x + data.reward, "loss": x}))

    agent = switch([reporting(10.0), scripted(lambda key, seen: seen), reporting(20.0)])
    seen = {"observation": jnp.zeros((4, 2)), "option": jnp.eye(3)[jnp.array([0, 1, 2, 0])]}
    no = jnp.zeros(4, bool)
    metrics = agent.update(KEY, ((), (), ()), Transition(seen, no, jnp.arange(4.0), no, no, seen, {}))[1]
    assert metrics.keys() == {"priority", "0/loss", "2/loss"}
    np.testing.assert_array_equal(metrics["priority"], [10.0, 0.0, 22.0, 13.0])


def test_every_key_is_used_once():
    env = toys.clock(4)
    agent, _ = small(env, separate=True)
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=2)
    assert key_reuse.check(lambda key: jaxrl.run(loop, loop.init(key), 2), KEY) == []


def test_gates_of_two_levels_choose_apart():
    """Options of options, at random: each level has keys of its own, or both would choose the same."""
    env = toys.clock(4)
    gate = scripted(lambda key, seen: jax.random.randint(key, (seen["option"].shape[0],), 0, 2))
    agent = options(options(gate, gate, 2), gate, 2)
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=2)
    assert key_reuse.check(lambda key: jaxrl.run(loop, loop.init(key), 2), KEY) == []


def test_rows_have_keys_of_their_own():
    """By their place, whatever else is there."""
    keys = jax.random.key_data(row_keys(KEY, (5, 3))).reshape(5, 3, -1)
    assert len(np.unique(keys.reshape(15, -1), axis=0)) == 15
    np.testing.assert_array_equal(jax.random.key_data(row_keys(KEY, (2, 2))).reshape(2, 2, -1), keys[:2, :2])


def small(env, num_options=2, separate=False, width=32, **numbers):
    """PPO for everybody."""

    def torso():
        return networks.mlp((width,))

    def joined(seen):
        return jnp.concatenate([seen["observation"], seen["option"]], -1)

    def whole(network):
        return networks.view(network, joined)

    distribution = for_space(env.action_space)
    chosen = PPOHparams(**numbers)
    gate = ppo(gate_policy(torso(), num_options), networks.critic(whole(torso())), hparams=chosen)
    if separate:
        parts = [ppo(networks.policy(torso(), distribution), networks.critic(torso())) for _ in range(num_options)]
        return options(parts, gate, num_options), None
    worker = ppo(networks.policy(whole(torso()), distribution), networks.critic(whole(torso())), hparams=chosen)
    agent = options(worker, gate, num_options)
    return agent, agent.hparams


@pytest.mark.slow
def test_diagnostic_environments():
    """The gate's values are exact, and the options choose right."""

    def make(env):
        agent, hparams = small(env, learning_rate=3e-3, discount=probing.DISCOUNT)

        def act_greedy(key, state, memory, observation):
            memory, action, extras = agent.act_greedy(key, state, memory, observation)
            return memory, action, {"value": extras["gate"]["value"]}

        return agent._replace(act_greedy=act_greedy), hparams

    for probe, result in probing.learn(make, False, num_seeds=2).items():
        if probe != "memory":
            assert (np.abs(result.values - result.exact) < 0.15).all(), (probe, result.values, result.exact)
            assert (result.right > 0.9).all(), (probe, result.right)


def test_bad_arguments():
    gate, worker = hierarchies.keeper(2, "a"), hierarchies.keeper(2, "b")
    with pytest.raises(ValueError, match="num_options is 0, must be >= 1"):
        options(worker, gate, 0)
    with pytest.raises(ValueError, match="3 agents for num_options 2"):
        options([worker] * 3, gate, 2)
    with pytest.raises(ValueError, match="switch: needs at least one agent"):
        switch([])
    agent, data = options(worker, gate, 2), example_data(toys.clock(), 2, 2)
    with pytest.raises(ValueError, match="no extras\\['option'\\]"):
        agent.update(KEY, agent.init(KEY, agent.hparams, data), data)
    remembering = options(worker, gate._replace(init_memory=lambda key, state, seen: jnp.zeros(2)), 2)
    state = remembering.init(KEY, remembering.hparams, data)
    memory = remembering.init_memory(KEY, state, jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="the gate has memory"):
        remembering.act(KEY, state, memory, jnp.zeros((2, 2)))
