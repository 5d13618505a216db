"""What the scripts of reliability share: tables, their pages in docs/reliability, and the line of arguments."""

import argparse
import os
import pathlib

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "reliability"


def arguments(doc):
    """--quick: a bounded part; --write: the page too."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a bounded part")
    parser.add_argument("--write", action="store_true", help="write docs/reliability/NAME.md")
    return parser.parse_args()


def table(rows):
    """A markdown table of rows, each a dictionary of its columns."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([str(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine():
    import jax
    import orbax.checkpoint

    return f"{len(os.sched_getaffinity(0))} CPU cores, jax {jax.__version__}, orbax {orbax.checkpoint.__version__}"


def finish(name, heading, done, rows, broken, write):
    """Prints the table, writes the page if asked to, and returns the exit status: 1 if a promise is broken.

    Args:
      done: a paragraph on what was done.
      broken: promises that did not hold, a line each.
    """
    verdict = "Every promise held." if not broken else "Broken: " + "; ".join(broken) + "."
    print(f"{table(rows)}\n\n{verdict}")
    if write:
        DOCS.mkdir(parents=True, exist_ok=True)
        text = f"# {heading}\n\n{done} Measured on {machine()} by `benchmarks/reliability/{name}.py`.\n\n"
        (DOCS / f"{name}.md").write_text(f"{text}{table(rows)}\n\n{verdict}\n")
    return int(bool(broken))
