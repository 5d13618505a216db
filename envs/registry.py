"""`make(name, **params)`: one plain table from names to factories; a factory's module is imported when it is used."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from jaxrl.envs.adapter import replace
from jaxrl.types import Env

_GYMNAX = """
    Acrobot-v1 CartPole-v1 MountainCar-v0 MountainCarContinuous-v0 Pendulum-v1
    Asterix-MinAtar Breakout-MinAtar Freeway-MinAtar Seaquest-MinAtar SpaceInvaders-MinAtar
    Catch-bsuite DeepSea-bsuite DiscountingChain-bsuite MNISTBandit-bsuite MemoryChain-bsuite SimpleBandit-bsuite
    UmbrellaChain-bsuite BernoulliBandit-misc FourRooms-misc FrozenLake-misc GaussianBandit-misc MetaMaze-misc
    PointRobot-misc Pong-misc Reacher-misc Swimmer-misc
"""
_BRAX = """
    ant fast halfcheetah hopper humanoid humanoidstandup inverted_double_pendulum inverted_pendulum pusher reacher
    walker2d
"""  # not swimmer: Brax 0.14.2 calls jnp.clip(a_min=) there, which jax no longer has
_DIAGNOSTIC = """
    action_reward constant_reward discount masked_action_reward memory multi_discrete_action_reward
    observation_action_reward observation_reward truncation
"""
_GAMES = """
    chicken climbing climbing_3 cyclic matching_pennies penalty penalty_3 prisoners_dilemma rock_paper_scissors
    stag_hunt
"""
_TASKS = "aloha bit_flip four_rooms foraging key_door predator_prey two_step"
_KITCHENS = "asymmetric_advantages cramped_room forced_coordination"
_MAZES = "umaze medium large giant"
_MJX = "cartpole_swingup reacher runner"
_PARTICLES = "spread reference speaker_listener tag"
_PLAYGROUND = """
    AcrobotSwingup AcrobotSwingupSparse BallInCup CartpoleBalance CartpoleBalanceSparse CartpoleSwingup
    CartpoleSwingupSparse CheetahRun FingerSpin FingerTurnEasy FingerTurnHard FishSwim HopperHop HopperStand HumanoidRun
    HumanoidStand HumanoidWalk PendulumSwingup PointMass ReacherEasy ReacherHard SwimmerSwimmer6 WalkerRun WalkerStand
    WalkerWalk
"""  # those of its environments that need no download; `make` takes the names of the others, too

# name -> (module, function, positional arguments)
TABLE: dict[str, tuple[str, str, tuple]] = {
    **{name: ("jaxrl.envs.gymnax", "make_gymnax", (name,)) for name in _GYMNAX.split()},
    **{f"brax/{name}": ("jaxrl.envs.brax", "make_brax", (name,)) for name in _BRAX.split()},
    **{f"diagnostic/{name}": ("jaxrl.envs.diagnostic", name, ()) for name in _DIAGNOSTIC.split()},
    **{f"mjx/{name}": (f"jaxrl.envs.mjx.{name}", name, ()) for name in _MJX.split()},
    **{f"mjx/point_maze/{size}": ("jaxrl.envs.mjx.point_maze", "point_maze", (size,)) for size in _MAZES.split()},
    **{f"playground/{name}": ("jaxrl.envs.playground", "make_playground", (name,)) for name in _PLAYGROUND.split()},
    **{name: (f"jaxrl.envs.{name}", name, ()) for name in _TASKS.split()},
    **{f"kitchen/{layout}": ("jaxrl.envs.kitchen", "kitchen", (layout,)) for layout in _KITCHENS.split()},
    **{f"point_maze/{size}": ("jaxrl.envs.point_maze", "point_maze", (size,)) for size in _MAZES.split()},
    **{f"quadrotor/{task}": ("jaxrl.envs.quadrotor", "quadrotor", (task,)) for task in ("hover", "figure_eight")},
    **{name: ("jaxrl.envs.memory", name, ()) for name in ("memory_chain", "t_maze")},
    **{name: (f"jaxrl.envs.{module}", name, ()) for name, module in (("merge2", "merge"), ("trust_dilemma",) * 2)},
    **{f"games/{name}": ("jaxrl.envs.games", "game", (name,)) for name in _GAMES.split()},
    **{name: ("jaxrl.envs.particles", name, ()) for name in _PARTICLES.split()},
}


def names() -> tuple[str, ...]:
    """The names of all environments that `make` builds, sorted; imports no simulator."""
    return tuple(sorted(TABLE))


def make(name: str, **params: Any) -> Env:
    """Builds the environment called `name`.

    Args:
      name: one of `names()`, as "CartPole-v1", "brax/ant", "mjx/reacher".
      **params: keyword arguments of its factory (static: `backend="spring"`, `episode_length=200`), or new values of
        fields of `env.params` (traced: `gravity=5.0`), of the field's shape.

    Raises:
      ValueError: an unknown name (the message has the nearest ones), an unknown parameter (it lists what is allowed),
        or a value that does not fit its field.
    """
    prefix, _, rest = str(name).partition("/")
    if name not in TABLE and not (prefix == "playground" and rest):
        lowered = {known.lower(): known for known in TABLE}
        near = difflib.get_close_matches(str(name).lower(), lowered, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(lowered[n]) for n in near)}?" if near else ""
        raise ValueError(f"make: no environment is called {name!r}.{hint} jaxrl.envs.names() lists all.")
    module, function, arguments = TABLE.get(name, ("jaxrl.envs.playground", "make_playground", (rest,)))
    factory = getattr(importlib.import_module(module), function)
    keywords = list(inspect.signature(factory).parameters.values())[len(arguments) :]
    if any(p.kind is p.VAR_KEYWORD for p in keywords):  # the factory sorts static from traced itself
        return factory(*arguments, **params)
    allowed = [p.name for p in keywords]
    env = factory(*arguments, **{k: v for k, v in params.items() if k in allowed})
    changes = {k: v for k, v in params.items() if k not in allowed}
    return env._replace(params=replace(env.params, changes, name, allowed)) if changes else env
