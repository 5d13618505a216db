"""Two cooks in a kitchen: coordination, as in Overcooked-AI (Carroll et al. 2019, https://arxiv.org/abs/1910.05789).

The rules are those of the version that the paper used: soups are of three onions, and cook by themselves.
"""

from jaxrl.envs.kitchen.layouts import LAYOUTS
from jaxrl.envs.kitchen.rules import KitchenState
from jaxrl.envs.kitchen.task import KitchenParams, kitchen
from jaxrl.envs.kitchen.views import LAYERS

__all__ = ["LAYERS", "LAYOUTS", "KitchenParams", "KitchenState", "kitchen"]
