"""`restore`: a run directory as values, to go on with in Python."""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

import jax

from jaxrl.types import Agent, Env, Loop, PyTree


class RestoredRun(NamedTuple):
    """A run as it was after `steps`: `jaxrl.run(loop, state, n)` goes on as `jaxrl train` would have, to the bit.

    Attributes:
      state: of the loop; `agent.act_greedy` takes `state.agent`.
      hparams: that the run began with; those in force are in the state.
      steps: environment steps, or updates of a run from a dataset.
      config: as in config.json.
    """

    loop: Loop
    state: PyTree
    agent: Agent
    env: Env
    hparams: PyTree
    steps: int
    config: dict[str, Any]


def restore(run: str | os.PathLike, env: Env | None = None, step: int | None = None) -> RestoredRun:
    """The newest good checkpoint of a run; one that is damaged is skipped, with a line.

    The run may be going on meanwhile. Nothing that its files name is run: an environment MODULE:NAME must be given.

    Args:
      run: a run directory.
      env: the environment it is trained in; needed only if that is not one of `jaxrl.envs.names()`.
      step: of the checkpoint; None is the newest. Others that are there: `checkpoints.open_readonly(folder).steps()`.

    Raises:
      ValueError: if no checkpoint is good, or what it says does not make the agent and environment that it is of.
    """
    from jaxrl import checkpoints
    from jaxrl.cli import programs, resume
    from jaxrl.cli.errors import BadInput
    from jaxrl.cli.run_directory import CHECKPOINTS

    run = pathlib.Path(run)
    try:
        config = resume.read_config(run)
        settings = resume.read_settings(config, run, env=env)
        program = programs.make(settings)
    except BadInput as error:
        raise ValueError(str(error)) from None
    reader = checkpoints.open_readonly(run / CHECKPOINTS)
    keeps_buffers = settings.options["checkpoint_replay"]

    def init(data: Any) -> PyTree:
        return program.make_loop(data).init(jax.random.key(0), settings.hparams)

    template = jax.eval_shape(init, program.data)
    restored = reader.restore(template if keeps_buffers else programs.without_buffers(template), step)
    state = restored.state
    if not keeps_buffers:
        state = programs.with_buffers(state, jax.jit(init)(program.data))
    data = program.draw(restored.step // program.chunk_steps)
    return RestoredRun(
        program.make_loop(data), state, settings.agent, settings.env, settings.hparams, restored.step, restored.config
    )
