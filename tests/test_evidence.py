"""Building blocks of the scripts of evidence, at sizes that say nothing about learning."""

import pathlib
import sys

import jax
import numpy as np
import pytest

import jaxrl
from jaxrl import data

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "evidence"))

import cells  # noqa: E402
import d4rl  # noqa: E402
import dataset_perspective  # noqa: E402
import hierarchy  # noqa: E402
import ota  # noqa: E402


@pytest.fixture(scope="module")
def mazes():
    return d4rl.maze(rows=600)


def test_stitching_data_has_no_whole_way(mazes):
    stitch = mazes.datasets["stitch"]
    starts, stops = data.episode_bounds(stitch)
    path = np.array(d4rl.PATH)

    def place(rows):  # along the path, 0 is the goal
        cell = np.floor(np.asarray(stitch.transitions.observation)[rows, :2])
        return np.argmax(np.all(cell[:, None] == path, -1), -1)

    first, last = place(starts), place(stops - 1)
    assert np.abs(first - last).max() <= d4rl.REACH
    assert np.max(stops - starts) <= 20 < 5 * (len(path) - 1)  # 5 steps a cell at full speed: no time for the whole way
    rewarded = data.episode_returns(stitch) > 0
    assert rewarded.any() and first[rewarded].max() <= d4rl.REACH < len(path) - 1


def test_starts_at_the_far_end(mazes):
    keys = jax.random.split(jax.random.key(1), 32)
    state, observation = jax.vmap(mazes.env.reset, (0, None))(keys, mazes.env.params)
    assert np.all(np.floor(observation[:, :2]) == d4rl.PATH[-1])
    np.testing.assert_array_equal(state.position, observation[:, :2])


def test_same_seed_same_bits(mazes):
    again = d4rl.maze.__wrapped__(rows=600)
    for name, dataset in mazes.datasets.items():
        assert d4rl.digest(dataset) == d4rl.digest(again.datasets[name])
    shifted = dataset._replace(transitions=dataset.transitions._replace(reward=dataset.transitions.reward + 1))
    assert d4rl.digest(shifted) != d4rl.digest(dataset)


def test_references_of_the_maze(mazes):
    assert mazes.expert == 1.0 and mazes.random < 0.2


def test_stack_repeats_short_datasets(mazes):
    whole = mazes.datasets["expert"]
    part = data.take_rows(whole, slice(200))
    rows = cells.stack([whole, part])
    assert rows.reward.shape == (2, 600)
    np.testing.assert_array_equal(rows.observation[1], np.tile(part.transitions.observation, (3, 1)))


def test_every_learner_of_d4rl_trains_on_its_view(mazes):
    views = [learner.view(mazes.datasets["expert"]) for learner in d4rl.LEARNERS.values()]
    assert [data.num_transitions(v) for v in views].count(600) == len(views) - 1  # all but BC of the best
    returns, metrics = cells.learn(
        d4rl.LEARNERS["10 % BC"],
        mazes.env,
        [mazes.datasets["expert"], mazes.datasets["stitch"]],
        d4rl.MAZE,
        num_updates=5,
        num_seeds=2,
        num_episodes=2,
        widths=(8,),
    )
    assert returns.shape == metrics["policy_loss"].shape == (2, 2) and np.isfinite(returns).all()


@pytest.fixture(scope="module")
def cartpole():
    return dataset_perspective.study("CartPole-v1", rows=1024, num_envs=4, unroll_length=32)


def test_five_types(cartpole):
    found = dataset_perspective.measures(cartpole)
    assert tuple(found) == dataset_perspective.TYPES
    assert {data.num_transitions(d) for d in cartpole.datasets.values()} == {1024}
    assert found["replay"][1] == 1.0 and 0 < found["random"][1] < 1
    assert cartpole.expert > cartpole.random


@pytest.mark.parametrize("name", ["BVE", "MCE", "CRR"])
def test_learners_that_need_more_than_rows(cartpole, name):
    datasets = [cartpole.datasets[kind] for kind in ("random", "replay")]
    returns, metrics = cells.learn(
        dataset_perspective.LEARNERS[name],
        cartpole.env,
        datasets,
        dataset_perspective.HPARAMS,
        num_updates=3,
        num_seeds=1,
        num_episodes=2,
        widths=(8,),
    )
    assert returns.shape == metrics["q_value"].shape == (2, 1) and (returns > 0).all()


