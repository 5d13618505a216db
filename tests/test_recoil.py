"""ReCOIL: its one-step targets by hand, and the scores they lead to on a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular

from jaxrl import divergences
from jaxrl.combinators.demonstrations import with_demonstrations
from jaxrl.combinators.recoil import RecoilHparams, recoil, recoil_targets
from jaxrl.distributions import categorical
from jaxrl.types import Policy, Transition, bootstrap

KEY = jax.random.key(0)


def transition(observation, action, following, terminated, **extras):
    size = len(observation)
    return Transition(
        jnp.asarray(observation, jnp.int32),
        jnp.asarray(action, jnp.int32),
        jnp.full(size, 7.0),  # the environment's rewards are not read
        jnp.asarray(terminated, bool),
        jnp.zeros(size, bool),
        jnp.asarray(following, jnp.int32),
        extras,
    )


def test_targets():
    """q for a demonstration, whatever follows; else -(1 - gamma) q + gamma V(s'), and -q where terminated."""
    transform = recoil_targets()
    state = transform.init(KEY, RecoilHparams(expert_value=10.0, step_reward=-1.0), None)
    demonstration = jnp.float32([1, 1, 0, 0, 0])
    data = transition(range(5), [0] * 5, range(5), [0, 1, 0, 1, 0], demonstration=demonstration)
    data = data._replace(extras=data.extras | {"num_steps": jnp.int32([1, 1, 1, 1, 3])})
    out = transform.apply(KEY, state, data)
    next_v = jnp.float32([5.0, 6.0, 7.0, 8.0, 9.0])
    target = out.reward + bootstrap(out, 0.9) * next_v
    np.testing.assert_allclose(target, [10.0, 10.0, -1 + 0.9 * 7.0, -10.0, -3 + 0.729 * 9.0], rtol=1e-6)
    with pytest.raises(ValueError, match='has no extras\\["demonstration"\\]'):
        transform.apply(KEY, state, data._replace(extras={}))


def test_scores_and_policy_on_a_chain():
    """States 0 .. 4, action 1 right, 0 left. The expert is seen at 3 and 4 only, others everywhere before: the score
    falls with every step away from the demonstrations, and the policy walks to them."""
    discount, q = 0.9, 10.0
    expert = transition([3, 4], [1, 1], [4, 4], [0, 0])
    states = np.repeat(np.arange(3), 2)
    actions = np.tile([0, 1], 3)
    other = transition(states, actions, np.maximum(states + 2 * actions - 1, 0), [0] * 6)
    policy = Policy(tabular.logits_table(5, 2), categorical(2))
    agent = with_demonstrations(
        recoil(
            policy,
            tabular.value_table(5),
            tabular.critic_table(5, 2, 2),
            value_loss=divergences.expectile(),
            optimizer=lambda hp: optax.sgd(hp.learning_rate),
        ),
        expert,
    )
    hp = agent.hparams
    hp = hp._replace(
        own=RecoilHparams(q, -(1 - discount) * q),
        agent=hp.agent._replace(
            learning_rate=0.5,
            discount=discount,
            target_rate=0.2,
            inverse_temperature=1.0,
            value=divergences.ExpectileHparams(0.99),
        ),
    )

    def train():
        state = agent.init(KEY, hp, other)
        keys = jax.random.split(KEY, 4000)
        return jax.lax.scan(lambda s, k: (agent.update(k, s, other)[0], None), state, keys)[0]

    learned = jax.jit(train)().agent
    value = [q]  # at 3; then -(1 - gamma) q + gamma V
    for _ in range(3):
        value.append(-(1 - discount) * q + discount * value[-1])
    np.testing.assert_allclose(learned.params["value"], [*value[::-1], q], atol=0.2)
    np.testing.assert_array_equal(learned.params["policy"].argmax(1), 1)
    _, action, _ = agent.act_greedy(KEY, agent.actor(jax.jit(train)()), (), jnp.arange(5))
    np.testing.assert_array_equal(action, 1)
