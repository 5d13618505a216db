"""Our own files: what goes in comes out, to the bit; what is broken ends in one line that names file and field."""

import io
import json
import os
import pathlib
import struct
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.test_dataset import equal
from data.toydata import chain
from safetensors.numpy import load_file

from jaxrl import data as d
from jaxrl.data import containers, native

SUFFIXES = (".safetensors", ".npz")


def refused(path, *says, **options):
    with pytest.raises(ValueError) as error:
        d.read(path, **options)
    text = str(error.value)
    assert "\n" not in text and path.name in text, text
    for part in says:
        assert part in text, text
    return text


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_dataset_comes_back(tmp_path, suffix, mmap):
    path, dataset = tmp_path / f"x{suffix}", chain()
    assert d.write(path, dataset) == path.stat().st_size
    found = d.read(path, mmap=mmap)
    equal(found.transitions, dataset.transitions)
    assert found.metadata == dataset.metadata
    assert found.transitions.observation["picture"].dtype == np.uint8
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    before = path.read_bytes()
    d.write(path, found)  # also from a memory-mapped one, over the file that it reads
    assert path.read_bytes() == before


def test_successors_are_stored_once(tmp_path):
    d.write(tmp_path / "x.safetensors", chain())
    shapes = {name: x.shape for name, x in load_file(tmp_path / "x.safetensors").items()}  # the real library reads it
    assert shapes["observation/picture"] == (10, 2, 2) and shapes["final_observation/picture"] == (4, 2, 2)
    assert not any(name.startswith("next_observation") for name in shapes)
    with np.load(
        tmp_path.joinpath("x.npz") if d.write(tmp_path / "x.npz", chain()) else "", allow_pickle=False
    ) as file:
        assert file["final_observation/parts/0"].shape == (4, 4)


def test_other_successors_are_stored_in_full(tmp_path):
    for dataset in (d.n_step(chain(), 2, 0.9), d.take_rows(chain(), np.array([4, 3, 2, 1]))):
        for suffix in SUFFIXES:
            d.write(tmp_path / f"x{suffix}", dataset)
            for mmap in (False, True):
                equal(d.read(tmp_path / f"x{suffix}", mmap=mmap).transitions, dataset.transitions)


def test_one_bit_of_a_successor_counts(tmp_path):
    dataset = chain()
    dataset.transitions.next_observation["parts"][0][4, 2] = -0.0
    dataset.transitions.observation["parts"][0][5, 2] = 0.0
    d.write(tmp_path / "x.npz", dataset)
    assert np.signbit(d.read(tmp_path / "x.npz").transitions.next_observation["parts"][0][4, 2])


def test_memory_mapped_arrays_stay_on_disk(tmp_path):
    for suffix in SUFFIXES:
        d.write(tmp_path / f"x{suffix}", chain())
        found = d.read(tmp_path / f"x{suffix}", mmap=True)
        assert isinstance(found.transitions.observation["picture"], np.memmap)
        following, expected = found.transitions.next_observation["parts"][0], chain().transitions.next_observation
        expected = expected["parts"][0]
        for index in (
            0,
            2,
            -1,
            slice(1, 5),
            slice(None, None, -1),
            [3, 3, 9],
            np.array([[0, 2], [7, 9]]),
            expected[:, 0] > 1,
        ):
            np.testing.assert_array_equal(following[index], expected[index])
        np.testing.assert_array_equal(following[[1, 2, 9], 2:], expected[[1, 2, 9], 2:])
        for view in (
            lambda x: d.n_step(x, 2, 0.9).transitions,
            lambda x: d.sequences(x, 3),
            lambda x: d.take_best(x, 0.5).transitions,
        ):
            equal(view(found), view(chain()))
        equal(d.to_device(found).transitions, chain().transitions)
        assert d.nbytes(found) == d.nbytes(chain()) - 10 * 24


def test_bfloat16_and_empty_shapes(tmp_path):
    dataset = chain()
    dataset = dataset._replace(
        transitions=dataset.transitions._replace(
            action=np.asarray(jnp.ones((10, 2), jnp.bfloat16)), extras={"none": np.zeros((10, 0), np.float32)}
        )
    )
    d.write(tmp_path / "x.safetensors", dataset)
    equal(d.read(tmp_path / "x.safetensors").transitions, dataset.transitions)
    with pytest.raises(ValueError, match="action: is bfloat16, which .npz cannot hold"):
        d.write(tmp_path / "x.npz", dataset)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncated_file_is_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    d.write(path, chain())
    whole = path.read_bytes()
    lengths = {*range(0, len(whole), 41), *range(12), *range(len(whole) - 30, len(whole))}
    for length in lengths:
        path.write_bytes(whole[:length])
        for mmap in (False, True):
            refused(path, mmap=mmap)
    path.write_bytes(whole + b"x")
    if suffix == ".safetensors":
        refused(path, "too long")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    d.write(path, chain())
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for i in range(300):
        position, bit = random.integers(len(whole)), 1 << random.integers(8)
        path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
        refused(path, mmap=bool(i % 2))
    for position in range(len(whole) - 64, len(whole)):  # the end: of an .npz file, its digest
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x20]) + whole[position + 1 :])
        refused(path)


