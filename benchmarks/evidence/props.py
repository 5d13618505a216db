"""PROPS (system 158): sampling error against the number of actions under a fixed policy, and steps to learn CartPole.

python benchmarks/evidence/props.py [sampling_error_bandit] [sampling_error_grid] [sampling_error_cartpole]
    [cartpole]
"""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxrl
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.combinators.props import PropsHparams, props
from jaxrl.distributions import categorical
from jaxrl.factory.on_policy import build_props
from jaxrl.loop import run
from jaxrl.networks import feed_forward
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Env, Policy, TimeStep

KEY = jax.random.key(0)
CLAIM = (
    "under a fixed policy KL(pi_D || pi) falls with the number n of actions with a log-log slope of about -1 when they "
    "are independent, about -2 when the least-sampled action is taken; ROS and PROPS lie between, at least 2 times "
    "below independent actions at n = 256"
)
SIZES = 2 ** np.arange(4, 11)


def grid(size):
    """Moves on a size x size grid from one corner to the opposite one; size 1 is a bandit. Observations are one-hot."""
    moves = jnp.array([(0, 1), (1, 0), (0, -1), (-1, 0)])
    states = size * size

    def observe(position):
        return jax.nn.one_hot(position[0] * size + position[1], states)

    def reset(key, params):
        position = jnp.zeros(2, jnp.int32)
        return position, observe(position)

    def step(key, position, action, params):
        position = jnp.clip(position + moves[action], 0, size - 1)
        ended = jnp.all(position == size - 1)
        return position, TimeStep(observe(position), ended.astype(jnp.float32), ended, jnp.bool_(False))

    return Env(reset, step, (), Box(0.0, 1.0, (states,)), Discrete(4))


def fixed_policy(size):
    """Logits [S, A] of a table; on the grid they lean to the right and down."""
    states = size * size
    logits = jax.random.normal(jax.random.key(7), (states, 4))
    logits = logits + jnp.where(size > 1, jnp.array([1.0, 1.0, 0.0, 0.0]), 0.0)
    network = feed_forward(lambda key, observation: logits, lambda params, observation: observation @ params)
    return Policy(network, categorical(4)), np.asarray(jax.nn.softmax(logits))


