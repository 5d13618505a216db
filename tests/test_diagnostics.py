"""Every learner from batches on the diagnostic environments: values, right actions, truncation, four seeds each (two
where a step takes long). C51 is within Rainbow."""

import numpy as np
import probing
import pytest

import jaxrl
from jaxrl.factory import AGENTS, static_arguments
from jaxrl.tree import field_names, replace_fields

COMMON = dict(widths=(32,), batch_size=128, buffer_size=4096, min_buffer_size=256, updates_per_step=8)
# agent: continuous actions, static choices, numbers
VALUES = dict(learning_rate=3e-3, target_rate=0.05, epsilon_steps=2000.0, epsilon_end=0.2)
CONTINUOUS = dict(learning_rate=3e-3, policy_learning_rate=3e-3, target_rate=0.05)
LEARNERS = {
    "dqn": (False, {}, VALUES),
    "dqn-n-step-prioritized": (False, dict(prioritized=True, n_step=3), VALUES),
    "dqn-once-stored": (False, dict(store_next_observation=False), VALUES),
    "qrdqn": (False, dict(num_quantiles=8), VALUES),
    "iqn": (False, dict(num_quantiles=4, num_samples=4), VALUES),
    "rainbow": (False, dict(low=-3.0, high=3.0, num_atoms=31), VALUES),
    "pqn": (False, {}, dict(learning_rate=3e-3, epsilon_steps=2000.0, epsilon_end=0.05)),
    "sac": (True, {}, CONTINUOUS | dict(initial_temperature=1e-3, target_entropy=-8.0)),
    "td3": (True, {}, CONTINUOUS),
    "ddpg": (True, {}, CONTINUOUS),
    "redq": (
        True,
        dict(num_critics=4, policy_period=1),
        CONTINUOUS | dict(initial_temperature=1e-3, target_entropy=-8.0),
    ),
    "mdpo_off": (
        True,
        dict(reference_period=100),
        CONTINUOUS | dict(initial_temperature=0.0, temperature_learning_rate=0.0, mirror_step=5.0),
    ),
    "discrete_sac": (False, {}, CONTINUOUS | dict(initial_temperature=1e-3, temperature_learning_rate=0.0)),
    "r2d2": (
        False,
        dict(widths=(16,), memory_size=16, batch_size=32, sequence_length=8, td_steps=1, rescale=False),
        VALUES | dict(epsilon_end=0.05),
    ),
    "iql": (True, dict(widths=(32,)), dict(learning_rate=3e-3, target_rate=0.05)),
    "xql": (True, {}, dict(learning_rate=3e-3, target_rate=0.05)),
    "fdvl": (True, {}, dict(learning_rate=3e-3, target_rate=0.05)),
    "awac": (True, {}, dict(learning_rate=3e-3, target_rate=0.05)),
    "cql": (True, dict(num_samples=2), CONTINUOUS | dict(initial_temperature=1e-3, conservative_weight=0.01)),
}
# These stay near what is in the data: their values are exact where actions do not matter.
FROM_DATA = {"iql", "xql", "fdvl", "awac", "cql"}
NO_CHOICE = {"constant_reward", "observation_reward", "discount", "truncation"}


def make(name):
    continuous, static, numbers = LEARNERS[name]
    agent_name = name.partition("-")[0]

    def build(env, offline=False):
        allowed = static_arguments(AGENTS[agent_name], offline)
        chosen = {k: v for k, v in {**COMMON, **static}.items() if k in allowed}
        agent, hparams = jaxrl.make_agent(agent_name, env, offline=offline, **chosen)
        if offline:
            return agent
        given = {**numbers, "discount": probing.DISCOUNT}
        given |= {"n_step_discount": probing.DISCOUNT} if "n_step_discount" in field_names(hparams) else {}
        return agent, replace_fields(hparams, **given)

    return build


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_diagnostic_environments(name):
    """Values within 0.15 of the exact ones, the right action with probability above 0.95."""
    build, off_policy = make(name), name != "pqn"
    alone = AGENTS[name.partition("-")[0]].offline  # the learner can be asked without its exploration
    seeds = 2 if name in ("iqn", "rainbow", "r2d2") else 4
    sizes = dict(
        num_seeds=seeds, num_envs=16, unroll_length=4 if off_policy else 16, num_updates=300 if off_policy else 200
    )
    learner = (lambda env: build(env, offline=True)) if alone else None
    for probe, result in probing.learn(build, LEARNERS[name][0], learner=learner, **sizes).items():
        if (probe == "memory" and name != "r2d2") or (name in FROM_DATA and probe not in NO_CHOICE):
            continue
        error = np.abs(result.values - result.exact)
        assert (error < 0.15).all(), f"{probe}: values off by {error.max(axis=1)}"
        assert (result.right > 0.95).all(), f"{probe}: right with probability {result.right}"
