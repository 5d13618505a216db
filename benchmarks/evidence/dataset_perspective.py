"""A dataset perspective on offline RL (system 188): which learners need coverage, and which need quality.

python benchmarks/evidence/dataset_perspective.py [learners] [layer_norm] [counting]
"""

import functools
from typing import Any, NamedTuple

import common
import jax
import numpy as np
from cells import Learner, learn, mean_return

import jaxrl
from jaxrl import data
from jaxrl.data import Dataset, normalized_score
from jaxrl.tree import replace_fields
from jaxrl.types import Env

ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1")
TYPES = ("random", "expert", "mixed", "noisy", "replay")
ROWS = 51_200  # of every dataset, and of the run whose replay is the reference
SEEDS = 3
UPDATES = 3000
BINS = 20
HPARAMS = dict(learning_rate=1e-3, target_rate=0.02, discount=0.99)
FAMILY = ("DQN", "QR-DQN", "REM")


LEARNERS = {
    "BC": Learner("bc"),
    "BVE": Learner("dqn", {"next_action": "data"}, view=data.with_next_actions),
    "MCE": Learner("dqn", {"next_action": "none"}, view=lambda d: data.with_returns(d, HPARAMS["discount"])),
    "DQN": Learner("dqn"),
    "QR-DQN": Learner("qrdqn"),
    "REM": Learner("dqn", {"distribution": "random_mixture"}),
    "BCQ": Learner("dqn", {"constrained": True}, {"threshold": 0.3}),
    "CQL": Learner("dqn", {}, {"conservative": 1.0}),
    "CRR": Learner(
        "dqn", {"constrained": True, "next_action": "behavior"}, {"inverse_temperature": 1.0, "threshold": 1.0}
    ),
}


class Study(NamedTuple):
    """The five datasets of an environment."""

    env: Env
    datasets: dict[str, Dataset]
    random: float  # mean return of the random policy
    expert: float  # of the best policy of the run, which is the expert


@functools.cache
def study(name: str, rows: int = ROWS, num_envs: int = 8, unroll_length: int = 64) -> Study:
    """One run of PPO, and five datasets that are as long as it was.

    The expert is the best of twenty policies on the way, as greedy play ranks them.
    """
    env = jaxrl.envs.make(name)
    agent, hparams = jaxrl.make_agent("ppo", env, preset=name)
    hparams = replace_fields(hparams, decay_steps=float(rows))
    keys = jax.random.split(jax.random.key(0), 3)
    training = data.record_training(
        keys[0],
        agent,
        env,
        rows // (num_envs * unroll_length),
        num_envs=num_envs,
        unroll_length=unroll_length,
        hparams=hparams,
        num_actors=20,
    )
    play = jax.jit(lambda actor: jaxrl.evaluate(keys[1], agent, actor, env, num_episodes=64).returns.mean())
    expert = training.actors[int(np.argmax([float(play(actor)) for actor in training.actors]))]
    datasets = data.five_types(keys[2], agent, expert, env, training.replay, rows, num_envs=num_envs)
    random = common.mean_return(env, data.random_policy(env.action_space))
    return Study(env, datasets, random, mean_return(env, agent, expert))


def measures(found: Study, bins: int | None = BINS) -> dict[str, tuple[float, float, float]]:
    """TQ, SACo, and SACo by HyperLogLog, of each type."""
    reference = found.datasets["replay"]
    return {
        name: (
            data.tq(dataset, found.random, found.expert),
            data.saco(dataset, reference, num_bins=bins),
            data.saco(dataset, reference, num_bins=bins, approximate=True),
        )
        for name, dataset in found.datasets.items()
    }


def quality_of_rows(dataset: Dataset, found: Study) -> float:
    """TQ where an episode counts as often as it has rows, which is how often a learner sees it."""
    starts, stops = data.episode_bounds(dataset)
    mean = np.average(data.episode_returns(dataset), weights=stops - starts)
    return normalized_score(mean, found.random, found.expert) / 100


def correlation(x: Any, y: Any) -> float:
    return float(np.corrcoef(np.asarray(x, float), np.asarray(y, float))[0, 1])


class Cells(NamedTuple):
    """What learners came to, in cells [C]: the datasets of the first environment, then those of the others."""

    table: list[dict]
    coverage: np.ndarray
    quality: np.ndarray
    quality_of_rows: np.ndarray
    scores: dict[str, np.ndarray]
    diverged: dict[str, int]  # of the C * SEEDS runs


