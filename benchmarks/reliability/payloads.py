"""Hostile files for `hostile.py`: name -> what writes one in a folder and returns the command that reads it.

Each starts from sound files (`base`) or from nothing. A trap is a file that exists only if something in a payload ran.
"""

import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import zipfile

import command_lines
import numpy as np

from jaxrl import checkpoints, data
from jaxrl.checkpoints import manifest
from jaxrl.data import containers
from jaxrl.types import Transition

POLICY, CARTPOLE = "policy.safetensors", ["CartPole-v1", "--num-envs", "2", "--unroll-length", "2", "--steps", "4"]
YAML = "!!python/object/apply:os.system ['touch trap']\n"
HEADER = {
    "agent": "ppo",
    "env": {"name": "CartPole-v1", "params": {}},
    "static": {"widths": [8]},
    "num_envs": 2,
    "unroll_length": 3,
    "steps": 12,
}


class Trap:
    """Unpickling one makes the file `trap` in the working folder."""

    def __reduce__(self):
        return (open, ("trap", "w"))


PICKLE = pickle.dumps(Trap())
STATE = {"w": np.arange(6, dtype=np.float32), "n": np.arange(3, dtype=np.int32)}


def make_base(folder: pathlib.Path) -> None:
    """A sound run and sound datasets, of which payloads are made."""
    from jaxrl.cli import main
    from jaxrl.cli.flags import named_numbers
    from jaxrl.cli.run_directory import settings_json
    from jaxrl.policy_file import load

    run = folder / "run"
    run.mkdir(parents=True)
    (run / POLICY).write_bytes(command_lines.policy())
    agent, _ = load(run)
    sizes = {"num_envs": 2, "unroll_length": 3, "reset_pool": 0, "seed": 0}
    numbers = {name: float(value) for name, value, _ in named_numbers(agent.hparams)}
    (run / "config.json").write_text(json.dumps(settings_json({**sizes, "hparams": numbers})))
    data.write(folder / "d.safetensors", dataset())
    data.write(folder / "d.npz", dataset())
    small = ["--widths", "8", "--num-epochs", "1", "--num-minibatches", "1", "--episodes", "1"]
    assert main(["train", "ppo", *CARTPOLE, *small, "--quiet", "--out", str(folder / "begun")]) == 0
    (folder / "begun" / "result.json").unlink()
    with checkpoints.Checkpoints(folder / "checkpoints", say=lambda line: None) as store:
        store.save(1, STATE)


def dataset(metadata=None) -> data.Dataset:
    """Eight rows of something like CartPole."""
    here = np.arange(32, dtype=np.float32).reshape(8, 4) / 10
    flags = np.zeros(8, bool), np.arange(8) == 7
    fields = (here, np.arange(8, dtype=np.int32) % 2, np.ones(8, np.float32), *flags, here + 1)
    return data.Dataset(Transition(*fields), metadata or {})


# Commands ------------------------------------------------------------------------------------------------------------


def evaluate(path):
    return ["evaluate", str(path), "--episodes", "2", "--max-steps", "3"]


def collect(run):
    return ["collect", str(run), "--out", "out.npz", "--steps", "4", "--num-envs", "2", "--quality", "replay"]


def train(path, *flags):
    return ["train", "bc", "--dataset", str(path), "--updates", "1", "--batch-size", "2", "--out", "new", *flags]


def init_from(run):
    return ["train", "ppo", *CARTPOLE, "--init-from", str(run), "--out", "new"]


def demonstrations(path):
    return ["train", "dqn", *CARTPOLE, "--demonstrations", str(path), "--out", "new"]


# Files ---------------------------------------------------------------------------------------------------------------


def policy(content=None, header=None, arrays=None, metadata=None):
    """A payload: a policy file of these bytes, or with these changes to a sound header or to its arrays."""

    def write(folder, base):
        if content is not None:
            (folder / POLICY).write_bytes(content)
            return evaluate(folder / POLICY)
        entries, texts = containers.safetensors_entries(base / "run" / POLICY)
        found = {name: containers.load(entry) for name, entry in entries.items()}
        if header is not None:
            changed = header if isinstance(header, str) else json.dumps({**json.loads(texts["jaxrl"]), **header})
            texts["jaxrl"] = changed
        texts.pop("sha256")
        containers.save_safetensors(folder / POLICY, {**found, **(arrays or {})}, {**texts, **(metadata or {})})
        return evaluate(folder / POLICY)

    return write


