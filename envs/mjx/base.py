"""What our MJX tasks share: a task is an XML file, four short functions, and `mjx_env` around them.

The carried state is lean: positions, velocities and the solver's warm start, not MJX's `Data` (hundreds of numbers, all
recomputed from these in every physics step). Resets therefore run no physics and cost next to nothing.
"""

from __future__ import annotations

import inspect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs import divergence
from jaxrl.envs.adapter import import_quietly
from jaxrl.spaces import Box
from jaxrl.types import Array, Env, PyTree, TimeStep


class MjxParams(NamedTuple):
    """Traced physics. `vmap` over it is domain randomisation.

    Attributes:
      gravity: [] m/s^2, downwards.
      mass: [] factor of all masses and inertias.
      damping: [] factor of the joints' damping.
      friction: [] factor of the contacts' friction; without effect where nothing touches.
      strength: [] factor of the motors' torques.
    """

    gravity: Array
    mass: Array
    damping: Array
    friction: Array
    strength: Array


class Body(NamedTuple):
    """Configuration of the bodies, and the task's own constants of this episode."""

    qpos: Array  # [nq] m, rad
    qvel: Array  # [nv] m/s, rad/s
    goal: PyTree  # what the task drew at the reset, () if nothing


class MjxState(NamedTuple):
    body: Body
    warmstart: Array  # [nv] accelerations of the last physics step, where the constraint solver starts
    time: Array  # [] int32, control steps since the reset


def mjx_env(
    xml: str,
    start: Callable[[Array], Body],
    observe: Callable[[Body], Array],
    outcome: Callable[[Body, Body, Array], tuple[Array, Array]],
    *,
    num_substeps: int,
    episode_length: int,
) -> Env:
    """An `Env` on an MJX model.

    Each control step holds the action, clipped to [-1, 1], for `num_substeps` physics steps. Where the physics
    diverges (a number that is not finite), the episode is truncated at the last finite configuration, as
    `jaxrl.envs.divergence` says.

    Args:
      xml: file in `assets/`, or the model itself.
      start: (key) -> Body.
      observe: (Body) -> observation [D].
      outcome: (before, after, action) -> reward [], terminated [] bool.
      episode_length: control steps until truncation.

    Raises:
      ValueError: if a count is below 1.
    """
    name = xml if xml.endswith(".xml") else "mjx_env"
    if episode_length < 1 or num_substeps < 1:
        raise ValueError(f"{name}: episode_length {episode_length} and num_substeps {num_substeps} must be >= 1")
    mjx = import_quietly("mujoco.mjx")
    mujoco = import_quietly("mujoco")
    if xml.endswith(".xml"):
        mj_model = mujoco.MjModel.from_xml_path(str(pathlib.Path(__file__).parent / "assets" / xml))
    else:
        mj_model = mujoco.MjModel.from_xml_string(xml)
    with jax.ensure_compile_time_eval():  # a task may be made inside somebody's jit
        model = mjx.put_model(mj_model, **_implementation(mjx.put_model))
        blank = mjx.make_data(mj_model, **_implementation(mjx.make_data))
    params = MjxParams(*(jnp.asarray(x, jnp.float32) for x in (-mj_model.opt.gravity[2], 1.0, 1.0, 1.0, 1.0)))

    def reset(key, params):
        del params
        body = start(key)
        return MjxState(body, jnp.zeros(mj_model.nv), jnp.zeros((), jnp.int32)), observe(body)

    def step(key, state, action, params):
        del key  # the physics is deterministic
        action = jnp.clip(action, -1.0, 1.0)
        before, randomized = state.body, _randomized(model, params)

        def substep(physics, _):
            qpos, qvel, warmstart = physics
            data = blank.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart, ctrl=params.strength * action)
            data = mjx.step(randomized, data)
            return (data.qpos, data.qvel, data.qacc_warmstart), None

        physics, _ = jax.lax.scan(substep, (before.qpos, before.qvel, state.warmstart), length=num_substeps)
        finite = jnp.all(jnp.isfinite(jnp.concatenate(physics)))
        qpos, qvel, warmstart = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old), physics, (before.qpos, before.qvel, state.warmstart)
        )
        after = Body(qpos, qvel, before.goal)
        reward, terminated = outcome(before, after, jnp.where(finite, action, 0.0))
        time = state.time + 1
        observation = observe(after)  # the one before where the physics diverged, as the configuration is
        timestep = TimeStep(observation, reward, terminated, (time >= episode_length) & ~terminated)
        return MjxState(after, warmstart, time), divergence.masked(finite, timestep, observation)

    body = jax.eval_shape(start, jax.random.key(0))
    shape = jax.eval_shape(observe, body).shape
    return Env(reset, step, params, Box(-np.inf, np.inf, shape), Box(-1.0, 1.0, (mj_model.nu,)))


def tolerance(x: Array, margin: float) -> Array:
    """1 at x = 0 that falls with |x|: 1 / (1 + 9 (x / margin)^2), so 0.1 at the margin. Reward shaping in (0, 1]."""
    return 1.0 / (1.0 + 9.0 * jnp.square(x / margin))


def _randomized(model: Any, params: MjxParams) -> Any:
    """`model` with `params`; `invweight0` is what the constraint solver believes about inertia, hence the division."""
    return model.tree_replace(
        {
            "opt.gravity": jnp.zeros(3).at[2].set(-params.gravity),
            "body_mass": model.body_mass * params.mass,
            "body_inertia": model.body_inertia * params.mass,
            "body_subtreemass": model.body_subtreemass * params.mass,
            "body_invweight0": model.body_invweight0 / params.mass,
            "dof_invweight0": model.dof_invweight0 / params.mass,
            "dof_damping": model.dof_damping * params.damping,
            "pair_friction": model.pair_friction * params.friction,
        }
    )


def _implementation(function: Callable) -> dict[str, str]:
    """Newer MJX would choose Warp on some GPUs, which is not deterministic; older ones have no choice."""
    return {"impl": "jax"} if "impl" in inspect.signature(function).parameters else {}
