"""What every agent of the library promises, whatever it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import jaxrl
from jaxrl.agents.bc import BCState
from jaxrl.combinators.population import population
from jaxrl.data.goals import goal_view, trajectories, with_rows
from jaxrl.factory import AGENTS, parts, static_arguments
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.presets import PRESETS
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Repeated, Tuple, zeros
from jaxrl.tree import find, get_field
from jaxrl.types import TimeStep, Transition

KEY = jax.random.key(0)
NUM_ENVS, LENGTH = 4, 4

PLANE, CROWD = Box(-2.0, 2.0, (2,)), Repeated(Discrete(2), toys.CROWD)

# agent, static arguments, action space
VARIANTS = {
    "ppo-discrete": ("ppo", {}, Discrete(3)),
    "ppo-multi-discrete": ("ppo", {}, MultiDiscrete((2, 3))),
    "ppo-continuous": ("ppo", {}, PLANE),
    "ppo-squashed": ("ppo", dict(squash=True), PLANE),
    "ppo-recurrent": ("ppo", dict(recurrent=True, memory_size=8), Discrete(3)),
    "ppo-normalized": ("ppo", dict(normalize_observation=True, normalize_reward=True), Discrete(3)),
    "ppo-early-stop": ("ppo", dict(kl_early_stop=True, normalize_advantage="batch"), Discrete(3)),
    "ppo-for-all": ("ppo", dict(identify=True), CROWD),
    "ppo-for-each": ("ppo", dict(sharing="independent"), CROWD),
    "ppo-for-kinds": ("ppo", {}, Tuple((Discrete(2),) * toys.CROWD)),
    "ippo": ("ippo", {}, CROWD),
    "mappo": ("mappo", dict(identify=True), CROWD),
    "mappo-recurrent": ("mappo", dict(recurrent=True, memory_size=8, normalize_reward=True), CROWD),
    "maddpg": ("maddpg", dict(prioritized=True, identify=True), Repeated(PLANE, toys.CROWD)),
    "cabn": ("cabn", dict(identify=True, message_size=4), CROWD),
    "coma": ("coma", dict(identify=True, normalize_reward=True), CROWD),
    "coma-recurrent": ("coma", dict(recurrent=True, memory_size=8), CROWD),
    "vdn": ("vdn", dict(n_step=2, identify=True), CROWD),
    "qmix": ("qmix", dict(prioritized=True), CROWD),
    "recurrent_vdn": ("recurrent_vdn", dict(memory_size=8, sequence_length=4), CROWD),
    "recurrent_qmix": ("recurrent_qmix", dict(memory_size=8, sequence_length=4, mixing_size=4), CROWD),
    "mdpo": ("mdpo", {}, PLANE),
    "props": ("props", {}, Discrete(3)),
    "dqn": ("dqn", {}, Discrete(3)),
    "dqn-for-all": ("dqn", dict(prioritized=True), CROWD),
    "dqn-normalized": ("dqn", dict(normalize_observation=True, prioritized=True, n_step=2), Discrete(3)),
    "dqn-once-stored": ("dqn", dict(store_next_observation=False), Discrete(3)),
    "c51": ("c51", dict(num_atoms=5), Discrete(3)),
    "qrdqn": ("qrdqn", dict(num_quantiles=5), Discrete(3)),
    "iqn": ("iqn", dict(num_quantiles=5, num_samples=3), Discrete(3)),
    "rainbow": ("rainbow", dict(num_atoms=5), Discrete(3)),
    "rem": ("rem", dict(num_heads=3), Discrete(3)),
    "bcq": ("bcq", {}, Discrete(3)),
    "discrete_cql": ("discrete_cql", {}, Discrete(3)),
    "crr": ("crr", {}, Discrete(3)),
    "bve": ("bve", {}, Discrete(3)),
    "mce": ("mce", {}, Discrete(3)),
    "r2d2": ("r2d2", dict(memory_size=8, sequence_length=4), Discrete(3)),
    "discrete_sac": ("discrete_sac", {}, Discrete(3)),
    "sac": ("sac", dict(updates_per_step=2), PLANE),
    "mdpo_off": ("mdpo_off", {}, PLANE),
    "td3": ("td3", {}, PLANE),
    "td3_bc": ("td3_bc", {}, PLANE),
    "ddpg": ("ddpg", {}, PLANE),
    "redq": ("redq", dict(num_critics=3, updates_per_step=2), PLANE),
    "iql": ("iql", {}, PLANE),
    "iql-discrete": ("iql", {}, Discrete(3)),
    "xql": ("xql", {}, PLANE),
    "fdvl": ("fdvl", {}, PLANE),
    "awac": ("awac", {}, PLANE),
    "cql": ("cql", {}, PLANE),
    "cal-ql": ("cql", dict(calibrated=True), PLANE),
    "odice": ("odice", {}, PLANE),
    "recoil": ("recoil", {}, PLANE),
    "pqn": ("pqn", {}, Discrete(3)),
    "bc": ("bc", {}, PLANE),
    "bc-discrete": ("bc", {}, Discrete(3)),
    "gcbc": ("gcbc", {}, Discrete(3)),
    "gciql": ("gciql", {}, PLANE),
    "hiql": ("hiql", dict(representation_size=3), Discrete(3)),
    "ota": ("ota", dict(representation_size=3), PLANE),
    "hierarchical-ppo-sac": (
        "hierarchical",
        dict(worker="sac", period=2, goal_entries=(0, 1), goal_radius=0.5),
        PLANE,
    ),
    "hierarchical-qrdqn-ppo": ("hierarchical", dict(manager="qrdqn", goal_entries=(0,), goal_grid=3), PLANE),
    "option_critic": ("option_critic", dict(num_options=2), PLANE),
    "diayn": ("diayn", dict(num_skills=3), Discrete(3)),
    "metra": ("metra", dict(num_model_updates=2), PLANE),
}

SMALL = dict(widths=(8,), num_minibatches=1, num_epochs=1, buffer_size=48, min_buffer_size=8, batch_size=8)


def build(name, offline=False):
    """Environment, agent and hparams of a variant, small; the learner alone where it learns from data only."""
    agent_name, static, space = VARIANTS[name]
    env, recipe = toys.clock(3)._replace(action_space=space), AGENTS[agent_name]
    if isinstance(space, (Repeated, Tuple)):
        env = toys.crowd(True) if isinstance(space, Tuple) else toys.crowd(actions=space.space)
    env = toys.with_goals(env) if recipe.looks_up else env
    allowed = static_arguments(recipe, offline, env)
    static = {k: v for k, v in {**SMALL, **static}.items() if k in allowed}
    agent, hparams = jaxrl.make_agent(agent_name, env, offline=offline, **static)
    return env, agent, hparams


def has(name, way):
    agent_name, static, space = VARIANTS[name]
    if way == "offline":
        return AGENTS[agent_name].offline and not isinstance(space, Repeated)
    return AGENTS[agent_name].online is not None and not static.get("calibrated")  # returns to go are in datasets


@pytest.fixture(scope="module", params=[name for name in VARIANTS if has(name, "online")])
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
    for recipe in AGENTS.values():
        for offline in {True, False} - ({True} if not recipe.offline else set()):
            documented = "".join(part.__doc__ for part in parts(recipe, offline))
            assert all(f"{name}:" in documented for name in static_arguments(recipe, offline))
        assert recipe.settings.keys() <= static_arguments(recipe).keys()


def test_update_keeps_structure_shapes_and_dtypes(played):
    _, _, _, (state, seen, after, _, _, metrics) = played
    assert signature(state) == signature(seen) == signature(after)
    assert all(x.shape == () and x.dtype == jnp.float32 for x in metrics.values())
    assert all(np.isfinite(x) for x in metrics.values())


def test_hparams_are_float32_arrays_in_the_state(played):
    _, agent, _, (state, *_) = played
    numbers = jax.tree.leaves(agent.hparams)
    inside = [x for x in jax.tree.leaves(state) if x.shape in ((), (toys.CROWD,)) and x.dtype == jnp.float32]
    assert all(any((np.float32(n) == x).all() for x in inside) for n in numbers)


def test_acting(played):
    """Actions are in the space, greedy ones do not depend on the key, and the actor part of the state is enough."""
    env, agent, _, (_, _, state, now, data, _) = played
    contains = jax.vmap(env.action_space.contains)
    actor = agent.actor(state)
    assert len(jax.tree.leaves(actor)) < len(jax.tree.leaves(state))

    @jax.jit
    def ask(state, actor, now):
        full, lean = (agent.act(KEY, s, now.memory, now.observation) for s in (state, actor))
        greedy, other = (agent.act_greedy(k, state, now.memory, now.observation) for k in (KEY, jax.random.key(1)))
        return full, lean, greedy, other, contains(greedy[1]), jax.vmap(contains)(data.action)

    full, lean, greedy, other, *inside = ask(state, actor, now)
    assert all(x.all() for x in inside)
    assert jax.tree.map(lambda x: x.dtype, data.action) == jax.tree.map(lambda x: x.dtype, zeros(env.action_space))
    jax.tree.map(np.testing.assert_array_equal, greedy, other)
    jax.tree.map(np.testing.assert_array_equal, full, lean)


def test_vmap_over_seeds(played):
    """Each member equals the same seed alone (to rounding, in what is continuous)."""
    _, agent, play, (_, _, after, *_) = played
    many = jax.jit(jax.vmap(play))(jnp.stack([jax.random.key(7), KEY]))[2]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, atol=1e-4), agent.actor(many), agent.actor(after))


def test_rows_of_weight_zero_are_not_there(played):
    """Columns of nonsense at weight 0 beside the real ones leave an on-policy update as it is."""
    _, agent, _, (state, *_, data, _) = played
    if hasattr(state, "buffer"):
        pytest.skip("learners from batches: below")
    weighted = data._replace(extras=data.extras | {"weight": jnp.ones_like(data.reward)})

    def garbage(x):
        return jnp.full_like(x, 1e3) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros_like(x)

    padding = jax.tree.map(garbage, weighted)
    padding = padding._replace(extras=padding.extras | {"weight": jnp.zeros_like(data.reward)})
    padded = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), weighted, padding)
    update = jax.jit(agent.update)
    clean, dirty = update(KEY, state, weighted)[0], update(KEY, state, padded)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), clean, dirty)


def share(data):
    """Rows that are a whole dataset, with what learners of goals look up in it."""
    if "row" not in data.extras:
        return data
    return data._replace(extras=data.extras | {"shared": trajectories(data)})


@pytest.fixture(scope="module", params=[name for name in VARIANTS if has(name, "offline")])
def learned(request):
    """A learner from batches, a batch of random transitions, its state before and after an update on it."""
    env, learner, hparams = build(request.param, offline=True)
    keys = iter(jax.random.split(KEY, 8))
    observation, after = (jax.random.normal(next(keys), (12, 2)) for _ in range(2))
    action = jax.vmap(env.action_space.sample)(jax.random.split(next(keys), 12))
    ends = jax.random.uniform(next(keys), (2, 12)) < 0.2
    extras = {"weight": jnp.ones(12), "next_action": action[::-1], "mc_return": jnp.ones(12)}
    extras |= {"demonstration": (jnp.arange(12) % 2).astype(jnp.float32)}
    data = Transition(observation, action, jax.random.normal(next(keys), (12,)), *ends, after, extras)
    if AGENTS[VARIANTS[request.param][0]].looks_up:
        data = share(with_rows(goal_view(data, lambda observation: observation)))
    update = jax.jit(learner.update)
    state = jax.jit(learner.init)(next(keys), hparams, data)
    return learner, update, data, state, update(KEY, state, data)


def test_learners_keep_structure_and_move(learned):
    learner, _, _, state, (after, metrics) = learned
    assert signature(state) == signature(after)
    assert all(x.shape == () and x.dtype == jnp.float32 and np.isfinite(x) for x in metrics.values())
    moved = [(np.asarray(a) != np.asarray(b)).any() for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after))]
    assert sum(moved) > 4 and len(jax.tree.leaves(learner.actor(state))) < len(moved)


def test_what_stands_in_rows_of_weight_zero_changes_nothing(learned):
    _, update, data, state, _ = learned
    out = jnp.arange(12) % 3 == 0

    def fill(value):
        def leaf(x):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return x
            return jnp.where(out.reshape(-1, *[1] * (x.ndim - 1)), value, x)

        filled = jax.tree.map(leaf, data)
        return share(filled._replace(extras=filled.extras | {"weight": 1.0 - out}))

    clean, other, poisoned = (update(KEY, state, fill(value)) for value in (0.0, 1.5, jnp.nan))
    for dirty in (other, poisoned):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), clean, dirty)
    different = update(KEY, state, fill(0.0)._replace(extras=data.extras))[0]
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(clean[0]), jax.tree.leaves(different)))


def test_priorities_are_reported_where_rows_have_an_index(learned):
    learner, _, data, state, _ = learned
    if find(state, BCState):
        pytest.skip("has no TD error")
    indexed = data._replace(extras=data.extras | {"index": jnp.arange(12)})
    metrics = jax.jit(learner.update)(KEY, state, indexed)[1]
    assert metrics["priority"].shape == (12,) and (metrics["priority"] >= 0).all()


def test_defaults_are_in_the_ranges_that_their_help_states():
    from jaxrl.cli.flags import check_range, of_hparams

    for name in VARIANTS:
        for flag in of_hparams(build(name, offline=not has(name, "online"))[2]):
            check_range(flag, flag.default)


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
    loop = {"num_envs", "unroll_length", "steps", "reset_pool", "updates", "hparams"}
    for (name, env_name), preset in PRESETS.items():
        space = next(space for agent, _, space in VARIANTS.values() if agent == name)
        assert preset.keys() <= loop | static_arguments(AGENTS[name]).keys()
        _, hparams = jaxrl.make_agent(name, toys.clock()._replace(action_space=space), preset=env_name)
        for number, value in preset["hparams"].items():
            assert get_field(hparams, number) == value, (env_name, number)
    env = toys.clock()._replace(action_space=PLANE)
    _, hparams = jaxrl.make_agent("ppo", env, preset="Pendulum-v1", normalize_reward=False)
    assert hparams.agent.discount == 0.95


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("pppo",), "no agent is called 'pppo'; there are ppo"),
        (("ppo", dict(width=3)), "ppo has no argument 'width'; it has widths"),
        (("ppo", dict(offline=True)), "ppo learns from its own rollouts"),
        (("bc",), "bc learns from a dataset alone: give offline=True"),
        (("dqn", dict(offline=True, n_step=3)), "dqn has no argument 'n_step'"),
        (("ppo", dict(activation="tahn")), "activation"),
    ],
)
def test_bad_arguments(arguments, message):
    name, static = (*arguments, {})[:2]
    with pytest.raises(ValueError, match=message):
        jaxrl.make_agent(name, toys.clock(), **static)
