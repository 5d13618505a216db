"""Tuned settings, a plain table: (agent, environment) -> static choices and numbers. `docs/learning.md` has the curves."""

from __future__ import annotations

from typing import Any

DEFAULTS: dict[str, dict[str, Any]] = {
    "ppo": dict(num_envs=64, unroll_length=128, steps=1_000_000, hparams={}),
}

_CONTROL = dict(
    num_envs=64, unroll_length=64, normalize_observation=True, normalize_reward=True, num_epochs=10, num_minibatches=8
)

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "CartPole-v1"): dict(num_envs=16, unroll_length=64, steps=500_000, hparams=dict(learning_rate=1e-3)),
}


def lookup(agent: str, env: str | None) -> dict[str, Any]:
    """The settings for an agent in an environment: the tuned ones over the agent's defaults.

    Keys: num_envs, unroll_length, steps, reset_pool; keywords of the agent's builder; hparams, a dict of numbers.
    """
    return {"reset_pool": 0, **DEFAULTS[agent], **PRESETS.get((agent, env), {})}
