"""Skill models against hand computations and fixed points, and what `with_skills` shows, draws, rewards and keeps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys

import jaxrl
from jaxrl import buffers, key_reuse, networks
from jaxrl.agents.ppo import ppo
from jaxrl.combinators.frozen import decoder, frozen
from jaxrl.combinators.skills import WithSkillsState, choose_skills, join, joined_space, with_skills
from jaxrl.envs.latent_action import latent_action
from jaxrl.envs.transforms import repeat_action
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.networks import feed_forward
from jaxrl.rewards import SkillModel, diayn, metra, one_hot, sphere
from jaxrl.rewards.diayn import DIAYNHparams
from jaxrl.rewards.metra import METRAHparams
from jaxrl.spaces import Box, Dict, Discrete
from jaxrl.types import Agent, Transition, no_memory

KEY = jax.random.key(0)
WEIGHTS = np.array([[0.5, -1.0], [2.0, 0.25], [0.0, 1.5]], np.float32)


def linear(weights):
    """observation @ weights, weights the only parameter."""
    return feed_forward(lambda key, observation: jnp.array(weights, jnp.float32), lambda w, x: x @ w)


def sgd(hp):
    return optax.sgd(hp.learning_rate)


def rows(observation, next_observation, skill, **extras):
    n = len(observation)
    none = jnp.zeros(n, bool)
    arrays = (jnp.asarray(x, jnp.float32) for x in (observation, next_observation, skill))
    observation, next_observation, skill = arrays
    extras = {"skill": skill, **extras}
    return Transition(observation, jnp.zeros(n, jnp.int32), jnp.zeros(n), none, none, next_observation, extras)


def batch(size=5, num=2, seed=0, **extras):
    rng = np.random.default_rng(seed)
    skill = np.eye(num)[rng.integers(num, size=size)]
    return rows(rng.normal(size=(size, 3)), rng.normal(size=(size, 3)), skill, **extras)


# Models ------------------------------------------------------------------------------------------------------------


def test_rewards_by_hand():
    data = batch()
    step = (np.asarray(data.next_observation) - np.asarray(data.observation)) @ WEIGHTS
    skill = np.asarray(data.extras["skill"])
    logits = np.asarray(data.next_observation) @ WEIGHTS
    chosen = np.sum(skill * (logits - np.log(np.exp(logits).sum(-1, keepdims=True))), -1)
    expected = {
        "directions": (metra(linear(WEIGHTS), sphere(2)), np.sum(step * skill, -1)),
        # Of two skills, the centered directions are (1, -1) and (-1, 1).
        "skills": (metra(linear(WEIGHTS), one_hot(2)), np.sum(step * (2 * skill - 1), -1)),
        "diayn": (diayn(linear(WEIGHTS), 2), chosen + np.log(2)),
    }
    for name, (model, reward) in expected.items():
        state = model.init(KEY, model.hparams, data)
        np.testing.assert_allclose(model.reward(state, data), reward, rtol=2e-5, err_msg=name)
    centered = one_hot(4).direction(jnp.eye(4)[1])
    np.testing.assert_allclose(centered, [-1 / 3, 1, -1 / 3, -1 / 3], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 10.0], ids=["room", "violated"])
def test_a_step_of_metra_by_hand(scale):
    """Gradient ascent on reward + lambda min(eps, 1 - |step|^2); log lambda goes down by its rate times the room."""
    data, weights = batch(), scale * WEIGHTS
    numbers = METRAHparams(skill_learning_rate=0.1, multiplier_learning_rate=0.5, initial_multiplier=3.0, slack=0.01)
    model = metra(linear(weights), sphere(2), optimizer=sgd, hparams=numbers)
    state, metrics = jax.jit(model.update)(KEY, model.init(KEY, numbers, data), data)
    change = np.asarray(data.next_observation - data.observation)
    step, skill = change @ weights, np.asarray(data.extras["skill"])
    free = 1 - np.sum(step**2, -1)
    slope = skill - 3.0 * np.where(free < 0.01, 2.0, 0.0)[:, None] * step  # of the objective, with respect to a step
    np.testing.assert_allclose(state.params["phi"], weights + 0.1 * change.T @ slope / 5, rtol=1e-4)
    room = np.minimum(free, 0.01).mean()
    np.testing.assert_allclose(state.params["log_multiplier"], np.log(3.0) - 0.5 * room, rtol=1e-4)
    assert (room > 0) == (scale < 1)
    np.testing.assert_allclose([metrics["room"], metrics["multiplier"]], [room, 3.0], rtol=1e-4)


def test_a_step_of_diayn_by_hand():
    data, numbers = batch(num=2), DIAYNHparams(skill_learning_rate=0.1)
    model = diayn(linear(WEIGHTS), 2, optimizer=sgd, hparams=numbers)
    state, metrics = jax.jit(model.update)(KEY, model.init(KEY, numbers, data), data)
    seen, skill = np.asarray(data.next_observation), np.asarray(data.extras["skill"])
    q = np.exp(seen @ WEIGHTS) / np.exp(seen @ WEIGHTS).sum(-1, keepdims=True)
    np.testing.assert_allclose(state.params, WEIGHTS + 0.1 * seen.T @ (skill - q) / 5, rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(q.argmax(-1) == skill.argmax(-1)), rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], -np.mean(np.log(np.sum(q * skill, -1))), rtol=1e-4)


def test_phi_of_a_chain_is_the_distance():
    """Skills that walk along a chain: the fixed point is |phi(i) - phi(j)| = |i - j|, for any lambda above 1 / 2."""
    n = 6
    here = np.r_[np.arange(n - 1), np.arange(1, n)]
    there, skill = np.r_[np.arange(1, n), np.arange(n - 1)], np.r_[np.ones(n - 1), -np.ones(n - 1)]
    data = rows(np.eye(n)[here], np.eye(n)[there], skill[:, None])
    numbers = METRAHparams(skill_learning_rate=0.02, multiplier_learning_rate=0.02, initial_multiplier=5.0)
    model = metra(linear(0.1 * np.random.default_rng(0).normal(size=(n, 1))), sphere(1), hparams=numbers)

    @jax.jit
    def learn():
        state = model.init(KEY, numbers, data)
        return jax.lax.scan(lambda s, _: (model.update(KEY, s, data)[0], None), state, length=3000)[0]

    params = learn().params
    phi = np.asarray(params["phi"])[:, 0]
    np.testing.assert_allclose(np.abs(phi[:, None] - phi), np.abs(np.arange(n)[:, None] - np.arange(n)), atol=0.06)
    assert jnp.exp(params["log_multiplier"]) > 0.5


def test_skills_of_goals():
    data = batch()
    model = metra(linear(WEIGHTS), sphere(2))
    state = model.init(KEY, model.hparams, data)
    way = np.asarray(data.next_observation - data.observation) @ WEIGHTS
    skill = model.toward(model.actor(state), data.observation, data.next_observation)
    np.testing.assert_allclose(skill, way / np.linalg.norm(way, axis=-1, keepdims=True), rtol=1e-4)
    assert np.isfinite(model.toward(state, data.observation, data.observation)).all()  # there already
    finite = metra(linear(WEIGHTS), one_hot(2))
    skill = finite.toward(state, data.observation, data.next_observation)
    np.testing.assert_array_equal(skill, np.eye(2)[way.argmax(-1)])
    classes = diayn(linear(WEIGHTS), 2)
    skill = classes.toward(classes.init(KEY, classes.hparams, data), data.observation, data.next_observation)
    np.testing.assert_array_equal(skill, np.eye(2)[(np.asarray(data.next_observation) @ WEIGHTS).argmax(-1)])


def test_priors():
    unit = sphere(3).sample(KEY, 4000)
    np.testing.assert_allclose(jnp.sum(unit**2, -1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(unit.mean(0), 0.0, atol=0.05)
    ends = sphere(1).sample(KEY, 50)
    np.testing.assert_allclose(jnp.abs(ends), 1.0, rtol=1e-6)
    assert ends.min() < 0 < ends.max()
    drawn = one_hot(4).sample(KEY, 4000)
    assert set(np.asarray(drawn.sum(-1))) == {1.0}
    np.testing.assert_allclose(drawn.mean(0), 0.25, atol=0.03)
    assert one_hot(4).space.contains(drawn[0]) and sphere(3).space.contains(unit[0])


@pytest.mark.parametrize("name", ["metra", "diayn"])
def test_rows_of_weight_zero_teach_nothing(name):
    model = {"metra": metra(linear(WEIGHTS), sphere(2)), "diayn": diayn(linear(WEIGHTS), 2)}[name]
    real = batch(size=4, weight=jnp.ones(4))
    junk = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if x.dtype == jnp.float32 else x, real)
    junk = junk._replace(extras=junk.extras | {"weight": jnp.zeros(4)})
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), real, junk)
    state = model.init(KEY, model.hparams, real)
    clean, dirty = (jax.jit(model.update)(KEY, state, data) for data in (real, both))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), clean, dirty)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(clean[0])))


# The combinator ----------------------------------------------------------------------------------------------------


class SpyState(NamedTuple):
    hparams: tuple
    observation: dict
    next_observation: dict
    reward: jax.Array
    key: jax.Array


def spy():
    """Keeps what it was last shown by `update`. Actions are zeros."""

    def shown(key, data):
        return SpyState((), data.observation, data.next_observation, data.reward, jax.random.key_data(key))

    def act(key, state, memory, observation):
        return memory, jnp.zeros(observation["skill"].shape[0], jnp.int32), {}

    return Agent(
        lambda key, hparams, example: shown(key, example),
        no_memory,
        act,
        act,
        lambda key, state, data: (shown(key, data), {}),
    )


def test_a_skill_lasts_for_an_episode():
    env, model = toys.clock(3), metra(networks.sequential(networks.mlp((4,)), networks.dense(2)), sphere(2))
    agent = with_skills(spy(), model)

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, 3, 8))
        now, data, _ = rollout(key, agent, state, env, start(key, agent, state, env, env.params, 3), 8)
        after, metrics = agent.update(key, agent.observe(key, state, data)[0], data)
        return data, after, metrics, model.reward(after.model, data)

    data, after, metrics, reward = play(KEY)
    skill = np.asarray(data.extras["skill"])
    np.testing.assert_allclose(np.sum(skill**2, -1), 1.0, rtol=1e-5)
    for first in (0, 3, 6):  # clocks of three steps
        np.testing.assert_array_equal(
            skill[first : first + 3], np.broadcast_to(skill[first], skill[first : first + 3].shape)
        )
    assert len(np.unique(np.round(skill, 5).reshape(-1, 2), axis=0)) == 9  # 3 environments, 3 episodes
    seen = after.agent
    for observation, shown in ((data.observation, seen.observation), (data.next_observation, seen.next_observation)):
        np.testing.assert_array_equal(shown["observation"], observation)
        np.testing.assert_array_equal(shown["skill"], skill)
    np.testing.assert_allclose(seen.reward, reward, rtol=1e-5)  # of the model as it is after its update
    np.testing.assert_array_equal(seen.key, jax.random.key_data(KEY))  # the caller's, untouched
    assert {"skill/loss", "skill/multiplier"} <= metrics.keys()


def test_stored_steps_have_the_reward_of_today():
    """Under replay the model learns from each batch, and rewards that batch as it then is; stored rewards stay."""
    env, model = toys.clock(3), diayn(networks.sequential(networks.mlp((4,)), networks.dense(3)), 3)
    agent = jaxrl.with_replay(with_skills(spy(), model, num_model_updates=2), buffers.replay(64, 5, min_size=1))
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=4)

    @jax.jit
    def train():
        state = loop.init(KEY)
        return state.agent.agent.model, jaxrl.run(loop, state, 3)[0].agent

    before, after = train()
    seen, model_state = after.agent.agent, after.agent.model
    data = rows(seen.observation["observation"], seen.next_observation["observation"], seen.observation["skill"])
    np.testing.assert_allclose(seen.reward, model.reward(model_state, data), rtol=1e-5)
    assert np.abs(seen.reward - model.reward(before, data)).max() > 1e-4
    assert int(jax.tree.leaves(model_state.opt_state)[0]) == 6  # two for each of three batches
    stored = [x for x in jax.tree.leaves(after.buffer) if x.shape[-1:] == (3,)]
    assert stored and set(np.unique(stored[0])) <= {0.0, 1.0}


def no_model(size=2):
    """Skills that mean nothing: the reward is the environment's."""
    nothing = (
        (lambda key, hparams, example: ()),
        (lambda state, data: data.reward),
        (lambda key, state, data: (state, {})),
    )
    return SkillModel(sphere(size), *nothing, lambda state, observation, goal: goal, lambda state: state)


