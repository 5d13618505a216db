"""Bugs in hierarchies: segments, managers and workers, options, sequences."""

from planted import Mutation

HIERARCHICAL, SEGMENTS = "jaxrl/combinators/hierarchy/hierarchical.py", "jaxrl/combinators/hierarchy/segments.py"
RELABEL, SEQUENCER = "jaxrl/combinators/hierarchy/relabel.py", "jaxrl/combinators/hierarchy/sequencer.py"
OPTIONS, SWITCH = "jaxrl/combinators/hierarchy/options.py", "jaxrl/combinators/hierarchy/switch.py"
TEST, LOOP = "tests/test_hierarchical.py", "tests/test_hierarchical.py::test_segments_are_those_of_a_plain_loop"
RELATIVE = f"{TEST}::test_relative_goals_stay_where_they_are"
CORRECTION = f"{TEST}::test_the_correction_chooses_the_goal_that_explains_what_was_done"
OPTION_ROWS = "tests/test_options.py::test_what_gate_and_worker_learn_from"
SWITCH_ROWS = "tests/test_options.py::test_each_agent_of_several_learns_from_its_own_option"
CALLS = "tests/test_options.py::test_call_and_return_by_hand"
SEQUENCES = "tests/test_sequencer.py::test_segments_and_histories_of_a_plain_loop"

