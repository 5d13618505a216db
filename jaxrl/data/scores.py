"""Normalized scores (Fu et al. 2020, "D4RL", section 5, https://arxiv.org/abs/2004.07219)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jaxrl.data.dataset import Dataset


def normalized_score(return_: Any, random: float, expert: float) -> Any:
    """100 (J - J_random) / (J_expert - J_random): 0 is a random policy, 100 the expert.

    Args:
      return_: J, a number or an array of them.

    Raises:
      ValueError: if the two references are equal or not finite.
    """
    if not (math.isfinite(random) and math.isfinite(expert)) or random == expert:
        raise ValueError(f"normalized_score: random is {random}, expert {expert}; must be finite and unlike each other")
    score = 100 * (np.asarray(return_, np.float64) - random) / (expert - random)
    return score if score.ndim else float(score)


def with_scores(dataset: Dataset, random: float, expert: float) -> Dataset:
    """The dataset with its reference scores in the metadata, "random_score" and "expert_score".

    Raises:
      ValueError: if they are equal or not finite.
    """
    normalized_score(0.0, random, expert)
    return dataset._replace(metadata={**dataset.metadata, "random_score": random, "expert_score": expert})


def reference_scores(dataset: Dataset) -> tuple[float, float]:
    """What `with_scores` stored: mean returns of the random policy and of the expert.

    Raises:
      ValueError: if the metadata has none.
    """
    names = ("random_score", "expert_score")
    if not all(isinstance(dataset.metadata.get(name), (int, float)) for name in names):
        raise ValueError("dataset: metadata has no random_score and expert_score; give them by with_scores")
    return dataset.metadata["random_score"], dataset.metadata["expert_score"]
