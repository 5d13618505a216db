"""Makes docs/systems.md from the results in docs/evidence/.

    python benchmarks/systems.py

Each file there is written by the script under `benchmarks/evidence/` that it names; nothing is typed in by hand.
"""

import json
import pathlib

DOCS = pathlib.Path(__file__).parent.parent / "docs"

HEAD = """# Systems, and what shows that they work

Made by `python benchmarks/systems.py` from `docs/evidence/*.json`. Every experiment can be run again with the script
that it names; its settings and the scores of all seeds are in the file. A figure with brackets is an interquartile mean
over seeds with its 95 % bootstrap interval. A claim that was not met is written down as missed.

"""


def page(evidence: list[dict]) -> str:
    """The text of docs/systems.md for the contents of all files of evidence."""
    evidence = sorted(evidence, key=lambda system: system["system"])
    lines = ["| system | experiment | verdict |\n|---|---|---|\n"]
    for system in evidence:
        for x in system["experiments"]:
            lines.append(
                f"| {system['system']} [{system['title']}]({system['paper']}) | {x['name']} | {x['verdict']} |\n"
            )
    return HEAD + "".join(lines) + "".join("\n" + section(system) for system in evidence)


def section(system: dict) -> str:
    text = f"## {system['system']}. {system['title']}\n\n`python {system['script']}`, paper: {system['paper']}\n"
    for x in system["experiments"]:
        text += f"\n### {x['name']}: {x['verdict']}\n\nClaim: {x['claim']}.\n\nFound: {x['finding'].rstrip('.')}.\n\n"
        text += table(x["table"])
        settings = "; ".join(f"{name}: {value}" for name, value in x["settings"].items())
        text += f"\n{x['seeds']} seeds, {x['seconds']:.0f} s on {x['machine']}. {settings}.\n"
    return text


def table(rows: list[dict]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = "| " + " | ".join(names) + " |\n|" + "---|" * len(names) + "\n"
    return text + "".join("| " + " | ".join(cell(row.get(name, "")) for name in names) + " |\n" for row in rows)


def cell(value) -> str:
    if isinstance(value, dict):
        if value["iqm"] is None:
            return f"not finite in {sum(x is None for x in value['scores'])} of {len(value['scores'])}"
        return f"{value['iqm']:.4g} [{value['low']:.4g}, {value['high']:.4g}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def load() -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((DOCS / "evidence").glob("*.json"))]


if __name__ == "__main__":
    (DOCS / "systems.md").write_text(page(load()))
