"""COMA: plain loops over rows and agents, the counterfactual baseline by enumeration, exact gradients of games."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import probing
import pytest
import toys

import jaxrl
from jaxrl import key_reuse, networks, parallel
from jaxrl.agents.coma import COMAHparams, coma, counterfactual_advantage
from jaxrl.distributions import categorical, diagonal_gaussian
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.spaces import Box, Repeated
from jaxrl.tree import replace_fields
from jaxrl.types import Transition

KEY = jax.random.key(0)
T, N, A, K = 9, 4, 2, 3
HP = COMAHparams(1.0, 0.5, 0.9, 0.7, 0.3, jnp.inf, 0.2)


def seen(observation):
    return observation["observation"]


def make(critic=None, **static):
    """A small agent for observations {"observation": [..., A, 2], "action_mask": [..., A, K]}; plain gradient steps."""
    policy = networks.masked(networks.policy(networks.mlp((4,)), categorical(K), scale=1.0))
    critic = critic or networks.counterfactual_critic(networks.mlp((4,)), A, K, networks.side_by_side(seen))
    static = (
        dict(num_epochs=1, num_minibatches=1, optimizer=lambda hp: optax.sgd(hp.learning_rate), hparams=HP) | static
    )
    return policy, critic, coma(policy, critic, **static)


def rows(seed=0):
    """Random rows [T, N, A]: agents that are out, episodes cut and ended, rows that are padding for one or for all.

    Successors have one legal action each, so that what is drawn there is known.
    """
    rng = np.random.default_rng(seed)
    there, terminated, truncated = np.ones((T, N, A)), np.zeros((T, N, A), bool), np.zeros((T, N, A), bool)
    truncated[3, 0] = terminated[6, 0] = True  # all of them, in the middle of a column
    terminated[2, 1, 0] = terminated[5, 1, 1] = True  # one is out while the other plays on
    there[3:6, 1, 0] = 0
    terminated[3:6, 1, 0] = True
    truncated[1, 2, 1] = truncated[4, 2, 0] = True  # one alone is cut
    there[2:5, 2, 1] = 0
    truncated[2:5, 2, 1] = True
    there[2, 3] = there[5, 3, 1] = there[7:, 3] = 0  # padding
    terminated[4, 3, 0] = truncated[4, 3, 1] = True
    drawn = rng.integers(0, K, (T, N, A))
    observation, after = rng.normal(size=(2, T, N, A, 2))
    legal = rng.random((T, N, A, K)) < 0.6
    action = rng.integers(0, K, (T, N, A))
    data = Transition(
        {"observation": observation, "action_mask": legal | np.eye(K, dtype=bool)[action]},
        action,
        rng.normal(size=(T, N, A)),
        terminated,
        truncated,
        {"observation": after, "action_mask": np.eye(K, dtype=bool)[drawn]},
        {"weight": there * rng.uniform(0.5, 1.5, there.shape), "num_steps": rng.integers(1, 4, (T, N, A))},
    )
    cast = lambda x: jnp.asarray(x, {"f": jnp.float32, "i": jnp.int32, "b": bool}[x.dtype.kind])  # noqa: E731
    return jax.tree.map(cast, data), drawn


def plain_targets(data, drawn, q):
    """G [T, N, A] by its equation; q(t, n, joint) are the target critic's values [A, K] at the successor of a row."""
    weight, reward, action = (np.asarray(x) for x in (data.extras["weight"], data.reward, data.action))
    terminated, truncated = np.asarray(data.terminated), np.asarray(data.truncated)
    found = np.zeros((T, N, A))
    for n, t in itertools.product(range(N), reversed(range(T))):
        later = [u for u in range(t + 1, T) if weight[u, n].any()]
        gone = [weight[t, n, i] == 0 or terminated[t, n, i] for i in range(A)]
        over = all(gone[i] or truncated[t, n, i] for i in range(A)) or not later
        if over:
            joint = [-1 if gone[i] else drawn[t, n, i] for i in range(A)]
        else:
            joint = [action[later[0], n, i] if weight[later[0], n, i] else -1 for i in range(A)]
        for i in range(A):
            if weight[t, n, i] == 0:
                continue
            value = q(t, n, joint)[i]
            value = float(value[drawn[t, n, i] if joint[i] == -1 or truncated[t, n, i] else joint[i]])
            mine = [u for u in range(t + 1, T) if weight[u, n, i]]
            if mine and not truncated[t, n, i]:
                value = (1 - HP.lambda_) * value + HP.lambda_ * found[mine[0], n, i]
            decay = HP.discount ** int(data.extras["num_steps"][t, n, i])
            found[t, n, i] = reward[t, n, i] + (0.0 if terminated[t, n, i] else decay * value)
    return found


