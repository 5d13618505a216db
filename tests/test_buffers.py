"""Buffers against plain Python: what is stored, what is read across episode ends and the write head, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import buffers
from jaxrl.buffers import tree
from jaxrl.types import Transition, weight

KEY = jax.random.key(0)
DISCOUNT = 0.5


def stream(rollouts, length, columns, seed=0, end=0.25, weights=False):
    """Rollouts [T, N] of consecutive steps: an observation is (column, step); `next_observation` is (column, -step - 1)
    where the episode ended (the true successor), else the next observation."""
    rng = np.random.default_rng(seed)
    total = rollouts * length
    kind = rng.uniform(size=(total, columns))
    terminated, truncated = kind < end / 2, (kind >= end / 2) & (kind < end)
    step, column = np.meshgrid(np.arange(total), np.arange(columns), indexing="ij")
    here = np.stack([column, step], -1).astype(np.float32)
    after = np.where((terminated | truncated)[..., None], np.stack([column, -step - 1], -1), here + [0, 1])
    extras = {"weight": (rng.uniform(size=(total, columns)) < 0.5).astype(np.float32)} if weights else {}
    reward = rng.normal(size=(total, columns)).astype(np.float32)
    whole = Transition(here, step.astype(np.int32), reward, terminated, truncated, after.astype(np.float32), extras)
    parts = [jax.tree.map(lambda x: x[i * length : (i + 1) * length], whole) for i in range(rollouts)]
    return whole, parts


def fill(buffer, parts):
    state = buffer.init(buffer.hparams, parts[0])
    add = jax.jit(buffer.add)
    for part in parts:
        state = add(state, part)
    return state


def draw(buffer, state, batches=1, seed=0):
    keys = jax.random.split(jax.random.key(seed), batches)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(buffer.sample, (0, None)))(keys, state))


def places(data):
    """column, step of each row's observation."""
    return data.observation[..., 0].astype(int), data.observation[..., 1].astype(int)