def test_skills_that_mean_nothing_are_the_agent_to_the_bit():
    env = toys.clock(3)
    policy, critic = toys.actor_and_critic(env)
    plain = ppo(policy, critic, num_epochs=2, num_minibatches=2)

    def blind(network):
        return networks.view(network, lambda x: x["observation"])

    skilled = ppo(policy._replace(network=blind(policy.network)), blind(critic), num_epochs=2, num_minibatches=2)
    agent = with_skills(skilled, no_model())
    runs = []
    for a in (plain, agent):
        loop = jaxrl.online(a, env, num_envs=4, unroll_length=4)
        runs.append(jax.jit(lambda loop=loop: jaxrl.run(loop, loop.init(KEY), 3))())
    (alone, metrics), (wrapped, same) = runs
    jax.tree.map(np.testing.assert_array_equal, alone.agent, wrapped.agent.agent)
    jax.tree.map(np.testing.assert_array_equal, metrics, same)


def test_what_an_agent_with_skills_sees():
    space = joined_space(Dict({"action_mask": Box(0, 1, (2,), "bool"), "place": Box(0, 1, (3,))}), Box(-1, 1, (2,)))
    assert set(space.spaces) == {"action_mask", "place", "skill"}
    skill = jnp.ones(2)
    seen = join({"action_mask": jnp.ones(2, bool), "place": jnp.zeros(3)}, skill)
    assert space.contains(seen) and set(join(jnp.zeros(3), skill)) == {"observation", "skill"}
    with pytest.raises(ValueError, match="has a part called 'skill' already"):
        joined_space(space, Box(-1, 1, (2,)))