@pytest.fixture(scope="module")
def learned():
    """The rows, the state before, with another target critic, and an update; a compiled critic."""
    policy, critic, agent = make()
    data, drawn = rows()
    state, other = (jax.jit(agent.init)(key, HP, data) for key in jax.random.split(KEY))
    state = state._replace(target_params=other.params["critic"])
    values = jax.jit(lambda params, observation, joint: critic.apply(params, (), (observation, joint))[1])
    return policy, values, jax.jit(agent.update), data, drawn, state


def test_one_update_against_plain_loops(learned):
    """Losses by sums over rows and agents, whose gradients are the two steps."""
    policy, values, update, data, drawn, state = learned
    after, metrics = update(KEY, state, data)
    weight, action = np.asarray(data.extras["weight"]), np.asarray(data.action)
    total = weight.sum()
    target = plain_targets(
        data,
        drawn,
        lambda t, n, joint: values(
            state.target_params, jax.tree.map(lambda x: x[t, n], data.next_observation), jnp.array(joint)
        ),
    )
    cells = [x for x in np.ndindex(T, N, A) if weight[x] > 0]

    def q_of(params):
        joint = np.where(weight > 0, action, -1)
        return [[values(params, jax.tree.map(lambda x: x[t, n], data.observation), joint[t, n]) for n in range(N)]
                for t in range(T)]  # fmt: skip

    def critic_loss(params):
        q = q_of(params)
        return sum(weight[t, n, i] * 0.5 * (q[t][n][i][action[t, n, i]] - target[t, n, i]) ** 2 for t, n, i in cells)

    loss, gradient = jax.value_and_grad(critic_loss)(state.params["critic"])
    stepped = jax.tree.map(lambda p, g: p - HP.learning_rate * g / total, state.params["critic"], gradient)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)  # noqa: E731
    near(metrics["value_loss"], loss / total)
    jax.tree.map(near, after.params["critic"], stepped)
    jax.tree.map(
        lambda new, old, p: near(new, old + 0.2 * (p - old)), after.target_params, state.target_params, stepped
    )

    q = np.asarray(q_of(after.params["critic"]))
    assert np.abs(q).max() > 0.1

    def logits(params):
        return policy.network.apply(params, (), data.observation)[1]

    probability = np.asarray(jax.nn.softmax(logits(state.params["policy"])))
    advantage = np.zeros((T, N, A))
    for t, n, i in cells:
        baseline = sum(
            probability[t, n, i, k] * q[t, n, i, k] for k in range(K) if data.observation["action_mask"][t, n, i, k]
        )
        advantage[t, n, i] = q[t, n, i, action[t, n, i]] - baseline

    def policy_losses(params):
        log_p = jax.nn.log_softmax(logits(params))
        surrogate = -sum(weight[x] * log_p[x][action[x]] * advantage[x] for x in cells) / total
        return surrogate, -sum(weight[x] * jnp.sum(jnp.exp(log_p[x]) * log_p[x]) for x in cells) / total

    surrogate, entropy = jax.jit(policy_losses)(state.params["policy"])
    near(metrics["policy_loss"], surrogate)
    near(metrics["entropy"], entropy)
    near(metrics["advantage_deviation"], np.sqrt((weight * advantage**2).sum() / total))
    gradient = jax.jit(jax.grad(lambda p: policy_losses(p)[0] - 0.3 * policy_losses(p)[1]))(state.params["policy"])
    jax.tree.map(lambda new, p, g: near(new, p - 0.5 * g), after.params["policy"], state.params["policy"], gradient)


def test_what_stands_in_rows_of_weight_zero_changes_nothing(learned):
    """Rewards, actions, successors and steps; what those see who are out is part of the state, as for MAPPO."""
    _, _, update, data, _, state = learned
    out = data.extras["weight"] == 0
    bad = data._replace(
        reward=jnp.where(out, jnp.nan, data.reward),
        action=jnp.where(out, 7, data.action),
        next_observation={
            "observation": jnp.where(out.all(-1)[..., None, None], 1e3, data.next_observation["observation"]),
            "action_mask": jnp.where(out[..., None], True, data.next_observation["action_mask"]),
        },
        extras=data.extras | {"num_steps": jnp.where(out, 9, data.extras["num_steps"])},
    )
    clean, dirty = update(KEY, state, data), update(KEY, state, bad)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), clean, dirty)


