"""The quadrotor: mechanics against what is known exactly, its observations and rewards by hand, its two ends."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import make
from jaxrl.envs.check import check_env
from jaxrl.envs.quadrotor import Body, advance, crazyflie, hover_action, quadrotor, randomized
from jaxrl.envs.quadrotor.body import TIME_STEP, flow, rotation_matrix
from jaxrl.envs.quadrotor.task import _haar_angle, figure_eight

ROOT = pathlib.Path(__file__).parents[2]
KEY = jax.random.key(0)
ZERO = jnp.zeros(3)
PARAMS = crazyflie()
CALM = dict(
    force_std=0.0,
    torque_std=0.0,
    position_noise=0.0,
    orientation_noise=0.0,
    velocity_noise=0.0,
    upright_starts=1.0,
    start_velocity=0.0,
)


def hovering():
    """A body at rest at the origin, and the rotor speeds that carry it."""
    rpm = (hover_action(PARAMS) + 1) / 2 * PARAMS.max_rpm
    return Body(ZERO, jnp.float32([1, 0, 0, 0]), ZERO, ZERO), jnp.full(4, rpm)


def tumbling(seed=3):
    """A body in full motion."""
    rng = np.random.default_rng(seed)
    q = rng.normal(size=4)
    return Body(*(jnp.float32(x) for x in (rng.normal(size=3), q / np.linalg.norm(q), rng.normal(size=3), [9, -7, 5])))


def simulate(body, rpm, command, num_steps, dt=TIME_STEP, params=PARAMS, force=ZERO, torque=ZERO):
    """Every state of `num_steps` steps, leaves [T, ...]."""

    def step(carry, _):
        carry = advance(*carry, command, force, torque, params, dt)
        return carry, carry

    return jax.jit(lambda: jax.lax.scan(step, (body, rpm), length=num_steps)[1])()


def test_constants():
    """The hover action of the paper, .334; a full thrust of more than twice the weight."""
    np.testing.assert_allclose(hover_action(PARAMS), 0.334, atol=5e-4)
    full = 4 * PARAMS.thrust_constant * PARAMS.max_rpm**2 / (PARAMS.mass * PARAMS.gravity)
    np.testing.assert_allclose(full, 2.2477, rtol=1e-3)


def test_free_fall():
    """Without thrust: v = v0 - g t and x = x0 + v0 t - g t^2 / 2, which Runge-Kutta has exactly."""
    body = tumbling()._replace(angular_velocity=ZERO)
    then = jax.tree.map(lambda x: x[-1], simulate(body, jnp.zeros(4), jnp.zeros(4), 100)[0])
    down = np.array([0, 0, -9.81])
    np.testing.assert_allclose(then.velocity, body.velocity + down, atol=2e-5)
    np.testing.assert_allclose(then.position, body.position + body.velocity + down / 2, atol=2e-5)
    np.testing.assert_allclose(then.orientation, body.orientation, atol=1e-6)


def test_hovers_at_hover_speed():
    body, rpm = hovering()
    path, _ = simulate(body, rpm, rpm, 500)
    assert np.abs(path.position).max() < 1e-4 and np.abs(path.velocity).max() < 1e-4


def test_what_is_conserved_without_thrust():
    """Energy, and angular momentum in the world, while the body tumbles; the quaternion stays of unit length."""
    body = tumbling()
    path, _ = simulate(body, jnp.zeros(4), jnp.zeros(4), 300)
    path = jax.tree.map(lambda start, x: np.concatenate([np.asarray(start)[None], x]).astype(np.float64), body, path)
    inertia, mass = np.float64(PARAMS.inertia), float(PARAMS.mass)
    spin = 0.5 * (inertia * path.angular_velocity**2).sum(-1)
    energy = 0.5 * mass * (path.velocity**2).sum(-1) + mass * 9.81 * path.position[:, 2]
    turned = np.asarray(jax.vmap(rotation_matrix)(jnp.float32(path.orientation)))
    momentum = np.einsum("tij,tj->ti", turned, inertia * path.angular_velocity)
    np.testing.assert_allclose(spin, spin[0], rtol=1e-4)
    np.testing.assert_allclose(energy, energy[0], rtol=1e-4)
    np.testing.assert_allclose(
        momentum, np.broadcast_to(momentum[0], momentum.shape), atol=2e-4 * np.abs(momentum).max()
    )
    assert np.ptp(path.angular_velocity, axis=0).max() > 5, "the body did not tumble"
    np.testing.assert_allclose((path.orientation**2).sum(-1), 1.0, atol=1e-6)


def test_the_integrator_is_of_order_four():
    """Halving the step divides the error by about 16: in float64, with rotors that spin up, force and torque."""
    with jax.enable_x64(True):
        wide = lambda tree: jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)  # noqa: E731
        body, params = wide(tumbling()), wide(PARAMS)
        rpm, command = jnp.float64([9e3, 1e4, 1.1e4, 1.2e4]), jnp.float64([1.5e4, 1.4e4, 1.45e4, 1.52e4])
        force, torque = jnp.float64([1e-3, -2e-3, 1e-3]), jnp.float64([1e-6, 2e-6, -1e-6])

        def end(num_steps):
            path = simulate(body, rpm, command, num_steps, 0.4 / num_steps, params, force, torque)[0]
            return np.concatenate([np.asarray(x[-1]) for x in path])

        exact = end(640)
        errors = [np.abs(end(n) - exact).max() for n in (20, 40, 80)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 3.7) & (orders < 4.4)), (errors, orders)


def test_rotors_lag_exponentially():
    """rpm(t) = c + (r - c) exp(-t / tau): at tau 63.2 % of the step are done; tau 0 follows at once."""
    body, _ = hovering()
    rpm, command = jnp.float32([0, 5e3, 1e4, 2e4]), jnp.float32([1e4, 1e4, 1e4, 1e4])
    _, path = simulate(body, rpm, command, 45)
    time = TIME_STEP * np.arange(1, 46)[:, None]
    np.testing.assert_allclose(path, command + (rpm - command) * np.exp(-time / 0.15), rtol=1e-5)
    at_once = simulate(body, rpm, command, 1, params=PARAMS._replace(motor_time_constant=jnp.float32(0)))[1]
    np.testing.assert_array_equal(at_once[0], command)


def test_torques_turn_the_right_way():
    """More thrust at +y (rotors 2, 3) rolls about +x, at -x (1, 2) pitches about +y, rotors 1 and 3 yaw about +z."""
    body, rpm = hovering()
    for rotors, axis in (((2, 3), 0), ((1, 2), 1), ((1, 3), 2)):
        speeds = rpm.at[jnp.array(rotors)].multiply(1.05)
        turn = flow(body, speeds, ZERO, ZERO, PARAMS).angular_velocity
        force = PARAMS.thrust_constant * (speeds**2 - rpm**2)
        lever = (PARAMS.arm, PARAMS.arm, PARAMS.torque_constant)[axis]
        by_hand = np.zeros(3)
        others = [i for i in range(4) if i not in rotors]
        by_hand[axis] = lever * (force[jnp.array(rotors)].sum() - force[jnp.array(others)].sum()) / PARAMS.inertia[axis]
        np.testing.assert_allclose(turn, by_hand, rtol=1e-4, atol=1e-3)


def test_the_world_has_no_preferred_heading():
    """Turning start, force and target a quarter about z turns the whole flight; thrust and torque act in the body."""
    quarter = jnp.float32([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    turn = np.asarray(rotation_matrix(quarter))
    np.testing.assert_allclose(turn, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-6)

    def product(p, q):
        return jnp.concatenate(
            [(p[0] * q[0] - p[1:] @ q[1:])[None], p[0] * q[1:] + q[0] * p[1:] + jnp.cross(p[1:], q[1:])]
        )

    body, force = tumbling(), jnp.float32([0.01, 0.02, 0.0])
    turned = Body(turn @ body.position, product(quarter, body.orientation), turn @ body.velocity, body.angular_velocity)
    rpm = jnp.float32([1e4, 1.2e4, 1.1e4, 0.9e4])
    torque = jnp.float32([1e-5, 0.0, -1e-5])
    a = jax.tree.map(lambda x: x[-1], simulate(body, rpm, rpm, 30, force=force, torque=torque)[0])
    b = jax.tree.map(lambda x: x[-1], simulate(turned, rpm, rpm, 30, force=turn @ force, torque=torque)[0])
    np.testing.assert_allclose(b.position, turn @ a.position, atol=1e-4)
    np.testing.assert_allclose(b.velocity, turn @ a.velocity, atol=1e-4)
    np.testing.assert_allclose(b.angular_velocity, a.angular_velocity, atol=2e-4)


@pytest.fixture(scope="module")
def envs():
    """hover and figure_eight with all noise off, compiled once."""
    made = {}
    for task in ("hover", "figure_eight"):
        env = make(f"quadrotor/{task}", **CALM)
        made[task] = env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))
    return made


def test_observations_by_hand(envs):
    env = envs["hover"]
    params = env.params._replace(start_velocity=jnp.float32(1.0), upright_starts=jnp.float32(0.0))
    params = params._replace(force_std=jnp.float32(0.01), torque_std=jnp.float32(1e-5))
    state, first = env.reset(KEY, params)
    np.testing.assert_array_equal(first["observation"][18:], np.zeros(128))
    actions = jnp.float32([[0.1, 0.2, 0.3, 0.4], [2.0, -0.5, -7.0, 0.0]])  # clipped to the box
    for action in actions:
        state, ts = env.step(KEY, state, action, params)
    seen, hidden = ts.observation["observation"], ts.observation["privileged"]
    w, x, y, z = np.float64(state.body.orientation)
    up = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]
    np.testing.assert_allclose(seen[:3], state.body.position, rtol=1e-6)
    np.testing.assert_allclose(seen[3:12].reshape(3, 3)[:, 2], up, atol=1e-6)
    np.testing.assert_allclose(seen[12:15], state.body.velocity, rtol=1e-6)
    np.testing.assert_allclose(seen[15:18], state.body.angular_velocity, rtol=1e-6)
    np.testing.assert_array_equal(seen[18:138], np.zeros(120))  # 30 actions before the first
    np.testing.assert_allclose(seen[138:142], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(seen[142:], [1.0, -0.5, -1.0, 0.0])
    np.testing.assert_array_equal(hidden[:18], seen[:18])
    weight = 0.027 * 9.81
    np.testing.assert_allclose(hidden[18:21], state.force * 20 / weight, rtol=1e-5)
    np.testing.assert_allclose(hidden[21:24], state.torque * 1e4 / weight, rtol=1e-5)
    np.testing.assert_allclose(hidden[24:], 2 * state.rpm / 21702 - 1, atol=1e-6)


def test_noise_is_on_what_the_actor_sees():
    """Of the stated deviations on each part, new at every step, and not on the privileged view or the actions."""
    env = quadrotor(history_length=2)
    params = env.params._replace(upright_starts=jnp.float32(1.0), start_velocity=jnp.float32(0.0))
    _, seen = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, 4000), params)
    error = seen["observation"][:, :18] - seen["privileged"][:, :18]
    stds = np.std(error, 0)
    expected = np.concatenate([np.full(3, 0.001), np.full(9, 0.001), np.full(6, 0.002)])
    np.testing.assert_allclose(stds, expected, rtol=0.06)
    assert np.abs(np.corrcoef(error.T) - np.eye(18)).max() < 0.1
    np.testing.assert_array_equal(seen["observation"][:, 18:], 0.0)
    forces = seen["privileged"][:, 18:24]
    np.testing.assert_allclose(np.std(forces, 0), np.ones(6), rtol=0.06)


def test_rewards_by_hand(envs):
    env = envs["hover"]
    params = env.params._replace(start_velocity=jnp.float32(1.0), upright_starts=jnp.float32(0.0))
    state, _ = env.reset(KEY, params)
    action = jnp.float32([0.5, -0.2, 0.3, 0.9])
    p, q, v = (np.float64(x) for x in (state.body.position, state.body.orientation, state.body.velocity))
    cost = 5 * p @ p + 5 * (1 - q[0] ** 2) + 0.01 * v @ v + 0.01 * ((np.float64(action) - 0.33403) ** 2).sum()
    _, ts = env.step(KEY, state, action, params)
    np.testing.assert_allclose(ts.reward, 2 - 0.5 * cost, rtol=1e-5)
    np.testing.assert_allclose(
        ts.reward, np.float64(params.reward_weights) @ np.float64(ts.extras["reward_terms"]), rtol=1e-6
    )
    heavier = params._replace(reward_weights=params.reward_weights.at[1].set(40.0))
    np.testing.assert_allclose(env.step(KEY, state, action, heavier)[1].reward, ts.reward - 17.5 * p @ p, rtol=1e-4)


def test_two_ends(envs):
    """The clock truncates; leaving the cube of 0.6 m terminates with reward 0, also at the last step."""
    env = envs["hover"]
    hover = jnp.full(4, hover_action(PARAMS))
    state, _ = env.reset(KEY, env.params)
    state = state._replace(rpm=(hover + 1) / 2 * PARAMS.max_rpm)
    state, ts = env.step(KEY, state, hover, env.params)
    assert not ts.terminated and not ts.truncated and ts.reward > 1.99
    _, ts = env.step(KEY, state._replace(time=jnp.int32(499)), hover, env.params)
    assert ts.truncated and not ts.terminated and ts.reward > 1.99
    for axis in range(3):
        for side in (-1.0, 1.0):
            place = jnp.zeros(3).at[axis].set(side * 0.595)
            speed = jnp.zeros(3).at[axis].set(side)
            out = state._replace(body=state.body._replace(position=place, velocity=speed), time=jnp.int32(499))
            _, ts = env.step(KEY, out, hover, env.params)
            assert ts.terminated and not ts.truncated and ts.reward == 0.0
            np.testing.assert_array_equal(ts.extras["reward_terms"], np.zeros(5))
    fast = state._replace(body=state.body._replace(angular_velocity=jnp.float32([0, 0, 1001.0])))
    assert env.step(KEY, fast, hover, env.params)[1].terminated


def test_starts():
    """Uniform over rotations of at most 90 degrees, within the cube of 0.2 m; a tenth upright at the target."""
    env = quadrotor(history_length=0)
    state, _ = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, 8000), env.params)
    position, q = np.float64(state.body.position), np.float64(state.body.orientation)
    upright = np.all(position == 0, -1)
    assert 0.08 < upright.mean() < 0.12
    np.testing.assert_array_equal(q[upright], np.broadcast_to([1, 0, 0, 0], q[upright].shape))
    angle = 2 * np.arccos(np.clip(q[~upright, 0], -1, 1))
    assert angle.max() <= np.pi / 2 + 1e-3 and 0.19 < np.abs(position).max() <= 0.2
    share = (angle - np.sin(angle)) / (np.pi / 2 - 1)  # uniform, if rotations are
    np.testing.assert_allclose(np.quantile(share, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.025)
    axis = q[~upright, 1:] / np.linalg.norm(q[~upright, 1:], axis=-1, keepdims=True)
    np.testing.assert_allclose(axis.T @ axis / len(axis), np.eye(3) / 3, atol=0.02)
    np.testing.assert_allclose(axis.mean(0), 0, atol=0.03)
    np.testing.assert_allclose(state.rpm, 21702 / 2)
    for largest in (0.1, 1.5, np.pi):
        u = jnp.linspace(0, 1, 101)
        found = np.float64(jax.vmap(_haar_angle, (0, None))(u, jnp.float32(largest)))
        np.testing.assert_allclose((found - np.sin(found)) / (largest - np.sin(largest)), u, atol=3e-3)


def test_the_figure_eight_moves_as_it_says(envs):
    """Its velocity is its derivative; a body that flies along it has no error; hovering follows with size 0."""
    env = envs["figure_eight"]
    place = lambda t: figure_eight(jnp.float32(0.4), t, PARAMS)[0]  # noqa: E731
    t = jnp.linspace(0.0, 5.5, 12)
    speed = jax.vmap(lambda t: figure_eight(jnp.float32(0.4), t, PARAMS)[1])(t)
    np.testing.assert_allclose(jax.vmap(jax.jacfwd(place))(t), speed, atol=1e-4)
    x, y, _ = np.asarray(jax.vmap(place)(jnp.linspace(0, 5.5, 500))).T
    np.testing.assert_allclose([x.max(), y.max()], [0.5, 0.25], atol=1e-3)
    state, first = env.reset(KEY, env.params)
    np.testing.assert_allclose(
        np.asarray(first["observation"])[[0, 1, 2, 12, 13, 14]], 0.0, atol=1e-6
    )  # at the target, with it
    assert np.linalg.norm(state.body.velocity) > 0.1
    after, ts = env.step(KEY, state, jnp.full(4, hover_action(PARAMS)), env.params)
    expected = after.body.position - figure_eight(state.phase, jnp.float32(TIME_STEP), PARAMS)[0]
    np.testing.assert_allclose(ts.observation["observation"][:3], expected, atol=1e-6)
    far = state._replace(body=state.body._replace(position=state.body.position + jnp.float32([0.7, 0, 0])))
    assert env.step(KEY, far, jnp.zeros(4), env.params)[1].terminated


def test_another_quadrotor_flies_otherwise():
    """Domain randomization is a `vmap` over params: each factor within its range, every flight its own."""
    params = jax.vmap(randomized, (0, None))(jax.random.split(KEY, 500), PARAMS)
    for name in ("mass", "thrust_constant", "torque_constant", "motor_time_constant"):
        ratio = np.asarray(getattr(params, name) / getattr(PARAMS, name))
        assert 0.8 <= ratio.min() < 0.81 and 1.19 < ratio.max() <= 1.2001
    assert np.all(params.gravity == PARAMS.gravity)
    body, rpm = hovering()
    few = jax.tree.map(lambda x: x[:8], params)
    path = jax.vmap(lambda p: advance(body, rpm, rpm, ZERO, ZERO, p)[0].velocity[2])(few)
    thrust = 4 * few.thrust_constant * rpm[0] ** 2
    np.testing.assert_allclose(path, TIME_STEP * (thrust / few.mass - 9.81), rtol=1e-3, atol=1e-4)


def test_it_is_a_proper_environment():
    check_env(quadrotor("figure_eight", history_length=3))  # hover is a part of its code


def test_crashes_count_as_the_border(monkeypatch):
    """How the evidence judges flights: blind hovering from a tilt crashes, and from then on is 0.6 m away."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "evidence")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import quadrotor as evidence
    import quadrotor_speed

    judge = jax.jit(evidence.fly(quadrotor_speed.agent(), quadrotor(history_length=0), 16, 200))
    error, stay, final = (float(x) for x in judge(KEY, ()))
    assert stay == 0.0 and 0.3 < error < 0.6
    np.testing.assert_allclose(final, 0.6, rtol=1e-5)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="task is 'land', allowed: 'hover', 'figure_eight'"):
        quadrotor("land")
    with pytest.raises(ValueError, match="history_length is -1, must be >= 0"):
        quadrotor(history_length=-1)
    plain = quadrotor(history_length=0, privileged=False)
    assert set(plain.observation_space.spaces) == {"observation"} and plain.observation_space["observation"].shape == (
        18,
    )
