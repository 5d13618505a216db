"""Predators and prey: outcomes of steps against the exact distribution of the rules, catches by hand, a picture."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import pictures
from jaxrl.envs import predator_prey as module
from jaxrl.envs.check import check_env
from jaxrl.envs.predator_prey import CATCH, DOWN, LEFT, RIGHT, STAY, UP, PredatorPreyState, predator_prey

KEY = jax.random.key(0)
WAYS = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}
SIZE, SPEEDS, REST, PENALTY = 4, (1.0, 1.0, 0.25), 0.25, 1.5
SETTINGS = dict(size=SIZE, num_predators=3, num_prey=2, sight=1, speeds=SPEEDS, prey_rest=REST, penalty=PENALTY)
ENVS = {toroidal: predator_prey(toroidal=toroidal, max_steps=9, **SETTINGS) for toroidal in (False, True)}
STEPS = {toroidal: jax.jit(jax.vmap(env.step, (0, 0, 0, None))) for toroidal, env in ENVS.items()}


def neighbor(cell, action, toroidal):
    """The cell that an action leads to, None if it is off the grid."""
    row, column = (x + y for x, y in zip(cell, WAYS[action]))
    if toroidal:
        return row % SIZE, column % SIZE
    return (row, column) if 0 <= row < SIZE and 0 <= column < SIZE else None


def after_predators(predators, prey, actions, toroidal):
    """{predators' cells: probability}; those that are removed are None."""
    found = collections.Counter()
    who = [i for i, cell in enumerate(predators) if cell and actions[i] in WAYS]
    for order in itertools.permutations(who):
        branches = {tuple(predators): 1.0}
        for i in order:
            then = collections.Counter()
            for cells, p in branches.items():
                goal = neighbor(cells[i], actions[i], toroidal)
                moved = cells if goal is None or goal in cells or goal in prey else (*cells[:i], goal, *cells[i + 1 :])
                then[moved] += p * SPEEDS[i]
                then[cells] += p * (1 - SPEEDS[i])
            branches = then
        for cells, p in branches.items():
            found[cells] += p / len(list(itertools.permutations(who)))
    return found


def after_prey(predators, prey, actions, toroidal):
    """{(predators, prey, reward): probability}, with all predators moved."""
    found = collections.Counter()
    orders = list(itertools.permutations([i for i, cell in enumerate(prey) if cell]))
    for order in orders:
        branches = {(tuple(predators), tuple(prey), 0.0): 1 / len(orders)}
        for i in order:
            then = collections.Counter()
            for (hunters, cells, reward), p in branches.items():
                beside = [x for a in WAYS if (x := neighbor(cells[i], a, toroidal))]
                catching = [j for j, h in enumerate(hunters) if h in beside and actions[j] == CATCH]
                if len(catching) >= 2:
                    left = tuple(None if j in catching else h for j, h in enumerate(hunters))
                    then[left, (*cells[:i], None, *cells[i + 1 :]), reward + 10.0] += p
                    continue
                reward -= PENALTY * len(catching)
                free = [x for x in beside if x not in hunters and x not in cells]
                stays = REST if free else 1.0
                then[hunters, cells, reward] += p * stays
                for x in free:
                    then[hunters, (*cells[:i], x, *cells[i + 1 :]), reward] += p * (1 - stays) / len(free)
            branches = then
        for branch, p in branches.items():
            found[branch] += p
    return found


def distribution(predators, prey, actions, toroidal):
    found = collections.Counter()
    for moved, p in after_predators(predators, prey, actions, toroidal).items():
        for outcome, q in after_prey(moved, prey, actions, toroidal).items():
            found[outcome] += p * q
    return {outcome: p for outcome, p in found.items() if p > 0}


def state_of(predators, prey, time=0):
    """Cells (row, column), None for those that are out."""
    number = lambda cell: 0 if cell is None else SIZE * cell[0] + cell[1]  # noqa: E731
    there = [jnp.array([cell is not None for cell in cells]) for cells in (predators, prey)]
    cells = [jnp.array([number(cell) for cell in cells], jnp.int32) for cells in (predators, prey)]
    return PredatorPreyState(*cells, *there, jnp.int32(time))


def cells_of(numbers, there):
    return tuple(divmod(int(x), SIZE) if y else None for x, y in zip(numbers, there))


def observed(predators, prey, i, toroidal):
    """What predator i sees of the nine cells around it, and what it may do."""
    if predators[i] is None:
        return [0] * 18, [action == STAY for action in range(6)]
    row, column = predators[i]
    around = [(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    around = [(r % SIZE, c % SIZE) if toroidal else (r, c) for r, c in around]
    seen = [int(cell in cells) for cells in (predators, prey) for cell in around]
    beside = [neighbor(predators[i], a, toroidal) for a in WAYS]
    return seen, [*(cell is not None for cell in beside), True, any(cell in prey for cell in beside if cell)]


@pytest.mark.parametrize("toroidal", ENVS)
def test_outcomes_are_as_likely_as_the_rules_say(toroidal):
    """30 crowded states, 400 steps from each: nothing that cannot be, all as often as it should; what is seen then."""
    rng, num, times = np.random.default_rng(1), 30, 400
    states, actions, expected = [], [], []
    for _ in range(num):
        cells = [divmod(int(x), SIZE) for x in rng.permutation(SIZE * SIZE)[:5]]
        if rng.random() < 0.5:  # close together
            close = [(1, 1), (1, 2), (2, 1), (2, 2), (0, 1)]
            cells = [close[x] for x in rng.permutation(5)]
        predators, prey = cells[:3], cells[3:]
        if rng.random() < 0.2:
            predators[rng.integers(3)] = None
        if rng.random() < 0.2:
            prey[rng.integers(2)] = None
        action = rng.choice(6, 3, p=[0.14, 0.14, 0.14, 0.14, 0.04, 0.4])
        states.append(state_of(predators, prey))
        actions.append(action)
        expected.append(distribution(predators, prey, action, toroidal))
    state = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), times, 0), *states)
    action = jnp.repeat(jnp.array(np.stack(actions), jnp.int32), times, 0)
    then, ts = STEPS[toroidal](jax.random.split(KEY, num * times), state, action, ENVS[toroidal].params)
    then, ts = jax.tree.map(np.asarray, (then, ts))
    np.testing.assert_array_equal(ts.reward, np.tile(ts.reward[:, :1], 3))
    found = [collections.Counter() for _ in range(num)]
    for n in range(num * times):
        predators, prey = cells_of(then.predators[n], then.hunting[n]), cells_of(then.prey[n], then.alive[n])
        found[n // times][predators, prey, float(ts.reward[n, 0])] += 1
        if n % times < 5:
            for i in range(3):
                seen, legal = observed(predators, prey, i, toroidal)
                assert ts.observation["observation"][n, i].tolist() == seen
                assert ts.observation["action_mask"][n, i].tolist() == legal
            over = not any(predators) or not any(prey)
            assert ts.terminated[n].tolist() == [cell is None or over for cell in predators]
    for sampled, exact in zip(found, expected):
        assert sampled.keys() <= exact.keys() and abs(sum(exact.values()) - 1) < 1e-9
        for outcome, p in exact.items():
            assert abs(sampled[outcome] / times - p) < 5 * np.sqrt(p * (1 - p) / times) + 4 / times
    rewards = {reward for exact in expected for _, _, reward in exact}
    assert rewards >= {0.0, 10.0, -PENALTY}


def one_step(predators, prey, actions, time=0, **changes):
    env = ENVS[False]
    params = env.params._replace(**{name: jnp.asarray(x, jnp.float32) for name, x in changes.items()})
    args = jax.tree.map(lambda x: jnp.repeat(x[None], 12000, 0), (state_of(predators, prey, time), jnp.array(actions)))
    then, ts = STEPS[False](jax.random.split(KEY, 12000), *args, params)
    return jax.tree.map(lambda x: np.asarray(x)[:200], (then, ts))


def test_catches_by_hand():
    """Two catch, the third looks on: 10 to all, both are out, the third hunts on. A third that catches is out, too."""
    predators, prey = [(0, 1), (1, 0), (3, 3)], [(1, 1), (2, 3)]
    then, ts = one_step(predators, prey, [CATCH, CATCH, STAY])
    assert np.all(ts.reward == 10.0) and not ts.truncated.any()
    assert np.all(then.hunting == [False, False, True]) and np.all(then.alive == [False, True])
    assert np.all(ts.terminated == [True, True, False]) and np.all(ts.extras["caught"] == [True, True, False])
    assert not ts.observation["observation"][:, :2].any()
    assert np.all(ts.observation["action_mask"][:, :2] == [False] * 4 + [True, False])
    then, ts = one_step([(0, 1), (1, 0), (2, 1)], prey, [CATCH] * 3)
    assert np.all(ts.reward == 10.0) and not then.hunting.any() and ts.terminated.all() and then.alive[:, 1].all()
    # One alone pays, once for every prey beside it; who is out does not count, nor does who stands diagonally.
    _, ts = one_step([(0, 1), (1, 0), (3, 3)], [(1, 1), (0, 2)], [CATCH, STAY, STAY], prey_rest=1.0)
    assert np.all(ts.reward == -2 * PENALTY)
    _, ts = one_step([None, (1, 0), (0, 0)], prey, [CATCH] * 3)
    assert np.all(ts.reward == -PENALTY)
    # Two predators between two prey: whichever has its turn first is caught, then nobody is left to catch the other.
    then, ts = one_step([(0, 0), (1, 1), (3, 3)], [(0, 1), (1, 0)], [CATCH, CATCH, STAY])
    assert np.all(ts.reward == 10.0) and np.all(then.alive.sum(1) == 1) and {0, 1} == set(then.alive.argmax(1))
    # The last prey: all are out.
    then, ts = one_step(predators, [(1, 1), None], [CATCH, CATCH, STAY])
    assert ts.terminated.all() and then.hunting[:, 2].all() and np.all(ts.extras["caught"] == [True, True, False])


def test_the_clock_truncates_who_is_not_out():
    for time, over in ((7, False), (8, True)):
        _, ts = one_step([None, (1, 0), (3, 3)], [(1, 2), None], [STAY] * 3, time)
        assert np.all(ts.terminated == [True, False, False]) and np.all(ts.truncated == [False, over, over])
    _, ts = one_step([(0, 1), (1, 0), (3, 3)], [(1, 1), None], [CATCH, CATCH, STAY], 8)
    assert ts.terminated.all() and not ts.truncated.any()


def test_handicaps_and_resting_prey():
    """The third predator moves one time in four; params are traced, so that prey rest always in the same program."""
    then, _ = one_step([(0, 0), (2, 0), (3, 3)], [(1, 2), None], [RIGHT, RIGHT, LEFT], prey_rest=1.0)
    assert np.all(then.predators[:, :2] == [1, 9]) and np.all(then.prey[:, 0] == 6)
    assert set(then.predators[:, 2]) == {14, 15}
    assert abs(np.mean(then.predators[:, 2] == 14) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 200)
    then, _ = one_step([(0, 0), (2, 0), (3, 3)], [(1, 2), None], [RIGHT, RIGHT, LEFT], speeds=[0.0, 1.0, 1.0])
    assert np.all(then.predators == [0, 9, 14])


def test_starts_are_apart_and_anywhere():
    env, num = ENVS[False], 4000
    state, observation = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, num), env.params)
    cells = np.concatenate([state.predators, state.prey], 1)
    assert np.all(np.diff(np.sort(cells, 1)) > 0) and state.hunting.all() and state.alive.all()
    for column in cells.T:
        assert np.all(np.abs(np.bincount(column, minlength=16) - num / 16) < 5 * np.sqrt(num / 16))
    assert np.all(observation["observation"][:, :, 4] == 1)  # oneself, in the middle


