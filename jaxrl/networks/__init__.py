"""Networks as bundles of pure functions on nested dicts of arrays."""

from jaxrl.networks.adapters import from_linen, from_nnx
from jaxrl.networks.central import central_action_critic, central_critic, counterfactual_critic, side_by_side
from jaxrl.networks.core import default_unroll, feed_forward, pretrained, sequential, view
from jaxrl.networks.ensemble import ensemble, subset
from jaxrl.networks.feedforward import cnn, dense, mlp
from jaxrl.networks.heads import critic, masked, policy
from jaxrl.networks.initializers import orthogonal
from jaxrl.networks.recurrent import gru

__all__ = [
    "central_action_critic",
    "central_critic",
    "cnn",
    "counterfactual_critic",
    "critic",
    "default_unroll",
    "dense",
    "ensemble",
    "feed_forward",
    "from_linen",
    "from_nnx",
    "gru",
    "masked",
    "mlp",
    "orthogonal",
    "policy",
    "pretrained",
    "sequential",
    "side_by_side",
    "subset",
    "view",
]
