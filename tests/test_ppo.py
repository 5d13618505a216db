"""PPO against a plain reference of one update, the diagnostic environments, and its own promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import probing
import pytest
import toys

import jaxrl
from jaxrl import networks
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.distributions import for_space
from jaxrl.envs import diagnostic
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.spaces import Box, Discrete

KEY = jax.random.key(0)


def collect(env, agent, hparams, num_envs=4, length=10):
    state = agent.init(KEY, hparams, example_data(env, num_envs, length))
    now = start(KEY, agent, state, env, env.params, num_envs)
    _, data, _ = jax.jit(lambda: rollout(KEY, agent, state, env, now, length))()
    return state, data


def random_data(data, seed=0):
    """The rollout's structure with random rewards and ends, so that nothing cancels."""
    rng = np.random.default_rng(seed)
    terminated, truncated = rng.random((2, *data.reward.shape)) < 0.25
    reward = jnp.asarray(rng.normal(size=data.reward.shape), jnp.float32)
    return data._replace(reward=reward, terminated=jnp.array(terminated), truncated=jnp.array(truncated & ~terminated))


def reference_loss(params, policy, critic, data, hp, recurrent):
    """PPO's loss over a whole rollout by plain loops, row by row, from its definition in the paper."""
    num_steps, num_envs = data.reward.shape
    network, distribution = policy.network, policy.distribution
    advantages = np.zeros((num_steps, num_envs))
    initial = {"policy": network.init_memory, "critic": critic.init_memory}
    starts = {}
    for n in range(num_envs):  # advantages, under the parameters that acted
        acting = jax.lax.stop_gradient(params)
        memory = jax.tree.map(lambda x: x[0, n], data.extras["memory"][1]) if recurrent else ()
        values, next_values = [], []
        for t in range(num_steps):
            if t and (data.terminated[t - 1, n] or data.truncated[t - 1, n]):
                memory = initial["critic"](acting["critic"], data.observation[t, n])
            memory, value = critic.apply(acting["critic"], memory, data.observation[t, n])
            values.append(float(value))
            next_values.append(float(critic.apply(acting["critic"], memory, data.next_observation[t, n])[1]))
        starts[n] = values
        for t in range(num_steps):  # GAE from its definition: a sum to the end of the episode
            factor = 1.0
            for k in range(t, num_steps):
                ended, over = bool(data.terminated[k, n]), bool(data.terminated[k, n] | data.truncated[k, n])
                bootstrap = 0.0 if ended else hp.discount * next_values[k]
                advantages[t, n] += factor * (float(data.reward[k, n]) + bootstrap - values[k])
                factor *= hp.discount * hp.lambda_
                if over:
                    break
    targets = advantages + np.array([starts[n] for n in range(num_envs)]).T
    normal = (advantages - advantages.mean()) / np.sqrt(advantages.var() + 1e-8)
    total = 0.0
    for n in range(num_envs):
        memories = jax.tree.map(lambda x: x[0, n], data.extras["memory"]) if recurrent else ((), ())
        memories = dict(zip(("policy", "critic"), memories))
        for t in range(num_steps):
            if t and (data.terminated[t - 1, n] or data.truncated[t - 1, n]):
                memories = {k: initial[k](params[k], data.observation[t, n]) for k in memories}
            observation = data.observation[t, n]
            memories["policy"], outputs = network.apply(params["policy"], memories["policy"], observation)
            memories["critic"], value = critic.apply(params["critic"], memories["critic"], observation)
            ratio = jnp.exp(
                distribution.log_prob(outputs, data.extras["raw_action"][t, n]) - data.extras["log_prob"][t, n]
            )
            gain = jnp.minimum(ratio * normal[t, n], jnp.clip(ratio, 1 - hp.clip, 1 + hp.clip) * normal[t, n])
            total += -gain + hp.value_coefficient * 0.5 * (value - targets[t, n]) ** 2
            total -= hp.entropy_coefficient * distribution.entropy(outputs)
    return total / (num_steps * num_envs)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("action_space", [Discrete(3), Box(-1.0, 1.0, (2,))], ids=["discrete", "continuous"])
