"""One learner for all agents, one for each, and teams: what each part sees, and that who is out is not there."""

import hierarchies
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl import buffers, networks
from jaxrl.combinators.multi_agent import independent, shared, teams
from jaxrl.combinators.multi_agent.rows import fold
from jaxrl.combinators.observations import join, joined_space
from jaxrl.distributions import for_space
from jaxrl.envs.games import GAMES
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.spaces import Box, Discrete, Repeated, Tuple
from jaxrl.tree import edit_fields
from jaxrl.types import Agent, no_memory, nothing

KEY = jax.random.key(0)
NUM_ENVS, LENGTH, A = 2, 5, toys.CROWD


def one_of(env):
    """What a learner of one agent is made for."""
    return env._replace(observation_space=env.observation_space.space, action_space=env.action_space.space)


def small_ppo(space=Box(0.0, 9.0, (2,)), **choices):
    env = toys.clock()._replace(observation_space=space)
    return jaxrl.make_agent("ppo", env, widths=(4,), num_minibatches=1, memory_size=4, **choices)[0]


def central_ppo():
    """Each acts on what it sees, a critic sees all."""
    policy = networks.policy(networks.mlp((4,)), for_space(Discrete(2)))
    critic = networks.central_critic(networks.mlp((4,)), A, networks.side_by_side(lambda x: x))
    return jaxrl.ppo(policy, critic, num_minibatches=1)


def replayed(**choices):
    env = toys.clock()._replace(observation_space=Box(0.0, 9.0, (2,)))
    sizes = dict(widths=(4,), buffer_size=64, min_buffer_size=8, batch_size=8)
    return jaxrl.make_agent("dqn", env, **sizes, **choices)[0]


def outside():
    """Replay around `shared`: rows of all agents together, with one priority a row."""
    learner = jaxrl.make_agent("dqn", one_of(toys.crowd()), offline=True, widths=(4,))[0]
    buffer = buffers.replay(64, 8, min_size=8, sampler=buffers.prioritized(), reader=buffers.n_step(2))
    return jaxrl.with_replay(shared(learner, A), buffer)


IDENTIFIED = joined_space(Box(0.0, 9.0, (2,)), "agent", Box(0.0, 1.0, (A,)))
MAKERS = {
    "shared": lambda: shared(small_ppo(), A),
    "shared-recurrent": lambda: shared(small_ppo(recurrent=True), A),
    "shared-identified": lambda: shared(small_ppo(IDENTIFIED), A, identify=True),
    "shared-replay": lambda: shared(replayed(), A),
    "replay-shared": outside,
    "independent": lambda: independent(small_ppo(), A),
    "independent-replay": lambda: independent(replayed(prioritized=True), A),
    "central": central_ppo,
    "teams": lambda: teams(
        [(small_ppo(), 1), (shared(small_ppo(recurrent=True), 2), (2, 0))], toys.crowd().action_space
    ),
    "teams-tuple": lambda: teams(
        [(small_ppo(Box(0.0, 9.0, (3,))), 2), (independent(small_ppo(), 2), (0, 1))], toys.crowd(True).action_space
    ),
}


@pytest.fixture(scope="module", params=MAKERS)
def played(request):
    """An agent, a state that has learned once, and the rollout."""
    agent, env = MAKERS[request.param](), toys.crowd(request.param == "teams-tuple")

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, NUM_ENVS, LENGTH))
        now = start(key, agent, state, env, env.params, NUM_ENVS)
        _, data, metrics = rollout(key, agent, state, env, now, LENGTH)
        state, _ = agent.observe(key, state, data)
        after, learned = agent.update(key, state, data)
        return state, after, data, metrics | learned

    return request.param, agent, play, play(KEY)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_it_plays_and_learns(played):
    name, agent, _, (state, after, data, metrics) = played
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert all(x.shape == () and np.isfinite(x) for x in metrics.values())
    assert data.reward.shape == (LENGTH, NUM_ENVS, A)
    weight = np.broadcast_to((np.arange(LENGTH) % 4)[:, None, None] < 2 + np.arange(A), data.reward.shape)
    np.testing.assert_array_equal(data.extras["weight"], weight)
    actor = agent.actor(after)
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (agent.actor(state), actor)))]
    assert any(moved), name