def test_the_advantage_has_mean_zero_under_the_policy_and_its_baseline_does_not_depend_on_the_action(learned):
    """For each joint action of the others, by enumeration."""
    policy, values, _, data, _, state = learned
    observation = jax.tree.map(lambda x: x[0, 0], data.observation)
    probability = jax.nn.softmax(policy.network.apply(state.params["policy"], (), observation)[1])
    joint = np.array(list(itertools.product(range(K), repeat=A)))
    q = np.stack([values(state.params["critic"], observation, jnp.asarray(a)) for a in joint])  # [K ** A, A, K]
    advantage = counterfactual_advantage(q, jnp.broadcast_to(probability, q.shape), joint)
    for i in range(A):
        for others in set(map(tuple, np.delete(joint, i, 1))):
            same = (np.delete(joint, i, 1) == others).all(1)
            np.testing.assert_allclose(probability[i] @ advantage[same, i], 0.0, atol=1e-6)
            np.testing.assert_array_equal(q[same, i], q[same][:1, i].repeat(K, 0))  # so that the baseline is one number
        assert len(np.unique(q[:, i, 0])) == K ** (A - 1)  # what the others do is seen


def test_the_critic_sees_who_is_out_as_nobody():
    critic = networks.counterfactual_critic(networks.dense(4), 3, K, lambda x: x)
    state, action = jax.random.normal(KEY, (5,)), jnp.array([2, -1, 0])
    params = critic.init(KEY, (state, action))
    found = critic.apply(params, (), (state, action))[1]
    eye, first = np.eye(K), jax.tree.map(np.asarray, params["layer_0"])
    for i in range(3):
        taken = np.stack([eye[a] if a >= 0 and j != i else np.zeros(K) for j, a in enumerate([2, -1, 0])])
        x = np.concatenate([state, taken.ravel(), np.eye(3)[i]]) @ first["kernel"] + first["bias"]
        np.testing.assert_allclose(found[i], x @ params["layer_1"]["kernel"] + params["layer_1"]["bias"], rtol=1e-5)


def exact_critic(payoffs):
    """The true values of a game of one round: what every agent gets for each action, the others' given."""

    def apply(params, both):
        action = both[1]

        def of(i):
            mine = [jnp.arange(K) if j == i else action[..., j, None] for j in range(A)]
            return payoffs[tuple(mine)]

        return jnp.stack([of(i) for i in range(A)], -2)

    return networks.feed_forward(lambda key, both: {}, apply)


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_the_gradient_is_that_of_the_expected_reward(masked):
    """Over all joint actions, each with its probability as weight; an illegal one would pay a million."""
    payoffs = jax.random.normal(KEY, (K, K))
    legal = jnp.ones((A, K), bool).at[0, 1].set(not masked)
    payoffs = payoffs.at[1].add(1e6 * masked)
    policy, _, agent = make(exact_critic(payoffs))
    see = {"observation": jax.random.normal(jax.random.key(1), (A, 2)), "action_mask": legal}
    joint = jnp.array(list(itertools.product(range(K), repeat=A)))
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (1, len(joint), *x.shape)), see)
    zeros = jnp.zeros((1, len(joint), A))

    @jax.jit
    def both(key):
        data = Transition(many, joint[None], zeros, zeros == 0, zeros > 0, many, {"weight": zeros + 1})
        state = agent.init(key, HP._replace(policy_learning_rate=1.0, entropy_coefficient=0.0), data)

        def chances(params):
            p = jax.nn.softmax(policy.network.apply(params, (), see)[1])
            return p[0][joint[:, 0]] * p[1][joint[:, 1]]

        reward = jnp.where(legal[0][joint[:, 0]], payoffs[joint[:, 0], joint[:, 1]], 0.0)
        exact = jax.grad(lambda params: chances(params) @ reward)(state.params["policy"])
        weight = jnp.broadcast_to(chances(state.params["policy"])[None, :, None], zeros.shape)
        after, metrics = agent.update(key, state, data._replace(extras={"weight": weight}))
        step = jax.tree.map(lambda new, old: A * (new - old), after.params["policy"], state.params["policy"])
        return step, exact, metrics["advantage_deviation"]

    step, exact, deviation = both(KEY)
    assert max(np.abs(x).max() for x in jax.tree.leaves(exact)) > 0.05 and deviation < 10
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), step, exact)