def test_it_is_a_proper_environment():
    check_env(predator_prey(size=3, num_predators=2, num_prey=1, sight=1, max_steps=12, privileged=True))


def test_critics_see_the_grid():
    env = predator_prey(privileged=True, **SETTINGS)
    state = state_of([(0, 1), None, (3, 3)], [(1, 1), None])
    _, ts = jax.jit(env.step)(KEY, state, jnp.array([STAY] * 3), env.params._replace(prey_rest=jnp.float32(1.0)))
    expected = np.zeros((2, 4, 4))
    expected[0, [0, 3], [1, 3]] = expected[1, 1, 1] = 1
    np.testing.assert_array_equal(ts.observation["privileged"], np.tile(expected.reshape(1, -1), (3, 1)))


def test_a_picture_of_a_known_state():
    env = ENVS[False]
    picture = np.asarray(env.render(state_of([(0, 0), None, (2, 3)], [(3, 1), None]), env.params))
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    pixel = lambda row, column: tuple(picture[16 * (row + 1) + 8, 16 * (column + 1) + 8].tolist())  # noqa: E731
    expected = {(0, 0): pictures.AGENT, (2, 3): module.SLOW, (3, 1): pictures.GOAL, (-1, 0): pictures.WALL}
    assert {cell: pixel(*cell) for cell in expected} == expected
    assert sum(pixel(r, c) == pictures.FLOOR for r in range(4) for c in range(4)) == 13


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_predators=1), "num_predators is 1, must be >= 2"),
        (dict(num_prey=0), "num_prey is 0, must be >= 1"),
        (dict(size=3), "size is 3, must be >= 3, of >= 16 cells"),
        (dict(sight=0), r"sight is 0, must be in \[1, 15\]"),
        (dict(size=4, sight=2, toroidal=True), "sight is 2, a torus of size 4 is smaller"),
        (dict(penalty=-1.0), "penalty is -1.0, must be >= 0"),
        (dict(prey_rest=1.5), r"prey_rest is 1.5, must be in \[0, 1\]"),
        (dict(speeds=(1.0, 0.5)), "speeds are 2, must be one, or num_predators = 8"),
        (dict(speeds=1.5), r"speeds has an entry that is 1.5, must be in \[0, 1\]"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        module.predator_prey(**arguments)
