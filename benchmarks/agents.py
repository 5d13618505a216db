"""What more agents cost: environments alone, IPPO, MAPPO, VDN and QMIX with 2 to 64 agents.

    python benchmarks/agents.py                      # both environments: ten minutes of one core, most of them compile
    python benchmarks/agents.py --counts 2 8 --envs spread

`spread` has as many landmarks as agents, `predator_prey` as many prey, on 16 x 16 cells. Environments alone are played
with random actions by the loop that trains, resets included. All have 8 environments and two layers of 64; IPPO and
MAPPO learn from rollouts of 32 steps in 2 epochs of 2 minibatches; VDN and QMIX take a step on 32 rows for every 8
steps of each environment. MAPPO and QMIX are given the global state once, not the observations of all agents. A figure
is of the best call of a second's; compilation is apart.
"""

import argparse
import time

import jax

import jaxrl
from jaxrl.envs.particles import spread
from jaxrl.envs.predator_prey import predator_prey
from jaxrl.types import Agent, no_memory

COUNTS = (2, 4, 8, 16, 32, 64)
ENVS = {
    "spread": spread,
    "predator_prey": lambda num, privileged: predator_prey(
        size=16, num_predators=num, num_prey=num, privileged=privileged
    ),
}
ROLLOUTS = dict(num_epochs=2, num_minibatches=2)
REPLAY = dict(buffer_size=512, min_buffer_size=64, batch_size=32)
# name: settings of the agent, steps of each environment between updates, updates a call, whether it sees the state
AGENTS = {
    "alone": ({}, 32, 16, False),
    "ippo": (ROLLOUTS, 32, 4, False),
    "mappo": (ROLLOUTS, 32, 4, True),
    "vdn": (REPLAY, 8, 8, False),
    "qmix": (REPLAY, 8, 8, True),
}
NUM_ENVS = 8


def random_agent(env):
    """Acts by chance, and does not learn."""
    space = env.action_space

    def act(key, state, memory, observation):
        num_envs = jax.tree.leaves(observation)[0].shape[0]
        return memory, jax.random.randint(key, (num_envs, space.num), 0, space.space.n, space.space.dtype), {}

    return Agent(lambda key, hparams, example: (), no_memory, act, act, lambda key, state, data: (state, {}))


def measure(env_name, num_agents, agent_name, seconds=1.0):
    """Steps of environments a second, and the seconds of compilation."""
    static, length, updates, informed = AGENTS[agent_name]
    env = ENVS[env_name](num_agents, privileged=informed)
    agent = random_agent(env) if agent_name == "alone" else jaxrl.make_agent(agent_name, env, **static)[0]
    loop = jaxrl.online(agent, env, num_envs=NUM_ENVS, unroll_length=length)
    state = jax.jit(loop.init)(jax.random.key(0))
    # The state is given away, or every call would copy the buffer.
    lowered = jax.jit(lambda state: jaxrl.run(loop, state, updates), donate_argnums=0).lower(state)
    begin = time.perf_counter()
    call = lowered.compile()
    compile_seconds = time.perf_counter() - begin
    state, _ = jax.block_until_ready(call(state))  # fills the buffer and warms up
    begin, best = time.perf_counter(), float("inf")
    while best == float("inf") or time.perf_counter() - begin < seconds:
        started = time.perf_counter()
        state, _ = jax.block_until_ready(call(state))
        best = min(best, time.perf_counter() - started)
    return NUM_ENVS * length * updates / best, compile_seconds


def short(rate):
    """A rate with two digits or three: 1.2M, 41k, 0.93k."""
    if rate >= 1e6:
        return f"{rate / 1e6:.1f}M"
    return f"{rate / 1e3:.0f}k" if rate >= 1e4 else f"{rate / 1e3:.2f}k"


def main(counts=COUNTS, envs=tuple(ENVS), agents=tuple(AGENTS), seconds=1.0):
    """Prints a table with a row for each number of agents; returns {(env, count, agent): (rate, compile seconds)}."""
    print("Steps/s of environments, of agents, seconds of compilation:\n")
    print(f"| | agents | {' | '.join(agents)} |")
    print("|---|---|" + "---|" * len(agents))
    found = {}
    for env in envs:
        for count in counts:
            cells = []
            for agent in agents:
                rate, compile_seconds = found[env, count, agent] = measure(env, count, agent, seconds)
                cells.append(f"{short(rate)}, {short(rate * count)}, {compile_seconds:.1f} s")
            print(f"| {env} | {count} | {' | '.join(cells)} |", flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--envs", nargs="+", choices=ENVS, default=tuple(ENVS))
    parser.add_argument("--agents", nargs="+", choices=AGENTS, default=tuple(AGENTS))
    parser.add_argument("--seconds", type=float, default=1.0, help="for which each is measured")
    main(**vars(parser.parse_args()))
