"""Asymmetric actor-critics: policies never see the "privileged" part of an observation, critics see nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl.envs
from jaxrl import networks, online, presets
from jaxrl.agents.td3 import TD3State, td3
from jaxrl.distributions import diagonal_gaussian
from jaxrl.factory import make_agent
from jaxrl.spaces import Box, Dict, Discrete
from jaxrl.tree import find, replace_fields
from jaxrl.types import Env, Transition

KEY = jax.random.key(0)
LINE = Box(-1.0, 1.0, (1,))


def spaces_only(action_space=LINE, *, mask=False, privileged=True):
    """An environment that is never played: what its agents see is drawn by `batch`."""
    space = {"observation": Box(-9.0, 9.0, (3,))}
    space |= {"privileged": Box(-1.0, 1.0, (2,))} if privileged else {}
    space |= {"action_mask": Box(0, 1, (2,), "bool")} if mask else {}
    return Env(None, None, (), Dict(space), action_space)


def batch(env, shape):
    """Transitions whose reward is a sign that only the privileged part shows, and which end there."""
    sign = jax.random.rademacher(KEY, shape, jnp.float32)
    seen = {"observation": jax.random.normal(KEY, (*shape, 3)), "privileged": jnp.stack([sign, -sign], -1)}
    seen |= {"action_mask": jnp.ones((*shape, 2), bool)} if "action_mask" in env.observation_space.spaces else {}
    action = jnp.zeros(shape, jnp.int32) if isinstance(env.action_space, Discrete) else jnp.zeros((*shape, 1))
    return Transition(seen, action, sign, jnp.ones(shape, bool), jnp.zeros(shape, bool), seen)


AGENTS = {
    "ppo": (spaces_only(), {}),
    "recurrent ppo": (spaces_only(), dict(recurrent=True, memory_size=4)),
    "masked ppo": (spaces_only(Discrete(2), mask=True), {}),
    "td3": (spaces_only(), dict(offline=True)),
    "sac": (spaces_only(), dict(offline=True)),
    "iql": (spaces_only(), dict(offline=True)),
    "discrete_sac": (spaces_only(Discrete(2)), dict(offline=True)),
}


@pytest.mark.parametrize("name", AGENTS)
def test_who_sees_what(name):
    """What an actor does depends on its own part alone, a value on the privileged part alone."""
    env, static = AGENTS[name]
    agent, hparams = make_agent(name.split()[-1], env, widths=(4,), **static)
    data = batch(env, (2, 3))
    state = agent.init(KEY, hparams, data)
    seen = jax.tree.map(lambda x: x[0], data.observation)

    @jax.jit
    def play(observation):
        memory = agent.init_memory(KEY, state, observation)
        _, action, greedy = agent.act_greedy(KEY, state, memory, observation)
        memory, sampled, extras = agent.act(KEY, state, memory, observation)
        return (action, sampled, extras.get("log_prob")), (greedy | extras).get("value")

    actions, value = play(seen)
    otherwise = seen | {"privileged": jnp.full((3, 2), jnp.nan)}
    jax.tree.map(np.testing.assert_array_equal, play(otherwise)[0], actions)
    blind = play(seen | {"observation": jnp.full((3, 3), jnp.nan)})
    if isinstance(env.action_space, Box):
        assert np.isnan(blind[0][0]).all()
    if "ppo" in name:
        np.testing.assert_array_equal(blind[1], value)
        assert np.isnan(play(otherwise)[1]).all()


@pytest.mark.parametrize("name", ["td3", "sac"])
def test_critics_learn_from_what_actors_do_not_see(name):
    """The error of the critics vanishes with the privileged part, and stays at the variance without it."""
    left = {}
    for privileged in (True, False):
        env = spaces_only(privileged=privileged)
        data = batch(env, (64,))
        data = data._replace(observation=data.observation | {"observation": jnp.ones((64, 3))})
        agent, hparams = make_agent(name, env, offline=True, widths=(8,))
        hparams = replace_fields(hparams, learning_rate=2e-2)
        update = lambda state, key, agent=agent, data=data: agent.update(key, state, data)  # noqa: E731
        state = agent.init(KEY, hparams, data)
        losses = jax.jit(lambda s, update=update: jax.lax.scan(update, s, jax.random.split(KEY, 150))[1])(state)
        left[privileged] = float(losses["critic_loss"][-1])
    assert left[True] < 0.01 and left[False] > 0.9, left


def test_the_policy_waits_for_its_critics():
    """Until `policy_warm_up_updates` critics and targets learn alone; then the policy does."""
    agent, hparams = make_agent("td3", spaces_only(), offline=True, widths=(4,), policy_period=2)
    data = batch(spaces_only(), (6,))
    state = agent.init(KEY, hparams._replace(policy_warm_up_updates=4.0), data)

    def update(state, key):
        then, _ = agent.update(key, state, data)
        pairs = [(s.params["policy"], s.target_params["critic"], s.params["critic"]) for s in (state, then)]
        moved = [jax.tree.map(lambda a, b: (a != b).any(), a, b) for a, b in zip(*pairs)]
        return then, [jnp.stack(jax.tree.leaves(m)).any() for m in moved]

    policy, target, critic = jax.jit(lambda s: jax.lax.scan(update, s, jax.random.split(KEY, 8))[1])(state)
    np.testing.assert_array_equal(policy, [0, 0, 0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(target, [0, 1, 0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(critic, np.ones(8))


def test_rates_fall_to_nothing():
    """The n-th update has rates of 1 - n / decay_updates; with infinitely many they stay, to the bit."""
    policy, critic = networks.policy(networks.mlp((4,)), diagonal_gaussian((1,))), networks.critic(networks.mlp((4,)))
    policy = policy._replace(network=networks.view(policy.network, lambda x: x["observation"]))
    critic = networks.view(critic, lambda x: jnp.concatenate([x[0]["privileged"], x[1]], -1))
    agent = td3(policy, critic, policy_period=1, optimizer=lambda hp: optax.sgd(hp.learning_rate))
    data = batch(spaces_only(), (6,))

    @jax.jit
    def moves(decay):
        """How far parameters go in each of five updates."""
        state = agent.init(KEY, agent.hparams._replace(decay_updates=decay, learning_rate=0.1), data)

        def update(state, key):
            then, _ = agent.update(KEY, state, data)
            return then, jax.tree.map(lambda a, b: b - a, state.params, then.params)

        return jax.lax.scan(update, state, length=5)[1]

    steady, falling = (jax.tree.leaves(moves(decay)) for decay in (jnp.inf, 4.0))
    for whole, part in zip(steady, falling):
        np.testing.assert_allclose(part[0], 0.75 * whole[0], rtol=1e-3, atol=1e-6)
        np.testing.assert_array_equal(part[3:], np.zeros_like(part[3:]))
    assert all(any(np.any(x[i] != 0) for x in steady) for i in range(5))


def test_the_preset_fits_the_quadrotor():
    """The actor has 18 numbers and 32 actions, the critics 28 numbers and an action, rewards follow the curriculum."""
    env, preset = jaxrl.envs.make("quadrotor/hover"), presets.lookup("td3", "quadrotor/hover")
    agent, hparams = make_agent("td3", env, preset="quadrotor/hover")
    loop = online(agent, env, num_envs=preset["num_envs"], unroll_length=preset["unroll_length"])
    state = jax.eval_shape(loop.init, KEY, hparams)
    params = find(state.agent, TD3State)[0].params
    inputs = {name: {x.shape[-2] for x in jax.tree.leaves(params[name]) if x.ndim >= 2} for name in params}
    assert 18 + 4 * 32 in inputs["policy"] and 28 not in inputs["policy"] and 28 + 4 in inputs["critic"]
    assert 18 + 4 * 32 + 4 not in inputs["critic"]
    assert len(preset["reward_growth"]) == len(env.params.reward_weights) == len(preset["reward_limits"])
