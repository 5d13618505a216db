"""Datasets against plain loops over episodes."""

import jax
import numpy as np
import pytest
from data.toydata import LENGTHS, chain

from jaxrl import data as d
from jaxrl.types import bootstrap, weighted_mean


def episodes(dataset):
    """Lists of row numbers, by a plain loop."""
    found, rows = [], []
    for i in range(d.num_transitions(dataset)):
        rows.append(i)
        if dataset.transitions.terminated[i] or dataset.transitions.truncated[i]:
            found.append(rows)
            rows = []
    assert not rows
    return found


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_episodes():
    dataset = chain()
    starts, stops = d.episode_bounds(dataset)
    assert [list(range(*pair)) for pair in zip(starts, stops)] == episodes(dataset)
    assert list(stops - starts) == list(LENGTHS) and list(d.episode_starts(dataset)) == list(starts)
    reward = dataset.transitions.reward
    np.testing.assert_array_equal(d.episode_returns(dataset), [reward[rows].sum() for rows in episodes(dataset)])
    assert d.num_transitions(dataset) == 10
    assert d.nbytes(dataset) == 10 * (2 * (4 + 16 + 4) + 8 + 4 + 1 + 1 + 4)
    d.check(dataset.transitions)


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_returns_to_go(discount):
    dataset = chain(lengths=(3, 1, 7, 7, 2), terminated=(True, False, True, False, True))
    expected = np.zeros(20)
    for rows in episodes(dataset):
        for i in rows:
            expected[i] = sum(discount**k * dataset.transitions.reward[j] for k, j in enumerate(range(i, rows[-1] + 1)))
    found = d.with_returns(dataset, discount)
    np.testing.assert_allclose(found.transitions.extras["mc_return"], expected, rtol=1e-6, atol=1e-6)
    assert found.transitions.extras["mc_return"].dtype == np.float32 and "cost" in found.transitions.extras
    assert found.metadata["mc_discount"] == discount


@pytest.mark.parametrize("n", [1, 2, 3, 100])
def test_n_step_rows_end_with_their_episode(n):
    dataset, discount = chain(), 0.9
    found = d.n_step(dataset, n, discount).transitions
    for rows in episodes(dataset):
        for i in rows:
            span = [j for j in range(i, i + n) if j <= rows[-1]]
            reward = sum(discount**k * dataset.transitions.reward[j] for k, j in enumerate(span))
            np.testing.assert_allclose(found.reward[i], reward, rtol=1e-6, atol=1e-6)
            assert found.extras["num_steps"][i] == len(span)
            assert found.terminated[i] == dataset.transitions.terminated[span[-1]]
            assert found.truncated[i] == dataset.transitions.truncated[span[-1]]
            picked = jax.tree.map(lambda x: x[span[-1]], dataset.transitions.next_observation)
            equal(jax.tree.map(lambda x: x[i], found.next_observation), picked)
            np.testing.assert_allclose(bootstrap(found, discount)[i], discount ** len(span) * (not found.terminated[i]))
    equal(found.observation, dataset.transitions.observation)


def test_n_step_targets_with_the_true_values_are_the_returns():
    """Where every episode terminates, any n gives the same return to go from the same bootstraps."""
    dataset = d.with_returns(chain(terminated=(True,) * 4), 0.9)
    value = {}
    for i in range(10):
        value[tuple(dataset.transitions.observation["parts"][0][i])] = dataset.transitions.extras["mc_return"][i]
    for n in (1, 2, 5):
        found = d.n_step(dataset, n, 0.9).transitions
        following = [value.get(tuple(o), 0.0) for o in found.next_observation["parts"][0]]
        target = found.reward + bootstrap(found, 0.9) * np.array(following)
        np.testing.assert_allclose(target, dataset.transitions.extras["mc_return"], rtol=1e-5, atol=1e-5)


def test_n_step_rows_are_no_episodes():
    with pytest.raises(ValueError, match="n-step"):
        d.episode_returns(d.n_step(chain(), 2, 0.9))
    d.episode_returns(d.n_step(chain(), 1, 0.9))


@pytest.mark.parametrize(("length", "stride"), [(1, None), (2, None), (3, 2), (4, 1), (9, None)])
def test_windows_hold_every_row_of_one_episode_at_weight_1(length, stride):
    dataset = chain()
    found = d.sequences(dataset, length, stride)
    assert found.reward.shape[0] == length
    expected = []
    for rows in episodes(dataset):
        start = rows[0]
        while True:
            expected.append([j for j in range(start, start + length) if j <= rows[-1]])
            if start + length > rows[-1]:
                break
            start += stride or length
    weight = found.extras["weight"]
    assert weight.shape == (length, len(expected))
    for column, rows in enumerate(expected):
        assert list(weight[:, column]) == [1.0] * len(rows) + [0.0] * (length - len(rows))
        picked = jax.tree.map(lambda x: x[rows], dataset.transitions._replace(extras={}))
        equal(jax.tree.map(lambda x: x[: len(rows), column], found._replace(extras={})), picked)
    if not stride:
        np.testing.assert_allclose(weighted_mean(found.reward, found), dataset.transitions.reward.mean(), rtol=1e-6)


