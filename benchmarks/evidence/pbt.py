"""PBT beside random search at equal environment steps: PPO, four of whose numbers are drawn from wide ranges.

Both begin with the same members; random search leaves them alone, with constant rates or with rates that fall linearly
to 0. The one with the best training return in the last period is evaluated. Ranges and periods were chosen on other
seeds: with two numbers and periods of 6 and 10 updates PBT was not ahead, its learning rates grew with the noise.

    python benchmarks/evidence/pbt.py [pendulum] [acrobot]
"""

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.loop import run
from jaxrl.tree import replace_fields
from jaxrl.types import Loop

REPETITIONS = 8
SIZE = 8
SEARCH = {
    "learning_rate": (1e-6, 1e-1),
    "entropy_coefficient": (1e-4, 1.0),
    "clip": (0.01, 1.0),
    "max_grad_norm": (0.01, 10.0),
}
CLAIM = "the best of 8 members of PBT has a higher return than the best of 8 of random search with constant rates"


def trainer(agent, env, *, num_envs, unroll_length, period, rounds):
    """key, hparams -> evaluated return of the chosen member by method, and the learning rates of PBT's members."""
    loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=unroll_length)
    population = jaxrl.pbt(loop, SIZE, SEARCH, period=period)
    steps = float(rounds * period * num_envs * unroll_length)

    def score(key, members, fitness):
        best = jnp.argmax(jnp.nan_to_num(fitness, nan=-jnp.inf))
        chosen = jax.tree.map(lambda x: x[best], members.agent)
        return jaxrl.evaluate(key, agent, chosen, env, None, 1000, num_episodes=64).returns.mean()

    def alone(members):
        """The same members without an exchange, and their returns in the last period."""
        members, metrics = run(Loop(loop.init, jax.vmap(loop.step)), members, rounds * period)
        total, count = (metrics[f"episode/{name}"][-period:].sum(0) for name in ("return_sum", "count"))
        return members, total / count

    def train(key, hparams):
        init_key, *score_keys = jax.random.split(key, 4)
        begin = population.init(init_key, hparams)
        falling = population.init(init_key, replace_fields(hparams, decay_steps=steps))
        then, metrics = run(population, begin, rounds)
        return {
            "PBT": score(score_keys[0], then.members, metrics["pbt/fitness"][-1]),
            "random search": score(score_keys[1], *alone(begin.members)),
            "random search, falling rates": score(score_keys[2], *alone(falling.members)),
        }, metrics["pbt/learning_rate"]

    return train, steps


def compare(env_name, *, static, numbers, **sizes):
    env = jaxrl.envs.make(env_name)
    agent, hparams = jaxrl.make_agent("ppo", env, **static)
    hparams = replace_fields(hparams, decay_steps=float("inf"), **numbers)
    train, steps = trainer(agent, env, **sizes)
    hparams = jax.tree.map(lambda x: jnp.asarray([x], jnp.float32), hparams)
    returns, rates = jaxrl.sweep(train, hparams, range(REPETITIONS))
    returns = {name: x[0] for name, x in returns.items()}
    ahead = {name: common.scores(returns["PBT"] - x) for name, x in returns.items() if name != "PBT"}
    table = [
        {"name": name, "return": common.scores(x), "PBT ahead by": ahead.get(name, "")} for name, x in returns.items()
    ]
    constant, falling = ahead["random search"], ahead["random search, falling rates"]
    verdict = "met" if constant["low"] > 0 else "partly" if constant["iqm"] > 0 else "missed"
    middle = np.exp(np.median(np.log(rates[0]), axis=(0, 2)))  # [rounds]
    finding = (
        f"PBT is ahead by {constant['iqm']:.1f} [{constant['low']:.1f}, {constant['high']:.1f}] of random search with "
        f"constant rates, and by {falling['iqm']:.1f} [{falling['low']:.1f}, {falling['high']:.1f}] of the one whose "
        f"rates fall to 0. The median learning rate of its members goes from {middle[0]:.2g} over "
        f"{middle[len(middle) // 2]:.2g} to {middle[-1]:.2g}"
    )
    settings = {
        "return": f"64 greedy episodes of {env_name}",
        "members": SIZE,
        "steps of each member": int(steps),
        "search": SEARCH,
        **sizes,
        **static,
        **numbers,
    }
    return dict(claim=CLAIM, verdict=verdict, finding=finding, settings=settings, table=table, seeds=REPETITIONS)


def pendulum():
    static = dict(widths=(32, 32), num_epochs=8, num_minibatches=4, normalize_observation=True, normalize_reward=True)
    numbers = dict(discount=0.95, return_discount=0.95)
    return compare("Pendulum-v1", static=static, numbers=numbers, num_envs=16, unroll_length=50, period=24, rounds=10)


def acrobot():
    static = dict(widths=(32, 32), num_epochs=4, num_minibatches=4, normalize_observation=True)
    return compare("Acrobot-v1", static=static, numbers={}, num_envs=8, unroll_length=64, period=16, rounds=12)


if __name__ == "__main__":
    common.main(
        "PBT",
        "Population Based Training of Neural Networks",
        "https://arxiv.org/abs/1711.09846",
        __file__,
        {"pendulum": pendulum, "acrobot": acrobot},
    )
