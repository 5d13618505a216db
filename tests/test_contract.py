"""What every agent of the library promises, whatever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl.combinators.population import population
from jaxrl.factory import AGENTS, static_arguments
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.presets import PRESETS
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete
from jaxrl.tree import field_names
from jaxrl.types import TimeStep

KEY = jax.random.key(0)
NUM_ENVS, LENGTH = 4, 4

# agent, static arguments, action space
VARIANTS = {
    "ppo-discrete": ("ppo", {}, Discrete(3)),
    "ppo-multi-discrete": ("ppo", {}, MultiDiscrete((2, 3))),
    "ppo-continuous": ("ppo", {}, Box(-2.0, 2.0, (2,))),
    "ppo-squashed": ("ppo", dict(squash=True), Box(-2.0, 2.0, (2,))),
    "ppo-recurrent": ("ppo", dict(recurrent=True, memory_size=8), Discrete(3)),
    "ppo-normalized": ("ppo", dict(normalize_observation=True, normalize_reward=True), Discrete(3)),
    "ppo-early-stop": ("ppo", dict(kl_early_stop=True, normalize_advantage="batch"), Discrete(3)),
}


def build(name):
    agent_name, static, space = VARIANTS[name]
    env = toys.clock(3)._replace(action_space=space)
    agent, hparams = jaxrl.make_agent(agent_name, env, widths=(8,), num_minibatches=1, num_epochs=1, **static)
    return env, agent, hparams


@pytest.fixture(scope="module", params=VARIANTS)
def played(request):
    """An agent, its state after a first update, and the rollout that it learned from."""
    env, agent, hparams = build(request.param)

    @jax.jit
    def play(key):
        state = agent.init(key, hparams, example_data(env, NUM_ENVS, LENGTH))
        now = start(key, agent, state, env, env.params, NUM_ENVS)
        now, data, _ = rollout(key, agent, state, env, now, LENGTH)
        seen, observed = agent.observe(key, state, data)
        after, learned = agent.update(key, seen, data)
        return state, seen, after, now, data, observed | learned

    return env, agent, play, play(KEY)


def signature(tree):
    return jax.tree.structure(tree), [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]


def test_every_agent_is_covered():
    assert {agent for agent, _, _ in VARIANTS.values()} == set(AGENTS)
    for build_agent in AGENTS.values():
        documented = build_agent.__doc__
        assert all(f"{name}:" in documented for name in static_arguments(build_agent))


def test_update_keeps_structure_shapes_and_dtypes(played):
    _, _, _, (state, seen, after, _, _, metrics) = played
    assert signature(state) == signature(seen) == signature(after)
    assert all(x.shape == () and x.dtype == jnp.float32 for x in metrics.values())
    assert all(np.isfinite(x) for x in metrics.values())


def test_hparams_are_float32_arrays_in_the_state(played):
    _, agent, _, (state, *_) = played
    numbers = jax.tree.leaves(agent.hparams)
    inside = [x for x in jax.tree.leaves(state) if x.shape == () and x.dtype == jnp.float32]
    assert all(any(np.float32(n) == x for x in inside) for n in numbers)


def test_actions_are_in_the_space(played):
    env, agent, _, (_, _, state, now, data, _) = played
    contains = jax.vmap(jax.vmap(env.action_space.contains))
    assert contains(data.action).all() and data.action.dtype == env.action_space.dtype
    greedy = agent.act_greedy(KEY, state, now.memory, now.observation)
    assert jax.vmap(env.action_space.contains)(greedy[1]).all()
    other = agent.act_greedy(jax.random.key(1), state, now.memory, now.observation)
    jax.tree.map(np.testing.assert_array_equal, greedy, other)


def test_the_actor_part_is_enough_to_act(played):
    _, agent, _, (_, _, state, now, *_) = played
    actor = agent.actor(state)
    assert len(jax.tree.leaves(actor)) < len(jax.tree.leaves(state))
    full, lean = (agent.act(KEY, s, now.memory, now.observation) for s in (state, actor))
    jax.tree.map(np.testing.assert_array_equal, full, lean)


def test_vmap_over_seeds(played):
    """Each member equals the same seed alone (to rounding, in what is continuous)."""
    _, _, play, (_, _, after, *_) = played
    many = jax.jit(jax.vmap(play))(jnp.stack([jax.random.key(7), KEY]))[2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-4), many, after)


def test_rows_of_weight_zero_are_not_there(played):
    """Columns of nonsense at weight 0 beside the real ones leave the update as it is."""
    _, agent, _, (state, *_, data, _) = played
    weighted = data._replace(extras=data.extras | {"weight": jnp.ones_like(data.reward)})

    def garbage(x):
        return jnp.full_like(x, 1e3) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros_like(x)

    padding = jax.tree.map(garbage, weighted)
    padding = padding._replace(extras=padding.extras | {"weight": jnp.zeros_like(data.reward)})
    padded = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), weighted, padding)
    update = jax.jit(agent.update)
    clean, dirty = update(KEY, state, weighted)[0], update(KEY, state, padded)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), clean, dirty)


@pytest.mark.parametrize("name", ["ppo-discrete", "ppo-recurrent"])
def test_a_population_of_one_is_the_agent(name):
    env, agent, hparams = build(name)
    runs = []
    for a in (agent, population(agent, 1)):
        loop = jaxrl.online(a, env, num_envs=NUM_ENVS, unroll_length=LENGTH)
        runs.append(jax.jit(lambda loop=loop: jaxrl.run(loop, loop.init(KEY, hparams), 3))())
    (alone, _), (member, metrics) = runs
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], atol=1e-4), alone.agent, member.agent)
    assert metrics["value_loss"].shape == (3, 1)


def test_members_of_a_population_are_different():
    env, agent, hparams = build("ppo-discrete")
    loop = jaxrl.online(population(agent, 2), env, num_envs=NUM_ENVS, unroll_length=LENGTH)
    state, _ = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY, hparams), 2))()
    kernel = state.agent.params["critic"]["head"]["kernel"]
    assert kernel.shape[0] == 2 and (kernel[0] != kernel[1]).any()
    assert state.agent.hparams.clip.shape == (2,)
    with pytest.raises(ValueError, match="size is 3, must divide the 4 environments"):
        jaxrl.online(population(agent, 3), env, num_envs=NUM_ENVS, unroll_length=LENGTH).init(KEY)


def test_default_networks_for_every_kind_of_observation():
    """Images, integers, dictionaries with a mask: one step of acting on each."""
    spaces = [
        Box(0, 255, (10, 10, 3), "uint8"),
        Box(0, 1, (10, 10, 4), "bool"),
        Discrete(5),
        MultiDiscrete((2, 3)),
        Dict({"position": Box(-1, 1, (2,)), "kind": Discrete(3), "action_mask": Box(0, 1, (2,), "bool")}),
    ]
    for space in spaces:
        env = toys.clock()
        env = env._replace(
            reset=lambda key, params, space=space: ((), space.sample(key)),
            step=lambda key, state, action, params, space=space: (
                state,
                TimeStep(space.sample(key), jnp.float32(0), jnp.bool_(False), jnp.bool_(False)),
            ),
            observation_space=space,
        )
        agent, hparams = jaxrl.make_agent("ppo", env, widths=(8,))
        loop = jaxrl.online(agent, env, num_envs=4, unroll_length=2)
        state, metrics = jax.eval_shape(lambda loop=loop, h=hparams: loop.step(loop.init(KEY, h)))
        assert metrics["policy_loss"].shape == ()


def test_every_preset_fits_its_agent():
    """Static choices are the builder's, numbers the agent's; without a part, the numbers of the part are left out."""
    loop = {"num_envs", "unroll_length", "steps", "reset_pool", "hparams"}
    env = toys.clock()._replace(action_space=Box(-1.0, 1.0, (2,)))
    for (name, env_name), preset in PRESETS.items():
        assert preset.keys() <= loop | static_arguments(AGENTS[name]).keys()
        _, hparams = jaxrl.make_agent(name, env, preset=env_name)
        for number, value in preset["hparams"].items():
            assert number in field_names(hparams) and value in jax.tree.leaves(hparams), (env_name, number)
    _, hparams = jaxrl.make_agent("ppo", env, preset="Pendulum-v1", normalize_reward=False)
    assert hparams.agent.discount == 0.95


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("pppo",), "no agent is called 'pppo'; there are ppo"),
        (("ppo", dict(width=3)), "ppo has no argument 'width'; it has widths"),
        (("ppo", dict(activation="tahn")), "activation"),
    ],
)
def test_bad_arguments(arguments, message):
    name, static = (*arguments, {})[:2]
    with pytest.raises(ValueError, match=message):
        jaxrl.make_agent(name, toys.clock(), **static)
