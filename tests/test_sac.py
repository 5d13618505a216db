"""SAC against plain loops, the soft optimum in closed form, and the settings that make other algorithms of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from actor_critics import (
    CENTER,
    HALF_RANGE,
    HIGH,
    KEY,
    LOW,
    action_critic,
    assert_close,
    assert_equal,
    bandit,
    batch,
    constant,
    difference,
    learn,
    member,
    perturbed,
    quadratic_critic,
    start,
)

from jaxrl import networks
from jaxrl.agents.sac import SACHparams, sac
from jaxrl.distributions import diagonal_gaussian, tanh_gaussian
from jaxrl.factory import actor_critic
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Policy

CRITIC = action_critic()
POLICY = networks.policy(networks.mlp((4,)), tanh_gaussian(LOW, HIGH, (2,)), scale=1.0, state_dependent_scale=True)


def make(**settings):
    return sac(POLICY, CRITIC, optimizer=lambda hp: optax.sgd(hp.learning_rate), **settings)


HP = SACHparams(1.0, 0.5, 0.25, initial_temperature=0.3, target_entropy=-1.5, discount=0.9, target_rate=0.1)


def draw(key, params, observation, row, num_rows):
    """Raw action, action and log-probability of one row, from the definition of a squashed Gaussian."""
    mean, log_std = jnp.split(POLICY.network.apply(params, (), observation)[1], 2)
    noise = jax.random.normal(key, (num_rows * 2,)).reshape(num_rows, 2)[row]
    raw = mean + jnp.exp(log_std) * noise
    return raw, CENTER + HALF_RANGE * jnp.tanh(raw), log_density(mean, log_std, raw)


def log_density(mean, log_std, raw):
    normal = -0.5 * ((raw - mean) / jnp.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return jnp.sum(normal - jnp.log(HALF_RANGE * (1 - jnp.tanh(raw) ** 2)))


def value_of(params, observation, action, members, reduce):
    values = [CRITIC.apply(member(params, i), (), (observation, action))[1] for i in members]
    return reduce(jnp.stack(values))


def reference_losses(params, state, data, keys, members, reduce, backup_entropy=True, mirror=None):
    """Critic loss, policy loss, gradient of log temperature, TD errors; everything row by row."""
    hp, count = state.hparams, data.reward.shape[0]
    frozen = jax.lax.stop_gradient(state.params)
    temperature, total = float(jnp.exp(frozen["log_temperature"])), float(data.extras["weight"].sum())
    num_critics = frozen["critic"]["head"]["bias"].shape[0]
    critic_loss, policy_loss, slope, errors = 0.0, 0.0, 0.0, []
    for i in range(count):
        weight = float(data.extras["weight"][i])
        observation, following = data.observation[i], data.next_observation[i]
        _, action, log_prob = draw(keys[0], frozen["policy"], following, i, count)
        following_value = value_of(state.target_params, following, action, members, jnp.min)
        if backup_entropy:
            following_value = following_value - temperature * log_prob
        decay = 0.0 if data.terminated[i] else hp.discount ** float(data.extras["num_steps"][i])
        target = data.reward[i] + decay * following_value
        error = [
            CRITIC.apply(member(params["critic"], j), (), (observation, data.action[i]))[1] - target
            for j in range(num_critics)
        ]
        errors.append(sum(abs(float(e)) for e in jax.lax.stop_gradient(error)) / num_critics)
        critic_loss += weight / total * sum(0.5 * e**2 for e in error)
        raw, action, log_prob = draw(keys[1], params["policy"], observation, i, count)
        loss = temperature * log_prob - value_of(frozen["critic"], observation, action, range(num_critics), reduce)
        if mirror is not None:
            reference = jnp.split(POLICY.network.apply(state.reference_params, (), observation)[1], 2)
            loss = log_prob - log_density(*reference, raw) + mirror * loss
        policy_loss += weight / total * loss
        slope += weight / total * -temperature * float(jax.lax.stop_gradient(log_prob) + hp.target_entropy)
    return critic_loss + policy_loss, (critic_loss, policy_loss, slope, errors)


@pytest.mark.parametrize("name", ["sac", "redq", "mdpo"])
def test_one_update_against_a_reference(name):
    """One step on rows of every kind: weights, several steps, termination, truncation, targets that differ."""
    settings = {
        "sac": {},
        "redq": dict(num_critics=3, num_target_critics=2, policy_value="mean", backup_entropy=False),
        "mdpo": dict(reference_period=3),
    }[name]
    data = batch(5, weight=[1.0, 2.0, 0.5, 1.0, 0.0], num_steps=[1, 2, 3, 1, 1], index=range(5))
    hp = HP._replace(mirror_step=0.5, mirror_decay_updates=10.0)
    agent = make(**settings)
    state = perturbed(start(agent, data, hp))._replace(num_updates=jnp.int32(4))
    if name == "mdpo":
        state = state._replace(reference_params=jax.tree.map(lambda x: 0.5 * x, state.reference_params))
    key_target, _, key_policy = jax.random.split(KEY, 3)
    key_action, key_subset = jax.random.split(key_target)
    members = networks.subset(key_subset, jnp.arange(3), 2) if name == "redq" else range(2)
    others = dict(
        backup_entropy=name != "redq",
        mirror=0.5 * (1 - 4 / 10) if name == "mdpo" else None,
        reduce=jnp.mean if name == "redq" else jnp.min,
    )
    gradient, expected = jax.grad(reference_losses, has_aux=True)(
        state.params, state, data, (key_action, key_policy), members, **others
    )
    poisoned = data._replace(  # at the row of weight 0
        reward=data.reward.at[4].set(jnp.nan), observation=data.observation.at[4].set(jnp.nan)
    )
    after, metrics = jax.jit(agent.update)(KEY, state, poisoned)
    step = difference(state.params, after.params)
    assert_close(step["critic"], gradient["critic"])  # at learning rate 1
    assert_close(step["policy"], jax.tree.map(lambda g: 0.5 * g, gradient["policy"]))
    critic_loss, policy_loss, slope, errors = expected
    np.testing.assert_allclose(step["log_temperature"], 0.25 * slope, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss, rtol=1e-4)
    np.testing.assert_allclose(metrics["priority"][:4], errors[:4], rtol=1e-4)
    followed = jax.tree.map(lambda t, p: t + 0.1 * (p - t), state.target_params, after.params["critic"])
    assert_close(after.target_params, followed, 1e-6)
    plain, metrics = jax.eval_shape(agent.update, KEY, state, data._replace(extras={}))
    assert "priority" not in metrics and all(m.shape == () for m in metrics.values())


def test_policy_every_third_update():
    """Critics always learn, the policy in every third update; its loss is reported so that the mean is right."""
    data = batch()
    agent, often = make(policy_period=3, hparams=HP), make(hparams=HP)
    update, states, losses = jax.jit(agent.update), [start(agent, data)], []
    for i in range(3):
        state, metrics = update(jax.random.key(i), states[-1], data)
        states.append(state)
        losses.append(float(metrics["policy_loss"]))
    for before, after in zip(states[:2], states[1:3]):
        for name in ("policy", "log_temperature"):
            assert_equal(before.params[name], after.params[name])
        assert (before.params["critic"]["head"]["bias"] != after.params["critic"]["head"]["bias"]).all()
    expected, metrics = jax.jit(often.update)(jax.random.key(2), states[2], data)
    assert_close(states[3].params, expected.params, 1e-6)
    assert losses[:2] == [0.0, 0.0]
    np.testing.assert_allclose(losses[2], 3 * metrics["policy_loss"], rtol=1e-5)


def test_the_reference_is_the_policy_of_every_third_update():
    data = batch()
    agent = make(reference_period=3, hparams=HP)
    update, state = jax.jit(agent.update), start(agent, data)
    references, policies = [state.reference_params], [state.params["policy"]]
    assert_equal(references[0], policies[0])
    for i in range(6):
        state, _ = update(jax.random.key(i), state, data)
        references.append(state.reference_params)
        policies.append(state.params["policy"])
    for i, last in enumerate([0, 0, 0, 3, 3, 3, 6]):
        assert_equal(references[i], policies[last])


def gaussian_agent(**settings):
    """Everything that is learned is a number: mean and log deviation, a quadratic critic, the temperature."""
    policy = Policy(constant([0.0, 0.0]), diagonal_gaussian((1,)))
    return sac(policy, quadratic_critic(), **settings)


FAST = dict(learning_rate=0.03, policy_learning_rate=0.01, temperature_learning_rate=0.0, target_rate=0.02)


def settled(state, agent, data, seed=5):
    """The state after further updates at a tenth of the learning rates: less noise."""
    hp = state.hparams
    slow = {name: 0.1 * getattr(hp, name) for name in hp._fields if name.endswith("learning_rate")}
    state = state._replace(hparams=hp._replace(**slow))
    run = jax.jit(lambda s, key: jax.lax.scan(lambda s, k: agent.update(k, s, data), s, jax.random.split(key, 2000)))
    return run(state, jax.random.key(seed))


def test_soft_optimum_of_one_state_in_closed_form():
    """r = -k (a - m)^2 for ever: pi is N(m, temperature / 2k), V = temperature log sqrt(pi temperature / k) / (1 - g).

    All rows are truncated, so the value goes on: a termination in their place would make Q(s, a) = r.
    """
    k, m, temperature, discount = 2.0, 0.4, 0.5, 0.8
    hp = SACHparams(**FAST, initial_temperature=temperature, discount=discount)
    agent = gaussian_agent(hparams=hp)
    data = bandit(lambda a: -k * (a - m) ** 2, low=-1.5, high=2.0, terminated=False)
    state, _ = learn(agent, data, 2000)
    state, _ = settled(state, agent, data)
    mean, log_std = state.params["policy"]["outputs"]
    np.testing.assert_allclose(mean, m, atol=0.02)
    np.testing.assert_allclose(jnp.exp(2 * log_std), temperature / (2 * k), rtol=0.05)
    soft_value = temperature * np.log(np.sqrt(np.pi * temperature / k)) / (1 - discount)
    expected = [discount * soft_value - k * m**2, 2 * k * m, -k]
    np.testing.assert_allclose(state.params["critic"]["w"], [expected] * 2, atol=0.05)
    ended = data._replace(terminated=data.truncated, truncated=data.terminated)
    state, _ = learn(agent, ended, 2000)
    np.testing.assert_allclose(state.params["critic"]["w"], [[-k * m**2, 2 * k * m, -k]] * 2, atol=0.01)


def test_temperature_brings_the_entropy_to_its_target():
    """A Gaussian of entropy H has deviation exp(H) / sqrt(2 pi e), which is optimal at temperature 2 k std^2."""
    k, target = 2.0, 0.2
    hp = SACHparams(**FAST | {"temperature_learning_rate": 0.01}, target_entropy=target)
    agent = gaussian_agent(hparams=hp)
    data = bandit(lambda a: -k * a**2)
    state, _ = learn(agent, data, 2500)
    state, metrics = settled(state, agent, data)
    std = np.exp(target) / np.sqrt(2 * np.pi * np.e)
    np.testing.assert_allclose(jnp.exp(state.params["policy"]["outputs"][1]), std, rtol=0.03)
    np.testing.assert_allclose(metrics["entropy"][-500:].mean(), target, atol=0.03)
    np.testing.assert_allclose(metrics["temperature"][-500:].mean(), 2 * k * std**2, rtol=0.06)


def test_squashed_policy_against_a_numerically_integrated_boltzmann_density():
    """The squashed Gaussian nearest to exp(Q / temperature) in KL, found on a grid, is what SAC finds."""
    temperature = 0.2

    def reward(a):
        return -((a - 0.8) ** 2)

    policy = Policy(constant([0.0, 0.0]), tanh_gaussian(-1.0, 1.0, (1,)))
    hp = SACHparams(**FAST, initial_temperature=temperature)
    agent = sac(policy, quadratic_critic(), hparams=hp)
    data = bandit(reward)
    state, _ = learn(agent, data, 1500)
    state, _ = settled(state, agent, data)
    mean, log_std = np.asarray(state.params["policy"]["outputs"])
    noise = np.linspace(-6, 6, 401)
    density = np.exp(-0.5 * noise**2) / np.sqrt(2 * np.pi)

    def divergence(mean, std):
        """KL(pi || Boltzmann) up to the constant log Z, by the trapezoid rule over the Gaussian's noise."""
        raw = mean + std * noise
        log_prob = np.log(density) - np.log(std) - np.log1p(-(np.tanh(raw) ** 2) + 1e-30)
        return np.trapezoid(density * (log_prob - reward(np.tanh(raw)) / temperature), noise)

    grid = np.array([[divergence(m, s) for s in np.arange(0.3, 1.5, 0.02)] for m in np.arange(0.0, 1.6, 0.02)])
    i, j = np.unravel_index(np.argmin(grid), grid.shape)
    np.testing.assert_allclose([mean, np.exp(log_std)], [0.02 * i, 0.3 + 0.02 * j], atol=0.04)
    assert divergence(mean, np.exp(log_std)) < grid.min() + 1e-3


