"""Every learner from batches on the diagnostic environments: values, right actions, truncation, four seeds each."""

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
    "iqn": (False, dict(num_quantiles=8), VALUES),
    "c51": (False, dict(low=-3.0, high=3.0, num_atoms=31), VALUES),
    "rainbow": (False, dict(low=-3.0, high=3.0, num_atoms=31), VALUES),
    "pqn": (False, {}, dict(learning_rate=3e-3, epsilon_steps=2000.0, epsilon_end=0.05)),
    "sac": (True, {}, CONTINUOUS | dict(initial_temperature=1e-3, target_entropy=-8.0)),
    "td3": (True, {}, CONTINUOUS),
    "ddpg": (True, {}, CONTINUOUS),
}


def make(name):
    continuous, static, numbers = LEARNERS[name]
    agent_name = name.split("-")[0]

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
    sizes = dict(num_envs=16, unroll_length=4 if off_policy else 16, num_updates=300 if off_policy else 200)
    learner = (lambda env: build(env, offline=True)) if off_policy else None
    for probe, result in probing.learn(build, LEARNERS[name][0], learner=learner, **sizes).items():
        if probe == "memory":
            continue  # none of these has any
        error = np.abs(result.values - result.exact)
        assert (error < 0.15).all(), f"{probe}: values off by {error.max(axis=1)}"
        assert (result.right > 0.95).all(), f"{probe}: right with probability {result.right}"
