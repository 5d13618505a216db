"""Damages checkpoints, policy files and datasets, a file or a bit at a time, and reads them.

    python benchmarks/reliability/damage.py            # all; --quick: a part; --write: docs/reliability/damage.md

A checkpoint folder has two steps. Every file of the newer one, its manifest too, is deleted, filled with zeros, cut in
half, and has one bit flipped; then single bits are flipped at random over all of its bytes. Each time the folder is
opened and restored: right is the older step, bit for bit, and one line that names the newer step and the file. The
same is done to policy files and datasets, which have nothing to fall back to: right is one line that names the file.
"""

import collections
import pathlib
import shutil
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pages

import jaxrl
from jaxrl import data, policy_file
from jaxrl.checkpoints import Checkpoints, open_readonly

OLD, NEW = 1000, 2000
KINDS = {
    "deleted": lambda path, data: path.unlink(),
    "filled with zeros": lambda path, data: path.write_bytes(bytes(len(data))),
    "cut in half": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "one bit flipped": lambda path, data: path.write_bytes(flipped(data, 4 * len(data))),
}


def states(quick=False):
    """Pairs of states, as of the two steps, of several shapes; the last is a whole training state with its buffer."""

    def random(seed):
        return {"w": jax.random.normal(jax.random.key(seed), (128, 128))}

    def nested(seed):
        key = jax.random.key(seed)
        counts = (jnp.arange(7) + seed, jnp.ones((), bool), jnp.zeros((0, 3)))
        return {"key": jax.random.split(key), "half": jax.random.normal(key, (50,), jnp.bfloat16), "counts": counts}

    def loop_state(seed):
        env = jaxrl.envs.make("CartPole-v1")
        sizes = dict(widths=(16,), buffer_size=64, min_buffer_size=8)
        agent, hparams = jaxrl.make_agent("dqn", env, **sizes)
        return jax.jit(jaxrl.online(agent, env, num_envs=4, unroll_length=2).init)(jax.random.key(seed), hparams)

    makers = {"64 KB of random floats": random, "keys, bfloat16, counters": nested, "a whole DQN run": loop_state}
    return {name: (make(1), make(2)) for name, make in list(makers.items())[: 2 if quick else 3]}


def same(left, right):
    """Whether two states are equal to the bit."""
    if jax.tree.structure(left) != jax.tree.structure(right):
        return False
    return all(a.dtype == b.dtype and bits(a) == bits(b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right)))


def bits(leaf):
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return (leaf.shape, np.asarray(jax.random.key_data(leaf) if typed else leaf).tobytes())


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def try_checkpoint(folder, old, new, file):
    """What became of a damaged folder: "fell back", "not noticed", "silently wrong", "raised" or "no clear line"."""
    lines = []
    try:
        state, step, *_ = open_readonly(folder, lines.append).restore(new)
    except Exception:
        return "raised"
    if not same(state, {OLD: old, NEW: new}[step]):
        return "silently wrong"
    if step == NEW:
        return "not noticed"
    clear = len(lines) == 1 and "\n" not in lines[0] and f"step {NEW}" in lines[0] and file in lines[0]
    return "fell back" if clear else "no clear line"


def checkpoints(old, new, num_flips, random):
    """Counts of outcomes over the damages of one checkpoint: (files, bits, control)."""
    files, flips = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        good, folder = pathlib.Path(name, "good"), pathlib.Path(name, "bad")
        with Checkpoints(good, say=lambda line: None) as saved:
            saved.save(OLD, old)
            saved.save(NEW, new)
        paths = [p.relative_to(good) for p in (*(good / str(NEW)).rglob("*"), good / f"{NEW}.json")]
        paths = sorted(p for p in paths if (good / p).is_file())
        contents = {p: (good / p).read_bytes() for p in paths}
        control = try_checkpoint(good, old, new, "")
        shutil.copytree(good, folder)

        def tried(path, damage):
            damage(folder / path)
            outcome = try_checkpoint(folder, old, new, str(path))
            (folder / path).write_bytes(contents[path])
            return outcome

        for path in paths:
            for damage in KINDS.values():
                if damage is KINDS["filled with zeros"] and not any(contents[path]):
                    continue  # it is all zeros as it is: flags that are false
                files[tried(path, lambda where: damage(where, contents[path]))] += 1
        for path, bit in draw({p: len(x) for p, x in contents.items()}, num_flips, random):
            flips[tried(path, lambda where: where.write_bytes(flipped(contents[path], bit)))] += 1
    return files, flips, control