def test_one_update_against_a_reference(recurrent, action_space):
    """One gradient step on one rollout equals the step on a loss written with loops, at parameters that have moved."""
    env = toys.clock(4)._replace(action_space=action_space)
    policy, critic = toys.actor_and_critic(env, recurrent=recurrent, width=4)
    hp = PPOHparams(discount=0.9, lambda_=0.8, entropy_coefficient=0.05, clip=0.1, learning_rate=1.0)
    agent = ppo(policy, critic, num_epochs=1, num_minibatches=1, optimizer=lambda hp: optax.sgd(hp.learning_rate))
    state, data = collect(env, agent, hp, num_envs=2, length=6)
    data = random_data(data)
    if recurrent:  # as the rollout would have recorded it: only the first row is read as memory to start from
        data = data._replace(extras=data.extras | {"memory": remembered(state, policy, critic, data)})
    data = data._replace(extras=data.extras | {"value": values_of(state, critic, data, recurrent)})
    moved = data._replace(extras=data.extras | {"log_prob": data.extras["log_prob"] + 0.15})  # ratios leave the clip
    gradient = jax.grad(reference_loss)(state.params, policy, critic, moved, hp, recurrent)
    after, _ = jax.jit(agent.update)(KEY, state, moved)
    step = jax.tree.map(lambda old, new: old - new, state.params, after.params)
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient))
    for ours, exact in zip(jax.tree.leaves(step), jax.tree.leaves(gradient)):
        np.testing.assert_allclose(ours, exact, atol=2e-5 * scale)


def remembered(state, policy, critic, data):
    """Memory before each step [T, N] of both networks, with the ends of `data`."""
    networks_ = (("policy", policy.network), ("critic", critic))
    memory = jax.tree.map(lambda x: x[0], data.extras["memory"])
    rows = []
    for t in range(data.reward.shape[0]):
        if t:
            last = data.terminated[t - 1] | data.truncated[t - 1]
            fresh = tuple(net.init_memory(state.params[k], data.observation[t]) for k, net in networks_)
            memory = jaxrl.tree.select(last, fresh, memory)
        rows.append(memory)
        memory = tuple(net.apply(state.params[k], m, data.observation[t])[0] for (k, net), m in zip(networks_, memory))
    return jax.tree.map(lambda *xs: jnp.stack(xs), *rows)


def values_of(state, critic, data, recurrent):
    memory = data.extras["memory"][1] if recurrent else ()
    return critic.apply(state.params["critic"], memory, data.observation)[1]


def make_ppo(recurrent):
    def make(env):
        policy, critic = toys.actor_and_critic(env, recurrent=recurrent, width=16)
        agent = ppo(policy, critic, num_epochs=4, num_minibatches=4)
        return agent, PPOHparams(learning_rate=5e-3, discount=probing.DISCOUNT, entropy_coefficient=0.0, lambda_=0.9)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("recurrent", [False, True], ids=["feed_forward", "recurrent"])
@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_diagnostic_environments(continuous, recurrent):
    """Values within 0.1 of the exact ones, the right action with probability above 0.95, on each of 4 seeds."""
    for name, result in probing.learn(make_ppo(recurrent), continuous).items():
        if name == "memory" and not recurrent:
            assert (result.reward < 0.3).all(), f"{name}: {result.reward} without memory"
            continue
        error = np.abs(result.values - result.exact)
        assert (error < 0.1).all(), f"{name}: values off by {error.max(axis=1)}"
        assert (result.right > 0.95).all(), f"{name}: right with probability {result.right}"