# What skills are for -----------------------------------------------------------------------------------------------


def follower():
    """Acts as its skill says, from its state's scale."""

    def act(key, state, memory, observation):
        return memory, state * observation["skill"] + 0 * observation["observation"][..., :2], {}

    return Agent(
        lambda key, hparams, example: jnp.float32(2.0), no_memory, act, act, lambda key, state, data: (state + 1, {})
    )


def test_chosen_skills():
    """Each step with the skill that leads to a goal, and nothing learns any more."""
    model = metra(linear(np.eye(2)), sphere(2))
    goal = jnp.array([3.0, 4.0])
    agent = choose_skills(follower(), lambda state, observation: model.toward(state, observation, goal))
    data = rows(np.zeros((4, 2)), np.zeros((4, 2)), np.zeros((4, 2)))
    state = WithSkillsState(jnp.float32(2.0), model.init(KEY, model.hparams, data))
    memory = agent.init_memory(KEY, state, data.observation)
    _, action, _ = agent.act_greedy(KEY, agent.actor(state), memory, data.observation)
    np.testing.assert_allclose(action, np.tile([[1.2, 1.6]], (4, 1)), rtol=1e-5)
    assert agent.update(KEY, state, data) == (state, {})
    seven = jnp.float32(7.0)
    still = frozen(follower()._replace(observe=follower().update), state=seven)
    assert still.init(KEY, (), data) == 7.0 and still.update(KEY, jnp.float32(7.0), data)[0] == 7.0
    assert still.observe(KEY, seven, data)[0] == 7.0
    jax.jit(lambda state: state + 1, donate_argnums=0)(still.init(KEY, (), data))
    assert seven == 7.0  # what a loop does with its state is nothing to the one that was given
    assert frozen(follower()).init(KEY, (), data) == 2.0