def test_what_follows_a_truncation_is_drawn_from_the_policy():
    """The mean target of many rows is that over the joint actions of independent policies."""
    policy, critic, agent = make()
    num = 20_000
    data = jax.tree.map(lambda x: jnp.broadcast_to(x[:1, :1], (1, num, *x.shape[2:])), rows()[0])
    see = data.next_observation | {"action_mask": jnp.ones((1, num, A, K), bool)}
    data = data._replace(next_observation=see, terminated=data.terminated & False, extras={})

    @jax.jit
    def both(key):
        state = agent.init(key, HP, data)
        joint = jnp.array(list(itertools.product(range(K), repeat=A)))
        one = jax.tree.map(lambda x: x[0, : len(joint)], see)
        p = jax.nn.softmax(policy.network.apply(state.params["policy"], (), one)[1])
        values = critic.apply(state.target_params, (), (one, joint))[1]
        chosen = jnp.take_along_axis(values, joint[..., None], -1)[..., 0]
        chance = jnp.prod(jnp.take_along_axis(p, joint[..., None], -1)[..., 0], -1)
        return state, p[0], chance, chosen, agent.update(key, state, data)[1]

    state, p, chance, chosen, metrics = both(KEY)
    assert chance.sum() == pytest.approx(1, abs=1e-5) and np.ptp(p, -1).max() > 0.05
    # The critic's loss is E (q - G)^2 / 2, of which q, the reward and the discount are known.
    q = critic.apply(state.params["critic"], (), jax.tree.map(lambda x: x[0, 0], (data.observation, data.action)))[1]
    q = np.take_along_axis(np.asarray(q), np.asarray(data.action[0, 0])[:, None], -1)[:, 0]
    losses = 0.5 * (q - (np.asarray(data.reward[0, 0]) + HP.discount * np.asarray(chosen))) ** 2  # [K ** A, A]
    expected, spread = chance @ losses.mean(-1), np.sqrt(chance @ losses.mean(-1) ** 2 / num)
    assert abs(metrics["value_loss"] - expected) < 5 * spread + 1e-5


