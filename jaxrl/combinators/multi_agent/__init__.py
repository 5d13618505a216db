"""Many agents in one environment: one learner for all, a learner each, teams of unlike ones, all as one, strangers."""

from jaxrl.combinators.multi_agent.as_team import as_team, team_env
from jaxrl.combinators.multi_agent.independent import independent
from jaxrl.combinators.multi_agent.seated import seated
from jaxrl.combinators.multi_agent.shared import shared
from jaxrl.combinators.multi_agent.teams import teams

__all__ = ["as_team", "independent", "seated", "shared", "team_env", "teams"]
