"""Particles: motion, contact, sight and reward against plain Python rules, clocks, starts, pictures, arguments."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import particles, pictures
from jaxrl.envs.check import check_env
from jaxrl.envs.particles import world
from jaxrl.envs.particles.tag import outside

KEY = jax.random.key(0)
NUM = 12  # states that the rules are looked at in
MOVES = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
ENVS = {
    "spread": particles.spread(privileged=True, local_ratio=0.3),
    "spread of 17": particles.spread(17, num_landmarks=2),  # more than go by pairs
    "reference": particles.reference(local_ratio=0.3, privileged=True),
    "reference, continuous": particles.reference(continuous=True),
    "speaker_listener": particles.speaker_listener(),
    "speaker_listener, continuous": particles.speaker_listener(continuous=True, privileged=True),
    "tag": particles.tag(num_good=2, num_obstacles=1, privileged=True),
    "tag, continuous": particles.tag(continuous=True),
}


# The rules, in plain Python and float64, entity by entity, after the text of the documentation of MPE ----------------


def moved(bodies, pushes, max_speeds=None):
    """One step. bodies: (position, velocity or None if it stands still, radius or None if nobody touches it)."""
    forces = [np.array(push, float) for push in pushes] + [np.zeros(2) for _ in bodies[len(pushes) :]]
    for a, (p, _, radius) in enumerate(bodies):
        for b, (q, _, other) in enumerate(bodies[:a]):
            if radius is not None and other is not None:
                distance = math.dist(p, q)
                overlap = np.logaddexp(0, -(distance - radius - other) / 1e-3) * 1e-3
                force = 100 * (p - q) / distance * overlap
                forces[a], forces[b] = forces[a] + force, forces[b] - force
    after = []
    for i, (p, v, _) in enumerate(bodies):
        if v is not None:
            p, v = p + 0.1 * v, 0.75 * v + 0.1 * forces[i]
            if max_speeds is not None and math.hypot(*v) > max_speeds[i]:
                v = v / math.hypot(*v) * max_speeds[i]
            after.append((p, v))
    return [p for p, _ in after], [v for _, v in after]


def pushed(action, acceleration=5.0):
    if np.ndim(action):
        return acceleration * np.array([action[2] - action[1], action[4] - action[3]])
    return acceleration * np.array(MOVES[int(action)])


def one_hot(i, n):
    return [float(j == i) for j in range(n)]


def spread_rules(s, actions, local_ratio, radius=0.15):
    num = len(s.position)
    bodies = [(p, v, radius) for p, v in zip(s.position, s.velocity)] + [(p, None, None) for p in s.landmarks]
    p, v = moved(bodies, [pushed(a) for a in actions])
    whole = -sum(min(math.dist(q, mark) for q in p) for mark in s.landmarks)
    rewards, seen = [], []
    for i in range(num):
        others = [p[j] - p[i] for j in range(num) if j != i]
        hits = sum(math.hypot(*d) < 2 * radius for d in others)
        rewards.append((1 - local_ratio) * whole - local_ratio * hits)
        seen.append([*v[i], *p[i], *np.ravel([m - p[i] for m in s.landmarks]), *np.ravel(others), *[0] * 2 * (num - 1)])
    return p, v, rewards, seen, [*np.ravel(p), *np.ravel(v), *np.ravel(s.landmarks)]


def reference_rules(s, actions, local_ratio=0.5):
    if np.ndim(actions[0]):
        moves, words = [a[:5] for a in actions], [list(a[5:]) for a in actions]
    else:
        moves, words = [a % 5 for a in actions], [one_hot(a // 5, 10) for a in actions]
    bodies = [(p, v, None) for p, v in zip(s.position, s.velocity)]
    p, v = moved(bodies, [pushed(a) for a in moves])
    far = [math.dist(p[i], s.landmarks[s.goal[i]]) for i in (0, 1)]
    rewards = [-local_ratio * far[1 - i] - (1 - local_ratio) * (far[0] + far[1]) / 2 for i in (0, 1)]
    color = lambda goal: [0.75 if j == goal else 0.25 for j in range(3)]  # noqa: E731
    seen = [[*v[i], *np.ravel([m - p[i] for m in s.landmarks]), *color(s.goal[1 - i]), *words[1 - i]] for i in (0, 1)]
    whole = [*np.ravel(p), *np.ravel(v), *np.ravel(s.landmarks), *one_hot(s.goal[0], 3), *one_hot(s.goal[1], 3)]
    return p, v, rewards, seen, [*whole, *words[0], *words[1]]


def speaker_listener_rules(s, actions):
    word = list(actions[0]) if np.ndim(actions[0]) else one_hot(actions[0], 3)
    (p,), (v,) = moved([(s.position, s.velocity, None)], [pushed(actions[1])])
    reward = -(math.dist(p, s.landmarks[s.goal]) ** 2)
    seen = [
        [0.65 if j == s.goal else 0.15 for j in range(3)],
        [*v, *np.ravel([m - p for m in s.landmarks]), *word],
    ]
    return p, v, [reward] * 2, seen, [*p, *v, *np.ravel(s.landmarks), *one_hot(s.goal, 3), *word]


def tag_rules(s, actions, num_good):
    num = len(s.position)
    hunts = [i < num - num_good for i in range(num)]
    radii = [0.075 if hunter else 0.05 for hunter in hunts]
    bodies = [(p, v, r) for p, v, r in zip(s.position, s.velocity, radii)] + [(p, None, 0.2) for p in s.obstacles]
    pushes = [pushed(a, 3.0 if hunter else 4.0) for a, hunter in zip(actions, hunts)]
    p, v = moved(bodies, pushes, [1.0 if hunter else 1.3 for hunter in hunts])

    def bound(x):
        return 0 if x < 0.9 else (x - 0.9) * 10 if x < 1 else min(math.exp(2 * x - 2), 10)

    rewards, seen = [0.0] * num, []
    for i in range(num):
        others = [j for j in range(num) if j != i]
        for j in others:
            if hunts[j] and not hunts[i] and math.dist(p[i], p[j]) < radii[i] + radii[j]:
                rewards[i] -= 10
                for k in range(num):
                    rewards[k] += 10 * hunts[k]
        rewards[i] -= 0 if hunts[i] else sum(bound(abs(x)) for x in p[i])
        away = [q - p[i] for q in [*s.obstacles, *(p[j] for j in others)]]
        seen.append([*v[i], *p[i], *np.ravel(away), *np.ravel([v[j] for j in others if not hunts[j]])])
    return p, v, rewards, seen, [*np.ravel(p), *np.ravel(v), *np.ravel(s.obstacles)]


RULES = {
    "spread": lambda s, a: spread_rules(s, a, 0.3),
    "spread of 17": lambda s, a: spread_rules(s, a, 0.5),
    "reference": lambda s, a: reference_rules(s, a, 0.3),
    "reference, continuous": reference_rules,
    "speaker_listener": speaker_listener_rules,
    "speaker_listener, continuous": speaker_listener_rules,
    "tag": lambda s, a: tag_rules(s, a, 2),
    "tag, continuous": lambda s, a: tag_rules(s, a, 1),
}


@pytest.mark.parametrize("name", RULES)
def test_steps_follow_the_rules(name):
    """Crowded states with speed, so that agents touch, and fast ones far out; every entry of what a step returns."""
    env = ENVS[name]

    def play(key, scale):
        reset_key, speed_key, action_key, step_key = jax.random.split(key, 4)
        state, _ = env.reset(reset_key, env.params)
        velocity = jax.random.uniform(speed_key, state.velocity.shape, minval=-1.5, maxval=1.5)
        state = state._replace(position=state.position * scale, velocity=velocity)
        action = env.action_space.sample(action_key)
        return state, action, *env.step(step_key, state, action, env.params)

    scales = jnp.where(jnp.arange(NUM) % 3 == 0, 1.2, 0.25)
    state, action, after, ts = jax.device_get(jax.jit(jax.vmap(play))(jax.random.split(KEY, NUM), scales))
    own = rows_of(ts.observation, lambda o: o["observation"] if isinstance(o, dict) else o)
    touched = 0
    for i in range(NUM):
        s = jax.tree.map(lambda x: np.asarray(x[i], float if x.dtype == np.float32 else int), state)
        a = [x[i] for x in action] if isinstance(action, tuple) else list(action[i])
        p, v, rewards, seen, whole = RULES[name](s, a)
        np.testing.assert_allclose(after.position[i], np.reshape(p, after.position[i].shape), atol=1e-5)
        np.testing.assert_allclose(after.velocity[i], np.reshape(v, after.velocity[i].shape), atol=2e-5, rtol=1e-5)
        np.testing.assert_allclose(ts.reward[i], rewards, atol=1e-5, rtol=1e-5)
        for agent, expected in enumerate(seen):
            np.testing.assert_allclose(own[agent][i], expected, atol=2e-5, rtol=1e-5)
        for o in rows_of(ts.observation, lambda o: o.get("privileged") if isinstance(o, dict) else None):
            if o is not None:
                np.testing.assert_allclose(o[i], whole, atol=2e-5, rtol=1e-5)
        touched += len({round(float(r), 2) for r in rewards}) > 1
    assert touched >= 3 or "speaker" in name  # unequal rewards: by contact, or by goals
    assert (after.time == 1).all() and not ts.terminated.any() and not ts.truncated.any()


def rows_of(observation, get):
    """What `get` takes of the observation of each agent, leaves [NUM, ...], in order."""
    if isinstance(observation, tuple):
        return [get(o) for o in observation]
    value = get(observation)
    return [None] if value is None else list(np.moveaxis(value, 1, 0))


@pytest.mark.parametrize("name", ["spread", "reference, continuous", "speaker_listener, continuous", "tag"])
def test_they_are_proper_environments(name):
    check_env(ENVS[name], num_steps=30)


def test_contact_by_hand():
    """Just touching: 100 * 1e-3 * ln 2. Half a radius deep: 100 * 0.15. Apart, and in one place: nothing."""
    forces = jax.jit(lambda p, fixed: world.contact_forces(p, jnp.full(2, 0.15), fixed, jnp.full(1, 0.2)))
    for distance, force in ((0.3, 0.1 * math.log(2)), (0.15, 15.0), (0.34, 0.0), (0.0, 0.0)):
        pushed = forces(jnp.array([[0.0, 0.0], [0.0, distance]]), jnp.array([[5.0, 5.0]]))
        np.testing.assert_allclose(pushed, [[0.0, -force], [0.0, force]], rtol=1e-4, atol=1e-6)
    pushed = forces(jnp.array([[0.0, 0.0], [3.0, 3.0]]), jnp.array([[-0.3, 0.0]]))  # by what stands still
    np.testing.assert_allclose(pushed, [[5.0, 0.0], [0.0, 0.0]], rtol=1e-4, atol=1e-6)


def test_others_are_in_order():
    x = np.arange(48).reshape(4, 4, 3)
    for i, row in enumerate(np.asarray(world.without_self(jnp.asarray(x)))):
        np.testing.assert_array_equal(row, np.delete(x[i], i, axis=0))


def test_running_away_costs():
    cost = jax.jit(outside)(jnp.array([0.0, 0.89, 0.9, 0.95, 0.9999, 1.0, 1.5, 2.2, 99.0]))
    np.testing.assert_allclose(cost, [0, 0, 0, 0.5, 0.999, 1, math.e, 10, 10], atol=1e-5)


def test_the_clock_and_starts():
    """25 steps by default, any other number is traced; starts cover their squares, and goals are equally likely."""
    for name in ("spread", "reference", "speaker_listener", "tag"):
        env = ENVS[name]

        def start(key, time, max_steps, env=env):
            state, _ = env.reset(key, env.params)
            params = env.params._replace(max_steps=max_steps)
            action = jax.tree.map(lambda x: x[0], env.action_space.sample(KEY, (1,)))
            return state, env.step(key, state._replace(time=time), action, params)[1].truncated

        time, limit = jnp.array([23, 24, 24, 25] * 500), jnp.array([25, 25, 26, 26] * 500)
        state, truncated = jax.jit(jax.vmap(start))(jax.random.split(KEY, 2000), time, limit)
        assert truncated.shape[1] == len(env.params.radius) if name == "tag" else truncated.shape[1] in (2, 3)
        np.testing.assert_array_equal(truncated[:4], np.broadcast_to([[0], [1], [0], [1]], truncated[:4].shape))
        marks = state.obstacles if name == "tag" else state.landmarks
        for places, edge in ((state.position, 1.0), (marks, 0.9 if name == "tag" else 1.0)):
            places = np.asarray(places).reshape(-1)
            assert edge - 0.01 < places.max() <= edge and -edge <= places.min() < -edge + 0.01
            assert abs(places.mean()) < 0.05 and abs(places.std() - edge / 3**0.5) < 0.02
        assert not np.asarray(state.velocity).any()
        if hasattr(state, "goal"):
            counts = np.bincount(np.asarray(state.goal).ravel(), minlength=3) / state.goal.size
            assert len(counts) == 3 and np.abs(counts - 1 / 3).max() < 0.05
            if name == "reference":  # goals are drawn independently
                assert len(np.unique(np.asarray(state.goal) @ [1, 3])) == 9


def test_pictures_of_known_states():
    env = ENVS["tag"]
    state = particles.TagState(
        jnp.array([[0.0, 0.0], [-1.0, 1.0], [1.0, 1.0], [0.0, 0.02], [1.0, -1.0]]),
        jnp.zeros((5, 2)),
        jnp.array([[0.6, 0.0]]),
        jnp.int32(0),
    )
    picture = np.asarray(jax.jit(env.render)(state, env.params))
    assert picture.shape == (224, 224, 3) and picture.dtype == np.uint8
    pixel = lambda x, y: tuple(picture[round((1.4 - y) * 80 - 0.5), round((1.4 + x) * 80 - 0.5)])  # noqa: E731
    assert pixel(-1, 1) == pixel(1, 1) == pixel(0, -0.06) == pictures.GOAL
    assert pixel(1, -1) == pixel(0, 0.02) == (60, 160, 75) and pixel(0.6, 0.15) == pictures.WALL
    assert pixel(-1, -1) == pictures.FLOOR
    env = ENVS["reference"]
    said = jnp.stack([jax.nn.one_hot(2, 10), jax.nn.one_hot(9, 10)])
    state = particles.ReferenceState(
        jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.zeros((2, 2)), jnp.eye(3, 2), jnp.array([0, 2]), said, jnp.int32(0)
    )
    picture = np.asarray(jax.jit(env.render)(state, env.params))
    assert pixel(0, 0) == (32, 32, 95) or pixel(0, 0) == (95, 32, 32)
    assert [picture[6, 12 * i + 6, 0] for i in range(10)] == [255, 255, 0] + [255] * 7 and picture[18, 114, 0] == 0


@pytest.mark.parametrize(
    "factory, arguments, message",
    [
        (particles.spread, dict(num_agents=1), "num_agents is 1, must be >= 2"),
        (particles.spread, dict(num_landmarks=0), "num_landmarks is 0, must be >= 1"),
        (particles.spread, dict(local_ratio=1.5), r"local_ratio is 1.5, must be in \[0, 1\]"),
        (particles.spread, dict(radius=0.0), "radius is 0.0, must be > 0"),
        (particles.reference, dict(damping=-0.1), r"damping is -0.1, must be in \[0, 1\]"),
        (particles.speaker_listener, dict(acceleration=0), "acceleration is 0, must be > 0"),
        (particles.tag, dict(num_good=0), "num_good is 0, must be >= 1"),
        (particles.tag, dict(max_steps=0), "max_steps is 0, must be >= 1"),
    ],
)
def test_bad_arguments(factory, arguments, message):
    with pytest.raises(ValueError, match=message):
        factory(**arguments)
