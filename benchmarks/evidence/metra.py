"""METRA (system 094) beside DIAYN in a point maze: how much of it skills reach, goals without training, a task.

    python benchmarks/evidence/metra.py [coverage] [goals] [downstream] [distractors]

Nobody tells the learners of a reward or a goal: they see position and velocity, and start in one corner. Each method
has two learning rates; what follows coverage takes the better one.
"""

import functools
from typing import NamedTuple

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.combinators.frozen import decoder
from jaxrl.combinators.replay import learner_state
from jaxrl.combinators.skills import choose_skills, join, joined_space, with_skills
from jaxrl.envs.latent_action import LatentActionParams, latent_action
from jaxrl.envs.point_maze import RADIUS, free_cells, point_maze
from jaxrl.envs.transforms import repeat_action
from jaxrl.interaction import start
from jaxrl.loop import run
from jaxrl.networks import dense, mlp, sequential
from jaxrl.rewards import SkillModel, Skills, diayn, metra, one_hot, sphere
from jaxrl.spaces import Box, Discrete, Space
from jaxrl.tree import field_names, replace_fields
from jaxrl.types import Agent, Env, Network

SIZE, LENGTH = "medium", 100  # of the maze; steps of an episode
SEEDS, EPISODES = 8, 48
KEEP, DISCOUNT = 10, 0.99
NOISE = 20
MOVING = 1.0  # speed in cells per unit of time; the greatest is 2
RATES = (3e-4, 1e-3)
RATES_OF_TASK = (1e-3, 3e-3)
WIDTHS = (64, 64)
TRAINING = dict(num_envs=16, unroll_length=8, num_updates=800, updates_per_step=4, batch_size=128)
TASK = dict(num_envs=16, unroll_length=32, num_steps=163_840)
CELLS = free_cells(SIZE)


class Method(NamedTuple):
    """A way of learning skills, and what a manager that chooses among them may do."""

    model: SkillModel
    space: Space
    skill: Skills
    distractors: int = 0  # entries of the observation that are noise

    def decoded(self, action):
        """The skill of a manager's action."""
        if isinstance(self.space, Discrete):
            return jax.nn.one_hot(action, self.space.n)
        return self.skill.toward(action)


def method(make, skills: Skills) -> Method:
    size = skills.space.shape[0]
    finite = skills.space.low == 0.0
    return Method(make(size, skills), Discrete(size) if finite else Box(-1.0, 1.0, (size,)), skills)


def phi(size: int) -> Network:
    return sequential(mlp(WIDTHS, activation="relu"), dense(size))


def make_metra(size: int, skills: Skills) -> SkillModel:
    return metra(phi(size), skills)


def make_diayn(size: int, skills: Skills) -> SkillModel:
    return diayn(sequential(mlp(WIDTHS, activation="relu"), dense(size, scale=0.01)), size)


METHODS = {
    "METRA, directions": method(make_metra, sphere(2)),
    "METRA, 8 skills": method(make_metra, one_hot(8)),
    "DIAYN, 8 skills": method(make_diayn, one_hot(8)),
}
DISTRACTED = {f"{name}, {NOISE} distractors": x._replace(distractors=NOISE) for name, x in METHODS.items()}
ALL = METHODS | DISTRACTED


def maze(reward: str = "dense", distractors: int = 0) -> Env:
    """Episodes from one corner, whose observations [4] have no goal in them. With reward "dense", all are of LENGTH.

    Distractors are further entries of the observation, drawn anew from [-1, 1] at every step.
    """
    env = point_maze(SIZE, reward=reward, random_start=False, max_steps=LENGTH)
    space = env.observation_space

    def seen(key, observation):
        noise = jax.random.uniform(jax.random.fold_in(key, NOISE), (distractors,), minval=-1.0)
        return jnp.concatenate([observation[:4], noise])

    def reset(key, params):
        state, observation = env.reset(key, params)
        return state, seen(key, observation)

    def step(key, state, action, params):
        state, timestep = env.step(key, state, action, params)
        return state, timestep._replace(observation=seen(key, timestep.observation))

    low, high = ((*bound[:4], *[side] * distractors) for bound, side in ((space.low, -1.0), (space.high, 1.0)))
    return env._replace(reset=reset, step=step, observation_space=Box(low, high, (4 + distractors,)))


