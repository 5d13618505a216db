"""The exact solutions that the diagnostic environments promise: played, solved, and against the classic mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import diagnostic, memory

DISCOUNT = 0.7
NUM = 2048


def play(env, act, length, num=NUM, seed=0):
    """`act(history [num, t, D], t) -> actions [num]`. Returns observations [num, L + 1, D]; rewards, ends [num, L]."""
    reset_key, step_key = jax.random.split(jax.random.key(seed))
    reset = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))
    step = jax.jit(jax.vmap(env.step, in_axes=(0, 0, 0, None)))
    state, observation = reset(jax.random.split(reset_key, num), env.params)
    observations, rewards, terminated, truncated = [observation], [], [], []
    for t in range(length):
        action = act(np.stack(observations, axis=1), t)
        keys = jax.random.split(jax.random.fold_in(step_key, t), num)
        state, ts = step(keys, state, action, env.params)
        observations.append(ts.observation)
        rewards.append(ts.reward)
        terminated.append(ts.terminated)
        truncated.append(ts.truncated)
    return np.stack(observations, 1), *(np.stack(x, 1) for x in (rewards, terminated, truncated))


def best(probe, continuous):
    """Plays the right action where the probe has one for the history, anything elsewhere."""

    def act(history, t):
        actions = np.zeros((len(history), 1), np.float32) if continuous else np.zeros(len(history), np.int32)
        for seen, action in probe.right_actions:
            if len(seen) == history.shape[1]:
                actions[np.all(history == seen, axis=(1, 2))] = action
        return actions

    return act


def discounted(rewards, ended):
    """Discounted sum of the rewards [num, L] of every row up to its first end."""
    total, weight = np.zeros(len(rewards)), np.ones(len(rewards))
    for t in range(rewards.shape[1]):
        total += weight * rewards[:, t]
        weight *= DISCOUNT * ~ended[:, t]
    return total


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", [n for n in diagnostic.probes() if n != "truncation"])
def test_values_are_the_returns_of_the_right_actions(name, continuous):
    probe = diagnostic.probes(continuous)[name]
    observations, rewards, terminated, truncated = play(probe.env, best(probe, continuous), 4)
    assert not truncated.any() and terminated.any(axis=1).all()
    before = np.cumsum(np.cumsum(terminated, axis=1), axis=1) - np.cumsum(terminated, axis=1)
    for history, value in probe.values(DISCOUNT):
        start = len(history) - 1
        rows = np.all(observations[:, : len(history)] == history, axis=(1, 2)) & (before[:, start] == 0)
        rows &= start == 0 or ~terminated[:, :start].any(axis=1)
        assert rows.sum() > NUM / 4, "the history occurs"
        returns = discounted(rewards[rows, start:], terminated[rows, start:])
        np.testing.assert_allclose(returns, value, atol=1e-6)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", ["action_reward", "observation_action_reward"])
def test_other_actions_are_worse(name, continuous):
    probe = diagnostic.probes(continuous)[name]
    value = probe.values(DISCOUNT)[0][1]
    for wrong in np.linspace(-1, 1, 9, dtype=np.float32)[:, None] if continuous else (0, 1):
        observations, rewards, *_ = play(probe.env, lambda h, t: np.full((len(h), *np.shape(wrong)), wrong), 1, num=64)
        for history, right in probe.right_actions:
            rows = np.all(observations[:, :1] == history, axis=(1, 2))
            assert np.all((rewards[rows, 0] >= value - 1e-6) == np.allclose(wrong, right))


def test_truncation_has_the_value_of_a_stream_that_never_ends():
    probe = diagnostic.probes()["truncation"]
    observations, rewards, terminated, truncated = play(probe.env, lambda h, t: np.zeros(len(h), np.int32), 40)
    assert not terminated.any() and 0.45 < truncated.mean() < 0.55
    values = {tuple(h[-1]): v for h, v in probe.values(DISCOUNT)}
    v_a, v_b = values[(0.0,)], values[(1.0,)]
    assert np.all(observations[:, 0] == 0) and np.all(observations[:, 1:] == 1), "A leads to B, also where it truncates"
    for start, value in ((0, v_a), (1, v_b)):  # cut at the first truncation, with the value of the true successor
        length = 1 + np.where(truncated[:, start:].any(axis=1), truncated[:, start:].argmax(axis=1), 39 - start)
        returns = discounted(rewards[:, start:], truncated[:, start:]) + DISCOUNT**length * v_b
        np.testing.assert_allclose(returns, value, rtol=1e-5)


@pytest.mark.parametrize("discount", [0.5, 0.7, 0.9])
def test_truncation_tells_the_two_mistakes_apart(discount):
    """Fixed points of TD(0) on the chain: the right one, and those that the docstring gives for the mistakes."""
    p, r = 0.5, 1.0

    def fixed_point(value_at_truncation):
        a = b = 0.0
        for _ in range(2000):
            successor = p * value_at_truncation(a, b) + (1 - p) * b
            a, b = discount * successor, r + discount * successor
        return np.array([a, b])

    right = fixed_point(lambda a, b: b)
    terminated, reset = fixed_point(lambda a, b: 0.0), fixed_point(lambda a, b: a)
    np.testing.assert_allclose(right, [v for _, v in diagnostic.probes()["truncation"].values(discount)], rtol=1e-6)
    v_b = r / (1 - discount * (1 - p))
    np.testing.assert_allclose(terminated, [discount * (1 - p) * v_b, v_b], rtol=1e-6)
    v_a = discount * (1 - p) * r / (1 - discount)
    np.testing.assert_allclose(reset, [v_a, v_a + r], rtol=1e-6)
    for wrong in (terminated, reset):
        assert np.all(np.abs(wrong - right) > 0.4), "far outside the tolerance of 0.1, in both states"


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_without_memory_the_memory_probe_pays_nothing(continuous):
    env = diagnostic.memory(continuous)
    guesses = np.linspace(-1, 1, 5, dtype=np.float32)[:, None] if continuous else [0, 1]
    means = []
    for guess in guesses:
        _, rewards, *_ = play(env, lambda h, t: np.full((len(h), *np.shape(guess)), guess), 4)
        means.append(rewards[:, 3].mean())
        assert np.all(rewards[:, :3] == 0)
    assert max(means) < 0.1 and abs(means[len(means) // 2]) < 0.1


def test_only_the_first_observation_of_the_memory_probe_shows_the_cue():
    observations, *_ = play(diagnostic.memory(), lambda h, t: np.zeros(len(h), np.int32), 4)
    assert set(np.unique(observations[:, 0, 0])) == {-1.0, 1.0} and np.all(observations[:, 1:, 0] == 0)
    np.testing.assert_array_equal(observations[0, :4, 1], [0, 0, 0, 1])


def test_masked_actions():
    env = diagnostic.masked_action_reward()
    for action in range(3):
        state, observation = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(jax.random.key(0), 32), env.params)
        sign, mask = observation["observation"][:, 0], observation["action_mask"]
        np.testing.assert_array_equal(mask, np.stack([np.ones(32), np.ones(32), sign > 0], axis=1).astype(bool))
        _, ts = jax.vmap(env.step, in_axes=(None, 0, None, None))(jax.random.key(1), state, action, env.params)
        np.testing.assert_allclose(ts.reward, action / 2)


def test_multi_discrete_pays_by_entry():
    env = diagnostic.multi_discrete_action_reward()
    for sign, right in ((1.0, (1, 2)), (-1.0, (0, 1))):
        for action in np.ndindex(2, 3):
            _, ts = env.step(jax.random.key(0), jnp.float32(sign), jnp.array(action), env.params)
            assert float(ts.reward) == np.mean(np.array(action) == right)


def test_payoffs_are_traced():
    env = diagnostic.action_reward()
    params = diagnostic.RewardParams(jnp.array([1.0, 2.0, 5.0]))
    _, ts = jax.vmap(lambda p: env.step(jax.random.key(0), (), 1, p))(params)
    np.testing.assert_allclose(ts.reward, [1.0, 2.0, 5.0])
    env = diagnostic.memory(num_steps=6)
    _, _, terminated, _ = play(env, lambda h, t: np.zeros(len(h), np.int32), 6, num=4)
    np.testing.assert_array_equal(terminated, [[False] * 5 + [True]] * 4)


@pytest.mark.parametrize("num_cues, distraction", [(2, 0.0), (3, 1.0)])
def test_memory_chain_pays_for_the_first_symbol(num_cues, distraction):
    env = memory.memory_chain(5, num_cues, distraction=distraction)
    recall = lambda h, t: h[:, 0, :num_cues].argmax(-1).astype(np.int32)  # noqa: E731
    observations, rewards, terminated, truncated = play(env, recall, 5)
    np.testing.assert_array_equal(rewards, [[0, 0, 0, 0, 1]] * NUM)
    np.testing.assert_array_equal(terminated, [[False] * 4 + [True]] * NUM)
    assert not truncated.any()
    shown = observations[:, 1:4, :num_cues].sum(-1)
    assert np.all(shown == distraction), "in between, symbols are shown with the probability of distraction"
    np.testing.assert_array_equal(observations[0, :5, num_cues:], [[1, 0], [0, 0], [0, 0], [0, 0], [0, 1]])
    for guess in range(num_cues):
        _, rewards, *_ = play(env, lambda h, t: np.full(len(h), guess, np.int32), 5)
        assert abs(rewards.sum(1).mean()) < 0.1, "chance is 0"


def test_t_maze_pays_for_the_turn_that_the_first_observation_showed():
    env = memory.t_maze(3)

    def act(history, t, turn=lambda cue: 2 + cue):
        at_junction = history[:, -1, 3] == 1
        return np.where(at_junction, turn(history[:, 0, 1]), 0).astype(np.int32)

    observations, rewards, terminated, truncated = play(env, act, 4)
    np.testing.assert_array_equal(rewards, [[0, 0, 0, 1]] * NUM)
    np.testing.assert_array_equal(terminated, [[False] * 3 + [True]] * NUM)
    assert not truncated.any() and set(observations[:, 0, 1]) == {0.0, 1.0} and np.all(observations[:, 1:, :2] == 0)
    _, rewards, *_ = play(env, lambda h, t: act(h, t, lambda cue: 3 - cue), 4)
    np.testing.assert_array_equal(rewards, [[0, 0, 0, -1]] * NUM)
    _, rewards, terminated, _ = play(env, lambda h, t: np.ones(len(h), np.int32), 12, num=4)
    assert np.all(rewards[:, -1] == -1) and np.all(terminated[:, -1]) and not rewards[:, :-1].any(), "standing still"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: diagnostic.memory(num_steps=1), "memory: num_steps is 1, must be >= 2"),
        (lambda: memory.memory_chain(1), "length is 1, must be >= 2"),
        (lambda: memory.memory_chain(num_cues=1), "num_cues is 1, must be >= 2"),
        (lambda: memory.memory_chain(distraction=1.5), "distraction is 1.5, must be in"),
        (lambda: memory.t_maze(0), "length is 0, must be >= 1"),
        (lambda: memory.t_maze(5, max_steps=5), "max_steps is 5, must be > length = 5"),
    ],
)
def test_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
