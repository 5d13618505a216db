"""Small datasets whose every number is known."""

import numpy as np

from jaxrl.data import Dataset
from jaxrl.types import Transition

LENGTHS = (3, 1, 4, 2)  # of the episodes; the second and the last are truncated


def chain(lengths=LENGTHS, terminated=(True, False, True, False), seed=0):
    """Row t of episode e observes (e, t, noise) and a uint8 picture; rewards are small random integers."""
    random = np.random.default_rng(seed)
    rows = [(e, t) for e, length in enumerate(lengths) for t in range(length)]
    last = np.array([t == lengths[e] - 1 for e, t in rows])
    ends = np.array([terminated[e] for e, _ in rows])
    noise = {(e, t): random.normal(size=2) for e, length in enumerate(lengths) for t in range(length + 1)}

    def observe(shift):
        vector = np.array([[e, t + shift, *noise[e, t + shift]] for e, t in rows], np.float32)
        picture = np.array([np.full((2, 2), 10 * e + t + shift) for e, t in rows], np.uint8)
        return {"picture": picture, "parts": (vector, vector[:, 1].astype(np.int32))}

    transitions = Transition(
        observe(0),
        random.normal(size=(len(rows), 2)).astype(np.float32),
        random.integers(-3, 4, len(rows)).astype(np.float32),
        last & ends,
        last & ~ends,
        observe(1),
        {"cost": random.normal(size=len(rows)).astype(np.float32)},
    )
    return Dataset(
        transitions, {"environment": "chain", "behavior": "random", "random_score": -1.0, "expert_score": 3.0}
    )
