"""A trained policy inside somebody else's jitted program.

The foreign program here is a design problem: which pole length makes CartPole hardest for a given controller? It calls
the agent's `act_greedy` from its own `scan`, maps over designs with `vmap`, and knows nothing of training loops.
"""

import jax
import jax.numpy as jnp

import jaxrl


def train(env, num_updates=300):
    """Returns a pure function (observation [N, obs]) -> action [N], and the arrays that it needs."""
    agent, hparams = jaxrl.make_agent("ppo", env, preset="CartPole-v1")
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=64)
    state, _ = jax.jit(lambda key: jaxrl.run(loop, loop.init(key, hparams), num_updates))(jax.random.key(0))
    weights = agent.actor(state.agent)  # without optimiser state

    def policy(weights, observation):
        memory = agent.init_memory(jax.random.key(0), weights, observation)  # feed-forward: empty
        return agent.act_greedy(jax.random.key(0), weights, memory, observation)[1]

    return policy, weights


def main():
    env = jaxrl.envs.make("CartPole-v1")
    policy, weights = train(env)

    @jax.jit
    def survival(weights, half_lengths):
        """Mean number of steps that the pole stays up, of at most 500, for each half-length [D]."""

        def one_design(half_length):
            params = env.params.replace(length=half_length, polemass_length=env.params.masspole * half_length)

            def one_episode(key):
                def step(carry, key):
                    state, observation, alive = carry
                    action = policy(weights, observation[None])[0]
                    state, timestep = env.step(key, state, action, params)
                    alive = alive & ~timestep.terminated
                    return (state, timestep.observation, alive), alive

                carry = (*env.reset(key, params), jnp.bool_(True))
                return jax.lax.scan(step, carry, jax.random.split(key, 500))[1].sum()

            return jax.vmap(one_episode)(jax.random.split(jax.random.key(1), 32)).mean()

        return jax.vmap(one_design)(half_lengths)

    half_lengths = jnp.array([0.05, 0.1, 0.25, 0.5, 1.0, 2.0])
    steps = survival(weights, half_lengths)
    for half_length, mean in zip(half_lengths, steps):
        print(f"half-length {half_length:.2f} m: up for {mean:5.0f} of 500 steps")
    return steps


if __name__ == "__main__":
    main()
