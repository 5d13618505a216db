"""The mazes in MJX: walls are the map's, the ball agrees with MuJoCo in C, stops at walls, and reaches its goals."""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from jaxrl.envs import make, point_maze
from jaxrl.envs.mjx import point_maze as balls

NUM, STEPS = 8, 100


@functools.cache
def play():
    """Sixteen balls that follow the controller in the smallest maze, half of them into walls: one program for all."""
    env, controller = make("mjx/point_maze/umaze"), point_maze.waypoint_controller("umaze")
    reset_key, step_key = jax.random.split(jax.random.key(0))
    state, observation = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, 2 * NUM), env.params)

    def step(carry, key):
        state, observation = carry
        action = controller(observation, observation[:, 4:])
        pushed = jnp.broadcast_to(jnp.array([0.7, -1.0]), (NUM, 2))  # along the walls below and to the left
        action = jnp.concatenate([action[:NUM], pushed])
        keys = jax.random.split(key, 2 * NUM)
        state, ts = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, env.params)
        return (state, ts.observation), (action, state, ts)

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, jax.random.split(step_key, STEPS))[1])
    return env, state, jax.device_get(run((state, observation)))


@pytest.mark.parametrize("size", point_maze.MAZES)
def test_boxes_cover_the_walls_once(size):
    covered = np.zeros(point_maze.walls(size).shape, int)
    for top, bottom, left, right in balls.boxes_of(point_maze.walls(size)):
        covered[top:bottom, left:right] += 1
    np.testing.assert_array_equal(covered, point_maze.walls(size))
    assert mujoco.MjModel.from_xml_string(balls.model(size)).ngeom == len(balls.boxes_of(point_maze.walls(size))) + 1


def test_balls_reach_the_goal():
    env, _, (_, _, ts) = play()
    there = np.linalg.norm(ts.observation[..., :2] - ts.observation[..., 4:], axis=-1) < point_maze.RADIUS
    np.testing.assert_array_equal(ts.terminated, there)
    np.testing.assert_array_equal(ts.reward, there.astype(np.float32))
    assert there[:, :NUM].any(0).all()
    late = np.arange(1, STEPS + 1)[:, None] >= 100
    np.testing.assert_array_equal(ts.truncated, late & ~there)
    assert env.observation_space == make("point_maze/umaze").observation_space


def test_walls_hold():
    """No ball is nearer to a wall than its radius (but for what a contact gives), though some lean on one."""
    _, _, (_, states, _) = play()
    position = states.body.qpos
    walls = np.argwhere(point_maze.walls("umaze"))
    nearest = np.clip(position[..., None, :], walls, walls + 1)  # the point of each wall that is nearest
    gap = np.linalg.norm(position[..., None, :] - nearest, axis=-1).min(-1)
    assert gap.min() > balls.BALL - 0.03
    assert (np.abs(gap[-1, NUM:] - balls.BALL) < 0.02).all()
    assert (np.abs(states.body.qvel[-1, NUM:]) < 0.05).all()


def test_it_agrees_with_mujoco():
    """Positions after each step, against the same model in C, until a ball has touched a wall and after it."""
    _, first, (actions, states, _) = play()
    model = mujoco.MjModel.from_xml_string(balls.model("umaze"))
    for i in (0, NUM):
        data, path = mujoco.MjData(model), []
        data.qpos[:], data.qvel[:] = first.body.qpos[i], first.body.qvel[i]
        for action in actions[:, i]:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, 5)
            path.append(data.qpos.copy())
        np.testing.assert_allclose(states.body.qpos[:, i], path, atol=0.02)


def test_free_flight_is_that_of_the_plain_maze():
    """The first three steps touch nothing: drag and thrust are the same, integrated five times as finely."""
    _, first, (actions, states, _) = play()
    plain = make("point_maze/umaze")
    state = point_maze.PointMazeState(first.body.qpos[0], first.body.qvel[0], first.body.goal[0], jnp.int32(0))
    for t in range(3):
        state, _ = plain.step(jax.random.key(0), state, actions[t, 0], plain.params)
    np.testing.assert_allclose(states.body.qpos[2, 0], state.position, atol=0.05)


def test_bad_arguments():
    with pytest.raises(ValueError, match="size is 'huge', allowed"):
        balls.point_maze("huge")
    with pytest.raises(ValueError, match="max_steps is 0"):
        balls.point_maze(episode_length=0)
