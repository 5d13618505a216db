"""Bugs in what is of many agents: lifts, mixers, critics of all, joint policies, pools, explanations, cross-play."""

from planted import Mutation

FOLDER = "jaxrl/combinators/multi_agent/"
SHARED, TEAMS, TEAM, ROWS = (f"{FOLDER}{name}.py" for name in ("shared", "teams", "as_team", "rows"))
MIXED, CENTRAL, NETWORK = "jaxrl/action_values/mixed.py", "jaxrl/networks/central.py", "jaxrl/bayesian_network.py"
SELF_PLAY, SHAPLEY, CROSSPLAY = "jaxrl/combinators/self_play.py", "jaxrl/explain/shapley.py", "jaxrl/crossplay.py"
AGENTS, OF_TEAMS, JOINT = "tests/test_multi_agent.py", "tests/test_mixed.py", "tests/test_bayesian_network.py"
BY_HAND = f"{AGENTS}::test_shared_equals_a_learner_on_batches_put_together_by_hand"
ACTING = f"{AGENTS}::test_who_acts_is_who_is_told_and_who_is_asked"
OUT = f"{AGENTS}::test_who_is_out_is_not_there"
WHAT_A_TEAM_IS = f"{OF_TEAMS}::test_what_a_team_is"
LOOPS = f"{JOINT}::test_probabilities_and_entropies_are_those_of_loops_and_sum_to_one"
RESULTS = "tests/test_self_play.py::test_results_go_to_whom_they_were_against"

LIFTS = [
    Mutation(
        "many: agents of an environment are told apart in the wrong order",
        ROWS,
        "return jax.tree.map(lambda x: x.reshape(-1, num_agents, *x.shape[1:]), tree)",
        "return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(num_agents, -1, *x.shape[1:]), 0, 1), tree)",
        BY_HAND,
    ),
    Mutation(
        "many: a weight that is one for all counts for nobody",
        ROWS,
        "if k in SHARED else x for k, x in data.extras.items()})",
        'if k in SHARED else x for k, x in data.extras.items() if k != "weight"})',
        OUT,
    ),
    Mutation(
        "many: who they are is said to actors alone",
        SHARED,
        "        if identify:\n            who =",
        "        if False:\n            who =",
        f"{AGENTS}::test_shared_tells_agents_who_they_are",
    ),
    Mutation(
        "many: all agents are told that they are the first",
        SHARED,
        'join(observation, "agent", jnp.broadcast_to(jnp.eye(num_agents), (*axes, num_agents, num_agents)))',
        'join(observation, "agent", jnp.zeros((*axes, num_agents, num_agents)).at[..., 0].set(1.0))',
        ACTING,
    ),
    Mutation(
        "many: independent learners draw with one key",
        "jaxrl/combinators/members.py",
        "*(salted(key, i) for i in range(1, size))",
        "*(key for i in range(1, size))",
        f"{AGENTS}::test_independent_learners_are_learners_alone",
    ),
    Mutation(
        "many: teams put actions in the order of learners",
        TEAMS,
        "        rows = [rows[i] for i in place]\n",
        "",
        ACTING,
    ),
    Mutation(
        "many: a team learns from what another one recorded",
        TEAMS,
        'recorded = data.extras["teams"][part] if',
        'recorded = data.extras["teams"][0] if',
        f"{AGENTS}::test_teams_give_each_learner_its_own_rows",
    ),
    Mutation(
        "many: learners of a team draw with one key",
        TEAMS,
        "salted(key, SALT + i) for i in range(1, len(agents))",
        "key for i in range(1, len(agents))",
        ACTING,
    ),
]

TEAM_VALUES = [
    Mutation(
        "team: its reward counts who is out",
        TEAM,
        "jnp.sum(jnp.where(there > 0, there * data.reward, 0.0), -1)",
        "jnp.sum(data.reward, -1)",
        WHAT_A_TEAM_IS,
    ),
    Mutation(
        "team: its mean reward is over all agents",
        TEAM,
        "total / jnp.maximum(count, 1e-6)",
        "total / num_agents",
        WHAT_A_TEAM_IS,
    ),
    Mutation(
        "team: ends with the first agent",
        TEAM,
        "ends = jnp.all(is_last(data) | (there == 0), -1)",
        "ends = jnp.any(is_last(data) | (there == 0), -1)",
        WHAT_A_TEAM_IS,
    ),
    Mutation(
        "team: a truncation is a termination",
        TEAM,
        "truncated = ends & jnp.any(data.truncated & (there > 0), -1)",
        "truncated = jnp.zeros_like(ends)",
        WHAT_A_TEAM_IS,
    ),
    Mutation(
        "team: who has terminated still counts in the successor's value",
        TEAM,
        "((there > 0) & ~data.terminated)",
        "(there > 0)",
        WHAT_A_TEAM_IS,
    ),
    Mutation(
        "mixer: who is out adds a value",
        MIXED,
        "jnp.where(outputs.alive > 0, chosen, 0.0)",
        "chosen",
        f"{OF_TEAMS}::test_additive_is_the_sum_over_those_who_are_alive",
    ),
    Mutation(
        "mixer: weights may be negative",
        MIXED,
        'jnp.abs(made["second"])',
        'made["second"]',
        f"{OF_TEAMS}::test_monotonic_against_its_equation",
    ),
    Mutation(
        "mixer: no bias of the state",
        MIXED,
        "hidden * second, -1) + second_bias",
        "hidden * second, -1)",
        f"{OF_TEAMS}::test_monotonic_against_its_equation",
    ),
    Mutation(
        "critic of all: others' actions have a gradient",
        CENTRAL,
        "others = jax.lax.stop_gradient(action)",
        "others = action",
        f"{AGENTS}::test_critics_of_all_actions_have_a_gradient_in_ones_own",
    ),
    Mutation(
        "critic of all: its memory starts anew with any agent",
        CENTRAL,
        "jnp.all(is_first, -1)",
        "jnp.any(is_first, -1)",
        f"{AGENTS}::test_memory_of_a_central_critic_starts_anew_where_all_are_out",
    ),
    Mutation(
        "critic of COMA: it sees one's own action",
        CENTRAL,
        "((1.0 - own)[:, :, None] * taken)",
        "(jnp.ones_like(own)[:, :, None] * taken)",
        "tests/test_coma.py",
    ),
]