def learner(name: str) -> Agent:
    """SAC that is told its skill."""
    env, model = maze(distractors=ALL[name].distractors), ALL[name].model
    space = joined_space(env.observation_space, model.skills.space)
    return jaxrl.make_agent("sac", env._replace(observation_space=space), offline=True, widths=WIDTHS)[0]


@functools.cache
def train(name: str, seeds: int = SEEDS, rates: tuple[float, ...] = RATES, **sizes: int):
    """States of `with_skills` and metrics at the end, leaves [M, S] for M learning rates and S seeds."""
    env, sizes = maze(distractors=ALL[name].distractors), TRAINING | sizes
    explored = jaxrl.with_exploration(
        with_skills(learner(name), ALL[name].model), jaxrl.exploration.warm_up(env.action_space)
    )
    buffer = jaxrl.buffers.replay(200_000, sizes["batch_size"], min_size=1000)
    agent = jaxrl.with_replay(explored, buffer, sizes["updates_per_step"])
    numbers = dict(target_rate=0.02, warm_up_steps=2000.0, initial_temperature=0.01, multiplier_learning_rate=1e-2)
    numbers = {k: v for k, v in numbers.items() if k in field_names(agent.hparams)}

    def rated(hp, rate):
        rates = dict.fromkeys(("learning_rate", "policy_learning_rate", "skill_learning_rate"), rate)
        return replace_fields(hp, **rates, **numbers)

    loop = jaxrl.online(agent, env, num_envs=sizes["num_envs"], unroll_length=sizes["unroll_length"])

    def one(key, hp):
        state, metrics = run(loop, loop.init(key, hp), sizes["num_updates"])
        return learner_state(agent.actor(state.agent)), jax.tree.map(lambda x: x[-50:].mean(), metrics)

    both = jax.vmap(jax.vmap(one, (0, None)), (None, 0))
    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.jit(both)(keys, common.sweep(agent.hparams, rated, list(rates)))


def walk(key, agent: Agent, state, num: int, distractors: int = 0):
    """The steps [LENGTH, num] of greedy episodes."""
    env = maze(distractors=distractors)
    now = start(key, agent, state, env, env.params, num)
    playing = agent._replace(act=agent.act_greedy)
    return jaxrl.rollout(key, playing, state, env, now, LENGTH)[1]


def visited(places) -> int:
    """How many cells [..., 2] positions are in."""
    return len(np.unique(np.floor(np.asarray(places)).astype(int).reshape(-1, 2), axis=0))


@functools.cache
def skilled(name: str):
    """What the skills of `train(name)` do in EPISODES greedy episodes each with skills of the prior.

    Returns:
      cells [M, S] that they go to; for METRA mean squared steps of phi [M, S] where the point is moving, else None: a
      point that stands at a wall has steps of length 0, which says nothing of the constraint.
    """
    model = ALL[name].model
    agent, network = with_skills(learner(name), model), phi(model.skills.space.shape[0])

    def measure(state):
        data = walk(jax.random.key(1), agent, state, EPISODES, ALL[name].distractors)
        squared = jnp.zeros_like(data.reward)
        if "METRA" in name:
            here, there = (
                network.apply(state.model.params["phi"], (), x)[1] for x in (data.observation, data.next_observation)
            )
            squared = jnp.sum(jnp.square(there - here), -1)
        fast = jnp.linalg.norm(data.observation[..., 2:4], axis=-1) > MOVING
        return data.next_observation[..., :2], jnp.sum(squared * fast) / jnp.maximum(jnp.sum(fast), 1)

    places, squared = jax.jit(jax.vmap(jax.vmap(measure)))(train(name)[0])
    cells = np.array([[visited(x) for x in row] for row in np.asarray(places)])
    return cells, np.asarray(squared) if "METRA" in name else None


