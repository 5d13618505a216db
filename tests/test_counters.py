"""Counters driven across 2**24 (where a float32 stands still), 2**31 (where an int32 wraps), and 1e12."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from actor_critics import action_critic, batch, constant, perturbed, start

import jaxrl
from jaxrl import counters, exploration
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.agents.sac import sac
from jaxrl.agents.td3 import td3
from jaxrl.combinators.exploration import with_exploration
from jaxrl.distributions import diagonal_gaussian, tanh_gaussian
from jaxrl.normalize import init_statistics, update_statistics
from jaxrl.spaces import Discrete
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)
LARGEST = 2**31 - 1


@pytest.mark.parametrize("period", [1, 2, 3, 10, 1000])
def test_increment_keeps_the_rhythm(period):
    first = LARGEST - 5
    counts = jax.lax.scan(lambda n, _: (counters.increment(n, period),) * 2, jnp.int32(first), length=3 * period + 12)[
        1
    ]
    exact = first + 1 + np.arange(len(counts), dtype=np.int64)
    np.testing.assert_array_equal(counts[:5], exact[:5])
    np.testing.assert_array_equal(counts % period, exact % period)
    assert (counts > LARGEST - period - 5).all()


@pytest.mark.parametrize("period", [0, 2**31])
def test_bad_periods(period):
    with pytest.raises(ValueError, match=f"period is {period}, must be in"):
        counters.increment(jnp.int32(0), period)


def test_a_count_is_exact():
    """Beside Python's integers, by strides that cross 2**24, 2**30, 2**31 and 1e12."""
    add = jax.jit(counters.advance, static_argnums=1)
    for stride, times in ((2**24 - 1, 300), (2**30, 1200), (2**30 - 7, 1200), (0, 2)):
        count, total = counters.zero(), 0
        for _ in range(times):
            count, total = add(count, stride), total + stride
            assert counters.exact(count) == total
            np.testing.assert_allclose(count.rounded, total, rtol=1.2e-7)
    assert total == 0 and 2**30 * 1200 > 1e12
    count = counters.advance(counters.advance(counters.zero(), 2**24), 1)
    assert counters.exact(count) == 2**24 + 1


def test_exploration_goes_on_to_1e12_steps():
    """An epsilon that falls over 1e12 steps is half-way after 5e11, with steps of 6 each."""
    part = exploration.epsilon_greedy(Discrete(2))
    agent = with_exploration(toys.idle_agent(toys.clock(3)), part)
    data = Transition(*[jnp.zeros((2, 3))] * 6)
    steps = 5 * 10**11
    count = counters.Count(jnp.int32(steps >> 30), jnp.int32(steps & (2**30 - 1)), jnp.float32(0))
    state = agent.init(KEY, agent.hparams, data)._replace(num_steps=count)
    state, _ = jax.jit(agent.observe)(KEY, state, data)
    assert counters.exact(state.num_steps) == steps + 6
    hparams = part.hparams._replace(epsilon_start=1.0, epsilon_end=0.0, epsilon_steps=1e12)
    action = jnp.zeros(20_000, jnp.int32)
    _, action = part.apply(KEY, hparams, state.num_steps.rounded, (), action, action)
    assert abs(float(action.mean()) - 0.25) < 0.02  # half of them explore, half of those choose 1


def test_loops_episodes_and_schedules_at_the_end_of_int32():
    env = toys.clock(10)
    agent = ppo(*toys.actor_and_critic(env), num_epochs=1, num_minibatches=1)
    loop = jaxrl.online(agent, env, num_envs=2, unroll_length=4)
    hparams = PPOHparams(decay_steps=2.0**36)
    state = jax.jit(loop.init)(KEY, hparams)
    length = state.interaction.episode.length.at[:].set(jnp.array([2**24 + 1, LARGEST - 1]))
    interaction = state.interaction._replace(episode=state.interaction.episode._replace(length=length))
    old = state._replace(num_updates=jnp.int32(LARGEST), interaction=interaction)
    old = old._replace(agent=old.agent._replace(num_updates=jnp.int32(LARGEST)))
    new, metrics = jax.jit(loop.step)(old)
    assert new.num_updates == new.agent.num_updates == LARGEST
    np.testing.assert_array_equal(new.interaction.episode.length, [2**24 + 5, LARGEST])
    # After 2**31 updates of 8 steps, a quarter of 2**36 is gone.
    np.testing.assert_allclose(metrics["learning_rate"], 0.75 * hparams.learning_rate, rtol=1e-6)


