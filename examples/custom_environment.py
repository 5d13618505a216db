"""An environment of one's own in 30 lines, checked, then learned by PPO.

A capsule falls towards the ground and has an engine that is on or off. The return is 1 for a touchdown at rest, less
the speed of the touchdown, and less a little for every step that the engine burns. A capsule that keeps its engine on
flies away.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.spaces import Box, Discrete


class Capsule(NamedTuple):
    height: jax.Array
    speed: jax.Array  # upwards
    time: jax.Array


class Physics(NamedTuple):  # traced: vmap over it is domain randomisation
    gravity: jax.Array
    thrust: jax.Array


def lander() -> jaxrl.Env:
    def observe(capsule):
        return jnp.stack([capsule.height, capsule.speed])

    def reset(key, physics):
        height = jax.random.uniform(key, minval=1.0, maxval=2.0)
        capsule = Capsule(height, jnp.float32(0.0), jnp.int32(0))
        return capsule, observe(capsule)

    def step(key, capsule, action, physics):
        speed = capsule.speed + 0.1 * (physics.thrust * action - physics.gravity)
        height = jnp.maximum(capsule.height + 0.1 * speed, 0.0)
        capsule = Capsule(height, speed, capsule.time + 1)
        landed = height <= 0.0  # the end of the task; running out of time is not, and says so
        late = (capsule.time >= 100) & ~landed
        reward = jnp.where(landed, 1.0 - jnp.abs(speed), 0.0) - 0.002 * action
        return capsule, jaxrl.TimeStep(observe(capsule), reward, landed, late)

    physics = Physics(gravity=jnp.float32(1.0), thrust=jnp.float32(2.0))
    return jaxrl.Env(reset, step, physics, Box((0.0, -15.0), (60.0, 15.0), (2,)), Discrete(2))


def main():
    env = lander()
    jaxrl.envs.check_env(env)  # raises, and says what to mend
    agent, hparams = jaxrl.make_agent("ppo", env)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=64)
    train = jax.jit(lambda state: jaxrl.run(loop, state, 50))
    state = loop.init(jax.random.key(0), hparams)
    for i in range(1, 5):
        state, metrics = train(state)
        mean = metrics["episode/return_sum"].sum() / metrics["episode/count"].sum()
        print(f"{i * 50 * 16 * 64:7,} steps: mean return {mean:5.2f}")
    returns = jaxrl.evaluate(jax.random.key(1), agent, state.agent, env, max_steps=100).returns
    print(f"greedy: {returns.mean():.2f} over {len(returns)} episodes, the worst {returns.min():.2f}")
    return returns


if __name__ == "__main__":
    main()
