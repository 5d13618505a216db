"""Bugs in what keeps runs alive and numbers honest: checkpoints, resume, checks, counters, digests, keys."""

from planted import Mutation

CHECKPOINTS, RESUME = "tests/test_checkpoints.py", "tests/test_resume.py"
FINITE, COUNTERS = "tests/test_finite.py", "tests/test_counters.py"
SURVIVAL = [
    Mutation(
        "files of a checkpoint are not verified",
        "jaxrl/checkpoints/reading.py",
        '        manifest.verify(self.folder / str(step), fields["files"])\n',
        "",
        CHECKPOINTS,
    ),
    Mutation(
        "arrays that were read back are not compared",
        "jaxrl/checkpoints/reading.py",
        "if manifest.array_digest(array) != digests[name]:",
        "if False:",
        f"{CHECKPOINTS}::test_arrays_that_are_not_what_they_should_be_are_refused",
    ),
    Mutation(
        "dtypes do not matter at a restore",
        "jaxrl/checkpoints/structure.py",
        "if n in found and found[n] != kind",
        'if n in found and found[n].partition("[")[2] != kind.partition("[")[2]',
        f"{CHECKPOINTS}::test_what_does_not_fit_is_refused",
    ),
    Mutation(
        "a lock that two may hold",
        "jaxrl/checkpoints/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        f"{CHECKPOINTS}::test_a_folder_has_one_writer",
    ),
    Mutation(
        "the manifest may be any bytes that mean the same",
        "jaxrl/checkpoints/manifest.py",
        "if data != as_written:",
        "if False:",
        CHECKPOINTS,
    ),
    Mutation(
        "every chunk draws the rows of the first",
        "jaxrl/cli/programs.py",
        'np.random.default_rng((options["seed"], chunk))',
        'np.random.default_rng((options["seed"], 0))',
        "tests/test_cli_dataset.py::test_a_window_of_a_file_that_stays_on_disk",
    ),
    Mutation(
        "metrics after the checkpoint stay",
        "jaxrl/cli/saving.py",
        'row["steps"] <= steps:',
        'row["steps"]:',
        RESUME,
    ),
    Mutation(
        "a flipped bit in a policy file passes",
        "jaxrl/policy_file.py",
        "    if not sound:\n",
        "    if sound is None:\n",
        "tests/test_policy_file.py::test_a_flipped_bit_is_refused_wherever_it_is",
    ),
    Mutation(
        "infinite rewards count as numbers",
        "jaxrl/finite.py",
        "reward = ~jnp.isfinite(data.reward)",
        "reward = jnp.isnan(data.reward)",
        FINITE,
    ),
    Mutation(
        "the last bad row is named instead of the first",
        "jaxrl/finite.py",
        "jnp.argmax(bad.reshape(-1)).astype(jnp.int32)",
        "(bad.size - 1 - jnp.argmax(bad.reshape(-1)[::-1])).astype(jnp.int32)",
        FINITE,
    ),
    Mutation(
        "a simulation that diverges is terminated, not truncated",
        "envs/divergence.py",
        "terminated=timestep.terminated & finite",
        "terminated=timestep.terminated | ~finite",
        f"{FINITE}::test_divergence_is_masked_counted_and_reset",
    ),
    Mutation(
        "counters wrap around",
        "jaxrl/counters.py",
        "return jnp.where(count == LARGEST, LARGEST - (period - 1), count + 1)",
        "return count + 1",
        COUNTERS,
    ),
    Mutation(
        "a key that all elements of a vmap share is not seen",
        "jaxrl/key_reuse/__init__.py",
        "if any(shared) and self.axis_data.size > 1:",
        "if all(shared) and self.axis_data.size < 1:",
        "tests/test_keys.py::test_what_is_found_and_what_is_left_alone",
    ),
    Mutation(
        "a rollout draws its resets from the keys of its steps",
        "jaxrl/interaction.py",
        "jax.random.split(reset_key, unroll_length)",
        "jax.random.split(act_key, unroll_length)",
        "tests/test_keys.py",
    ),
    Mutation(
        "an extended run begins anew",
        "jaxrl/cli/saving.py",
        "progress.steps = self._steps = steps",
        "progress.steps = self._steps = 0",
        RESUME,
    ),
]