def draw(sizes, count, random):
    """(name, bit) of random single bits, every bit of all files equally likely."""
    names, ends = list(sizes), np.cumsum([8 * n for n in sizes.values()])
    for bit in random.integers(0, ends[-1], count):
        i = int(np.searchsorted(ends, bit, side="right"))
        yield names[i], int(bit - (ends[i - 1] if i else 0))


def policy(path):
    """Writes a policy file. Returns what reads it."""
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(16,))
    init = jax.jit(lambda key: agent.init(key, hparams, jaxrl.loop.example_data(env, 2, 3)))
    shape = {"static": {"widths": [16]}, "num_envs": 2, "unroll_length": 3}
    header = {"agent": "ppo", "env": {"name": "CartPole-v1", "params": {}}, **shape}
    policy_file.save_policy(path, agent.actor(init(jax.random.key(0))), header)
    return lambda: policy_file.load(path)[1]


def dataset(path):
    """Writes a dataset. Returns what reads it."""
    found = data.collect_random(jax.random.key(0), jaxrl.envs.make("CartPole-v1"), 200)
    data.write(path, found)
    return lambda: data.read(path).transitions


def single_file(path, make, num_flips, random):
    """Counts of outcomes over the damages of one file: (files, bits, control)."""
    load = make(path)
    content, truth = path.read_bytes(), load()

    def tried():
        try:
            loaded = load()
        except ValueError as error:
            clear = "\n" not in str(error) and path.name in str(error)
            return "refused" if clear else "no clear line"
        except Exception:
            return "raised"
        return "not noticed" if same(loaded, truth) else "silently wrong"

    control, files, flips = tried(), collections.Counter(), collections.Counter()
    for damage in KINDS.values():
        damage(path, content)
        files[tried()] += 1
    for _, bit in draw({path: len(content)}, num_flips, random):
        path.write_bytes(flipped(content, bit))
        flips[tried()] += 1
    return files, flips, control


def row(what, right, files, flips, control):
    bad = ("silently wrong", "not noticed", "raised", "no clear line")
    counts = {name: files[name] + flips[name] for name in bad}
    return {
        "what": what,
        f"files: {' or '.join(('fell back', 'refused'))}": f"{files[right]} of {files.total()}",
        "bits": f"{flips[right]} of {flips.total()}",
        **counts,
        "undamaged": "restored" if control == "not noticed" else control,
    }


def measure(quick=False):
    """Rows of the table, and the promises that are broken."""
    random, rows, num_flips = np.random.default_rng(0), [], 10 if quick else 200
    total = [collections.Counter(), collections.Counter()]
    for name, (old, new) in states(quick).items():
        files, flips, control = checkpoints(old, new, num_flips, random)
        total = [total[0] + files, total[1] + flips]
        rows.append(row(f"checkpoint: {name}", "fell back", files, flips, control))
    rows.append(row("all checkpoints", "fell back", *total, "not noticed"))
    with tempfile.TemporaryDirectory() as folder:
        for name, make in {"p.safetensors": policy, "d.safetensors": dataset, "d.npz": dataset}.items():
            counts = single_file(pathlib.Path(folder, name), make, num_flips, random)
            rows.append(row(f"{make.__name__} file (.{name[2:]})", "refused", *counts))
    broken = []
    for line in rows:
        files, flips = line["files: fell back or refused"], line["bits"]
        if len({*files.split(" of ")}) > 1 or len({*flips.split(" of ")}) > 1 or line["undamaged"] != "restored":
            broken.append(f"{line['what']}: files {files}, bits {flips}, undamaged {line['undamaged']}")
    return rows, broken


def main():
    options = pages.arguments(__doc__)
    rows, broken = measure(options.quick)
    done = (
        "A folder with two steps; every file of the newer one, its manifest too, was deleted, filled with zeros, cut "
        "in half, and had one bit flipped, and single bits were flipped at random over all of its bytes. It counts as "
        "right if the older step came back to the bit, with one line that names the newer step and the file. Policy "
        "files and datasets have nothing to fall back to: right is one line that names the file."
    )
    return pages.finish("damage", "Damaged files", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
