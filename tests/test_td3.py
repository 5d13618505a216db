"""TD3 against plain loops, and DDPG and TD3+BC as settings of it."""

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
from jaxrl.agents.td3 import TD3Hparams, td3
from jaxrl.distributions import diagonal_gaussian
from jaxrl.factory import actor_critic
from jaxrl.networks.core import map_outputs
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Policy

CRITIC = action_critic()
MEAN = networks.sequential(networks.mlp((4,)), networks.dense(2))


def bounded(outputs, observation):
    return jnp.concatenate([jnp.tanh(outputs), jnp.zeros_like(outputs)], -1)


POLICY = Policy(map_outputs(MEAN, bounded), diagonal_gaussian((2,), LOW, HIGH))
HP = TD3Hparams(1.0, 0.5, discount=0.9, target_rate=0.1, target_noise=0.8, target_noise_clip=0.5)


def make(**settings):
    return td3(POLICY, CRITIC, optimizer=lambda hp: optax.sgd(hp.learning_rate), **settings)


def reference_gradients(state, data, key, noise_scale, clip, bc):
    """Gradients of critics and policy, the policy's at the critics after their step at rate 1; row by row."""
    hp, count, weight = state.hparams, data.reward.shape[0], np.asarray(data.extras["weight"])
    weight = weight / weight.sum()
    num_critics = state.params["critic"]["head"]["bias"].shape[0]
    noise = np.clip(noise_scale * np.asarray(jax.random.normal(key, (count * 2,))).reshape(count, 2), -clip, clip)

    def act(params, observation):  # in [-1, 1]
        return jnp.tanh(MEAN.apply(params, (), observation)[1])

    def value(params, i, observation, scaled):
        return CRITIC.apply(member(params, i), (), (observation, CENTER + HALF_RANGE * scaled))[1]

    def critic_loss(params):
        total = 0.0
        for row in range(count):
            following = data.next_observation[row]
            action = jnp.clip(act(state.target_params["policy"], following) + noise[row], -1, 1)
            least = min(float(value(state.target_params["critic"], i, following, action)) for i in range(num_critics))
            decay = 0.0 if data.terminated[row] else hp.discount ** float(data.extras["num_steps"][row])
            target = data.reward[row] + decay * least
            for i in range(num_critics):
                chosen = (data.action[row] - CENTER) / HALF_RANGE
                total += weight[row] * 0.5 * (value(params, i, data.observation[row], chosen) - target) ** 2
        return total

    gradient = jax.grad(critic_loss)(state.params["critic"])
    critics = difference(state.params["critic"], gradient)

    def policy_loss(params):
        actions = [act(params, observation) for observation in data.observation]
        values = [value(critics, 0, observation, a) for observation, a in zip(data.observation, actions)]
        loss = -sum(w * v for w, v in zip(weight, values))
        if not bc:
            return loss
        size = sum(w * abs(float(v)) for w, v in zip(weight, jax.lax.stop_gradient(values)))
        errors = [jnp.mean((a - (b - CENTER) / HALF_RANGE) ** 2) for a, b in zip(actions, data.action)]
        return loss / size + bc * sum(w * e for w, e in zip(weight, errors))

    return gradient, jax.grad(policy_loss)(state.params["policy"]), critics


@pytest.mark.parametrize(
    "settings, hparams",
    [
        ({}, {}),
        (dict(num_critics=1, policy_period=1), dict(target_noise=0.0)),  # DDPG: one critic, no noise, no delay
        ({}, dict(bc_coefficient=0.4)),
    ],
    ids=["td3", "ddpg", "td3+bc"],
)
def test_one_update_against_a_reference(settings, hparams):
    """One step on rows of every kind: weights, several steps, termination, truncation, targets that differ."""
    data = batch(5, weight=[1.0, 2.0, 0.5, 1.0, 0.0], num_steps=[1, 2, 3, 1, 1], index=range(5))
    hp = HP._replace(**hparams)
    agent = make(**settings)
    state = perturbed(start(agent, data, hp), scale=0.5)._replace(num_updates=jnp.int32(1))
    clip = 0.5 if hp.target_noise else 0.0
    critic_gradient, policy_gradient, critics = reference_gradients(
        state, data, KEY, hp.target_noise, clip, hp.bc_coefficient
    )
    poisoned = data._replace(  # at the row of weight 0
        reward=data.reward.at[4].set(jnp.nan), next_observation=data.next_observation.at[4].set(jnp.nan)
    )
    update = jax.jit(agent.update)
    after, metrics = update(KEY, state, poisoned)
    step = difference(state.params, after.params)
    assert_close(step["critic"], critic_gradient)
    assert_close(step["policy"], jax.tree.map(lambda g: 0.5 * g, policy_gradient))
    assert_close(after.params["critic"], critics)
    followed = jax.tree.map(lambda t, p: t + 0.1 * (p - t), state.target_params, after.params)
    assert_close(after.target_params, followed, 1e-6)
    assert metrics["priority"].shape == (5,) and after.num_updates == 2
    if "policy_period" in settings:
        return
    early, metrics = update(KEY, state._replace(num_updates=jnp.int32(0)), data)  # the other of two updates
    assert_equal(early.params["critic"], after.params["critic"])
    assert_equal(early.params["policy"], state.params["policy"])
    assert_equal(early.target_params, state.target_params)
    assert metrics["policy_loss"] == 0.0