def pushed():
    """Adds actions [2] up; the reward is the first coordinate; ends after 5 steps."""
    env = toys.clock(5)

    def reset(key, params):
        return (env.reset(key, params)[0], jnp.zeros(2)), jnp.zeros(2)

    def step(key, state, action, params):
        clock, place = state
        clock, timestep = env.step(key, clock, action, params)
        place = place + action + 0.1 * jax.random.normal(key, (2,))
        return (clock, place), timestep._replace(observation=place, reward=place[0])

    return env._replace(
        reset=reset, step=step, observation_space=Box(-9.0, 9.0, (2,)), action_space=Box(-4.0, 4.0, (2,))
    )


def play(env, action, length, key=KEY):
    state, _ = env.reset(key, env.params)

    def step(state, key):
        state, timestep = env.step(key, state, action, env.params)
        return state, timestep

    return jax.jit(lambda: jax.lax.scan(step, state, jax.random.split(key, length))[1])()


def test_latent_actions():
    """A decoder that does nothing is the environment to the bit; an agent decodes by what it saw last; k steps at once
    count as k."""
    env, z = pushed(), jnp.array([0.5, -1.0])
    plain = play(env, z, 4)
    same = play(latent_action(env, lambda key, decoder, observation, z: z, (), env.action_space), z, 4)
    jax.tree.map(np.testing.assert_array_equal, plain, same)

    decode = decoder(follower(), join)
    doubled = latent_action(env, decode, jnp.float32(2.0), Box(-2.0, 2.0, (2,)))
    jax.tree.map(np.testing.assert_array_equal, play(doubled, z, 4), play(env, 2 * z, 4))
    assert doubled.action_space.high == 2.0 and doubled.params.decoder == 2.0

    homing = latent_action(env, lambda key, gain, place, z: gain * (z - place), jnp.float32(1.0), env.observation_space)
    found = play(homing, z, 3).observation  # one step takes it there, but for the noise of that step
    noise = np.stack([0.1 * jax.random.normal(key, (2,)) for key in jax.random.split(KEY, 3)])
    np.testing.assert_allclose(found, z + noise, atol=1e-5)

    long = play(repeat_action(homing, 2, discount=0.9), z, 3)
    np.testing.assert_array_equal(long.extras["num_steps"], [2, 2, 1])
    np.testing.assert_array_equal(long.truncated, [False, False, True])