def tensors(header, body=b"", length=None):
    """The bytes of a .safetensors file with this header, right or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def tensor(shape, offsets, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def setting(**fields):
    return policy(header={"static": {"widths": [8], **fields}})


def env_of_file(name, /, **params):
    return policy(header={"env": {"name": name, "params": params}})


def special(make, command=evaluate, name=POLICY):
    """A payload: a path that is no regular file."""

    def write(folder, base):
        make(folder / name)
        return command(folder / name)

    return write


def config(content):
    """A payload: a sound run with this config.json, trained again by `collect --quality replay`."""

    def write(folder, base):
        shutil.copytree(base / "run", folder / "run")
        path = folder / "run" / "config.json"
        if callable(content):
            path.unlink()
            content(path)
        elif isinstance(content, dict):
            path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return collect(folder / "run")

    return write


def learner(content):
    def write(folder, base):
        (folder / "run").mkdir()
        (folder / "run" / "learner.safetensors").write_bytes(content)
        return init_from(folder / "run")

    return write


def file(name, content, command=train):
    """A payload: a dataset of these bytes."""

    def write(folder, base):
        (folder / name).write_bytes(content(base) if callable(content) else content)
        return command(folder / name)

    return write


def npy(shape, body=b"", descr="<f4", version=b"\x01\x00", length=None):
    text = (
        shape if isinstance(shape, str) else repr({"descr": descr, "fortran_order": False, "shape": shape})
    ).encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + version + size + text + body


def zipped(members, method=zipfile.ZIP_STORED, change=lambda raw: raw):
    """A payload: an .npz file of these members, as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file("d.npz", change(stream.getvalue()))


OBSERVATIONS = {"observations.npy": npy((2, 4), bytes(32)), "actions.npy": npy((2,), bytes(8), "<i4")}


def objects(compressed=False):
    """An .npz file of pickled objects."""
    stream = io.BytesIO()
    one = np.array([Trap()], dtype=object)
    (np.savez_compressed if compressed else np.savez)(stream, observations=one, actions=one, terminals=one)
    return stream.getvalue()


