"""Dual RL (system 049): implicit maximizers of offline learning, and ReCOIL. The exact part, dual against primal on
random MDPs, is a test: tests/test_divergences.py.

    python benchmarks/evidence/dual_rl.py [maximizers_maze] [maximizers_pendulum] [recoil_disjoint] [recoil_covered]
"""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl.combinators.demonstrations import with_demonstrations
from jaxrl.data import collect, episode_bounds, take_rows
from jaxrl.envs.point_maze import point_maze
from jaxrl.factory.offline_learners import build_bc, build_fdvl, build_iql, build_odice, build_recoil, build_xql
from jaxrl.networks import critic as value_head
from jaxrl.networks import mlp

KEY = jax.random.key(0)
SEEDS = 8
WIDTHS = (32, 32)
UPDATES = 3000
CLAIM = "f-DVL reaches IQL's score less 5 % and never diverges; XQL diverges in at least one setting"
BUILDERS = {
    "iql": build_iql,
    "xql": build_xql,
    "chi2": build_fdvl,
    "tv": functools.partial(build_fdvl, divergence="total_variation"),
}


def grid(temperatures, taus=(0.7, 0.9, 0.95), lambdas=(0.6, 0.75, 0.9)):
    build = {name: functools.partial(f, widths=WIDTHS) for name, f in BUILDERS.items()}
    return {
        "IQL": (build["iql"], "expectile", taus, {}),
        "XQL": (build["xql"], "value_temperature", temperatures, {"value_clip": 7.0}),
        "XQL unclipped": (build["xql"], "value_temperature", temperatures, {"value_clip": jnp.inf}),
        "f-DVL chi2": (build["chi2"], "value_lambda", lambdas, {}),
        "f-DVL TV": (build["tv"], "value_lambda", lambdas, {}),
    }


def compare(task, temperatures):
    """Every value loss at every setting of its own.

    A run has diverged when its mean V is not finite, or leaves the possible values by more than their distance.
    """
    rows, best, diverged = [], {}, {}
    low, high = task.bounds
    for family, (build, field, settings, fixed) in grid(temperatures).items():
        agent = build(task.env)

        def replace(hp, value, field=field, fixed=fixed):
            return hp._replace(value=hp.value._replace(**{field: value}, **fixed))

        base = agent.hparams._replace(**task.hparams, inverse_temperature=task.inverse_temperature)
        hparams = common.sweep(base, replace, settings)
        options = dict(num_updates=UPDATES, num_seeds=SEEDS, max_steps=task.max_steps)
        returns, metrics = common.train(agent, hparams, task.data, task.env, **options)
        for i, setting in enumerate(settings):
            value = metrics["value"][i]
            inside = (value > 2 * low - high) & (value < 2 * high - low)  # False where V is NaN
            row = {
                "name": f"{family}, {field.removeprefix('value_')} {setting:g}",
                "score": common.scores(task.score(returns[i])),
                "mean V": round(float(np.nanmean(value)), 3),
                "diverged": int((~inside).sum()),
            }
            rows.append(row)
            diverged[family] = diverged.get(family, 0) + row["diverged"]
            if row["score"]["iqm"] is not None:
                best[family] = max(best.get(family, -np.inf), row["score"]["iqm"])
    verdict, finding = judge(best, diverged)
    shared = task.hparams | {"inverse_temperature": task.inverse_temperature, "widths": WIDTHS, "updates": UPDATES}
    settings = task.settings | shared | {"diverged": compare.__doc__.split("\n\n")[1].strip()}
    return dict(claim=CLAIM, verdict=verdict, finding=finding, settings=settings, table=rows, seeds=SEEDS)


