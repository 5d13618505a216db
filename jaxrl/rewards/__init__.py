"""Learned rewards: what is to be maximised where no reward is given, or another one is wanted."""

from jaxrl.rewards.core import RewardModel, SkillModel, Skills, one_hot, sphere
from jaxrl.rewards.diayn import diayn
from jaxrl.rewards.metra import metra

__all__ = ["RewardModel", "SkillModel", "Skills", "diayn", "metra", "one_hot", "sphere"]
