"""Shapley values of agents (system 087): axioms, errors of sampling, and whether they find who does less in a team.

    python benchmarks/evidence/shapley.py [sampling] [handicap] [untrained]

Teams are trained by PPO with one set of parameters, and know who they are. One predator, another one in each seed, is
slow, or plays with the weights that it began with. Values are exact over all 16 coalitions; what the others of a
coalition do instead is nothing, a random action, or what the policy of another agent does.
"""

import common
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import jaxrl
from jaxrl.envs.predator_prey import STAY, predator_prey
from jaxrl.explain import all_coalitions, another, coalition_returns, no_op, shapley_exact, shapley_monte_carlo, uniform
from jaxrl.loop import run
from jaxrl.tree import replace_fields

SEEDS, EPISODES, AGENTS = 20, 512, 4
SIZES = dict(num_envs=32, unroll_length=40, steps=150_000)
SLOW = 0.1  # the probability that a slow predator's move is carried out
GRID = dict(size=6, num_predators=AGENTS, num_prey=2, penalty=0.0, max_steps=40)


def sampling(num_games=20, num_players=6, repeats=64, sizes=(8, 32, 128, 512)):
    """Exact values of random games against all axioms, and the error of estimates by their number of orders."""
    games = np.random.default_rng(0).normal(size=(num_games, 2**num_players)).astype(np.float32)
    exact = np.asarray(shapley_exact(games))
    efficiency = np.abs(exact.sum(1) - (games[:, -1] - games[:, 0])).max()
    weights = 2 ** jnp.arange(num_players)
    table, errors, covered = [], [], []
    for num in sizes:

        def estimate(key, game, num=num):
            def value(key, members):
                return game[jnp.sum(members * weights, -1)]

            return shapley_monte_carlo(key, value, num_players, num)

        keys = jax.random.split(jax.random.key(num), repeats)
        found, error = jax.jit(jax.vmap(jax.vmap(estimate, (0, None)), (None, 0)))(keys, jnp.asarray(games))
        away = np.asarray(found) - exact[:, None]
        errors.append(np.sqrt(np.mean(away**2)))
        covered.append(np.mean(np.abs(away) < 1.96 * np.asarray(error)))
        table.append(
            {"name": f"{num} orders", "error": float(errors[-1]), "within 1.96 errors, %": 100 * float(covered[-1])}
        )
    slope = float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
    fits = abs(slope + 0.5) < 0.05 and efficiency < 1e-4 and min(covered[1:]) > 0.9
    return dict(
        claim="exact values add up to v(all) - v(none) (1e-4); errors of estimates fall as M^-1/2 (slope within 0.05), "
        "and are as large as they say",
        verdict="met" if fits else "missed",
        finding=f"largest gap {efficiency:.1e}; slope {slope:.3f}; 95 % intervals of {sizes[-1]} orders hold the exact "
        f"value in {100 * covered[-1]:.1f} % of the cases",
        settings={"games": f"{num_games} random games of {num_players} players", "repeats": repeats},
        table=table,
        seeds=repeats,
    )