def test_shards_learn_what_one_loop_learns_from_all_rows():
    _, _, agent = make(num_epochs=2)
    data, _ = rows()

    def split(x):
        return jnp.moveaxis(x.reshape(T, 2, -1, *x.shape[2:]), 1, 0)

    @jax.jit
    def both(key):
        state = agent.init(key, HP, data)
        update = jax.vmap(agent.update, (None, None, 0), axis_name=parallel.SHARDS)
        return agent.update(key, state, data), update(key, state, jax.tree.map(split, data))

    (whole, metrics), (parts, theirs) = both(KEY)
    jax.tree.map(lambda x, each: np.testing.assert_allclose(each, [x, x], rtol=1e-4, atol=1e-6), whole, parts)
    for name in ("policy_loss", "value_loss", "entropy", "q_value"):
        np.testing.assert_allclose(theirs[name].mean(), metrics[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_recurrent_policy_is_evaluated_as_it_acted():
    """Through resets, and where agents are out: the entropy of the learner is that of each step with its memory."""
    env = toys.crowd()
    agent, hparams = jaxrl.make_agent("coma", env, widths=(4,), recurrent=True, memory_size=4, num_minibatches=1)
    policy = networks.policy(networks.sequential(networks.mlp((4,)), networks.gru(4)), categorical(2))

    @jax.jit
    def both(key):
        state = agent.init(key, hparams, example_data(env, 2, 11))
        head = state.params["policy"]["head"] | {"kernel": 3000.0 * state.params["policy"]["head"]["kernel"]}
        state = state._replace(params=state.params | {"policy": state.params["policy"] | {"head": head}})
        now = start(key, agent, state, env, env.params, 2)
        now, _, _ = rollout(key, agent, state, env, now, 3)
        data = rollout(jax.random.fold_in(key, 99), agent, state, env, now, 11)[1]
        logits = policy.network.apply(state.params["policy"], data.extras["memory"], data.observation)[1]
        return policy.distribution.entropy(logits), data.extras["weight"], agent.update(key, state, data)[1]["entropy"]

    entropy, weight, found = map(np.asarray, both(KEY))
    assert 0 < weight.mean() < 1 and np.ptp(entropy) > 0.05
    np.testing.assert_allclose(found, (weight * entropy).sum() / weight.sum(), rtol=1e-5)


def test_it_uses_each_key_once_and_reads_the_state_where_there_is_one():
    env = jaxrl.envs.make("predator_prey", size=4, num_predators=2, num_prey=1, privileged=True)
    agent, hparams = jaxrl.make_agent("coma", env, widths=(4,), num_minibatches=2, recurrent=True, identify=True)
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=4)
    assert key_reuse.check(lambda key: jaxrl.run(loop, loop.init(key, hparams), 2), KEY) == []
    params = jax.eval_shape(lambda key: loop.init(key, hparams), KEY).agent.params
    assert params["critic"]["layer_0"]["dense_0"]["kernel"].shape == (32 + 2 * 6 + 2, 4)  # cells, actions, who


def test_bad_arguments_end_in_a_line():
    policy, critic, agent = make()
    data, _ = rows()
    for name in ("num_epochs", "num_minibatches"):
        with pytest.raises(ValueError, match=f"coma: {name} is 0, must be >= 1"):
            make(**{name: 0})
    with pytest.raises(ValueError, match="coma: the policy's distribution has scale parameters"):
        coma(networks.policy(networks.mlp((4,)), diagonal_gaussian((2,))), critic)
    with pytest.raises(ValueError, match="num_minibatches is 5, must divide the 36 rows"):
        many = make(num_minibatches=5)[2]
        jax.eval_shape(lambda: many.update(KEY, many.init(KEY, HP, data), data))
    for observed in (data._replace(action=data.action[..., None]), data._replace(action=data.reward)):
        with pytest.raises(ValueError, match=r"coma: actions .*must be one integer an agent"):
            jax.eval_shape(lambda observed=observed: agent.init(KEY, HP, observed))
    for torso, size, message in (
        (networks.gru(4), K, "coma: the critic has memory"),
        (networks.mlp((4,)), K + 1, r"coma: the critic's outputs have shape \(4, 2, 4\), must be \(4, 2, 3\)"),
    ):
        bad = make(networks.counterfactual_critic(torso, A, size, networks.side_by_side(seen)))[2]
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(lambda bad=bad: bad.init(KEY, HP, data))
    with pytest.raises(ValueError, match="coma: needs finitely many actions; they are Box"):
        jaxrl.make_agent("coma", toys.crowd(actions=Box(-1.0, 1.0, (2,))))
    with pytest.raises(ValueError, match="coma needs agents that are alike"):
        jaxrl.make_agent("coma", toys.crowd(True))


def alone(agent):
    """A learner of many agents as one of a single agent."""

    def add(axis):
        return lambda x: jnp.expand_dims(x, axis)

    def init(key, hparams, example):
        return agent.init(key, hparams, jax.tree.map(add(2), example))

    def acting(act):
        def one(key, state, memory, observation):
            memory, action, extras = act(key, state, memory, jax.tree.map(add(1), observation))
            return memory, action[:, 0], jax.tree.map(lambda x: x[:, 0], extras)

        return one

    def update(key, state, data):
        return agent.update(key, state, jax.tree.map(add(2), data))

    return agent._replace(init=init, act=acting(agent.act), act_greedy=acting(agent.act_greedy), update=update)


@pytest.mark.slow
def test_diagnostic_environments():
    """A team of one: values within 0.15 of the exact ones, the right action with probability above 0.95."""

    def build(env):
        many = env._replace(
            observation_space=Repeated(env.observation_space, 1), action_space=Repeated(env.action_space, 1)
        )
        agent, hparams = jaxrl.make_agent("coma", many, widths=(32,))
        rates = dict(learning_rate=3e-3, policy_learning_rate=1e-2, entropy_coefficient=0.003)
        return alone(agent), replace_fields(hparams, discount=probing.DISCOUNT, **rates)

    for probe, result in probing.learn(build, False, num_updates=300).items():
        if probe == "memory":  # the critic has none
            continue
        error = np.abs(result.values - result.exact)
        assert (error < 0.15).all(), f"{probe}: values off by {error.max(axis=1)}"
        assert (result.right > 0.95).all(), f"{probe}: right with probability {result.right}"


@pytest.mark.slow
def test_predators_learn_to_catch_together():
    """A catch takes both, from next to the prey, at once, and pays both 10; what random predators get is 0.2."""
    env = jaxrl.envs.make("predator_prey", size=4, num_predators=2, num_prey=1, penalty=0.0, max_steps=20)
    agent, hparams = jaxrl.make_agent("coma", env, widths=(32,))
    hparams = replace_fields(hparams, learning_rate=2e-3, policy_learning_rate=2e-3)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=16)
    run = jax.jit(jax.vmap(lambda key: jaxrl.run(loop, loop.init(key, hparams), 500)[1]))
    metrics = jax.tree.map(np.asarray, run(jax.random.split(KEY, 4)))
    first, last = (
        metrics["episode/return_sum"][:, part].sum(1) / metrics["episode/count"][:, part].sum(1)
        for part in (slice(20), slice(-100, None))
    )
    assert (first < 1).all() and (last > 5).all(), (first, last)
