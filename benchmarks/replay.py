"""Speed of buffers, beside flashbax where it is installed, and of off-policy agents end to end.

    python benchmarks/replay.py                       # buffers of 1e4, 1e5 and 1e6 transitions, batches of 256 and 4096
    python benchmarks/replay.py --capacities 10000 --batches 256 1024 4096
    python benchmarks/replay.py --agents              # dqn in CartPole, sac in Pendulum: environment steps a second

Transitions are of 17 floats and 6 actions, added by 16 environments, 4 steps at a time. Each figure is the median of
rounds in which all libraries take turns, of a scan inside of one program with the buffer donated; compilation is apart.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl import buffers
from jaxrl.presets import lookup
from jaxrl.types import Transition

NUM_ENVS, LENGTH, ROUNDS = 16, 4, 5


def rollout(length=LENGTH):
    lead = (length, NUM_ENVS)
    flags, observation = jnp.zeros(lead, bool), jnp.ones((*lead, 17))
    return Transition(observation, jnp.ones((*lead, 6)), jnp.ones(lead), flags, flags, observation)


def ours(buffer):
    """state, add(state), sample(key, state) -> batch, prioritize(state, batch)."""
    fresh = rollout()
    return (
        lambda: buffer.init(buffer.hparams, fresh),
        lambda state: buffer.add(state, fresh),
        buffer.sample,
        lambda state, data: buffer.prioritize(state, data, jnp.abs(data.reward) + 0.5),
    )


def theirs(kind, capacity, batch):
    """The same of flashbax: pairs of successive steps, which is how it stores transitions."""
    import flashbax

    one = jax.tree.map(lambda x: x[0, 0], rollout()._replace(next_observation=()))
    step = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), rollout()._replace(next_observation=()))
    sizes = dict(min_length=1, sample_batch_size=batch, add_sequences=True, add_batch_size=NUM_ENVS)
    if kind == "prioritized":
        buffer = flashbax.make_prioritised_flat_buffer(capacity, **sizes, priority_exponent=0.6)
    else:
        buffer = flashbax.make_flat_buffer(capacity, **sizes)
    set_priorities = getattr(buffer, "set_priorities", None)

    def prioritize(state, data):
        return set_priorities(state, data.indices, jnp.abs(data.experience.first.reward) + 0.5)

    return lambda: buffer.init(one), lambda s: buffer.add(s, step), lambda key, s: buffer.sample(s, key), prioritize


def programs(parts, prioritizes, count):
    """init, and compiled scans of `count` adds and of `count` samples (with priorities written back)."""
    init, add, sample, prioritize = parts

    def adds(state):
        return jax.lax.scan(lambda s, _: (add(s), ()), state, length=count)[0]

    def samples(state, key):
        def one(carry, key):
            state, total = carry
            data = sample(key, state)
            if prioritizes:
                state = prioritize(state, data)
            total += sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(data))  # all of it is read
            return (state, total), ()

        return jax.lax.scan(one, (state, 0.0), jax.random.split(key, count))[0]

    state = jax.jit(init)()
    begin = time.perf_counter()
    add_program = jax.jit(adds, donate_argnums=0).lower(state).compile()
    sample_program = jax.jit(samples, donate_argnums=0).lower(state, jax.random.key(0)).compile()
    return state, add_program, sample_program, time.perf_counter() - begin


def measure(kind, capacity, batch):
    """One row: rates and compile seconds of each library."""
    sampler = buffers.prioritized() if kind == "prioritized" else buffers.uniform()
    reader = {"n-step 3": buffers.n_step(3), "sequences 20": buffers.sequences(20)}.get(kind, buffers.rows())
    size = batch // 20 if kind == "sequences 20" else batch
    store = kind != "stored once"
    buffer = buffers.replay(capacity, size, sampler=sampler, reader=reader, store_next_observation=store)
    libraries = {"jaxrl": ours(buffer)}
    if kind in ("uniform", "prioritized") and has_flashbax():
        libraries["flashbax"] = theirs(kind, capacity, batch)
    count = max(4, 40_000 // batch)
    made = {name: list(programs(parts, kind == "prioritized", count)) for name, parts in libraries.items()}
    rates = {name: ([], []) for name in made}
    for i in range(ROUNDS + 1):
        for name, (state, add, sample, _) in made.items():
            begin = time.perf_counter()
            state = jax.block_until_ready(add(state))
            middle = time.perf_counter()
            state, _ = jax.block_until_ready(sample(state, jax.random.key(i)))
            end = time.perf_counter()
            made[name][0] = state
            if i:  # the first round warms up
                rates[name][0].append(count * NUM_ENVS * LENGTH / (middle - begin))
                rates[name][1].append(count * size * (20 if kind == "sequences 20" else 1) / (end - middle))
    return {name: (*map(np.median, rates[name]), made[name][3]) for name in made}


@functools.cache
def has_flashbax():
    try:
        import flashbax  # noqa: F401
    except ImportError:
        return False
    return True


def buffers_table(capacities, batches):
    print("| buffer | capacity | batch | library | adds/s | samples/s | compile s |\n|---|---|---|---|---|---|---|")
    for kind in ("uniform", "stored once", "n-step 3", "prioritized", "sequences 20"):
        for capacity in capacities:
            for batch in batches:
                for name, (adds, samples, compiling) in measure(kind, capacity, batch).items():
                    print(f"| {kind} | {capacity:,} | {batch} | {name} ", end="")
                    print(f"| {adds:,.0f} | {samples:,.0f} | {compiling:.1f} |", flush=True)


def agents_table():
    print("| agent | environment | environments | updates a step | batch | steps/s | compile s |")
    print("|---|---|---|---|---|---|---|")
    for agent_name, env_name, steps in (("dqn", "CartPole-v1", 100_000), ("sac", "Pendulum-v1", 10_000)):
        preset, env = lookup(agent_name, env_name), jaxrl.envs.make(env_name)
        agent, hparams = jaxrl.make_agent(agent_name, env, preset=env_name)
        num_envs, length = preset["num_envs"], preset["unroll_length"]
        loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=length)
        updates = steps // (num_envs * length)
        state = jax.jit(loop.init)(jax.random.key(0), hparams)
        begin = time.perf_counter()
        train = (
            jax.jit(lambda s, loop=loop, n=updates: jaxrl.run(loop, s, n)[0], donate_argnums=0).lower(state).compile()
        )
        compiling = time.perf_counter() - begin
        rates = []
        for _ in range(4):
            begin = time.perf_counter()
            state = jax.block_until_ready(train(state))
            rates.append(updates * num_envs * length / (time.perf_counter() - begin))
        ratio = preset.get("updates_per_step", 1) / (num_envs * length)
        print(f"| {agent_name} | {env_name} | {num_envs} | {ratio:g} | {preset.get('batch_size', 256)} ", end="")
        print(f"| {np.median(rates[1:]):,.0f} | {compiling:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacities", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--batches", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--agents", action="store_true", help="agents instead of buffers")
    arguments = parser.parse_args()
    agents_table() if arguments.agents else buffers_table(arguments.capacities, arguments.batches)


if __name__ == "__main__":
    main()