def test_priorities_are_absolute_errors():
    data = batch(4, index=range(4))._replace(terminated=jnp.ones(4, bool))
    agent = make(hparams=HP)
    state = start(agent, data)
    value = [CRITIC.apply(member(state.params["critic"], i), (), (data.observation, data.action))[1] for i in range(2)]
    _, metrics = jax.jit(agent.update)(KEY, state, data)
    expected = (jnp.abs(value[0] - data.reward) + jnp.abs(value[1] - data.reward)) / 2
    np.testing.assert_allclose(metrics["priority"], expected, rtol=1e-5)
    _, metrics = jax.eval_shape(agent.update, KEY, state, data._replace(extras={}))
    assert "priority" not in metrics


ONE_STATE = Policy(map_outputs(constant([0.0]), bounded), diagonal_gaussian((1,), -2.0, 1.0))
FAST = TD3Hparams(0.03, 0.01)


def test_quadratic_bandit():
    """r = -(a - m)^2: the policy finds m, inside of the box; or the end of the box that is nearest."""
    for m, best in ((0.4, 0.4), (3.0, 1.0)):
        agent = td3(ONE_STATE, quadratic_critic(), hparams=FAST)
        data = bandit(lambda a, m=m: -((a - m) ** 2), low=-2.0)
        state, _ = learn(agent, data, 2500)
        action = agent.act(KEY, state, (), data.observation[:1])[1]
        np.testing.assert_allclose(action[0], best, atol=0.02)
        np.testing.assert_allclose(state.params["critic"]["w"][0], [-(m**2), 2 * m, -1.0], atol=0.02)


def test_cloning_in_closed_form():
    """argmin of c E (x - b)^2 - Q(x) / mean |Q| for Q = -2.25 (x - y)^2 in raw units: x = (c E b + d y) / (c + d).

    Where d = 2.25 / |Q(x)|, held fixed in the gradient, so the equation is solved at the x that was found.
    """
    c, m = 0.7, 0.6
    agent = td3(ONE_STATE, quadratic_critic(), policy_period=1, hparams=FAST._replace(bc_coefficient=c))
    data = bandit(lambda a: -1.0 - (a - m) ** 2, low=-2.0)  # |Q| stays away from 0
    state, _ = learn(agent, data, 2500)
    action = float(agent.act(KEY, state, (), data.observation[:1])[1][0, 0])
    x, y, b = ((v - CENTER) / HALF_RANGE for v in (action, m, float(data.action.mean())))
    d = HALF_RANGE**2 / (1.0 + (action - m) ** 2)
    np.testing.assert_allclose(x, (c * b + d * y) / (c + d), atol=0.01)
    assert abs(x - y) > 0.1 and abs(x - b) > 0.1


def test_acting_is_greedy_and_the_actor_part_is_enough():
    data = batch()
    agent = make(hparams=HP)
    state = start(agent, data)
    lean = agent.actor(state)
    expected = CENTER + HALF_RANGE * jnp.tanh(MEAN.apply(state.params["policy"], (), data.observation)[1])
    for act in (agent.act, agent.act_greedy):
        for s in (state, lean):
            np.testing.assert_allclose(act(KEY, s, (), data.observation)[1], expected, rtol=1e-5)
    assert agent.act(KEY, state, (), data.observation)[2] == agent.act_greedy(KEY, lean, (), data.observation)[2] == {}
    value = agent.act_greedy(KEY, state, (), data.observation)[2]["value"]
    first = CRITIC.apply(member(state.params["critic"], 0), (), (data.observation, expected))[1]
    np.testing.assert_allclose(value, first, rtol=1e-4)


def test_builders():
    env = toys.clock()._replace(action_space=Box((-2.0, 0.0), (2.0, 1.0), (2,)))
    data = batch(8, dims=(2, 2))
    agents = {name: getattr(actor_critic, f"build_{name}")(env, widths=(8,)) for name in ("td3", "ddpg")}
    states = {name: start(agent, data) for name, agent in agents.items()}
    for name, agent in agents.items():
        jax.eval_shape(agent.update, KEY, states[name], data)
        action = agent.act(KEY, states[name], (), data.observation)[1]
        assert jax.vmap(env.action_space.contains)(action).all()
    assert states["ddpg"].hparams.target_noise == 0.0 and states["td3"].hparams.target_noise > 0.0
    assert states["ddpg"].params["critic"]["head"]["bias"].shape[0] == 1
    with pytest.raises(ValueError, match="td3: the action space is .* needs a bounded Box of floats"):
        actor_critic.build_td3(env._replace(action_space=Discrete(2)))
    with pytest.raises(ValueError, match="td3: observations are images"):
        actor_critic.build_td3(env._replace(observation_space=Box(0, 255, (8, 8, 3), "uint8")))


@pytest.mark.parametrize("name", ["num_critics", "policy_period"])
def test_bad_counts(name):
    with pytest.raises(ValueError, match=f"td3: {name} is 0, must be >= 1"):
        make(**{name: 0})


def test_finitely_many_actions_are_refused():
    policy, _ = toys.actor_and_critic(toys.clock())
    with pytest.raises(ValueError, match="needs a distribution over continuous actions"):
        td3(policy, CRITIC)
