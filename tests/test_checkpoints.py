"""Checkpoints: what is saved comes back to the bit, what is damaged never does, and a folder never runs anything."""

import json
import os
import pathlib
import sys
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.checkpoints import Checkpoints, arrays, manifest, open_readonly, read_config, structure

SCRIPTS = pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"
sys.path.insert(0, str(SCRIPTS))

import damage  # noqa: E402
import disk_full  # noqa: E402
import durability  # noqa: E402
import skew  # noqa: E402
import writers  # noqa: E402


class Node(NamedTuple):
    weight: jax.Array
    inner: dict


def tree(seed=0):
    inner = {
        "list": [jnp.arange(3) + seed, jnp.zeros((0, 2))],
        "byte": jnp.uint8(7),
        "flag": jnp.ones((), bool),
        "keys": jax.random.split(jax.random.key(seed), 2),
        "other key": jax.random.key(seed, impl="rbg"),
        "empty": (),
        "none": None,
        "weak": (jnp.asarray(-0.0), jnp.broadcast_to(jnp.asarray(3), (2,))),
    }
    return Node(jnp.full((2, 3), 1.5 + seed, jnp.bfloat16), inner)


def small(step):
    return {"x": np.arange(5.0) + step, "y": np.int32(step)}


def saved(folder, steps=(1, 2), **options):
    with Checkpoints(folder, say=lambda line: None, **options) as store:
        for step in steps:
            store.save(step, small(step))
    return folder


def restored(folder, template=None, **options):
    """The step that is restored, and the lines that are said."""
    lines = []
    found = open_readonly(folder, lines.append).restore(small(0) if template is None else template, **options)
    assert damage.same(found.state, small(found.step))
    return found.step, lines


def files_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "jaxrl.lock")


def one_line(error):
    assert "\n" not in str(error.value) and str(error.value)
    return str(error.value)


def test_a_state_comes_back_to_the_bit(tmp_path):
    with Checkpoints(tmp_path, config={"agent": "ppo", "widths": (8, 8)}) as store:
        store.save(10, tree(), notes={"rows": 3})
        for template in (tree(1), jax.eval_shape(tree)):
            found = store.restore(template)
            assert found[1:] == (10, {"rows": 3}, {"agent": "ppo", "widths": [8, 8]})
            assert jax.tree.structure(found.state) == jax.tree.structure(tree())
            for leaf, like in zip(jax.tree.leaves(found.state), jax.tree.leaves(tree())):
                assert leaf.dtype == like.dtype and damage.bits(leaf) == damage.bits(like)
                assert getattr(leaf, "weak_type", None) == getattr(like, "weak_type", None)
    assert read_config(tmp_path) == {"agent": "ppo", "widths": [8, 8]}


def test_numpy_stays_numpy(tmp_path):
    saved(tmp_path)
    assert all(type(x) is np.ndarray for x in open_readonly(tmp_path).restore(small(0)).state.values())
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), small(0))
    with pytest.raises(ValueError, match="'x' is float64, and needs jax_enable_x64"):
        open_readonly(tmp_path).restore(shapes)


def test_a_state_may_change_once_save_has_returned(tmp_path, monkeypatch):
    may_write, write = threading.Event(), arrays.write
    monkeypatch.setattr(arrays, "write", lambda *arguments: may_write.wait(20) and write(*arguments))
    state = {"host": np.arange(1000.0), "device": jnp.arange(1000.0)}
    with Checkpoints(tmp_path, say=lambda line: None) as store:
        store.save(1, state)
        jax.block_until_ready(jax.jit(lambda x: -x, donate_argnums=0)(state["device"]))
        state["host"][:] = 0
        may_write.set()
        found = store.restore({"host": np.zeros(1000), "device": jnp.zeros(1000)}).state
    assert np.array_equal(found["host"], np.arange(1000.0)) and np.array_equal(found["device"], np.arange(1000.0))
    device = jnp.arange(1000.0)
    assert not np.shares_memory(structure.snapshot({"x": device})[1]["x"], np.asarray(device))


