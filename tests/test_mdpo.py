"""Mirror descent as PPO's policy loss: exact iterates on tabular MDPs, the sibling with a penalty, and the promises."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tabular
import toys

from jaxrl import losses
from jaxrl.agents.ppo import PPOHparams, ppo
from jaxrl.distributions import categorical
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.policy_losses import KLPenaltyHparams, MirrorDescentHparams, kl_penalty, mirror_descent
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Policy, Transition

KEY = jax.random.key(0)
STATES, ACTIONS = 5, 3


def tabular_agent(policy_loss, num_epochs, **static):
    """A table of logits, learned by plain gradient descent; the critic does not matter."""
    policy = Policy(tabular.logits_table(STATES, ACTIONS), categorical(ACTIONS))
    static = dict(normalize_advantage="none", optimizer=lambda hp: optax.sgd(hp.learning_rate)) | static
    return ppo(
        policy,
        tabular.value_table(STATES),
        num_epochs=num_epochs,
        num_minibatches=1,
        policy_loss=policy_loss,
        **static,
    )


def exact_rows(mdp, policy):
    """Every (s, a) once as a rollout [1, S * A] with its exact advantage; weights make means over a expectations under
    the policy. Episodes of one step: reward - value is the advantage."""
    value = tabular.evaluate_policy(mdp, policy)
    s, a = (x.ravel() for x in np.meshgrid(np.arange(STATES), np.arange(ACTIONS), indexing="ij"))
    row = lambda x, dtype=jnp.float32: jnp.asarray(x, dtype)[None]  # noqa: E731
    extras = {
        "log_prob": row(np.log(policy[s, a])),
        "value": row(value[s]),
        "raw_action": row(a, jnp.int32),
        "weight": row(policy[s, a]),
    }
    yes, no = jnp.ones((1, len(s)), bool), jnp.zeros((1, len(s)), bool)
    states = row(s, jnp.int32)
    return Transition(states, row(a, jnp.int32), row(tabular.q_of(mdp, value)[s, a]), yes, no, states, extras)


def softmax(logits):
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def hparams_of(policy_loss, learning_rate=10.0):
    return PPOHparams(learning_rate, entropy_coefficient=0.0, value_coefficient=0.0, policy_loss=policy_loss)


@pytest.mark.parametrize("step, fraction", [(0.3, 0.0), (0.6, 0.75)])
def test_iterates_on_a_tabular_mdp(step, fraction):
    """With exact advantages and many inner steps, pi_{k+1} is pi_k exp(t_k A) / Z; t_k falls with environment steps."""
    mdp, size = tabular.random_mdp(0), STATES * ACTIONS
    mdp = mdp._replace(reward=0.5 * mdp.reward)  # gradient descent is slow where a probability is small
    agent = tabular_agent(mirror_descent(), num_epochs=3000)
    decay = 4 * size / fraction if fraction else np.inf  # at the fifth update, `fraction` of t_0 is gone
    hp = hparams_of(MirrorDescentHparams(step, decay), learning_rate=15 * step * (1 - fraction))
    policy = tabular.random_policy(1, support=np.ones((STATES, ACTIONS), bool))
    state = agent.init(KEY, hp, exact_rows(mdp, policy))
    state = state._replace(params=state.params | {"policy": jnp.asarray(np.log(policy), jnp.float32)})
    update, returns = jax.jit(agent.update), []
    for k in range(5):
        advantage = tabular.q_of(mdp, tabular.evaluate_policy(mdp, policy))
        t_k = step * (1 - fraction * k / 4)
        exact = softmax(np.log(policy) + t_k * advantage)
        assert np.abs(exact - policy).max() > 0.01
        state, _ = update(KEY, state, exact_rows(mdp, policy))
        policy = softmax(np.asarray(state.params["policy"], np.float64))
        np.testing.assert_allclose(policy, exact, atol=1e-5)
        returns.append(mdp.start @ tabular.evaluate_policy(mdp, policy))
    assert np.all(np.diff(returns) > 0)  # exact mirror descent improves at every iteration


def test_fixed_point_of_the_penalty():
    """-sum_a pi A + coefficient KL(pi_k || pi) is minimal at coefficient pi_k / (nu - A), nu by bisection."""
    mdp, coefficient = tabular.random_mdp(3), 0.6
    policy = tabular.random_policy(2, support=np.ones((STATES, ACTIONS), bool))
    agent = tabular_agent(kl_penalty(), num_epochs=3000)
    rows = exact_rows(mdp, policy)
    state = agent.init(KEY, hparams_of(KLPenaltyHparams(coefficient)), rows)
    state = state._replace(params=state.params | {"policy": jnp.asarray(np.log(policy), jnp.float32)})
    state, _ = jax.jit(agent.update)(KEY, state, rows)
    value = tabular.evaluate_policy(mdp, policy)
    for s in range(STATES):
        advantage = tabular.q_of(mdp, value)[s] - value[s]
        low, high = advantage.max() + 1e-12, advantage.max() + coefficient
        for _ in range(80):
            nu = 0.5 * (low + high)
            total = np.sum(coefficient * policy[s] / (nu - advantage))
            low, high = (nu, high) if total > 1 else (low, nu)
        exact = coefficient * policy[s] / (nu - advantage)
        np.testing.assert_allclose(jax.nn.softmax(state.params["policy"][s]), exact, atol=1e-5)


def test_one_step_alone_is_the_policy_gradient():
    """At pi_k the penalty has no gradient: whatever t_k, a first step is that of -ratio A; a second one is not."""
    mdp, policy = tabular.random_mdp(0), tabular.random_policy(1, support=np.ones((STATES, ACTIONS), bool))
    rows, moved = exact_rows(mdp, policy), {}
    logits = jnp.asarray(np.log(policy), jnp.float32)
    for num_epochs in (1, 2):
        update = jax.jit(tabular_agent(mirror_descent(), num_epochs).update)
        for step in (0.1, 10.0):
            hp = hparams_of(MirrorDescentHparams(step))
            state = tabular_agent(mirror_descent(), num_epochs).init(KEY, hp, rows)
            after = update(KEY, state._replace(params=state.params | {"policy": logits}), rows)[0]
            moved[num_epochs, step] = np.asarray(after.params["policy"] - logits)
    advantage = np.asarray(rows.reward - rows.extras["value"], np.float64).reshape(STATES, ACTIONS)
    exact = 10.0 / STATES * policy * (advantage - (policy * advantage).sum(1, keepdims=True))
    for step in (0.1, 10.0):
        np.testing.assert_allclose(moved[1, step], exact, atol=1e-5)
    assert np.abs(moved[2, 0.1] - moved[2, 10.0]).max() > 0.1


@pytest.mark.parametrize("recurrent", [False, True], ids=["feed_forward", "recurrent"])
@pytest.mark.parametrize("space", [Discrete(3), Box(-1.0, 1.0, (2,))], ids=["discrete", "continuous"])
def test_penalty_on_a_rollout_against_a_row_by_row_sum(space, recurrent):
    """The loss of an update at the parameters that acted, but for its first step, by a loop over rows: old outputs are
    those of the rollout in every minibatch, with memory and shuffled rows."""
    env = toys.clock(4)._replace(action_space=space)
    policy, critic = toys.actor_and_critic(env, recurrent=recurrent, width=4)
    hp = PPOHparams(learning_rate=0.5, policy_loss=MirrorDescentHparams(0.05), entropy_coefficient=0.0)
    agents = [
        ppo(
            policy,
            critic,
            num_epochs=n,
            num_minibatches=1,
            normalize_advantage="none",
            policy_loss=mirror_descent(),
            optimizer=lambda hp: optax.sgd(hp.learning_rate),
        )
        for n in (1, 2)
    ]
    state = agents[0].init(KEY, hp, example_data(env, 2, 5))
    now = start(KEY, agents[0], state, env, env.params, 2)
    _, data, _ = jax.jit(lambda: rollout(KEY, agents[0], state, env, now, 5))()
    reward = jax.random.normal(KEY, data.reward.shape)
    data = data._replace(reward=reward)
    once, _ = jax.jit(agents[0].update)(KEY, state, data)
    _, metrics = jax.jit(agents[1].update)(KEY, state, data)

    def row_losses(params):
        """-ratio A + KL / t of every row, unrolled by hand; A from the recursion in float64."""
        total = 0.0
        for n in range(2):
            advantage, advantages = 0.0, []
            for t in reversed(range(5)):
                last = bool(data.terminated[t, n] | data.truncated[t, n])
                memory = jax.tree.map(lambda x, t=t, n=n: x[t, n], data.extras["memory"][1]) if recurrent else ()
                memory, _ = critic.apply(state.params["critic"], memory, data.observation[t, n])
                after = float(critic.apply(state.params["critic"], memory, data.next_observation[t, n])[1])
                live = 0.0 if bool(data.terminated[t, n]) else hp.discount * after
                delta = float(reward[t, n]) + live - float(data.extras["value"][t, n])
                advantage = delta + (0.0 if last else hp.discount * hp.lambda_) * advantage
                advantages.insert(0, advantage)
            memories = [jax.tree.map(lambda x, n=n: x[0, n], data.extras["memory"][0]) if recurrent else ()] * 2
            for t in range(5):
                observation = data.observation[t, n]
                if t and bool(data.terminated[t - 1, n] | data.truncated[t - 1, n]):
                    memories = [policy.network.init_memory(p["policy"], observation) for p in (state.params, params)]
                both = [
                    policy.network.apply(p["policy"], m, observation) for p, m in zip((state.params, params), memories)
                ]
                memories, (old, new) = [m for m, _ in both], [out for _, out in both]
                raw, d = data.extras["raw_action"][t, n], policy.distribution
                ratio = np.exp(float(d.log_prob(new, raw)) - float(d.log_prob(old, raw)))
                total += -ratio * advantages[t] + float(d.kl(new, old)) / 0.05
        return total / 10

    losses_ = [row_losses(p.params) for p in (state, once)]
    np.testing.assert_allclose(metrics["policy_loss"], np.mean(losses_), rtol=2e-4, atol=1e-5)
    assert abs(losses_[1] - losses_[0]) > 1e-2


def test_penalized_surrogate():
    x = losses.penalized_surrogate(jnp.log(0.6), jnp.log(0.5), 2.0, 0.1, 3.0)
    np.testing.assert_allclose(x, -1.2 * 2.0 + 0.3, rtol=1e-6)
    slope = jax.grad(losses.penalized_surrogate)(100.0, 0.0, 1.0, 0.0, 1.0)
    assert np.isfinite(slope)


def test_numbers_of_another_loss():
    agent = tabular_agent(mirror_descent(), 1)
    assert agent.hparams.policy_loss == MirrorDescentHparams()
    assert tabular_agent(kl_penalty(), 1).hparams.policy_loss == KLPenaltyHparams()
    policy = tabular.random_policy(1)
    with pytest.raises(ValueError, match="hparams.policy_loss is tuple, the policy loss needs MirrorDescentHparams"):
        agent.init(KEY, PPOHparams(), exact_rows(tabular.random_mdp(0), policy))
