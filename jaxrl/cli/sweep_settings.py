"""What a sweep is over: alternatives of flags, in a grid or at random, in groups of settings that share a program.

After any flag of `jaxrl train`, commas stand between alternatives: `--num-envs 16,64`, `--widths 64 64, 256 256`,
`--recurrent true,false`. A number of the agent may be drawn from a range: `--hparams.learning-rate 1e-5..1e-2:log`.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any, NamedTuple

from jaxrl.cli.errors import BadInput

PATHS = ("--dataset", "--demonstrations", "--init-from")  # in which a comma is a comma
REFUSED = ("--init-from", "--window", "--debug", "--checkpoints", "--no-checkpoints", "--keep", "--out")
REFUSED += ("--devices", "--coordinator", "--num-processes", "--process-id")
REFUSED += ("--checkpoint-steps", "--checkpoint-minutes", "--checkpoint-replay", "--no-checkpoint-replay")

Words = tuple[str, ...]  # after a flag


class Range(NamedTuple):
    low: float
    high: float
    log: bool

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g} ({'log' if self.log else 'linear'})"


class Group(NamedTuple):
    """Settings that differ in traced numbers alone.

    Attributes:
      settings: the `Settings` of `jaxrl train` for the first of them.
      members: numbers of the settings, counted over all groups; hparams: of these settings, leaves [S].
      static: the choices that make this group, by the names of their flags.
    """

    settings: Any
    members: list[int]
    hparams: Any
    static: dict[str, Any]


def read_words(argv: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Names before the first flag, and the words after every flag.

    Raises:
      BadInput: if a flag is given twice.
    """
    names = list(itertools.takewhile(lambda token: not token.startswith("-"), argv))
    given: dict[str, list[str]] = {}
    flag = ""
    for token in argv[len(names) :]:
        if token.startswith("--"):
            flag, equals, value = token.partition("=")
            if flag in given:
                raise BadInput(f"{flag} is given twice; alternatives stand behind one, with commas between them")
            given[flag] = [value] if equals else []
        else:
            given.setdefault(flag or token, []).append(token)
    return names, given


def alternatives(flag: str, words: list[str]) -> list[Words] | Range:
    """What a flag may be: words for each alternative, or the range that it is drawn from.

    Raises:
      BadInput: if an alternative is empty, or a range is not one.
    """
    if flag in PATHS or not words:
        return [tuple(words)]
    choices = [tuple(part.split()) for part in " ".join(words).split(",")]
    if () in choices:
        raise BadInput(f"{flag} {' '.join(words)}: nothing stands beside a comma")
    match = re.fullmatch(r"(.+?)\.\.(.+?)(?::(\w+))?", words[0]) if flag.startswith("--hparams.") else None
    if match is None:
        return choices
    low, high = number(flag, match[1]), number(flag, match[2])
    scale = match[3] or ("log" if low > 0 and high >= 10 * low else "linear")
    if (
        len(words) > 1
        or not -math.inf < low < high < math.inf
        or scale not in ("log", "linear")
        or (scale == "log" and low <= 0)
    ):
        allowed = "LOW..HIGH, LOW..HIGH:log or LOW..HIGH:linear with LOW < HIGH, and LOW > 0 on a log scale"
        raise BadInput(f"{flag} is {' '.join(words)}, must be {allowed}")
    return Range(low, high, scale == "log")


def number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{flag} is {text!r}, must be a number") from None


def points(choices: dict[str, list[Words] | Range], draws: int, seed: int) -> list[dict[str, Words]]:
    """The settings: all combinations, the last flag changing fastest, or `draws` of them at random.

    Raises:
      BadInput: if there are ranges and no draws, or draws and nothing to draw.
    """
    ranges = [flag for flag, found in choices.items() if isinstance(found, Range)]
    if not draws:
        if ranges:
            raise BadInput(f"{ranges[0]} {choices[ranges[0]]} is a range: say how many to draw, as in --random 20")
        return [dict(zip(choices, point)) for point in itertools.product(*choices.values())]
    if not any(isinstance(found, Range) or len(found) > 1 for found in choices.values()):
        raise BadInput(f"--random {draws}: no flag has alternatives or a range to draw from")
    import numpy as np

    generator = np.random.default_rng(seed)
    return [{flag: draw(generator, found) for flag, found in choices.items()} for _ in range(draws)]


def draw(generator: Any, choice: list[Words] | Range) -> Words:
    """One value; numbers have four digits, so that what is printed is what was trained with."""
    if not isinstance(choice, Range):
        return choice[int(generator.integers(len(choice)))]
    low, high, log = choice
    at = generator.uniform(math.log(low), math.log(high)) if log else generator.uniform(low, high)
    return (f"{min(max(float(f'{math.exp(at) if log else at:.4g}'), low), high):.12g}",)


def shown(flag: str, words: Words) -> Any:
    """A value in tables: a number where it is one."""
    from jaxrl.cli.flags import literal

    text = " ".join(words)
    value = number(flag, text) if flag.startswith("--hparams.") else literal(text)
    return value if isinstance(value, (bool, int, float)) and math.isfinite(value) else text


def column(flag: str) -> str:
    """--hparams.learning-rate -> hparams.learning_rate."""
    return flag.removeprefix("--").replace("-", "_")


def groups(names: list[str], settings: list[dict[str, Words]]) -> list[Group]:
    """The settings by what they share beside the agent's numbers; each group is made as `jaxrl train` would.

    Raises:
      BadInput: for whatever `jaxrl train` would refuse.
    """
    from jaxrl.cli.train import read_settings, with_numbers
    from jaxrl.sweeps import stack

    parts: dict[tuple, list[int]] = {}
    for i, setting in enumerate(settings):
        parts.setdefault(tuple((f, w) for f, w in setting.items() if not is_number(f)), []).append(i)
    varied = {flag for part in parts for flag, _ in set(part) - set.intersection(*map(set, parts))}
    found = []
    for part, members in parts.items():
        argv = [*names, *(token for flag, words in part for token in tokens(flag, words))]
        base = read_settings(argv)
        known = known_numbers(base.hparams)
        for flag in settings[members[0]]:
            if is_number(flag) and flag not in known:
                read_settings([*argv, flag, *settings[members[0]][flag]])  # says what is wrong, and what is near
                raise BadInput(f"there is no {flag}")
        values = [{known[f]: number(f, " ".join(w)) for f, w in settings[i].items() if is_number(f)} for i in members]
        hparams = [with_numbers(base.hparams, x) for x in values]
        static = {column(flag): shown(flag, words) for flag, words in part if flag in varied}
        found.append(Group(base._replace(hparams=hparams[0]), members, stack(hparams), static))
    return found


def is_number(flag: str) -> bool:
    """Whether a flag is a number of the agent: traced, so that it needs no program of its own."""
    return flag.startswith("--hparams.")


def known_numbers(hparams: Any) -> dict[str, str]:
    """Names of an agent's numbers, by their flags."""
    from jaxrl.cli.flags import of_hparams, option

    return {f"--{option(flag.name)}": flag.name for flag in of_hparams(hparams)}


def tokens(flag: str, words: Words) -> list[str]:
    """A flag as `jaxrl train` takes it."""
    if words in (("true",), ("false",)) and not flag.startswith("--env."):
        return [flag if words == ("true",) else f"--no-{flag[2:]}"]
    return [flag, *words]
