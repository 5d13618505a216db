"""Our MJX tasks: against MuJoCo in C, closed forms and conservation laws; ends, divergence, domain randomisation."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import jaxrl.envs
from jaxrl.envs.mjx import base
from jaxrl.envs.mjx.base import Body, MjxParams
from jaxrl.envs.mjx.reacher import LINK, fingertip
from jaxrl.envs.mjx.runner import STANDING

ASSETS = pathlib.Path(base.__file__).parent / "assets"
KEY = jax.random.key(0)


@functools.cache
def make(name):
    """The environment, its jitted step, and its model in C; one compilation for all tests."""
    env = jaxrl.envs.make(f"mjx/{name}")
    return env, jax.jit(env.step), mujoco.MjModel.from_xml_path(str(ASSETS / f"{name}.xml"))


def at(state, qpos=None, qvel=None, **others):
    body = state.body
    qpos = body.qpos if qpos is None else jnp.array(qpos, jnp.float32)
    qvel = jnp.zeros_like(body.qvel) if qvel is None else jnp.array(qvel, jnp.float32)
    return state._replace(body=Body(qpos, qvel, body.goal), **others)


def play(name, state, actions, **changes):
    env, step, _ = make(name)
    params = env.params._replace(**{k: jnp.float32(v) for k, v in changes.items()})
    states, timesteps = [], []
    for action in actions:
        state, timestep = step(KEY, state, jnp.array(action, jnp.float32), params)
        states.append(state)
        timesteps.append(timestep)
    return states, timesteps


def start(name):
    env, _, _ = make(name)
    return env.reset(KEY, env.params)[0]


def in_c(name, qpos, qvel, actions, num_substeps):
    """What MuJoCo itself makes of the same model: positions after every control step [T, nq]."""
    model = make(name)[2]
    data, path = mujoco.MjData(model), []
    data.qpos[:], data.qvel[:] = qpos, qvel
    for action in actions:
        data.ctrl[:] = action
        mujoco.mj_step(model, data, num_substeps)
        path.append(data.qpos.copy())
    return np.array(path)


# Cart and pole -------------------------------------------------------------------------------------------------------


def test_cartpole_agrees_with_mujoco():
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (50, 1))
    states, timesteps = play("cartpole_swingup", at(start("cartpole_swingup"), [0.1, 2.0], [0.5, -1.0]), actions)
    reference = in_c("cartpole_swingup", [0.1, 2.0], [0.5, -1.0], actions, 2)
    np.testing.assert_allclose([s.body.qpos for s in states], reference, atol=2e-3)
    x, angle = reference[-1]
    np.testing.assert_allclose(timesteps[-1].observation[:3], [x, np.cos(angle), np.sin(angle)], atol=2e-3)


def test_the_pole_falls_and_keeps_its_energy():
    states, _ = play("cartpole_swingup", at(start("cartpole_swingup"), [0.0, 0.1]), np.zeros((50, 1)))
    model = make("cartpole_swingup")[2]
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    data, energy = mujoco.MjData(model), []
    for state in states:
        data.qpos[:], data.qvel[:] = state.body.qpos, state.body.qvel
        mujoco.mj_forward(model, data)
        energy.append(sum(data.energy))
    angles = np.array([s.body.qpos[1] for s in states])
    assert abs(angles).max() > np.pi, "an upright pole that nobody balances swings through the bottom"
    swing = 2 * 0.1 * 9.81 * 0.5  # J, between hanging and upright
    assert np.ptp(energy) < 0.08 * swing  # the integrator's error comes and goes with the angle, it does not grow


def test_cartpole_reward_at_known_places():
    _, hanging = play("cartpole_swingup", at(start("cartpole_swingup"), [0.0, np.pi]), [[0.0]])
    _, upright = play("cartpole_swingup", at(start("cartpole_swingup"), [0.0, 0.0]), [[0.0]])
    _, aside = play("cartpole_swingup", at(start("cartpole_swingup"), [2.0, 0.0]), [[0.0]])
    np.testing.assert_allclose([hanging[0].reward, upright[0].reward], [0.0, 1.0], atol=1e-5)
    np.testing.assert_allclose(aside[0].reward, (1 + 0.1) / 2, atol=1e-5)


def test_leaving_the_rail_terminates_and_the_clock_truncates():
    state = at(start("cartpole_swingup"), [2.3, np.pi], [3.0, 0.0])
    _, (off,) = play("cartpole_swingup", state, [[0.0]])
    assert off.terminated and not off.truncated and off.observation[0] > 2.4
    late = jnp.int32(249)
    _, (end,) = play("cartpole_swingup", at(state, [0.0, np.pi], time=late), [[0.0]])
    assert end.truncated and not end.terminated
    _, (both,) = play("cartpole_swingup", state._replace(time=late), [[0.0]])
    assert both.terminated and not both.truncated
    _, (before,) = play("cartpole_swingup", at(state, [0.0, np.pi], time=late - 1), [[0.0]])
    assert not before.terminated and not before.truncated


def test_divergence_truncates_with_finite_data():
    state = at(start("cartpole_swingup"), [0.0, 1.0])
    for broken, action in ((state, [np.nan]), (at(state, [0.0, 1.0], [0.0, 1e30]), [0.0])):
        (after,), (timestep,) = play("cartpole_swingup", broken, [action])
        assert timestep.truncated and not timestep.terminated
        assert timestep.reward == 0.0 and timestep.extras["diverged"] == 1.0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, timestep)))
    _, (sound,) = play("cartpole_swingup", state, [[0.0]])
    assert sound.extras["diverged"] == 0.0 and not sound.terminated


def test_actions_are_clipped():
    state = start("cartpole_swingup")
    big, _ = play("cartpole_swingup", state, [[7.0]])
    one, _ = play("cartpole_swingup", state, [[1.0]])
    np.testing.assert_array_equal(big[0].body.qpos, one[0].body.qpos)


def test_equations_of_motion_do_not_change_with_the_unit_of_mass():
    state, actions = at(start("cartpole_swingup"), [0.0, 2.0], [0.0, 1.0]), np.full((20, 1), 0.3)
    plain, _ = play("cartpole_swingup", state, actions)
    heavy, _ = play("cartpole_swingup", state, actions, mass=3.0, strength=3.0, damping=3.0)
    light, _ = play("cartpole_swingup", state, actions, mass=3.0)
    np.testing.assert_allclose(heavy[-1].body.qpos, plain[-1].body.qpos, atol=1e-4)
    assert abs(light[-1].body.qpos[0]) < 0.5 * abs(plain[-1].body.qpos[0])


def test_mapped_parameters_are_domain_randomisation():
    env, _, _ = make("cartpole_swingup")
    gravity = jnp.array([1.0, 9.81, 30.0])
    params = MjxParams(*(jnp.broadcast_to(x, (3,)) for x in env.params))._replace(gravity=gravity)
    state = at(start("cartpole_swingup"), [0.0, 1.0])
    _, mapped = jax.jit(jax.vmap(env.step, (None, None, None, 0)))(KEY, state, jnp.zeros(1), params)
    for g, observation in zip(gravity, mapped.observation):
        _, (alone,) = play("cartpole_swingup", state, [[0.0]], gravity=g)
        np.testing.assert_allclose(alone.observation, observation, atol=1e-5)
    assert np.diff(mapped.observation[:, 4]).min() > 0.05, "more gravity, faster fall"


def test_make_takes_parameters():
    env = jaxrl.envs.make("mjx/cartpole_swingup", gravity=3, episode_length=7)
    assert env.params.gravity == 3.0 and env.params.mass == 1.0
    state, _ = env.reset(KEY, env.params)
    assert jax.eval_shape(env.step, KEY, state, jnp.zeros(1), env.params)[1].observation.shape == (5,)


def test_states_are_lean_and_resets_differ():
    env, _, _ = make("cartpole_swingup")
    state, observation = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, 8), env.params)
    assert sum(leaf[0].size for leaf in jax.tree.leaves(state)) == 2 + 2 + 2 + 1
    assert len(np.unique(observation[:, 0])) == 8
    np.testing.assert_allclose(observation[:, 1], -1.0, atol=0.01)  # hanging


def test_a_task_can_be_made_inside_a_jitted_function():
    @jax.jit
    def first_observation(key):
        env = jaxrl.envs.make("mjx/reacher")
        state, _ = env.reset(key, env.params)
        return env.step(key, state, jnp.zeros(2), env.params)[1].observation

    assert jax.eval_shape(first_observation, KEY).shape == (8,)


def test_bad_lengths_are_named():
    with pytest.raises(ValueError, match="episode_length -1"):
        jaxrl.envs.make("mjx/runner", episode_length=-1)


# Reacher -------------------------------------------------------------------------------------------------------------


def test_fingertip_is_where_mujoco_has_it():
    model = mujoco.MjModel.from_xml_path(str(ASSETS / "reacher.xml"))
    data = mujoco.MjData(model)
    for qpos in np.random.default_rng(0).uniform(-4.0, 4.0, (20, 2)):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(fingertip(jnp.array(qpos)), data.site("fingertip").xpos[:2], atol=1e-6)


def test_reacher_resets_within_reach():
    env = jaxrl.envs.make("mjx/reacher")
    state, observation = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, 256), env.params)
    radius = np.linalg.norm(state.body.goal, axis=1)
    assert 0.05 <= radius.min() < 0.07 and 0.18 < radius.max() <= 0.2 < 2 * LINK
    to_target = state.body.goal - jax.vmap(fingertip)(state.body.qpos)
    np.testing.assert_allclose(observation[:, 6:], to_target, atol=1e-6)


@pytest.mark.slow
def test_reacher_agrees_with_mujoco_and_is_paid_for_distance():
    actions = np.random.default_rng(1).uniform(-1.0, 1.0, (50, 2))
    state = at(start("reacher"), [0.3, -0.7], [1.0, 2.0])
    states, timesteps = play("reacher", state, actions)
    reference = in_c("reacher", [0.3, -0.7], [1.0, 2.0], actions, 2)
    np.testing.assert_allclose([s.body.qpos for s in states], reference, atol=5e-3)
    assert not any(t.terminated or t.truncated for t in timesteps)
    there = at(start("reacher"), [0.3, -0.7])
    there = there._replace(body=there.body._replace(goal=fingertip(there.body.qpos)))
    _, (still, *_) = play("reacher", there, [[0.0, 0.0]])
    _, (busy, *_) = play("reacher", there._replace(time=jnp.int32(149)), [[1.0, -1.0]])
    np.testing.assert_allclose(still.reward, 1.0, atol=1e-4)
    assert busy.truncated and still.reward - busy.reward > 0.05


# Runner --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runner():
    """One compilation, many facts: it stands, it falls freely, it moves when driven, it terminates when down."""
    rest, _ = play("runner", at(start("runner"), np.zeros(7)), np.zeros((60, 4)))
    assert abs(rest[-1].body.qpos[1]) < 0.08 and np.abs(rest[-1].body.qvel).max() < 0.1, "springs hold it"

    high = at(start("runner"), [0.0, 5.0, *np.zeros(5)])
    dropped, timesteps = play("runner", high, np.zeros((10, 4)))
    fallen = 5.0 - dropped[-1].body.qpos[1]
    np.testing.assert_allclose(fallen, 9.81 / 2 * 0.3**2, rtol=0.05)
    np.testing.assert_allclose(timesteps[-1].observation[0], STANDING + 5.0 - fallen, atol=1e-5)
    _, floating = play("runner", high, np.zeros((10, 4)), gravity=0.0)
    np.testing.assert_allclose(floating[-1].observation[0], STANDING + 5.0, atol=1e-3)

    actions = np.stack([np.sin(np.arange(40) * 0.6 + phase) for phase in (0.0, 1.5, 0.5, 2.0)], axis=1)
    driven, timesteps = play("runner", at(start("runner"), np.zeros(7)), actions)
    assert abs(driven[-1].body.qpos[0]) > 0.2
    speed = (driven[5].body.qpos[0] - driven[4].body.qpos[0]) / 0.03
    np.testing.assert_allclose(timesteps[5].reward, speed - 0.1 * np.mean(actions[5] ** 2) + 0.5, atol=1e-4)
    slippery, _ = play("runner", at(start("runner"), np.zeros(7)), actions, friction=0.05)
    assert abs(slippery[-1].body.qpos[0] - driven[-1].body.qpos[0]) > 0.05

    _, (down,) = play("runner", at(start("runner"), [0.0, -0.3, 0.0, 1.6, 0.0, -1.6, 0.0]), [np.zeros(4)])
    _, (tipped,) = play("runner", at(start("runner"), [0.0, 1.0, 1.1, *np.zeros(4)]), [np.zeros(4)])
    assert down.terminated and down.observation[0] < 0.3
    assert tipped.terminated and tipped.observation[0] > 1.0
    _, (late,) = play("runner", at(start("runner"), np.zeros(7), time=jnp.int32(199)), [np.zeros(4)])
    assert late.truncated and not late.terminated


@pytest.mark.slow
def test_runner_agrees_with_a_converged_solver():
    """Two conjugate-gradient steps from a warm start follow MuJoCo with its solver run to the end."""
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (10, 4))
    states, _ = play("runner", at(start("runner"), np.zeros(7)), actions)
    model = make("runner")[2]
    model.opt.solver, model.opt.iterations, model.opt.ls_iterations = mujoco.mjtSolver.mjSOL_NEWTON, 100, 50
    reference = in_c("runner", np.zeros(7), np.zeros(7), actions, 3)
    np.testing.assert_allclose([s.body.qpos for s in states], reference, atol=0.1)


@pytest.mark.parametrize("name", ["cartpole_swingup", "reacher", "runner"])
def test_no_batched_decomposition(name):
    """Factorising a dense mass matrix would call LAPACK on batches of tiny matrices: slow, and known to hang."""
    env = jaxrl.envs.make(f"mjx/{name}")
    state, _ = env.reset(KEY, env.params)
    program = str(jax.make_jaxpr(env.step)(KEY, state, jnp.zeros(env.action_space.shape), env.params))
    assert "sin" in program
    assert not any(word in program for word in ("cholesky", "triangular_solve", "eigh", "qr["))