def test_who_is_out_is_not_there(played):
    """Nonsense in the rows of agents that are out leaves the update as it is."""
    name, agent, _, (state, after, data, _) = played
    if hasattr(state, "buffer"):
        pytest.skip("learns from its buffer; below")
    out = data.extras["weight"] == 0

    def poison(x):
        if not hasattr(x, "dtype") or not jnp.issubdtype(x.dtype, jnp.floating) or x.shape[:3] != out.shape:
            return x
        return jnp.where(out.reshape(out.shape + (1,) * (x.ndim - 3)), 1e3, x)

    bad = jax.tree.map(poison, data._replace(extras={**data.extras, "weight": ()}))
    bad = bad._replace(extras={**bad.extras, "weight": data.extras["weight"]})
    if isinstance(data.observation, tuple):  # leaves [T, N, ...] of one agent each
        spoil = lambda tree: tuple(  # noqa: E731
            jnp.where(out[..., i, None], 1e3, x) for i, x in enumerate(tree)
        )
        bad = bad._replace(observation=spoil(data.observation), next_observation=spoil(data.next_observation))
    if name == "central":  # its critic looks at those who are out, too: what they see is part of the state
        bad = bad._replace(observation=data.observation, next_observation=data.next_observation)
    assert not np.array_equal(bad.reward, data.reward)
    again = jax.jit(agent.update)(KEY, state, bad)[0]
    clean = jax.jit(agent.update)(KEY, state, data)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), clean, again)


@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_shared_equals_a_learner_on_batches_put_together_by_hand(recurrent):
    """Acting and learning, to the bit."""
    alone, env = small_ppo(recurrent=recurrent), toys.crowd()
    agent = shared(alone, A)

    @jax.jit
    def both(key):
        state = agent.init(key, agent.hparams, example_data(env, NUM_ENVS, LENGTH))
        now = start(key, agent, state, env, env.params, NUM_ENVS)
        seen = now.observation.reshape(NUM_ENVS * A, 2)
        memory = alone.init_memory(key, state, seen)
        acted = agent.act(key, state, now.memory, now.observation), alone.act(key, state, memory, seen)
        data = rollout(key, agent, state, env, now, LENGTH)[1]
        columns = [jax.tree.map(lambda x: x[:, n, a], data) for n in range(NUM_ENVS) for a in range(A)]  # noqa: B023
        by_hand = jax.tree.map(lambda *x: jnp.stack(x, 1), *columns)
        return acted, (agent.update(key, state, data)[0], alone.update(key, state, by_hand)[0])

    (many, one), (together, by_hand) = both(KEY)
    same(jax.tree.map(lambda x: x.reshape(NUM_ENVS * A, *x.shape[2:]), many), one)
    same(together, by_hand)


def test_shared_tells_agents_who_they_are():
    kept = shared(hierarchies.keeper(2, "mark"), A, identify=True)
    env = toys.crowd()
    state = kept.init(KEY, (), example_data(env, NUM_ENVS, LENGTH))
    now = start(KEY, kept, state, env, env.params, NUM_ENVS)
    data = rollout(KEY, kept, state, env, now, LENGTH)[1]
    seen = kept.update(KEY, state, data)[0].data
    who = np.broadcast_to(np.eye(A), (LENGTH, NUM_ENVS, A, A)).reshape(LENGTH, NUM_ENVS * A, A)
    for observation in (seen.observation, seen.next_observation):
        np.testing.assert_array_equal(observation["agent"], who)
    np.testing.assert_allclose(seen.observation["observation"][..., 1], np.argmax(who, -1) / A, rtol=1e-6)
    with pytest.raises(ValueError, match="has a part called 'agent' already"):
        joined_space(joined_space(Box(0.0, 1.0, (2,)), "agent", Box(0.0, 1.0, (A,))), "agent", Box(0.0, 1.0, (A,)))
    assert join({"a": 1}, "b", 2) == {"a": 1, "b": 2}


