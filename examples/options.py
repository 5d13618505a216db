"""Options with learned policies and terminations (option-critic) in four rooms, and a map of which one acts where.

The gate keeps an option or replaces it in every step, and pays for a new one; gate and options are plain PPO.
"""

import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.envs.four_rooms import CELLS, ROWS, four_rooms
from jaxrl.tree import replace_fields

NUM_OPTIONS, UPDATES = 4, 80


def train(agent, hparams, env):
    loop = jaxrl.online(agent, env, num_envs=32, unroll_length=64)
    return jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), UPDATES))(jax.random.key(0))


def played(agent, state, env):
    """A rollout of the trained agent, as `act` plays: cells, options, and whether a new one begins."""
    first = jaxrl.interaction.start(jax.random.key(1), agent, state, env, env.params, 64)
    data = jaxrl.rollout(jax.random.key(2), agent, state, env, first, 128)[1]
    before, option = data.extras["option"].before, data.extras["option"].action
    kept = jnp.take_along_axis(before, option[..., None], -1)[..., 0]
    return jnp.argmax(data.observation, -1), option, (before.sum(-1) > 0) & (kept == 0)


def drawn(cells, options):
    """The map, with the option that acts most often in each cell."""
    counts = jnp.zeros((len(CELLS), NUM_OPTIONS)).at[cells.ravel(), options.ravel()].add(1.0)
    rows = [list(row) for row in ROWS]
    for (row, column), count in zip(CELLS, counts):
        rows[row][column] = str(int(count.argmax())) if count.sum() else " "
    return "\n".join("".join(row) for row in rows)


def main():
    env = four_rooms(view="cell", slip=0.1, random_goal=False, max_steps=100)
    agent, hparams = jaxrl.make_agent("option_critic", env, num_options=NUM_OPTIONS, widths=(64,))
    numbers = {"gate.learning_rate": 2e-3, "worker.learning_rate": 2e-3, "own.switch_cost": 0.01}
    state, metrics = train(agent, replace_fields(hparams, **numbers), env)
    returned = metrics["episode/return_sum"] / jnp.maximum(metrics["episode/count"], 1.0)
    cells, options, new = jax.jit(lambda state: played(agent, state, env))(state.agent)
    length = 1.0 / jnp.maximum(new.mean(), 1e-3)
    print(drawn(cells, options))
    print(
        f"reaches the goal in {returned[:8].mean():.0%} of the first episodes, {returned[-8:].mean():.0%} of the last"
    )
    print(f"an option lasts {length:.1f} steps")
    return returned, length


if __name__ == "__main__":
    main()
