"""A goal-reaching DQN put together from parts: hindsight, n-step, priorities are choices of a buffer.

The learner is the same in every row; what is read from memory, and how it is chosen, is said where the buffer is made.
"""

import jax

import jaxrl
from jaxrl import buffers, exploration
from jaxrl.envs.bit_flip import bit_flip, goal_reward
from jaxrl.tree import field_names, replace_fields

NUM_BITS = 8

BUFFERS = {
    "uniform": dict(),
    "prioritized": dict(sampler=buffers.prioritized()),
    "3-step": dict(reader=buffers.n_step(3)),
    "hindsight": dict(reader=buffers.hindsight(buffers.goal_relabel(goal_reward), horizon=NUM_BITS)),
}


def success(env, learner, choices):
    """How often greedy episodes reach their goal after 25,600 steps."""
    buffer = buffers.replay(20_000, 128, min_size=1000, **choices)
    explored = jaxrl.with_exploration(learner, exploration.epsilon_greedy(env.action_space))
    agent = jaxrl.with_replay(explored, buffer, updates_per_step=8)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=4)
    numbers = dict(learning_rate=1e-3, target_rate=0.05, discount=0.98, n_step_discount=0.98)
    hparams = replace_fields(agent.hparams, **{k: v for k, v in numbers.items() if k in field_names(agent.hparams)})

    @jax.jit
    def train(key):
        state, _ = jaxrl.run(loop, loop.init(key, hparams), 400)
        played = jaxrl.evaluate(key, agent, state.agent, env, num_episodes=128)
        return (played.returns > -NUM_BITS).mean()

    return float(train(jax.random.key(0)))


def main():
    env = bit_flip(NUM_BITS)
    learner, _ = jaxrl.make_agent("dqn", env, offline=True, widths=(128,))
    found = {name: success(env, learner, choices) for name, choices in BUFFERS.items()}
    for name, share in found.items():
        print(f"{name:12} reaches {share:4.0%} of the goals")
    return found


if __name__ == "__main__":
    main()
