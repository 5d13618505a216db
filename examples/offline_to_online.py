"""One learner, three ways to learn: from a file's worth of data, then from interaction, then from both at once.

`iql` never knows which of the loops it is in. Its state is taken from one to the next; replay, exploration and
demonstrations are put around it.
"""

import jax

import jaxrl
from jaxrl import buffers, data, exploration
from jaxrl.combinators.replay import replace_learner
from jaxrl.tree import replace_fields


def score(agent, state, env):
    return float(jaxrl.evaluate(jax.random.key(9), agent, state, env, num_episodes=32).returns.mean())


def collect_some(env):
    """All that a short training run saw, from random play to a policy that swings up, and its mean return."""
    agent, hparams = jaxrl.make_agent("sac", env, preset="Pendulum-v1")
    training = data.record_training(jax.random.key(0), agent, env, 1500, num_envs=4, unroll_length=1, hparams=hparams)
    return training.replay, float(data.episode_returns(training.replay).mean())


def main():
    env = jaxrl.envs.make("Pendulum-v1")
    dataset, behavior = collect_some(env)
    rows = data.to_device(dataset).transitions

    # From data alone.
    learner, hparams = jaxrl.make_agent("iql", env, offline=True, widths=(64, 64))
    hparams = replace_fields(hparams, learning_rate=1e-3, discount=0.97)

    @jax.jit
    def learn(key, rows):
        loop = jaxrl.offline(learner, rows, batch_size=256)  # made inside, so that `rows` stays an argument
        return jaxrl.run(loop, loop.init(key, hparams), 4000)[0]

    before = learn(jax.random.key(2), rows)
    offline = score(learner, before.agent, env)

    # The same learner on its own experience, each batch half of it and half of the data.
    both = jaxrl.with_demonstrations(learner, rows, fraction=0.5)
    buffer = buffers.replay(50_000, batch_size=128)
    explored = jaxrl.with_exploration(both, exploration.gaussian(env.action_space))
    agent = jaxrl.with_replay(explored, buffer, updates_per_step=4)
    loop = jaxrl.online(agent, env, num_envs=4, unroll_length=1)

    @jax.jit
    def go_on(key, learned):
        state = loop.init(key, replace_fields(agent.hparams, learning_rate=1e-3, discount=0.97))
        state = state._replace(agent=replace_learner(state.agent, learned))
        return jaxrl.run(loop, state, 2000)[0]

    after = go_on(jax.random.key(3), before.agent)
    online = score(agent, after.agent, env)
    print(f"behavior {behavior:.0f}, offline {offline:.0f}, then online {online:.0f}  (random play -1230)")
    return behavior, offline, online


if __name__ == "__main__":
    main()