def test_a_step_counts_when_it_is_on_the_disk_and_was_read_back(tmp_path, monkeypatch):
    seen, lines = [], []

    def watch(module, name):
        original = getattr(module, name)

        def watched(*arguments):
            seen.append((name, files_of(tmp_path), store.steps(), list(lines)))
            return original(*arguments)

        monkeypatch.setattr(module, name, watched)

    watch(arrays, "read")
    watch(manifest, "write")
    with Checkpoints(tmp_path, say=lines.append) as store:
        store.save(1, small(1))
        store.wait()
        assert seen == [("read", ["1"], [], []), ("write", ["1"], [], [])]
        assert store.steps() == [1] and lines == ["checkpoint: step 1 saved"]


def test_what_the_disk_did_not_keep_is_not_saved(tmp_path, monkeypatch):
    write = arrays.write

    def forgetful(folder, step, found):
        write(folder, step, {k: np.zeros_like(v) if step == 2 else v for k, v in found.items()})

    monkeypatch.setattr(arrays, "write", forgetful)
    lines = []
    with Checkpoints(tmp_path, say=lines.append) as store:
        for step in (1, 2, 3):
            store.save(step, small(step))
        store.wait()
        assert store.steps() == [1, 3] and files_of(tmp_path) == ["1", "1.json", "3", "3.json"]
    assert "step 2 was not saved" in lines[1] and "saved steps: 1" in lines[1]


@pytest.mark.parametrize("place", [(arrays, "write"), (arrays, "read"), (manifest, "write"), (manifest, "sync_all")])
def test_a_failed_save_ends_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, place):
    lines = []
    with Checkpoints(tmp_path, say=lines.append) as store:
        store.save(1, small(1))
        store.wait()
        with monkeypatch.context() as patch:

            def full(*_):
                raise OSError(28, "No space left on device")

            patch.setattr(*place, full)
            store.save(2, small(2))
            store.wait()
        assert lines[1:] == ["checkpoint: step 2 was not saved (no space left on the disk); saved steps: 1"]
        assert files_of(tmp_path) == ["1", "1.json"]
        store.save(2, small(2))  # there is room again
    assert restored(tmp_path) == (2, [])


def test_a_step_that_is_saved_again_keeps_its_arrays(tmp_path, monkeypatch):
    lines = []
    saved(tmp_path)
    with Checkpoints(tmp_path, config={"steps": 200}, say=lines.append) as store:
        found = store.restore(small(0)).state
        with monkeypatch.context() as patch:
            patch.setattr(manifest, "write", lambda *_: os.close(-1))
            store.save(2, found)
            store.wait()
        assert "step 2 was not saved" in lines[0] and store.steps() == [1, 2]
        store.save(2, small(7))
        store.wait()
        assert "with another state" in lines[1] and store.steps() == [1, 2]
        store.save(2, found, notes={"new": 1})
        assert store.restore(small(0))[1:] == (2, {"new": 1}, {"steps": 200})
    assert restored(tmp_path) == (2, [])


def test_the_newest_and_the_best_stay(tmp_path):
    with Checkpoints(tmp_path, keep=2, keep_best=2, say=lambda line: None) as store:
        kept = []
        for step, score in enumerate([3, 9, None, 5, 9, 1, None], 1):
            store.save(step, small(step), score=score)
            store.wait()
            kept.append(store.steps())
    assert kept == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [2, 4, 5], [2, 5, 6], [2, 5, 6, 7]]
    assert files_of(tmp_path) == sorted(f"{n}{end}" for n in kept[-1] for end in ("", ".json"))
    assert restored(tmp_path, step=2) == (2, [])


def test_more_may_be_kept_than_there_are(tmp_path):
    with Checkpoints(tmp_path, keep=1, keep_best=4, say=lambda line: None) as store:
        for step in (1, 2, 3):
            store.save(step, small(step), score=-step)
        store.wait()
        assert store.steps() == [1, 2, 3]


def test_a_run_goes_on_from_where_it_was_restored(tmp_path):
    saved(tmp_path, (10, 20, 30))
    with Checkpoints(tmp_path, say=lambda line: None) as store:
        with pytest.raises(ValueError, match="step is 0, must be >= 30"):
            store.save(0, small(0))  # it would be a run from the start in the folder of another
        store.restore(small(0), 10)
        store.save(15, small(15))
        store.wait()
        assert store.steps() == [10, 15]  # 20 and 30 are of a life that was not continued
        with pytest.raises(ValueError, match="must be >= 15"):
            store.save(14, small(14))
    with pytest.raises(ValueError, match="closed"):
        store.save(16, small(16))