JOINT_POLICIES = [
    Mutation(
        "joint policy: edges both ways",
        NETWORK,
        "exact = (before & (odds > 0))",
        "exact = (odds > 0)",
        f"{JOINT}::test_graphs_have_no_cycles_and_the_probabilities_that_density_sums",
    ),
    Mutation(
        "joint policy: the child tells the parent",
        NETWORK,
        "ahead = place[..., None, :] - place[..., :, None]",
        "ahead = place[..., :, None] - place[..., None, :]",
        LOOPS,
    ),
    Mutation(
        "joint policy: one round of choosing is enough",
        NETWORK,
        "jax.lax.fori_loop(0, num_agents, again",
        "jax.lax.fori_loop(0, 1, again",
        f"{JOINT}::test_samples_have_the_probabilities_of_the_joint_policy",
    ),
    Mutation(
        "joint policy: another graph when it learns",
        NETWORK,
        'graph(of, raw), raw["action"]), -1)',
        'graph(of, without_noise(raw["action"])), raw["action"]), -1)',
        LOOPS,
    ),
    Mutation(
        "joint policy: the graph has no gradient",
        NETWORK,
        "return exact + (smooth - jax.lax.stop_gradient(smooth))",
        "return exact",
        f"{JOINT}::test_an_edge_is_wanted_where_it_makes_the_action_likelier",
    ),
    Mutation(
        "joint policy: density counts ordered pairs",
        NETWORK,
        "num * (num - 1) / 2, 1)",
        "num * (num - 1), 1)",
        f"{JOINT}::test_graphs_have_no_cycles_and_the_probabilities_that_density_sums",
    ),
]

OPPONENTS = [
    Mutation(
        "pool: results count for whoever is in the place now",
        SELF_PLAY,
        '(data.extras["opponent"].reshape(-1, 1) == state.label)',
        '(data.extras["opponent"].reshape(-1, 1) % state.games.shape[0] == jnp.arange(state.games.shape[0]))',
        RESULTS,
    ),
    Mutation(
        "pool: a draw is a loss",
        SELF_PLAY,
        "won = (1.0 + jnp.sign(score(data).reshape(-1))) / 2.0",
        "won = (score(data).reshape(-1) > 0).astype(jnp.float32)",
        RESULTS,
    ),
    Mutation(
        "pool: prioritized the wrong way around",
        SELF_PLAY,
        "(1.0 - state.win_rate) ** power",
        "state.win_rate**power",
        "tests/test_self_play.py::test_opponents_are_drawn_in_proportion_to_their_weights",
    ),
    Mutation(
        "pool: the newest one is given up",
        SELF_PLAY,
        "place = state.num_added % state.games.shape[0]",
        "place = jnp.minimum(state.num_added, state.games.shape[0] - 1)",
        "tests/test_self_play.py::test_a_pool_takes_in_every_period_and_gives_up_the_oldest",
    ),
    Mutation(
        "shapley: contributions of places, not of players",
        SHAPLEY,
        "gain = jnp.take_along_axis(jnp.diff(found, axis=1), place, axis=1)",
        "gain = jnp.diff(found, axis=1)",
        "tests/test_explain.py::test_estimates_are_within_their_errors_which_fall_as_the_root_of_their_number",
    ),
    Mutation(
        "shapley: all coalitions weigh the same",
        SHAPLEY,
        "math.factorial(k) * math.factorial(num - k - 1) for k in range(num)",
        "math.factorial(num) / num / math.comb(num - 1, k) * 1.01**k for k in range(num)",
        "tests/test_explain.py::test_exact_is_the_mean_over_all_orders",
    ),
    Mutation(
        "cross-play: row and column change seats",
        CROSSPLAY,
        "who = [0 if seat in seats else 1 for seat in range(num)]",
        "who = [1 if seat in seats else 0 for seat in range(num)]",
        "tests/test_crossplay.py",
    ),
]

MANY = LIFTS + TEAM_VALUES + JOINT_POLICIES + OPPONENTS