def one_data_many_names(base):
    """An archive whose directory names the same 100 kB, of 100 MB when unpacked, 5,000 times."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a00000.npy", npy((25_000_000,), bytes(100_000_000)))
    raw = stream.getvalue()
    at = raw.rindex(b"PK\x01\x02")
    end = raw.rindex(b"PK\x05\x06")
    entries = b"".join(raw[at:end].replace(b"a00000", b"a%05d" % i) for i in range(5000))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 5000, 5000, len(entries), at, 0)
    return raw[:at] + entries + tail


def native_npz(change):
    """A payload: our own .npz file, its header body changed, checksum and digest right again."""

    def content(base):
        import zlib

        with np.load(base / "d.npz") as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(bytes(arrays.pop("jaxrl_dataset")))
        body = json.loads(header["body"])
        text = change(body) or json.dumps(body)
        header = json.dumps({**header, "crc": zlib.crc32(text.encode()), "body": text})
        containers.save_npz(base / "changed.npz", {"jaxrl_dataset": np.frombuffer(header.encode(), np.uint8), **arrays})
        return (base / "changed.npz").read_bytes()

    return file("d.npz", content)


def labelled(*flags, command=None, **metadata):
    """A payload: a sound dataset with this metadata."""

    def write(folder, base):
        data.write(folder / "d.npz", dataset(metadata))
        return (command or train)(folder / "d.npz", *flags)

    return write


def h5_minari(folder, change=lambda file, folder: None, metadata=None):
    import h5py

    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        episode = file.create_group("episode_0")
        episode["observations"] = np.zeros((4, 2), np.float32)
        episode["actions"] = np.zeros((3, 1), np.float32)
        episode["rewards"] = np.zeros(3)
        episode["terminations"] = np.zeros(3, bool)
        episode["truncations"] = np.arange(3) == 2
        change(file, folder)
    if metadata is not None:
        (folder / "data" / "metadata.json").write_bytes(metadata)


def minari(change=lambda file, folder: None, metadata=None):
    def write(folder, base):
        h5_minari(folder / "m", change, metadata)
        return train(folder / "m")

    return write


def rewards(make):
    """`make(group, folder)` puts other rewards into the episode."""

    def change(file, folder):
        del file["episode_0"]["rewards"]
        make(file["episode_0"], folder)

    return minari(change)


def external_link(group, folder):
    import h5py

    group["rewards"] = h5py.ExternalLink("/etc/passwd", "/x")


def virtual(group, folder):
    import h5py

    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (3,))
    group.create_virtual_dataset("rewards", layout)


def stored_elsewhere(group, folder):
    group.create_dataset("rewards", (3,), "f8", external=[("/etc/passwd", 0, 24)])


def text_array(group, folder):
    import h5py

    group.create_dataset("rewards", (3,), h5py.string_dtype())


def reference_array(group, folder):
    import h5py

    group.create_dataset("rewards", (3,), h5py.ref_dtype)


def groups_in_groups(file, folder):
    """Two names for each of forty groups, one inside of the other: 2**40 paths."""
    del file["episode_0"]["observations"]
    group = file["episode_0"].create_group("observations")
    for _ in range(40):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner
    group["x"] = np.zeros((4, 2))


def a_group_in_itself(file, folder):
    del file["episode_0"]["observations"]
    group = file["episode_0"].create_group("observations")
    group["again"] = group


def one_array_many_episodes(file, folder):
    """A thousand episodes of one array of 200 MB, which takes 200 kB."""
    del file["episode_0"]["observations"]
    file["episode_0"].create_dataset("observations", data=np.zeros((1 << 22, 12), np.float32), compression=9)
    for i in range(1, 1000):
        file[f"episode_{i}"] = file["episode_0"]


# Checkpoints ---------------------------------------------------------------------------------------------------------


def checkpoint(change=None, place=None, content=None, raw=None):
    """A payload: a sound checkpoint with its manifest changed, or a file of it; every digest is right again.

    Args:
      change: of the manifest's fields.
      place: of the files that get another content, a pattern.
      content: bytes, or what makes something at a path.
      raw: in place of the manifest.
    """

    def write(folder, base):
        shutil.copytree(base / "checkpoints", folder / "checkpoints")
        step, path = folder / "checkpoints" / "1", folder / "checkpoints" / "1.json"
        fields = manifest.read(path)
        files = [f for f in step.rglob(place or "-") if f.is_file()]
        assert files or not place, f"there is no {place} in a step"
        for file in files:
            if callable(content):
                file.unlink()
                content(file)
            else:
                file.write_bytes(content)
                fields["files"][file.relative_to(step).as_posix()] = manifest._digest(file, "")
        if change:
            change(fields)
        path.write_bytes(manifest._bytes(fields))
        if raw is not None:
            path.unlink()
            raw(path) if callable(raw) else path.write_bytes(raw)
        return ["restore", str(folder / "checkpoints")]

    return write


def restore(folder):
    """What a program does with a folder of checkpoints; the command `restore` of payloads."""
    checkpoints.open_readonly(folder, say=lambda line: None).restore(STATE)


def begun(change=None, result=None, flags=()):
    """A payload: a run to be resumed, with the configuration in its checkpoint changed, or its result.json."""

    def write(folder, base):
        run = folder / "run"
        shutil.copytree(base / "begun", run)
        for path in (run / "checkpoints").glob("*.json"):
            fields = manifest.read(path)
            if change:
                change(fields["config"])
            path.write_bytes(manifest._bytes(fields))
        if result:
            result(run / "result.json")
        return ["train", "--resume", str(run), "--quiet", *flags]

    return write


def resumed(**changes):
    """A payload: a run of twice as many steps, with these changes to its configuration."""
    return begun(lambda config: config.update({"steps": 8, "requested_steps": 8, **changes}))


def resumed_env(name, /, **params):
    return resumed(env={"name": name, "params": params})


def resumed_setting(**fields):
    return begun(lambda config: config["static"].update(fields))


def whole_step(make):
    """A payload: something else in place of the folder of a step."""

    def write(folder, base):
        shutil.copytree(base / "checkpoints", folder / "checkpoints")
        shutil.rmtree(folder / "checkpoints" / "1")
        make(folder / "checkpoints" / "1")
        return ["restore", str(folder / "checkpoints")]

    return write


def leaf(**fields):
    return checkpoint(lambda found: found["leaves"][0].update(fields))


def tree_metadata(**fields):
    """A payload: orbax's description of the tree, with the arrays' own entries changed."""
    value = {"value_type": "np.ndarray", "skip_deserialize": False}
    one = {"key_metadata": [{"key": "float32", "key_type": 2}], "value_metadata": value}
    two = {**one, "key_metadata": [{"key": "int32", "key_type": 2}]}
    tree = {"('float32',)": one, "('int32',)": two}
    found = {"tree_metadata": tree, "use_ocdbt": False, "use_zarr3": False, **fields}
    return checkpoint(place="_METADATA", content=json.dumps(found).encode())


EVIL_VALUE = {
    "key_metadata": [{"key": "float32", "key_type": 2}],
    "value_metadata": {"value_type": "evil_module.run", "skip_deserialize": False},
}
BOMB = {"shape": [2**34], "chunks": [2**34], "compressor": {"id": "zstd", "level": 1}, "dtype": "<f4", "order": "C"}
BOMB |= {"filters": None, "fill_value": 0, "zarr_format": 2, "dimension_separator": "."}
HANDLER = {"item_handlers": {"default": "evil_module.run"}, "custom_metadata": {"a": "!!python/object:os.system"}}
HANDLER |= {"metrics": {"__class__": "evil_module.run"}, "init_timestamp_nsecs": "x"}


def symlink(target):
    return lambda path: path.symlink_to(target)


CENTRAL = b"PK\x01\x02\x14\x03\x14\x00\x00"  # a directory entry, up to its flags
DEEP = b"[" * 1_000_000
BIG = b'{"a": "' + b"x" * (9 << 20) + b'"}'
MANY_ZEROS = npy((50_000_000,), bytes(200_000_000))

PAYLOADS = {
    # policy files
    "policy: a pickle": policy(PICKLE),
    "policy: a pickle after a safetensors file": policy(tensors({"a": tensor([1], [0, 4])}, bytes(4)) + PICKLE),
    "policy: a pickle as an array": policy(tensors({"a": tensor([len(PICKLE)], [0, len(PICKLE)], "U8")}, PICKLE)),
    "policy: an npz file of objects": policy(objects()),
    "policy: a YAML tag": policy(YAML.encode()),
    "policy: a header of 2**63 bytes": policy(tensors(b"{}", length=2**63)),
    "policy: a header of 9 MiB": policy(tensors(BIG)),
    "policy: a header nested a million deep": policy(tensors(DEEP)),
    "policy: objects nested a million deep": policy(tensors(b'{"a":' * 1_000_000)),
    "policy: a header that is not text": policy(tensors(b"\xff\xfe\x00")),
    "policy: a header that is a list": policy(tensors([1, 2])),
    "policy: an array there twice": policy(tensors(b'{"a":{"dtype":"F32"},"a":{"dtype":"F32"}}')),
    "policy: a number of 100,000 digits": policy(tensors(b'{"a":' + b"9" * 100_000 + b"}")),
    "policy: a shape beyond memory": policy(tensors({"a": tensor([2**31, 2**31], [0, 4])}, bytes(4))),
    "policy: a shape that wraps 64 bits": policy(tensors({"a": tensor([2**32, 2**32], [0, 0])})),
    "policy: a negative shape": policy(tensors({"a": tensor([-1, -4], [0, 16])}, bytes(16))),
    "policy: arrays that overlap": policy(tensors({k: tensor([2], [0, 8]) for k in "ab"}, bytes(8))),
    "policy: offsets beyond the file": policy(tensors({"a": tensor([2], [2**40, 2**40 + 8])}, bytes(8))),
    "policy: a dtype of Python objects": policy(tensors({"a": tensor([1], [0, 8], "O")}, bytes(8))),
    "policy: bools that are 255": policy(arrays={"params/flag": np.full(3, 255, np.uint8).view(np.bool_)}),
    "policy: NaN in the header": policy(header=json.dumps({**HEADER, "schema": 2, "steps": float("nan")})),
    "policy: 1e999 in the header": policy(header=json.dumps({**HEADER, "schema": 2}).replace("12", "1e999")),
    "policy: a name twice in the header": policy(header='{"schema": 1, "schema": 2}'),
    "policy: a header nested 1,000 deep": policy(header={"note": json.loads("[" * 900 + "]" * 900)}),
    "policy: a YAML tag for a header": policy(header=YAML),
    "policy: a schema that is an object": policy(header={"schema": {"a": 1}}),
    "policy: MODULE:NAME": env_of_file("evil_module:run"),
    "policy: os:system": env_of_file("os:system", command="touch trap"),
    "policy: a path for an environment": env_of_file("../../evil_module"),
    "policy: an environment that is fetched": env_of_file("playground/PandaPickCube"),
    "policy: an environment that is a list": env_of_file(["CartPole-v1"]),
    "policy: params with a dunder name": env_of_file("CartPole-v1", __class__="os.system"),
    "policy: params that are the factory's own": env_of_file("CartPole-v1", name="Pendulum-v1"),
    "policy: params of 2**40": env_of_file("DeepSea-bsuite", size=2**40),
    "policy: params that are large arrays": env_of_file("DeepSea-bsuite", size=2_000_000),
    "policy: params that are a long list": env_of_file("CartPole-v1", gravity=[1.0] * 100_000),
    "policy: params that are text": env_of_file("Catch-bsuite", rows="9" * 200),
    "policy: a negative size": env_of_file("Catch-bsuite", rows=-5),
    "policy: code for an agent": policy(header={"agent": "__import__('os').system('touch trap')"}),
    "policy: an agent that is a list": policy(header={"agent": ["ppo"]}),
    "policy: a function for an activation": setting(activation="os.system"),
    "policy: a million layers": setting(widths=[8] * 1_000_000),
    "policy: 200 layers": setting(widths=[8] * 200),
    "policy: layers of 2**40": setting(widths=[2**40]),
    "policy: layers of 2**30": setting(widths=[2**30, 2**30]),
    "policy: 2**30 critics": policy(
        header={"agent": "sac", "env": {"name": "Pendulum-v1", "params": {}}, "static": {"num_critics": 2**30}}
    ),
    "policy: a layer of no size": setting(widths=[0]),
    "policy: widths that are text": setting(widths="8"),
    "policy: settings that are a list": policy(header={"static": [1]}),
    "policy: 10**30 environments": policy(header={"num_envs": 10**30}),
    "policy: -1 environments": policy(header={"num_envs": -1}),
    "policy: infinite steps": policy(header={"num_envs": "inf"}),
    "policy: an array with a path for a name": policy(arrays={"../../../trap": np.zeros(1)}),
    "policy: an array with escapes for a name": policy(arrays={"\x1b[2J\n\r\u202ejaxrl: ok": np.zeros(1)}),
    "policy: half of a surrogate pair": policy(header={"agent": "\ud800"}),
    "policy: a pipe": special(os.mkfifo),
    "policy: /dev/zero": special(symlink("/dev/zero")),
    "policy: /etc/passwd": special(symlink("/etc/passwd")),
    "policy: a link to itself": special(symlink(POLICY)),
    "policy: a folder": special(os.mkdir),
    # checkpoints
    "checkpoint: a pickle for a manifest": checkpoint(raw=PICKLE),
    "checkpoint: a YAML tag for a manifest": checkpoint(raw=YAML.encode()),
    "checkpoint: a manifest nested deep": checkpoint(raw=DEEP),
    "checkpoint: a manifest of 9 MiB": checkpoint(raw=BIG),
    "checkpoint: a manifest that is a pipe": checkpoint(raw=os.mkfifo),
    "checkpoint: a manifest that is /dev/zero": checkpoint(raw=symlink("/dev/zero")),
    "checkpoint: a manifest that is a list": checkpoint(raw=b"[1]"),
    "checkpoint: a file outside of the folder": checkpoint(
        lambda found: found["files"].update({"../../../etc/passwd": {"size": 1, "sha256": "0" * 64}})
    ),
    "checkpoint: an absolute path": checkpoint(
        lambda found: found["files"].update({"/etc/passwd": {"size": 1, "sha256": "0" * 64}})
    ),
    "checkpoint: no files": checkpoint(lambda found: found.update(files={})),
    "checkpoint: files that are a list": checkpoint(lambda found: found.update(files=[1])),
    "checkpoint: a leaf with a path for a name": leaf(path="../../trap"),
    "checkpoint: a leaf of 2**60": leaf(shape=[2**60]),
    "checkpoint: a leaf of negative shape": leaf(shape=[-3]),
    "checkpoint: a leaf of objects": leaf(dtype="O"),
    "checkpoint: a leaf whose dtype is code": leaf(dtype="__import__('os').system('touch trap')"),
    "checkpoint: a node whose kind is code": checkpoint(lambda found: found["nodes"][0].update(kind="evil_module.run")),
    "checkpoint: a step that is text": checkpoint(lambda found: found.update(step="1")),
    "checkpoint: 20,000 leaves": checkpoint(
        lambda found: found["leaves"].extend({**found["leaves"][0], "path": f"n{i}"} for i in range(20_000))
    ),
    "checkpoint: a schema that is an object": checkpoint(lambda found: found.update(schema={"a": 1})),
    "checkpoint: the root for a step": whole_step(symlink("/")),
    "checkpoint: a pipe for a step": whole_step(os.mkfifo),
    "checkpoint: a pipe in a step": checkpoint(place="_METADATA", content=os.mkfifo),
    "checkpoint: /dev/zero in a step": checkpoint(place="_METADATA", content=symlink("/dev/zero")),
    "checkpoint: pickles for orbax's metadata": checkpoint(place="_*", content=PICKLE),
    "checkpoint: pickles for the arrays": checkpoint(place="0", content=PICKLE),
    "checkpoint: pickles for headers of arrays": checkpoint(place=".zarray", content=PICKLE),
    "checkpoint: pickles everywhere": checkpoint(place="*", content=PICKLE),
    "checkpoint: zeros for headers of arrays": checkpoint(place=".zarray", content=bytes(1 << 16)),
    "checkpoint: arrays that unfold": checkpoint(place=".zarray", content=json.dumps(BOMB).encode()),
    "checkpoint: orbax's metadata nested deep": checkpoint(place="_METADATA", content=DEEP),
    "checkpoint: a tree of nothing": tree_metadata(tree_metadata={}),
    "checkpoint: a type that is code": tree_metadata(tree_metadata={"('float32',)": EVIL_VALUE}),
    "checkpoint: keys that are paths": tree_metadata(
        tree_metadata={"('../../trap',)": {**EVIL_VALUE, "key_metadata": [{"key": "../../trap", "key_type": 2}]}}
    ),
    "checkpoint: a handler that is code": checkpoint(
        lambda found: found["leaves"][0].update(sha256="0" * 64),
        place="_CHECKPOINT_METADATA",
        content=json.dumps(HANDLER).encode(),
    ),
    "checkpoint: a format that is not there": tree_metadata(use_zarr3=True),
    # runs to be resumed
    "resume: MODULE:NAME": resumed_env("evil_module:run"),
    "resume: MODULE:NAME that cannot be played": begun(
        lambda config: config.update(env={"name": "evil_module:run", "params": {}}, plays=False)
    ),
    "resume: a path for an environment": resumed_env("../../evil_module"),
    "resume: an environment that is fetched": resumed_env("playground/PandaPickCube"),
    "resume: params of 2**40": resumed_env("DeepSea-bsuite", size=2**40),
    "resume: params that are a long list": resumed_env("CartPole-v1", gravity=[1.0] * 100_000),
    "resume: params with a dunder name": resumed_env("CartPole-v1", __class__="os.system"),
    "resume: code for an agent": resumed(agent="__import__('os').system('touch trap')"),
    "resume: an agent that is a list": resumed(agent=["ppo"]),
    "resume: a flag for a number": begun(lambda config: config["hparams"].update(discount="--out=/tmp/trap")),
    "resume: a flag for a setting": resumed_setting(activation="--overwrite"),
    "resume: a million layers": resumed_setting(widths=[8] * 1_000_000),
    "resume: layers of 2**30": resumed_setting(widths=[2**30, 2**30]),
    "resume: a function for an activation": resumed_setting(activation="os.system"),
    "resume: 2**31 - 1 environments": resumed(num_envs=2**31 - 1, steps=2**34, requested_steps=2**34),
    "resume: 2**26 environments without a buffer": resumed(
        num_envs=2**26, steps=2**30, requested_steps=2**30, checkpoint_replay=False
    ),
    "resume: -1 environments": resumed(num_envs=-1),
    "resume: 10**30 steps": resumed(steps=10**30, requested_steps=10**30),
    "resume: a pool of 2**31 - 1 resets": resumed(reset_pool=2**31 - 1),
    "resume: a seed that is text": resumed(seed="x"),
    "resume: files of the root": resumed(files={"demonstrations": "0" * 64}, demonstrations="/"),
    "resume: files that are /dev/zero": resumed(files={"demonstrations": "0" * 64}, demonstrations="/dev/zero"),
    "resume: files that are no flags": resumed(files={"__class__": "0" * 64}),
    "resume: no configuration": begun(lambda config: config.clear()),
    "resume: a result that is a pipe": begun(result=os.mkfifo, flags=["--steps", "2"]),
    "resume: a result that is /dev/zero": begun(result=symlink("/dev/zero"), flags=["--steps", "2"]),
    "resume: other versions that are lists": begun(lambda config: config.update(versions=[], device=[])),
    # learner files and configs
    "learner: a pickle": learner(PICKLE),
    "learner: a header of 2**63 bytes": learner(tensors(b"{}", length=2**63)),
    "config: a pickle": config(PICKLE),
    "config: a YAML tag": config(YAML),
    "config: nested a million deep": config(DEEP),
    "config: of 9 MiB": config(BIG),
    "config: a list": config("[1]"),
    "config: a name twice": config('{"seed": 1, "seed": 2}'),
    "config: NaN": config({"hparams": {"learning_rate": float("nan")}}),
    "config: code for a number": config({"seed": "__import__('os').system('touch trap')"}),
    "config: 10**30 environments": config({"num_envs": 10**30}),
    "config: 2**31 - 1 environments": config({"num_envs": 2**31 - 1}),
    "config: a pool of 2**31 - 1 resets": config({"reset_pool": 2**31 - 1}),
    "config: no environments": config({"num_envs": 0}),
    "config: a seed of 10**30": config({"seed": 10**30}),
    "config: hparams of another agent": config({"hparams": {"__class__": 1}}),
    "config: hparams that are a list": config({"hparams": [1]}),
    "config: a pipe": config(os.mkfifo),
    "config: /dev/zero": config(symlink("/dev/zero")),
    # datasets
    "npz: a pickle": file("d.npz", PICKLE),
    "hdf5: a pickle": file("d.hdf5", PICKLE),
    "safetensors: a pickle": file("d.safetensors", PICKLE),
    "demonstrations: a pickle": file("d.npz", PICKLE, demonstrations),
    "npz: objects": file("d.npz", objects()),
    "npz: objects, compressed": file("d.npz", objects(True)),
    "npz: demonstrations of objects": file("d.npz", objects(), demonstrations),
    "npz: a pickle as a member": zipped({"observations.npy": PICKLE}),
    "npz: a torch file": zipped({"archive/data.pkl": PICKLE, "archive/version": b"3"}),
    "npz: code for a shape": zipped({"observations.npy": npy("__import__('os').system('touch trap')")}),
    "npz: an npy header of 4 GiB": zipped({"a.npy": npy((1,), version=b"\x02\x00", length=2**32 - 1)}),
    "npz: an npy header nested deep": zipped({"a.npy": npy("(" * 9000, length=9000)}),
    "npz: a shape beyond memory": zipped({"observations.npy": npy((2**62, 2**62))}),
    "npz: a negative shape": zipped({"observations.npy": npy((-4,), bytes(16))}),
    "npz: a dtype of objects inside": zipped({"observations.npy": npy((1,), bytes(8), [("a", "O")])}),
    "npz: a path for a name": zipped({"../../trap.npy": npy((2,), bytes(8)), **OBSERVATIONS}),
    "npz: an absolute path for a name": zipped({"/tmp/trap.npy": npy((2,), bytes(8)), **OBSERVATIONS}),
    "npz: 20,000 members": zipped({f"a{i}.npy": b"" for i in range(20_000)}),
    "npz: a deflate bomb": zipped({"observations.npy": MANY_ZEROS}, zipfile.ZIP_DEFLATED),
    "npz: a bzip2 bomb": zipped({"observations.npy": MANY_ZEROS}, zipfile.ZIP_BZIP2),
    "npz: an lzma bomb": zipped({"observations.npy": MANY_ZEROS}, zipfile.ZIP_LZMA),
    "npz: one bomb under 5,000 names": file("d.npz", one_data_many_names),
    "npz: encrypted": zipped(OBSERVATIONS, change=lambda raw: raw.replace(CENTRAL, CENTRAL[:-1] + b"\x01")),
    "npz: no members": zipped({}),
    "npz: our header nested deep": native_npz(lambda body: '{"arrays":' * 5000),
    "npz: a structure nested deep": native_npz(lambda body: body.update(structure=json.loads("[" * 60 + "]" * 60))),
    "npz: successors elsewhere": native_npz(lambda body: body.update(successor="../../etc/passwd")),
    "npz: arrays that are not there": native_npz(lambda body: body["arrays"].update(trap=["float32", [1], 0])),
    "npz: NaN in our header": native_npz(lambda body: body.update(metadata={"a": float("nan")})),
    "npz: a pipe": special(os.mkfifo, train, "d.npz"),
    "npz: /dev/zero": special(symlink("/dev/zero"), train, "d.npz"),
    "npz: a link to itself": special(symlink("d.npz"), train, "d.npz"),
    "labels: MODULE:NAME": labelled("--widths", "0", environment="evil_module:run"),
    "labels: params that are a list": labelled(environment="CartPole-v1", environment_params=[1]),
    "labels: params of 2**40": labelled(environment="DeepSea-bsuite", environment_params={"size": 2**40}),
    "labels: params with a dunder name": labelled(environment="CartPole-v1", environment_params={"__class__": 1}),
    "hdf5: a link into another file": rewards(external_link),
    "hdf5: a soft link": rewards(lambda group, _: group.__setitem__("rewards", __import__("h5py").SoftLink("/etc"))),
    "hdf5: an array stored in another file": rewards(stored_elsewhere),
    "hdf5: a virtual array": rewards(virtual),
    "hdf5: text": rewards(text_array),
    "hdf5: references": rewards(reference_array),
    "hdf5: an array beyond memory": rewards(
        lambda group, _: group.create_dataset("rewards", (10**13,), "f8", chunks=(1000,))
    ),
    "hdf5: groups with 2**40 paths": minari(groups_in_groups),
    "hdf5: a group in itself": minari(a_group_in_itself),
    "hdf5: one bomb in 1,000 episodes": minari(one_array_many_episodes),
    "hdf5: /dev/zero": special(
        lambda path: (path.mkdir(), (path / "main_data.hdf5").symlink_to("/dev/zero")), train, "m"
    ),
    "minari: a pickle for metadata": minari(metadata=PICKLE),
    "minari: a YAML tag for metadata": minari(metadata=YAML.encode()),
    "minari: metadata nested deep": minari(metadata=DEEP),
    "minari: metadata of 9 MiB": minari(metadata=BIG),
    "minari: NaN in metadata": minari(metadata=b'{"ref_min_score": NaN}'),
    "minari: an environment with an entry point": minari(
        metadata=b'{"env_spec": {"id": ["x"], "entry_point": "os:system"}, "total_steps": "x"}'
    ),
}
