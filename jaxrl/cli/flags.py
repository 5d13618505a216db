"""Flags from signatures: an agent's builder, its hyperparameters and the preset of the environment make the dataclass
that tyro turns into a command line. Nothing is listed twice.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import math
import re
import typing
from typing import Annotated, Any, Callable, Iterator, NamedTuple, Sequence

import tyro

from jaxrl.cli.errors import BadInput


class Flag(NamedTuple):
    """One field of a command line: its flag (after the dashes), type, default and help."""

    name: str
    type: Any
    default: Any
    help: str


def parse(flags: list[Flag], argv: list[str], prog: str, description: str, partial: bool = False) -> dict[str, Any]:
    """Values of `flags`, by name.

    Args:
      partial: other arguments, `--help` among them, are left for a later pass.

    Raises:
      BadInput: with tyro's message on one line.
    """
    fields = []
    for i, flag in enumerate(flags):
        argument = tyro.conf.arg(name=option(flag.name), help=re.sub(r"\s+", " ", flag.help).strip())
        fields.append((f"field_{i}", Annotated[flag.type, argument], flag.default))
    config = dataclasses.make_dataclass("Flags", fields, frozen=True)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            parsed = tyro.cli(
                config,
                prog=prog,
                description=description,
                args=argv,
                return_unknown_args=partial,
                add_help=not partial,
            )
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise BadInput(one_line(errors.getvalue())) from None
    values = parsed[0] if partial else parsed
    return {flag.name: getattr(values, f"field_{i}") for i, flag in enumerate(flags)}


def one_line(box: str) -> str:
    """tyro's framed message as one line: what is wrong, the nearest flags, where to look."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip("│╭╮╰╯|+ ") for line in text.splitlines()]
    parts = re.split(r"[─-]{9,}", " ".join(lines))  # the frame is drawn in ASCII where there is no unicode
    problem, *more = [part.strip() for part in parts[1:] if part.strip()] or [text]
    near = re.findall(r"(--[\w.-]+)", " ".join(p for p in more if "meant" in p or "similar" in p))
    hint = [f"did you mean {' or '.join(dict.fromkeys(near))}?"] if near else []
    see = [f"see {match[1]}" for part in more if (match := re.search(r"run (.* --help)", part))]
    return "; ".join([problem.rstrip("."), *hint, *see])


def of_parts(parts: Sequence[Callable], defaults: dict[str, Any]) -> list[Flag]:
    """Flags for the keywords of the functions that make an agent: types from annotations, help from docstrings."""
    flags = {}
    for part in parts:
        hints, helps = typing.get_type_hints(part), argument_help(part.__doc__ or "")
        for name in part.__kwdefaults__ or {}:
            flags[name] = Flag(name, hints[name], defaults[name], helps.get(name, ""))
    return list(flags.values())


def of_hparams(hparams: Any) -> list[Flag]:
    """Flags for every number in (nested) hyperparameters, in the order of their leaves."""
    return [Flag(f"hparams.{name}", type(value), value, text) for name, value, text in named_numbers(hparams)]


def named_numbers(hparams: Any) -> list[tuple[str, Any, str]]:
    """(name, value, help) of every leaf, in order.

    The agent's own numbers go by their names, however it is wrapped; those of a wrapper have its name before them
    (`normalize_observations.clip`), so that a flag does not change its meaning when a wrapper comes or goes.
    """
    from jaxrl.types import Wrapped

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any, str]]:
        if isinstance(node, Wrapped):
            yield from walk(node.agent, prefix)
            yield from walk(node.own, f"{prefix.removesuffix('own.')}own.")
        elif isinstance(node, tuple) and hasattr(node, "_fields"):
            helps = trailing_comments(type(node))
            if prefix.endswith("own."):
                prefix = prefix.removesuffix("own.") + snake(type(node).__name__.removesuffix("Hparams")) + "."
            for name, value in zip(node._fields, node):
                if isinstance(value, tuple):
                    yield from walk(value, f"{prefix}{name}.")
                else:
                    yield prefix + name, value, helps.get(name, "")
        elif isinstance(node, tuple):
            for inner in node:
                yield from walk(inner, prefix)
        else:
            yield prefix.rstrip("."), node, ""

    seen: dict[str, int] = {}
    numbers = []
    for name, value, text in walk(hparams, ""):
        seen[name] = seen.get(name, 0) + 1
        numbers.append((name if seen[name] == 1 else f"{name}_{seen[name]}", value, text))
    return numbers