def test_a_long_episode_ends_with_its_length():
    env = toys.clock(3)
    loop = jaxrl.online(toys.idle_agent(env), env, num_envs=1, unroll_length=4)
    state = jax.jit(loop.init)(KEY)
    episode = state.interaction.episode
    episode = episode._replace(length=episode.length.at[:].set(2**24 + 1))
    _, metrics = jax.jit(loop.step)(state._replace(interaction=state.interaction._replace(episode=episode)))
    assert metrics["episode/length_sum"] == 2**24 + 4


def moves(agent, state, data, name, updates):
    """In which of `updates` what is called `name` moved."""
    update, moved = jax.jit(agent.update), []
    for i in range(updates):
        before = jax.tree.leaves(getattr(state, name))
        state, _ = update(jax.random.fold_in(KEY, i), state, data)
        moved.append(any((a != b).any() for a, b in zip(before, jax.tree.leaves(getattr(state, name)))))
    return moved


def test_periods_of_learners_beyond_int32():
    """TD3's targets move every third update, SAC's reference every other, before and after 2**31."""
    data, first = batch(4), LARGEST - 4
    policy = Policy(constant(jnp.zeros(4)), diagonal_gaussian((2,), -2.0, 1.0))
    agent = td3(policy, action_critic(), policy_period=3)
    state = perturbed(start(agent, data))._replace(num_updates=jnp.int32(first))
    wanted = [(first + 1 + i) % 3 == 0 for i in range(12)]
    assert moves(agent, state, data, "target_params", 12) == wanted
    agent = sac(policy._replace(distribution=tanh_gaussian(-2.0, 1.0, (2,))), action_critic(), reference_period=2)
    state = start(agent, data)._replace(num_updates=jnp.int32(first))
    assert moves(agent, state, data, "reference_params", 10) == [(first + 1 + i) % 2 == 0 for i in range(10)]


def test_moments_stand_still_when_their_count_does():
    """A million single rows of variance 1 after 2**24 of them: the variance neither grows nor shrinks."""

    def step(statistics, sign):
        return update_statistics(statistics, sign[None], jnp.ones(1)), None

    for count in (2**24, 2**24 - 2**19, 2**30):
        state = init_statistics(jnp.zeros(()))._replace(count=jnp.float32(count))
        signs = jnp.where(jnp.arange(2**20) % 2, 1.0, -1.0)
        state, _ = jax.jit(lambda state, signs: jax.lax.scan(step, state, signs))(state, signs)
        assert abs(state.mean) < 1e-3 and abs(state.var - 1) < 1e-3


def test_moments_across_the_limit_learn_as_before():
    """A batch of many rows still moves them, by the share that it has."""
    state = init_statistics(jnp.zeros(()))._replace(count=jnp.float32(3 * 2**20))
    batch = jnp.where(jnp.arange(2**20) % 2, 3.0, 1.0)
    for count in (3 * 2**20, 3 * 2**25):
        rows = jnp.ones(2**20) * (count / (3 * 2**20))
        new = update_statistics(state._replace(count=jnp.float32(count)), batch, rows)
        np.testing.assert_allclose([new.count, new.mean, new.var], [count * 4 / 3, 0.5, 1.75], rtol=1e-4)


def test_nobody_counts_without_them():
    root = pathlib.Path(jaxrl.__file__).parent
    for path in [*root.glob("agents/*.py"), *root.glob("combinators/*.py"), root / "loop.py"]:
        assert not re.search(r"\.num_\w+ \+|count \+ 1", path.read_text()), path
