"""PPO in one file, as JAX users write it: what jaxrl's speed is held against.

Its choices are those that PureJaxRL made usual: environments that reset themselves in every step, flax networks,
values of successors shifted by a row (so that truncation counts as termination), `jax.random.permutation`, one
`lax.scan` over everything. Written for gymnax 1.x, on which PureJaxRL does not run.
"""

from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState


class Row(NamedTuple):
    observation: Any
    action: Any
    log_prob: Any
    value: Any
    reward: Any
    done: Any


class ActorCritic(nn.Module):
    num_actions: int

    @nn.compact
    def __call__(self, x):
        def tower(size, gain):
            h = x
            for _ in range(2):
                h = nn.tanh(nn.Dense(64, kernel_init=nn.initializers.orthogonal(2**0.5))(h))
            return nn.Dense(size, kernel_init=nn.initializers.orthogonal(gain))(h)

        return tower(self.num_actions, 0.01), tower(1, 1.0)[..., 0]


def make_train(num_envs, num_steps, total, *, num_epochs=4, num_minibatches=4, learning_rate=2.5e-4, clip=0.2):
    """A function of a key that trains on CartPole-v1 and returns the mean length of the last rollouts' episodes."""
    env, params = gymnax.make("CartPole-v1")
    network = ActorCritic(env.num_actions)
    batch_size, num_updates = num_envs * num_steps, total // (num_envs * num_steps)

    def train(key):
        key, init_key, reset_key = jax.random.split(key, 3)
        optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))
        observation, env_state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), params)
        learner = TrainState.create(apply_fn=network.apply, params=network.init(init_key, observation[0]), tx=optimizer)

        def env_step(carry, _):
            learner, env_state, observation, key = carry
            key, act_key, step_key = jax.random.split(key, 3)
            logits, value = network.apply(learner.params, observation)
            action = jax.random.categorical(act_key, logits)
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
            following, env_state, reward, terminated, truncated, _ = jax.vmap(env.step, (0, 0, 0, None))(
                jax.random.split(step_key, num_envs), env_state, action, params
            )
            row = Row(observation, action, log_prob, value, reward, terminated | truncated)
            return (learner, env_state, following, key), row

        def loss(params, batch, advantage, target):
            logits, value = network.apply(params, batch.observation)
            log_probs = jax.nn.log_softmax(logits)
            log_prob = jnp.take_along_axis(log_probs, batch.action[:, None], 1)[:, 0]
            clipped = batch.value + jnp.clip(value - batch.value, -clip, clip)
            value_loss = 0.5 * jnp.maximum((value - target) ** 2, (clipped - target) ** 2).mean()
            ratio, a = jnp.exp(log_prob - batch.log_prob), (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            policy_loss = -jnp.minimum(ratio * a, jnp.clip(ratio, 1 - clip, 1 + clip) * a).mean()
            entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, -1).mean()
            return policy_loss + 0.5 * value_loss - 0.01 * entropy

        def minibatch(learner, rows):
            return learner.apply_gradients(grads=jax.grad(loss)(learner.params, *rows)), None

        def update(carry, _):
            carry, rows = jax.lax.scan(env_step, carry, length=num_steps)
            learner, env_state, observation, key = carry
            last_value = network.apply(learner.params, observation)[1]

            def gae(carry, row):
                advantage, following = carry
                alive = 1.0 - row.done
                delta = row.reward + 0.99 * following * alive - row.value
                advantage = delta + 0.99 * 0.95 * alive * advantage
                return (advantage, row.value), advantage

            _, advantage = jax.lax.scan(gae, (jnp.zeros_like(last_value), last_value), rows, reverse=True)
            flat = jax.tree.map(
                lambda x: x.reshape(batch_size, *x.shape[2:]), (rows, advantage, advantage + rows.value)
            )

            def epoch(carry, _):
                learner, key = carry
                key, shuffle_key = jax.random.split(key)
                order = jax.random.permutation(shuffle_key, batch_size)
                shuffled = jax.tree.map(lambda x: x[order].reshape(num_minibatches, -1, *x.shape[1:]), flat)
                learner, _ = jax.lax.scan(minibatch, learner, shuffled)
                return (learner, key), None

            (learner, key), _ = jax.lax.scan(epoch, (learner, key), length=num_epochs)
            return (learner, env_state, observation, key), rows.done.sum()

        _, ends = jax.lax.scan(update, (learner, env_state, observation, key), length=num_updates)
        last = max(1, num_updates // 10)
        return last * batch_size / jnp.maximum(ends[-last:].sum(), 1)

    return train
