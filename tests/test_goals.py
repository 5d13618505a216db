"""Goals drawn from data: their distribution by counting, what is written by plain loops over small trajectories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import data
from jaxrl.cli import main
from jaxrl.data.goals import (
    GoalHparams,
    OptionHparams,
    SubgoalHparams,
    goal_view,
    later_rows,
    option_targets,
    relabel_goals,
    subgoals,
    trajectories,
    with_rows,
)
from jaxrl.envs.point_maze import collect_navigate
from jaxrl.policy_file import load_policy
from jaxrl.transforms import chain
from jaxrl.types import Agent, Transition, no_memory

KEY = jax.random.key(0)
LENGTHS = (6, 1, 9, 4)
D = sum(LENGTHS)
LAST = np.repeat(np.cumsum(LENGTHS) - 1, LENGTHS)  # of each row's trajectory


def dataset(weight=None):
    """States are row + 0.5, goals 10 * row; the end of the second trajectory is a termination, others truncations."""
    rows = jnp.arange(D)
    ends = jnp.asarray(LAST) == rows
    terminated = ends & (rows == 6)
    extras = {} if weight is None else {"weight": jnp.asarray(weight, jnp.float32)}
    state = rows[:, None] + 0.5
    data = Transition(state, rows, 100.0 + rows, terminated, ends & ~terminated, state + 1, extras)
    return with_rows(goal_view(data, lambda o: 10 * (o - 0.5)))


def drawn(transform, count, key=KEY, data=None, rows=None):
    """`count` draws for every row: leaves [count * D]."""
    data = dataset() if data is None else data
    rows = np.tile(np.arange(D), count) if rows is None else rows
    batch = jax.tree.map(lambda x: x[rows], data)
    batch = batch._replace(extras=batch.extras | {"shared": trajectories(data)})
    state = transform.init(key, transform.hparams, batch)
    made = jax.jit(lambda batch, state: transform.apply(key, state, batch))(batch, state)
    made.extras.pop("shared")
    return jax.tree.map(np.asarray, made)


def agree(counts, probabilities):
    """Counts [K] of draws within four standard deviations of their expectation, none where the probability is 0."""
    probabilities, n = np.asarray(probabilities, np.float64), counts.sum()
    np.testing.assert_allclose(probabilities.sum(), 1.0, atol=1e-6)
    spread = 4 * np.sqrt(n * probabilities * (1 - probabilities))
    assert (np.abs(counts - n * probabilities) <= spread + 1e-6 * n).all(), (counts, n * probabilities)


def later_probabilities(t, discount):
    """Of every row, by the definition: a geometric number of steps, cut at the end of the trajectory."""
    p, left = np.zeros(D), int(LAST[t] - t)
    if left == 0:
        p[t] = 1.0
    for k in range(1, left + 1):
        p[t + k] = 1 / left if discount == 1 else (1 - discount) * discount ** (k - 1)
    if left and discount < 1:
        p[LAST[t]] += discount**left
    return p


def test_ends_of_trajectories():
    np.testing.assert_array_equal(trajectories(dataset()).last, LAST)


@pytest.mark.parametrize("discount", [0.0, 0.6, 0.99, 1.0])
def test_later_rows_against_counting(discount):
    n = 4000
    row = jnp.repeat(jnp.arange(D), n)
    rows = np.asarray(jax.jit(later_rows)(KEY, row, jnp.asarray(LAST)[row], discount)).reshape(D, n)
    for t in range(D):
        agree(np.bincount(rows[t], minlength=D), later_probabilities(t, discount))


def test_goals_against_counting():
    made = drawn(relabel_goals(GoalHparams(0.3, 0.5, 0.6)), 4000)
    goal = made.extras["goal_row"].reshape(4000, D)
    for t in range(D):
        expected = 0.3 * (np.arange(D) == t) + 0.5 * later_probabilities(t, 0.6) + 0.2 / D
        agree(np.bincount(goal[:, t], minlength=D), expected)


def test_what_a_goal_changes():
    made = drawn(relabel_goals(), 20)
    goal, row = made.extras["goal_row"], made.extras["row"]
    for x in (made.observation, made.next_observation):
        np.testing.assert_array_equal(x["desired_goal"][:, 0], 10.0 * goal)
    np.testing.assert_array_equal(made.observation["achieved_goal"][:, 0], 10.0 * row)
    np.testing.assert_array_equal(made.next_observation["observation"][:, 0], row + 1.5)
    there = goal == row
    np.testing.assert_array_equal(made.terminated, there)
    np.testing.assert_array_equal(made.reward, np.where(there, 0.0, -1.0))
    before = np.asarray(dataset().truncated)[row]
    np.testing.assert_array_equal(made.truncated, before & ~there)
    assert there.any() and (before & there).any()


def test_subgoals_against_loops():
    made = drawn(chain(relabel_goals(), subgoals(SubgoalHparams(3.0, 0.5))), 200)
    row, achieved = made.extras["row"], lambda name: (made.extras[name][:, 0] / 10).astype(int)
    goal, far = achieved("high_goal"), achieved("subgoal")
    target = np.round(made.extras["high_target"]["observation"][:, 0] - 0.5).astype(int)
    elsewhere = 0
    for t, g, w, s in zip(row, goal, far, target):
        last = LAST[t]
        assert w == min(t + 3, last)
        later = t < g <= last or (g == t == last)
        # A goal beyond reach of the trajectory was drawn from all rows; one inside of it, by either way.
        assert s == min(t + 3, last) if not later else s in (min(t + 3, g), min(t + 3, last))
        elsewhere += not later
    assert 0.3 < elsewhere / len(row) < 0.5
    made = drawn(chain(relabel_goals(), subgoals(SubgoalHparams(3.0, 0.0))), 2000)
    goal = (made.extras["high_goal"][:, 0] / 10).astype(int).reshape(2000, D)
    target = np.round(made.extras["high_target"]["observation"][:, 0] - 0.5).astype(int).reshape(2000, D)
    for t in range(D):
        agree(np.bincount(goal[:, t], minlength=D), later_probabilities(t, 1.0))
    np.testing.assert_array_equal(target, np.minimum(np.arange(D) + 3, goal))


def test_option_targets_against_loops():
    """A goal inside of the option, at its end, just behind it, before it, elsewhere; options that trajectories cut."""
    n = 3
    made = drawn(chain(relabel_goals(GoalHparams(0.2, 0.6, 0.8)), option_targets(OptionHparams(float(n)))), 100)
    option, goals, seen = made.extras["option"], made.extras["goal_row"], set()
    for i, (t, g) in enumerate(zip(made.extras["row"], goals)):
        reached, steps, s = t == g, 0, t
        while not reached and steps < n and s < LAST[t]:
            s, steps = s + 1, steps + 1
            reached = s == g
        kind = "reached" if reached else "whole" if steps == n else "cut"
        seen.add((kind, steps if reached else 0))
        assert option.extras["weight"][i] == (kind != "cut")
        if kind != "cut":
            assert option.reward[i] == (0.0 if reached else -1.0) and option.terminated[i] == reached
            assert option.observation["observation"][i, 0] == t + 0.5
            assert option.next_observation["desired_goal"][i, 0] == option.observation["desired_goal"][i, 0] == 10 * g
        if kind == "whole":
            assert option.next_observation["observation"][i, 0] == t + n + 0.5
    assert seen == {("reached", k) for k in range(n + 1)} | {("whole", 0), ("cut", 0)}
    assert not option.truncated.any()


def test_numbers_are_traced():
    """A sweep over steps and probabilities is a vmap."""
    transform = chain(relabel_goals(), subgoals(), option_targets())
    data = dataset()
    batch = data._replace(extras=data.extras | {"shared": trajectories(data)})

    def make(hp):
        return transform.apply(KEY, transform.init(KEY, hp, batch), batch)

    first, second = ((GoalHparams(), SubgoalHparams(k), OptionHparams(n)) for k, n in ((1.0, 1.0), (4.0, 2.0)))
    both = jax.vmap(make)(jax.tree.map(lambda a, b: jnp.array([a, b]), first, second))
    for i, hp in enumerate((first, second)):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), both, make(hp))


def test_rows_of_weight_zero_are_no_goals():
    weight = np.arange(D) % 3 != 1
    transform = chain(relabel_goals(), subgoals(SubgoalHparams(2.0, 0.3)), option_targets(OptionHparams(2.0)))
    made = drawn(transform, 50, data=dataset(weight))
    there = made.extras["weight"] > 0
    assert 0.1 < there.mean() < 0.6
    assert weight[made.extras["row"][there]].all() and weight[made.extras["goal_row"][there]].all()
    for name in ("subgoal", "high_goal"):
        assert weight[(made.extras[name][there, 0] / 10).astype(int)].all()
    option = made.extras["option"]
    counted = (option.extras["weight"] > 0) & ~option.terminated
    following = np.round(option.next_observation["observation"][counted, 0] - 0.5).astype(int)
    assert counted.any() and weight[following].all()
    assert not option.extras["weight"][~there].any()


def test_offline_gives_every_batch_what_is_shared():
    seen = {}

    def update(key, state, batch):
        seen.update(batch.extras)
        return state, {"last": batch.extras["shared"].last[batch.extras["row"]].sum().astype(jnp.float32)}

    learner = Agent(lambda key, hp, example: (), no_memory, None, None, update)
    data = dataset()
    loop = jaxrl.offline(learner, data, batch_size=D, shared=trajectories(data))
    state = loop.init(KEY)
    for _ in range(2):
        state, metrics = loop.step(state)
        np.testing.assert_array_equal(seen["shared"].last, LAST)
        assert metrics["last"] == LAST[np.asarray(seen["row"])].sum()


@pytest.mark.parametrize("field", ["row", "shared"])
def test_what_is_missing_is_named(field):
    data = dataset()
    batch = data._replace(extras={"row": data.extras["row"], "shared": trajectories(data)})
    batch.extras.pop(field)
    with pytest.raises(ValueError, match=f"relabel_goals: the batch has no extras\\['{field}'\\]"):
        relabel_goals().apply(KEY, relabel_goals().init(KEY, GoalHparams(), batch), batch)


def test_observations_need_goals():
    data = dataset()
    with pytest.raises(ValueError, match="needs a dict with 'achieved_goal' and 'desired_goal'"):
        trajectories(data._replace(observation=data.observation["observation"]))


def test_the_command_line_learns_goals_from_a_file(folder, capsys):
    made = collect_navigate(KEY, "umaze", 60, episode_length=20)
    made = goal_view(made, lambda observation: observation[..., :2])
    data.write("d.npz", data.Dataset(jax.tree.map(np.asarray, made), {"environment": "point_maze/umaze"}))
    train = ["train", "gcbc", "point_maze/umaze", "--env.view", "goal", "--dataset", "d.npz"]
    small = ["--widths", "4", "--updates", "3", "--batch-size", "8", "--episodes", "2", "--env.max-steps", "5"]
    assert main([*train, *small, "--out", "run", "--quiet"]) == 0
    learner = load_policy("run/learner.safetensors")[0]
    assert learner["transform/hparams/p_trajectory"] == 1.0
    assert main([*train, *small, "--window", "10"]) == 2
    assert "--window has single rows; gcbc needs whole episodes" in capsys.readouterr().err
