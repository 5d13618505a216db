"""A point mass in a maze, with a scripted controller that solves it: where data sets of many qualities come from.

After Maze2D of D4RL (Fu et al. 2020, https://arxiv.org/abs/2004.07219), whose maps it has, with dynamics of its own: a
unit mass with drag and walls that stop it, instead of a simulated ball. Distances are in cells, times in steps of 0.1.
"""

from jaxrl.envs.point_maze.maps import MAZES, TASKS, cell_index, distances, free_cells, grid_distance, next_cells, walls
from jaxrl.envs.point_maze.scripted import collect_explore, collect_navigate, collect_stitch, waypoint_controller
from jaxrl.envs.point_maze.task import MAX_STEPS, RADIUS, PointMazeParams, PointMazeState, point_maze, task_params

__all__ = [
    "MAX_STEPS",
    "MAZES",
    "RADIUS",
    "TASKS",
    "PointMazeParams",
    "PointMazeState",
    "cell_index",
    "collect_explore",
    "collect_navigate",
    "collect_stitch",
    "distances",
    "free_cells",
    "grid_distance",
    "next_cells",
    "point_maze",
    "task_params",
    "walls",
    "waypoint_controller",
]
