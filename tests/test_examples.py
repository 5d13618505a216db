"""Every example runs, and what it says comes out."""

import importlib.util
import pathlib

import pytest

EXAMPLES = sorted((pathlib.Path(__file__).parent.parent / "examples").glob("*.py"))


# Where what comes out has no figure here: that it runs, in fewer updates.
SHORT = {"skills": dict(skill_updates=60, task_updates=4)}


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_example(path, capsys):
    result = load(path).main(**SHORT.get(path.stem, {}))
    assert capsys.readouterr().out.strip()
    if path.stem == "sweep_seeds":
        assert result.shape == (16,) and float(result.mean()) > 100  # random play: 20
    if path.stem == "custom_environment":
        assert float(result.mean()) > 0.7
    if path.stem == "embed_policy":
        assert float(result[3]) > 300  # at the length that it was trained for
    if path.stem == "offline_to_online":
        behavior, offline, online = result
        assert offline > -900 and online > max(offline, behavior) - 50
    if path.stem == "manager_worker":
        assert result["two levels"][-1] > 0.8 > result["flat"][-1]
    if path.stem == "options":
        returned, length = result
        assert returned[-8:].mean() > returned[:8].mean() and length > 1.0
    if path.stem == "compose_replay":
        assert result["hindsight"] > 0.9


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_are_short(path):
    assert 30 <= len(path.read_text().splitlines()) <= 110