@pytest.mark.parametrize("rollouts, capacity", [(2, 48), (4, 48), (7, 48), (9, 50)])
def test_uniform_returns_the_newest_rows_unchanged_and_equally_often(rollouts, capacity):
    whole, parts = stream(rollouts, 4, 3)
    buffer = buffers.replay(capacity, 100)
    state = fill(buffer, parts)
    data = draw(buffer, state, 60)
    column, step = places(data)
    kept = min(rollouts * 4, -(-capacity // 12) * 4)
    assert set(step.reshape(-1)) == set(range(rollouts * 4 - kept, rollouts * 4)) and set(column.reshape(-1)) == {
        0,
        1,
        2,
    }
    for got, stored in zip(jax.tree.leaves(data), jax.tree.leaves(whole)):
        np.testing.assert_array_equal(got, stored[step, column])
    count = np.bincount((step * 3 + column).reshape(-1), minlength=12 * rollouts)[-kept * 3 :]
    expected = 6000 / (kept * 3)
    assert ((count - expected) ** 2 / expected).sum() < 2 * kept * 3  # chi-square, far beyond its 99.9th percentile


def test_a_buffer_keeps_dtypes_and_says_its_size():
    whole, parts = stream(2, 4, 3)
    parts = [p._replace(observation=(p.observation).astype(np.uint8), next_observation=()) for p in parts]
    buffer = buffers.replay(1200, 8, store_next_observation=False)
    state = fill(buffer, parts)
    assert state.ring.data.observation.dtype == jnp.uint8
    assert buffers.num_bytes(state.ring.data) == 1200 * (2 + 4 + 4 + 1 + 1)
    shapes = jax.eval_shape(buffer.init, buffer.hparams, parts[0])
    assert buffers.num_bytes(shapes) == buffers.num_bytes(state)
    np.testing.assert_array_less(0, buffers.num_bytes(state) - buffers.num_bytes(state.ring.data))


@pytest.mark.parametrize("rollouts", [2, 3, 8])
def test_observations_stored_once_give_the_same_rows_where_the_successor_is_known(rollouts):
    whole, parts = stream(rollouts, 4, 3)
    buffer = buffers.replay(36, 100, store_next_observation=False)
    data = draw(buffer, fill(buffer, parts), 20)
    column, step = places(data)
    terminated, truncated = whole.terminated[step, column], whole.truncated[step, column]
    unknown = (truncated | (step == rollouts * 4 - 1)) & ~terminated
    np.testing.assert_array_equal(data.extras["weight"], 1.0 - unknown)
    plain = ~(terminated | truncated) & ~unknown
    np.testing.assert_array_equal(data.next_observation[plain], whole.next_observation[step, column][plain])
    assert unknown.any() and plain.any()


@pytest.mark.parametrize("store", [True, False])
def test_rows_of_weight_zero_are_never_drawn(store):
    whole, parts = stream(9, 4, 3, weights=True)
    buffer = buffers.replay(30, 50, store_next_observation=store)
    state = fill(buffer, parts)
    data = draw(buffer, state, 40)
    column, step = places(data)
    there = data.extras["weight"] > 0
    if store:  # only rows that are there take memory: the newest 30 of them, row by row
        assert there.all()
        order = [(s, c) for s in range(36) for c in range(3) if whole.extras["weight"][s, c] > 0][-30:]
        assert set(zip(step.reshape(-1), column.reshape(-1))) == set(order)
    np.testing.assert_array_equal(there & (whole.extras["weight"][step, column] == 0), False)


def n_step_reference(whole, step, column, n, newest, stored_next):
    """reward, num_steps, next observation, terminated of the transition that starts at a row; None if it is no row."""
    weights = whole.extras.get("weight", np.ones_like(whole.reward))
    reward, passed, last = 0.0, 0, None
    for s in range(step, min(step + n, newest + 1)):
        known = stored_next or whole.terminated[s, column] or not (whole.truncated[s, column] or s == newest)
        if not known:
            break
        if weights[s, column] == 0:
            if s == step:
                return None
            continue
        reward, passed, last = reward + DISCOUNT**passed * whole.reward[s, column], passed + 1, s
        if whole.terminated[s, column] or whole.truncated[s, column]:
            break
    if last is None:
        return None
    return reward, passed, whole.next_observation[last, column], whole.terminated[last, column]


@pytest.mark.parametrize(
    "n, store, weights", [(1, True, False), (3, True, False), (3, False, False), (3, True, True), (6, False, True)]
)
def test_n_step_transitions_stop_at_ends_and_at_the_write_head(n, store, weights):
    whole, parts = stream(7, 4, 3, weights=weights)
    reader = buffers.n_step(n, hparams=buffers.NStepHparams(DISCOUNT))
    buffer = buffers.replay(36, 200, reader=reader, store_next_observation=store)
    data = draw(buffer, fill(buffer, parts), 4)
    column, step = places(data)
    seen = 0
    for i in np.ndindex(step.shape):
        expected = n_step_reference(whole, step[i], column[i], n, 27, store)
        if expected is None:
            assert data.extras["weight"][i] == 0
            continue
        reward, passed, after, terminated = expected
        assert data.extras["weight"][i] == 1 and data.extras["num_steps"][i] == passed
        assert data.terminated[i] == terminated
        np.testing.assert_allclose(data.reward[i], reward, rtol=1e-6)
        if store or not terminated:
            np.testing.assert_array_equal(data.next_observation[i], after)
        seen += 1
    assert seen > 100 and set(step.reshape(-1)) == set(range(16, 28))


@pytest.mark.parametrize("sampler", [buffers.uniform(), buffers.prioritized()])
@pytest.mark.parametrize("rollouts", [2, 6])
def test_sequences_are_consecutive_and_never_cross_the_write_head(sampler, rollouts):
    whole, parts = stream(rollouts, 4, 3)
    buffer = buffers.replay(36, 50, reader=buffers.sequences(5), sampler=sampler)
    data = draw(buffer, fill(buffer, parts), 20)  # [20, L, B]
    column, step = places(data)
    np.testing.assert_array_equal(step, step[:, :1] + np.arange(5)[:, None])
    np.testing.assert_array_equal(column, np.broadcast_to(column[:, :1], column.shape))
    np.testing.assert_array_equal(data.reward, whole.reward[step, column])
    newest = rollouts * 4 - 1
    assert set(step[:, 0].reshape(-1)) == set(range(max(0, newest - 11), newest - 3))


def test_the_tree_draws_in_proportion_and_never_what_has_no_priority():
    n, draws = 3000, 200_000
    rng = np.random.default_rng(0)
    priority = rng.uniform(size=n) ** 4 * (rng.uniform(size=n) < 0.7)
    sums = jax.jit(tree.put)(tree.init_sums(n), jnp.arange(n), jnp.asarray(priority, jnp.float32))
    np.testing.assert_allclose(tree.total(sums), priority.sum(), rtol=1e-5)
    index = np.asarray(jax.jit(tree.stratified, static_argnums=2)(KEY, sums, draws))
    count = np.bincount(index, minlength=n)
    expected = draws * priority / priority.sum()
    assert count[priority == 0].sum() == 0
    np.testing.assert_array_less(np.abs(count - expected), 2.0)  # stratified: within one on either side
    mass = jax.random.uniform(KEY, (draws,)) * tree.total(sums)
    index = np.asarray(jax.jit(tree.find)(sums, mass))
    count, often = np.bincount(index, minlength=n), expected > 5
    chi_square = ((count - expected)[often] ** 2 / expected[often]).sum()
    degrees = often.sum() - 1
    assert chi_square < degrees + 3.1 * np.sqrt(2 * degrees)  # one-sided, the 99.9th percentile


def test_the_tree_finds_what_a_cumulative_sum_finds():
    priority = jnp.array([0.0, 1.0, 0.0, 2.0, 1.0] + [0.0] * 30 + [4.0] + [0.0] * 300)
    sums = tree.put(tree.init_sums(len(priority)), jnp.arange(len(priority)), priority)
    mass = jnp.array([0.0, 0.5, 1.0, 2.5, 3.0, 3.9, 4.0, 7.9, 8.0, 9.0])
    np.testing.assert_array_equal(tree.find(sums, mass), [1, 1, 3, 3, 4, 4, 35, 35, 35, 35])


def test_sums_stay_exact_after_many_changes_and_duplicates():
    n = 500
    rng = np.random.default_rng(1)
    put, sums = jax.jit(tree.put), tree.init_sums(n)
    for i in range(50):
        index, value = rng.integers(0, n, 64), rng.uniform(size=64).astype(np.float32) * 10.0 ** (i % 7 - 3)
        sums = put(sums, np.append(index, tree.NO_INDEX), np.append(value, 1.0).astype(np.float32))
        flat = np.asarray(sums[0]).reshape(-1)
        assert all(any(flat[j] == value[index == j]) for j in index)
        for below, above in zip(sums[:-1], sums[1:]):
            np.testing.assert_array_equal(np.asarray(above).reshape(-1)[: len(below)], np.asarray(jnp.sum(below, -1)))


@pytest.mark.parametrize("rollouts", [3, 8])
def test_prioritized_sampling_follows_reported_priorities_with_importance_weights(rollouts):
    whole, parts = stream(rollouts, 4, 3)
    buffer = buffers.replay(36, 120, sampler=buffers.prioritized())
    state = fill(buffer, parts)
    error = np.abs(whole.reward)

    def report(state, key):
        data = buffer.sample(key, state)
        return buffer.prioritize(state, data, jnp.abs(data.reward)), None

    state, _ = jax.jit(lambda state: jax.lax.scan(report, state, jax.random.split(KEY, 40)))(state)
    data = draw(buffer, state, 100, seed=1)
    column, step = places(data)
    low = max(0, rollouts * 4 - 12)
    power = (error[low : rollouts * 4] + 1e-6) ** 0.6
    expected = power / power.sum()
    count = np.zeros_like(expected)
    np.add.at(count, (step - low, column), 1)
    np.testing.assert_allclose(count / count.sum(), expected, atol=0.004)
    importance = (expected[step - low, column]) ** -0.4
    np.testing.assert_allclose(data.extras["weight"], importance / importance.max(axis=1, keepdims=True), rtol=1e-4)


def test_new_rows_have_the_largest_priority_and_overwritten_ones_their_own():
    _, parts = stream(4, 4, 3)
    buffer = buffers.replay(36, 24, sampler=buffers.prioritized())
    state = fill(buffer, parts[:3])
    data = buffer.sample(KEY, state)
    state = buffer.prioritize(state, data, jnp.full(24, 9.0))
    largest = float((9.0 + 1e-6) ** 0.6)
    state = buffer.add(state, parts[3])  # over rows 0 .. 3
    priority = np.asarray(state.sampler.sums[0]).reshape(-1)
    np.testing.assert_allclose(priority[:12], largest, rtol=1e-6)
    assert set(np.round(priority[12:36], 5)) == {1.0, np.float32(np.round(largest, 5))}
    assert priority[36:].sum() == 0


def test_prioritized_padding_is_never_drawn():
    whole, parts = stream(9, 4, 3, weights=True)
    buffer = buffers.replay(36, 60, sampler=buffers.prioritized(), reader=buffers.n_step(2))
    data = draw(buffer, fill(buffer, parts), 20)
    column, step = places(data)
    assert (whole.extras["weight"][step, column] == 1).all() and (data.extras["weight"] > 0).all()


def test_hindsight_takes_goals_from_the_same_episode_and_leaves_the_rest():
    whole, parts = stream(7, 4, 3, end=0.2)

    def with_goal(data):
        see = lambda x: {"achieved_goal": x[..., 1:], "desired_goal": 0 * x[..., 1:] - 1000.0, "observation": x}  # noqa: E731
        return data._replace(observation=see(data.observation), next_observation=see(data.next_observation))

    def reward(achieved, desired):
        reached = (achieved == desired)[..., 0]
        return reached.astype(jnp.float32), reached

    reader = buffers.hindsight(buffers.goal_relabel(reward), horizon=12)
    buffer = buffers.replay(36, 200, reader=reader)
    data = draw(buffer, fill(buffer, [with_goal(p) for p in parts]), 40)
    step = data.observation["observation"][..., 1].astype(int)
    column = data.observation["observation"][..., 0].astype(int)
    goal = data.observation["desired_goal"][..., 0]
    np.testing.assert_array_equal(goal, data.next_observation["desired_goal"][..., 0])
    changed = goal != -1000
    assert 0.77 < changed.mean() < 0.83
    np.testing.assert_array_equal(data.reward[~changed], whole.reward[step, column][~changed])
    after = whole.next_observation[..., 1]
    for s, c, g, r, t in zip(*(x[changed] for x in (step, column, goal, data.reward, data.terminated))):
        ends = np.flatnonzero((whole.terminated | whole.truncated)[s:, c])
        end = min(s + (ends[0] if len(ends) else 99), 27)
        assert g in after[s : end + 1, c]
        assert r == (g == after[s, c]) and t == (g == after[s, c])
    # Uniform over what is left of the episode: of rows with one more step the goal is their own about half the time.
    two = changed & np.array([[self_and_next(whole, s, c) for s, c in zip(*row)] for row in zip(step, column)])
    assert 0.4 < (goal == after[step, column])[two].mean() < 0.6


def self_and_next(whole, step, column):
    """Whether exactly one more row follows in the episode."""
    last = whole.terminated | whole.truncated
    return bool(not last[step, column] and (step + 1 == 27 or (step + 1 < 27 and last[step + 1, column])))


def test_not_ready_before_min_size():
    _, parts = stream(4, 4, 3)
    buffer = buffers.replay(48, 8, min_size=30)
    assert [bool(buffer.is_ready(fill(buffer, parts[:n]))) for n in (1, 2, 3)] == [False, False, True]
    long = buffers.replay(48, 8, reader=buffers.sequences(9))
    assert [bool(long.is_ready(fill(long, parts[:n]))) for n in (1, 2, 3)] == [False, False, True]


def test_agents_share_a_row():
    whole, parts = stream(3, 4, 3)
    two = lambda p: jax.tree.map(lambda x: np.stack([x, x], 2), p)  # noqa: E731
    buffer = buffers.replay(48, 30, sampler=buffers.prioritized(), reader=buffers.n_step(3))
    state = fill(buffer, [two(p) for p in parts])
    data = jax.jit(buffer.sample)(KEY, state)
    single = buffers.replay(48, 30, sampler=buffers.prioritized(), reader=buffers.n_step(3))
    alone = jax.jit(single.sample)(KEY, fill(single, parts))
    for a, b in zip(jax.tree.leaves(data), jax.tree.leaves(alone)):
        np.testing.assert_array_equal(a, np.stack([b, b], 1))
    state = buffer.prioritize(state, data, jnp.ones(30) * 2)
    assert weight(data).shape == (30, 2) and float(tree.total(state.sampler.sums)) > 36


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: buffers.replay(0, 8), "capacity is 0"),
        (lambda: buffers.replay(2**30 + 1, 8), "must be <= 2..30"),
        (lambda: buffers.replay(8, 0), "batch_size is 0"),
        (lambda: buffers.replay(8, 8, min_size=9), "min_size is 9, must be <= capacity"),
        (lambda: buffers.n_step(0), "n is 0"),
        (lambda: buffers.sequences(0), "length is 0"),
        (lambda: buffers.hindsight(None, 0), "horizon is 0"),
    ],
)
def test_bad_sizes(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_reader_longer_than_the_ring():
    _, parts = stream(1, 4, 3)
    buffer = buffers.replay(12, 8, reader=buffers.sequences(5))
    with pytest.raises(ValueError, match="its reader needs 5"):
        buffer.init(buffer.hparams, parts[0])
