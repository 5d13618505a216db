"""What the scripts of evidence share: data from scripted controllers, learners over seeds, results as JSON.

The schema of the results is in the README beside this file.
"""

import json
import os
import pathlib
import platform
import sys
import time
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.data import collect, collect_random, normalized_score
from jaxrl.envs.point_maze import MAZES, point_maze, waypoint_controller
from jaxrl.loop import offline, run
from jaxrl.statistics import bootstrap_interval, iqm
from jaxrl.tree import edit_fields
from jaxrl.types import Agent, Env, PyTree, Transition, no_memory

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "evidence"


def scores(values: Any) -> dict[str, Any]:
    """A column of a table from the scores of seeds [S]."""
    values = np.asarray(values, np.float64).ravel()
    if not np.isfinite(values).all():
        return {
            "iqm": None,
            "low": None,
            "high": None,
            "scores": [float(x) if np.isfinite(x) else None for x in values],
        }
    low, high = bootstrap_interval(values)
    return {
        "iqm": round(iqm(values), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "scores": [round(float(x), 4) for x in values],
    }


def main(system: str, title: str, paper: str, script: str, experiments: dict[str, Callable[[], dict]]) -> None:
    """Runs the experiments named on the command line, or all, and updates the file of results.

    Args:
      script: `__file__` of the caller; the results' name is its stem.
      experiments: name -> function that returns the fields of an experiment but for name, seconds and machine.
    """
    path = DOCS / f"{pathlib.Path(script).stem}.json"
    for name in sys.argv[1:] or experiments:
        started = time.time()
        result = experiments[name]()
        result = {"name": name, **result, "seconds": round(time.time() - started, 1), "machine": machine()}
        report(result)
        # Read as late as this: other experiments may have ended meanwhile, in a process beside this one.
        kept = {x["name"]: x for x in json.loads(path.read_text())["experiments"]} if path.exists() else {}
        kept[name] = result
        DOCS.mkdir(parents=True, exist_ok=True)
        everything = {
            "system": system,
            "title": title,
            "paper": paper,
            "script": f"benchmarks/evidence/{pathlib.Path(script).name}",
            "experiments": [kept[n] for n in experiments if n in kept],
        }
        path.write_text(json.dumps(everything, indent=1) + "\n")


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, {jax.default_backend()}, jax {jax.__version__}"


def report(result: dict) -> None:
    """Prints an experiment as text."""
    print(f"{result['name']}: {result['claim']}")
    for row in result["table"]:
        cells = [
            f"{k} {v['iqm']} [{v['low']}, {v['high']}]" if isinstance(v, dict) else f"{k} {v}" for k, v in row.items()
        ]
        print("  " + "; ".join(cells))
    print(f"  {result['verdict']}: {result['finding']} ({result['seconds']} s)", flush=True)


def scripted(policy: Callable) -> Agent:
    """An agent that plays policy(key, observation) -> action."""

    def act(key, state, memory, observation):
        return memory, policy(key, observation), {}

    return Agent(lambda key, hparams, example: (), no_memory, act, act, lambda key, state, data: (state, {}))


def wanderer(size: str, *, redraw: float = 0.03, noise: float = 0.3) -> Agent:
    """Walks mazes from one random cell to the next, whatever the task's goal is; it never shows a whole way on purpose.

    Args:
      redraw: probability of a new destination at every step.
      noise: deviation of the actions.
    """
    cells = jnp.array([(r + 0.5, c + 0.5) for r, row in enumerate(MAZES[size]) for c, x in enumerate(row) if x != "#"])
    controller = waypoint_controller(size)

    def init_memory(key, state, observation):
        return jax.random.choice(key, cells, (observation.shape[0],))

    def act(key, state, memory, observation):
        redraw_key, goal_key, noise_key = jax.random.split(key, 3)
        new = jax.random.bernoulli(redraw_key, redraw, memory.shape[:1])
        memory = jnp.where(new[:, None], jax.random.choice(goal_key, cells, memory.shape[:1]), memory)
        action = controller(observation, memory) + noise * jax.random.normal(noise_key, memory.shape)
        return memory, jnp.clip(action, -1.0, 1.0), {}

    return Agent(lambda key, hparams, example: (), init_memory, act, act, lambda key, state, data: (state, {}))


def maze_expert(size: str) -> Agent:
    """The controller that walks to the goal that the observation shows."""
    controller = waypoint_controller(size)
    return scripted(lambda key, observation: controller(observation, observation[..., 4:]))


def pendulum_expert() -> Agent:
    """Pumps energy until the pendulum is near the top, then balances it: a mean return of about -145."""

    def policy(key, observation):
        cosine, sine, velocity = observation[..., 0], observation[..., 1], observation[..., 2]
        energy = velocity**2 / 6 + 5 * (cosine - 1)
        swing = jnp.where(velocity >= 0, 2.0, -2.0) * jnp.clip(-energy, -1.0, 1.0)
        hold = -(12 * jnp.arctan2(sine, cosine) + 3 * velocity)
        return jnp.clip(jnp.where(cosine > 0.85, hold, swing), -2.0, 2.0)[..., None]

    return scripted(policy)


def on_device(*datasets: Any) -> Transition:
    """The rows of several datasets after each other."""
    return jax.tree.map(lambda *x: jnp.concatenate([jnp.asarray(a) for a in x]), *(d.transitions for d in datasets))


def mean_return(env: Env, agent: Agent, num_episodes: int = 512) -> float:
    """Of a scripted agent."""
    play = jax.jit(lambda: jaxrl.evaluate(jax.random.key(99), agent, (), env, num_episodes=num_episodes).returns)
    return float(play().mean())


class Task(NamedTuple):
    """Data of an environment, and how learners of it are scored."""

    env: Env
    data: Transition  # [D]
    score: Callable[[Any], np.ndarray]  # returns -> score
    bounds: tuple[float, float]  # least and largest possible value
    max_steps: int  # of an episode
    hparams: dict[str, float]  # for every learner
    inverse_temperature: float  # of advantage-weighted policies: in units of the task's values
    settings: dict[str, str]  # for the results


def maze_task() -> Task:
    """Wandering in the U-shaped maze: no episode shows the whole way on purpose, parts must be joined."""
    env = point_maze("umaze")
    data = on_device(collect(jax.random.key(0), wanderer("umaze"), (), env, 20_000, num_envs=20))
    settings = {
        "data": "umaze with sparse reward, 20000 steps of wandering between random cells",
        "score": "percentage of greedy episodes that reach the goal in 100 steps; true values are in [0, 1]",
    }
    hparams = dict(learning_rate=1e-3, target_rate=0.02, discount=0.98)
    return Task(env, data, lambda r: 100 * np.asarray(r), (0.0, 1.0), 101, hparams, 20.0, settings)


def pendulum_task() -> Task:
    """A fifth of a noisy expert, the rest random actions."""
    env, expert = jaxrl.envs.make("Pendulum-v1"), pendulum_expert()
    parts = [
        collect(jax.random.key(1), expert, (), env, 4_000, num_envs=20, noise=0.7),
        collect_random(jax.random.key(2), env, 16_000, num_envs=20),
    ]
    data = on_device(*parts)
    data = data._replace(reward=0.1 * data.reward)
    uniform = scripted(lambda key, o: jax.vmap(env.action_space.sample)(jax.random.split(key, o.shape[0])))
    low, high = mean_return(env, uniform), mean_return(env, expert)
    settings = {
        "data": "Pendulum-v1, 4000 steps of the scripted expert with noise 0.7, 16000 of random actions; rewards * 0.1",
        "score": f"0 is random ({low:.0f}), 100 the scripted expert ({high:.0f}); true values are in [-33, 0]",
    }
    hparams = dict(learning_rate=1e-3, target_rate=0.02, discount=0.95)
    return Task(env, data, lambda r: normalized_score(r, low, high), (-33.0, 0.0), 200, hparams, 3.0, settings)


def sweep(hparams: PyTree, replace: Callable[[PyTree, Any], PyTree], values: list) -> PyTree:
    """Hyperparameters [M], one of `values` each: `replace(hparams, value)`."""
    return jax.tree.map(lambda *x: jnp.stack([jnp.float32(v) for v in x]), *(replace(hparams, v) for v in values))


def with_settings(hparams: PyTree, settings: list[dict[str, float]]) -> PyTree:
    """Hyperparameters [M] at all levels, with the numbers of each of M settings."""
    given = [edit_fields(hparams, {k: lambda _, v=v: v for k, v in x.items()}) for x in settings]
    return jax.tree.map(lambda *x: jnp.stack([jnp.float32(v) for v in x]), *given)


def train(
    agent: Agent,
    hparams: PyTree,
    data: Transition,
    env: Env,
    *,
    num_updates: int,
    num_seeds: int,
    batch_size: int = 128,
    num_episodes: int = 32,
    max_steps: int = 1000,
    probe: Callable[[PyTree], dict] = lambda state: {},
):
    """Offline training of M settings and S seeds as one program.

    Args:
      hparams: leaves [M] (see `sweep`).
      probe: state -> dict of numbers, measured at the end.

    Returns:
      returns [M, S]: means over greedy episodes; metrics {name: [M, S]}: means over the last tenth of the updates, the
      share of updates where one is negative under "name/negative", and the probe's.
    """

    def one(key, hp, data):
        init_key, eval_key = jax.random.split(key)
        loop = offline(agent, data, batch_size=batch_size)
        state, metrics = run(loop, loop.init(init_key, hp), num_updates)
        result = jaxrl.evaluate(eval_key, agent, state.agent, env, None, max_steps, num_episodes=num_episodes)
        summary = {k: v[-num_updates // 10 :].mean() for k, v in metrics.items()}
        summary |= {f"{k}/negative": jnp.mean(v < 0) for k, v in metrics.items()}
        return result.returns.mean(), summary | probe(state.agent)

    both = jax.vmap(jax.vmap(one, (0, None, None)), (None, 0, None))
    returns, metrics = jax.jit(both)(jax.random.split(jax.random.key(0), num_seeds), hparams, data)
    return np.asarray(returns), jax.tree.map(np.asarray, metrics)