def test_mirror_step_in_closed_form():
    """argmin E[log pi - log pi_k - t Q] is pi_k exp(t Q) / Z: N(m0, s0^2) times a parabola is a Gaussian.

    Its precision is 1 / s0^2 + 2 t k and its mean the average of m0 and m, weighted by 1 / s0^2 and 2 t k.
    """
    k, m, t, m0, s0 = 1.5, 0.6, 0.7, -0.3, 0.8
    hp = SACHparams(**FAST, initial_temperature=0.0, mirror_step=t)
    agent = gaussian_agent(reference_period=100_000, hparams=hp)
    data = bandit(lambda a: -k * (a - m) ** 2)
    started = start(agent, data)
    reference = {"outputs": jnp.array([m0, np.log(s0)])}
    started = started._replace(reference_params=reference, params=started.params | {"policy": reference})
    run = jax.jit(lambda s, key: jax.lax.scan(lambda s, k: agent.update(k, s, data), s, jax.random.split(key, 2000)))
    state, _ = settled(run(started, KEY)[0], agent, data)
    assert state.params["log_temperature"] == -jnp.inf and np.isfinite(state.params["critic"]["w"]).all()
    mean, log_std = state.params["policy"]["outputs"]
    precision = 1 / s0**2 + 2 * t * k
    np.testing.assert_allclose(jnp.exp(-2 * log_std), precision, rtol=0.03)
    np.testing.assert_allclose(mean, (m0 / s0**2 + 2 * t * k * m) / precision, atol=0.02)


