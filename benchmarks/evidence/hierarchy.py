"""Where a flat agent fails and a hierarchy does not: a corridor with a key and a door by its length; four rooms with a
goal that moves.

    python benchmarks/evidence/hierarchy.py [corridor] [rooms]

Each method has the same settings to choose from (`GRID`), and shows its best one by the mean over seeds of the second
half of training; the table is of other seeds.
"""

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.combinators.hierarchy import Primitive, history_space, scripted, sequencer
from jaxrl.envs.four_rooms import HALLWAYS, cell_number, distances, four_rooms, transitions
from jaxrl.envs.key_door import key_door
from jaxrl.loop import run
from jaxrl.spaces import Discrete
from jaxrl.tree import edit_fields

SEEDS = 8
GRID = [dict(learning_rate=rate, entropy_coefficient=bonus) for rate in (1e-3, 3e-3) for bonus in (0.01, 0.05)]
REPLAY_GRID = [dict(learning_rate=rate, initial_temperature=bonus) for rate in (1e-3, 3e-3) for bonus in (0.01, 0.1)]
LENGTHS = (8, 16, 32, 64)
NETWORKS = dict(widths=(32,))
REPLAY = dict(updates_per_step=8, batch_size=128, buffer_size=50_000, min_buffer_size=1000)
CORRIDOR = dict(num_envs=16, unroll_length=64, steps=150_000)
ROOMS = dict(num_envs=32, unroll_length=64, steps=400_000)


def numbers(hparams, chosen):
    """Hyperparameters of all levels with other numbers."""
    given = dict(chosen)
    if "initial_temperature" in given:
        given |= dict(policy_learning_rate=given["learning_rate"], temperature_learning_rate=0.0)
    return edit_fields(hparams, {name: lambda _, value=value: value for name, value in given.items()})


