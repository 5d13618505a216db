"""HIQL and OTA: fixed points on a chain, an update by plain loops, what learns from what, goals that are reached."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl import networks
from jaxrl.agents.hiql import HIQLHparams, hiql, length_normalized
from jaxrl.data.goals import goal_view, option_targets, trajectories, with_rows
from jaxrl.distributions import categorical, diagonal_gaussian
from jaxrl.spaces import Box, Dict
from jaxrl.transforms import chain
from jaxrl.types import Env, Policy, TimeStep, Transition

KEY = jax.random.key(0)
S, A, E = 9, 3, 2
HP = HIQLHparams(discount=0.9, expectile=0.7, high_inverse_temperature=2.0, low_inverse_temperature=4.0)


def table(shape, index, scale=0.0):
    """Params of `shape`, normal with deviation `scale`; outputs are their entries at index(inputs)."""
    return networks.feed_forward(
        lambda key, inputs: scale * jax.random.normal(key, shape), lambda params, inputs: params[index(inputs)]
    )


def pair(observation):
    return observation["achieved_goal"], observation["desired_goal"]


def agent_of(scale, own=True, **keywords):
    """Tables: V_i(s, phi) = b_i[s] + w_i[s] phi, phi[s, g] a number. Observations are integers."""

    def value_init(key, inputs):
        return jax.tree.map(lambda k: scale * jax.random.normal(k, (E, S)), dict(zip("bw", jax.random.split(key))))

    def value(params, inputs):
        s, phi = inputs[0]["achieved_goal"], inputs[1][..., 0]
        return params["b"][:, s] + params["w"][:, s] * phi

    high = networks.feed_forward(
        lambda key, o: scale * jax.random.normal(key, (S, S, 2)), lambda params, o: params[pair(o)]
    )
    low = networks.feed_forward(
        lambda key, inputs: scale * jax.random.normal(key, (S, A)),
        lambda params, inputs: params[inputs[0]["achieved_goal"]] * (1 + inputs[1]),
    )
    values = [networks.feed_forward(value_init, value)] * (1 + own)
    representation = table((S, S, 1), pair, scale)
    policies = Policy(high, diagonal_gaussian((1,))), Policy(low, categorical(A))
    return hiql(*policies, representation, *values, project=lambda x: x, **keywords)


def batch(seed, size=30):
    """Random rows with all fields; the last third has weight 0 and goals outside of the tables."""
    rng = np.random.default_rng(seed)
    state = lambda: jnp.asarray(rng.integers(0, S, size), jnp.int32)  # noqa: E731
    seen = lambda: {"achieved_goal": state(), "desired_goal": state()}  # noqa: E731
    flag = lambda: jnp.asarray(rng.random(size) < 0.3)  # noqa: E731
    number = lambda: jnp.asarray(rng.normal(size=size), jnp.float32)  # noqa: E731
    action = jnp.asarray(rng.integers(0, A, size), jnp.int32)

    def rows(extras):
        return Transition(seen(), action, number(), flag(), flag(), seen(), extras)

    there = jnp.asarray(np.arange(size) < 2 * size // 3, jnp.float32)
    option = rows({"weight": there * jnp.asarray(rng.random(size) < 0.7)})
    target = {"achieved_goal": state()}
    data = rows({"subgoal": state(), "high_goal": state(), "high_target": target, "option": option, "weight": there})
    goal = data.observation["desired_goal"]
    same = data.next_observation | {"desired_goal": goal}
    other = option.observation["desired_goal"]
    option = option._replace(next_observation=option.next_observation | {"desired_goal": other})
    return data._replace(next_observation=same, extras=data.extras | {"option": option})


def by_loops(params, target_params, data):
    """The four losses and the advantages in float64, from the formulas."""
    params, target_params, data = jax.tree.map(lambda x: np.asarray(x, np.float64), (params, target_params, data))

    def value(p, name, i, s, g):
        return p[name]["b"][i, int(s)] + p[name]["w"][i, int(s)] * p["representation"][int(s), int(g), 0]

    def mean(name, s, g):
        return np.mean([value(params, name, i, s, g) for i in range(E)])

    def fit(name, rows):
        total, count = 0.0, rows.extras["weight"].sum()
        for b in np.flatnonzero(rows.extras["weight"]):
            s, g, t = (x[b] for x in (*pair(rows.observation), rows.next_observation["achieved_goal"]))
            y = [
                rows.reward[b] + HP.discount * (1 - rows.terminated[b]) * value(target_params, name, i, t, g)
                for i in range(E)
            ]
            lean = HP.expectile if min(y) >= np.mean([value(target_params, name, i, s, g) for i in range(E)]) else 0.3
            total += lean * sum((y[i] - value(params, name, i, s, g)) ** 2 for i in range(E))
        return total / count

    low = high = low_advantage = high_advantage = 0.0
    there = np.flatnonzero(data.extras["weight"])
    for b in there:
        s, t, w = (
            data.observation["achieved_goal"][b],
            data.next_observation["achieved_goal"][b],
            data.extras["subgoal"][b],
        )
        advantage = mean("value", t, w) - mean("value", s, w)
        logits = params["low_policy"][int(s)] * (1 + params["representation"][int(s), int(w), 0])
        log_prob = logits[int(data.action[b])] - np.log(np.exp(logits).sum())
        low -= min(np.exp(HP.low_inverse_temperature * advantage), HP.max_weight) * log_prob / len(there)
        low_advantage += advantage / len(there)
        g, k = data.extras["high_goal"][b], data.extras["high_target"]["achieved_goal"][b]
        advantage = mean("high_value", k, g) - mean("high_value", s, g)
        center, log_std = params["high_policy"][int(s), int(g)]
        z = (params["representation"][int(s), int(k), 0] - center) / np.exp(log_std)
        log_prob = -0.5 * z**2 - log_std - 0.5 * np.log(2 * np.pi)
        high -= min(np.exp(HP.high_inverse_temperature * advantage), HP.max_weight) * log_prob / len(there)
        high_advantage += advantage / len(there)
    return {
        "value_loss": fit("value", data),
        "high_value_loss": fit("high_value", data.extras["option"]),
        "low_policy_loss": low,
        "high_policy_loss": high,
        "low_advantage": low_advantage,
        "high_advantage": high_advantage,
    }


@pytest.fixture(scope="module")
def updated():
    """An agent of random tables, `update` compiled, its state after two updates, and a batch."""
    agent = agent_of(0.4)
    update, first, data = jax.jit(agent.update), batch(1), batch(2)
    state = agent.init(KEY, HP._replace(learning_rate=0.1, target_rate=0.3), first)
    return update, update(KEY, update(KEY, state, first)[0], first)[0], data


def test_losses_against_loops(updated):
    update, state, data = updated
    metrics = update(KEY, state, data)[1]
    expected = by_loops(state.params, state.target_params, data)
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)


def moved(update, state, data, **numbers):
    state = state._replace(hparams=state.hparams._replace(**{k: jnp.float32(v) for k, v in numbers.items()}))
    return update(KEY, state, data)[0].params


def test_what_learns_from_what(updated):
    """Policies leave values and the representation alone; each policy reads the value of its level."""
    update, state, data = updated

    def different(a, b):
        leaves = lambda x: jax.tree.leaves(x)  # noqa: E731
        return {name for name in a if any((x != y).any() for x, y in zip(leaves(a[name]), leaves(b[name])))}

    plain = moved(update, state, data)
    assert different(plain, moved(update, state, data, low_inverse_temperature=0.5)) == {"low_policy"}
    assert different(plain, moved(update, state, data, high_inverse_temperature=0.5)) == {"high_policy"}
    reward = data.extras["option"]._replace(reward=data.extras["option"].reward - 3.0)
    other = moved(update, state, data._replace(extras=data.extras | {"option": reward}))
    assert different(plain, other) == {"high_value", "representation"}
    assert different(plain, moved(update, state, data._replace(reward=data.reward - 3.0))) == {
        "value",
        "representation",
    }


def test_targets_follow_values_and_representation(updated):
    update, state, data = updated
    after = update(KEY, state, data)[0]
    assert after.target_params.keys() == {"representation", "value", "high_value"}
    for name, slow in after.target_params.items():
        expected = jax.tree.map(lambda a, b: 0.3 * a + 0.7 * b, after.params[name], state.target_params[name])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), slow, expected)


def test_without_a_value_of_its_own_the_high_level_reads_the_one():
    agent, data = agent_of(0.4, own=False), batch(2)
    state = agent.init(KEY, HP, data)
    assert state.params.keys() == {"representation", "value", "high_policy", "low_policy"}
    del data.extras["option"]
    metrics = jax.jit(agent.update)(KEY, state, data)[1]
    both = [x | {"high_value": x["value"]} for x in (state.params, state.target_params)]
    rows = data._replace(extras={"weight": data.extras["weight"]})
    expected = by_loops(*both, data._replace(extras=data.extras | {"option": rows}))
    assert expected.pop("high_value_loss") == expected["value_loss"]
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
    with pytest.raises(ValueError, match=r"hiql: the data has no extras \['option'\]"):
        agent_of(0.4).update(KEY, agent_of(0.4).init(KEY, HP, data), data)


def test_fixed_points_on_a_chain():
    """V(s, g) = -(1 - gamma^d) / (1 - gamma) for d steps, V^h the same for the options before the last: exact, so that
    both have the order of the distance."""
    n, count = 3, S
    t, g = (x.astype(np.int32) for x in np.triu_indices(count))
    rows = jnp.arange(count)
    whole = Transition(rows, rows, 0.0 * rows, rows < 0, rows == count - 1, rows + 1)
    shared = trajectories(goal_view(whole, lambda o: o))._replace(state={"achieved_goal": rows})
    seen = lambda s: {"achieved_goal": s, "desired_goal": jnp.asarray(g)}  # noqa: E731
    t, last = jnp.asarray(t), jnp.minimum(jnp.asarray(t) + 1, count - 1)
    extras = {"row": t, "goal_row": jnp.asarray(g), "shared": shared}
    data = Transition(seen(t), 0 * t, (t == g) - 1.0, t == g, t < 0, seen(last), extras)
    transform = chain(option_targets())
    hp = (transform.hparams[0]._replace(option_steps=float(n)),)
    data = transform.apply(KEY, transform.init(KEY, hp, data), data)
    assert data.extras["option"].extras["weight"].all()
    none = {"subgoal": jnp.asarray(g), "high_goal": jnp.asarray(g), "high_target": {"achieved_goal": t}}
    data = data._replace(extras=none | {"option": data.extras["option"]})

    index = lambda inputs: (..., inputs[0]["achieved_goal"], inputs[1][..., 0].astype(int))  # noqa: E731
    values = [table((E, S, S), index)] * 2
    goal = networks.feed_forward(lambda key, o: (), lambda params, o: o["desired_goal"][..., None].astype(jnp.float32))
    high = networks.feed_forward(lambda key, o: jnp.zeros(2), lambda params, o: params + 0.0 * pair(o)[0][..., None])
    low = networks.feed_forward(lambda key, inputs: jnp.zeros(A), lambda params, inputs: params + 0.0 * inputs[1])
    policies = Policy(high, diagonal_gaussian((1,))), Policy(low, categorical(A))
    agent = hiql(*policies, goal, *values, project=lambda x: x, optimizer=lambda hp: optax.sgd(hp.learning_rate))
    hp = HP._replace(learning_rate=0.5 * len(g), target_rate=1.0)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: (agent.update(KEY, s, data)[0], None), state, None, 300)[0])
    params = run(agent.init(KEY, hp, data)).params
    distance = g - np.asarray(t)
    options = np.maximum(-(-distance // n) - 1, 0)
    for name, d in (("value", distance), ("high_value", options)):
        exact = -(1 - HP.discount**d) / (1 - HP.discount)
        for learned in np.asarray(params[name]):
            np.testing.assert_allclose(learned[t, g], exact, atol=1e-5)


def test_representations_have_one_length():
    x = length_normalized(jax.random.normal(KEY, (5, 7)))
    np.testing.assert_allclose(np.sum(np.asarray(x) ** 2, -1), 7.0, rtol=1e-5)


def test_the_low_policy_is_shown_the_sphere():
    """What the high policy says, (3, 4), is projected as representations are: to the length sqrt(2)."""
    parts = [
        networks.feed_forward(lambda key, inputs: (), apply)
        for apply in (
            lambda params, o: jnp.broadcast_to(jnp.array([3.0, 4.0, -9.0, -9.0]), (*o["achieved_goal"].shape, 4)),
            lambda params, inputs: jnp.concatenate([inputs[1], inputs[1] - 9.0], -1),
            lambda params, o: jnp.stack([o["achieved_goal"], o["desired_goal"]], -1).astype(jnp.float32),
            lambda params, inputs: inputs[1].sum(-1)[None],
        )
    ]
    policies = (Policy(network, diagonal_gaussian((2,))) for network in parts[:2])
    agent, data = hiql(*policies, *parts[2:]), batch(1)
    _, action, _ = agent.act_greedy(KEY, agent.init(KEY, HP, data), (), data.observation)
    np.testing.assert_allclose(action, np.tile(np.sqrt(2) * np.array([0.6, 0.8]), (30, 1)), rtol=1e-5)


def line(length=12.0, max_steps=40):
    """A place on a line that actions in [-1, 1] move along; the goal, anywhere, is reached within 0.5."""

    def observe(state):
        return {"observation": state[:1], "achieved_goal": state[:1], "desired_goal": state[1:2]}

    def reset(key, params):
        state = jnp.concatenate([jax.random.uniform(key, (2,), maxval=length), jnp.zeros(1)])
        return state, observe(state)

    def step(key, state, action, params):
        place = jnp.clip(state[0] + jnp.clip(action[0], -1.0, 1.0), 0.0, length)
        state = jnp.stack([place, state[1], state[2] + 1])
        there = jnp.abs(place - state[1]) < 0.5
        return state, TimeStep(observe(state), there.astype(jnp.float32), there, ~there & (state[2] >= max_steps))

    place = Box(0.0, length, (1,))
    space = Dict({"observation": place, "achieved_goal": place, "desired_goal": place})
    return Env(reset, step, (), space, Box(-1.0, 1.0, (1,)))


def walks(count=50, steps=60, length=12.0):
    """Walks that turn around now and then: no one of them goes to a goal on purpose."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(count):
        x, way = rng.uniform(0, length), rng.choice([-1.0, 1.0])
        for i in range(steps):
            way = -way if rng.random() < 0.1 else way
            action = np.clip(0.7 * way + 0.5 * rng.normal(), -1, 1)
            following = np.clip(x + action, 0, length)
            rows.append((x, action, following, i == steps - 1))
            x = following
    x, action, following, last = (np.array(c, np.float32) for c in zip(*rows))
    none = jnp.zeros(len(x), bool)
    data = Transition(x[:, None], action[:, None], 0 * x, none, last > 0, following[:, None])
    return with_rows(goal_view(jax.tree.map(jnp.asarray, data), lambda o: o))


