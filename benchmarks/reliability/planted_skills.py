"""Bugs in skills and what they act in: learned rewards, latent actions, mazes, and the goals of HIQL and OTA."""

from planted import Mutation

COMBINATOR, FROZEN = "jaxrl/combinators/skills.py", "jaxrl/combinators/frozen.py"
METRA, DIAYN, CORE = "jaxrl/rewards/metra.py", "jaxrl/rewards/diayn.py", "jaxrl/rewards/core.py"
GOALS, HIQL = "jaxrl/data/goals.py", "jaxrl/agents/hiql.py"
ROOMS, DOOR, LATENT = "envs/four_rooms.py", "envs/key_door.py", "envs/latent_action.py"
MAZE, SCRIPTED = "envs/point_maze/task.py", "envs/point_maze/scripted.py"
TEST, EPISODES = "tests/test_skills.py", "tests/test_skills.py::test_a_skill_lasts_for_an_episode"
REWARDS, STEP = "tests/test_skills.py::test_rewards_by_hand", "tests/test_skills.py::test_a_step_of_metra_by_hand"
LOSSES = "tests/test_hiql.py::test_losses_against_loops"
ROOM_TEST, DOOR_TEST, MAZE_TEST = (f"tests/envs/test_{x}.py" for x in ("four_rooms", "key_door", "point_maze"))