def test_damage_to_the_newest_step_falls_back_and_is_replaced(tmp_path):
    saved(tmp_path, (1, 2, 3))
    (tmp_path / "3.json").write_bytes((tmp_path / "3.json").read_bytes().replace(b'"step": 3', b'"step": 4'))
    next((tmp_path / "2").rglob("_METADATA")).write_bytes(b"{}")
    lines = []
    with Checkpoints(tmp_path, say=lines.append) as store:
        assert store.steps() == [1, 2]  # nobody has looked into 2 yet
        assert store.restore(small(0)).step == 1 and store.steps() == [1]
        assert len(lines) == 2 and "step 3 is damaged" in lines[0] and "3.json" in lines[0]
        assert "step 2 is damaged" in lines[1] and "2/default/_METADATA has 2 bytes" in lines[1]
        with pytest.raises(ValueError, match="step 2: 2/default/_METADATA has 2 bytes"):
            store.restore(small(0), 2)
        store.save(2, small(2))
        assert store.restore(small(0)).step == 2 and store.steps() == [1, 2]
    assert files_of(tmp_path) == ["1", "1.json", "2", "2.json"]


def test_without_a_good_step_there_is_one_line(tmp_path):
    saved(tmp_path, (1,))
    with pytest.raises(ValueError, match=r"does not have step 7; it has steps \[1\]"):
        restored(tmp_path, step=7)
    (tmp_path / "1.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no checkpoint can be restored \(step 1: 1.json"):
        restored(tmp_path)
    with pytest.raises(ValueError, match="no checkpoint with a config"):
        read_config(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="does not have a checkpoint; it has steps none"):
        restored(tmp_path / "empty")
    with pytest.raises(ValueError, match="no such folder"):
        open_readonly(tmp_path / "nowhere")


def test_what_a_killed_run_leaves_is_swept(tmp_path):
    saved(tmp_path)
    (tmp_path / "2.json").unlink()
    (tmp_path / "3.orbax-checkpoint-tmp" / "default").mkdir(parents=True)
    (tmp_path / ".4.json.123.tmp").touch()
    (tmp_path / "notes.txt").touch()
    before = files_of(tmp_path)
    lines = []
    assert open_readonly(tmp_path, lines.append).restore(small(0)).step == 1 and files_of(tmp_path) == before
    assert len(lines) == 1 and "step 2 is not finished" in lines[0]
    Checkpoints(tmp_path, say=lines.append).close()
    assert files_of(tmp_path) == ["1", "1.json", "notes.txt"]
    assert ["step 2 was never finished" in line for line in lines[1:]] == [True, False] and "step 3" in lines[2]


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "2024").mkdir()
    with pytest.raises(ValueError, match="not a folder of checkpoints, it has 2024"):
        Checkpoints(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not a folder for checkpoints"):
        Checkpoints(tmp_path / "file")
    assert files_of(tmp_path) == ["2024", "file"]
    saved(tmp_path / "ours")
    (tmp_path / "ours" / "jaxrl.lock").unlink()
    assert restored(saved(tmp_path / "ours", (2, 3))) == (3, [])


def test_a_folder_has_one_writer(tmp_path):
    with Checkpoints(tmp_path):
        with pytest.raises(ValueError, match=f"process {os.getpid()} is writing there") as error:
            Checkpoints(tmp_path)
        one_line(error)
    Checkpoints(tmp_path).close()


def test_a_reader_sees_what_a_writer_does_meanwhile(tmp_path, monkeypatch):
    with Checkpoints(tmp_path, keep=1, keep_best=0, say=lambda line: None) as store:
        store.save(1, small(1))
        store.wait()
        verify, reader, lines = manifest.verify, open_readonly(tmp_path, lambda line: lines.append(line)), []

        def slow(folder, files):  # the writer is done with another step by the time that this one is looked at
            if threading.current_thread() is threading.main_thread() and folder.name == "1":
                store.save(2, small(2))
                store.wait()
            verify(folder, files)

        monkeypatch.setattr(manifest, "verify", slow)
        assert reader.restore(small(0)).step == 2 and not lines and reader.steps() == [2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keep": 0}, "keep is 0"),
        ({"keep_best": -1}, "keep_best -1"),
        ({"config": {"x": float("nan")}}, "config: must be a dictionary of JSON"),
        ({"config": {"x": object()}}, "config: must be a dictionary of JSON"),
        ({"config": [1]}, "config: must be a dictionary of JSON"),
    ],
)
def test_what_cannot_be_opened_is_refused(tmp_path, arguments, says):
    with pytest.raises(ValueError) as error:
        Checkpoints(tmp_path / "c", **arguments)
    assert says in one_line(error) and not (tmp_path / "c").exists()


