"""Tuned settings, a plain table: (agent, environment) -> static choices and numbers; `docs/learning.md` has results."""

from __future__ import annotations

from typing import Any

_OFF_POLICY: dict[str, Any] = dict(num_envs=16, unroll_length=1, steps=500_000, hparams={})
_CONTINUOUS: dict[str, Any] = dict(num_envs=4, unroll_length=1, steps=100_000, updates_per_step=4, hparams={})

DEFAULTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        ("ppo", "ippo", "mappo", "cabn"), dict(num_envs=64, unroll_length=128, steps=1_000_000, hparams={})
    ),
    **dict.fromkeys(("vdn", "qmix"), _OFF_POLICY | {"batch_size": 128}),
    **dict.fromkeys(
        ("recurrent_vdn", "recurrent_qmix"),
        dict(num_envs=16, unroll_length=16, steps=500_000, updates_per_step=8, hparams={}),
    ),
    "maddpg": _CONTINUOUS,
    "coma": dict(num_envs=64, unroll_length=16, steps=1_000_000, hparams={}),
    "mdpo": dict(num_envs=64, unroll_length=128, steps=1_000_000, hparams={}),
    "props": dict(num_envs=16, unroll_length=32, steps=500_000, hparams={}),
    **dict.fromkeys(
        ("hierarchical", "option_critic"), dict(num_envs=64, unroll_length=128, steps=1_000_000, hparams={})
    ),
    "pqn": dict(num_envs=32, unroll_length=32, steps=500_000, hparams={}),
    **dict.fromkeys(("dqn", "c51", "qrdqn", "iqn", "rainbow"), _OFF_POLICY | {"batch_size": 128}),
    **dict.fromkeys(("rem", "bcq", "discrete_cql"), _OFF_POLICY | {"batch_size": 128}),
    **dict.fromkeys(("crr", "bve", "mce"), dict(hparams={})),
    "r2d2": dict(num_envs=16, unroll_length=16, steps=500_000, updates_per_step=8, hparams={}),
    "discrete_sac": _OFF_POLICY | {"batch_size": 128},
    **dict.fromkeys(("sac", "mdpo_off", "td3", "td3_bc", "ddpg"), _CONTINUOUS),
    "redq": dict(num_envs=1, unroll_length=1, steps=20_000, hparams={}),
    **dict.fromkeys(("iql", "xql", "fdvl", "awac", "cql", "odice"), _CONTINUOUS),
    "recoil": dict(hparams={}),
    "bc": dict(hparams={}),
    **dict.fromkeys(("gcbc", "gciql", "hiql", "ota"), dict(hparams={})),
    **dict.fromkeys(
        ("diayn", "metra"), dict(num_envs=16, unroll_length=8, steps=500_000, updates_per_step=8, hparams={})
    ),
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


def _values(steps: int, updates_per_step: int, learning_rate: float, target_rate: float, **more: Any) -> dict[str, Any]:
    """Replay for discrete actions: some updates on 128 transitions for every 64 steps."""
    numbers = dict(learning_rate=learning_rate, target_rate=target_rate, epsilon_steps=25_000)
    sizes = dict(num_envs=16, unroll_length=4, updates_per_step=updates_per_step, batch_size=128)
    return {**sizes, "steps": steps, "hparams": numbers, **more}


def _pixels(**more: Any) -> dict[str, Any]:
    """Replay for images: many updates on few transitions, observations stored once."""
    numbers = dict(learning_rate=3e-4, target_rate=0.02, epsilon_steps=50_000)
    sizes = dict(num_envs=16, unroll_length=4, updates_per_step=16, batch_size=32, widths=(64,))
    return {**sizes, "steps": 100_000, "store_next_observation": False, "hparams": numbers, **more}


def _replayed_control(steps: int, discount: float, *others: str, **more: Any) -> dict[str, Any]:
    """Replay for continuous actions: an update on 256 transitions for every step; small networks learn fast."""
    rates = dict.fromkeys(("learning_rate", "policy_learning_rate", *others), 1e-3)
    sizes = dict(num_envs=4, unroll_length=1, updates_per_step=4, widths=(64, 64))
    return {**sizes, "steps": steps, "hparams": {**rates, "discount": discount}, **more}


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
    ("pqn", "CartPole-v1"): dict(
        num_envs=32,
        unroll_length=32,
        steps=500_000,
        widths=(64, 64),
        num_epochs=4,
        hparams=dict(learning_rate=1e-3, lambda_=0.9, epsilon_steps=100_000),
    ),
    ("r2d2", "memory_chain"): dict(
        num_envs=16,
        unroll_length=10,
        steps=100_000,
        updates_per_step=8,
        sequence_length=20,
        rescale=False,
        widths=(32,),
        memory_size=32,
        hparams=dict(learning_rate=1e-3, target_rate=0.02, discount=0.99, epsilon_steps=30_000),
    ),
    ("dqn", "CartPole-v1"): _values(100_000, 32, 1e-3, 0.01, n_step=3),
    ("qrdqn", "CartPole-v1"): _values(200_000, 8, 2.5e-4, 0.01),
    ("rainbow", "CartPole-v1"): _values(200_000, 8, 5e-4, 0.02, low=0.0, high=100.0),
    ("pqn", "Breakout-MinAtar"): dict(
        num_envs=64,
        unroll_length=32,
        steps=300_000,
        widths=(64,),
        num_minibatches=8,
        hparams=dict(learning_rate=1e-3, epsilon_steps=100_000),
    ),
    ("dqn", "Breakout-MinAtar"): _pixels(),
    ("qrdqn", "Breakout-MinAtar"): _pixels(),
    ("rainbow", "Breakout-MinAtar"): _pixels(low=0.0, high=10.0, num_atoms=51),
    ("sac", "Pendulum-v1"): _replayed_control(20_000, 0.99, "temperature_learning_rate"),
    ("td3", "Pendulum-v1"): _replayed_control(20_000, 0.99),
    ("td3", "quadrotor/hover"): dict(
        num_envs=10,
        unroll_length=1,
        steps=300_000,
        buffer_size=300_000,
        min_buffer_size=15_000,
        updates_per_step=2,
        store_next_observation=False,
        normalize_observation=True,
        widths=(128, 128),
        activation="relu",
        reward_growth=(1.0, 1.5, 1.0, 1.4, 1.4),
        reward_limits=(2.0, 40.0, 5.0, 1.0, 1.0),
        hparams=dict(
            learning_rate=1e-3,
            policy_learning_rate=1e-3,
            target_rate=0.01,
            policy_warm_up_updates=1_500,
            warm_up_steps=15_000,
            reward_period=100_000,
        ),
    ),
    ("hierarchical", "key_door"): dict(
        num_envs=16,
        unroll_length=64,
        steps=150_000,
        widths=(32,),
        period=8,
        goal_entries=(0,),
        goal_grid=3,
        hparams={"manager.learning_rate": 1e-3, "worker.learning_rate": 1e-3},
    ),
    ("sac", "mjx/reacher"): _replayed_control(100_000, 0.97, "temperature_learning_rate"),
    ("td3", "mjx/reacher"): _replayed_control(100_000, 0.97),
}


def lookup(agent: str, env: str | None) -> dict[str, Any]:
    """The settings for an agent in an environment: the tuned ones over the agent's defaults.

    Keys: num_envs, unroll_length, steps, reset_pool; keywords of the agent's builder; hparams, a dict of numbers.
    """
    return {"reset_pool": 0, **DEFAULTS[agent], **PRESETS.get((agent, env or ""), {})}
