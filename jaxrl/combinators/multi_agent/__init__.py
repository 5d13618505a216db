"""Many agents in one environment: one learner for all, a learner each, teams of unlike ones."""

from jaxrl.combinators.multi_agent.independent import independent
from jaxrl.combinators.multi_agent.shared import shared
from jaxrl.combinators.multi_agent.teams import teams

__all__ = ["independent", "shared", "teams"]
