"""Tuned settings, a plain table: (agent, environment) -> static choices and numbers; `docs/learning.md` has results."""

from __future__ import annotations

from typing import Any

_OFF_POLICY: dict[str, Any] = dict(num_envs=16, unroll_length=1, steps=500_000, hparams={})
_CONTINUOUS: dict[str, Any] = dict(num_envs=4, unroll_length=1, steps=100_000, updates_per_step=4, hparams={})

DEFAULTS: dict[str, dict[str, Any]] = {
    "ppo": dict(num_envs=64, unroll_length=128, steps=1_000_000, hparams={}),
    "pqn": dict(num_envs=32, unroll_length=32, steps=500_000, hparams={}),
    **dict.fromkeys(("dqn", "c51", "qrdqn", "iqn", "rainbow"), _OFF_POLICY | {"batch_size": 128}),
    **dict.fromkeys(("sac", "mdpo_off", "td3", "ddpg"), _CONTINUOUS),
    "redq": dict(num_envs=1, unroll_length=1, steps=20_000, hparams={}),
    **dict.fromkeys(("iql", "xql", "fdvl", "awac", "cql", "odice"), _CONTINUOUS),
    "recoil": dict(hparams={}),
    "bc": dict(hparams={}),
}


def _control(steps: int, discount: float, **sizes: int) -> dict[str, Any]:
    """Continuous control from state vectors."""
    return dict(
        {"num_envs": 16, "unroll_length": 128, "num_epochs": 10, "num_minibatches": 16, **sizes},
        steps=steps,
        normalize_observation=True,
        normalize_reward=True,
        hparams=dict(
            learning_rate=1e-3,
            decay_steps=steps,
            discount=discount,
            return_discount=discount,
            entropy_coefficient=0.0,
        ),
    )


PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "CartPole-v1"): dict(
        num_envs=16, unroll_length=64, steps=500_000, hparams=dict(learning_rate=1e-3, decay_steps=500_000)
    ),
    ("ppo", "Acrobot-v1"): dict(
        num_envs=16,
        unroll_length=128,
        steps=500_000,
        normalize_observation=True,
        hparams=dict(learning_rate=1e-3, decay_steps=500_000),
    ),
    ("ppo", "Pendulum-v1"): _control(500_000, 0.95),
    ("ppo", "Breakout-MinAtar"): dict(
        num_envs=64,
        unroll_length=64,
        steps=500_000,
        activation="relu",
        num_minibatches=8,
        widths=(64,),
        hparams=dict(learning_rate=3e-3, decay_steps=500_000),
    ),
    ("ppo", "brax/fast"): dict(num_envs=64, unroll_length=32, steps=200_000, hparams=dict(learning_rate=1e-3)),
    ("ppo", "brax/inverted_pendulum"): _control(200_000, 0.99, reset_pool=16),
    ("ppo", "memory_chain"): dict(
        num_envs=32,
        unroll_length=32,
        steps=300_000,
        recurrent=True,
        widths=(32,),
        memory_size=32,
        hparams=dict(learning_rate=2e-3, decay_steps=300_000),
    ),
    ("ppo", "mjx/cartpole_swingup"): _control(500_000, 0.99, num_envs=64, unroll_length=32),
    ("ppo", "mjx/reacher"): _control(500_000, 0.97, num_envs=64, unroll_length=32),
    ("ppo", "mjx/runner"): _control(500_000, 0.98, num_envs=64, unroll_length=32),
}


def lookup(agent: str, env: str | None) -> dict[str, Any]:
    """The settings for an agent in an environment: the tuned ones over the agent's defaults.

    Keys: num_envs, unroll_length, steps, reset_pool; keywords of the agent's builder; hparams, a dict of numbers.
    """
    return {"reset_pool": 0, **DEFAULTS[agent], **PRESETS.get((agent, env or ""), {})}