def collect(size, num_seeds, *, period, rates=(0.0,), **settings):
    """Actions and states [M, S, n] of a behavior policy refitted every `period` actions, the target policy fixed."""
    env, (policy, _) = grid(size), fixed_policy(size)
    value = feed_forward(lambda key, observation: jnp.zeros(()), lambda params, x: jnp.zeros(x.shape[:-1]) + params)
    idle = ppo(policy, value, num_epochs=1, num_minibatches=1, hparams=PPOHparams(learning_rate=0.0))
    static = {k: settings.pop(k) for k in ("refit_epochs", "optimizer") if k in settings}
    agent = props(idle, policy, num_batches=1, update_period=SIZES[-1] // period, refit_minibatches=1, **static)
    loop = jaxrl.online(agent, env, num_envs=1, unroll_length=period)

    def play(key, rate):
        own = PropsHparams(refit_learning_rate=rate, **settings)
        state, _ = run(loop, loop.init(key, agent.hparams._replace(own=own)), SIZES[-1] // period)
        buffer = state.agent.buffer
        return buffer.extras["raw_action"][:, 0], jnp.argmax(buffer.observation[:, 0], -1)

    both = jax.vmap(jax.vmap(play, (0, None)), (None, 0))
    return jax.jit(both)(jax.random.split(KEY, num_seeds), jnp.array(rates))


def oracle(size, num_seeds):
    """The action whose frequency in its state is most below the policy's, the first one of a state drawn from it."""
    env, (_, pi) = grid(size), fixed_policy(size)
    pi = jnp.asarray(pi)

    def step(carry, key):
        position, observation, counts = carry
        s = jnp.argmax(observation)
        n = counts[s].sum()
        least = jnp.argmin(counts[s] / jnp.maximum(n, 1) - pi[s])
        action = jnp.where(n > 0, least, jax.random.categorical(key, jnp.log(pi[s])))
        then, timestep = env.step(key, position, action, ())
        fresh = env.reset(key, ())
        now = jax.tree.map(lambda a, b: jnp.where(timestep.terminated, a, b), fresh, (then, timestep.observation))
        return (*now, counts.at[s, action].add(1)), (action, s)

    def play(key):
        return jax.lax.scan(step, (*env.reset(key, ()), jnp.zeros_like(pi)), jax.random.split(key, SIZES[-1]))[1]

    return jax.tree.map(lambda x: x[None], jax.jit(jax.vmap(play))(jax.random.split(KEY, num_seeds)))


def errors(size, actions, states):
    """KL(pi_D || pi) = E_D [log pi_D - log pi], exactly from counts: [M, S, len(SIZES)]."""
    pi = fixed_policy(size)[1]
    flat = (np.asarray(states) * 4 + np.asarray(actions)).reshape(-1, SIZES[-1])
    found = np.zeros((len(flat), len(SIZES)))
    for i, row in enumerate(flat):
        for j, n in enumerate(SIZES):
            counts = np.bincount(row[:n], minlength=pi.size).reshape(pi.shape)
            conditional = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            ratio = np.where(counts > 0, conditional, 1.0) / np.where(counts > 0, pi, 1.0)
            found[i, j] = (counts * np.log(ratio)).sum() / n
    return found.reshape(*np.shape(actions)[:2], len(SIZES))


def sampling_error(size, num_seeds):
    plain = dict(refit_clip=jnp.inf, refit_target_kl=jnp.inf, refit_kl_coefficient=0.0)
    ros = dict(refit_epochs=1, optimizer=lambda hp: optax.sgd(hp.refit_learning_rate), **plain)
    near = dict(refit_clip=0.3, refit_target_kl=0.1, refit_kl_coefficient=0.0, refit_max_grad_norm=jnp.inf)
    ways = {
        "independent": (functools.partial(collect, period=4, refit_epochs=0), (0.0,)),
        "least-sampled": (lambda size, seeds, rates: oracle(size, seeds), (0.0,)),
        "ROS": (functools.partial(collect, period=1, **ros), (1.0, 10.0, 100.0)),
        "PROPS": (functools.partial(collect, period=4, refit_epochs=16, **near), (0.03, 0.1, 0.3)),
        "PROPS, lambda 0.3": (
            functools.partial(collect, period=4, refit_epochs=16, **near | dict(refit_kl_coefficient=0.3)),
            (0.1,),
        ),
    }
    at_256 = list(SIZES).index(256)
    table, slopes, means = [], {}, {}
    for name, (sample, rates) in ways.items():
        found = errors(size, *sample(size, num_seeds, rates=rates))
        for rate, x in zip(rates, found):
            mean = np.maximum(x.mean(0), 1e-9)
            late = SIZES >= 8 * size * size  # before that most states have not been visited often enough
            slope = np.polyfit(np.log(SIZES[late]), np.log(mean[late]), 1)[0]
            row = {"name": name if rate == 0 else f"{name}, rate {rate:g}", "slope": round(float(slope), 2)}
            row |= {f"n = {n}": float(f"{m:.3g}") for n, m in zip(SIZES, mean)}
            table.append(row | {"1000 x error at 256": common.scores(1000 * x[:, at_256])})
            if name not in means or mean[at_256] < means[name]:
                means[name], slopes[name] = mean[at_256], float(slope)
    gains = {name: means["independent"] / means[name] for name in means if name != "independent"}
    good = [
        -1.25 < slopes["independent"] < -0.75,
        -2.4 < slopes["least-sampled"] < -1.6,
        gains["ROS"] >= 2 and gains["PROPS"] >= 2,
        all(means["least-sampled"] <= means[name] for name in ("ROS", "PROPS")),
    ]
    finding = ", ".join(
        f"{name}: slope {slopes[name]:.2f}" + (f", {gains[name]:.1f} times below at 256" if name in gains else "")
        for name in means
    )
    return dict(
        claim=CLAIM,
        verdict="met" if all(good) else "partly" if any(good) else "missed",
        finding=f"{finding} (each at its best rate at 256).",
        settings={
            "environment": "bandit of 4 arms" if size == 1 else f"{size} x {size} grid, 4 moves, corner to corner",
            "policy": "fixed table of logits, standard normal" + ("" if size == 1 else ", +1 to the right and down"),
            "error": "KL(pi_D || pi) in nats, exact from counts, mean over seeds",
            "slope": "least squares on log means, from n = 8 a state on",
            "refits": "every 4 actions, 16 passes of Adam, clip 0.3, target KL 0.1; ROS every action, one step of SGD",
        },
        table=table,
        seeds=num_seeds,
    )


def sampling_error_cartpole():
    """The error of the buffer while PPO learns, from a fit, for behaviors that differ in how far they may go."""
    env, total, seeds = jaxrl.envs.make("CartPole-v1"), 20_480, 8
    static = dict(widths=(32, 32), num_batches=2, num_minibatches=8, refit_minibatches=1, error_steps=50)
    shared = PropsHparams(refit_kl_coefficient=0.0)
    settings = [(1e-3, 0.01), (1e-3, 0.05), (3e-3, 0.05)]
    table, errors_ = [], {}
    for method, epochs, refits, grid_ in (("PPO-buffer", 0, 1, [(0.0, 0.0)]), ("PROPS", 8, 4, settings)):
        agent = build_props(env, update_period=refits, refit_epochs=epochs, **static)
        loop = jaxrl.online(agent, env, num_envs=8, unroll_length=64 // refits)

        def train(key, rate, delta, agent=agent, loop=loop, refits=refits):
            own = shared._replace(refit_learning_rate=rate, refit_target_kl=delta)
            hparams = agent.hparams._replace(own=own)
            hparams = hparams._replace(agent=hparams.agent._replace(learning_rate=3e-3))
            _, metrics = run(loop, loop.init(key, hparams), refits * total // 512)
            error = metrics["props/sampling_error"].reshape(-1, refits)[2:, -1].mean()  # once the buffer is full
            return error, metrics["episode/return_sum"].sum() / metrics["episode/count"].sum()

        each = jax.vmap(jax.vmap(train, (0, None, None)), (None, 0, 0))
        found = jax.jit(each)(jax.random.split(KEY, seeds), *jnp.array(grid_).T)
        for (rate, delta), error, returns in zip(grid_, *map(np.asarray, found)):
            name = f"{method}, rate {rate:g}, delta {delta:g}" if rate else method
            table.append({"name": name, "1000 x error": common.scores(1000 * error), "return": common.scores(returns)})
            errors_[name] = table[-1]["1000 x error"]["iqm"]
    plain = errors_.pop("PPO-buffer")
    name = min(errors_, key=errors_.get)
    lower = 1 - errors_[name] / plain
    return dict(
        claim="while PPO learns CartPole, the sampling error of its buffer is lower when PROPS fills it",
        verdict="met" if lower > 0 else "missed",
        finding=f"1000 x error {plain:.1f} nats for PPO-buffer, {errors_[name]:.1f} for {name} ({100 * lower:.0f} % "
        f"lower); the settings of PROPS range from {min(errors_.values()):.1f} to {max(errors_.values()):.1f}.",
        settings={
            "error": "KL(pi_D || pi) in nats: pi_D is pi after 50 steps of Adam at 1e-2 on the likelihood of the "
            "buffer, before each update, mean over the run: less than the whole error, more than that of fresh data",
            "steps": total,
            "n, b": (512, 2),
            "learning_rate": 3e-3,
        },
        table=table,
        seeds=seeds,
    )


def cartpole():
    """Steps to the threshold, each method with as many settings."""
    env = jaxrl.envs.make("CartPole-v1")
    num_envs, batch, b, total, threshold = 8, 512, 2, 49_152, 450.0
    rates, seeds = (3e-3, 1e-2), 8
    shared = dict(widths=(32, 32))
    refitted = PropsHparams(refit_learning_rate=1e-3, refit_kl_coefficient=0.0)
    one, two = dict(num_batches=1, refit_epochs=0), dict(num_batches=b, refit_epochs=0)
    deltas = [(f"delta {delta:g}", refitted._replace(refit_target_kl=delta)) for delta in (0.01, 0.05)]
    methods = {  # static choices, refits an update, settings of the refit; gradients an update
        "PPO, 1": (one | dict(num_epochs=4, num_minibatches=4), 1, [("16 gradients", refitted)]),
        "PPO, 2": (one | dict(num_epochs=8, num_minibatches=4), 1, [("32 gradients", refitted)]),
        "PPO-buffer, 1": (two | dict(num_epochs=4, num_minibatches=4), 1, [("16 gradients", refitted)]),
        "PPO-buffer, 2": (two | dict(num_epochs=4, num_minibatches=8), 1, [("32 gradients", refitted)]),
        "PROPS": (dict(num_batches=b, refit_epochs=8, num_epochs=4, num_minibatches=8), 4, deltas),
    }
    table, best = [], {}
    for method, (static, refits, settings) in methods.items():
        agent = build_props(env, **shared | dict(update_period=refits, refit_minibatches=1) | static)
        loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=batch // refits // num_envs)
        chunk = 4 * refits  # 2048 steps between evaluations

        def train(key, rate, own, agent=agent, loop=loop, chunk=chunk):
            hparams = agent.hparams._replace(own=own)
            hparams = hparams._replace(agent=hparams.agent._replace(learning_rate=rate))

            def segment(state, key):
                state, _ = run(loop, state, chunk)
                result = jaxrl.evaluate(key, agent, state.agent, env, None, 500, num_episodes=10, greedy=False)
                return state, result.returns.mean()

            init_key, eval_key = jax.random.split(key)
            keys = jax.random.split(eval_key, total // 2048)
            return jax.lax.scan(segment, loop.init(init_key, hparams), keys)[1]

        each = jax.vmap(jax.vmap(jax.vmap(train, (0, None, None)), (None, 0, None)), (None, None, 0))
        own = jax.tree.map(lambda *x: jnp.stack([jnp.float32(v) for v in x]), *(o for _, o in settings))
        curves = np.asarray(jax.jit(each)(jax.random.split(KEY, seeds), jnp.array(rates), own))
        reached = curves >= threshold
        steps = 2048 * np.where(reached.any(-1), reached.argmax(-1) + 1, total // 2048)
        for i, (label, _) in enumerate(settings):
            for j, rate in enumerate(rates):
                family = method.split(",")[0]
                row = {
                    "name": f"{family}, {label}, rate {rate:g}",
                    "steps to 450": common.scores(steps[i, j]),
                    "not reached": int((~reached[i, j].any(-1)).sum()),
                    "mean return over the run": common.scores(curves[i, j].mean(-1)),
                    "last 5 evaluations": common.scores(curves[i, j, :, -5:].mean(-1)),
                }
                table.append(row)
                number = row["steps to 450"]["iqm"]
                if family not in best or number < best[family]["steps to 450"]["iqm"]:
                    best[family] = row
    numbers = {family: row["steps to 450"]["iqm"] for family, row in best.items()}
    fewer = 1 - numbers["PROPS"] / numbers["PPO"]
    worse = numbers["PPO-buffer"] > numbers["PROPS"]
    finding = (
        ", ".join(f"{family} {n:.0f} steps ({best[family]['name']})" for family, n in numbers.items())
        + f": PROPS needs {100 * abs(fewer):.0f} % {'fewer' if fewer > 0 else 'more'} than PPO."
    )
    return dict(
        claim="with its best setting PROPS reaches a return of 450 on CartPole in >= 20 % fewer steps than PPO, and in "
        "fewer than PPO on a buffer of as many rollouts",
        verdict="met" if fewer >= 0.2 and worse else "partly" if fewer >= 0.2 or worse else "missed",
        finding=finding,
        settings=shared
        | {
            "steps": total,
            "num_envs": num_envs,
            "n, steps an update": batch,
            "gradients an update of PROPS": 32,
            "b, batches in the buffer": b,
            "refits": "every 128 steps, 8 passes of Adam at 1e-3 or until delta, clip 0.3, lambda 0",
            "score": "mean of 10 episodes of the agent's own stochastic policy, every 2048 steps; runs that never get "
            "there count as the whole run",
            "settings a method": len(rates) * 2,
        },
        table=table,
        seeds=seeds,
    )


if __name__ == "__main__":
    common.main(
        "158",
        "On-Policy Policy Gradient Reinforcement Learning Without On-Policy Sampling",
        "https://arxiv.org/abs/2311.08290",
        __file__,
        {
            "sampling_error_bandit": lambda: sampling_error(1, 16),
            "sampling_error_grid": lambda: sampling_error(4, 16),
            "sampling_error_cartpole": sampling_error_cartpole,
            "cartpole": cartpole,
        },
    )