def best(name: str):
    """States [S] at the learning rate whose skills go to most cells."""
    states, _ = train(name)
    chosen = int(np.argmax(skilled(name)[0].mean(1)))
    return jax.tree.map(lambda x: x[chosen], states)


def cells_table(names):
    """Rows for both learning rates, and the better row's cells of each method."""
    table, top = [], {}
    for name in names:
        metrics = train(name)[1]
        cells, squared = skilled(name)
        for i, rate in enumerate(RATES):
            row = {"name": f"{name}, rate {rate:g}", "cells": common.scores(cells[i])}
            if "skill/squared_step" in metrics:
                row["squared step of phi, all data"] = common.scores(metrics["skill/squared_step"][i])
                row["of a moving point"] = common.scores(squared[i])
            table.append(row)
            top[name] = max(top.get(name, row["cells"]), row["cells"], key=lambda x: x["iqm"])
    return table, top


def coverage():
    table, top = cells_table(METHODS)
    ours, theirs = top["METRA, directions"], top["DIAYN, 8 skills"]
    return dict(
        claim="skills of METRA (directions) go to more cells of the maze than those of DIAYN",
        verdict=judge(ours, theirs),
        finding=f"of {len(CELLS)} cells: " + ", ".join(f"{name} {x['iqm']:.1f}" for name, x in top.items()),
        settings=settings(),
        table=table,
        seeds=SEEDS,
    )


def distractors():
    table, top = cells_table(ALL)
    names = list(DISTRACTED)
    kept = {name: top[f"{name}, {NOISE} distractors"]["iqm"] / top[name]["iqm"] for name in METHODS}
    return dict(
        claim=f"with {NOISE} entries of noise in the observation skills of METRA (directions) go to more cells than "
        "those of DIAYN",
        verdict=judge(top[names[0]], top[names[2]]),
        finding="of the cells that they go to without noise: "
        + ", ".join(f"{name} {100 * x:.0f} %" for name, x in kept.items()),
        settings=settings(),
        table=table,
        seeds=SEEDS,
    )


def judge(ours, theirs):
    """Of two columns of scores: whether intervals are apart, or means alone."""
    return "met" if ours["low"] > theirs["high"] else "partly" if ours["iqm"] > theirs["iqm"] else "missed"


def goals():
    table, errors = [], {}
    where = jnp.repeat(jnp.asarray(CELLS, jnp.float32) + 0.5, 2, axis=0)  # [G, 2]
    goal = jnp.concatenate([where, jnp.zeros_like(where)], -1)  # at rest there
    for name, (model, *_) in METHODS.items():
        inner, states = learner(name), best(name)
        toward = choose_skills(inner, lambda state, observation, model=model: model.toward(state, observation, goal))
        for way, agent in (("toward the goal", toward), ("at random", with_skills(inner, model))):
            play = jax.jit(jax.vmap(lambda s, agent=agent: walk(jax.random.key(2), agent, s, len(where))))
            places = np.asarray(play(states).next_observation)[..., :2]
            distance = np.linalg.norm(places - np.asarray(where), axis=-1)  # [S, LENGTH, G]
            row = {
                "name": f"{name}, {way}",
                "goals reached, %": common.scores(100 * (distance.min(1) < RADIUS).mean(-1)),
                "distance at the end": common.scores(distance[:, -1].mean(-1)),
            }
            table.append(row)
            errors[name, way] = row["distance at the end"]["iqm"]
    gain = {name: 1 - errors[name, "toward the goal"] / errors[name, "at random"] for name in METHODS}
    return dict(
        claim="skills chosen by phi leave the goal at least 70 % less far away than skills at random",
        verdict="met" if max(gain.values()) >= 0.7 else "missed",
        finding="less far by: " + ", ".join(f"{name} {100 * x:.0f} %" for name, x in gain.items()),
        settings=settings() | {"goals": "the center of every free cell, twice"},
        table=table,
        seeds=SEEDS,
    )