def test_quality_of_rows_weighs_episodes_by_length(cartpole):
    dataset = cartpole.datasets["random"]
    starts, stops = data.episode_bounds(dataset)
    returns = data.episode_returns(dataset)
    mean = sum(r * (b - a) for a, b, r in zip(starts, stops, returns)) / stops[-1]
    expected = (mean - cartpole.random) / (cartpole.expert - cartpole.random)
    assert dataset_perspective.quality_of_rows(dataset, cartpole) == pytest.approx(expected)
    assert expected > data.tq(dataset, cartpole.random, cartpole.expert)  # long episodes are good ones here


def test_judge_of_the_dataset_perspective():
    coverage = np.array([0.2, 0.1, 0.3, 0.5, 1.0] * 2)
    quality = np.array([0.0, 1.0, 0.1, 0.8, 0.3] * 2)
    names = dataset_perspective.LEARNERS

    def verdict(bc, others):
        scores = dict.fromkeys(names, others) | {"BC": bc}
        cells = dataset_perspective.Cells([], coverage, quality, quality, scores, dict.fromkeys(names, 0))
        return dataset_perspective.judge(cells)[0]

    assert verdict(100 * quality, 100 * coverage) == "met"
    assert verdict(100 * coverage, 100 * coverage) == "partly"
    assert verdict(0.0 * quality + np.arange(10), 50 + 50 * quality) == "missed"


def test_every_method_of_the_hierarchy_traces():
    """With its first setting; the scores of a run are those of its second half."""
    keys, sizes = jax.random.split(jax.random.key(0), 2), dict(num_envs=4, unroll_length=8)
    for agent, hparams, env, grid in hierarchy.corridor_methods(8).values():
        chosen = hierarchy.numbers(hparams, grid[0])
        assert chosen != hparams
        _, metrics = jax.eval_shape(lambda k: hierarchy.train(agent, env, chosen, k, **sizes, steps=96), keys)
        assert metrics["episode/return_sum"].shape == (2, 3)
    metrics = {"episode/return_sum": np.array([[9, 9, 1, 2]]), "episode/count": np.array([[1, 1, 2, 4]])}
    np.testing.assert_allclose(hierarchy.late_return(metrics), [0.5])


def test_every_learner_of_goals_traces():
    """With its first setting, in the smallest sizes; cloning has no values."""
    sizes = dict(widths=(4,), batch=4, updates=2, rows=40)
    keys, shapes = jax.random.split(jax.random.key(0), 2), {}
    data = ota.task("medium", "navigate", 40)[2]
    for method, grid in ota.GRIDS.items():
        env = ota.task("medium", "navigate", 40)[0]
        hparams = jaxrl.make_agent(method, env, offline=True, widths=(4,))[1]
        chosen = ota.numbers(method, "medium", hparams, grid[0])
        train = ota.trainer(method, "medium", "navigate", **sizes)[0]
        shapes[method] = [x.shape for x in jax.eval_shape(train, keys, chosen, data)]
    assert set(map(str, shapes.values())) == {str([(2,), (2, 5, 26), (2,)])}


@pytest.mark.parametrize(
    "ours, theirs, size, verdict",
    [
        ([60.0, 0.9, 90.0], [40.0, 0.8, 70.0], "giant", "met"),
        ([50.0, 0.9, 90.0], [40.0, 0.8, 70.0], "giant", "partly"),
        ([50.0, 0.9, 0.0], [50.0, 0.8, 70.0], "medium", "met"),
        ([10.0, 0.7, 75.0], [40.0, 0.8, 70.0], "giant", "missed"),
    ],
)
def test_judge_of_ota(ours, theirs, size, verdict):
    found = {"ota": ours, "hiql": theirs, "gciql": [30.0, 0.5, 50.0], "gcbc": [5.0]}
    assert ota.judge(size, found)[0] == verdict
