"""Replay: buffers as bundles of pure functions, whose memory is part of a state."""

from jaxrl.buffers.readers import HindsightHparams, NStepHparams, goal_relabel, hindsight, n_step, rows, sequences
from jaxrl.buffers.replay import ReplayHparams, ReplayState, num_bytes, replay
from jaxrl.buffers.samplers import PrioritizedHparams, prioritized, uniform

__all__ = [
    "HindsightHparams",
    "NStepHparams",
    "PrioritizedHparams",
    "ReplayHparams",
    "ReplayState",
    "goal_relabel",
    "hindsight",
    "n_step",
    "num_bytes",
    "prioritized",
    "replay",
    "rows",
    "sequences",
    "uniform",
]
