"""Numbers that are not finite, planted at random into training, and what is reported of them.

    python benchmarks/reliability/nonfinite.py [--quick] [--write]

Rewards and observations (of steps and of resets) become nan, inf or -inf with a small chance; an update ends with some
numbers of the policy, or one of its metrics, not finite. Whoever plants also counts, in extras and metrics of its own,
without asking what is finite. Compared are the updates of each run up to the first with something planted (what follows
is bad for good reasons): there must be as many reported as planted, at the environment, step or update where they are,
and none before. Exit status 1 otherwise.
"""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pages import arguments, finish

import jaxrl.envs
from jaxrl.cli import health
from jaxrl.factory import make_agent

KINDS = ("reward", "observation", "parameter", "metric")
AGENTS = {"ppo": dict(num_envs=8, unroll_length=16), "dqn": dict(num_envs=4, unroll_length=2)}
UPDATES = 24
VALUES = np.array([np.nan, np.inf, -np.inf], np.float32)
SALT = 0xBAD


class Chance(NamedTuple):
    """Of planting, for each reward, observation, update's parameters, update's metric."""

    reward: jax.Array
    observation: jax.Array
    parameter: jax.Array
    metric: jax.Array


class State(NamedTuple):
    env: tuple
    planted: jax.Array  # [] bool, in the observation of the reset


def drawn(key, chance):
    """Whether to plant, and what."""
    which, value = jax.random.split(key)
    return jax.random.uniform(which) < chance, jax.random.choice(value, VALUES)


def planting_env(env, chance):
    """`env` with bad rewards and observations; `extras` say where."""

    def spoil(key, x):
        yes, value = drawn(key, chance.observation)
        return yes, jnp.where(yes, x.at[-1].set(value), x)

    def reset(key, params):
        state, observation = env.reset(key, params)
        yes, observation = spoil(jax.random.fold_in(key, SALT), observation)
        return State(state, yes), observation

    def step(key, state, action, params):
        inner, timestep = env.step(key, state.env, action, params)
        reward_key, observation_key = jax.random.split(jax.random.fold_in(key, SALT))
        yes, value = drawn(reward_key, chance.reward)
        seen, observation = spoil(observation_key, timestep.observation)
        planted = {"reward": 1.0 * yes, "observation": 1.0 * seen + state.planted}
        timestep = timestep._replace(reward=jnp.where(yes, value, timestep.reward), observation=observation)
        return State(inner, jnp.bool_(False)), timestep._replace(extras={**timestep.extras, "planted": planted})

    return env._replace(reset=reset, step=step)


def planting_agent(agent, chance):
    """`agent` whose updates spoil parameters and metrics; reports what was planted, and what the data says."""

    def observe(key, state, data):
        state, metrics = agent.observe(key, state, data)
        for name, planted in data.extras["planted"].items():
            metrics[f"planted/{name}_count"] = planted.sum()
            metrics[f"planted/{name}_first"] = jnp.argmax(planted.reshape(-1) > 0)  # 0 where there is none
        return state, metrics

    def update(key, state, data):
        state, metrics = agent.update(key, state, data)
        parameter_key, metric_key, size_key = jax.random.split(jax.random.fold_in(key, SALT), 3)
        yes, value = drawn(parameter_key, chance.parameter)
        size = jnp.where(yes, jax.random.randint(size_key, (), 1, 6), 0)
        state = spoiled(state, size, value)
        spoils, value = drawn(metric_key, chance.metric)
        name = next(name for name in metrics if name.endswith("loss"))
        metrics[name] = jnp.where(spoils, value, metrics[name])
        return state, metrics | {"planted/parameter_count": 1.0 * size, "planted/metric_count": 1.0 * spoils}

    return agent._replace(observe=observe, update=update)


