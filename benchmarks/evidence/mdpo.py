"""MDPO (system 146): mirror descent as a policy loss, on-policy beside PPO's clip and off-policy beside SAC. The exact
part, iterates on tabular MDPs, is a test: tests/test_mdpo.py.

    python benchmarks/evidence/mdpo.py [cartpole] [pendulum] [pendulum_off_policy]
"""

import common
import jax
import numpy as np

import jaxrl
from jaxrl.factory.on_policy import build_mdpo, build_ppo
from jaxrl.loop import run
from jaxrl.tree import replace_fields

SEEDS = 8
CLAIM = (
    "with as many gradients an update MDPO reaches PPO's return less 5 %; with 10 full-batch steps it has >= 20 % more "
    "than with 1"
)
METHODS = {  # builder, epochs, minibatches
    "PPO, 10 x 1": (build_ppo, 10, 1),
    "PPO, 10 x 4": (build_ppo, 10, 4),
    "MDPO, m = 10 x 1": (build_mdpo, 10, 1),
    "MDPO, m = 10 x 4": (build_mdpo, 10, 4),
    "MDPO, m = 1": (build_mdpo, 1, 1),
}


def learn(agent, hparams, env, num_envs, unroll_length, steps, num_seeds):
    """Returns of the episodes that ended in each tenth of the run, [M, S, 10], for M settings."""
    num_updates = steps // (num_envs * unroll_length)

    def train(key, hp):
        loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=unroll_length)
        _, metrics = run(loop, loop.init(key, hp), num_updates)
        parts = (metrics[name].reshape(10, -1).sum(1) for name in ("episode/return_sum", "episode/count"))
        total, count = parts
        return total / count

    both = jax.vmap(jax.vmap(train, (0, None)), (None, 0))
    return np.asarray(jax.jit(both)(jax.random.split(jax.random.key(0), num_seeds), hparams))


def on_policy(env_name, score, *, num_envs, unroll_length, steps, rates, numbers, static):
    env = jaxrl.envs.make(env_name)
    table, best = [], {}
    for name, (build, epochs, parts) in METHODS.items():
        agent = build(env, num_epochs=epochs, num_minibatches=parts, **static)
        own = dict(mirror_decay_steps=float(steps)) if build is build_mdpo else {}
        base = replace_fields(agent.hparams, decay_steps=float(steps), entropy_coefficient=0.0, **numbers, **own)
        hparams = common.sweep(base, lambda hp, rate: replace_fields(hp, learning_rate=rate), list(rates))
        returns = score(learn(agent, hparams, env, num_envs, unroll_length, steps, SEEDS))
        for rate, x in zip(rates, returns):
            row = {
                "name": f"{name}, rate {rate:g}",
                "last tenth": common.scores(x[:, -1]),
                "whole run": common.scores(x.mean(1)),
            }
            table.append(row)
            if name not in best or row["whole run"]["iqm"] > best[name]["whole run"]["iqm"]:
                best[name] = row
    return table, best


def judged(table, best, settings):
    """The gates, with each method at its best learning rate for the whole run."""
    number = {name: row["whole run"]["iqm"] for name, row in best.items()}
    last = {name: row["last tenth"]["iqm"] for name, row in best.items()}
    ahead = [number[f"MDPO, m = {m}"] / number[f"PPO, {m}"] - 1 for m in ("10 x 1", "10 x 4")]
    over_one = number["MDPO, m = 10 x 1"] / number["MDPO, m = 1"] - 1
    good = [min(ahead) >= -0.05, over_one >= 0.2]
    finding = "best, mean over the run (last tenth): " + ", ".join(
        f"{name} {x:.1f} ({last[name]:.1f})" for name, x in number.items()
    )
    finding += f". MDPO has {100 * ahead[0]:+.0f} % on PPO with 10 full-batch steps, {100 * ahead[1]:+.0f} % with 10 "
    finding += f"passes of 4 minibatches; 10 steps have {100 * over_one:+.0f} % on one."
    verdict = {2: "met", 1: "partly", 0: "missed"}[sum(good)]
    return dict(claim=CLAIM, verdict=verdict, finding=finding, settings=settings, table=table, seeds=SEEDS)


