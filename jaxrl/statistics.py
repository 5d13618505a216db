"""Statistics over runs: the interquartile mean and its bootstrap interval (Agarwal et al. 2021,
"Deep reinforcement learning at the edge of the statistical precipice", https://arxiv.org/abs/2108.13264). NumPy only.
"""

from __future__ import annotations

from typing import Callable

import numpy as np


def iqm(x: np.ndarray) -> float:
    """Interquartile mean: the mean of what is left without the lowest and the highest quarter.

    floor(n / 4) values are cut on each side, so it is the mean for n < 4 and robust to a quarter of outliers.

    Args:
      x: scores, any shape; all axes count alike.

    Raises:
      ValueError: if x is empty.
    """
    values = np.sort(np.asarray(x, np.float64), axis=None)
    if values.size == 0:
        raise ValueError("iqm: x is empty, needs at least one score")
    cut = values.size // 4
    return float(values[cut : values.size - cut].mean())


def bootstrap_interval(
    x: np.ndarray,
    statistic: Callable[[np.ndarray], float] = iqm,
    confidence: float = 0.95,
    num_resamples: int = 5000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic: the quantiles (1 -+ confidence) / 2 of its resampled values.

    Runs are drawn with replacement; with several tasks, separately for each task (stratified), so that every resample
    holds every task as often as the data do.

    Args:
      x: scores [runs] or [runs, tasks].
      statistic: scores -> a number.
      confidence: in (0, 1).
      num_resamples: of the bootstrap; 5000 fixes the ends to about 2 % of the interval.
      seed: the same seed gives the same interval.

    Returns:
      low, high.

    Raises:
      ValueError: if x is empty or has more than two axes, or `confidence` or `num_resamples` is out of range.
    """
    scores = np.asarray(x, np.float64)
    if scores.ndim not in (1, 2) or scores.size == 0:
        raise ValueError(f"bootstrap_interval: x has shape {scores.shape}, must be [runs] or [runs, tasks], not empty")
    if not 0 < confidence < 1:
        raise ValueError(f"bootstrap_interval: confidence is {confidence}, must be in (0, 1)")
    if num_resamples < 1:
        raise ValueError(f"bootstrap_interval: num_resamples is {num_resamples}, must be >= 1")
    scores = scores.reshape(len(scores), -1)
    runs, tasks = scores.shape
    generator = np.random.default_rng(seed)
    resampled = np.empty(num_resamples)
    for i in range(num_resamples):
        chosen = generator.integers(runs, size=(runs, tasks))
        resampled[i] = statistic(np.take_along_axis(scores, chosen, axis=0))
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return float(low), float(high)
