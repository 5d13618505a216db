"""The bugs that `mutations.py` plants, and the test that is to catch each."""

from typing import NamedTuple


class Mutation(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    test: str  # what must fail


REFERENCE = "tests/test_ppo.py::test_one_update_against_a_reference"
ON_POLICY = [
    Mutation(
        "advantage flipped",
        "jaxrl/losses.py",
        "return -jnp.minimum(ratio * advantage",
        "return jnp.minimum(ratio * advantage",
        "tests/test_losses.py",
    ),
    Mutation(
        "GAE not cut at an end",
        "jaxrl/types.py",
        "lambda_ * (1.0 - is_last(data))",
        "lambda_ * (1.0 - 0 * is_last(data))",
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "truncation treated as termination",
        "jaxrl/types.py",
        "num_steps(data) * (1.0 - data.terminated)",
        "num_steps(data) * (1.0 - is_last(data))",
        "tests/test_ppo.py::test_diagnostic_environments[discrete-feed_forward]",
    ),
    Mutation(
        "termination treated as truncation",
        "jaxrl/types.py",
        "num_steps(data) * (1.0 - data.terminated)",
        "num_steps(data) * (1.0 - 0 * data.terminated)",
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "bootstrap from the reset observation",
        "jaxrl/interaction.py",
        "            return _where(_all_out(ended), reset(ready), then, params_axis), data\n",
        "            then = _where(_all_out(ended), reset(ready), then, params_axis)\n"
        "            return then, data._replace(next_observation=then.observation)\n",
        "tests/test_interaction.py::test_true_successor_and_reset",
    ),
    Mutation(
        "log-probabilities off by one row",
        "jaxrl/agents/ppo.py",
        'old = data.extras["log_prob"]',
        'old = jnp.roll(data.extras["log_prob"], 1)',
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "logits of illegal actions not masked",
        "jaxrl/distributions.py",
        "return jnp.where(mask, logits, ILLEGAL)",
        "return logits",
        "tests/test_ppo.py::test_masked_and_multi_discrete",
    ),
    Mutation(
        "memory not reset in the rollout",
        "jaxrl/interaction.py",
        "return select(condition, *columns)._replace(params=params, episode=on_false.episode)",
        "return select(condition, *columns)._replace(params=params, episode=on_false.episode, memory=on_false.memory)",
        "tests/test_interaction.py::test_memory_starts_anew_where_an_episode_ended",
    ),
    Mutation(
        "memory not reset in the learner's sequence",
        "jaxrl/agents/ppo.py",
        "is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])",
        "is_first = jnp.zeros_like(last)",
        f"{REFERENCE}[discrete-True]",
    ),
    Mutation(
        "memory reset one step late in the learner",
        "jaxrl/agents/ppo.py",
        "is_first = jnp.concatenate([jnp.zeros_like(last[:1]), last[:-1]])",
        "is_first = jnp.concatenate([jnp.zeros_like(last[:2]), last[:-2]])",
        f"{REFERENCE}[discrete-True]",
    ),
    Mutation(
        "value target from normalised advantages",
        "jaxrl/agents/ppo.py",
        "target = advantage + value",
        "target = losses.normalize(advantage) + value",
        f"{REFERENCE}[discrete-False]",
    ),
    Mutation(
        "entropy punished",
        "jaxrl/agents/ppo.py",
        "- hp.entropy_coefficient * entropy",
        "+ hp.entropy_coefficient * entropy",
        f"{REFERENCE}[continuous-False]",
    ),
    Mutation(
        "observation statistics move before the update",
        "jaxrl/combinators/normalize.py",
        "return state._replace(agent=agent_state, pending=pending), metrics",
        "return state._replace(agent=agent_state, pending=pending, current=pending), metrics",
        "tests/test_normalize.py::test_statistics_stand_still_between_acting_and_learning",
    ),
    Mutation(
        "rewards centred, not only scaled",
        "jaxrl/transforms.py",
        "reward = data.reward * jax.lax.rsqrt",
        "reward = (data.reward - state.statistics.mean) * jax.lax.rsqrt",
        "tests/test_normalize.py::test_reward_scale_against_a_loop",
    ),
    Mutation(
        "every reset draws the same start",
        "jaxrl/interaction.py",
        "reset(jax.random.split(reset_key, shape[0]), params)",
        "reset(jax.random.split(jax.random.key(0), shape[0]), params)",
        "tests/test_interaction.py::test_true_successor_and_reset",
    ),
    Mutation(
        "a reset keeps the old parameters",
        "jaxrl/interaction.py",
        "params = on_false.params if params_axis is None else select(condition, on_true.params, on_false.params)",
        "params = on_false.params",
        "tests/test_interaction.py::test_params_of_a_column_change_at_its_reset",
    ),
    Mutation(
        "evaluation counts rewards after the end",
        "jaxrl/evaluation.py",
        "jnp.where(now.ended, 0.0, data.reward)",
        "data.reward",
        "tests/test_evaluation.py::test_no_bias_toward_short_episodes",
    ),
    Mutation(
        "evaluation stops when the first episodes end",
        "jaxrl/evaluation.py",
        "~jnp.all(now.ended)",
        "~jnp.any(now.ended)",
        "tests/test_evaluation.py::test_no_bias_toward_short_episodes",
    ),
    Mutation(
        "weights ignored in the loss",
        "jaxrl/types.py",
        "return jnp.sum(jnp.where(w > 0, w * x, 0.0)) / "
        "jnp.maximum(parallel.mean(jnp.sum(w)), jnp.finfo(w.dtype).tiny)",
        "return jnp.mean(x)",
        "tests/test_contract.py::test_rows_of_weight_zero_are_not_there",
    ),
    Mutation(
        "leaves of a minibatch shuffled apart",
        "jaxrl/minibatch.py",
        "axis, index].get(",
        "axis, permutation(jax.random.key(int(jnp.sum(x))), size)].get(",
        "tests/test_tree.py::test_minibatches",
    ),
    Mutation(
        "density of a squashed action without the tanh's slope",
        "jaxrl/distributions.py",
        "_normal_log_prob(clipped(params), raw) - jnp.sum(_log_slope(raw), -1) - log_volume",
        "_normal_log_prob(clipped(params), raw) - log_volume",
        "tests/test_distributions.py",
    ),
    Mutation(
        "V-trace weights not clipped",
        "jaxrl/returns.py",
        "trace * jnp.minimum(clip_c, ratio)",
        "trace * ratio",
        "tests/test_returns.py",
    ),
    Mutation(
        "learning rate does not decay",
        "jaxrl/agents/ppo.py",
        "hp._replace(learning_rate=hp.learning_rate * remaining)",
        "hp",
        "tests/test_ppo.py::test_kl_early_stop_and_decay",
    ),
    Mutation(
        "KL early stop ignored",
        "jaxrl/agents/ppo.py",
        "jnp.where(stopped, old, new)",
        "new",
        "tests/test_ppo.py::test_kl_early_stop_and_decay",
    ),
]

BUFFERS, REPLAY = "tests/test_buffers.py", "tests/test_replay.py"
OFF_POLICY = [
    Mutation(
        "n-step rewards summed across an episode's end",
        "jaxrl/buffers/readers.py",
        "ends_after = is_last(window)",
        "ends_after = window.terminated",
        f"{BUFFERS}::test_n_step_transitions_stop_at_ends_and_at_the_write_head",
    ),
    Mutation(
        "n-step rows read past the write head",
        "jaxrl/buffers/readers.py",
        "written = _trailing(written, window.reward)",
        "written = _trailing(written | True, window.reward)",
        f"{BUFFERS}::test_n_step_transitions_stop_at_ends_and_at_the_write_head",
    ),
    Mutation(
        "n-step rewards discounted one step too much",
        "jaxrl/buffers/readers.py",
        "** (passed - steps)",
        "** passed",
        f"{BUFFERS}::test_n_step_transitions_stop_at_ends_and_at_the_write_head",
    ),
    Mutation(
        "the next episode's observation as the successor of a truncated step",
        "jaxrl/buffers/ring.py",
        "unknown = data.truncated | (",
        "unknown = (",
        f"{BUFFERS}::test_observations_stored_once_give_the_same_rows_where_the_successor_is_known",
    ),
    Mutation(
        "the oldest row as the successor of the newest",
        "jaxrl/buffers/ring.py",
        "newest = (ring.head - 1)",
        "newest = (ring.head - 2)",
        f"{BUFFERS}::test_observations_stored_once_give_the_same_rows_where_the_successor_is_known",
    ),
    Mutation(
        "sequences across the write head",
        "jaxrl/buffers/samplers.py",
        "starts = jnp.maximum(ring.size - length + 1, 1) * columns",
        "starts = ring.size * columns",
        f"{BUFFERS}::test_sequences_are_consecutive_and_never_cross_the_write_head",
    ),
    Mutation(
        "overwritten rows keep their priority",
        "jaxrl/buffers/samplers.py",
        "changed = back < count + length - 1",
        "changed = back < count + length - 3",
        f"{BUFFERS}::test_new_rows_have_the_largest_priority_and_overwritten_ones_their_own",
    ),
    Mutation(
        "importance weights of the wrong sign",
        "jaxrl/buffers/samplers.py",
        "log_weight = -hparams",
        "log_weight = hparams",
        f"{BUFFERS}::test_prioritized_sampling_follows_reported_priorities_with_importance_weights",
    ),
    Mutation(
        "draws of one level of the tree shifted by one child",
        "jaxrl/buffers/tree.py",
        "jnp.sum(upto <= mass[:, None], axis=-1)",
        "jnp.sum(upto < mass[:, None], axis=-1)",
        f"{BUFFERS}::test_the_tree_finds_what_a_cumulative_sum_finds",
    ),
    Mutation(
        "goals in hindsight from the next episode",
        "jaxrl/buffers/readers.py",
        "reached = _none_before(is_last(window)) & _none_so_far(~usable)",
        "reached = _none_so_far(~usable)",
        f"{BUFFERS}::test_hindsight_takes_goals_from_the_same_episode_and_leaves_the_rest",
    ),
    Mutation(
        "priorities written while there is no learning",
        "jaxrl/combinators/replay.py",
        'index = jnp.where(ready, data.extras["index"], NO_INDEX)',
        'index = data.extras["index"]',
        f"{REPLAY}::test_priorities_reach_the_buffer_and_no_metric",
    ),
    Mutation(
        "learning before the buffer is ready",
        "jaxrl/combinators/replay.py",
        "jax.lax.cond(ready, learn",
        "jax.lax.cond(ready | True, learn",
        f"{REPLAY}::test_updates_start_when_the_buffer_is_ready_and_count_right",
    ),
    Mutation(
        "schedules count rollouts instead of steps",
        "jaxrl/combinators/exploration.py",
        "advance(state.num_steps, parallel.rollout_steps(fresh.reward))",
        "advance(state.num_steps, 1)",
        f"{REPLAY}::test_environment_steps_are_counted",
    ),
    Mutation(
        "noise carried over into the next episode",
        "jaxrl/combinators/exploration.py",
        "return WithExplorationMemory(inner, noise), action, extras",
        "return WithExplorationMemory(inner, noise + 0.5), action, extras",
        f"{REPLAY}::test_ornstein_uhlenbeck_noise_is_correlated_and_starts_anew_with_an_episode",
    ),
    Mutation(
        "target network chooses the action in double Q-learning",
        "jaxrl/agents/dqn.py",
        "chooser = state.params if double",
        "chooser = state.params if not double",
        "tests/test_dqn.py",
    ),
    Mutation(
        "entropy left out of SAC's target where it belongs",
        "jaxrl/agents/sac.py",
        'next_value = next_value - jnp.exp(state.params["log_temperature"]) * log_prob',
        'next_value = next_value + jnp.exp(state.params["log_temperature"]) * log_prob',
        "tests/test_sac.py",
    ),
    Mutation(
        "temperature moves the wrong way",
        "jaxrl/agents/sac.py",
        "excess = weighted_mean(log_prob + state.hparams.target_entropy, data)",
        "excess = -weighted_mean(log_prob + state.hparams.target_entropy, data)",
        "tests/test_sac.py",
    ),
    Mutation(
        "target noise of TD3 not clipped",
        "jaxrl/agents/td3.py",
        "raw = raw + jnp.clip(noise, -hp.target_noise_clip, hp.target_noise_clip)",
        "raw = raw + noise",
        "tests/test_td3.py",
    ),
]

MUTATIONS = ON_POLICY + OFF_POLICY
