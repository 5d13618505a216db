"""Key hygiene: bad cases that must be found, good ones that must not, and the training of every agent.

    python benchmarks/reliability/keys.py [--quick] [--write]

Each is looked at by `jax.debug_key_reuse(True)` and by `jaxrl.key_reuse.check`; both only trace. `--quick` takes a few
agents instead of all; `--write` writes docs/reliability/keys.md. Exit status 1 if a promise is broken.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
from jax import random

import jaxrl
from jaxrl import key_reuse
from jaxrl.data.goals import trajectories, with_rows
from jaxrl.factory import AGENTS, static_arguments
from jaxrl.loop import example_data, offline, online, run

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from key_cases import BAD, ELEVEN, GOOD  # noqa: E402
from pages import arguments, finish  # noqa: E402

KEY = random.key(0)
SMALL = dict(
    widths=(4,), num_minibatches=2, num_epochs=2, buffer_size=48, min_buffer_size=8, batch_size=8, memory_size=4,
    num_atoms=5, num_quantiles=4, num_samples=3, num_critics=3, updates_per_step=2, sequence_length=4,
)  # fmt: skip
# Trainings beside the defaults of every agent, with randomness of their own: agent, static choices, loop.
VARIANTS = {
    "ppo recurrent, reset pool": ("ppo", dict(recurrent=True), dict(reset_pool=4)),
    "ppo normalized, noisy environment": ("ppo", dict(normalize_observation=True, normalize_reward=True), {}),
    "dqn prioritized, n-step": ("dqn", dict(prioritized=True, n_step=2), {}),
    "ppo of many, shared": ("ppo", dict(identify=True), {}),
    "dqn of many, independent": ("dqn", dict(sharing="independent"), {}),
}
TRAININGS = {
    **{name: (name, {}, {}) for name, recipe in AGENTS.items() if recipe.online},
    **VARIANTS,
    **{f"{name} from data": (name, {}, None) for name, recipe in AGENTS.items() if recipe.offline},
}
QUICK = ["ppo recurrent, reset pool", "ppo normalized, noisy environment", "r2d2", "redq", "cql from data", "cabn"]


def jax_finds(function, *arguments) -> bool:
    """Whether `jax.debug_key_reuse` objects: it looks at a jitted function where it is traced, so nothing is run."""
    with jax.debug_key_reuse(True):
        try:
            jax.jit(lambda *a: function(*a)).trace(*arguments)
        except jax.errors.KeyReuseError:
            return True
    return False


def training(name: str):
    """Initialisation, three updates and an evaluation of a row of `TRAININGS`, tiny, as a function of a key."""
    agent_name, static, sizes = TRAININGS[name]
    recipe = AGENTS[agent_name]
    looks_up, many = recipe.looks_up, recipe.joint or "many" in name

    def make(env_name, **keywords):
        env = jaxrl.envs.make(env_name, **keywords)
        if "noisy" in name:
            env = jaxrl.envs.transforms.sticky_actions(jaxrl.envs.transforms.observation_noise(env, 0.1), 0.1)
        allowed = static_arguments(recipe, sizes is None, env)
        chosen = {k: v for k, v in {**SMALL, **static}.items() if k in allowed}
        return env, *jaxrl.make_agent(agent_name, env, offline=sizes is None, **chosen)

    try:
        env, agent, hparams = make("spread" if many else "CartPole-v1")
    except ValueError:  # needs continuous actions, or goals
        continuous = ("spread", dict(continuous=True)) if many else ("Pendulum-v1", {})
        name_of_env, keywords = ("point_maze/umaze", dict(view="goal")) if looks_up else continuous
        env, agent, hparams = make(name_of_env, **keywords)
    if sizes is None:
        rows = jax.tree.map(lambda x: x[:, 0], example_data(env, 1, 32))
        extras = {"weight": jnp.ones(32), "next_action": rows.action, "mc_return": rows.reward}
        rows = rows._replace(extras=extras | {"demonstration": jnp.arange(32.0) % 2})
        loop = offline(agent, with_rows(rows), batch_size=8, shared=trajectories(rows) if looks_up else None)
    else:
        loop = online(agent, env, num_envs=4, unroll_length=8, **sizes)

    def train(key):
        train_key, evaluation_key = random.split(key)
        state, metrics = run(loop, loop.init(train_key, hparams), 3)
        played = jaxrl.evaluate(evaluation_key, agent, state.agent, env, None, 4, num_episodes=2, greedy=False)
        return state, metrics, played.returns

    return train


def cases(key=KEY) -> tuple[dict, dict]:
    """(found by jax, found by us) for each bad and each good case."""
    bad, good = (
        {name: (jax_finds(f, key), bool(key_reuse.check(f, key))) for name, f in group.items()} for group in (BAD, GOOD)
    )
    return bad, good


def main() -> int:
    options = arguments(__doc__)
    bad, good = cases()
    eleven = {f.__name__: f for f in ELEVEN}
    old = [(jax_finds(f, random.PRNGKey(0)), bool(key_reuse.check(f, random.PRNGKey(0)))) for f in ELEVEN]
    names = QUICK if options.quick else list(TRAININGS)
    trains = {}
    for name in names:
        train = training(name)
        trains[name] = jax_finds(train, KEY), key_reuse.check(train, KEY)
        for problem in trains[name][1]:
            print(f"{name}: {problem}", file=sys.stderr, flush=True)

    def row(what, pairs):
        pairs = list(pairs)
        jax_reports, ours = (sum(bool(p[i]) for p in pairs) for i in (0, 1))
        return {"cases": what, "how many": len(pairs), "reported by jax": jax_reports, "by jaxrl": ours}

    rows = [
        row("bad: the eleven of the plan", (bad[name] for name in eleven)),
        row("bad: the same with a legacy `PRNGKey`", old),
        row("bad: more that one trace can show", (found for name, found in bad.items() if name not in eleven)),
        row("good", good.values()),
        row("training and evaluation of agents", trains.values()),
    ]
    unseen = ", ".join(f"`{name}`" for name, (by_jax, ours) in bad.items() if ours and not by_jax)
    done = (
        "Functions of a key that use it twice, functions that do not, and the whole training (initialisation, three "
        "updates, an evaluation) of every agent, online and from data, are traced and looked at by "
        "`jax.debug_key_reuse` and by `jaxrl.key_reuse.check`; no program is run. The good case that jax reports "
        f"selects between two keys in a `scan`. Bad cases that jax does not see: {unseen}."
    )
    wrong = [f"{name} is missed" for name, found in bad.items() if not found[1]]
    wrong += [f"{name} of a legacy key is missed" for name, found in zip(eleven, old) if not found[1]]
    wrong += [f"{name} is reported" for name, found in good.items() if found[1]]
    wrong += [f"{name} uses a key twice" for name, found in trains.items() if any(found)]
    return finish("keys", "Random keys", done, rows, wrong, options.write)


if __name__ == "__main__":
    sys.exit(main())
