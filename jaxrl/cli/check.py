"""`jaxrl check-env ENV`: mistakes in an environment, one a line."""

from __future__ import annotations

from jaxrl.cli.errors import BadInput, bad_input


def main(argv: list[str]) -> int:
    from jaxrl.cli.environment import make_env
    from jaxrl.cli.flags import split_env_flags

    if argv in (["-h"], ["--help"]):
        print("usage: jaxrl check-env ENV [--env.KEY VALUE]\n\nENV is MODULE:NAME, or a name of jaxrl list envs.")
        return 0
    params, rest = split_env_flags(argv)
    if len(rest) != 1 or rest[0].startswith("-"):
        raise BadInput("write jaxrl check-env MODULE:NAME [--env.KEY VALUE]")
    env = make_env(rest[0], params)

    from jaxrl.envs.check import problems

    with bad_input(Exception, what=rest[0]):
        found = problems(env)
    for problem in found:
        print(problem)
    print(f"{rest[0]}: {len(found)} problem{'s' * (len(found) != 1)}" if found else f"{rest[0]}: ok")
    return 1 if found else 0
