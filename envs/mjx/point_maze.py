"""The point mazes of `jaxrl.envs.point_maze` in MJX: a ball between solid walls, with the same maps and rewards."""

from __future__ import annotations

import numpy as np

from jaxrl.envs.mjx.base import Body, mjx_env
from jaxrl.envs.point_maze import task
from jaxrl.envs.point_maze.maps import walls
from jaxrl.types import Env

BALL = 0.2  # cells, its radius
_MODEL = """
<mujoco model="point_maze">
  <!-- A ball of 1 kg that slides without friction; a cell is 1 m. Walls meet nothing but the ball. -->
  <option timestep="0.02" gravity="0 0 0" integrator="Euler" solver="Newton" iterations="4" ls_iterations="8">
    <flag eulerdamp="disable"/>
  </option>
  <default>
    <geom condim="1" solref="0.04 1"/>
  </default>
  <worldbody>
    {walls}
    <body name="ball">
      <joint name="row" type="slide" axis="1 0 0" damping="{drag}"/>
      <joint name="column" type="slide" axis="0 1 0" damping="{drag}"/>
      <geom name="ball" type="sphere" size="{ball}" mass="1" contype="0" conaffinity="1"/>
    </body>
  </worldbody>
  <actuator>
    <motor name="row" joint="row" gear="{thrust}"/>
    <motor name="column" joint="column" gear="{thrust}"/>
  </actuator>
</mujoco>
"""


def point_maze(
    size: str = "umaze",
    *,
    reward: str = "sparse",
    view: str = "flat",
    random_goal: bool = False,
    episode_length: int | None = None,
) -> Env:
    """Steer a ball from a random free cell to the goal; see `jaxrl.envs.point_maze` for what is seen, done and paid.

    Drag and thrust are those of the point there, a step is 0.1 s here too (5 physics steps); but the ball has a radius
    of 0.2 cells, and walls are contacts, from which it bounces a little. `Env.params` are the physics of all MJX tasks.

    Args:
      reward: "sparse" or "dense".
      view: "flat" or "goal".
      random_goal: a new goal in any free cell at every reset.
      episode_length: steps until truncation; None: 100, 200, 400 or 600.

    Raises:
      ValueError: for an unknown size, reward or view, or episode_length < 1.
    """
    plain = task.point_maze(size, reward=reward, view=view, random_goal=random_goal, max_steps=episode_length)

    def start(key):
        state, _ = plain.reset(key, plain.params)
        return Body(state.position, state.velocity, state.goal)

    def observe(body):
        return task.observation(view, body.qpos, body.qvel, body.goal)

    def outcome(before, after, action):
        del before, action
        return task.outcome(reward, after.qpos, after.goal)

    def render(state, params):
        del params
        return task.picture(walls(size), state.body.qpos, state.body.goal)

    env = mjx_env(model(size), start, observe, outcome, num_substeps=5, episode_length=int(plain.params.max_steps))
    return env._replace(observation_space=plain.observation_space, render=render)


def model(size: str) -> str:
    """The maze as MuJoCo's XML; walls are as few boxes as a sweep over the rows finds."""
    boxes = "\n    ".join(
        f'<geom name="wall{i}" type="box" pos="{(top + bottom) / 2} {(left + right) / 2} 0"'
        f' size="{(bottom - top) / 2} {(right - left) / 2} 0.5" contype="1" conaffinity="0"/>'
        for i, (top, bottom, left, right) in enumerate(boxes_of(walls(size)))
    )
    return _MODEL.format(walls=boxes, drag=task.DRAG, thrust=task.THRUST, ball=BALL)


def boxes_of(solid: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Rectangles (top, bottom, left, right) that cover the walls, and nothing else, once each: the longer way first."""
    left_over, found = solid.copy(), []
    for row, column in np.argwhere(solid):
        if not left_over[row, column]:
            continue
        right = column + int(np.argmin([*left_over[row, column:], False]))
        bottom = row + int(np.argmin([*left_over[row:, column], False]))
        if right - column >= bottom - row:
            bottom = row + 1
            while bottom < len(solid) and left_over[bottom, column:right].all():
                bottom += 1
        else:
            right = column + 1
            while right < solid.shape[1] and left_over[row:bottom, right].all():
                right += 1
        left_over[row:bottom, column:right] = False
        found.append((int(row), int(bottom), int(column), int(right)))
    return found
