"""Hostile files: none of them runs, hangs, or ends in more than a line; and nothing in the package could run one."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks" / "reliability"))

import hostile  # noqa: E402
import payloads  # noqa: E402


@pytest.fixture(scope="module")
def outcomes():
    """Every payload, one after another in one other process."""
    return {outcome.name: outcome for outcome in hostile.outcomes(list(payloads.PAYLOADS), hostile.together)}


def test_there_are_enough_payloads():
    assert len(payloads.PAYLOADS) >= 50


@pytest.mark.parametrize("name", payloads.PAYLOADS)
def test_a_payload_is_refused_in_one_line(outcomes, name):
    assert name in outcomes, "an earlier payload ended the process"
    assert not outcomes[name].problems, outcomes[name]


def test_what_works_is_seen(tmp_path, monkeypatch):
    """The trap, the audit hook and the judge see a payload that does run."""
    code = (
        "import os, pathlib, pickle, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'benchmarks' / 'reliability')!r})\n"
        "import hostile, payloads\n"
        "from jaxrl import cli\n"
        "def unpickle(argv): pickle.loads(payloads.PICKLE); print('jaxrl: refused', file=sys.stderr); return 2\n"
        "def evil(argv): sys.path.insert(0, os.getcwd()); import evil_module; return 0\n"
        "def call(argv): os.system('true'); raise KeyError('x')\n"
        "def loud(argv): print('jaxrl: \\x1b[2J\\n and more', file=sys.stderr); return 2\n"
        "payloads.PAYLOADS = {'a': lambda folder, base: ['x']}\n"
        "hostile.time.perf_counter = iter(range(0, 1000, 100)).__next__\n"
        "events = []\n"
        "sys.addaudithook(lambda event, _: events.append(event) if event in hostile.EVENTS else None)\n"
        "for i, main in enumerate((unpickle, evil, call, loud)):\n"
        "    cli.main = main\n"
        "    print(hostile.attempt('a', pathlib.Path(sys.argv[1]) / str(i), None, events).problems)\n"
    )
    lines = hostile.subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    assert "saw pickle.find_class" in lines[0] and "it ran" in lines[0] and "more than" in lines[0]
    assert "it ran" in lines[1] and "exit status 0" in lines[1]
    assert "saw os.system" in lines[2] and "KeyError" in lines[2]
    assert "2 lines" in lines[3] and "escapes" in lines[3]


# The package ---------------------------------------------------------------------------------------------------------

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
METHODS = {"system", "popen", "unsafe_load", "full_load"}
IMPORTERS = {  # who may import a module by a name: those in our own tables, and what a user wrote on the command line
    "jaxrl/__init__.py",
    "jaxrl/cli/__init__.py",
    "jaxrl/cli/environment.py",
    "envs/__init__.py",
    "envs/adapter.py",
    "envs/gymnax.py",
    "envs/registry.py",
}
FILES = [*ROOT.glob("jaxrl/**/*.py"), *ROOT.glob("envs/**/*.py")]


def dangers(source, path="x.py"):
    """What in a module could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        found += [f"imports {name}" for name in names if name.split(".")[0] in MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if isinstance(node.func, ast.Name) and called in CALLS or called in METHODS:
            found.append(f"calls {called}")
        if called == "import_module" and path not in IMPORTERS:
            found.append("imports by name")
        for keyword in node.keywords:
            constant = getattr(keyword.value, "value", True)
            if keyword.arg in ("allow_pickle", "shell") and constant is not False:
                found.append(f"passes {keyword.arg}")
            if keyword.arg == "weights_only" and constant is not True:
                found.append("passes weights_only")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_in_the_package_could_run_a_file(path):
    assert dangers(path.read_text(), path.relative_to(ROOT).as_posix()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n from pickle import loads",
        "from cloudpickle.cloudpickle import load",
        "import yaml as y",
        "eval(x)",
        "exec(open(p).read())",
        "np.load(p, allow_pickle=True)",
        "np.load(p, allow_pickle=flag)",
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "importlib.import_module(header['env'])",
        "__import__(name)",
        "torch.load(p, weights_only=False)",
    ],
)
def test_the_gate_sees(source):
    assert dangers(source)


def test_the_gate_lets_the_rest_pass():
    assert not dangers("x.compile(); np.load(p, allow_pickle=False); ast.literal_eval(t); model.eval()")
