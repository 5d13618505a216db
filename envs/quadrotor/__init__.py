"""A Crazyflie quadrotor that hovers and follows a figure-eight: `body` moves it, `task` asks something of it."""

from jaxrl.envs.quadrotor.body import Body, QuadrotorParams, advance, crazyflie, hover_action, randomized
from jaxrl.envs.quadrotor.task import TERMS, QuadrotorState, quadrotor

__all__ = [
    "TERMS",
    "Body",
    "QuadrotorParams",
    "QuadrotorState",
    "advance",
    "crazyflie",
    "hover_action",
    "quadrotor",
    "randomized",
]
