"""`jaxrl list agents|envs`: the tables, without importing a simulator."""

from __future__ import annotations

from jaxrl.cli.errors import BadInput


def main(argv: list[str]) -> int:
    from jaxrl.presets import DEFAULTS, PRESETS

    if argv in (["-h"], ["--help"]):
        print("usage: jaxrl list agents|envs\n\nEvery name, and where there are tuned settings.")
    elif argv == ["agents"]:
        for agent in DEFAULTS:
            tuned = [env for name, env in PRESETS if name == agent]
            data = "" if "steps" in DEFAULTS[agent] else "  from a dataset alone"
            print(f"{agent}  tuned for {', '.join(tuned)}" if tuned else agent + data)
    elif argv == ["envs"]:
        from jaxrl import envs

        for env in envs.names():
            tuned = [agent for agent, name in PRESETS if name == env]
            print(f"{env:32}tuned: {', '.join(tuned)}" if tuned else env)
    else:
        raise BadInput(f"jaxrl list takes agents or envs, not {' '.join(argv) or 'nothing'}")
    return 0