MANAGERS = [
    Mutation(
        "segment: its rewards discounted one step too much",
        SEGMENTS,
        "hp.segment_discount**segment.elapsed *",
        "hp.segment_discount ** (segment.elapsed + 1) *",
        LOOP,
    ),
    Mutation(
        "segment: its rewards discounted by rows, not by primitive steps",
        SEGMENTS,
        "hp.segment_discount**segment.elapsed *",
        "hp.segment_discount**segment.age *",
        LOOP,
    ),
    Mutation(
        "segment: one step longer than the period",
        HIERARCHICAL,
        "(segment.age + 1 >= limit)",
        "(segment.age >= limit)",
        LOOP,
    ),
    Mutation(
        "segment: rows of weight 0 enter it",
        HIERARCHICAL,
        "return select(there, HierarchicalMemory(above, below, segment, end), memory)",
        "return HierarchicalMemory(above, below, segment, end)",
        LOOP,
    ),
    Mutation(
        "segment: a fresh one goes on with the reward of the last",
        HIERARCHICAL,
        "        fresh = fresh._replace(total=jnp.zeros_like(before.total))\n",
        "",
        LOOP,
    ),
    Mutation(
        "segment: one draw for all of its chances to stop",
        HIERARCHICAL,
        "        if stop is not None:\n            segment = segment._replace(draw=draw)\n        seen",
        "        seen",
        LOOP,
    ),
    Mutation(
        "segment: acting greedily it stops wherever that is possible",
        HIERARCHICAL,
        "jnp.full(memory.ended.shape, 0.5)",
        "jnp.zeros(memory.ended.shape)",
        f"{TEST}::test_acting_greedily_it_stops_where_that_is_likely",
    ),
    Mutation(
        "manager learns from rows that end no segment",
        HIERARCHICAL,
        '"weight": weight(data) * end,',
        '"weight": weight(data),',
        LOOP,
    ),
    Mutation(
        "manager takes a truncation within a segment for a termination",
        HIERARCHICAL,
        "upper = blank(data._replace(observation=segment.start,",
        "upper = blank(data._replace(terminated=is_last(data), observation=segment.start,",
        LOOP,
    ),
    Mutation(
        "manager takes a goal that is reached for the end of the episode",
        HIERARCHICAL,
        "upper = blank(data._replace(observation=segment.start,",
        "upper = blank(data._replace(terminated=data.terminated | reached, observation=segment.start,",
        LOOP,
    ),
    Mutation(
        "manager remembers every step of its worker",
        HIERARCHICAL,
        "above = select(end, manager.remember(state.manager, memory.manager, upper), memory.manager)",
        "above = manager.remember(state.manager, memory.manager, upper)",
        SEQUENCES,
    ),
    Mutation(
        "managers of two levels draw with one key",
        HIERARCHICAL,
        "salt = SALT + 4 * len(find(worker.hparams, Levels))",
        "salt = SALT",
        f"{TEST}::test_every_key_is_used_once_at_depth_three",
    ),
    Mutation(
        "worker has income after the goal that it reached",
        HIERARCHICAL,
        "terminated=data.terminated | reached,\n            truncated",
        "terminated=data.terminated,\n            truncated",
        LOOP,
    ),
    Mutation(
        "worker's trace runs on under the next goal",
        HIERARCHICAL,
        "truncated=data.truncated | end,",
        "truncated=data.truncated,",
        LOOP,
    ),
    Mutation(
        "worker is shown a relative goal from where it is, not from where the segment began",
        HIERARCHICAL,
        "        seen = embed(observation, resolve(segment.start, segment.action))\n        below",
        "        seen = embed(observation, resolve(observation, segment.action))\n        below",
        RELATIVE,
    ),
    Mutation(
        "worker's successor has the relative goal as it was said",
        HIERARCHICAL,
        "next_observation=embed(data.next_observation, goal),",
        "next_observation=embed(data.next_observation, segment.action),",
        RELATIVE,
    ),
    Mutation(
        "worker's reward is for the relative goal as it was said",
        HIERARCHICAL,
        '"goal": resolve(segment.start, segment.action)})',
        '"goal": segment.action})',
        RELATIVE,
    ),
    Mutation(
        "worker's memory lives on under the next goal",
        HIERARCHICAL,
        "HierarchicalMemory(above, select(memory.ended, below, memory.worker), segment, memory.ended)",
        "HierarchicalMemory(above, memory.worker, segment, memory.ended)",
        f"{TEST}::test_a_worker_forgets_with_every_goal",
    ),
    Mutation(
        "worker's reward model does not learn",
        HIERARCHICAL,
        "        state = state._replace(intrinsic=learned)\n",
        "",
        f"{TEST}::test_a_learned_reward_is_that_of_today",
    ),
    Mutation(
        "worker's priority in a replay outside is its manager's",
        SEGMENTS,
        '{"priority": below["priority"]} if "priority" in below',
        '{"priority": above["priority"]} if "priority" in above',
        f"{TEST}::test_a_row_has_the_priority_of_the_part_that_always_learns_from_it",
    ),
    Mutation(
        "correction: the last step of a segment does not count",
        RELABEL,
        '<= data.extras["age"][..., None]',
        '< data.extras["age"][..., None]',
        CORRECTION,
    ),
    Mutation(
        "correction: candidates outside of what a manager can say",
        RELABEL,
        "jnp.clip(jnp.concatenate([reached[None], reached + noise]), low, high)",
        "jnp.concatenate([reached[None], reached + noise])",
        CORRECTION,
    ),
    Mutation(
        "trace: actions one row late",
        HIERARCHICAL,
        "written(segment.trace, segment.age, (observation, action))",
        "written(segment.trace, segment.age + 1, (observation, action))",
        f"{TEST}::test_traces_hold_what_was_done_in_the_segment",
    ),
]
CHOICES = [
    Mutation(
        "gate stays without the chance (1 - beta) to",
        OPTIONS,
        "jnp.where(before > 0, jax.nn.log_sigmoid(-end), -1e9)",
        "jnp.where(before > 0, 0.0, -1e9)",
        CALLS,
    ),
    Mutation(
        "gate is taught as if the option that it chose had been the last one",
        OPTIONS,
        "observation=joined(data.observation, before),",
        "observation=joined(data.observation, chosen),",
        OPTION_ROWS,
    ),
    Mutation(
        "gate pays for the first option of an episode",
        OPTIONS,
        "switched = jnp.sum(before, -1) * (1.0",
        "switched = 1.0 * (1.0",
        OPTION_ROWS,
    ),
    Mutation(
        "options: the worker's successor keeps the option that it had",
        OPTIONS,
        "return above(state, data), below(data, after)",
        'return above(state, data), below(data, data.extras["option"].action)',
        OPTION_ROWS,
    ),
    Mutation(
        "options: the successors of a batch share one draw of the gate",
        OPTIONS,
        "(k, jnp.arange(n))",
        "(k, jnp.zeros(n, jnp.int32))",
        "tests/test_options.py::test_rows_have_keys_of_their_own",
    ),
    Mutation(
        "options of options: both gates draw with one key",
        OPTIONS,
        "salt = SALT + 4 * len(find(worker.hparams, GateAndWorker))",
        "salt = SALT",
        "tests/test_options.py::test_gates_of_two_levels_choose_apart",
    ),
    Mutation(
        "switch: every agent learns from all rows",
        SWITCH,
        '"weight": weight(data) * now["option"][..., i]',
        '"weight": weight(data)',
        SWITCH_ROWS,
    ),
    Mutation(
        "switch: an agent bootstraps into the rows of another",
        SWITCH,
        'data.truncated | (then["option"][..., i] == 0)',
        "data.truncated",
        SWITCH_ROWS,
    ),
    Mutation(
        "switch: priorities of agents that did not act",
        SWITCH,
        "sum(option[..., i] * x for",
        "sum(x for",
        "tests/test_options.py::test_a_row_has_the_priority_of_who_acted",
    ),
    Mutation(
        "switch: agents act with one key",
        SWITCH,
        "[key, *(salted(key, SALT + i) for i in range(1, len(agents)))]",
        "[key for _ in agents]",
        "tests/test_options.py::test_every_key_is_used_once",
    ),
    Mutation(
        "sequencer: what was tried is forgotten",
        SEQUENCER,
        "return HistoryMemory(inner, pushed(memory.history, step))",
        "return memory._replace(agent=inner)",
        SEQUENCES,
    ),
    Mutation(
        "sequencer: the gate's successor has the history of before",
        SEQUENCER,
        "next_observation=joined(data.next_observation, pushed(history, data))",
        "next_observation=joined(data.next_observation, history)",
        SEQUENCES,
    ),
    Mutation(
        "sequencer: a primitive ends where another one is done",
        SEQUENCER,
        "return jnp.sum(jnp.stack(done, -1) * one_hot(option, num), -1)",
        "return jnp.max(jnp.stack(done, -1), -1)",
        SEQUENCES,
    ),
]
HIERARCHIES = MANAGERS + CHOICES