def test_goals_are_reached():
    """OTA walks to goals, by `evaluate`; values at acting are higher near the goal."""
    env, data = line(), walks()
    agent, hparams = jaxrl.make_agent("ota", env, offline=True, widths=(16, 16), representation_size=4)
    numbers = dict(learning_rate=3e-3, subgoal_steps=4.0, option_steps=3.0, target_rate=0.02, discount=0.95)
    hparams = jaxrl.tree.replace_fields(hparams, **numbers)

    @jax.jit
    def train(data):
        loop = jaxrl.offline(agent, data, batch_size=128, shared=trajectories(data))
        first = loop.init(KEY, hparams)
        state, metrics = jaxrl.run(loop, first, 600)
        before, after = (
            jaxrl.evaluate(KEY, agent, s.agent, env, num_episodes=64).returns.mean() for s in (first, state)
        )
        places = jnp.linspace(0.5, 11.5, 12)[:, None]
        observation = {"observation": places, "achieved_goal": places, "desired_goal": jnp.full_like(places, 0.5)}
        value = agent.act_greedy(KEY, state.agent, (), observation)[2]["value"]
        return before, after, value, metrics

    before, after, value, metrics = train(data)
    assert before < 0.5 and after > 0.9, (before, after)
    assert np.corrcoef(value, np.arange(12))[0, 1] < -0.9
    assert all(np.isfinite(x).all() for x in metrics.values())
