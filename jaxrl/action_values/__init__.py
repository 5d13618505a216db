"""How outputs of a network represent the return of each action: the choices of value-based learners.

`scalar` is the mean alone, `categorical` (C51), `quantile` (QR-DQN) and `implicit_quantile` (IQN) are distributions,
`random_mixture` (REM) is an ensemble. All of them may be dueling or not; learners know the bundle `ActionValues` only.

Dueling (Wang et al. 2016, https://arxiv.org/abs/1511.06581): Q = V + A - mean_a A, for distributions atom by atom. The
value stream reads the first half of the torso's features, the advantage stream the other half: the last layer of the
torso is thus the hidden layers of both streams side by side.

`mixed` makes values of a team of those of its agents (VDN, QMIX).

Where an observation is a dict with an "action_mask" [..., A], illegal actions have a mean of -1e9.
"""

from jaxrl.action_values.core import ActionValues, take
from jaxrl.action_values.distributional import categorical, implicit_quantile, quantile
from jaxrl.action_values.means import random_mixture, scalar
from jaxrl.action_values.mixed import Mixer, additive, mixed, monotonic

__all__ = [
    "ActionValues",
    "Mixer",
    "additive",
    "categorical",
    "implicit_quantile",
    "mixed",
    "monotonic",
    "quantile",
    "random_mixture",
    "scalar",
    "take",
]