@pytest.mark.parametrize("sharing", ["shared", "independent"])
def test_schedules_count_steps_of_environments(sharing):
    env, steps = toys.crowd(), LENGTH * NUM_ENVS
    data = example_data(env, NUM_ENVS, LENGTH)
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(4,), num_minibatches=1, num_epochs=1, sharing=sharing)
    state = agent.init(KEY, hparams._replace(learning_rate=1.0, decay_steps=4.0 * steps), data)
    data = rollout(KEY, agent, state, env, start(KEY, agent, state, env, env.params, NUM_ENVS), LENGTH)[1]
    rates = []
    for _ in range(3):
        state, metrics = agent.update(KEY, state, data)
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [1.0, 0.75, 0.5])
    agent, hparams = jaxrl.make_agent("dqn", env, widths=(4,), buffer_size=48, min_buffer_size=8, sharing=sharing)
    state = agent.observe(KEY, agent.init(KEY, hparams, data), data)[0]
    counted = [x for path, x in jax.tree.leaves_with_path(state) if "num_steps" in jax.tree_util.keystr(path)]
    counted = np.unique(np.concatenate([np.ravel(x) for x in counted]))
    assert set(counted) == {0, steps}  # high and low digits


def test_independent_learners_are_learners_alone():
    """Agent i of `independent` learns what a learner that sees its rows alone does, with its key."""
    alone, env = small_ppo(), toys.crowd()
    agent = independent(alone, A)
    from jaxrl.combinators.lift import salted

    @jax.jit
    def both(key):
        state = agent.init(key, agent.hparams, example_data(env, NUM_ENVS, LENGTH))
        now = start(key, agent, state, env, env.params, NUM_ENVS)
        data = rollout(key, agent, state, env, now, LENGTH)[1]
        together = agent.update(key, state, data)[0]
        each = []
        for i in range(A):
            mine, own = (jax.tree.map(lambda x: x[i], state), jax.tree.map(lambda x: x[:, :, i], data))  # noqa: B023
            each.append(alone.update(key if i == 0 else salted(key, i), mine, own)[0])
        return together, jax.tree.map(lambda *x: jnp.stack(x), *each), state

    together, each, state = both(KEY)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), together, each)
    kernel = state.params["critic"]["head"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1]) and not np.allclose(kernel[1], kernel[2])


@pytest.mark.parametrize("several", [False, True], ids=["array", "tuple"])
def test_teams_give_each_learner_its_own_rows(several):
    env = toys.crowd(several)
    agent = teams([(hierarchies.keeper(2, "a"), 2), (shared(hierarchies.keeper(2, "b"), 2), (1, 0))], env.action_space)

    @jax.jit
    def play(key):
        state = agent.init(key, ((), ()), example_data(env, NUM_ENVS, LENGTH))
        now = start(key, agent, state, env, env.params, NUM_ENVS)
        data = rollout(key, agent, state, env, now, LENGTH)[1]
        return data, agent.update(key, state, data)[0]

    data, (last, others) = play(KEY)
    action = np.stack(data.action, -1) if several else np.asarray(data.action)
    np.testing.assert_array_equal(last.data.action, action[..., 2])
    np.testing.assert_array_equal(last.data.reward, data.reward[..., 2])
    np.testing.assert_array_equal(last.data.extras["weight"], data.extras["weight"][..., 2])
    np.testing.assert_array_equal(last.data.extras["a"], data.extras["teams"][0]["a"])
    for name, got, all_ in (("action", others.data.action, action), ("reward", others.data.reward, data.reward)):
        want = np.stack([all_[..., 1], all_[..., 0]], -1).reshape(LENGTH, -1)
        np.testing.assert_array_equal(got, want, err_msg=name)
    np.testing.assert_array_equal(others.data.observation[:, :2, 1], np.tile([1 / 3, 0], (LENGTH, 1)).astype("f4"))
    np.testing.assert_array_equal(others.data.extras["b"], fold(data.extras["teams"][1]["b"], 1))
    assert last.data.observation.shape == (LENGTH, NUM_ENVS, 3 if several else 2)


