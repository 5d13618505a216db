"""Learners of all agents together beside learners for each: MAPPO beside IPPO, QMIX beside VDN, on tasks of a team.

    python benchmarks/evidence/multi_agent.py [critics] [channel] [mixers]

Each method has the same settings to choose from, and shows its best one by the mean over seeds of its score; the table
is of other seeds.
"""

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.envs.aloha import aloha
from jaxrl.envs.foraging import foraging
from jaxrl.envs.particles.reference import reference
from jaxrl.envs.predator_prey import predator_prey
from jaxrl.envs.two_step import two_step
from jaxrl.loop import run
from jaxrl.tree import edit_fields

SEEDS, TRIALS = 16, 3  # of the table, of each setting before
ON_POLICY = [dict(learning_rate=rate, entropy_coefficient=bonus) for rate in (1e-3, 3e-3) for bonus in (0.01, 0.03)]
REPLAY = [dict(learning_rate=rate, epsilon_steps=steps) for rate in (5e-4, 2e-3) for steps in (0.5,)]  # of all
WIDTHS = (64, 64)


def together():
    """Foods that take all agents at once, where each sees two cells far."""
    return foraging(size=7, num_agents=3, num_foods=2, sight=2, force_coop=True, team_reward=True)


def hunt():
    """Predators who catch in pairs, and pay for what they try alone."""
    return predator_prey(size=5, num_predators=3, num_prey=2, sight=2, penalty=0.5, max_steps=40)


CRITICS = {  # task -> environment, sizes, numbers
    "foraging together": (together, dict(num_envs=32, unroll_length=50, steps=300_000), dict(discount=0.97)),
    "reference": (reference, dict(num_envs=32, unroll_length=25, steps=400_000), dict(discount=0.95)),
}
CHANNEL = {
    "eight senders": (lambda: aloha(columns=4), dict(num_envs=32, unroll_length=25, steps=80_000), dict(discount=0.99))
}
MIXERS = {
    # As in the paper, all joint actions are taken alike: VDN gets the 8 as well if it sees little else.
    "two-step game": (two_step, dict(num_envs=16, unroll_length=2, steps=20_000), dict(discount=0.99, epsilon_end=1.0)),
    "predators and prey": (hunt, dict(num_envs=16, unroll_length=4, steps=80_000), dict(discount=0.97)),
}


def trainer(name, env, sizes, given, **static):
    """(program, hparams); the program, (keys [S], hparams [M]), returns those of fifths of the training [M, S, 5], and
    greedy ones at the end [M, S]."""
    agent, hparams = jaxrl.make_agent(name, env, widths=WIDTHS, identify=True, **static)
    num_updates = max(5, sizes["steps"] // (sizes["num_envs"] * sizes["unroll_length"]))
    loop = jaxrl.online(agent, env, num_envs=sizes["num_envs"], unroll_length=sizes["unroll_length"])

    def once(key, hp):
        train_key, eval_key = jax.random.split(key)
        state, metrics = run(loop, loop.init(train_key, hp), num_updates)
        total, count = (
            metrics[f"episode/{x}"][: num_updates // 5 * 5].reshape(5, -1).sum(1) for x in ("return_sum", "count")
        )
        greedy = jaxrl.evaluate(eval_key, agent, state.agent, env, num_episodes=128).returns.mean()
        return total / jnp.maximum(count, 1), greedy

    program = jax.jit(jax.vmap(jax.vmap(once, (0, None)), (None, 0)))
    return program, edit_fields(hparams, {k: lambda _, v=v: v for k, v in given.items()})


def compared(methods, tasks, grid, num_seeds, trials, greedily, **static):
    """Rows of a table, and task -> {name: column of the score}: greedy returns, or those of the last fifth."""
    table, scores = [], {}
    for task, (make, sizes, given) in tasks.items():
        settings = [
            x | ({"epsilon_steps": x["epsilon_steps"] * sizes["steps"]} if "epsilon_steps" in x else {}) for x in grid
        ]
        for title, agent in methods.items():
            program, hparams = trainer(agent, make(), sizes, given, **static)
            tried = program(jax.random.split(jax.random.key(0), trials), common.with_settings(hparams, settings))
            best = int(np.argmax(np.mean(tried[1] if greedily else tried[0][..., -1], 1)))
            fifths, greedy = program(
                jax.random.split(jax.random.key(1), num_seeds), common.with_settings(hparams, [settings[best]])
            )
            fifths, greedy = np.asarray(fifths)[0], np.asarray(greedy)[0]
            scores.setdefault(task, {})[title] = common.scores(greedy if greedily else fifths[:, -1])
            table.append(
                {
                    "name": f"{task}, {title}",
                    "greedy": common.scores(greedy),
                    "while training": common.scores(fifths.mean(1)),
                    "its last fifth": common.scores(fifths[:, -1]),
                    "setting": str(settings[best]),
                }
            )
            print(f"  {task}, {title}: {greedy.round(2)} after {fifths.mean(0).round(2)}, {settings[best]}", flush=True)
    return table, scores


def result(claim, methods, tasks, grid, num_seeds, trials, greedily, **static):
    table, scores = compared(methods, tasks, grid, num_seeds, trials, greedily, **static)
    first, second = methods
    ahead = [x[second]["low"] > x[first]["high"] for x in scores.values()]
    said = lambda x: f"{x['iqm']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"  # noqa: E731
    shown = [f"{task}: " + ", ".join(f"{name} {said(x)}" for name, x in of.items()) for task, of in scores.items()]
    return dict(
        claim=claim,
        verdict="met" if all(ahead) else "partly" if any(ahead) else "missed",
        finding="; ".join(shown),
        settings={
            "score": "return of an agent, " + ("greedy" if greedily else "in the last fifth of the training"),
            **{task: str(x[1]) for task, x in tasks.items()},
        },
        table=table,
        seeds=num_seeds,
    )


def critics(num_seeds=SEEDS, trials=TRIALS, grid=ON_POLICY, tasks=CRITICS):
    claim = "where agents see little of the state, a critic that sees all of it makes them better (intervals are apart)"
    return result(claim, {"IPPO": "ippo", "MAPPO": "mappo"}, tasks, grid, num_seeds, trials, False)


def channel(num_seeds=SEEDS, trials=TRIALS, grid=ON_POLICY, tasks=CHANNEL):
    """Chosen after `critics` had shown no difference, as a task in which what others do is most of the reward."""
    claim = "on a shared channel, where each sees its own queue alone, MAPPO is better than IPPO (intervals are apart)"
    return result(claim, {"IPPO": "ippo", "MAPPO": "mappo"}, tasks, grid, num_seeds, trials, False)


def mixers(num_seeds=8, trials=2, grid=REPLAY, tasks=MIXERS):
    claim = (
        "where what one agent's action is worth depends on the others', QMIX is better than VDN (intervals are apart); "
        "in the two-step game QMIX gets the 8, VDN the 7"
    )
    static = dict(buffer_size=20_000, min_buffer_size=1000, batch_size=64, updates_per_step=4)
    return result(claim, {"VDN": "vdn", "QMIX": "qmix"}, tasks, grid, num_seeds, trials, True, **static)


if __name__ == "__main__":
    common.main(
        "multi_agent",
        "Learners of a team",
        "https://arxiv.org/abs/2103.01955",
        __file__,
        {"critics": critics, "channel": channel, "mixers": mixers},
    )
