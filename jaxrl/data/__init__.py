"""Datasets: what they hold, files, collection, measures."""

from jaxrl.data.checks import check
from jaxrl.data.collection import collect, collect_random, random_policy
from jaxrl.data.d4rl import read_d4rl
from jaxrl.data.dataset import (
    Dataset,
    concatenate,
    episode_bounds,
    episode_returns,
    episode_starts,
    nbytes,
    num_transitions,
    recompute,
    take_best,
    take_episodes,
    take_rows,
    to_device,
)
from jaxrl.data.environments import check_fits, spaces_env
from jaxrl.data.files import read
from jaxrl.data.measures import approximate_unique_pairs, saco, tq, unique_pairs
from jaxrl.data.minari import read_minari
from jaxrl.data.native import write
from jaxrl.data.ogbench import read_ogbench
from jaxrl.data.recipes import (
    Training,
    d4rl_levels,
    five_types,
    medium_index,
    mixture,
    named,
    record_training,
    sample_episodes,
)
from jaxrl.data.scores import normalized_score, reference_scores, with_scores
from jaxrl.data.views import n_step, sequences, with_next_actions, with_returns

__all__ = [
    "Dataset",
    "Training",
    "approximate_unique_pairs",
    "check",
    "check_fits",
    "collect",
    "collect_random",
    "concatenate",
    "d4rl_levels",
    "episode_bounds",
    "episode_returns",
    "episode_starts",
    "five_types",
    "medium_index",
    "mixture",
    "n_step",
    "named",
    "nbytes",
    "normalized_score",
    "num_transitions",
    "random_policy",
    "read",
    "read_d4rl",
    "read_minari",
    "read_ogbench",
    "recompute",
    "record_training",
    "reference_scores",
    "saco",
    "sample_episodes",
    "sequences",
    "spaces_env",
    "take_best",
    "take_episodes",
    "take_rows",
    "to_device",
    "tq",
    "unique_pairs",
    "with_next_actions",
    "with_returns",
    "with_scores",
    "write",
]