def judge(best, diverged):
    """Verdict and finding of the claim about value losses."""
    dvl = max(best[k] for k in best if k.startswith("f-DVL"))
    good = dvl >= 0.95 * best["IQL"]
    xql = sum(n for k, n in diverged.items() if k.startswith("XQL"))
    calm = sum(n for k, n in diverged.items() if k.startswith("f-DVL"))
    verdict = {3: "met", 0: "missed"}.get(good + (xql > 0) + (calm == 0), "partly")
    numbers = ", ".join(f"{family} {value:.1f}" for family, value in best.items())
    return verdict, (
        f"best scores: {numbers}. Runs that diverged: XQL {xql}, f-DVL {calm}, IQL {diverged['IQL']}. "
        f"f-DVL is {'within' if good else 'not within'} 5 % of IQL."
    )


def maximizers_maze():
    return compare(common.maze_task(), temperatures=(0.005, 0.02, 0.1))


def maximizers_pendulum():
    return compare(common.pendulum_task(), temperatures=(0.1, 0.5, 2.0))


def one_expert_episode(env):
    """The longest of 64 episodes of the controller: the whole way from the far end."""
    found = collect(jax.random.key(3), common.maze_expert("umaze"), (), env, 4_000, num_envs=8)
    starts, stops = episode_bounds(found)
    ended = np.asarray(found.transitions.terminated)[stops - 1]
    longest = np.argmax(np.where(ended, stops - starts, 0))
    return take_rows(found, slice(starts[longest], stops[longest]))


def discriminate(expert, other, num_updates=2000, decay=1e-3):
    """log d_E / d_O of state-action pairs, by logistic regression of a small network; clipped to [-5, 5]."""
    network = value_head(mlp(WIDTHS, activation="relu"))
    joined = lambda data: jnp.concatenate([data.observation, data.action], -1)  # noqa: E731
    positive, negative = joined(expert), joined(other)
    optimizer = optax.adamw(1e-3, weight_decay=decay)

    def loss(params, key):
        rows = [
            x[jax.random.randint(k, (128,), 0, len(x))] for k, x in zip(jax.random.split(key), (positive, negative))
        ]
        logits = [network.apply(params, (), x)[1] for x in rows]
        return jnp.mean(jax.nn.softplus(-logits[0])) + jnp.mean(jax.nn.softplus(logits[1]))

    def update(carry, key):
        params, opt_state = carry
        step, opt_state = optimizer.update(jax.grad(loss)(params, key), opt_state, params)
        return (optax.apply_updates(params, step), opt_state), None

    def fit(key):
        params = network.init(key, positive[:1])
        (params, _), _ = jax.lax.scan(update, (params, optimizer.init(params)), jax.random.split(key, num_updates))
        return params

    params = jax.jit(fit)(KEY)
    return lambda data: jnp.clip(network.apply(params, (), joined(data))[1], -5.0, 5.0)


