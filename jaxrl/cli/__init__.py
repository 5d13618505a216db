"""The command line: `main` reads the command's name and imports only that command.

Exit status: 0 done, 1 a check found something (in training: a number that is not finite), 2 bad input (one line on
stderr), 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import importlib
import os
import sys

import jaxrl
from jaxrl.cli.errors import BadInput

HELP = """usage: jaxrl COMMAND [--help]

Reinforcement learning as JAX values.

  jaxrl train AGENT ENV [flags]      train, evaluate, and write a run directory
  jaxrl train --resume RUN           go on with a run that was stopped, or killed
  jaxrl sweep AGENT ENV [flags]      train settings and seeds side by side, and rank them
  jaxrl evaluate RUN [flags]         play episodes with a trained policy
  jaxrl crossplay RUN RUN [flags]    play policies of many agents with, or against, each other
  jaxrl collect RUN --out FILE       write a dataset of what a trained policy does
  jaxrl list agents|envs             what there is to train, and in what
  jaxrl check-env ENV                look for mistakes in an environment
  jaxrl doctor                       versions, devices, rendering, cache: what is missing and how to get it
  jaxrl --version

ENV is a name that `jaxrl list envs` prints, or MODULE:NAME for your own: a jaxrl.Env, or a function that makes one.
`jaxrl train AGENT ENV --help` lists every flag with the settings tuned for that environment.
"""

COMMANDS = {
    "train": "jaxrl.cli.train",
    "sweep": "jaxrl.cli.sweep",
    "evaluate": "jaxrl.cli.evaluate",
    "crossplay": "jaxrl.cli.crossplay",
    "collect": "jaxrl.cli.collect",
    "list": "jaxrl.cli.listing",
    "check-env": "jaxrl.cli.check",
    "doctor": "jaxrl.cli.doctor",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without unicode gets '?', not a traceback
    try:
        return _dispatch(argv)
    except BadInput as error:
        print(f"jaxrl: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxrl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `jaxrl list envs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a full disk, a folder that went away
        print(f"jaxrl: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: Exception) -> str:
    """A message without line breaks and without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split()))


def _dispatch(argv: list[str]) -> int:
    if not argv:
        raise BadInput(f"no command given; there are {', '.join(COMMANDS)}; see jaxrl --help")
    command, *rest = argv
    if command in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if command == "--version":
        print(f"jaxrl {jaxrl.__version__}")
        return 0
    if command not in COMMANDS:
        raise BadInput(f"there is no command {command!r}; there are {', '.join(COMMANDS)}; see jaxrl --help")
    return importlib.import_module(COMMANDS[command]).main(rest)