def test_what_cannot_be_saved_is_refused(tmp_path):
    class Strange:
        pass

    cases = [
        ((1, {"x": 3}), {}, "'x' is a int"),
        ((1, {"x": np.array([Strange()])}), {}, "'x' is object[1]"),
        ((1, {"x": np.array(["a"])}), {}, "'x' is <U1[1]"),
        ((1, {"a": {"b": np.ones(1)}, "a/b": np.ones(1)}), {}, "same key path"),
        ((1, {}), {}, "no numbers"),
        ((-1, small(0)), {}, "step is -1"),
        ((1, small(0)), {"score": float("nan")}, "score is nan"),
        ((1, small(0)), {"notes": {"x": {1, 2}}}, "notes: must be"),
    ]
    with Checkpoints(tmp_path) as store:
        for positional, named, says in cases:
            with pytest.raises(ValueError) as error:
                store.save(*positional, **named)
            assert says in one_line(error)
        with pytest.raises(TypeError):
            store.save(1.5, small(0))
        assert store.steps() == []


def rewritten(folder, change, step=2):
    """The manifest of a step, changed by one who knows how its digest is made."""
    path = manifest.path_of(folder, step)
    fields = json.loads(path.read_text())
    del fields["sha256"]
    change(fields)
    path.write_bytes(manifest._bytes(fields))


def replaced(path, make):
    path.unlink()
    make(path)


HOSTILE = {
    "2.json: is not valid JSON": lambda f: (f / "2.json").write_bytes(b"\x80\x04\x95pickle"),
    "JSON nested deeper": lambda f: (f / "2.json").write_text("[" * 100_000),
    "more than 8 MiB": lambda f: (f / "2.json").write_bytes(b" " * (10 << 20)),
    "2.json is not a manifest (OSError: not a file)": lambda f: replaced(f / "2.json", os.mkfifo),
    "2.json is not a manifest": lambda f: replaced(f / "2.json", lambda path: path.symlink_to(f / "1.json")),
    "its own digest": lambda f: (f / "2.json").write_text((f / "2.json").read_text().replace('"step": 2', '"step": 3')),
    "its own digest ": lambda f: (f / "2.json").write_text((f / "2.json").read_text() + " "),
    "'step' is malformed": lambda f: rewritten(f, lambda x: x.update(step=1)),
    "'config' is malformed": lambda f: rewritten(f, lambda x: x.update(config=[])),
    "'notes' is missing": lambda f: rewritten(f, lambda x: x.pop("notes")),
    "'files' is missing or": lambda f: rewritten(f, lambda x: x.update(files=[1])),
    "'leaves' is malformed": lambda f: rewritten(f, lambda x: x["leaves"][0].update(shape=[-1])),
    "'leaves' is missing": lambda f: rewritten(f, lambda x: x["leaves"].append(1)),
    "'nodes' is missing": lambda f: rewritten(f, lambda x: x.update(nodes=3)),
    "2/../1.json is missing": lambda f: rewritten(f, lambda x: x["files"].update({"../1.json": dict(DIGEST)})),
    "2//etc/passwd is missing": lambda f: rewritten(f, lambda x: x["files"].update({"/etc/passwd": dict(DIGEST)})),
    "2/x is not in the manifest": lambda f: (f / "2" / "x").touch(),
    "2/?[2J is not in the manifest": lambda f: (f / "2" / "\x1b[2J").touch(),
    "2/x is a link": lambda f: (f / "2" / "x").symlink_to(f / "1.json"),
    "2/x is a link ": lambda f: os.mkfifo(f / "2" / "x"),
    "2 is not a folder": lambda f: ((f / "2").rename(f / "y"), (f / "2").symlink_to(f / "y")),
}
DIGEST = {"size": 1, "sha256": "0" * 64}


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("good") / "c")


