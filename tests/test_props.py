"""PROPS against plain loops on a bandit, its special cases, and the buffer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

import jaxrl
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.combinators.props import PropsHparams, props, push, sampling_error
from jaxrl.distributions import categorical
from jaxrl.factory.on_policy import build_mdpo, build_ppo, build_props
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.networks import feed_forward
from jaxrl.spaces import Box
from jaxrl.types import Policy, Transition, Wrapped

KEY = jax.random.key(0)
ARMS = 4
LOGITS = np.log([0.5, 0.3, 0.15, 0.05])


def table(values):
    """A network that answers `values` whatever it sees; they are its params."""
    values = jnp.asarray(values, jnp.float32)

    def apply(params, observation):
        return jnp.broadcast_to(params, (*observation.shape[:-1], *values.shape))

    return feed_forward(lambda key, observation: values, apply)


def bandit(learning_rate=0.0, agent_static=(), **static):
    """Environment, agent and policy; a learning rate of 0 keeps the agent's policy where it is."""
    env = toys.clock(length=1, truncates=False, actions=ARMS)
    policy = Policy(table(LOGITS), categorical(ARMS))
    agent_static = dict(num_epochs=1, num_minibatches=1) | dict(agent_static)
    inner = ppo(policy, table(0.3), hparams=PPOHparams(learning_rate=learning_rate), **agent_static)
    sgd = lambda hp: optax.sgd(hp.refit_learning_rate)  # noqa: E731
    return env, props(inner, policy, **{"optimizer": sgd, "refit_minibatches": 1, **static}), policy


def play(agent, env, hparams, num_rollouts, length, num_envs):
    """States after each update, and the rollouts, as the online loop has them."""
    state = agent.init(KEY, hparams, example_data(env, num_envs, length))
    now = start(KEY, agent, state, env, env.params, num_envs)

    @jax.jit
    def step(key, state, now):
        now, data, _ = rollout(key, agent, state, env, now, length)
        state, metrics = agent.update(key, state, data)
        return state, now, data, metrics

    states, rollouts, metrics = [state], [], []
    for i in range(num_rollouts):
        state, now, data, reported = step(jax.random.fold_in(KEY, i), state, now)
        states, rollouts, metrics = states + [state], rollouts + [data], metrics + [reported]
    return states, rollouts, metrics


def softmax(x):
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def counts(rollouts):
    return np.bincount(np.concatenate([np.asarray(d.extras["raw_action"]).ravel() for d in rollouts]), minlength=ARMS)


def test_ros_is_a_plain_gradient_step():
    """behavior = theta - rate * mean over the data of grad log pi, which for a softmax is empirical - pi."""
    env, agent, _ = bandit(num_batches=1, update_period=12, refit_epochs=1)
    ros = PropsHparams(refit_learning_rate=3.0, refit_clip=np.inf, refit_target_kl=np.inf, refit_kl_coefficient=0.0)
    hparams = agent.hparams._replace(own=ros)
    states, rollouts, metrics = play(agent, env, hparams, 10, length=1, num_envs=3)
    np.testing.assert_array_equal(states[0].behavior, np.float32(LOGITS))
    moved = 0.0
    for i in range(1, 11):
        n = counts(rollouts[:i])
        expected = LOGITS - 3.0 * (n / n.sum() - softmax(LOGITS))
        np.testing.assert_allclose(states[i].behavior, expected, atol=1e-5)
        moved = max(moved, np.abs(expected - LOGITS).max())
        assert metrics[i - 1]["props/refit_steps"] == 1
    assert moved > 0.3


def refit_by_loop(logits, n, rate, epsilon, delta, coefficient, epochs):
    """Gradient descent on E_D max(g, clip(g)) + lambda KL(pi || behavior) from n counts of arms, in float64."""
    pi, phi, frequency = softmax(logits), logits.copy(), n / n.sum()
    for step in range(1, epochs + 1):
        behavior = softmax(phi)
        g = behavior / pi
        approx_kl = np.sum(frequency * (g - 1 - np.log(g)))
        active = (g > 1 - epsilon) * frequency * g  # d max(g, 1 - epsilon) / d log behavior
        gradient = active - active.sum() * behavior + coefficient * (behavior - pi)
        phi = phi - rate * gradient
        if approx_kl > delta:
            break
    return phi, step


def test_refit_against_a_loop():
    """With clip, penalty and stop, on a buffer that fills and then forgets: the oldest rollout of a full one is out."""
    length, num_envs, window = 2, 4, 3
    env, agent, _ = bandit(num_batches=window, refit_epochs=40)
    own = PropsHparams(refit_learning_rate=1.5, refit_clip=0.3, refit_target_kl=0.03, refit_kl_coefficient=0.2)
    states, rollouts, metrics = play(agent, env, agent.hparams._replace(own=own), 8, length, num_envs)
    taken = []
    for i in range(1, 9):
        kept = rollouts[max(0, i - (window - 1)) : i]
        expected, steps = refit_by_loop(LOGITS, counts(kept), 1.5, 0.3, 0.03, 0.2, 40)
        np.testing.assert_allclose(states[i].behavior, expected, atol=2e-4)
        assert metrics[i - 1]["props/refit_steps"] == steps
        taken.append(steps)
    assert min(taken) < 40  # some stopped, some did not clip only
    clipped = softmax(np.asarray(states[-1].behavior, np.float64)) / softmax(LOGITS)
    assert clipped.min() < 0.8