@pytest.mark.parametrize("name", ["masked_action_reward", "multi_discrete_action_reward"])
def test_masked_and_multi_discrete(name):
    """Illegal actions are never taken and do not enter the value; entries of a vector are learned apart."""
    env = getattr(diagnostic, name)()
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(16,))
    hparams = hparams._replace(learning_rate=1e-2, entropy_coefficient=0.0)
    loop = jaxrl.online(agent, env, num_envs=32, unroll_length=8)
    state, _ = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY, hparams), 100))()
    result = jaxrl.evaluate(KEY, agent, state.agent, env, num_episodes=64, greedy=False)
    best = 1.0 if name.startswith("multi") else None
    if best:
        assert result.returns.mean() > 0.95
        return
    _, data = collect(env, agent, state.agent.hparams, num_envs=64, length=2)
    legal = jnp.take_along_axis(data.observation["action_mask"], data.action[..., None], -1)
    assert legal.all()
    plus = {"observation": jnp.ones((1, 1)), "action_mask": jnp.ones((1, 3), bool)}
    minus = {"observation": -jnp.ones((1, 1)), "action_mask": jnp.array([[True, True, False]])}
    for observation, action, value in ((plus, 2, 1.0), (minus, 1, 0.5)):
        _, chosen, extras = agent.act_greedy(KEY, state.agent, ((), ()), observation)
        assert chosen[0] == action
        np.testing.assert_allclose(extras["value"], value, atol=0.1)


def test_kl_early_stop_and_decay():
    env = toys.clock(4)
    policy, critic = toys.actor_and_critic(env)
    hp = PPOHparams(learning_rate=0.1, target_kl=-1.0, decay_steps=80.0)
    agent = ppo(policy, critic, kl_early_stop=True)
    state, data = collect(env, agent, hp, num_envs=4, length=10)
    update = jax.jit(agent.update)
    after, metrics = update(KEY, state, random_data(data))
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)  # every minibatch is over a target of -1
    np.testing.assert_allclose(metrics["learning_rate"], 0.1)
    free = state._replace(hparams=state.hparams._replace(target_kl=jnp.float32(jnp.inf)))
    after, _ = update(KEY, free, random_data(data))
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(state.params)))
    _, metrics = update(KEY, after, random_data(data))
    np.testing.assert_allclose(metrics["learning_rate"], 0.05, rtol=1e-6)
    frozen, metrics = update(KEY, after._replace(num_updates=jnp.int32(2)), random_data(data))
    jax.tree.map(np.testing.assert_array_equal, frozen.params, after.params)
    assert metrics["learning_rate"] == 0


def test_agents_share_parameters_along_a_further_axis():
    """Feed-forward PPO takes [T, N, A] data as it is; rows of agents that are out change nothing (poison test)."""
    env = toys.two_players((2, 4))
    env = env._replace(action_space=Box(-1.0, 1.0, (2,)))
    policy = networks.policy(networks.mlp((8,)), for_space(Box(-1.0, 1.0, ())))
    agent = ppo(policy, networks.critic(networks.mlp((8,))), num_epochs=1, num_minibatches=1)
    state, data = collect(env, agent, PPOHparams(), num_envs=4, length=8)
    assert data.action.shape == data.reward.shape == (8, 4, 2)
    out = data.extras["weight"] == 0
    assert out.any()
    poisoned = data._replace(
        reward=jnp.where(out, 1e6, data.reward), observation=jnp.where(out[..., None], 1e3, data.observation)
    )
    update = jax.jit(agent.update)
    clean, poison = update(KEY, state, data)[0], update(KEY, state, poisoned)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), clean.params, poison.params)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_epochs=0), "num_epochs is 0, must be >= 1"),
        (dict(num_minibatches=-1), "num_minibatches is -1"),
        (dict(normalize_advantage="yes"), "normalize_advantage is 'yes', allowed"),
    ],
)
def test_bad_arguments(arguments, message):
    policy, critic = toys.actor_and_critic(toys.clock())
    with pytest.raises(ValueError, match=message):
        ppo(policy, critic, **arguments)


def test_rows_that_do_not_divide():
    env = toys.clock()
    policy, critic = toys.actor_and_critic(env)
    agent = ppo(policy, critic, num_minibatches=3)
    state, data = collect(env, agent, PPOHparams(), num_envs=4, length=10)
    with pytest.raises(ValueError, match="num_minibatches is 3, must divide the 40 rows"):
        agent.update(KEY, state, data)
