"""Every Python block of the documents runs."""

import importlib.util
import pathlib
import re

import pytest

DOCS = sorted((pathlib.Path(__file__).parent.parent / "docs").glob("*.md"))
BLOCKS = [
    pytest.param(block, id=f"{path.stem}-{i}")
    for path in DOCS
    for i, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


def test_there_are_some():
    assert len(BLOCKS) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_block(block):
    exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_the_page_of_systems_is_made_of_the_evidence():
    path = pathlib.Path(__file__).parent.parent / "benchmarks" / "systems.py"
    spec = importlib.util.spec_from_file_location("systems", path)
    systems = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(systems)
    evidence = systems.load()
    assert len({system["system"] for system in evidence}) >= 5
    assert (systems.DOCS / "systems.md").read_text() == systems.page(evidence)
    for system in evidence:
        assert all(x["verdict"] in ("met", "partly", "missed") for x in system["experiments"])
        assert (path.parent.parent / system["script"]).exists()