def test_the_actor_part_acts_and_values_are_recorded_where_there_are_critics():
    data = batch(dims=(3, 2))
    agent = make(reference_period=2, hparams=HP)
    state = start(agent, data)
    lean = agent.actor(state)
    for act in (agent.act, agent.act_greedy):
        np.testing.assert_array_equal(act(KEY, state, (), data.observation)[1], act(KEY, lean, (), data.observation)[1])
    assert agent.act(KEY, state, (), data.observation)[2] == agent.act_greedy(KEY, lean, (), data.observation)[2] == {}
    _, action, extras = agent.act_greedy(KEY, state, (), data.observation)
    value = value_of(state.params["critic"], data.observation[0], action[0], range(2), jnp.min)
    np.testing.assert_allclose(extras["value"][0], value, rtol=1e-5)
    assert len(jax.tree.leaves(lean)) == len(jax.tree.leaves((state.params["policy"], state.hparams))) + 2


@pytest.mark.parametrize("build", ["sac", "redq", "mdpo_off"])
def test_builders(build):
    space = Box((-2.0, 0.0), (2.0, 1.0), (2,))
    env = toys.clock()._replace(action_space=space)
    agent = getattr(actor_critic, f"build_{build}")(env, widths=(8,))
    data = batch(8, dims=(2, 2))
    update = jax.eval_shape(agent.update, KEY, start(agent, data), data)
    assert update[0].hparams.discount.shape == ()
    if build != "mdpo_off":  # -1 nat a dimension in units of the half ranges 2 and 0.5: their logarithms cancel
        np.testing.assert_allclose(agent.hparams.target_entropy, -2.0 + np.log(2.0) + np.log(0.5))
    for other in (Discrete(2), Box(-np.inf, np.inf, (2,))):
        with pytest.raises(ValueError, match="the action space is .* needs a bounded Box of floats"):
            getattr(actor_critic, f"build_{build}")(env._replace(action_space=other))


