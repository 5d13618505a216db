"""Skills without a reward, then a goal without training, and a task whose actions are skills.

METRA learns directions to go in from one end of a maze. A goal is then reached by asking, in every step, which
direction leads there; and PPO, which knows nothing of thrust, learns a task by choosing a direction for ten steps.
"""

import jax

import jaxrl
from jaxrl import buffers, exploration, networks
from jaxrl.combinators.frozen import decoder
from jaxrl.combinators.replay import learner_state
from jaxrl.combinators.skills import choose_skills, join, joined_space, with_skills
from jaxrl.envs.latent_action import latent_action
from jaxrl.envs.point_maze import point_maze
from jaxrl.envs.transforms import repeat_action
from jaxrl.rewards import metra, sphere
from jaxrl.spaces import Box
from jaxrl.tree import replace_fields

KEY = jax.random.key(0)
KEEP, DISCOUNT = 10, 0.99


def learn_skills(env, inner, model, num_updates):
    """The state of `with_skills(inner, model)` after `num_updates` rollouts of 128 steps."""
    explored = jaxrl.with_exploration(with_skills(inner, model), exploration.warm_up(env.action_space))
    agent = jaxrl.with_replay(explored, buffers.replay(50_000, 128, min_size=1000), updates_per_step=4)
    rates = dict.fromkeys(("learning_rate", "policy_learning_rate", "skill_learning_rate"), 1e-3)
    numbers = rates | dict(multiplier_learning_rate=1e-2, target_rate=0.02, initial_temperature=0.01)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=8)
    state, _ = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY, replace_fields(agent.hparams, **numbers)), num_updates))()
    return learner_state(agent.actor(state.agent))


def successes(agent, state, env):
    return float(jax.jit(lambda: (jaxrl.evaluate(KEY, agent, state, env, num_episodes=64).returns > 0).mean())())


def learn_task(env, num_updates):
    """Success of PPO."""
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(32, 32))
    hparams = replace_fields(hparams, learning_rate=3e-3, discount=DISCOUNT)
    loop = jaxrl.online(agent, env, num_envs=16, unroll_length=32)
    state, _ = jax.jit(lambda: jaxrl.run(loop, loop.init(KEY, hparams), num_updates))()
    return successes(agent, state.agent, env)


def main(skill_updates=600, task_updates=40):
    free = point_maze("umaze", reward="dense", random_start=False, max_steps=50)  # its reward is not looked at
    task = point_maze("umaze", random_start=False)  # reward 1 at the goal, whose place ends every observation
    place = networks.view(networks.mlp((32, 32), activation="relu"), lambda observation: observation[..., :2])
    model = metra(networks.sequential(place, networks.dense(2)), sphere(2))
    seen = free._replace(observation_space=joined_space(free.observation_space, model.skills.space))
    inner, _ = jaxrl.make_agent("sac", seen, offline=True, widths=(32, 32))
    state = learn_skills(free, inner, model, skill_updates)

    def toward_goal(model_state, observation):
        return model.toward(model_state, observation, observation[..., 4:])

    act = decoder(inner, join)
    skilled = latent_action(
        task,
        lambda key, state, observation, z: act(key, state, observation, model.skills.toward(z)),
        state.agent,
        Box(-1.0, 1.0, (2,)),
    )
    found = {
        "skills at random": successes(with_skills(inner, model), state, task),
        "skills toward the goal": successes(choose_skills(inner, toward_goal), state, task),
        "PPO on thrust": learn_task(repeat_action(task, KEEP, discount=DISCOUNT), task_updates),
        "PPO on skills": learn_task(repeat_action(skilled, KEEP, discount=DISCOUNT), task_updates),
    }
    for name, share in found.items():
        print(f"{name:24} {share:4.0%} of the episodes reach the goal")
    return found


if __name__ == "__main__":
    main()