def test_the_behavior_acts_and_the_agent_answers():
    env, agent, _ = bandit(num_batches=2, refit_epochs=1)
    state = agent.init(KEY, agent.hparams, example_data(env, 4, 2))
    state = state._replace(behavior=jnp.array([0.0, 0.0, 0.0, 50.0]))
    memory = agent.init_memory(KEY, state, jnp.zeros((64, 2)))
    for s in (state, agent.actor(state)):
        _, action, extras = agent.act(KEY, s, memory, jnp.zeros((64, 2)))
        assert (action == 3).all()
        np.testing.assert_allclose(extras["log_prob"], 0.0, atol=1e-6)
        _, action, extras = agent.act_greedy(KEY, s, memory, jnp.zeros((64, 2)))
        assert (action == 0).all() and np.allclose(extras["value"], 0.3)
    assert agent.actor(state).buffer == ()


def test_a_buffer_of_one_rollout_is_ppo():
    env = toys.clock(4)
    plain, wrapped = build_ppo(env, widths=(8,)), build_props(env, widths=(8,), num_batches=1, update_period=1)
    runs = []
    for agent in (plain, wrapped):
        loop = jaxrl.online(agent, env, num_envs=4, unroll_length=8)
        runs.append(jax.jit(lambda loop=loop: jaxrl.run(loop, loop.init(KEY), 3))())
    (alone, metrics), (inside, others) = runs
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), alone.agent, inside.agent.agent)
    np.testing.assert_allclose(metrics["episode/return_sum"], others["episode/return_sum"])
    jax.tree.map(np.testing.assert_array_equal, inside.agent.behavior, inside.agent.agent.params["policy"])


def network_agents(**static):
    env = toys.clock(3)
    policy, critic = toys.actor_and_critic(env, width=8)
    inner = ppo(policy, critic, num_epochs=1, num_minibatches=1, hparams=PPOHparams(learning_rate=1e-2))
    return env, inner, policy, critic, props(inner, policy, **{"refit_minibatches": 1, **static})


def test_the_agent_learns_from_all_of_the_buffer_as_if_it_had_just_collected_it():
    """Against the agent's own update on rollouts joined by hand, with today's log-probabilities and values; what is not
    there yet changes nothing."""
    env, inner, policy, critic, agent = network_agents(num_batches=2, update_period=2, refit_epochs=3)
    hparams = agent.hparams._replace(own=PropsHparams(refit_learning_rate=0.05))
    states, rollouts, metrics = play(agent, env, hparams, 6, length=4, num_envs=3)
    update = jax.jit(inner.update)
    for i in range(1, 7):
        before, after = states[i - 1].agent, states[i].agent
        if i % 2:
            jax.tree.map(np.testing.assert_array_equal, before, after)
            assert metrics[i - 1]["value_loss"] == 0
            continue
        joined = jax.tree.map(lambda *x: jnp.concatenate(x), *rollouts[max(0, i - 4) : i])
        outputs = policy.network.apply(before.params["policy"], (), joined.observation)[1]
        value = critic.apply(before.params["critic"], (), joined.observation)[1]
        log_prob = policy.distribution.log_prob(outputs, joined.extras["raw_action"])
        assert np.abs(log_prob - joined.extras["log_prob"]).max() > 1e-3  # collected by another policy
        joined = joined._replace(extras=joined.extras | {"log_prob": log_prob, "value": value})
        expected, _ = update(jax.random.fold_in(KEY, i - 1), before, joined)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), expected, after)
        assert any((a != b).any() for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params)))


def test_columns_of_weight_zero_are_not_there():
    """Nonsense at weight 0 beside real columns, over several rollouts: the agent and the behavior stay as they are."""
    env, _, _, _, agent = network_agents(num_batches=2, update_period=1, refit_epochs=2, error_steps=3)
    _, rollouts, _ = play(agent, env, agent.hparams, 3, length=4, num_envs=3)

    def padded(data):
        full = data._replace(extras=data.extras | {"weight": jnp.ones_like(data.reward)})
        junk = jax.tree.map(lambda x: jnp.full_like(x, 3) if x.dtype == jnp.float32 else jnp.zeros_like(x), full)
        junk = junk._replace(extras=junk.extras | {"weight": jnp.zeros_like(data.reward)})
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), full, junk)

    results = []
    for view, num_envs in ((lambda x: x, 3), (padded, 6)):
        state = agent.init(KEY, agent.hparams, example_data(env, num_envs, 4))
        update = jax.jit(agent.update)
        for data in rollouts:
            state, metrics = update(KEY, state, view(data))
        results.append((state.agent.params, state.behavior, metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), *results)