def train(agent, env, hparams, keys, *, num_envs, unroll_length, steps):
    """Metrics of training over seeds, leaves [S, U], and the states."""
    loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=unroll_length)
    updates = max(2, steps // (num_envs * unroll_length))
    hparams = jax.tree.map(jnp.float32, hparams)
    return jax.jit(jax.vmap(lambda key: run(loop, loop.init(key, hparams), updates)))(keys)


def late_return(metrics):
    """Mean return of the episodes in the second half of training [S]."""
    total, count = (np.asarray(metrics[f"episode/{x}"]) for x in ("return_sum", "count"))
    half = total.shape[1] // 2
    return total[:, half:].sum(1) / np.maximum(count[:, half:].sum(1), 1)


def tuned(agent, hparams, env, grid, num_seeds, **sizes):
    """(best setting, scores of other seeds [S])"""
    keys = jax.random.split(jax.random.key(0), 2)
    trials = [late_return(train(agent, env, numbers(hparams, x), keys, **sizes)[1]).mean() for x in grid]
    best = grid[int(np.argmax(trials))]
    keys = jax.random.split(jax.random.key(1), num_seeds)
    return best, late_return(train(agent, env, numbers(hparams, best), keys, **sizes)[1])


def corridor_methods(length):
    """name -> agent, hparams, environment, grid; a period in which half of the corridor can be walked."""
    discrete, continuous = key_door(length), key_door(length, continuous=True)
    goals = dict(goal_entries=(0,), goal_range=1.0, period=max(4, length // 2))
    return {
        "PPO": (*jaxrl.make_agent("ppo", discrete, **NETWORKS), discrete, GRID),
        "SAC": (*jaxrl.make_agent("sac", continuous, **NETWORKS, **REPLAY), continuous, REPLAY_GRID),
        "PPO over PPO": (
            *jaxrl.make_agent("hierarchical", discrete, goal_grid=3, **goals, **NETWORKS),
            discrete,
            GRID,
        ),
        "PPO over SAC": (
            *jaxrl.make_agent("hierarchical", continuous, worker="sac", goal_grid=3, **goals, **NETWORKS, **REPLAY),
            continuous,
            REPLAY_GRID,
        ),
    }


def corridor(lengths=LENGTHS, num_seeds=SEEDS, grid=slice(None), sizes=CORRIDOR):
    scores, chosen = {}, {}
    for length in lengths:
        for name, (agent, hparams, env, choices) in corridor_methods(length).items():
            chosen[name, length], scores[name, length] = tuned(agent, hparams, env, choices[grid], num_seeds, **sizes)
            print(f"  {name}, {length}: {scores[name, length].mean():.2f} with {chosen[name, length]}", flush=True)
    names = list(dict.fromkeys(name for name, _ in scores))
    table = [{"name": name} | {f"length {n}": common.scores(scores[name, n]) for n in lengths} for name in names]
    solved = {name: max([n for n in lengths if scores[name, n].mean() > 0.5], default=0) for name in names}
    flat, two = (max(solved[name] for name in names if ("over" in name) == x) for x in (False, True))
    verdict = "met" if two > flat else "partly" if two == flat else "missed"
    best = "; ".join(f"{name} opens half of the doors up to length {n}" for name, n in solved.items())
    return dict(
        claim="a manager over a worker opens doors in longer corridors than flat PPO and SAC do in as many steps",
        verdict=verdict,
        finding=best,
        settings={"score": "doors opened an episode, second half of training", **sizes, **NETWORKS},
        table=table,
        seeds=num_seeds,
    )


def moved(agent, hparams, env, keys, sizes):
    """Late returns [S] at the first goal, and after the goal has moved, from the same parameters."""
    loop = jaxrl.online(agent, env, num_envs=sizes["num_envs"], unroll_length=sizes["unroll_length"])
    updates = max(2, sizes["steps"] // (2 * sizes["num_envs"] * sizes["unroll_length"]))
    elsewhere = env.params._replace(goal=jnp.int32(cell_number(HALLWAYS[1])))
    hparams = jax.tree.map(jnp.float32, hparams)

    def once(key):
        state, first = run(loop, loop.init(key, hparams), updates)
        state = state._replace(interaction=state.interaction._replace(params=elsewhere))
        return first, run(loop, state, updates)[1]

    return jax.jit(jax.vmap(once))(keys)


def with_hallways(env):
    """PPO over the four moves and four options that are given: the shortest way to a hallway, 20 steps at most.

    Sutton, Precup and Singh 1999, section 2, whose options are two for each room.
    """
    num, there = len(transitions()), transitions()
    halls = [cell_number(cell) for cell in HALLWAYS]
    ways = jnp.asarray(np.argmin(distances()[there][..., halls], 1))  # [104, 4]: the move that leads to each hallway

    def walk(hall):
        policy = scripted(lambda key, observation: ways[jnp.argmax(observation, -1), hall])
        return Primitive(policy, lambda observation: observation[..., halls[hall]] > 0, 20)

    def move(action):
        policy = scripted(lambda key, observation: jnp.full(observation.shape[:-1], action))
        return Primitive(policy, lambda observation: jnp.zeros(observation.shape[:-1], bool), 1)

    primitives = [*map(walk, range(4)), *map(move, range(4))]
    assert env.observation_space.shape == (num,)
    seen = env._replace(observation_space=history_space(env.observation_space, 8, 1), action_space=Discrete(8))
    gate, hparams = jaxrl.make_agent("ppo", seen, **NETWORKS)
    agent = sequencer(primitives, gate._replace(hparams=hparams), history=1)
    return agent, agent.hparams


def rooms(num_seeds=SEEDS, grid=slice(None), sizes=ROOMS):
    """The goal is not seen: after half of the steps it moves from the east hallway to the west one."""
    env = four_rooms(view="cell", random_goal=False, max_steps=200)
    agents = {
        "PPO": jaxrl.make_agent("ppo", env, **NETWORKS),
        "options that are learned (option-critic)": jaxrl.make_agent("option_critic", env, **NETWORKS),
        "options that are given (to hallways)": with_hallways(env),
    }
    table, after = [], {}
    for name, (agent, hparams) in agents.items():
        keys = jax.random.split(jax.random.key(0), 2)
        trials = [moved(agent, numbers(hparams, x), env, keys, sizes)[1] for x in GRID[grid]]
        best = GRID[grid][int(np.argmax([late_return(x).mean() for x in trials]))]
        first, second = moved(agent, numbers(hparams, best), env, jax.random.split(jax.random.key(1), num_seeds), sizes)
        total, count = (np.asarray(second[f"episode/{x}"]) for x in ("return_sum", "count"))
        quarter = max(1, total.shape[1] // 4)
        after[name] = common.scores(total[:, :quarter].sum(1) / np.maximum(count[:, :quarter].sum(1), 1))
        table.append(
            {
                "name": name,
                "first goal": common.scores(late_return(first)),
                "soon after the move": after[name],
                "late after the move": common.scores(late_return(second)),
                "setting": str(best),
            }
        )
    flat, *others = after.values()
    ahead = [x["low"] > flat["high"] for x in others]
    return dict(
        claim="in the first quarter of the steps after the goal has moved, options reach it more often than flat PPO: "
        "those that are learned, and those that are given",
        verdict="met" if all(ahead) else "partly" if any(ahead) else "missed",
        finding="goals an episode: "
        + ", ".join(f"{name} {x['iqm']:.2f} [{x['low']:.2f}, {x['high']:.2f}]" for name, x in after.items()),
        settings={"score": "goals reached an episode of at most 200 steps, slip 1/3", **sizes, **NETWORKS},
        table=table,
        seeds=num_seeds,
    )


if __name__ == "__main__":
    common.main(
        "hierarchy",
        "Managers, workers and options",
        "https://doi.org/10.1016/S0004-3702(99)00052-1",
        __file__,
        {"corridor": corridor, "rooms": rooms},
    )
