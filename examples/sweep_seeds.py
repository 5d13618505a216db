"""PPO's whole training as one jitted call, mapped over 16 seeds with `vmap`.

Rollouts, updates and evaluation compile into one XLA program; the seeds run side by side in it. A second call with
other learning rates does not compile again, because hyperparameters are traced.
"""

import time

import jax
import jax.numpy as jnp

import jaxrl

NUM_SEEDS, NUM_ENVS, UNROLL_LENGTH, NUM_UPDATES = 16, 16, 64, 50


def main():
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, preset="CartPole-v1", widths=(32, 32))
    loop = jaxrl.online(agent, env, num_envs=NUM_ENVS, unroll_length=UNROLL_LENGTH)

    @jax.jit
    def train_all(keys, learning_rate):
        def train(key):
            init_key, score_key = jax.random.split(key)
            state = loop.init(init_key, hparams._replace(learning_rate=learning_rate))
            state, metrics = jaxrl.run(loop, state, NUM_UPDATES)
            score = jaxrl.evaluate(score_key, agent, state.agent, env, num_episodes=16)
            return score.returns.mean(), metrics

        return jax.vmap(train)(keys)

    keys = jax.random.split(jax.random.key(0), NUM_SEEDS)
    steps = NUM_SEEDS * NUM_UPDATES * UNROLL_LENGTH * NUM_ENVS
    for learning_rate in (1e-3, 3e-3):
        begin = time.perf_counter()
        returns, metrics = jax.block_until_ready(train_all(keys, learning_rate))
        seconds = time.perf_counter() - begin
        print(f"learning rate {learning_rate}: {steps:,} steps over {NUM_SEEDS} seeds in {seconds:.1f} s")
        print(f"  mean return of each seed: {jnp.sort(returns).round(0).astype(int).tolist()}")
        print(f"  entropy of the policies, first to last: {metrics['entropy'][:, ::10].mean(0).round(2).tolist()}")
    print(f"compiled {train_all._cache_size()} time")
    return returns


if __name__ == "__main__":
    main()