def check_range(flag: Flag, value: Any) -> None:
    """Checks a number against the range that its help begins with: "[0, 1] ..." or "> 0 ...".

    Without a range, a number may be infinite where its default is, or where it counts steps or updates (never, that
    is), and no learning rate is negative.

    Raises:
      BadInput: if it is outside, or NaN.
    """
    text = flag.help.strip()
    interval = re.match(r"\[(\S+), (\S+)\]", text)
    bound = re.match(r"(>=?) (-?[\d.e-]+)", text)
    inside, allowed = value == value, "a number"
    if isinstance(value, float) and not (interval or bound):
        signed = flag.name.rpartition(".")[2].endswith("learning_rate")
        never = value > 0 and flag.name.endswith(("_steps", "_updates"))
        inside &= (abs(value) < float("inf") or value == flag.default or never) and (value >= 0 or not signed)
        allowed = "finite" + signed * " and >= 0"
    if interval:
        inside = float(interval[1]) <= value <= float(interval[2])
    elif bound:
        inside = value > float(bound[2]) or (bound[1] == ">=" and value == float(bound[2]))
    if not inside:
        allowed = (interval or bound)[0] if interval or bound else allowed
        raise BadInput(f"--{option(flag.name)} is {value}, must be {'in ' * bool(interval)}{allowed}")


def option(name: str) -> str:
    """num_envs -> num-envs, lambda_ -> lambda."""
    return name.replace("_", "-").rstrip("-")


def argument_help(docstring: str) -> dict[str, str]:
    """The entries of a docstring's "Args:" section."""
    section = re.search(r"^ *Args:\n(.*?)(?:\n\s*\n|\Z)", inspect.cleandoc(docstring), re.S | re.M)
    entries = re.split(r"^  (?=\w)", section[1], flags=re.M) if section else []
    return {name: text for entry in entries if ":" in entry for name, text in [entry.split(":", 1)]}


def trailing_comments(cls: type) -> dict[str, str]:
    """`name: float = 0.99  # help` of a class body."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return {}
    return dict(re.findall(r"^\s+(\w+):[^#\n]*#\s*(.+)$", source, re.M))


def snake(name: str) -> str:
    """NormalizeReward -> normalize_reward, PPO -> ppo."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def split_env_flags(argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Takes `--env.KEY VALUE...` out of the arguments: Python literals, or else strings; several values are a tuple.

    Which keys there are and what fits them is for the environment's factory to say.

    Raises:
      BadInput: for a key without a value, or given twice, or a number that is not finite.
    """
    params, rest = {}, []
    tokens = list(argv)
    while tokens:
        token = tokens.pop(0)
        if not token.startswith("--env."):
            rest.append(token)
            continue
        flag, equals, value = token.partition("=")
        key = flag.removeprefix("--env.").replace("-", "_")
        values = [value] if equals else []
        while not equals and tokens and not tokens[0].startswith("--"):
            values.append(tokens.pop(0))
        if not key or not values:
            raise BadInput(f"{flag}: a value is missing; write --env.KEY VALUE")
        if key in params:
            raise BadInput(f"{flag} is given twice")
        read = tuple(literal(v) for v in values)
        if not all(math.isfinite(v) for v in read if isinstance(v, float)):
            raise BadInput(f"{flag} is {' '.join(values)}, must be finite")
        params[key] = read[0] if len(read) == 1 else read
    return params, rest


def literal(text: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text