def test_a_file_without_a_digest_is_refused(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    d.write(tmp_path / "x.safetensors", chain())
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        header = {native.HEADER: file.metadata()[native.HEADER]}
    save_file(load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors", header)
    refused(tmp_path / "y.safetensors", "its digest is missing")
    d.write(tmp_path / "x.npz", chain())
    with np.load(tmp_path / "x.npz") as file:
        np.savez(tmp_path / "y.npz", **file)
    refused(tmp_path / "y.npz", "its digest is missing")


def test_what_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    refused(tmp_path / "x.npz", "is a pipe or a device, must be a file")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    refused(tmp_path / "loop.npz", "no such file")


def test_damage_names_the_field(tmp_path):
    path = tmp_path / "x.safetensors"
    d.write(path, chain())
    entries, _ = containers.safetensors_entries(path)
    for name in ("action", "final_observation/picture", "extras/cost", "terminated"):
        whole = bytearray(path.read_bytes())
        whole[entries[name].offset] ^= 1
        (tmp_path / "bad.safetensors").write_bytes(whole)
        refused(tmp_path / "bad.safetensors", f"{name}: is damaged: its checksum is wrong")


def rewritten(path, change):
    """The file with other arrays and a header body changed by `change(arrays, body)`, checksums right again."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(bytes(arrays.pop(native.HEADER)))
    body = json.loads(header["body"])
    change(arrays, body)
    if body.get("arrays") == {}:
        body["arrays"] = {name: [str(x.dtype), list(x.shape), native._crc(x)] for name, x in arrays.items()}
    text = json.dumps(body)
    header = json.dumps({"schema": native.SCHEMA, "crc": zlib.crc32(text.encode()), "body": text})
    containers.save_npz(path, {native.HEADER: np.frombuffer(header.encode(), np.uint8), **arrays})


def setter(name, fn):
    def change(arrays, body):
        arrays[name] = fn(arrays[name])
        body["arrays"] = {}

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays, body: arrays.pop("action"), "action: is missing"),
        (lambda arrays, body: arrays.update(more=np.zeros(2)), "more: is unexpected"),
        (
            lambda arrays, body: body["arrays"]["action"].__setitem__(0, "int32"),
            "action: is float32[10, 2], the header says int32",
        ),
        (lambda arrays, body: body.pop("structure"), "structure"),
        (lambda arrays, body: body.update(structure=[]), "x.npz"),
        (lambda arrays, body: body.update(successor="nowhere"), "nowhere"),
        (setter("reward", lambda x: x * np.nan), "reward is not finite in row 0"),
        (setter("observation/parts/0", lambda x: x / (x[:, :1] - 2)), "observation/parts/0 is not finite in row 4"),
        (setter("final_observation/parts/0", lambda x: x * np.inf), "next_observation/parts/0 is not finite in row 2"),
        (setter("reward", lambda x: x[:5]), "action has shape (10, 2), reward has (5,)"),
        (setter("reward", lambda x: x.astype(np.int32)), "reward is int32, must be float32"),
        (setter("terminated", lambda x: x.astype(np.uint8)), "terminated"),
        (setter("terminated", lambda x: x ^ True), "x.npz"),
        (setter("final_observation/picture", lambda x: x[:2]), "x.npz"),
        (
            setter("final_observation/picture", lambda x: x.astype(np.int64) + 2**40),
            "final_observation/picture: is int64[4, 2, 2], does not fit",
        ),
        (
            setter("final_observation/picture", lambda x: x[:, :1]),
            "final_observation/picture: is uint8[4, 1, 2], does not fit",
        ),
        (setter("action", lambda x: x[:, 0].astype("S3")), "action: is |S3; must be numbers"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, says):
    path = tmp_path / "x.npz"
    d.write(path, chain())
    rewritten(path, lambda arrays, body: None)
    d.read(path)
    with np.errstate(all="ignore"):
        rewritten(path, change)
    refused(path, says)


class Boom:
    """Unpickling one writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_is_unpickled(tmp_path):
    path, trap = tmp_path / "x.npz", tmp_path / "ran"
    evil = np.array([Boom(trap)], dtype=object)
    for compressed in (False, True):
        for field in ("observations", "action", native.HEADER):
            (np.savez_compressed if compressed else np.savez)(path, **{field: evil}, allow_pickle=True)
            refused(path, f"{field}: holds Python objects, which are never unpickled")
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    import pickle

    pickled = pickle.dumps(Boom(trap))
    trap.unlink(missing_ok=True)
    for content in (pickled, b"\x80\x04" + pickled, stream.getvalue() + pickled):
        for name in ("x.npz", "x.safetensors", "x.hdf5", "x.pkl"):
            (tmp_path / name).write_bytes(content)
            refused(tmp_path / name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", pickled)
    refused(path)
    assert not trap.exists()


def test_no_source_unpickles():
    for path in pathlib.Path(containers.__file__).parent.glob("*.py"):
        source = path.read_text()
        assert "import pickle" not in source and "allow_pickle=True" not in source and "eval(" not in source, path.name


def npy(shape, data=b"", descr="<f4"):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy((10**15,)), "observations: has 0 bytes, its shape needs 4000000000000000"),
        (npy((-1,), b"1234"), "observations"),
        (npy((2,), b"1234"), "needs 8"),
        (npy((1,), b"12345678"), "needs 4"),
        (npy((1,), b"12345678", "<c8"), "is complex64"),
        (npy((1,), b"12345678", [("a", "<f4"), ("b", "<f4")]), "must be numbers"),
        (npy("__import__('os')"), "x.npz"),
        (b"\x93NUMPY\x01\x00\xff\xff", "x.npz"),
    ],
)
def test_lying_npy_headers(tmp_path, content, says):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", content)
    refused(path, says)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("observations.npy", npy((1 << 20,), bytes(1 << 22)))
    whole = bytearray(path.read_bytes())
    where = whole.rindex(struct.pack("<I", (1 << 22) + 128))
    whole[where : where + 4] = struct.pack("<I", 0xFFFFFFF0)  # the directory's size of what is packed
    path.write_bytes(whole)
    refused(path)


def tensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tensors({}), "no jaxrl_dataset header"),
        (tensors({}, length=1 << 60), "is cut short"),
        (tensors({"__metadata__": {native.HEADER: "{}"}}), "x.safetensors"),
        (tensors({"__metadata__": {native.HEADER: '{"schema": 7}'}}), "schema 7"),
        (tensors({"__metadata__": {native.HEADER: '{"schema": 2, "body": "", "crc": 3}'}}), "checksum"),
        (tensors({"__metadata__": 3}), "x.safetensors"),
        (tensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)), "a: has 4 bytes"),
        (tensors({"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}, bytes(4)), "natural numbers"),
        (tensors({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, bytes(4)), "natural numbers"),
        (tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(8)), "begins at byte 4"),
        (tensors({"a": {"dtype": "PY", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "x.safetensors"),
        (tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(3)), "end at byte"),
        (tensors({"a": 3}), "x.safetensors"),
        (tensors([1]), "x.safetensors"),
        (tensors(b"[" * 200_000), "x.safetensors"),
        (tensors(b"\xff\xfe"), "x.safetensors"),
        (b"", "x.safetensors"),
    ],
)
def test_lying_safetensors_headers(tmp_path, content, says):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    refused(path, says)


def test_what_is_not_a_dataset(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    refused(tmp_path / "x.txt", "is none of .safetensors, .npz and HDF5", "hello")
    refused(tmp_path / "none.npz", "no such file")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    refused(tmp_path / "x.npz", "observations: is missing; there are a")
    refused(tmp_path / "x.npz", "is a ogbench file, not d4rl", format="d4rl")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "main_data.hdf5 is missing")
    with pytest.raises(ValueError, match="format is 'rlds'"):
        d.read(tmp_path / "x.npz", "rlds")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x._replace(metadata={"a": float("nan")}), "metadata"),
        (lambda x: x._replace(metadata={"a": object()}), "metadata"),
        (
            lambda x: x._replace(transitions=x.transitions._replace(observation=[0], next_observation=[0])),
            "observation/0 is a int",
        ),
        (
            lambda x: x._replace(transitions=x.transitions._replace(reward=x.transitions.reward * np.nan)),
            "reward is not",
        ),
        (lambda x: x._replace(transitions=x.transitions._replace(action=x)), "action/metadata/behavior is a str"),
    ],
)
def test_what_cannot_be_written_leaves_no_file(tmp_path, change, says):
    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match=says):
            d.write(tmp_path / f"x{suffix}", change(chain()))
    with pytest.raises(ValueError, match="must end in"):
        d.write(tmp_path / "x.pkl", chain())
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    for suffix in SUFFIXES:
        path = tmp_path / f"x{suffix}"
        d.write(path, chain())
        before = path.read_bytes()

        def full(*_):
            raise OSError("no space left")

        with monkeypatch.context() as patch:
            patch.setattr(containers.os, "fsync", full)
            with pytest.raises(OSError, match="no space"):
                d.write(path, chain(seed=3))
        assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_names_that_collide_are_refused(tmp_path):
    leaf = np.zeros((1, 2), np.float32)
    observation = {"a": {"b": leaf}, "a/b": leaf}
    one = jax.tree.map(lambda x: x[:1], chain().transitions)
    one = one._replace(observation=observation, next_observation=observation, truncated=np.ones(1, bool))
    with pytest.raises(ValueError, match="same key path"):
        d.write(tmp_path / "x.npz", d.Dataset(one, {}))