def test_take_best_takes_whole_episodes_of_the_highest_return():
    dataset = chain(lengths=(2, 3, 4, 1), terminated=(True,) * 4)
    reward = np.repeat([1, 3, 2, 9], [2, 3, 4, 1]).astype(np.float32)  # returns 2, 9, 8, 9
    dataset = dataset._replace(transitions=dataset.transitions._replace(reward=reward))
    for fraction, kept in (
        (1e-9, [1]),
        (0.3, [1]),
        (0.31, [1, 3]),
        (0.4, [1, 3]),
        (0.41, [1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ):
        found = d.take_best(dataset, fraction)
        equal(found.transitions, d.take_episodes(dataset, kept).transitions)
    assert list(d.episode_returns(d.take_best(dataset, 0.4))) == [9, 9]


def test_a_cut_episode_is_truncated():
    dataset = chain()
    found = d.take_rows(dataset, np.array([0, 1, 4, 5, 8, 9]))
    assert [len(rows) for rows in episodes(found)] == [2, 2, 2]
    assert not found.transitions.terminated.any()
    assert not dataset.transitions.truncated[5]  # the dataset itself is as it was
    equal(d.take_rows(dataset, slice(None)).transitions, dataset.transitions)


def test_concatenate():
    one, two = chain(), chain(seed=1)
    two = two._replace(metadata={**two.metadata, "behavior": "expert", "more": 1})
    found = d.concatenate([one, two])
    assert found.metadata == {**one.metadata, "behavior": "random + expert"}
    assert [len(rows) for rows in episodes(found)] == 2 * list(LENGTHS)
    equal(d.take_rows(found, slice(10, None)).transitions, two.transitions)
    other = two._replace(transitions=two.transitions._replace(action=two.transitions.action.astype(np.float16)))
    with pytest.raises(ValueError, match=r"dataset 1 has .*action float16\[2\].*dataset 0 .*action float32\[2\]"):
        d.concatenate([one, other])


def test_mixture_has_the_fractions_in_whole_episodes():
    one, two = chain(lengths=(5,) * 40, terminated=(True,) * 40), chain(lengths=(3,) * 40, terminated=(True,) * 40)
    two = two._replace(transitions=two.transitions._replace(extras={"cost": two.transitions.extras["cost"] * 0 + 77}))
    found = d.mixture([one, two], [0.8, 0.2], 150)
    assert d.num_transitions(found) == 150
    of_two = found.transitions.extras["cost"] == 77
    assert of_two.sum() == 30 and sorted(map(len, episodes(found))) == [3] * 10 + [5] * 24
    assert found.metadata["behavior"] == "80 % random + 20 % random"
    assert d.num_transitions(d.mixture([one, two], [0.5, 0.5])) == 240
    drawn = found.transitions.observation["parts"][0][::5][:24, 0]
    assert len(set(drawn)) == 24  # without replacement
    equal(found.transitions, d.mixture([one, two], [0.8, 0.2], 150).transitions)
    halves = d.mixture([one, one], [0.5, 0.5], 100).transitions.observation["parts"][0][::5, 0]
    assert set(halves[:10]) != set(halves[10:])  # each drawn by itself
    assert not np.array_equal(
        drawn, d.mixture([one, two], [0.8, 0.2], 150, seed=5).transitions.observation["parts"][0][::5][:24, 0]
    )


def test_recompute_drops_the_scores_of_the_old_reward():
    dataset = d.recompute(chain(), lambda data: data.next_observation["parts"][1], reward="steps")
    np.testing.assert_array_equal(d.episode_returns(dataset), [n * (n + 1) / 2 for n in LENGTHS])
    assert dataset.metadata == {"environment": "chain", "behavior": "random", "reward": "steps"}


def test_to_device():
    found = d.to_device(chain())
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(found.transitions))
    equal(found.transitions, chain().transitions)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t._replace(reward=t.reward[:-1]), r"action has shape \(10, 2\), reward has \(9,\)"),
        (lambda t: t._replace(reward=t.reward.astype(np.float64)), "reward is float64"),
        (lambda t: t._replace(reward=t.reward[:, None]), "reward has shape"),
        (lambda t: t._replace(terminated=t.terminated.astype(int)), "terminated is int64"),
        (lambda t: t._replace(action=t.action * np.inf), "action is not finite in row 0"),
        (lambda t: t._replace(extras={"x": np.array([object()] * 10)}), "extras/x is object"),
        (lambda t: t._replace(next_observation=t.action), "next_observation has"),
        (lambda t: t._replace(truncated=t.truncated & False), "truncated is False in the last row"),
        (lambda t: jax.tree.map(lambda x: x[:0], t), "at least one row"),
    ],
)
def test_check_names_the_field(change, says):
    with pytest.raises(ValueError, match=says) as error, np.errstate(all="ignore"):
        d.check(change(chain().transitions), "here")
    assert str(error.value).startswith("here: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: d.with_returns(chain(), 1.5), "discount is 1.5"),
        (lambda: d.n_step(chain(), 0, 0.9), "n is 0"),
        (lambda: d.n_step(chain(), 1, -1), "discount is -1"),
        (lambda: d.sequences(chain(), 0), "length is 0"),
        (lambda: d.sequences(chain(), 2, 3), "stride 3"),
        (lambda: d.take_best(chain(), 0), "fraction is 0"),
        (lambda: d.take_rows(chain(), slice(0, 0)), "no rows"),
        (lambda: d.take_episodes(chain(), []), "no rows"),
        (lambda: d.concatenate([]), "no datasets"),
        (lambda: d.mixture([chain()], [0.5]), "sum to 1"),
        (lambda: d.mixture([chain(), chain()], [1.5, -0.5]), "must be > 0"),
        (lambda: d.sample_episodes(chain(), 11), r"must be in \[1, 10\]"),
        (lambda: d.recompute(chain(), lambda t: t.reward[:-1]), r"returned \(9,\)"),
        (lambda: d.recompute(chain(), lambda t: t.reward * np.nan), "finite"),
    ],
)
def test_arguments_out_of_range(call, says):
    with pytest.raises(ValueError, match=says):
        call()
