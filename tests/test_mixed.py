"""Value decomposition: what a team is, additivity, monotonicity, and the two-step game that only QMIX solves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl import action_values, networks
from jaxrl.action_values import additive, mixed, monotonic
from jaxrl.agents.dqn import DQNHparams, dqn
from jaxrl.combinators.multi_agent import as_team, team_env
from jaxrl.factory.joint import build_mixed_dqn
from jaxrl.factory.multi_agent import for_team
from jaxrl.spaces import Box, Discrete, Repeated
from jaxrl.tree import replace_fields
from jaxrl.types import Transition

KEY = jax.random.key(0)
A, N = 3, 2  # agents, actions


def rows(num, key=KEY):
    """Random rows [B] of three agents who see two numbers each."""
    keys = jax.random.split(key, 6)
    seen, then = (jax.random.normal(k, (num, A, 2)) for k in keys[:2])
    action = jax.random.randint(keys[2], (num, A), 0, N)
    reward = jax.random.normal(keys[3], (num, A))
    terminated = jax.random.bernoulli(keys[4], 0.3, (num, A))
    weight = jax.random.bernoulli(keys[5], 0.7, (num, A)).astype(jnp.float32).at[:, 0].set(1.0)
    return Transition(seen, action, reward, terminated, jnp.zeros_like(terminated), then, {"weight": weight})


def own(observation):
    return observation["observation"]


def values_of(mixer):
    return mixed(action_values.scalar(networks.view(networks.mlp((8,)), own), N), mixer)


def qmix():
    return values_of(monotonic(lambda x: own(x).reshape(*own(x).shape[:-2], -1), A, size=4))


def shown(data, alive):
    return {"observation": data.observation, "alive": alive}


def test_what_a_team_is():
    """By hand: rewards, ends, weights and who is alive."""
    kept = []
    inner = jaxrl.types.Agent(None, None, None, None, lambda key, state, data: (kept.append(data), (state, {}))[1])
    last, cut, there = (
        jnp.array(x)
        for x in (
            [[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0], [1, 0, 0]],  # terminated
            [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]],  # truncated
            [[1, 1, 1], [1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 1, 1]],  # there
        )
    )
    reward = jnp.arange(15.0).reshape(5, 3)
    data = Transition(jnp.zeros((5, 3, 2)), jnp.zeros((5, 3), int), reward, last > 0, cut > 0, jnp.zeros((5, 3, 2)))
    data = data._replace(extras={"weight": there.astype(jnp.float32), "num_steps": jnp.array([1, 2, 1, 3, 1])})
    for kind in ("mean", "sum"):
        as_team(inner, 3, team_reward=kind).update(KEY, (), data)
    mean, total = kept
    np.testing.assert_allclose(mean.reward, [1.0, 4.0, 7.5, 11.0, 13.5])
    np.testing.assert_allclose(total.reward, [3.0, 12.0, 15.0, 11.0, 27.0])
    np.testing.assert_array_equal(mean.terminated, [False, False, True, False, False])
    np.testing.assert_array_equal(mean.truncated, [False, False, False, True, True])
    np.testing.assert_array_equal(mean.extras["weight"], np.ones(5))
    np.testing.assert_array_equal(mean.extras["num_steps"], [1, 2, 1, 3, 1])
    np.testing.assert_array_equal(mean.observation["alive"], there)
    np.testing.assert_array_equal(mean.next_observation["alive"], there * (1 - last))


def test_additive_is_the_sum_over_those_who_are_alive():
    values, data = values_of(additive()), rows(16)
    alive = data.extras["weight"]

    @jax.jit
    def both(key):
        params = values.init(key, shown(data, alive))
        outputs = values.apply(None, params, (), shown(data, alive))[1]
        return values.mean(outputs), values.select(outputs, data.action)

    q, total = map(np.asarray, both(KEY))
    chosen = np.take_along_axis(q, np.asarray(data.action)[..., None], -1)[..., 0]
    np.testing.assert_allclose(total, (chosen * np.asarray(alive)).sum(-1), rtol=1e-5)


def test_monotonic_against_its_equation():
    """Q_tot = |w_2| . elu(|W_1| Q + b_1) + b_2 in NumPy; it never falls where a value grows; greedy in Q_tot is greedy
    in each, by enumeration; who is out counts as a value of 0."""
    values, data = qmix(), rows(64)
    joint = np.array(list(itertools.product(range(N), repeat=A)))  # [8, A]

    @jax.jit
    def everything(key):
        params = values.init(key, shown(data, jnp.ones((64, A))))
        outputs = values.apply(None, params, (), shown(data, jnp.ones((64, A))))[1]
        out = values.apply(None, params, (), shown(data, data.extras["weight"]))[1]
        mix = monotonic(lambda x: own(x).reshape(64, -1), A, size=4).mix
        slope = jax.vmap(jax.grad(lambda q, w: mix(w, q)))(data.reward, outputs.weights)
        all_joint = jax.vmap(lambda a: values.select(outputs, jnp.broadcast_to(a, (64, A))))(jnp.asarray(joint))
        return params, values.mean(outputs), all_joint, slope, values.select(out, data.action)

    params, q, totals, slope, some_out = jax.tree.map(np.asarray, everything(KEY))
    mixer, state = params["mixer"], np.asarray(data.observation).reshape(64, -1)

    def layer(name, x):
        return x @ mixer[name]["kernel"] + mixer[name]["bias"]

    def total(chosen):
        hidden = np.einsum("ba,bae->be", chosen, np.abs(layer("first", state)).reshape(64, A, 4))
        hidden = hidden + layer("first_bias", state)
        hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
        bias = layer("second_bias", np.maximum(layer("hidden", state), 0))[:, 0]
        return (hidden * np.abs(layer("second", state))).sum(-1) + bias

    for actions, got in zip(joint, totals):
        np.testing.assert_allclose(got, total(q[:, range(A), actions]), rtol=1e-4, atol=1e-5)
    taken = np.take_along_axis(q, np.asarray(data.action)[..., None], -1)[..., 0]
    np.testing.assert_allclose(some_out, total(taken * np.asarray(data.extras["weight"])), rtol=1e-4, atol=1e-5)
    assert (slope >= 0).all() and (slope > 0).mean() > 0.9
    np.testing.assert_array_equal(joint[totals.argmax(0)], q.argmax(-1))


@pytest.mark.parametrize("make", [lambda: values_of(additive()), qmix], ids=["vdn", "qmix"])
def test_the_td_error_is_the_teams(make):
    """The loss of an update, from the values of each agent and plain loops."""
    values, data = make(), rows(8)
    agent = as_team(dqn(values, hparams=DQNHparams(discount=0.9)), A)
    alive = np.asarray(data.extras["weight"])
    alive_then = alive * (1 - np.asarray(data.terminated))

    @jax.jit
    def learn(key):
        state = agent.init(key, agent.hparams, data)
        before = values.apply(None, state.params["values"], (), shown(data, alive))[1]
        then = {"observation": data.next_observation, "alive": jnp.asarray(alive_then)}
        after = values.apply(None, state.target_params, (), then)[1]
        greedy = jnp.argmax(values.mean(after), -1)
        both = values.select(before, data.action), values.select(after, greedy)
        return both, agent.update(key, state, data)[1]

    (now, after), metrics = jax.tree.map(np.asarray, learn(KEY))
    losses = []
    for b in range(8):
        there = alive[b] > 0
        reward = np.asarray(data.reward)[b][there].mean()
        over = (np.asarray(data.terminated)[b] | ~there).all()
        target = reward + (0.0 if over else 0.9 * after[b])
        losses.append(0.5 * (now[b] - target) ** 2)
    np.testing.assert_allclose(metrics["value_loss"], np.mean(losses), rtol=1e-4)


def two_step_game():
    """All 12 rows of the game in section 5.1 of the QMIX paper, and the spaces of its two agents.

    The first agent chooses one of two matrix games: in one every joint action pays 7, in the other 0, 1, 1 or 8.
    """
    pays = {1: np.full((2, 2), 7.0), 2: np.array([[0.0, 1.0], [1.0, 8.0]])}
    found = []
    for first, second in itertools.product(range(2), repeat=2):
        found.append((0, (first, second), 0.0, False, 1 + first))
        found += [(state, (first, second), pays[state][first, second], True, state) for state in (1, 2)]
    states, actions, rewards, ends, after = map(np.array, zip(*found))
    see = lambda state: jnp.repeat(jax.nn.one_hot(state, 3)[:, None], 2, 1)  # noqa: E731
    pair = lambda x: jnp.stack([jnp.asarray(x)] * 2, -1)  # noqa: E731
    data = Transition(
        see(states), jnp.asarray(actions), pair(rewards).astype(jnp.float32), pair(ends), pair(ends & 0), see(after)
    )
    data = data._replace(truncated=jnp.zeros_like(data.terminated))
    env = toys.crowd()._replace(
        observation_space=Repeated(Box(0.0, 1.0, (3,)), 2), action_space=Repeated(Discrete(2), 2)
    )
    return env, data


@pytest.mark.slow
def test_the_two_step_game():
    """QMIX represents the 8 behind the riskier first choice and takes it; VDN cannot, and takes the sure 7."""
    env, data = two_step_game()
    found = {}
    for mixer in ("additive", "monotonic"):
        agent = for_team(build_mixed_dqn(team_env(env), widths=(32,), mixer=mixer, mixing_size=8, identify=True), env)
        hparams = replace_fields(agent.hparams, learning_rate=3e-3, target_rate=0.05, discount=0.99)
        loop = jaxrl.offline(agent, data, batch_size=32)

        def train(key, loop=loop, agent=agent, hparams=hparams):
            state, _ = jaxrl.run(loop, loop.init(key, hparams), 3000)
            see = jnp.broadcast_to(jnp.eye(3)[:, None], (3, 2, 3))
            return agent.act_greedy(key, state.agent, (), see)[1]

        found[mixer] = np.asarray(jax.jit(jax.vmap(train))(jax.random.split(KEY, 4)))  # [S, state, agent]
    assert (found["additive"][:, 0, 0] == 0).all(), "VDN goes for the sure 7"
    assert (found["monotonic"][:, 0, 0] == 1).all() and (found["monotonic"][:, 2] == 1).all(), "QMIX gets the 8"


def test_bad_arguments_end_in_a_line():
    with pytest.raises(ValueError, match="as_team: num_agents is 1, must be >= 2"):
        as_team(jaxrl.make_agent("dqn", toys.clock(), offline=True)[0], 1)
    with pytest.raises(ValueError, match="team_reward is 'max', allowed: 'mean', 'sum'"):
        as_team(jaxrl.make_agent("dqn", toys.clock(), offline=True)[0], 2, team_reward="max")
    with pytest.raises(ValueError, match="qmix needs agents that are alike"):
        jaxrl.make_agent("qmix", toys.clock())
    with pytest.raises(ValueError, match="mixer is 'max', allowed: 'additive', 'monotonic'"):
        jaxrl.make_agent("qmix", toys.crowd(), mixer="max")
    with pytest.raises(ValueError, match="monotonic: size is 0, must be >= 1"):
        jaxrl.make_agent("qmix", toys.crowd(), mixing_size=0)
