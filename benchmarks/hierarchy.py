"""Steps/s of two-level agents beside their parts alone, in pairs within one process.

    python benchmarks/hierarchy.py [--updates 20] [--repeats 5]

The parts run alone: the manager's agent and the worker's agent, each a flat agent in the same environment, one after
the other, so that every environment step is acted on and learned from by both. `share` is how many steps/s the
two-level agent does of what its parts do together in that way, 1 / (1 / manager + 1 / worker), the median over pairs.
"""

import argparse
import time

import jax
import numpy as np

import jaxrl
from jaxrl.envs.key_door import key_door

SIZES = dict(num_envs=64, unroll_length=64)
ROLLOUT = dict(widths=(64, 64), num_epochs=4, num_minibatches=4)
REPLAY = dict(widths=(64, 64), updates_per_step=16, batch_size=256, min_buffer_size=1000)


def flat(name, env):
    return jaxrl.make_agent(name, env, **(ROLLOUT if name == "ppo" else REPLAY))[0]


def pairs():
    """name -> (two-level agent, manager alone, worker alone, environment)"""
    discrete, continuous = key_door(32), key_door(32, continuous=True)
    goals = dict(goal_entries=(0,), goal_range=1.0, period=8)
    mixed = ROLLOUT | REPLAY
    yield "PPO over PPO", "ppo", "ppo", discrete, dict(goals, goal_grid=3, **ROLLOUT)
    yield "PPO over SAC", "ppo", "sac", continuous, dict(goals, **mixed)
    yield "QR-DQN over PPO", "qrdqn", "ppo", discrete, dict(goals, goal_grid=3, **mixed)


def stepper(agent, env, updates, sizes):
    """A function that runs `updates` updates and returns steps/s."""
    loop = jaxrl.online(agent, env, **sizes)
    run = jax.jit(lambda state: jaxrl.run(loop, state, updates)[0])
    state = run(jax.jit(loop.init)(jax.random.key(0)))
    steps = updates * sizes["num_envs"] * sizes["unroll_length"]

    def timed():
        nonlocal state
        begin = time.perf_counter()
        state = jax.block_until_ready(run(state))
        return steps / (time.perf_counter() - begin)

    return timed


def measure(name, manager, worker, env, static, updates, repeats, sizes):
    """Steps/s of the two-level agent, the manager alone, the worker alone, [repeats] each."""
    agents = [jaxrl.make_agent("hierarchical", env, manager=manager, worker=worker, **static)[0]]
    # Q-learners need finitely many actions, and SAC a box: each part alone acts in an environment that fits it.
    agents += [flat(part, env) for part in (manager, worker)]
    timers = [stepper(agent, env, updates, sizes) for agent in agents]
    return np.array([[timer() for timer in timers] for _ in range(repeats)]).T


def main(updates=20, repeats=5, sizes=SIZES, rows=None):
    print("| agent | two levels | manager alone | worker alone | share |")
    print("|---|---|---|---|---|")
    shares = {}
    for row in list(pairs())[:rows]:
        both, *parts = measure(*row, updates, repeats, sizes)
        share = np.median(both * sum(1 / part for part in parts))
        cells = " | ".join(f"{np.median(x):,.0f}" for x in (both, *parts))
        print(f"| {row[0]} | {cells} | {share:.2f}x |", flush=True)
        shares[row[0]] = share
    return shares


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    main(**vars(parser.parse_args()))