def test_first_in_first_out():
    def rows(values, **extras):
        x = jnp.asarray(values, jnp.float32)[:, None]
        return Transition(x, x, x, x > 9, x > 9, x, extras | {"cost": 10 * x})

    buffer = rows([0, 0, 0, 0], weight=jnp.zeros((4, 1)))
    buffer = push(buffer, rows([1, 2], unknown=jnp.ones((2, 1))))
    np.testing.assert_array_equal(buffer.reward[:, 0], [0, 0, 1, 2])
    np.testing.assert_array_equal(buffer.extras["weight"][:, 0], [0, 0, 1, 1])
    buffer = push(push(buffer, rows([3, 4], weight=jnp.array([[0.5], [1.0]]))), rows([5, 6]))
    np.testing.assert_array_equal(buffer.extras["cost"][:, 0], [30, 40, 50, 60])
    np.testing.assert_array_equal(buffer.extras["weight"][:, 0], [0.5, 1, 1, 1])
    assert buffer.extras.keys() == {"weight", "cost"}


def test_sampling_error_of_a_bandit():
    """The divergence of the frequencies from the policy, with weights; 0 for data that have none."""
    raw = jnp.array([0, 0, 1, 1, 1, 2, 3, 2])
    w = jnp.array([1, 1, 1, 1, 1, 1, 1, 0.0])
    data = Transition(jnp.zeros((8, 1)), (), (), (), (), (), {"raw_action": raw, "weight": w})
    policy, params = Policy(table(LOGITS), categorical(ARMS)), jnp.asarray(LOGITS, jnp.float32)
    frequency = np.array([2, 3, 1, 1]) / 7
    exact = np.sum(frequency * (np.log(frequency) - LOGITS))
    error = jax.jit(lambda: sampling_error(policy, params, data, num_steps=600))()
    np.testing.assert_allclose(error, exact, rtol=1e-3)
    fitted = jnp.asarray(np.log(frequency), jnp.float32)
    np.testing.assert_allclose(sampling_error(policy, fitted, data, num_steps=5), 0.0, atol=2e-4)


def test_less_sampling_error_than_sampling():
    """On a bandit with a fixed policy, after 256 actions, less than half of the mean error of independent ones."""
    errors = {}
    for name, epochs in (("iid", 0), ("props", 8)):
        env, agent, _ = bandit(num_batches=1, update_period=64, refit_epochs=epochs)
        own = PropsHparams(refit_learning_rate=1.0, refit_kl_coefficient=0.0)
        loop = jaxrl.online(agent, env, num_envs=1, unroll_length=4)

        def train(key, loop=loop, hparams=agent.hparams._replace(own=own)):
            return jaxrl.run(loop, loop.init(key, hparams), 64)[0].agent.buffer.extras["raw_action"]

        taken = np.asarray(jax.jit(jax.vmap(train))(jax.random.split(KEY, 32))).reshape(32, -1)
        frequency = np.stack([np.bincount(x, minlength=ARMS) for x in taken]) / 256
        errors[name] = np.sum(frequency * np.log(np.maximum(frequency, 1e-12) / softmax(LOGITS)), 1).mean()
    assert abs(errors["iid"] - (ARMS - 1) / 512) < 0.003  # (A - 1) / 2n
    assert errors["props"] < 0.5 * errors["iid"]


@pytest.mark.parametrize("space", [None, Box(-2.0, 2.0, (2,))], ids=["discrete", "continuous"])
def test_builders(space):
    """With normalizers around; states keep their structure, numbers have names of their own."""
    env = toys.clock(3)
    env = env if space is None else env._replace(action_space=space)
    small = dict(widths=(8,), num_epochs=1, num_minibatches=1, normalize_observation=True, normalize_reward=True)
    for build, own in ((build_props, dict(update_period=2, error_steps=2)), (build_mdpo, {})):
        agent = build(env, **small, **own)
        numbers = ["learning_rate", "refit_learning_rate"] if build is build_props else ["mirror_step"]
        hparams = jaxrl.tree.replace_fields(agent.hparams, **dict.fromkeys(numbers, 0.01))
        loop = jaxrl.online(agent, env, num_envs=4, unroll_length=4)
        state = jax.jit(loop.init)(KEY, hparams)
        after, metrics = jax.jit(lambda s, loop=loop: jaxrl.run(loop, s, 4))(state)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
        assert all(np.isfinite(x).all() for x in metrics.values())
        if build is build_props:
            assert (metrics["props/sampling_error"][1::2] > 0).all() and (metrics["props/refit_steps"] > 0).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_batches=0), "num_batches is 0, must be >= 1"),
        (dict(update_period=0), "update_period is 0"),
        (dict(refit_epochs=-1), "refit_epochs is -1, must be >= 0"),
        (dict(refit_minibatches=0), "refit_minibatches is 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        bandit(**arguments)


def test_recurrent_agents_are_turned_away():
    env = toys.clock()
    policy, critic = toys.actor_and_critic(env, recurrent=True)
    agent = props(ppo(policy, critic), policy)
    with pytest.raises(ValueError, match="has memory"):
        agent.init(KEY, Wrapped(PPOHparams(), PropsHparams()), example_data(env, 4, 4))