@pytest.mark.parametrize("says", HOSTILE)
def test_a_hostile_folder_is_one_line(tmp_path, two_steps, says):
    damage.shutil.copytree(two_steps, tmp_path / "c")
    HOSTILE[says](tmp_path / "c")
    step, lines = restored(tmp_path / "c")
    assert step == 1 and len(lines) == 1 and "\n" not in lines[0]
    assert says.strip() in lines[0] and "step 2 is damaged" in lines[0]


def hidden(header, content):
    """A change of how the array of the float64 leaf is stored."""

    def change(folder):
        path = folder / "2" / arrays.ITEM / "float64" / ".zarray"
        path.write_text(json.dumps({**json.loads(path.read_text()), **header}))
        if content is not None:
            path.with_name("0").write_bytes(content)

    return change


UNFOLDING = {
    "float64/.zarray has": hidden({"shape": [10**9], "chunks": [10**9]}, None),
    "float64/.zarray has ": hidden({"compressor": {"id": "zstd", "level": 1}}, b"x"),
    "float64/0 has 7 bytes, must have 40": hidden({}, b"1234567"),
    "ocdbt is not a file of such": lambda f: (f / "2" / arrays.ITEM / "manifest.ocdbt").write_text("x"),
    "_METADATA is not a file of such": lambda f: (f / "2" / arrays.ITEM / "_METADATA").write_bytes(bytes(9 << 20)),
    "cannot be read": hidden({"dtype": "<i8"}, None),
    "default cannot be read": lambda f: (f / "2" / arrays.ITEM / "_METADATA").write_text("[" * 100_000),
    "'x' is not the array that was saved": hidden({}, np.arange(5.0).tobytes()),
}


@pytest.mark.parametrize("says", UNFOLDING)
def test_arrays_that_are_not_what_they_should_be_are_refused(tmp_path, two_steps, says):
    """With digests of files that are right: made by somebody who can."""
    damage.shutil.copytree(two_steps, tmp_path / "c")
    UNFOLDING[says](tmp_path / "c")
    rewritten(tmp_path / "c", lambda x: x.update(files=manifest.digests(tmp_path / "c" / "2")))
    step, lines = restored(tmp_path / "c")
    assert step == 1 and len(lines) == 1 and "\n" not in lines[0] and says.strip() in lines[0]


def test_a_newer_schema_is_not_damage(tmp_path):
    saved(tmp_path)
    rewritten(tmp_path, lambda x: x.update(schema=2))
    with pytest.raises(ValueError, match="schema 2, this jaxrl reads 1") as error:
        restored(tmp_path)
    one_line(error)


def test_nothing_is_left_open(tmp_path):
    counts = []
    with Checkpoints(tmp_path, say=lambda line: None) as store:
        for step in range(14):
            store.save(step, small(step))
            store.restore(small(0))
            counts.append((threading.active_count(), len(os.listdir("/proc/self/fd"))))
    for before, after in zip(counts[3], counts[-1]):  # a thread that is about to end may be counted
        assert after <= before + 3, counts


@pytest.mark.parametrize("name", skew.CASES)
def test_what_does_not_fit_is_refused(tmp_path, name):
    saved, template, names = skew.CASES[name]
    assert skew.ours(tmp_path / "c", saved, template, names, newer=name == "a newer schema") == "refused"


def test_no_damage_is_silent():
    random, (old, new) = np.random.default_rng(1), damage.states(quick=True)["keys, bfloat16, counters"]
    files, flips, control = damage.checkpoints(old, new, 20, random)
    assert set(files) == set(flips) == {"fell back"} and files.total() >= 40 and control == "not noticed"


@pytest.mark.slow
def test_a_full_disk_ends_the_save_and_not_the_run():
    assert disk_full.measure(quick=True)[1] == []


@pytest.mark.slow
def test_one_writer_and_any_reader():
    assert writers.measure(quick=True)[1] == []


@pytest.mark.slow
def test_what_is_said_to_be_saved_outlasts_a_kill():
    assert durability.measure(quick=True)[1] == []
