"""Reinforcement learning as JAX values.

Agents, environments, networks and training loops are bundles of pure functions (`jaxrl.types`). Names resolve when they
are first used, so that `import jaxrl` costs little more than `import jax`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrl import (
        buffers,
        checkpoints,
        crossplay,
        curricula,
        data,
        distributions,
        envs,
        explain,
        exploration,
        game_theory,
        halving,
        losses,
        networks,
        psro,
        returns,
        rewards,
        risk,
        transforms,
        tree,
        types,
    )
    from jaxrl.agents.ppo import ppo
    from jaxrl.combinators.demonstrations import with_demonstrations
    from jaxrl.combinators.exploration import with_exploration
    from jaxrl.combinators.normalize import normalize_observations
    from jaxrl.combinators.pbt import pbt
    from jaxrl.combinators.replay import with_replay
    from jaxrl.combinators.shard import shard
    from jaxrl.combinators.skills import with_skills
    from jaxrl.combinators.transform import with_transform
    from jaxrl.evaluation import evaluate
    from jaxrl.factory import make_agent
    from jaxrl.interaction import rollout
    from jaxrl.loop import offline, online, run
    from jaxrl.policy_file import load
    from jaxrl.runs import restore
    from jaxrl.sweeps import sweep
    from jaxrl.types import Agent, Env, Loop, Network, Policy, TimeStep, Transition

__version__ = "0.1.0"

_MODULES = (
    "buffers",
    "checkpoints",
    "crossplay",
    "curricula",
    "data",
    "distributions",
    "envs",
    "explain",
    "exploration",
    "game_theory",
    "halving",
    "losses",
    "networks",
    "presets",
    "psro",
    "returns",
    "rewards",
    "risk",
    "spaces",
    "transforms",
    "tree",
    "types",
)
_NAMES = {
    "ppo": "jaxrl.agents.ppo",
    "normalize_observations": "jaxrl.combinators.normalize",
    "pbt": "jaxrl.combinators.pbt",
    "with_demonstrations": "jaxrl.combinators.demonstrations",
    "with_exploration": "jaxrl.combinators.exploration",
    "with_replay": "jaxrl.combinators.replay",
    "shard": "jaxrl.combinators.shard",
    "with_skills": "jaxrl.combinators.skills",
    "with_transform": "jaxrl.combinators.transform",
    "evaluate": "jaxrl.evaluation",
    "make_agent": "jaxrl.factory",
    "offline": "jaxrl.loop",
    "online": "jaxrl.loop",
    "run": "jaxrl.loop",
    "load": "jaxrl.policy_file",
    "restore": "jaxrl.runs",
    "rollout": "jaxrl.interaction",
    "sweep": "jaxrl.sweeps",
    **dict.fromkeys(("Agent", "Env", "Loop", "Network", "Policy", "TimeStep", "Transition"), "jaxrl.types"),
}

__all__ = sorted([*_MODULES, *_NAMES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxrl.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'jaxrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
