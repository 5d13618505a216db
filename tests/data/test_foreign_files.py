"""Files in the layouts of Minari, D4RL and OGBench, written here with h5py and numpy."""

import json
import subprocess
import sys

import numpy as np
import pytest
from data.test_dataset import equal
from data.test_files import refused

from jaxrl import data as d

h5py = pytest.importorskip("h5py")


def episode(e, length, random):
    """Observations (e, t) [T + 1], a picture, rewards t + 1."""
    time = np.arange(length + 1)
    return {
        "observations": {
            "vector": np.stack([np.full(length + 1, e), time], 1).astype(np.float64),
            "views": {"_index_0": np.full((length + 1, 2, 2), e, np.uint8), "_index_1": time.astype(np.int64)},
        },
        "actions": random.normal(size=(length, 2)).astype(np.float32),
        "rewards": np.arange(1, length + 1, dtype=np.float64),
        "terminations": (time[1:] == length) & (e % 2 == 0),
        "truncations": np.zeros(length, bool),  # episode 1 was still under way
    }


def put(group, tree):
    for name, value in tree.items():
        if isinstance(value, dict):
            put(group.create_group(name), value)
        else:
            group.create_dataset(name, data=value, chunks=True, maxshape=(None, *value.shape[1:]))


def minari(folder, lengths=(3, 4, 2), change=lambda episodes: None, metadata=None):
    random = np.random.default_rng(0)
    episodes = [episode(e, length, random) for e, length in enumerate(lengths)]
    change(episodes)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w", track_order=True) as file:
        for e, content in enumerate(episodes):
            put(file.create_group(f"episode_{e}"), content)
    spec = json.dumps({"id": "Toy-v0"})
    found = {"total_episodes": len(lengths), "total_steps": sum(lengths), "env_spec": spec, "dataset_id": "toy/x-v0"}
    found |= {"algorithm_name": "hand", "ref_min_score": 1, "ref_max_score": 9.5, "observation_space": "{}"}
    (folder / "data" / "metadata.json").write_text(json.dumps({**found, **(metadata or {})}))
    return episodes


def test_minari(tmp_path):
    episodes = minari(tmp_path)
    found = d.read(tmp_path)
    data = found.transitions
    join = np.concatenate
    for name, pick in (("observation", slice(None, -1)), ("next_observation", slice(1, None))):
        observation = getattr(data, name)
        vector = join([e["observations"]["vector"][pick] for e in episodes]).astype(np.float32)
        np.testing.assert_array_equal(observation["vector"], vector, strict=True)
        assert isinstance(observation["views"], tuple)
        for i, dtype in enumerate((np.uint8, np.int32)):
            view = join([e["observations"]["views"][f"_index_{i}"][pick] for e in episodes]).astype(dtype)
            np.testing.assert_array_equal(observation["views"][i], view, strict=True)
    np.testing.assert_array_equal(data.action, join([e["actions"] for e in episodes]), strict=True)
    np.testing.assert_array_equal(d.episode_returns(found), [6, 10, 3])
    np.testing.assert_array_equal(np.flatnonzero(data.terminated), [2, 8])
    np.testing.assert_array_equal(np.flatnonzero(data.truncated), [6])
    assert found.metadata["environment"] == "Toy-v0" and found.metadata["behavior"] == "hand"
    assert d.reference_scores(found) == (1.0, 9.5)
    for path in (tmp_path / "data", tmp_path / "data" / "main_data.hdf5"):
        equal(d.read(path, "minari").transitions, data)
    d.write(tmp_path / "x.safetensors", found)
    equal(d.read(tmp_path / "x.safetensors").transitions, data)