def test_critics_of_builders_see_scaled_actions():
    space = Box((-2.0, 0.0), (2.0, 1.0), (2,))
    env = toys.clock()._replace(action_space=space)
    seen = actor_critic.default_action_critic(env, (8,), "relu")
    params = seen.init(KEY, (jnp.zeros((1, 2)), jnp.zeros((1, 2))))
    by_hand = networks.critic(networks.mlp((8,), activation="relu"))
    observation, action = jnp.ones((3, 2)), jnp.array([[-2.0, 0.0], [0.0, 0.5], [2.0, 1.0]])
    scaled = jnp.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    expected = by_hand.apply(params, (), jnp.concatenate([observation, scaled], -1))[1]
    np.testing.assert_allclose(seen.apply(params, (), (observation, action))[1], expected, atol=1e-6)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(num_critics=0), "sac: num_critics is 0, must be >= 1"),
        (dict(policy_period=0), "sac: policy_period is 0, must be >= 1"),
        (dict(num_target_critics=3), r"sac: num_target_critics is 3, must be in \[1, 2\] or None"),
        (dict(reference_period=1), "sac: reference_period is 1, must be 0"),
        (dict(policy_value="max"), "sac: policy_value is 'max', allowed"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_finitely_many_actions_are_refused():
    policy, _ = toys.actor_and_critic(toys.clock())
    with pytest.raises(ValueError, match="needs a distribution over continuous actions"):
        sac(policy, CRITIC)
