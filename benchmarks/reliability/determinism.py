"""What changes the bits of a training run, and what does not.

    python benchmarks/reliability/determinism.py [--quick] [--write]

The same program must give the same bits: again, in another process, in chunks of any size, on one core and on two, with
more devices beside the one in use. Programs of another width (`vmap` over more seeds, seeds spread over devices) are
other programs: after one update parameters agree to `TOLERANCE` of their scale, then rounding grows with the run.
`--quick` takes two learners instead of four; `--write` writes docs/reliability/determinism.md. Exit status 1 if a
promise is broken.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from pages import arguments, finish  # noqa: E402

UPDATES = 26
TOLERANCE = 1e-5  # of the largest number of a parameter array, after one update
LEARNERS = {  # agent, environment, static choices
    "ppo": ("ppo", "CartPole-v1", dict(normalize_observation=True, num_epochs=2)),
    "dqn": ("dqn", "CartPole-v1", dict(min_buffer_size=64, buffer_size=1024, batch_size=32)),
    "ppo recurrent": ("ppo", "CartPole-v1", dict(recurrent=True, memory_size=16, num_epochs=2)),
    "sac": ("sac", "Pendulum-v1", dict(min_buffer_size=64, buffer_size=1024, batch_size=32)),
}
WIDTHS = (1, 2, 4, 8)
LENGTHS = (1, 4, 16)


def made(name: str) -> Any:
    """The loop of a learner, and its hyperparameters."""
    import jaxrl

    agent_name, env_name, static = LEARNERS[name]
    env = jaxrl.envs.make(env_name)
    agent, hparams = jaxrl.make_agent(agent_name, env, widths=(32,), **static)
    return jaxrl.online(agent, env, num_envs=8, unroll_length=8), hparams


def trained(name: str, chunks: tuple[int, ...] = (UPDATES,)) -> tuple[Any, Any]:
    """State and metrics after as many updates as `chunks` has together, a program call for each."""
    import jax

    from jaxrl.loop import run

    loop, hparams = made(name)
    chunk = jax.jit(partial(run, loop), static_argnums=1)
    state, metrics = jax.jit(loop.init)(jax.random.key(0), hparams), []
    for n in chunks:
        state, some = chunk(state, n)
        metrics.append(jax.device_get(some))
    return state, jax.tree.map(lambda *x: np.concatenate(x), *metrics)


def digest(tree: Any) -> str:
    """SHA-256 of every leaf's type, shape and bytes, keys among them."""
    import jax

    found = hashlib.sha256()
    for x in jax.tree.leaves(tree):
        x = np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        found.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return found.hexdigest()


def elsewhere(names: list[str], cores: int | None = None, devices: int = 1, what: str = "digests") -> Any:
    """What another process finds, on so many cores and with so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    # Compiled anew: a program from the cache is the same program anyway.
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, __file__, "--child", what, str(cores or os.cpu_count()), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def apart(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    """The largest difference between two lists of arrays, as a part of each array's largest number."""
    with np.errstate(invalid="ignore"):  # inf less itself
        differences = [np.where(x == y, 0.0, np.abs(x - y)) for x, y in zip(a, b, strict=True)]
    return max(float(np.max(d) / max(np.max(np.abs(y)), 1e-3)) for d, y in zip(differences, b, strict=True) if d.size)


def members(name: str, width: int | None, lengths: tuple[int, ...] = LENGTHS, devices: int = 1) -> list[list]:
    """Parameters of the first of `width` seeds trained side by side after each of `lengths` updates; None: alone.

    Args:
      devices: that the seeds are spread over.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from jaxrl.combinators.replay import learner_state

    loop, hparams = made(name)

    def train(key):
        def step(state, _):
            state, _ = loop.step(state)
            leaves = jax.tree.leaves(learner_state(state.agent))
            return state, [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]

        _, found = jax.lax.scan(step, loop.init(key, hparams), length=max(lengths))
        return [[x[n - 1] for x in found] for n in lengths]

    keys = jax.random.split(jax.random.key(1), max(WIDTHS))[: width or 1]
    if devices > 1:
        mesh = Mesh(np.array(jax.devices()[:devices]), ("seed",))
        keys = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("seed")))
    found = jax.jit(train)(keys[0]) if width is None else jax.jit(jax.vmap(train))(keys)
    found = jax.device_get(found)
    return found if width is None else jax.tree.map(lambda x: x[0], found)


def widths(name: str, choose: tuple = WIDTHS, lengths: tuple[int, ...] = LENGTHS) -> dict[str, list[float]]:
    """How far the first seed is from itself alone, for each width, after each of `lengths` updates."""
    alone = members(name, None, lengths)
    return {str(w): [apart(a, b) for a, b in zip(members(name, w, lengths), alone)] for w in choose}


def spread(name: str, devices: int, lengths: tuple[int, ...] = LENGTHS) -> list[float]:
    """How far the first of eight seeds spread over devices is from itself alone."""
    pairs = zip(members(name, 8, lengths, devices), members(name, None, lengths))
    return [apart(a, b) for a, b in pairs]


def child(what: str, cores: int, names: list[str]) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # before jax makes its threads
    import jax

    if what == "digests":
        found = {name: digest(trained(name)) for name in names}
    else:
        found = {name: spread(name, len(jax.devices())) for name in names}
    print(json.dumps(found))


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
        return 0
    options = arguments(__doc__)
    names = list(LEARNERS)[: 2 if options.quick else None]
    rows, wrong = [], []

    def row(what, promise, cells, held):
        rows.append({"what differs": what, "promise": promise, **cells})
        wrong.extend(f"{name}, {what}" for name in names if not held[name])
        print(rows[-1], flush=True)

    first = {name: digest(trained(name)) for name in names}

    def same(what, digests):
        held = {name: digests[name] == first[name] for name in names}
        row(what, "the same bits", {name: "same" if x else "differ" for name, x in held.items()}, held)

    same("nothing, the same process", {name: digest(trained(name)) for name in names})
    for size in (5,) if options.quick else (13, 5, 1):
        chunks = (size,) * (UPDATES // size) + ((UPDATES % size,) if UPDATES % size else ())
        same(f"chunks of {size} updates", {name: digest(trained(name, chunks)) for name in names})
    if not options.quick:
        same("another process", elsewhere(names))
        same("4 devices, 1 in use", elsewhere(names, devices=4))
    same("another process on 1 core", elsewhere(names, cores=1))

    def near(what, found):
        held = {name: found[name][0] <= TOLERANCE for name in names}
        cells = {name: ", ".join(f"{x:.0e}" for x in found[name]) for name in names}
        row(what, f"{TOLERANCE:g} after 1 update", cells, held)

    found = {name: widths(name) for name in names}
    for width in WIDTHS:
        near(f"`vmap` over {width} seeds, instead of one alone", {name: found[name][str(width)] for name in names})
    for devices in (2,) if options.quick else (2, 4, 8):
        near(f"8 seeds over {devices} devices, instead of one alone", elsewhere(names, devices=devices, what="spread"))

    done = (
        f"Learners train for {UPDATES} updates of 8 x 8 steps; the SHA-256 of the whole state and of all metrics is "
        "compared. Where programs are of another width, the largest difference of an array of the learner's state "
        "(parameters, optimiser, statistics) as a part of its largest number is given after "
        f"{', '.join(map(str, LENGTHS))} updates: rounding differs, and a run of a sampled policy carries it on."
    )
    return finish("determinism", "Determinism", done, rows, wrong, options.write)


if __name__ == "__main__":
    sys.exit(main())