def deep(e, *names, value):
    def change(episodes):
        node = episodes[e]
        for name in names[:-1]:
            node = node[name]
        if value is None:
            del node[names[-1]]
        else:
            node[names[-1]] = value(node[names[-1]])

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (deep(1, "rewards", value=None), "episode_1/rewards: is missing"),
        (deep(1, "rewards", value=lambda x: x[:-1]), "episode_1/observations: has 5 rows, must have 4"),
        (deep(1, "actions", value=lambda x: x[:-1]), "episode_1/actions"),
        (deep(2, "rewards", value=lambda x: x * np.nan), "reward is not finite in row 7"),
        (deep(2, "observations", "vector", value=lambda x: x * np.inf), "observation/vector is not finite in row 7"),
        (deep(2, "rewards", value=lambda x: x * 1e300), "episode_2/rewards: 1e+300 does not fit float32"),
        (deep(0, "terminations", value=lambda x: x + 2), "episode_0/terminations: is 2 in row 0, must be 0 or 1"),
        (
            deep(0, "observations", "views", "_index_1", value=lambda x: x + 2**40),
            "_index_1: 1099511627776 does not fit int32",
        ),
        (deep(0, "observations", "views", "_index_0", value=lambda x: x[:, :1]), "differs from episode_0"),
        (deep(0, "actions", value=lambda x: np.array([b"abc"] * 3)), "episode_0/actions: is |S3"),
        (deep(0, "rewards", value=lambda x: x[:, None] * [1.0, 2.0]), "episode_0/rewards: has shape (3, 2)"),
        (deep(0, "observations", value=lambda x: {}), "episode_0/observations: is empty"),
    ],
)
def test_a_wrong_field_of_a_minari_file_is_named(tmp_path, change, says):
    with np.errstate(all="ignore"):
        minari(tmp_path, change=change)
    with pytest.raises(ValueError) as error:
        d.read(tmp_path)
    text = str(error.value)
    assert says in text and "\n" not in text and str(tmp_path) in text, text


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"total_steps": 10}, "metadata.json: total_steps: is 10, the file has 9"),
        ({"total_episodes": 4}, "total_episodes: is 4, the file has 3"),
        ({"total_steps": "many"}, "metadata.json"),
        ({"env_spec": "{"}, "metadata.json"),
        ({"ref_min_score": [1]}, "metadata.json"),
    ],
)
def test_mislabelled_minari_metadata(tmp_path, metadata, says):
    minari(tmp_path, metadata=metadata)
    with pytest.raises(ValueError) as error:
        d.read(tmp_path)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_arrays_elsewhere_are_not_read(tmp_path):
    minari(tmp_path)
    minari(tmp_path / "other")
    path, other = (folder / "data" / "main_data.hdf5" for folder in (tmp_path, tmp_path / "other"))
    (tmp_path / "secret").write_bytes(np.arange(3.0).tobytes())
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(other), "episode_0/rewards", (3,))
    cases = {
        "external": lambda group: group.__setitem__("rewards", h5py.ExternalLink(str(other), "episode_0/rewards")),
        "soft": lambda group: group.__setitem__("rewards", h5py.SoftLink("/episode_1/rewards")),
        "stored": lambda group: group.create_dataset(
            "rewards", (3,), "f8", external=[(str(tmp_path / "secret"), 0, 24)]
        ),
        "virtual": lambda group: group.create_virtual_dataset("rewards", layout),
    }
    for name, make in cases.items():
        with h5py.File(path, "r+") as file:
            del file["episode_0"]["rewards"]
            make(file["episode_0"])
        says = "is a link, which is not followed" if name in ("external", "soft") else "stored in another file"
        refused(path, f"episode_0/rewards: {'rewards ' if 'link' in says else 'is '}{says}")


def test_an_array_larger_than_the_file_is_not_allocated(tmp_path):
    minari(tmp_path)
    path = tmp_path / "data" / "main_data.hdf5"
    with h5py.File(path, "r+") as file:
        del file["episode_0"]["rewards"]
        file["episode_0"].create_dataset("rewards", (10**13,), "f8", chunks=(1000,))
    refused(path, "episode_0/rewards: claims 80000000000000 bytes")