def spoiled(state, size, value):
    """The state with `size` bad numbers in its largest leaf of `params`."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    sizes = [x.size if "params/" in jax.tree_util.keystr(p, simple=True, separator="/") else 0 for p, x in leaves]
    largest, values = int(np.argmax(sizes)), [x for _, x in leaves]
    flat = values[largest].reshape(-1)
    flat = jnp.where(jnp.arange(flat.size) < size, value, flat)
    values[largest] = flat.reshape(values[largest].shape)
    return jax.tree.unflatten(structure, values)


def trained(name, kind_chances, num_runs, updates):
    """metrics [kinds, runs, updates] and final states of runs side by side, one compilation for all kinds."""
    sizes, cart_pole = AGENTS[name], jaxrl.envs.make("CartPole-v1")

    def one(key, chance):
        env = planting_env(cart_pole, chance)
        keywords = dict(widths=(8,)) | ({} if name == "ppo" else dict(buffer_size=64, min_buffer_size=16))
        agent, hparams = make_agent(name, env, **keywords)
        loop = jaxrl.online(planting_agent(agent, chance), env, **sizes)
        return jaxrl.run(loop, loop.init(key, hparams), updates)

    keys = jax.random.split(jax.random.key(0), num_runs)
    return jax.device_get(jax.jit(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(keys, kind_chances))


def judge(kind, metrics, state, sizes):
    """Of one run: planted, reported, whether the line says the right thing, clean updates with a report in them."""
    planted = metrics[f"planted/{kind}_count"]
    first = int(np.argmax(planted > 0)) if planted.any() else len(planted)
    before = {name: values[:first] for name, values in metrics.items()}
    alarms = sum(int((~np.isfinite(x)).sum()) for x in before.values())
    alarms += sum(
        int(x.sum()) for name, x in before.items() if name.startswith("nonfinite/") and name.endswith("count")
    )
    if first == len(planted):
        return 0, 0, True, alarms, first
    if kind == "metric":
        reported = sum(int(~np.isfinite(x[first])) for name, x in metrics.items() if name.endswith("loss"))
    else:
        reported = int(metrics[f"nonfinite/{kind}_count"][first])
    until = {name: values[: first + 1] for name, values in metrics.items() if not name.startswith("planted/")}
    length, num_envs = sizes["unroll_length"], sizes["num_envs"]
    line = health.problem(until, 0, (length, num_envs), state) or ""
    if kind in ("reward", "observation"):
        row = int(metrics[f"planted/{kind}_first"][first])
        place = (
            f"environment step {first * length * num_envs + row:,} (environment {row % num_envs}, update {first + 1})"
        )
    else:
        place = f"update {first + 1},"
    right = line.startswith(kind) and f" at {place}" in line and f" {reported:,} in all" in line
    return int(planted[first]), reported, right, alarms, first


def report(num_runs, updates=UPDATES, agents=tuple(AGENTS)):
    """The rows of the table, and the promises that did not hold."""
    rows, broken = [], []
    for name in agents:
        sizes = AGENTS[name]
        steps = sizes["num_envs"] * sizes["unroll_length"]
        often, seldom = 1 / 4, 1 / 10  # planted in an update, on average
        chances = np.diag([often / steps, often / steps, seldom, seldom]).astype(np.float32)
        state, metrics = trained(name, Chance(*chances.T), num_runs, updates)
        for i, kind in enumerate(KINDS):
            pick = lambda tree, j: jax.tree.map(lambda x: x[i, j], tree)  # noqa: B023, E731
            agents_state = state._replace(key=(), interaction=())
            found = [judge(kind, pick(metrics, j), pick(agents_state, j), sizes) for j in range(num_runs)]
            planted, reported, right, alarms, clean = map(partial(np.sum, axis=0), zip(*found))
            with_some = sum(n > 0 for n, *_ in found)
            exact = all(n == m for n, m, *_ in found)
            rows.append(
                {
                    "agent": name,
                    "planted in": f"{kind}s",
                    "runs with some": with_some,
                    "planted": planted,
                    "reported": reported,
                    "line names the place": f"{right - (num_runs - with_some)} of {with_some}",
                    "false alarms": f"{alarms} in {clean} clean updates",
                }
            )
            if not (exact and right == num_runs and alarms == 0 and with_some):
                broken.append(f"{name}, {kind}: {rows[-1]}")
    return rows, broken


def main():
    given = arguments(__doc__)
    rows, broken = report(num_runs=16 if given.quick else 256)
    done = (
        f"PPO and DQN on CartPole, {UPDATES} updates a run; nan, inf and -inf are planted at random, counted by who "
        "plants them, and compared with what the loop counts and with the line in which `jaxrl train` would stop."
    )
    return finish("nonfinite", "Numbers that are not finite", done, rows, broken, given.write)


if __name__ == "__main__":
    sys.exit(main())