def acting(choose):
    """Acts by choose(key, observation) -> action, and does not learn."""

    def act(key, state, memory, observation):
        return memory, choose(key, observation), {}

    return Agent(lambda key, hparams, example: (), no_memory, act, act, nothing)


def test_who_acts_is_who_is_told_and_who_is_asked():
    """Acting, agents are told apart as well; teams put the action of each into its place, and draw apart."""
    told = shared(acting(lambda key, observation: jnp.argmax(observation["agent"], -1)), A, identify=True)
    seen = jnp.zeros((2, A, 2))
    for act in (told.act, told.act_greedy):
        np.testing.assert_array_equal(act(KEY, (), (), seen)[1], [[0, 1, 2]] * 2)
    same = [acting(lambda key, observation, i=i: jnp.full(observation.shape[0], i)) for i in (10, 20, 30)]
    for several, space in ((False, Repeated(Discrete(99), A)), (True, Tuple((Discrete(99),) * A))):
        action = teams([(same[0], 2), (same[1], 0), (same[2], 1)], space).act(KEY, ((),) * A, ((),) * A, seen)[1]
        np.testing.assert_array_equal(jnp.stack(action, 1) if several else action, [[20, 30, 10]] * 2)
    drawn = acting(lambda key, observation: jax.random.randint(key, observation.shape[:1], 0, 10**6))
    action = teams([(drawn, i) for i in range(A)], Repeated(Discrete(10**6), A)).act(KEY, ((),) * A, ((),) * A, seen)[1]
    assert len(np.unique(action)) == action.size


def test_a_central_critic_sees_all_and_policies_do_not():
    agent, env = central_ppo(), toys.crowd()

    @jax.jit
    def slopes(key):
        state = agent.init(key, agent.hparams, example_data(env, NUM_ENVS, LENGTH))
        seen = jax.random.uniform(key, (NUM_ENVS, A, 2))
        value = lambda x: agent.act(key, state, ((), ()), x)[2]["value"]  # noqa: E731
        chosen = agent.act(key, state, ((), ()), seen)[2]["raw_action"]
        policy = networks.policy(networks.mlp((4,)), for_space(Discrete(2)))

        def log_prob(x):
            outputs = policy.network.apply(state.params["policy"], (), x)[1]
            return policy.distribution.log_prob(outputs, chosen)

        return jax.jacobian(value)(seen), jax.jacobian(log_prob)(seen)

    value, log_prob = (np.abs(x).sum(-1) for x in slopes(KEY))  # [N, A, N, A]
    for n in range(NUM_ENVS):
        assert (value[n, :, n] > 0).all() and (value[n, :, 1 - n] == 0).all()
        assert (log_prob[n, :, n] > 0).sum() == A and (np.diag(log_prob[n, :, n]) > 0).all()


def test_memory_of_a_central_critic_starts_anew_where_all_are_out():
    torso = networks.sequential(networks.mlp((4,)), networks.gru(3))
    critic = networks.central_critic(torso, A, networks.side_by_side(lambda x: x))
    seen = jax.random.normal(KEY, (6, 2, A, 2))
    first = np.zeros((6, 2, A), bool)
    first[2, 0, 1] = first[3, 1, :2] = True  # some, who are out, or whose own episode ended
    first[4, 0] = True
    params = critic.init(KEY, seen[0, 0])
    fresh = memory = critic.init_memory(params, seen[0])
    expected = []
    for t in range(6):
        memory = jax.tree.map(lambda x, y: jnp.where(first[t].all(-1)[:, None], x, y), fresh, memory)  # noqa: B023
        memory, value = critic.apply(params, memory, seen[t])
        expected.append(value)
    np.testing.assert_allclose(critic.unroll(params, fresh, seen, first), expected, atol=1e-6)


