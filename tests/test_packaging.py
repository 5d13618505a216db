"""The package: what is listed, what a wheel holds, and that it works far from its checkout."""

import importlib.metadata
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"jaxrl": ROOT / "jaxrl", "jaxrl.envs": ROOT / "envs"}


def packages_on_disk():
    for name, folder in FOLDERS.items():
        for init in folder.rglob("__init__.py"):
            yield ".".join([name, *init.parent.relative_to(folder).parts])


def files_on_disk():
    """Path in a wheel of every file that belongs into it."""
    for name, folder in FOLDERS.items():
        for file in folder.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(pathlib.PurePosixPath(*name.split("."), *file.relative_to(folder).parts))


def test_every_package_is_listed():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert listed == sorted(packages_on_disk())
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"jaxrl": "jaxrl", "jaxrl.envs": "envs"}


def test_every_module_is_in_a_package():
    folders = {str(pathlib.PurePosixPath(*name.split("."))) for name in packages_on_disk()}
    for file in files_on_disk():
        if file.endswith(".py"):
            assert file.rsplit("/", 1)[0] in folders, f"{file} has no __init__.py beside it"


def test_versions_agree():
    import jaxrl

    assert PROJECT["project"]["version"] == jaxrl.__version__


def test_importing_jaxrl_loads_no_simulator_and_nothing_heavy():
    code = (
        "import sys, jax, flax; before = set(sys.modules); import jaxrl, jaxrl.envs, jaxrl.cli; jaxrl.envs.names()\n"
        "heavy = {'gymnax', 'brax', 'mujoco', 'matplotlib', 'orbax', 'tyro', 'safetensors', 'mujoco_playground'}\n"
        "assert not heavy & {name.split('.')[0] for name in set(sys.modules) - before}, sorted(sys.modules)\n"
        "jaxrl.ppo, jaxrl.online, jaxrl.evaluate, jaxrl.make_agent, jaxrl.load\n"
        "assert not heavy & {name.split('.')[0] for name in set(sys.modules) - before}, sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no build folder of the checkout gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("jaxrl", "envs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # With the declared build tool at hand (it is in the dev extra), no download is needed.
    recent = int(importlib.metadata.version("setuptools").split(".")[0]) >= 77
    pip("wheel", str(source), "--no-deps", "-w", str(out), *["--no-build-isolation"] * recent)
    (built,) = out.glob("*.whl")
    return built


def pip(*arguments):
    done = subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_holds_every_file_and_no_bare_envs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"jaxrl-{PROJECT['project']['version']}.dist-info"
    code = {name for name in names if not name.startswith(info)}
    assert code == set(files_on_disk())
    assert "jaxrl/py.typed" in code and any(name.endswith(".xml") for name in code)
    assert f"{info}/licenses/LICENSE" in names
    metadata = zipfile.ZipFile(wheel).read(f"{info}/METADATA").decode()
    assert "jax<0.11.1" in metadata and "Description-Content-Type: text/markdown" in metadata


@pytest.mark.slow
def test_an_installed_wheel_trains_outside_of_the_checkout(wheel, tmp_path):
    """An environment of its own that sees the dependencies of this one, but not the editable jaxrl in it."""
    venv.create(tmp_path / "venv")
    site = pathlib.Path(sysconfig.get_path("purelib", "venv", {"base": tmp_path / "venv"}))
    binaries = pathlib.Path(sysconfig.get_path("scripts", "venv", {"base": tmp_path / "venv"}))
    python, command = binaries / "python", binaries / "jaxrl"
    # Folders that a .pth file adds have their own .pth files, the editable install among them, left alone.
    dependencies = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site / "dependencies.pth").write_text("\n".join(dependencies))

    def run(*arguments, status=0):
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    run(python, "-c", "import jax, jaxrl", status=1)  # not visible yet
    (site / "dependencies.pth").unlink()
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (site / "dependencies.pth").write_text("\n".join(dependencies))

    where = run(python, "-c", "import jaxrl, jaxrl.envs as e; print(jaxrl.__file__, e.__file__)").split()
    assert all(pathlib.Path(path).is_relative_to(site) for path in where)
    run(python, "-c", "import jax; import importlib.util as u; assert u.find_spec('envs') is None")
    small = "--num-envs 4 --unroll-length 16 --num-minibatches 1 --episodes 4 --out here".split()
    assert "learning" not in run(command, "train", "ppo", "CartPole-v1", "--steps", "640", *small, "--quiet")
    assert "mean return" in run(command, "evaluate", "here", "--episodes", "4")
    tasks = [name for name in run(command, "list", "envs").split() if name.startswith("mjx/")]
    assert tasks
    run(python, "-c", f"import jaxrl; [jaxrl.envs.make(name) for name in {tasks}]")  # their XML files are there
    assert re.search(r"ok +jax ", run(command, "doctor"))