def test_damaged_hdf5_files_end_in_one_line(tmp_path):
    """In a process of its own: HDF5 is C, and a crash of it would be one of the test run."""
    minari(tmp_path)
    d4rl(tmp_path / "flat.hdf5")
    script = """
import pathlib, sys, numpy as np
from jaxrl import data as d
folder = pathlib.Path(sys.argv[1])
random, counts = np.random.default_rng(0), {"read": 0, "refused": 0}
for source in (folder / "data" / "main_data.hdf5", folder / "flat.hdf5"):
    whole = source.read_bytes()
    bad = folder / "bad.hdf5"
    for i in range(240):
        if i % 2:
            content = whole[: random.integers(len(whole))]
        else:
            at, bit = random.integers(min(len(whole), 4000 if i % 4 else len(whole))), 1 << random.integers(8)
            content = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
        bad.write_bytes(content)
        try:
            d.read(bad)
            counts["read"] += 1
            assert not i % 2, "a truncated file was read"
        except ValueError as error:
            assert "\\n" not in str(error) and "bad.hdf5" in str(error), error
            counts["refused"] += 1
print(counts)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split("'refused': ")[1].rstrip("}\n")) > 240


ROWS = 7  # two episodes: rows 0 - 2 terminate, rows 3 - 6 time out


def d4rl(path, without=(), **fields):
    time = np.arange(ROWS)
    content = {
        "observations": np.stack([time, time**2], 1).astype(np.float64),
        "actions": np.stack([-time], 1).astype(np.float32),
        "rewards": time.astype(np.float32),
        "terminals": time == 2,
        "timeouts": time == 6,
        "next_observations": np.stack([time + 1, (time + 1) ** 2], 1).astype(np.float32),
        "infos/qpos": np.stack([time], 1).astype(np.float64),
        **fields,
    }
    content["next_observations"][2] += 0.5
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if name not in without:
                file[name] = value


def test_d4rl_with_successors(tmp_path):
    path = tmp_path / "toy-v2.hdf5"
    d4rl(path)
    found = d.read(path, extras=("infos/qpos",))
    data = found.transitions
    assert d.num_transitions(found) == ROWS and found.metadata == {"environment": "toy-v2", "format": "d4rl"}
    np.testing.assert_array_equal(data.next_observation[:, 0], [1, 2, 3.5, 4, 5, 6, 7])
    np.testing.assert_array_equal(np.flatnonzero(data.terminated), [2])
    np.testing.assert_array_equal(np.flatnonzero(data.truncated), [6])
    np.testing.assert_array_equal(data.extras["infos/qpos"][:, 0], range(ROWS))
    assert data.observation.dtype == data.action.dtype == np.float32
    d4rl(path, without=("timeouts",))  # the ends are where a successor is not the next row
    equal(d.read(path).transitions, data._replace(extras={}))


@pytest.mark.parametrize("source", ["timeouts", "max_episode_steps"])
def test_d4rl_without_successors_drops_the_rows_that_have_none(tmp_path, source):
    path = tmp_path / "toy-v0.hdf5"
    if source == "timeouts":
        d4rl(path, without=("next_observations",))
        data = d.read(path).transitions
    else:
        d4rl(path, without=("next_observations", "timeouts"))
        refused(path, "timeouts: is missing")
        data = d.read(path, max_episode_steps=4).transitions
    np.testing.assert_array_equal(data.observation[:, 0], range(6))  # row 6 timed out, without a successor
    np.testing.assert_array_equal(data.next_observation[[0, 1, 3, 4, 5], 0], [1, 2, 4, 5, 6])
    np.testing.assert_array_equal(np.flatnonzero(data.terminated), [2])
    np.testing.assert_array_equal(np.flatnonzero(data.truncated), [5])
    timeouts = np.isin(np.arange(ROWS), [3, 5])  # an episode of one row, 3, then 4 and 5, then a tail, 6
    d4rl(path, without=("next_observations",), timeouts=timeouts)
    data = d.read(path).transitions
    np.testing.assert_array_equal(data.observation[:, 0], [0, 1, 2, 4])
    np.testing.assert_array_equal(data.truncated, [False, False, False, True])
    d4rl(path, without=("next_observations",), timeouts=np.arange(ROWS) == 4)
    data = d.read(path).transitions
    np.testing.assert_array_equal(data.observation[:, 0], [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(data.truncated, [False, False, False, True, True])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(without=("rewards",)), "rewards: is missing"),
        (dict(rewards=np.zeros(6)), "observations: has 7 rows, must have 6"),
        (dict(terminals=np.full(7, 3)), "terminals: is 3 in row 0, must be 0 or 1"),
        (dict(rewards=np.full(7, np.nan)), "reward is not finite in row 0"),
        (dict(rewards=np.zeros(())), "rewards: is a single number"),
        (dict(rewards=np.zeros(0)), "rewards: is empty"),
        (dict(actions=np.array(["a"] * 7, dtype=h5py.string_dtype())), "actions: is object"),
        (dict(next_observations=np.zeros((7, 3))), "next_observation has"),
        (dict(without=("actions",), **{"actions/x": np.zeros(7)}), "actions: is a group"),
        (dict(without=("observations",)), "has neither 'observations' nor 'episode_0'"),
    ],
)
def test_a_wrong_field_of_a_d4rl_file_is_named(tmp_path, options, says):
    d4rl(tmp_path / "x.hdf5", **options)
    refused(tmp_path / "x.hdf5", says)


def ogbench(path, without=(), save=np.savez_compressed, **fields):
    """Two trajectories of three states each, and the first two states of a third: as ogbench/utils.py explains."""
    state = np.arange(8)
    content = {
        "observations": np.stack([state, -state], 1).astype(np.float32),
        "actions": np.stack([10 * state], 1).astype(np.float32),
        "terminals": np.isin(state, [2, 5]),
        "qpos": np.stack([state], 1).astype(np.float64),
        **fields,
    }
    save(path, **{name: x for name, x in content.items() if name not in without})


def test_ogbench(tmp_path):
    path = tmp_path / "toy-navigate-v0.npz"
    for save in (np.savez, np.savez_compressed):
        ogbench(path, save=save)
        found = d.read(path, extras=("qpos",))
        data = found.transitions
        np.testing.assert_array_equal(data.observation[:, 0], [0, 1, 3, 4, 6])
        np.testing.assert_array_equal(data.next_observation[:, 0], [1, 2, 4, 5, 7])
        np.testing.assert_array_equal(data.action[:, 0], [0, 10, 30, 40, 60])
        np.testing.assert_array_equal(data.truncated, [False, True, False, True, True])
        assert not data.terminated.any() and not data.reward.any() and data.extras["qpos"].dtype == np.float32
    assert found.metadata == {"environment": "toy-navigate-v0", "format": "ogbench", "rewards": "none"}
    refused(path, "cannot be memory-mapped", mmap=True)
    ogbench(path, rewards=-np.ones(8), masks=np.arange(8) != 4)
    found = d.read(path)
    np.testing.assert_array_equal(found.transitions.terminated, [False, False, False, True, False])
    np.testing.assert_array_equal(d.episode_returns(found), [-2, -2, -1])
    assert "rewards" not in found.metadata
    ogbench(path, next_observations=np.full((8, 2), 5.0), terminals=np.isin(np.arange(8), [2, 7]))
    np.testing.assert_array_equal(np.flatnonzero(d.read(path).transitions.truncated), [2, 7])
    ogbench(path, observations=np.zeros((8, 4, 4, 3), np.uint8))
    assert d.read(path).transitions.observation.dtype == np.uint8


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_bit_of_an_ogbench_file_is_refused_or_changes_nothing(tmp_path, save):
    path, random, num_refused = tmp_path / "x.npz", np.random.default_rng(0), 0
    ogbench(path, save=save, observations=random.normal(size=(8, 300)).astype(np.float32))
    whole, expected = path.read_bytes(), d.read(path)
    for _ in range(200):
        position, bit = random.integers(len(whole)), 1 << random.integers(8)
        path.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
        try:
            equal(d.read(path).transitions, expected.transitions)
        except ValueError as error:
            assert "\n" not in str(error) and "x.npz" in str(error)
            num_refused += 1
    assert num_refused > 180


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(without=("terminals",)), "terminals: is missing"),
        (dict(actions=np.zeros((7, 1))), "actions: has shape (7, 1)"),
        (dict(terminals=np.arange(8)), "terminals: is 2 in row 2, must be 0 or 1"),
        (dict(terminals=np.ones(8)), "terminals: leaves no transition"),
        (dict(observations=np.full((8, 2), np.nan)), "observation is not finite in row 0"),
        (dict(observations=np.array(["a"] * 8)), "observations: is <U1"),
        (dict(masks=np.full(8, 0.5)), "masks: is 0.5 in row 0"),
        (dict(terminals=np.zeros((8, 2))), "terminals: has shape (8, 2)"),
    ],
)
def test_a_wrong_field_of_an_ogbench_file_is_named(tmp_path, options, says):
    ogbench(tmp_path / "x.npz", **options)
    refused(tmp_path / "x.npz", says)


def test_h5py_is_named_where_it_is_missing(tmp_path, monkeypatch):
    minari(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(tmp_path / "data" / "main_data.hdf5", "needs h5py")