def test_decoders_take_the_mode_or_draw():
    agent = follower()._replace(act=lambda key, state, memory, seen: (memory, jax.random.normal(key, (1, 2)), {}))
    place, z = jnp.zeros(2), jnp.array([0.5, -1.0])
    np.testing.assert_array_equal(decoder(agent, join)(KEY, jnp.float32(2.0), place, z), 2 * z)
    draws = [decoder(agent, join, greedy=False)(k, jnp.float32(2.0), place, z) for k in jax.random.split(KEY)]
    assert (draws[0] != draws[1]).all()


def test_latent_actions_have_keys_of_their_own():
    """Of each decoder, where one is inside of another, and of the environment."""
    env = pushed()
    for _ in range(2):
        env = latent_action(env, lambda key, decoder, place, z: z + jax.random.normal(key, (2,)), (), Box(-2, 2, (2,)))
    state = jax.eval_shape(env.reset, KEY, env.params)[0]
    assert key_reuse.check(lambda key, state: env.step(key, state, jnp.zeros(2), env.params), KEY, state) == []


def test_decoders_have_no_memory():
    decode = decoder(toys.counting_agent(), lambda observation, latent: observation)
    with pytest.raises(ValueError, match="decoder: the agent has memory"):
        decode(KEY, (), jnp.zeros(2), jnp.zeros(2))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sphere(0), "sphere: size is 0, must be >= 1"),
        (lambda: one_hot(1), "one_hot: num is 1, must be >= 2"),
        (lambda: diayn(linear(WEIGHTS), 1), "num is 1, must be >= 2"),
        (lambda: with_skills(spy(), no_model(), num_model_updates=0), "num_model_updates is 0, must be >= 1"),
        (
            lambda: jaxrl.make_agent(
                "metra", toys.clock()._replace(observation_space=Dict({"privileged": Box(0, 1, (2,))}))
            ),
            "metra: the observation has a part 'privileged'",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_builders():
    """Discrete actions take the discrete learner; discrete skills have a dimension each."""
    env = toys.clock(actions=3)
    agent, hparams = jaxrl.make_agent("metra", env, num_skills=5, widths=(4,))
    state = jax.eval_shape(lambda: agent.init(KEY, hparams, example_data(env, 2, 2)))
    skilled = state.agent.agent
    assert skilled.model.params["phi"]["layer_1"]["bias"].shape == (5,)
    assert hparams.agent.agent.agent.target_entropy_share == 0.5 and skilled.agent.params["policy"]["torso"]
    continuous, hparams = jaxrl.make_agent("diayn", env._replace(action_space=Box(-2.0, 2.0, (2,))), widths=(4,))
    assert hparams.agent.agent.agent.initial_temperature == 0.1
    assert env.action_space == Discrete(3)
