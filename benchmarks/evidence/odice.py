"""ODICE (system 145): true, semi and orthogonal gradients of V-DICE beside IQL and cloning, and what the gradients do.

python benchmarks/evidence/odice.py [maze] [pendulum]
"""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.factory.offline_learners import build_bc, build_iql, build_odice
from jaxrl.gradients import cosine
from jaxrl.networks import critic, ensemble, mlp

SEEDS = 8
WIDTHS = (32, 32)
UPDATES = 3000
CLAIM = (
    "best scores in the order orthogonal >= semi > true; forward and backward gradients conflict in most batches; the "
    "gradients of V(s) and V(s') are less alike with the orthogonal update than with the semi-gradient"
)


def probe(task, state):
    """Alikeness of the gradients of V(s) and V(s') over 64 rows, and how far V is above the data's outside of it."""
    network = ensemble(critic(mlp(WIDTHS, activation="relu", layer_norm=True)), 2)
    low, high = (jnp.asarray(b, jnp.float32) for b in (task.env.observation_space.low, task.env.observation_space.high))
    uniform = jax.random.uniform(jax.random.key(5), (256, *low.shape), minval=low, maxval=high)
    value = lambda params, o: jnp.min(network.apply(params, (), o)[1], axis=0)  # noqa: E731
    slope = lambda o: jax.grad(value)(state.params["value"], o)  # noqa: E731
    rows = jax.random.randint(jax.random.key(6), (64,), 0, len(task.data.reward))
    now, after = task.data.observation[rows], task.data.next_observation[rows]
    alike = jax.vmap(lambda s, t: cosine(slope(s), slope(t)))(now, after)
    gap = jnp.mean(value(state.params["value"], uniform)) - jnp.mean(value(state.params["value"], now))
    return {"alike": jnp.mean(alike), "gap": gap}


def compare(task, reward_scale, lambdas, iql_settings):
    """All methods, each at three settings (cloning has none).

    Args:
      reward_scale: for V-DICE, which is not free of scale: the chi2 conjugate compares residuals with 2.
      lambdas: of V-DICE.
      iql_settings: pairs of expectile and inverse temperature.
    """
    data = task.data._replace(reward=reward_scale * task.data.reward)
    rows, best, told = [], {}, {}
    options = dict(num_updates=UPDATES, num_seeds=SEEDS, max_steps=task.max_steps)
    for kind in ("orthogonal", "semi", "true"):
        agent = build_odice(task.env, widths=WIDTHS, gradient=kind)
        base = agent.hparams._replace(**task.hparams)
        hparams = common.sweep(base, lambda hp, x: hp._replace(value_lambda=x), lambdas)
        measure = functools.partial(probe, task)
        returns, metrics = common.train(agent, hparams, data, task.env, probe=measure, **options)
        for i, lambda_ in enumerate(lambdas):
            row = {
                "name": f"V-DICE, {kind}, lambda {lambda_:g}",
                "score": common.scores(task.score(returns[i])),
                "batches in conflict": round(float(metrics["gradient_cosine/negative"][i].mean()), 3),
                "cosine of gradients of V(s), V(s')": common.scores(metrics["alike"][i]),
                "V outside of the data - V in it": round(float(metrics["gap"][i].mean() / reward_scale), 3),
                "mean V": round(float(metrics["value"][i].mean() / reward_scale), 3),
            }
            rows.append(row)
            if row["score"]["iqm"] is not None and row["score"]["iqm"] > best.get(kind, -np.inf):
                best[kind], told[kind] = row["score"]["iqm"], row
    agent = build_iql(task.env, widths=WIDTHS, layer_norm=True)

    def tune(hp, pair):
        return hp._replace(value=hp.value._replace(expectile=pair[0]), inverse_temperature=pair[1])

    hparams = common.sweep(agent.hparams._replace(**task.hparams), tune, iql_settings)
    for (tau, beta), returns in zip(iql_settings, common.train(agent, hparams, task.data, task.env, **options)[0]):
        name = f"IQL, expectile {tau:g}, inverse temperature {beta:g}"
        rows.append({"name": name, "score": common.scores(task.score(returns))})
        best["IQL"] = max(best.get("IQL", -np.inf), rows[-1]["score"]["iqm"])
    agent = build_bc(task.env, widths=WIDTHS)
    hparams = common.sweep(agent.hparams, lambda hp, x: hp._replace(learning_rate=x), [1e-3])
    returns, _ = common.train(agent, hparams, task.data, task.env, **options)
    rows.append({"name": "BC", "score": common.scores(task.score(returns))})

    orthogonal, semi = told["orthogonal"], told["semi"]
    alike = [row["cosine of gradients of V(s), V(s')"]["iqm"] for row in (orthogonal, semi)]
    conflict = np.mean([row["batches in conflict"] for row in rows if "batches in conflict" in row])
    parts = [best["orthogonal"] >= best["semi"] > best["true"], conflict > 0.5, alike[0] < alike[1]]
    finding = (
        f"best scores: orthogonal {best['orthogonal']:.1f}, semi {best['semi']:.1f}, true {best['true']:.1f}, "
        f"IQL {best['IQL']:.1f}, BC {rows[-1]['score']['iqm']:.1f}. Conflict in {100 * conflict:.0f} % of the batches. "
        f"Cosine of the gradients of V(s) and V(s') {alike[0]:.2f} orthogonal, {alike[1]:.2f} semi (best settings)."
    )
    ours, theirs = orthogonal["score"], semi["score"]
    if ours["low"] <= theirs["high"] and theirs["low"] <= ours["high"]:
        finding += " The intervals of orthogonal and semi overlap."
    verdict = {3: "met", 0: "missed"}.get(sum(parts), "partly")
    shared = task.hparams | {"rewards of V-DICE": f"* {reward_scale:g}", "eta": 1.0, "layer_norm": True}
    settings = task.settings | shared | {"widths": WIDTHS, "updates": UPDATES}
    return dict(claim=CLAIM, verdict=verdict, finding=finding, settings=settings, table=rows, seeds=SEEDS)


def maze():
    return compare(common.maze_task(), 100.0, (0.45, 0.5, 0.55), ((0.7, 20.0), (0.8, 20.0), (0.9, 20.0)))


def pendulum():
    return compare(common.pendulum_task(), 10.0, (0.45, 0.5, 0.7), ((0.9, 3.0), (0.9, 10.0), (0.9, 30.0)))


if __name__ == "__main__":
    common.main(
        "145",
        "ODICE: Revealing the Mystery of Distribution Correction Estimation via Orthogonal-gradient Update",
        "https://arxiv.org/abs/2402.00348",
        __file__,
        {"maze": maze, "pendulum": pendulum},
    )