def test_bad_arguments_end_in_a_line():
    for make in (shared, independent):
        with pytest.raises(ValueError, match=f"{make.__name__}: num_agents is 1, must be >= 2"):
            make(small_ppo(), 1)
        with pytest.raises(ValueError, match=rf"{make.__name__}: of 3 agents, but the reward has shape \(5, 2\)"):
            jax.eval_shape(lambda make=make: make(small_ppo(), 3).init(KEY, (), example_data(toys.clock(), 2, 5)))
    with pytest.raises(ValueError, match=r"teams: plays agents \[0, 0\], must play 0 to 1, each once"):
        teams([(small_ppo(), 0), (small_ppo(), 0)], toys.crowd().action_space)


def test_critics_of_all_actions_have_a_gradient_in_ones_own():
    """Q_i sees what all do, and is improved by what agent i does alone."""
    network = networks.central_action_critic(networks.mlp((8,)), A, lambda x: x.reshape(*x.shape[:-2], -1), lambda a: a)

    @jax.jit
    def look(key):
        keys = jax.random.split(key, 3)
        seen, action = jax.random.normal(keys[0], (4, A, 2)), jax.random.normal(keys[1], (4, A, 2))
        params = network.init(keys[2], (seen, action))
        q = lambda action: network.apply(params, (), (seen, action))[1]  # noqa: E731
        others = jax.vmap(lambda i: q(action.at[:, i].add(1.0)) - q(action))(jnp.arange(A))  # [A, 4, A]
        return (
            q(action),
            others,
            jax.vmap(jax.jacobian(lambda a, s: network.apply(params, (), (s, a))[1]))(action, seen),
        )

    value, others, slope = map(np.asarray, look(KEY))
    assert value.shape == (4, A) and (others != 0).all()
    moves = np.abs(slope).sum(-1) > 0  # [4, A values, A actions]
    np.testing.assert_array_equal(moves, np.broadcast_to(np.eye(A, dtype=bool), (4, A, A)))


def ends_of_play(payoffs, num_updates=120, num_seeds=4):
    """Independent PPO in games of two agents and two actions [G, 2, 2, 2]: probabilities [G, S, U, A, 2] of actions."""
    env = jaxrl.envs.make("games/stag_hunt")
    agent, hparams = jaxrl.make_agent("ppo", env, sharing="independent", widths=(16,))
    hparams = edit_fields(hparams, {"learning_rate": lambda _: 3e-3, "entropy_coefficient": lambda _: 0.0})
    seen = jnp.zeros((256, 2, env.observation_space.space.shape[0]))

    def play(key, payoffs):
        own = env._replace(params=env.params._replace(payoffs=payoffs))
        loop = jaxrl.online(agent, own, num_envs=64, unroll_length=16)

        def body(state, _):
            state, _ = loop.step(state)
            action_key = jax.random.fold_in(key, state.num_updates)
            action = agent.act(action_key, state.agent, agent.init_memory(key, state.agent, seen), seen)[1]
            return state, jnp.mean(jax.nn.one_hot(action, 2), 0)

        return jax.lax.scan(body, loop.init(key, hparams), None, length=num_updates)[1]

    both = jax.vmap(jax.vmap(play, (0, None)), (None, 0))
    return np.asarray(jax.jit(both)(jax.random.split(jax.random.key(1), num_seeds), jnp.asarray(payoffs)))


@pytest.mark.slow
def test_independent_learners_come_to_the_equilibria_that_theory_has_for_them():
    """A dominant action wins; of pure equilibria they come to one; averages over time come near a zero-sum game's."""
    names = ("prisoners_dilemma", "stag_hunt", "chicken", "matching_pennies")
    dilemma, stag, chicken, pennies = ends_of_play(np.stack([GAMES[name]().payoffs for name in names]))
    assert dilemma[:, -1, :, 1].min() > 0.95
    for name, played in (("stag_hunt", stag), ("chicken", chicken)):
        for last in played[:, -1]:
            assert max(min(last[0, a], last[1, b]) for a, b in GAMES[name]().pure) > 0.95, (name, last)
    np.testing.assert_allclose(pennies[:, 20:].mean((0, 1)), 0.5, atol=0.1)
