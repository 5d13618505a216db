"""Agents made of agents: managers and workers, options, sequences of primitives."""

from jaxrl.combinators.hierarchy.hierarchical import hierarchical
from jaxrl.combinators.hierarchy.options import OptionsHparams, gate_policy, option_space, options
from jaxrl.combinators.hierarchy.relabel import Relabel, correction, hindsight
from jaxrl.combinators.hierarchy.segments import HierarchicalHparams, Levels
from jaxrl.combinators.hierarchy.sequencer import Primitive, history_space, sequencer, with_history
from jaxrl.combinators.hierarchy.switch import scripted, switch

__all__ = [
    "HierarchicalHparams",
    "Levels",
    "OptionsHparams",
    "Primitive",
    "Relabel",
    "correction",
    "gate_policy",
    "hierarchical",
    "hindsight",
    "history_space",
    "option_space",
    "options",
    "scripted",
    "sequencer",
    "switch",
    "with_history",
]
