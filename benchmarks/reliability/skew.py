"""Restores a checkpoint into states that it does not fit: each must be refused, in one line that says why.

    python benchmarks/reliability/skew.py          # --write: docs/reliability/skew.md

Beside it, what orbax alone does with the same state and template.
"""

import hashlib
import json
import pathlib
import sys
import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pages

from jaxrl.checkpoints import Checkpoints, open_readonly


class State(NamedTuple):
    weight: Any
    bias: Any
    more: Any


Node = NamedTuple("State", [("bias", Any), ("weight", Any), ("more", Any)])  # the fields in another order


def state():
    more = {"count": jnp.ones((), jnp.int32), "pair": (jnp.ones(2), jnp.zeros(2))}
    return State(jnp.ones((2, 3)), jnp.arange(3.0), more)


def keyed(impl):
    return {"key": jax.random.key(1, impl=impl)}


def with_more(**leaves):
    return state()._replace(more={**state().more, **leaves})


def without(name):
    return state()._replace(more={k: v for k, v in state().more.items() if k != name})


# what differs: (saved, template, what the line must name)
CASES = {
    "a leaf that was not saved": (state(), with_more(new=jnp.ones(1)), "more/new"),
    "a leaf that is not wanted": (state(), without("count"), "more/count"),
    "a leaf of another name": (state(), {**without("count").more, "steps": state().more["count"]}, "steps"),
    "another shape": (state(), state()._replace(weight=jnp.ones((2, 4))), "float32[2, 4]"),
    "another rank": (state(), state()._replace(weight=jnp.ones(6)), "float32[6]"),
    "float32 as int32": (state(), state()._replace(bias=jnp.arange(3)), "int32[3]"),
    "float32 as bfloat16": (state(), state()._replace(bias=jnp.arange(3.0).astype(jnp.bfloat16)), "bfloat16[3]"),
    "a tuple as a list": (state(), with_more(pair=[jnp.ones(2), jnp.zeros(2)]), "list"),
    "a NamedTuple reordered": (state(), Node(state().bias, state().weight, state().more), "State(bias, weight, more)"),
    "a key of another kind": (keyed("threefry2x32"), keyed("rbg"), "key<rbg>"),
    "a typed key as numbers": (keyed("threefry2x32"), {"key": jnp.zeros(2, jnp.uint32)}, "uint32[2]"),
    "a newer schema": (state(), state(), "schema 2"),
}


def ours(folder, saved, template, names, newer=False):
    """ "refused" if it is one ValueError of one line that names the difference, and no step is called damaged."""
    lines = []
    with Checkpoints(folder, say=lambda line: None) as checkpoints:
        checkpoints.save(1, saved)
    if newer:
        age(folder / "1.json")
    try:
        open_readonly(folder, lines.append).restore(template)
        return "accepted"
    except ValueError as error:
        return "refused" if names in str(error) and "\n" not in str(error) and not lines else f"unclear: {error}"


def age(path):
    """A manifest as a later jaxrl might write it, with its digest."""
    fields = json.loads(path.read_text()) | {"schema": 2}
    del fields["sha256"]
    digest = hashlib.sha256(json.dumps(fields, indent=1).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, **fields}, indent=1) + "\n")


def orbax(folder, saved, template):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, saved)
        checkpointer.wait_until_finished()
        try:
            restored = checkpointer.restore(folder, template)
        except Exception as error:
            return f"{type(error).__name__}"
    as_saved = jax.tree.structure(restored) == jax.tree.structure(saved) and all(
        a.dtype == b.dtype for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(saved))
    )
    return "restored as it was saved" if as_saved else "converted in silence"


def measure(quick=False):
    """Rows of the table, and the promises that are broken. With `quick`, without orbax alone."""
    rows, broken = [], []
    for name, (saved, template, names) in CASES.items():
        newer = name == "a newer schema"
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            row = {"the template has": name, "jaxrl": ours(folder / "a", saved, template, names, newer)}
            if not quick:
                row["orbax alone"] = "-" if newer else orbax(folder / "b", saved, template)
        rows.append(row)
        if row["jaxrl"] != "refused":
            broken.append(f"{name}: {row['jaxrl']}")
    return rows, broken


def main():
    options = pages.arguments(__doc__)
    rows, broken = measure(options.quick)
    refused = sum(row["jaxrl"] == "refused" for row in rows)
    rows.append({**dict.fromkeys(rows[0], ""), "the template has": "refused", "jaxrl": f"{refused} of {len(CASES)}"})
    done = "A checkpoint was restored into states that it does not fit; right is one line that names the difference."
    return pages.finish("skew", "Checkpoints that do not fit", done, rows, broken, options.write)


if __name__ == "__main__":
    sys.exit(main())