def compare(labels: tuple[str, ...], static: dict[str, Any]) -> Cells:
    """Learners on all datasets.

    A run has diverged when its mean Q is above twice the largest or below twice the least possible value.
    """
    table, coverage, quality, by_rows = [], [], [], []
    scores, diverged = {name: [] for name in labels}, dict.fromkeys(labels, 0)
    for name in ENVIRONMENTS:
        found, rows = study(name), {}
        for kind, (tq, saco, _) in measures(found).items():
            coverage.append(saco)
            quality.append(tq)
            by_rows.append(quality_of_rows(found.datasets[kind], found))
            rows[kind] = {"name": f"{name}, {kind}", "TQ": round(tq, 3), "TQ of rows": round(by_rows[-1], 3)}
            rows[kind]["SACo"] = round(saco, 3)
        datasets = [found.datasets[kind] for kind in TYPES]
        for label in labels:
            learner = LEARNERS[label]
            learner = learner._replace(static={**learner.static, **static})
            returns, metrics = learn(learner, found.env, datasets, HPARAMS, num_updates=UPDATES, num_seeds=SEEDS)
            for kind, values in zip(TYPES, normalized_score(returns, found.random, found.expert)):
                rows[kind][label] = common.scores(values)
                scores[label].append(float(np.mean(values)))
            if "q_value" in metrics:  # rewards are 1 or -1 a step in both environments
                diverged[label] += int(np.sum(~(np.abs(metrics["q_value"]) < 2 / (1 - HPARAMS["discount"]))))
            print(f"{name} {label} {np.round(scores[label][-len(TYPES) :], 1)} diverged {diverged[label]}", flush=True)
        table += rows.values()
    scores = {k: np.array(v) for k, v in scores.items()}
    return Cells(table, np.array(coverage), np.array(quality), np.array(by_rows), scores, diverged)


def settings_of(labels: tuple[str, ...], **more: Any) -> dict[str, Any]:
    return {
        "data": f"{ROWS} steps each; the expert is the best policy of a PPO run of {ROWS} steps, whose replay is the "
        f"reference of SACo; floats are cut into {BINS} bins",
        "score": "0 is the random policy, 100 the expert; TQ has the same references",
        "diverged": compare.__doc__.split("\n\n")[1].strip(),
        "updates": UPDATES,
        "batch_size": 128,
        "widths": (64, 64),
        "normalize_observation": True,
        **HPARAMS,
        **{f"{k} {name}": v for k in labels for name, v in LEARNERS[k].hparams.items()},
        "cut": "two environments with states of floats, 3 seeds, one online run each; no MinAtar, which takes too long",
        **more,
    }


def learners():
    """Nine learners on five datasets of two environments."""
    labels = tuple(LEARNERS)
    found = compare(labels, {})
    verdict, finding = judge(found)
    return dict(
        claim=CLAIM,
        verdict=verdict,
        finding=finding,
        settings=settings_of(labels, misses=MISSES),
        table=found.table,
        seeds=SEEDS,
    )


def layer_norm():
    """The DQN family again, with layers normalized, which keeps values from diverging where actions are missing."""
    found = compare(FAMILY, {"layer_norm": True})
    family = np.mean(list(found.scores.values()), 0)
    numbers = correlation(found.coverage, family), correlation(found.quality, family)
    gates = [numbers[0] > 0.5, numbers[1] < 0.5]
    finding = (
        f"corr(SACo, DQN family) {numbers[0]:.2f}, corr(TQ, the same) {numbers[1]:.2f}; mean score "
        f"{np.mean(family):.1f}; {sum(found.diverged.values())} of {len(family) * SEEDS * len(FAMILY)} runs diverged."
    )
    claim = "with layer normalization, too, corr(SACo, score of the DQN family) > 0.5 > corr(TQ, the same)"
    verdict = {2: "met", 1: "partly", 0: "missed"}[sum(gates)]
    settings = settings_of(FAMILY, layer_norm=True)
    return dict(claim=claim, verdict=verdict, finding=finding, settings=settings, table=found.table, seeds=SEEDS)


CLAIM = (
    "corr(SACo, score of the DQN family) > 0.5 > corr(TQ, the same); corr(TQ, score of BC) > 0.8; where TQ > 0.9, BC "
    "is within 10 points of the best learner"
)


