"""`make_agent`: the default networks and settings for an environment, as the command line uses them."""

from __future__ import annotations

from typing import Any, Callable

from jaxrl import presets
from jaxrl.factory.on_policy import build_ppo
from jaxrl.tree import field_names, replace_fields
from jaxrl.types import Agent, Env, PyTree

AGENTS: dict[str, Callable[..., Agent]] = {"ppo": build_ppo}


def make_agent(name: str, env: Env, *, preset: str | None = None, **static: Any) -> tuple[Agent, PyTree]:
    """An agent for an environment.

    Args:
      name: one of `AGENTS`.
      preset: name of an environment whose tuned settings are taken (`jaxrl.presets`); None takes the defaults.
      **static: keywords of the builder (`widths=(256, 256)`, `recurrent=True`, `num_epochs=8`), over the preset's.

    Returns:
      agent, hparams (the agent's defaults with the preset's numbers).

    Raises:
      ValueError: an unknown agent, keyword or preset, or a space that the agent has no default network for.
    """
    if name not in AGENTS:
        raise ValueError(f"make_agent: no agent is called {name!r}; there are {', '.join(AGENTS)}")
    tuned = presets.lookup(name, preset) if preset is not None else {}
    build = AGENTS[name]
    allowed = static_arguments(build)
    for keyword in static:
        if keyword not in allowed:
            raise ValueError(f"make_agent: {name} has no argument {keyword!r}; it has {', '.join(allowed)}")
    agent = build(env, **{**{k: v for k, v in tuned.items() if k in allowed}, **static})
    # A static choice may leave out a part that the preset has numbers for (`normalize_reward=False`).
    numbers = {k: v for k, v in tuned.get("hparams", {}).items() if k in field_names(agent.hparams)}
    return agent, replace_fields(agent.hparams, **numbers)


def static_arguments(build: Callable) -> dict[str, Any]:
    """The keyword arguments of a builder and their defaults."""
    return dict(build.__kwdefaults__ or {})
