"""How much of the machine's matrix peak PPO's training reaches, and what its largest products reach by themselves.

    python benchmarks/roofline.py [--quick] [--write]

Floating-point operations are counted by hand, from the sizes of the networks: 2 in out for each row of a layer
forwards, and twice as much again for its gradient (less the gradient of the observations). XLA's own count of one
minibatch's gradient, `cost_analysis`, is beside it. The peak is that of a product of [1024, 1024] in float32.
"""

import argparse
import json
import os
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.networks.matmul import matmul

ROOT = pathlib.Path(__file__).parent.parent
LENGTH, EPOCHS, MINIBATCHES, WIDTHS = 128, 4, 4, (64, 64)
POLICY, CRITIC = (4, *WIDTHS, 2), (4, *WIDTHS, 1)  # CartPole-v1


def best_seconds(function, *arguments, repeats=5):
    """Of a compiled function, the least of several runs."""
    jax.block_until_ready(function(*arguments))
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - begin)
    return min(found)


def forward(sizes):
    """Operations of a row."""
    return sum(2 * a * b for a, b in zip(sizes, sizes[1:]))


def training(sizes):
    """Operations of a row forwards and backwards."""
    return 3 * forward(sizes) - 2 * sizes[0] * sizes[1]


def operations_of_a_step():
    """Of an environment step: acting, the values of successors, and each epoch."""
    acting = forward(POLICY) + forward(CRITIC)
    return acting + forward(CRITIC) + EPOCHS * (training(POLICY) + training(CRITIC))


def peak():
    """GFLOP/s of a product of [1024, 1024]."""
    x = jnp.ones((1024, 1024))
    return 2 * 1024**3 / best_seconds(jax.jit(jnp.matmul), x, x, repeats=20) / 1e9


def products(rows, size, trips=32):
    """GFLOP/s of a layer of 64 x size with so many rows: forwards, its gradient as autodiff writes it, and as ours."""
    x, cotangent = jnp.ones((rows, 64)), jnp.ones((rows, size))

    def repeated(product):
        def body(w, _):
            return w + 1e-9 * product(x + w[0, 0], w), None

        return jax.jit(lambda w: jax.lax.scan(body, w, length=trips)[0])

    def gradient(multiply):
        return lambda x, w: jax.grad(lambda v: jnp.sum(multiply(x, v) * cotangent))(w)

    kinds = {"forwards": lambda x, w: jnp.sum(x @ w, 0, keepdims=True), "gradient of W, x @ W": gradient(jnp.matmul)}
    kinds["gradient of W, matmul"] = gradient(matmul)
    each = 2 * rows * 64 * size * trips / 1e9
    return {name: each / best_seconds(repeated(product), jnp.zeros((64, size))) for name, product in kinds.items()}


def ppo(num_envs, steps):
    """Steps/s of a whole training run, and XLA's count of the operations of an update, of a step."""
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, widths=WIDTHS, num_epochs=EPOCHS, num_minibatches=MINIBATCHES)
    loop = jaxrl.online(agent, env, num_envs=num_envs, unroll_length=LENGTH)
    batch = num_envs * LENGTH
    updates = max(1, steps // batch)
    state = jax.jit(loop.init)(jax.random.key(0), hparams)
    compiled = jax.jit(lambda state: jaxrl.run(loop, state, updates)[0]).lower(state).compile()

    def one_minibatch(params, x):
        def loss(params):
            (_, outputs), (_, value) = (net.apply(params[name], (), x) for name, net in nets)
            return jnp.sum(outputs) + jnp.sum(value)

        return jax.grad(loss)(params)

    nets = networks(env)
    params = {name: net.init(jax.random.key(0), jnp.zeros(4)) for name, net in nets}
    rows = batch // MINIBATCHES
    counted = jax.jit(one_minibatch).lower(params, jnp.zeros((rows, 4))).compile().cost_analysis()["flops"]
    rate = updates * batch / best_seconds(compiled, state, repeats=3)
    return rate, EPOCHS * counted / rows


def networks(env):
    from jaxrl import networks
    from jaxrl.distributions import for_space

    policy = networks.policy(networks.mlp(WIDTHS), for_space(env.action_space)).network
    return (("policy", policy), ("critic", networks.critic(networks.mlp(WIDTHS))))


def table(rows):
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in [names, ["---"] * len(names), *cells])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true", help="docs/roofline.json and docs/roofline.md")
    arguments = parser.parse_args()
    envs, steps = ((4,), 2048) if arguments.quick else ((4, 64, 1024, 2048), 524_288)
    rows_of_layers = (128,) if arguments.quick else (128, 2048, 32_768)

    top = statistics.median(peak() for _ in range(3))
    by_hand = operations_of_a_step()
    training_rows, layer_rows = [], []
    for num_envs in envs:
        rate, counted = ppo(num_envs, steps)
        reached = rate * by_hand / 1e9
        training_rows.append(
            {
                "environments": num_envs,
                "steps/s": f"{rate:,.0f}",
                "kFLOP a step, by hand": f"{by_hand / 1e3:.0f}",
                "kFLOP a step of the gradients, XLA (by hand)": f"{counted / 1e3:.0f} "
                f"({EPOCHS * (training(POLICY) + training(CRITIC)) / 1e3:.0f})",
                "GFLOP/s": f"{reached:.0f}",
                "of the peak": f"{reached / top:.0%}",
            }
        )
    for rows, size in ((rows, size) for rows in rows_of_layers for size in (64, 2)):
        found = products(rows, size)
        layer_rows.append(
            {"rows": rows, "layer": f"64 x {size}", **{name: f"{rate:.0f}" for name, rate in found.items()}}
        )
    text = (
        f"Peak: {top:.0f} GFLOP/s in float32 on {len(os.sched_getaffinity(0))} cores, jax {jax.__version__}.\n\n"
        f"{table(training_rows)}\n\nGFLOP/s of one layer:\n\n{table(layer_rows)}\n"
    )
    print(text)
    if arguments.write:
        head = "# Roofline\n\nPPO on CartPole-v1, two networks of 2 x 64, 4 epochs of 4 minibatches. Made by "
        (ROOT / "docs" / "roofline.md").write_text(f"{head}`python benchmarks/roofline.py --write`.\n\n{text}")
        figures = {"peak": top, "training": training_rows, "layers": layer_rows}
        (ROOT / "docs" / "roofline.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
