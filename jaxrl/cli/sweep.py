"""`jaxrl sweep AGENT ENV`: settings and seeds side by side, a table of all results, a ranking."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from jaxrl.cli.errors import BadInput

USAGE = """usage: jaxrl sweep AGENT ENV [flags of jaxrl train, with alternatives] [--seeds N] [--out DIR] ...
       jaxrl sweep [AGENT ENV] --resume DIR

jaxrl sweep ppo CartPole-v1 --hparams.learning-rate 1e-4,3e-4,1e-3 --hparams.discount .97,.99 --seeds 8
jaxrl sweep ppo CartPole-v1 --hparams.learning-rate 1e-5..1e-2:log --num-envs 16,64 --random 20
jaxrl sweep ppo CartPole-v1 --widths 64 64, 256 256 --hparams.learning-rate 1e-4,1e-3 --halving 2

Commas stand between alternatives of any flag; all combinations are trained, or as many as --random says, drawn from
the alternatives and from ranges LOW..HIGH of the agent's numbers (:log or :linear; without, log where HIGH >= 10 LOW >
0). Numbers of the agent (--hparams.NAME) share one compiled program; other choices take one each.

  --seeds N          runs of each setting, with seeds from --seed on (default 4)
  --seed N           the first seed, and that of --random (default 0)
  --random N         settings to draw, in place of all combinations
  --evaluations K    greedy evaluations along each run, as equal parts of it (default 10)
  --halving R        successive halving: 1/R of the settings go on to R times as many steps, and are evaluated there
  --layout NAME      auto, vmap (one wide program), threads (a program a core); auto: threads on a CPU
  --out DIR          default runs/sweep-AGENT-ENV-TIME; --overwrite replaces a sweep that is there
  --resume DIR       goes on with a sweep that was stopped or killed; finished members are not trained again
  --quiet            print errors only

DIR gets results.csv and results.jsonl (a row for each setting, seed and evaluation) and ranking.csv (settings by the
IQM of their final returns over seeds). `jaxrl train AGENT ENV --help` lists the flags that may have alternatives.
"""


class Sweep(NamedTuple):
    """What is to be trained.

    Attributes:
      settings: what makes each setting, by column; groups: of them, by program; runs: of each group.
      finalists: settings that are left at each rung; one number without halving.
      ranges: what columns are drawn from, where it is a range.
      options: of the sweep itself.
    """

    names: list[str]
    settings: list[dict]
    groups: list[Any]
    runs: list[Any]
    finalists: list[int]
    seeds: list[int]
    ranges: dict[str, str]
    options: dict[str, Any]


def main(argv: list[str]) -> int:
    started = time.perf_counter()
    if argv in (["-h"], ["--help"]):
        print(USAGE, end="")
        return 0
    from jaxrl.cli import memory, sweep_directory
    from jaxrl.cli.sweep_settings import read_words

    memory.keep_flat()
    names, given = read_words(argv)
    if "--help" in given or "-h" in given:
        print(USAGE)
        from jaxrl.cli import train

        return train.main([*names, "--help"])
    if "--resume" in given:
        out, names, given = sweep_directory.resumed(names, given)
    else:
        out = None
    sweep, content = read(names, given)
    if out is None:
        out = sweep_directory.create(sweep, names, given, content)
    else:
        sweep_directory.check_same(out, content)
    from jaxrl.cli.sweep_running import train

    with sweep_directory.locked(out):
        return train(sweep, out, started)


def read(names: list[str], given: dict[str, list[str]]) -> tuple[Sweep, dict[str, Any]]:
    """Names and flags into a `Sweep`, and what sweep.json says of it.

    Raises:
      BadInput: for whatever is wrong with them.
    """
    from jaxrl.cli import compilation, sweep_directory, sweep_programs
    from jaxrl.cli import sweep_settings as settings
    from jaxrl.halving import survivors

    options = sweep_directory.read_options(given)
    rest = {flag: words for flag, words in given.items() if flag not in sweep_directory.OWN}
    if len(names) < 1 or (len(names) < 2 and "--dataset" not in rest):
        raise BadInput("write jaxrl sweep AGENT ENV [flags], as in jaxrl sweep ppo CartPole-v1 --seeds 8")
    refused = [flag for flag in rest if flag in settings.REFUSED]
    if refused:
        raise BadInput(f"a sweep does not take {refused[0]}, which jaxrl train does")
    rest.setdefault("--episodes", ["32"])
    choices = {flag: settings.alternatives(flag, words) for flag, words in rest.items()}
    points = settings.points(choices, options["random"], options["seed"])
    varied = [flag for flag, found in choices.items() if isinstance(found, settings.Range) or len(found) > 1]
    shown = [{settings.column(flag): settings.shown(flag, point[flag]) for flag in varied} for point in points]
    if options["halving"] and {"--steps", "--updates"} & set(varied):
        raise BadInput("--halving compares settings after equal numbers of steps: give one")
    compilation.use_cache()
    groups = settings.groups(names, points)
    if not all(group.settings.plays for group in groups):
        raise BadInput("a sweep ranks settings by what they do in an environment: name ENV, too")
    if options["halving"]:
        ends = sweep_programs.at_rungs(len(points), options["halving"])
        finalists = survivors(len(points), options["halving"])
    else:
        ends, finalists = sweep_programs.even(options["evaluations"]), [len(points)]
    runs = [sweep_programs.make(group, ends, sweep_programs.label(names, group)) for group in groups]
    seeds = list(range(options["seed"], options["seed"] + options["seeds"]))
    ranges = {settings.column(flag): str(x) for flag, x in choices.items() if isinstance(x, settings.Range)}
    sweep = Sweep(names, shown, groups, runs, finalists, seeds, ranges, options)
    return sweep, sweep_directory.content(sweep)