MISSES = (
    "of the prediction, as far as we see. Divergence decides what the DQN family comes to: its values leave what is "
    "possible on CartPole's narrow data and on the replay of PPO (the paper's is DQN's, which may explore more). Layer "
    "normalization ends that (layer_norm), but does not bring the correlation back. For BC, TQ weighs episodes alike "
    "while cloning weighs rows, and in Acrobot bad episodes are the long ones"
)


def judge(cells: Cells) -> tuple[str, str]:
    """Verdict and finding of the claim."""
    coverage, quality, scores = cells.coverage, cells.quality, cells.scores
    family = np.mean([scores[k] for k in FAMILY], 0)
    best = np.max(list(scores.values()), 0)
    good = quality > 0.9
    gap = float(np.max((best - scores["BC"])[good]))
    numbers = correlation(coverage, family), correlation(quality, family), correlation(quality, scores["BC"])
    gates = [numbers[0] > 0.5, numbers[1] < 0.5, numbers[2] > 0.8, gap <= 10]
    verdict = {len(gates): "met", 0: "missed"}.get(sum(gates), "partly")
    separate = []
    for i, name in enumerate(ENVIRONMENTS):
        part = slice(i * len(TYPES), (i + 1) * len(TYPES))
        separate.append(
            f"{name} {correlation(coverage[part], family[part]):.2f}, {correlation(quality[part], family[part]):.2f}, "
            f"{correlation(quality[part], scores['BC'][part]):.2f}"
        )
    by_rows = correlation(cells.quality_of_rows, scores["BC"])
    product = correlation(np.minimum(coverage, quality), np.mean([scores[k] for k in ("BCQ", "CQL", "CRR")], 0))
    finding = (
        f"over {len(quality)} cells corr(SACo, DQN family) is {numbers[0]:.2f}, corr(TQ, DQN family) {numbers[1]:.2f}, "
        f"corr(TQ, BC) {numbers[2]:.2f} (in that order, {'; '.join(separate)}), or {by_rows:.2f} with TQ of rows, "
        f"where an episode counts by its length. Where TQ > 0.9 ({int(good.sum())} cells) BC is at most {gap:.1f} "
        f"points below the best. The lesser of TQ and SACo correlates at {product:.2f} with the scores of BCQ, CQL and "
        f"CRR. Runs that diverged, of {len(quality) * SEEDS}: "
        + ", ".join(f"{k} {n}" for k, n in cells.diverged.items() if k != "BC")
        + "."
    )
    return verdict, finding


def counting():
    """SACo exactly and by HyperLogLog, for several ways of cutting floats."""
    table, errors, orders, unlike = [], [], [], []
    for name in ENVIRONMENTS:
        found = study(name)
        for bins in (None, 10, 20, 50):
            reference = found.datasets["replay"]
            edges = None if bins is None else data.measures.bin_edges(reference, bins)
            row = {"name": f"{name}, {'exact floats' if bins is None else f'{bins} bins'}"}
            total, sacos = data.unique_pairs(reference, edges), []
            for kind, dataset in found.datasets.items():
                exact, near = data.unique_pairs(dataset, edges), data.approximate_unique_pairs(dataset, edges)
                sacos.append(exact / total)
                errors.append(abs(near / exact - 1))
                row |= {kind: round(sacos[-1], 3), f"{kind}, unique": exact}
                row[f"{kind}, error %"] = round(100 * (near / exact - 1), 2)
                if bins is None:
                    unlike.append(exact / ROWS)
            if bins is not None:
                orders.append((name, tuple(np.argsort(sacos))))
            table.append(row)
    worst, stable = max(errors), len(set(orders)) == len(ENVIRONMENTS)
    settings = {"data": f"five types of {ROWS} steps each", "columns": "SACo; unique pairs; error of HyperLogLog"}
    finding = (
        f"the largest error of {len(errors)} counts is {100 * worst:.2f} %. Of exact floats at least "
        f"{100 * min(unlike):.1f} % of all pairs are unique, so that SACo says little without bins; the types have "
        f"{'the same order' if stable else 'not always the same order'} with 10, 20 and 50."
    )
    claim = "HyperLogLog counts unique state-action pairs within 2 % of the exact number"
    verdict = "met" if worst <= 0.02 else "missed"
    return dict(claim=claim, verdict=verdict, finding=finding, settings=settings, table=table, seeds=1)


if __name__ == "__main__":
    common.main(
        "188",
        "A Dataset Perspective on Offline Reinforcement Learning",
        "https://arxiv.org/abs/2111.04714",
        __file__,
        {"learners": learners, "layer_norm": layer_norm, "counting": counting},
    )