def trained(speeds, num_seeds, sizes):
    """Agent, environment, first and last states [S], of teams whose speeds are [S, A]."""
    env = predator_prey(**GRID)
    agent, hparams = jaxrl.make_agent("ippo", env, widths=(64, 64), identify=True)
    hparams = jax.tree.map(jnp.float32, replace_fields(hparams, learning_rate=1e-3, discount=0.97))
    num_updates = max(2, sizes["steps"] // (sizes["num_envs"] * sizes["unroll_length"]))

    def once(key, speeds):
        own = env._replace(params=env.params._replace(speeds=speeds))
        loop = jaxrl.online(agent, own, num_envs=sizes["num_envs"], unroll_length=sizes["unroll_length"])
        first = loop.init(key, hparams)
        return first.agent, run(loop, first, num_updates)[0].agent

    return agent, env, *jax.jit(jax.vmap(once))(jax.random.split(jax.random.key(0), num_seeds), speeds)


def values(agent, env, states, speeds, replace, episodes):
    """Shapley values [S, A], and those of leaving one out, in one program."""
    masks = all_coalitions(AGENTS)

    def once(key, state, speeds):
        own = env._replace(params=env.params._replace(speeds=speeds))
        returns = coalition_returns(key, agent, state, own, masks, replace, num_episodes=episodes, greedy=False)
        everyone = 2**AGENTS - 1
        without = jnp.array([returns[everyone ^ 1 << i] for i in range(AGENTS)])
        return shapley_exact(returns), returns[everyone] - without

    keys = jax.random.split(jax.random.key(1), len(speeds))
    return tuple(np.asarray(x) for x in jax.jit(jax.vmap(once))(keys, states, speeds))


def replacements(env):
    return {
        "does nothing": no_op(jnp.int32(STAY)),
        "acts at random": uniform(env.action_space),
        "acts as another one": another(),
    }


def rank(x, y):
    """Mean over seeds of Spearman's correlation over agents."""
    return float(np.mean([scipy.stats.spearmanr(a, b).statistic for a, b in zip(x, y)]))


def found_out(found, who):
    """Percentage of seeds in which agent `who` [S] has the least value."""
    return 100 * float(np.mean(np.argmin(found, 1) == who))


def summary(claim, found, who, least, settings, num_seeds):
    """found: replacement -> (Shapley values, those of leaving one out), each [S, A]."""
    table = []
    for name, (shapley, alone) in found.items():
        others = np.arange(AGENTS) != who[:, None]
        table.append(
            {
                "name": f"who is not in {name}",
                f"least value: {least}, %": found_out(shapley, who),
                "by leaving one out, %": found_out(alone, who),
                "value": common.scores(shapley[np.arange(num_seeds), who]),
                "of the others": common.scores(shapley[others].reshape(num_seeds, -1).mean(1)),
            }
        )
    names = list(found)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    ranks = {f"{a} / {b}": rank(found[a][0], found[b][0]) for a, b in pairs}
    shares = [found_out(shapley, who) for shapley, _ in found.values()]
    good = [min(shares) >= 95, min(ranks.values(), default=1.0) > 0.8]
    return dict(
        claim=claim,
        verdict="met" if all(good) else "partly" if any(good) or max(shares) >= 95 else "missed",
        finding=", ".join(f"{name}: {share:.0f} % of the seeds" for name, share in zip(names, shares))
        + "; rank correlations "
        + ", ".join(f"{name} {x:.2f}" for name, x in ranks.items()),
        settings=settings,
        table=table,
        seeds=num_seeds,
    )


def handicap(num_seeds=SEEDS, sizes=SIZES, episodes=EPISODES):
    who = np.arange(num_seeds) % AGENTS
    speeds = jnp.asarray(np.where(np.arange(AGENTS) == who[:, None], SLOW, 1.0), jnp.float32)
    agent, env, _, states = trained(speeds, num_seeds, sizes)
    found = {name: values(agent, env, states, speeds, x, episodes) for name, x in replacements(env).items()}
    return summary(
        "the slow predator has the least value in at least 95 % of the seeds; ranks of agents by the three ways to "
        "replace who is not in a coalition correlate by more than 0.8",
        found,
        who,
        "the slow one",
        {"task": str(GRID), "speed": SLOW, "episodes": episodes, **sizes},
        num_seeds,
    )


def untrained(num_seeds=SEEDS, sizes=SIZES, episodes=EPISODES):
    """All are as fast; one plays with the weights that it began with, a team of two kinds."""
    who = np.arange(num_seeds) % AGENTS
    speeds = jnp.ones((num_seeds, AGENTS))
    agent, env, first, last = trained(speeds, num_seeds, sizes)
    mixed = mixture(agent)
    found = {
        name: values(mixed, env, (first, last, jnp.asarray(who)), speeds, x, episodes)
        for name, x in replacements(env).items()
    }
    return summary(
        "who plays with its first weights has the least value in at least 95 % of the seeds; ranks of agents by the "
        "three ways to replace who is not in a coalition correlate by more than 0.8",
        found,
        who,
        "the untrained one",
        {"task": str(GRID), "episodes": episodes, **sizes},
        num_seeds,
    )


def mixture(agent):
    """An agent whose state is (first, last, who): agent `who` acts by `first`, the others by `last`."""

    def forward(act):
        def acting(key, state, memory, observation):
            first, last, one = state
            keys = jax.random.split(key)
            _, old, _ = act(keys[0], first, memory, observation)
            memory, new, _ = act(keys[1], last, memory, observation)
            return memory, jnp.where(jnp.arange(AGENTS) == one, old, new), {}

        return acting

    return agent._replace(
        init_memory=lambda key, state, observation: agent.init_memory(key, state[1], observation),
        act=forward(agent.act),
        act_greedy=forward(agent.act_greedy),
        actor=lambda state: state,
    )


if __name__ == "__main__":
    common.main(
        "087",
        "Collective explanations: Shapley values of agents",
        "https://arxiv.org/abs/2110.01307",
        __file__,
        {"sampling": sampling, "handicap": handicap, "untrained": untrained},
    )
