"""Building blocks of the evidence for METRA; programs are traced, not run."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.spaces import Discrete

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "evidence"))

import metra  # noqa: E402


def test_training_is_one_program():
    train = metra.train.__wrapped__
    states, metrics = jax.eval_shape(lambda: train("METRA, 8 skills", 2, (1e-3, 3e-4, 1e-4), num_updates=2))
    assert states.model.params["log_multiplier"].shape == (3, 2)
    assert states.agent.opt_state == () and metrics["skill/squared_step"].shape == (3, 2)


def test_mazes_without_goals():
    """All episodes begin in one corner, where no goal is seen; the sparse task is over at the far one."""
    keys = jax.random.split(jax.random.key(0), 16)
    env = metra.maze()
    state, observation = jax.vmap(env.reset, (0, None))(keys, env.params)
    assert observation.shape == (16, 4) and metra.visited(observation[:, :2]) == 1
    assert env.observation_space.contains(observation[0])
    task = metra.maze("sparse")
    at_goal = jax.tree.map(lambda x: x[0], state)._replace(position=task.params.goal)
    step = task.step(keys[0], at_goal, jnp.zeros(2), task.params)[1]
    assert step.terminated and step.reward == 1 and step.observation.shape == (4,)


def test_cells_that_were_visited():
    assert metra.visited(np.array([[[1.1, 1.9], [1.5, 1.5]], [[2.0, 1.5], [2.5, 3.1]]])) == 3


def test_what_managers_choose():
    directions, finite = (metra.METHODS[name] for name in ("METRA, directions", "DIAYN, 8 skills"))
    np.testing.assert_allclose(directions.decoded(jnp.array([0.3, 0.4])), [0.6, 0.8], rtol=1e-5)
    np.testing.assert_array_equal(finite.decoded(jnp.int32(2)), np.eye(8)[2])
    env = metra.task_env("DIAYN, 8 skills", 10)
    assert env.action_space == Discrete(8) and metra.task_env(None, 1).action_space.shape == (2,)
