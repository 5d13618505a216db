"""`with_demonstrations`: an agent whose batches are part fresh experience, part given data."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrl.buffers.tree import NO_INDEX
from jaxrl.combinators.lift import salted
from jaxrl.keys import integers
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition


def with_demonstrations(agent: Agent, data: Transition, fraction: float = 0.5) -> Agent:
    """Adds given transitions to every batch [B] that `update` sees, so that they are `fraction` of it.

    Symmetric sampling of RLPD (Ball et al. 2023, https://arxiv.org/abs/2302.02948) at 0.5: inside of `with_replay`, a
    buffer with batches of 128 then gives batches of 256. Rows are drawn with replacement. `extras["demonstration"]` is
    1 for given rows, 0 for others; extras that only one side has are left out, but for weight, num_steps and index.

    Args:
      data: transitions, leaves [D, ...], with the observations and actions of the environment.
      fraction: in (0, 1).

    Raises:
      ValueError: if fraction is outside of (0, 1), or there is no data; in `update`, if the batch is no [B].
    """
    if not 0 < fraction < 1:
        raise ValueError(f"with_demonstrations: fraction is {fraction}, must be in (0, 1)")
    size = data.reward.shape[0]
    if size < 1:
        raise ValueError("with_demonstrations: data has no rows")
    filled = {"weight": jnp.float32(1), "num_steps": jnp.int32(1), "index": jnp.int32(NO_INDEX)}
    data = jax.tree.map(jnp.asarray, data)

    def mix(key: Array, batch: Transition) -> Transition:
        if batch.reward.ndim != 1:
            raise ValueError(
                f"with_demonstrations: rewards are {batch.reward.shape}, needs batches [B]; use with_replay"
            )
        count = round(batch.reward.shape[0] * fraction / (1 - fraction))
        index = integers(key, (count,), size)
        given = jax.tree.map(lambda x: x[index], data)
        ours, theirs = batch.extras.keys(), given.extras.keys()
        names = (ours & theirs) | ((ours | theirs) & filled.keys())
        both = [_fill(batch, names, filled, 0.0), _fill(given, names, filled, 1.0)]
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y.astype(x.dtype)]), *both)

    def init(key: Array, hparams: PyTree, example: Transition) -> PyTree:
        return agent.init(key, hparams, mix(key, example))

    def update(key: Array, state: PyTree, batch: Transition) -> tuple[PyTree, Metrics]:
        size = batch.reward.shape[0]
        state, metrics = agent.update(key, state, mix(salted(key), batch))
        if "priority" in metrics:
            metrics = {**metrics, "priority": metrics["priority"][:size]}
        return state, metrics

    return agent._replace(init=init, update=update)


def _fill(data: Transition, names: set[str], filled: dict[str, Array], demonstration: float) -> Transition:
    """`data` with all of `names` among its extras, and `demonstration`."""
    rows = data.reward.shape
    extras = {name: data.extras.get(name, jnp.broadcast_to(filled[name], rows)) for name in names}
    return data._replace(extras={**extras, "demonstration": jnp.full(rows, demonstration)})