def cartpole():
    sizes = dict(num_envs=16, unroll_length=64, steps=102_400, rates=(3e-3, 1e-2, 3e-2))
    table, best = on_policy("CartPole-v1", lambda r: r, numbers={}, static=dict(widths=(32, 32)), **sizes)
    settings = {
        "score": "mean return of training episodes, at most 500",
        "t_k": "1 to 0",
        "learning rates": "linearly to 0",
        "entropy bonus": 0.0,
        "widths": (32, 32),
    } | {k: v for k, v in sizes.items()}
    return judged(table, best, settings)


def pendulum_score(returns):
    return 100 * (np.asarray(returns) + 1230) / (1230 - 145)


def pendulum():
    sizes = dict(num_envs=16, unroll_length=100, steps=160_000, rates=(3e-3, 1e-2, 3e-2))
    static = dict(widths=(32, 32), normalize_observation=True, normalize_reward=True)
    numbers = dict(discount=0.95, return_discount=0.95)
    table, best = on_policy("Pendulum-v1", pendulum_score, numbers=numbers, static=static, **sizes)
    settings = {
        "score": "of training episodes: 0 is random (-1230), 100 a scripted expert (-145)",
        "t_k": "1 to 0",
        "learning rates": "linearly to 0",
        "discount": 0.95,
        "widths": (32, 32),
    } | sizes
    return judged(table, best, settings)


def pendulum_off_policy():
    env, seeds, steps = jaxrl.envs.make("Pendulum-v1"), 4, 12_000
    table, best = [], {}
    for name, numbers in (
        ("sac", [dict(learning_rate=rate, policy_learning_rate=rate) for rate in (1e-3, 3e-3)]),
        ("mdpo_off", [dict(learning_rate=1e-3, policy_learning_rate=1e-3, mirror_step=t) for t in (0.3, 3.0)]),
    ):
        static = dict(widths=(64, 64), batch_size=128, updates_per_step=4, min_buffer_size=500, buffer_size=steps)
        own = dict(reference_period=1000) if name == "mdpo_off" else {}
        agent, hparams = jaxrl.make_agent(name, env, **static, **own)
        hparams = common.sweep(hparams, lambda hp, x: replace_fields(hp, discount=0.95, target_rate=0.01, **x), numbers)
        returns = pendulum_score(learn(agent, hparams, env, 4, 1, steps, seeds))
        for setting, x in zip(numbers, returns):
            key = "mirror_step" if "mirror_step" in setting else "learning_rate"
            row = {
                "name": f"{name}, {key} {setting[key]:g}",
                "last tenth": common.scores(x[:, -1]),
                "whole run": common.scores(x.mean(1)),
            }
            table.append(row)
            if name not in best or row["last tenth"]["iqm"] > best[name]["last tenth"]["iqm"]:
                best[name] = row
    sac, mdpo = (best[name]["last tenth"]["iqm"] for name in ("sac", "mdpo_off"))
    return dict(
        claim="off-policy MDPO with hard values reaches SAC's return less 5 %",
        verdict="met" if mdpo >= 0.95 * sac else "missed",
        finding=f"best scores in the last tenth: SAC {sac:.1f} ({best['sac']['name']}), MDPO {mdpo:.1f} "
        f"({best['mdpo_off']['name']}), {100 * (mdpo / sac - 1):+.0f} %.",
        settings={
            "score": "of training episodes: 0 is random (-1230), 100 a scripted expert (-145)",
            "steps": steps,
            "updates": "one a step, batches of 128",
            "reference_period": 1000,
            "discount": 0.95,
            "widths": (64, 64),
        },
        table=table,
        seeds=seeds,
    )


if __name__ == "__main__":
    common.main(
        "146",
        "Mirror Descent Policy Optimization",
        "https://arxiv.org/abs/2005.09814",
        __file__,
        {"cartpole": cartpole, "pendulum": pendulum, "pendulum_off_policy": pendulum_off_policy},
    )