def imitate(disjoint):
    """One expert episode beside data of wandering, with or without its rows in the goal's arm of the maze."""
    env = point_maze("umaze")
    expert = common.on_device(one_expert_episode(env))
    other = collect(KEY, common.wanderer("umaze"), (), env, 20_000, num_envs=20)
    if disjoint:
        row, column = np.floor(np.asarray(other.transitions.observation[:, :2])).T
        other = take_rows(other, np.flatnonzero(~((row == 1) & (column <= 2))))
    other = common.on_device(other)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.resize(b, (len(a) // 4, *b.shape[1:]))]), other, expert)
    ratio = discriminate(expert, other)
    options = dict(num_updates=UPDATES, num_seeds=SEEDS, max_steps=101)
    discount, q = 0.98, 10.0
    table, best = [], {}

    def add(family, agent, settings, replace, data, **changed):
        hparams = common.sweep(agent.hparams, lambda hp, x: replace(hp, x), settings)
        returns, _ = common.train(agent, hparams, data, env, **{**options, **changed})
        for setting, scores in zip(settings, 100 * returns):
            table.append(
                {"name": f"{family}{'' if setting is None else f' {setting:g}'}", "score": common.scores(scores)}
            )
            best[family.split(",")[0]] = max(best.get(family.split(",")[0], 0.0), table[-1]["score"]["iqm"])

    clone = build_bc(env, widths=WIDTHS)
    rate = lambda hp, x: hp._replace(learning_rate=1e-3)  # noqa: E731
    add("BC of the expert's episode", clone, [None], rate, expert)
    add("BC of both", clone, [None], rate, both)
    judged = {name: d._replace(reward=ratio(d)) for name, d in (("others", other), ("both", both))}
    for name, data in judged.items():
        for gradient in ("semi", "true"):
            dice = build_odice(env, widths=WIDTHS, gradient=gradient, layer_norm=False)
            tune = lambda hp, x: hp._replace(  # noqa: E731
                learning_rate=1e-3, discount=discount, target_rate=0.02, value_lambda=x
            )
            add(f"discriminator + V-DICE on {name}, {gradient} gradient, lambda", dice, [0.4, 0.6, 0.8], tune, data)

    def numbers(hp, **value):
        base = hp.agent._replace(
            learning_rate=1e-3,
            discount=discount,
            target_rate=0.02,
            inverse_temperature=3.0,
            value=hp.agent.value._replace(**value),
        )
        return hp._replace(agent=base, own=hp.own._replace(expert_value=q, step_reward=-(1 - discount) * q))

    for kind, field, settings in (
        ("gumbel", "value_temperature", [0.1, 0.5, 2.0]),
        ("expectile", "expectile", [0.7, 0.9, 0.95]),
    ):
        agent = with_demonstrations(build_recoil(env, widths=WIDTHS, value_loss=kind), expert, 0.5)
        tune = lambda hp, x, field=field: numbers(hp, **{field: x})  # noqa: E731
        add(f"ReCOIL, {kind}", agent, settings, tune, other, batch_size=64)

    recoil = best["ReCOIL"]
    dice = {k: v for k, v in best.items() if k.startswith("discriminator")}
    numbers_text = ", ".join(f"{family} {value:.1f}" for family, value in best.items())
    settings = {
        "data": f"one expert episode of {len(expert.reward)} steps; {len(other.reward)} steps of wandering"
        + (", none in the goal's arm of the maze" if disjoint else ""),
        "score": "percentage of greedy episodes that reach the goal in 100 steps; the expert has 100",
        "widths": WIDTHS,
        "updates": UPDATES,
        "discount": discount,
        "expert_value": q,
    }
    low = [k for k, v in dice.items() if v < 50] or ["none"]
    finding = f"best scores: {numbers_text}. V-DICE on a discriminator's reward below 50: {', '.join(low)}."
    return recoil, max(dice.values()), finding, dict(settings=settings, table=table, seeds=SEEDS)


def recoil_disjoint():
    recoil, dice, finding, rest = imitate(disjoint=True)
    verdict = {2: "met", 1: "partly", 0: "missed"}[(recoil >= 90) + (dice < 50)]
    claim = (
        "with one expert episode beside data that shares no states near the goal, ReCOIL has >= 90 % of the expert's "
    )
    claim += "score, a discriminator's reward in V-DICE < 50 %"
    return dict(claim=claim, verdict=verdict, finding=finding, **rest)


def recoil_covered():
    recoil, dice, finding, rest = imitate(disjoint=False)
    claim = "with one expert episode beside data that covers the maze, ReCOIL has >= 90 % of the expert's score"
    return dict(claim=claim, verdict="met" if recoil >= 90 else "missed", finding=finding, **rest)


if __name__ == "__main__":
    common.main(
        "049",
        "Dual RL: Unification and New Methods for Reinforcement and Imitation Learning",
        "https://arxiv.org/abs/2302.08560",
        __file__,
        {
            "maximizers_maze": maximizers_maze,
            "maximizers_pendulum": maximizers_pendulum,
            "recoil_disjoint": recoil_disjoint,
            "recoil_covered": recoil_covered,
        },
    )