LEARNED = [
    Mutation(
        "skills: METRA leads away from a goal",
        METRA,
        'return skills.toward(embed(state.params["phi"], goal) - embed(state.params["phi"], observation))',
        'return skills.toward(embed(state.params["phi"], observation) - embed(state.params["phi"], goal))',
        f"{TEST}::test_skills_of_goals",
    ),
    Mutation(
        "skills: one for all environments",
        COMBINATOR,
        "model.skills.sample(salted(key, SKILL), jax.tree.leaves(observation)[0].shape[0])",
        "jnp.repeat(model.skills.sample(salted(key, SKILL), 1), jax.tree.leaves(observation)[0].shape[0], 0)",
        EPISODES,
    ),
    Mutation(
        "skills: drawn anew by the same key at every reset",
        COMBINATOR,
        "skill = model.skills.sample(salted(key, SKILL),",
        "skill = model.skills.sample(jax.random.key(SKILL),",
        EPISODES,
    ),
    Mutation(
        "skills: the successor has the skill of another row",
        COMBINATOR,
        "next_observation=join(data.next_observation, skill)\n",
        "next_observation=join(data.next_observation, jnp.roll(skill, 1, 0))\n",
        EPISODES,
    ),
    Mutation(
        "skills: rewards of the model as it was before its update",
        COMBINATOR,
        "agent.update(key, state.agent, rewarded(model_state, data))",
        "agent.update(key, state.agent, rewarded(state.model, data))",
        EPISODES,
    ),
    Mutation(
        "skills: the multiplier falls where the constraint is violated",
        METRA,
        '"log_multiplier": means["room"]}',
        '"log_multiplier": -means["room"]}',
        STEP,
    ),
    Mutation(
        "skills: METRA's constraint has no slack",
        METRA,
        "jnp.minimum(1.0 - length, hp.slack)",
        "(1.0 - length)",
        STEP,
    ),
    Mutation(
        "skills: METRA's steps are places",
        METRA,
        "return embed(params, data.next_observation) - embed(params, data.observation)",
        "return embed(params, data.next_observation)",
        REWARDS,
    ),
    Mutation(
        "skills: directions of discrete ones are not centered",
        CORE,
        "return (skill - 1.0 / num) * (num / (num - 1.0))",
        "return skill",
        REWARDS,
    ),
    Mutation(
        "skills: DIAYN without the log of the prior",
        DIAYN,
        'data.extras["skill"], -1) + math.log(num_skills)',
        'data.extras["skill"], -1)',
        REWARDS,
    ),
    Mutation(
        "skills: DIAYN rewards where a step began",
        DIAYN,
        "log_q(state.params, data.next_observation) * data",
        "log_q(state.params, data.observation) * data",
        REWARDS,
    ),
    Mutation(
        "skills: what is frozen still observes",
        FROZEN,
        "agent._replace(update=nothing, observe=nothing)",
        "agent._replace(update=nothing)",
        f"{TEST}::test_chosen_skills",
    ),
    Mutation(
        "skills: a frozen state is given away with the loop's",
        FROZEN,
        "jax.tree.map(lambda x: jnp.array(x, copy=True), state)",
        "state",
        f"{TEST}::test_chosen_skills",
    ),
    Mutation(
        "skills: a decoder that explores",
        FROZEN,
        "agent.act_greedy if greedy else agent.act",
        "agent.act if greedy else agent.act_greedy",
        f"{TEST}::test_decoders_take_the_mode_or_draw",
    ),
    Mutation(
        "latent action decoded by the first observation for ever",
        LATENT,
        "return LatentActionState(inner, timestep.observation), timestep",
        "return LatentActionState(inner, state.observation), timestep",
        f"{TEST}::test_latent_actions",
    ),
    Mutation(
        "latent action drawn with the key of the environment",
        LATENT,
        "decode(jax.random.fold_in(key, salt), params",
        "decode(key, params",
        f"{TEST}::test_latent_actions_have_keys_of_their_own",
    ),
]
GOALS_IN_DATA = [
    Mutation(
        "goals from trajectories that come later",
        GOALS,
        "later_rows(later_key, row, shared.last[row], hp.goal_discount)",
        "later_rows(later_key, row, shared.last[-1], hp.goal_discount)",
        "tests/test_goals.py::test_goals_against_counting",
    ),
    Mutation(
        "goals: a truncation does not end a trajectory",
        GOALS,
        "jnp.where(is_last(data), rows, rows[-1])",
        "jnp.where(data.terminated, rows, rows[-1])",
        "tests/test_goals.py::test_ends_of_trajectories",
    ),
    Mutation(
        "goals: a row that is its goal costs a step",
        GOALS,
        "reward=there.astype(data.reward.dtype) - 1.0,",
        "reward=jnp.full_like(data.reward, -1.0),",
        "tests/test_goals.py::test_what_a_goal_changes",
    ),
    Mutation(
        "goals: subgoals k + 1 steps ahead",
        GOALS,
        "ahead = jnp.minimum(row + hp.subgoal_steps.astype(jnp.int32), last)",
        "ahead = jnp.minimum(row + hp.subgoal_steps.astype(jnp.int32) + 1, last)",
        "tests/test_goals.py::test_subgoals_against_loops",
    ),
    Mutation(
        "goals: the high level's target lies behind its goal",
        GOALS,
        "jnp.where(random, ahead, jnp.minimum(ahead, later))",
        "ahead",
        "tests/test_goals.py::test_subgoals_against_loops",
    ),
    Mutation(
        "goals: options of one step, whatever n is",
        GOALS,
        "row + hp.option_steps.astype(jnp.int32)",
        "row + 1",
        "tests/test_goals.py::test_option_targets_against_loops",
    ),
    Mutation(
        "goals: options that their trajectory cuts count",
        GOALS,
        "weight(data) * (reached | (end <= last))",
        "weight(data)",
        "tests/test_goals.py::test_option_targets_against_loops",
    ),
    Mutation(
        "HIQL: the expectile the wrong way around",
        HIQL,
        "jnp.where(advantage < 0, 1.0 - hp.expectile, hp.expectile)",
        "jnp.where(advantage < 0, hp.expectile, 1.0 - hp.expectile)",
        LOSSES,
    ),
    Mutation(
        "HIQL: the high policy clones the goal that the low one is given",
        HIQL,
        "high_policy.distribution.inverse(phi[1])",
        "high_policy.distribution.inverse(phi[0])",
        LOSSES,
    ),
    Mutation(
        "HIQL: the high level of OTA weighs by the value of steps",
        HIQL,
        "evaluate(high, state.params, far, with_goal(ahead, goal))",
        'evaluate("value", state.params, far, with_goal(ahead, goal))',
        LOSSES,
    ),
    Mutation(
        "HIQL: the representation learns from the low policy too",
        HIQL,
        "phi = embed(state.params, jax.tree.map",
        "phi = embed(params, jax.tree.map",
        "tests/test_hiql.py::test_what_learns_from_what",
    ),
    Mutation(
        "HIQL: what the high policy says is not put on the sphere",
        HIQL,
        "subgoal = project(high_policy.distribution.transform(choose_high(high_key, outputs)))",
        "subgoal = high_policy.distribution.transform(choose_high(high_key, outputs))",
        "tests/test_hiql.py::test_the_low_policy_is_shown_the_sphere",
    ),
]
WORLDS = [
    Mutation(
        "door opens without the key",
        DOOR,
        "terminated = has_key & (position",
        "terminated = (position",
        f"{DOOR_TEST}::test_the_door_needs_the_key_and_walls_stop",
    ),
    Mutation(
        "door: the key is lost on the way",
        DOOR,
        "has_key = state.has_key | (position <= 0.5)",
        "has_key = position <= 0.5",
        f"{DOOR_TEST}::test_reach_is_half_a_cell",
    ),
    Mutation(
        "door: one key for whether a move slips and where",
        DOOR,
        "jax.random.rademacher(move_key, (), jnp.float32)",
        "jax.random.rademacher(slip_key, (), jnp.float32)",
        f"{DOOR_TEST}::test_it_is_a_proper_environment[False]",
    ),
    Mutation(
        "rooms: a slip may go where the move would",
        ROOMS,
        "jax.random.randint(other_key, (), 1, 4)",
        "jax.random.randint(other_key, (), 0, 4)",
        f"{ROOM_TEST}::test_slips",
    ),
    Mutation(
        "rooms: a start in the goal's cell",
        ROOMS,
        "FourRoomsState(start + (start >= wanted),",
        "FourRoomsState(start,",
        f"{ROOM_TEST}::test_starts_and_moving_goals",
    ),
    Mutation(
        "rooms: the start is drawn with the goal's key",
        ROOMS,
        "jax.random.randint(start_key, (), 0, num - 1)",
        "jax.random.randint(goal_key, (), 0, num - 1)",
        f"{ROOM_TEST}::test_it_is_a_proper_environment",
    ),
    Mutation(
        "rooms: the clock terminates",
        ROOMS,
        "TimeStep(observe(state), reward, terminated, ~terminated & (state.time >= params.max_steps))",
        "TimeStep(observe(state), reward, terminated | (state.time >= params.max_steps), terminated & False)",
        f"{ROOM_TEST}::test_ends",
    ),
    Mutation(
        "maze: walls let through at corners",
        MAZE,
        """    for axis in (0, 1):  # one after the other, so that a point slides along a wall
        moved = position.at[..., axis].add(TIME_STEP * velocity[..., axis])
        cell = jnp.floor(moved).astype(jnp.int32)
""",
        """    first = position
    for axis in (0, 1):
        moved = position.at[..., axis].add(TIME_STEP * velocity[..., axis])
        cell = jnp.floor(first.at[..., axis].set(moved[..., axis])).astype(jnp.int32)
""",
        f"{MAZE_TEST}::test_physics_by_hand",
    ),
    Mutation(
        "maze: starts within reach of the goal",
        MAZE,
        "> 1.5 * RADIUS",
        ">= 0.0",
        f"{MAZE_TEST}::test_starts_and_goals",
    ),
    Mutation(
        "maze: the last row of an episode leads to the first of the next",
        SCRIPTED,
        "jnp.concatenate([moving[1:], jnp.concatenate(last[:2], -1)[None]])",
        "jnp.roll(moving, -1, 0)",
        f"{MAZE_TEST}::test_data_is_episodes_of_the_physics[explore]",
    ),
]
SKILLS = LEARNED + GOALS_IN_DATA + WORLDS
