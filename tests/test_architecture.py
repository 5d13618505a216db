"""The structure that the documents promise: who imports whom, how long a file is, what an import costs."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SIMULATORS = {"gymnax", "brax", "mujoco", "mujoco_playground"}
HEAVY = SIMULATORS | {"flax", "h5py", "orbax", "tyro", "matplotlib", "safetensors"}

# From left to right; a module imports from its own rank or from the left of it.
RANKS = [
    {"parallel"},
    {"returns", "losses", "divergences", "spaces", "statistics", "optim", "untrusted", "counters", "keys", "key_reuse"},
    {"game_theory"},
    {"types"},
    {"tree", "distributions", "networks", "minibatch", "normalize", "envs", "gradients", "finite"},
    {"bayesian_network", "policy_losses"},
    {"action_values", "buffers", "curricula", "exploration"},
    {"interaction", "evaluation", "loop", "data", "sweeps", "halving"},
    {"transforms", "risk", "rewards", "explain"},
    {"agents"},
    {"combinators"},
    {"presets", "factory", "psro", "crossplay"},
    {"policy_file", "checkpoints"},
    {"cli"},
    {"runs"},
]
RANK = {name: i for i, names in enumerate(RANKS) for name in names}

FILES = [*ROOT.glob("jaxrl/**/*.py"), *ROOT.glob("envs/**/*.py")]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "envs" if parts[0] == "envs" else parts[1]


def imports(path, top_level_only):
    """(module, names) of the imports in a file; with `top_level_only`, not those inside of functions."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", tuple(alias.name for alias in node.names)


def ours(path):
    for module, names in imports(path, top_level_only=False):
        parts = module.split(".")
        if parts[0] == "jaxrl":
            yield from [parts[1]] if len(parts) > 1 else (name for name in names if name != "__version__")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_left_never_imports_right(path):
    here = module_of(path)
    if here == "__init__":
        return
    for other in ours(path):
        assert RANK[other] <= RANK[here], f"{here} imports {other}, which is to its right"
        if here == "envs":
            assert other in {"types", "spaces", "envs"}, f"jaxrl.envs imports jaxrl.{other}"


def test_agents_do_not_import_each_other_or_the_loop():
    for path in ROOT.glob("jaxrl/agents/*.py"):
        for other in ours(path):
            assert other not in {"agents", "envs", "loop", "rollout", "buffers"}, f"{path.name} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_are_imported_where_they_are_used(path):
    allowed = {"tyro"} if module_of(path) == "cli" else set()
    for module, _ in imports(path, top_level_only=True):
        assert module.split(".")[0] not in HEAVY - allowed, f"imports {module} at the top"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", sorted(ROOT.glob("jaxrl/agents/*.py")), ids=lambda p: p.name)
def test_agents_do_not_ask_for_the_kind_of_space(path):
    assert "spaces" not in ours(path)


def test_typed_keys_only():
    for path in FILES:
        assert "PRNGKey" not in path.read_text(), path
