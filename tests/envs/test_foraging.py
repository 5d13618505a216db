"""Level-based foraging: against the rules in plain Python, and cases worked by hand; resets; ends; a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import foraging as module
from jaxrl.envs import pictures
from jaxrl.envs.check import check_env
from jaxrl.envs.foraging import EAST, LOAD, NONE, NORTH, SOUTH, WEST, ForagingState, foraging

KEY = jax.random.key(0)
DIRECTIONS = {NORTH: (-1, 0), SOUTH: (1, 0), WEST: (0, -1), EAST: (0, 1)}


class Game:
    """The rules once more, with a dictionary of foods."""

    def __init__(self, size, sight, penalty, agents, levels, foods):
        self.size, self.sight, self.penalty = size, sight, penalty
        self.agents, self.levels, self.foods = agents, levels, foods
        self.spawned = sum(foods.values())

    def food_beside(self, i):
        r, c = self.agents[i]
        return next((cell for dr, dc in DIRECTIONS.values() if (cell := (r + dr, c + dc)) in self.foods), None)

    def goes(self, i, action):
        (r, c), (dr, dc) = self.agents[i], DIRECTIONS.get(action, (0, 0))
        return r + dr, c + dc

    def legal(self, i, action):
        if action == LOAD:
            return self.food_beside(i) is not None
        r, c = self.goes(i, action)
        return action == NONE or (0 <= r < self.size and 0 <= c < self.size and (r, c) not in self.foods)

    def step(self, actions):
        actions = [a if self.legal(i, a) else NONE for i, a in enumerate(actions)]
        wanted = [self.goes(i, a) for i, a in enumerate(actions)]
        loading = {}
        for i, action in enumerate(actions):
            if action == LOAD:
                loading.setdefault(self.food_beside(i), []).append(i)
        self.agents = [w if wanted.count(w) == 1 else old for w, old in zip(wanted, self.agents)]
        rewards = [0.0] * len(actions)
        for cell, who in loading.items():
            total, food = sum(self.levels[i] for i in who), self.foods[cell]
            for i in who:
                rewards[i] = self.levels[i] * food / (total * self.spawned) if total >= food else -self.penalty
            if total >= food:
                del self.foods[cell]
        return rewards

    def observe(self, i, num_foods):
        r, c = self.agents[i]
        top, left = max(0, r - self.sight), max(0, c - self.sight)
        seen = [
            (a - top, b - left, level)
            for (a, b), level in sorted(self.foods.items())
            if max(abs(a - r), abs(b - c)) <= self.sight
        ]
        seen += [(-1, -1, 0)] * (num_foods - len(seen))
        for j in [i] + [j for j in range(len(self.agents)) if j != i]:
            a, b = self.agents[j][0] - top, self.agents[j][1] - left
            if 0 <= a <= 2 * self.sight and 0 <= b <= 2 * self.sight:
                seen.append((a, b, self.levels[j]))
        seen += [(-1, -1, 0)] * (num_foods + len(self.agents) - len(seen))
        return np.array(seen).reshape(-1)


def game_of(state, **settings):
    foods = {tuple(cell): int(level) for cell, level in zip(state.foods.tolist(), state.food_levels) if level}
    return Game(
        agents=list(map(tuple, state.agents.tolist())), levels=state.agent_levels.tolist(), foods=foods, **settings
    )


@pytest.mark.parametrize(
    "size, num_agents, num_foods, sight, penalty", [(6, 2, 2, None, 0.0), (7, 5, 3, 2, 0.25)], ids=["all", "sight"]
)
def test_it_follows_the_rules(size, num_agents, num_foods, sight, penalty):
    """50 games of 40 steps: positions, levels, rewards, masks, observations. Agents load where they can, mostly."""
    env = foraging(size=size, num_agents=num_agents, num_foods=num_foods, sight=sight, penalty=penalty)
    num, rng = 50, np.random.default_rng(0)
    state, observation = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, num), env.params)
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    start = jax.tree.map(np.asarray, state)
    rows = [jax.tree.map(lambda x, i=i: x[i], start) for i in range(num)]
    games = [game_of(row, size=size, sight=sight or size, penalty=penalty) for row in rows]
    shared = failed = 0
    for t in range(40):
        view, mask = (np.asarray(observation[name]) for name in ("observation", "action_mask"))
        for n, game in enumerate(games):
            for i in range(num_agents):
                np.testing.assert_array_equal(view[n, i], game.observe(i, num_foods))
                assert mask[n, i].tolist() == [game.legal(i, a) for a in range(6)]
        action = rng.integers(0, 6, (num, num_agents))
        action = np.where(mask[..., LOAD] & (rng.random(action.shape) < 0.5), LOAD, action)
        state, ts = step(jax.random.split(KEY, num), state, jnp.asarray(action, jnp.int32), env.params)
        observation = ts.observation
        for n, game in enumerate(games):
            rewards = game.step(action[n].tolist())
            np.testing.assert_allclose(ts.reward[n], rewards, rtol=1e-5)
            assert np.asarray(state.agents[n]).tolist() == list(map(list, game.agents))
            assert np.all(np.asarray(ts.terminated[n]) == (not game.foods))
            shared += len(set(game.agents)) < num_agents
            failed += min(rewards) < 0
        assert not np.any(ts.truncated)
    gone = [not game.foods for game in games]
    assert any(gone) and not all(gone)
    if penalty:
        assert shared and failed


PENALTY = 0.25
ENV = foraging(size=6, num_agents=3, num_foods=2, penalty=PENALTY, max_steps=9)
STEP = jax.jit(ENV.step)


def state_of(agents, levels, foods=((1, 1), (4, 4)), food_levels=(3, 1), time=0):
    ints = [jnp.array(x, jnp.int32) for x in (agents, levels, foods, food_levels, 4, time)]
    return ForagingState(*ints)


def test_rewards_by_hand():
    """A food of level 3 of 4 in all is loaded by levels 1 and 2: 1/3 and 2/3 of 3/4. The third loads the other."""
    state, ts = STEP(KEY, state_of([(0, 1), (1, 2), (4, 3)], [1, 2, 2]), jnp.array([LOAD] * 3), ENV.params)
    np.testing.assert_allclose(ts.reward, [0.25, 0.5, 0.25])
    assert ts.terminated.all() and not ts.truncated.any()
    assert state.food_levels.tolist() == [0, 0]
    # Level 1 alone is not enough for 3, and pays; level 2 beside it only looks on.
    state, ts = STEP(KEY, state_of([(0, 1), (1, 2), (4, 3)], [1, 2, 2]), jnp.array([LOAD, NONE, LOAD]), ENV.params)
    np.testing.assert_allclose(ts.reward, [-PENALTY, 0.0, 0.25])
    assert state.food_levels.tolist() == [3, 0] and not ts.terminated.any()
    # Diagonal is not adjacent: loading is illegal there, and costs nothing.
    _, ts = STEP(KEY, state_of([(0, 0), (2, 2), (5, 5)], [2, 2, 2]), jnp.array([LOAD] * 3), ENV.params)
    assert not ts.reward.any() and not ts.observation["action_mask"][:, LOAD].any()


@pytest.mark.parametrize(
    "agents, actions, then",
    [
        ([(3, 0), (3, 2), (5, 5)], [EAST, WEST, NONE], [(3, 0), (3, 2), (5, 5)]),  # one cell for two
        ([(3, 0), (3, 1), (5, 5)], [EAST, NONE, NONE], [(3, 0), (3, 1), (5, 5)]),  # onto one who stays
        ([(3, 0), (3, 1), (5, 5)], [EAST, EAST, NONE], [(3, 1), (3, 2), (5, 5)]),  # behind one who goes
        ([(3, 0), (3, 1), (5, 5)], [EAST, WEST, NONE], [(3, 1), (3, 0), (5, 5)]),  # past each other
        ([(3, 0), (3, 1), (3, 3)], [EAST, EAST, WEST], [(3, 1), (3, 1), (3, 3)]),  # behind one who cannot go
        ([(0, 0), (5, 5), (1, 2)], [NORTH, EAST, WEST], [(0, 0), (5, 5), (1, 2)]),  # walls, and a food
    ],
)
def test_moves_by_hand(agents, actions, then):
    state, _ = STEP(KEY, state_of(agents, [1, 1, 1]), jnp.array(actions), ENV.params)
    assert state.agents.tolist() == list(map(list, then))


def test_the_clock_truncates():
    for time, over in ((7, False), (8, True)):
        state, ts = STEP(
            KEY, state_of([(0, 0), (5, 5), (3, 3)], [1, 1, 1], time=time), jnp.zeros(3, jnp.int32), ENV.params
        )
        assert state.time == time + 1
        assert np.all(np.asarray(ts.truncated) == over) and not ts.terminated.any()
    _, ts = STEP(KEY, state_of([(0, 1), (1, 2), (4, 3)], [1, 2, 2], time=8), jnp.array([LOAD] * 3), ENV.params)
    assert ts.terminated.all() and not ts.truncated.any()


def starts(num, **settings):
    env = foraging(**settings)
    state, observation = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, num), env.params)
    return jax.tree.map(np.asarray, state), observation


def plain_start(rng, size, num_agents, num_foods):
    """Agents, then foods, each drawn until it fits."""
    agents, foods = [], []
    while len(agents) < num_agents:
        cell = tuple(rng.integers(0, size, 2))
        agents += [cell] * (cell not in agents)
    while len(foods) < num_foods:
        cell = tuple(rng.integers(1, size - 1, 2))
        apart = [(abs(cell[0] - r), abs(cell[1] - c)) for r, c in foods]
        foods += [cell] * (cell not in agents and all(max(d) > 1 and d not in ((0, 2), (2, 0)) for d in apart))
    return agents, sorted(foods)


def test_starts_are_those_of_rejection_sampling():
    """Where agents and foods are, and how far they are apart, as often as where all is drawn until it fits."""
    num, rng = 4000, np.random.default_rng(0)
    state, _ = starts(num, size=6, num_agents=2, num_foods=2, max_agent_level=3)
    plain = [plain_start(rng, 6, 2, 2) for _ in range(num)]
    for found, expected in ((state.agents, [p[0] for p in plain]), (state.foods, [p[1] for p in plain])):
        for statistic in (
            lambda cells: cells[:, 0] @ [6, 1],
            lambda cells: cells[:, 1] @ [6, 1],
            lambda cells: np.abs(cells[:, 0] - cells[:, 1]).sum(1),
        ):
            first, second = (np.bincount(statistic(np.asarray(x)), minlength=36) for x in (found, expected))
            assert np.all(np.abs(first - second) < 5 * np.sqrt(first + second + 1))
    assert (state.agents[:, 0] != state.agents[:, 1]).any(1).all()
    counts = np.bincount(state.agent_levels.ravel())
    assert counts[0] == 0 and len(counts) == 4 and counts[1:].min() > 0.3 * 2 * num
    highest = state.agent_levels.sum(1)
    assert state.food_levels.min() == 1 and np.all(state.food_levels <= highest[:, None])
    twos = state.food_levels[highest == 2].ravel()  # 1 or 2, as likely
    assert abs(np.mean(twos == 2) - 0.5) < 5 * 0.5 / np.sqrt(len(twos))


def test_levels_at_the_start():
    """Under force_coop a food needs the three lowest agents; a given highest level is kept; foods may find no place."""
    state, _ = starts(200, size=8, num_agents=4, num_foods=2, force_coop=True)
    lowest = np.sort(state.agent_levels, 1)[:, :3].sum(1)
    np.testing.assert_array_equal(state.food_levels, np.tile(lowest[:, None], (1, 2)))
    np.testing.assert_array_equal(state.spawned, 2 * lowest)
    state, _ = starts(200, size=5, num_agents=2, num_foods=4, max_food_level=2)
    there = state.food_levels > 0
    assert set(there.sum(1)) == {1, 2} and state.food_levels.max() == 2  # 9 cells off the border
    np.testing.assert_array_equal(state.spawned, state.food_levels.sum(1))


def test_it_is_a_proper_environment():
    check_env(foraging(size=5, num_agents=2, num_foods=1, sight=1, max_steps=12, privileged=True))


def test_a_team_shares_what_it_earns_and_critics_see_all():
    env = foraging(size=6, num_agents=3, num_foods=2, penalty=PENALTY, sight=1, team_reward=True, privileged=True)
    state = state_of([(0, 1), (1, 2), (4, 3)], [1, 2, 1])
    _, ts = jax.jit(env.step)(KEY, state, jnp.array([NONE, LOAD, LOAD]), env.params)
    np.testing.assert_allclose(ts.reward, [0.25 - PENALTY] * 3)
    everything = [1, 1, 3, -1, -1, 0, 0, 1, 1, 1, 2, 2, 4, 3, 1]
    np.testing.assert_array_equal(ts.observation["privileged"], [everything] * 3)


def test_a_picture_of_a_known_state():
    state = state_of([(0, 0), (5, 2), (2, 3)], [1, 2, 2], food_levels=(3, 0))
    picture = np.asarray(ENV.render(state, ENV.params))
    assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
    cell = lambda row, column: picture[16 * (row + 1) :, 16 * (column + 1) :][:16, :16]  # noqa: E731
    dots = lambda row, column: (cell(row, column) == 255).all(-1).sum() / 4  # of four pixels  # noqa: E731
    assert [dots(*c) for c in ((0, 0), (5, 2), (2, 3), (1, 1), (4, 4))] == [1, 2, 2, 3, 0]
    colors = [tuple(cell(*c)[13, 8]) for c in ((0, 0), (1, 1), (4, 4), (-1, 0))]
    assert colors == [pictures.AGENT, pictures.GOAL, pictures.FLOOR, pictures.WALL]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(num_agents=1), "num_agents is 1, must be >= 2"),
        (dict(size=31), r"size is 31, must be in \[3, 30\]"),
        (dict(size=4, num_agents=4), r"size is 4, .*num_agents = 4"),
        (dict(num_foods=0), "num_foods is 0, must be >= 1"),
        (dict(sight=0), "sight is 0, must be >= 1"),
        (dict(max_agent_level=0), "max_agent_level is 0, must be >= 1"),
        (dict(max_food_level=0), "max_food_level is 0, must be >= 1"),
        (dict(penalty=-1.0), "penalty is -1.0, must be >= 0"),
        (dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        module.foraging(**arguments)