def task_env(name: str | None, keep: int) -> Env:
    """A reward at the far corner; actions are thrust or a skill, each for `keep` steps."""
    env = maze("sparse")
    if name is not None:
        act, chosen = decoder(learner(name), join), METHODS[name]
        decode = lambda key, state, observation, z: act(key, state, observation, chosen.decoded(z))  # noqa: E731
        env = latent_action(env, decode, (), chosen.space)
    return repeat_action(env, keep, discount=DISCOUNT) if keep > 1 else env


def learn_task(name: str | None, keep: int, states, num_seeds: int, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """[M, S], twice: mean return of the episodes in all of PPO's training, and in its last tenth."""
    env = task_env(name, keep)
    agent, hparams = jaxrl.make_agent("ppo", env, widths=WIDTHS)
    num_updates = num_steps // (TASK["num_envs"] * TASK["unroll_length"] * keep)

    def one(key, state, hp):
        params = env.params if name is None else LatentActionParams(env.params.env, state)
        sizes = {k: TASK[k] for k in ("num_envs", "unroll_length")}
        loop = jaxrl.online(agent, env._replace(params=params), **sizes)
        _, metrics = run(loop, loop.init(key, hp), num_updates)
        total, count = (metrics[f"episode/{x}"] for x in ("return_sum", "count"))
        last = slice(-max(num_updates // 10, 1), None)
        return tuple(total[part].sum() / jnp.maximum(count[part].sum(), 1.0) for part in (slice(None), last))

    rated = [replace_fields(hparams, learning_rate=rate, discount=DISCOUNT) for rate in RATES_OF_TASK]
    hps = jax.tree.map(lambda *x: jnp.stack([jnp.float32(v) for v in x]), *rated)
    both = jax.vmap(jax.vmap(one, (0, 0 if name else None, None)), (None, None, 0))
    return jax.tree.map(np.asarray, jax.jit(both)(jax.random.split(jax.random.key(3), num_seeds), states, hps))


def downstream():
    rows = {"PPO on thrust": (None, 1), f"PPO on thrust, each for {KEEP} steps": (None, KEEP)}
    rows |= {f"PPO on skills of {name}": (name, KEEP) for name in METHODS}
    table = []
    for label, (name, keep) in rows.items():
        throughout, late = learn_task(name, keep, best(name).agent if name else (), SEEDS, TASK["num_steps"])
        chosen = int(np.argmax(throughout.mean(1)))
        columns = {"return, all of training": throughout[chosen], "last tenth": late[chosen]}
        table.append(
            {"name": label, **{k: common.scores(x) for k, x in columns.items()}, "rate": RATES_OF_TASK[chosen]}
        )
    score = {row["name"]: row["return, all of training"] for row in table}
    flat, skilled = list(score.values())[:2], [x for name, x in score.items() if "METRA" in name]
    ahead = [all(x["low"] > y["high"] for x in skilled) for y in flat]  # of each way of thrust
    return dict(
        claim="with METRA's skills for actions PPO reaches a far goal sooner than with thrust, kept for a step or for "
        "as long as a skill: in all of training its episodes return more",
        verdict="met" if all(ahead) else "partly" if any(ahead) else "missed",
        finding="return in all of training: " + ", ".join(f"{name} {x['iqm']:.2f}" for name, x in score.items()),
        settings=settings()
        | TASK
        | {"return": "1 at the goal, discounted within an action; steps of skills not counted"},
        table=table,
        seeds=SEEDS,
    )


def settings():
    return TRAINING | {"maze": SIZE, "episode": f"{LENGTH} steps", "widths": WIDTHS, "episodes": EPISODES}


if __name__ == "__main__":
    common.main(
        "094",
        "METRA: Scalable Unsupervised RL with Metric-Aware Abstraction",
        "https://arxiv.org/abs/2310.08887",
        __file__,
        {"coverage": coverage, "goals": goals, "downstream": downstream, "distractors": distractors},
    )
