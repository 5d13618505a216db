"""Small random MDPs with their exact solutions, in float64 NumPy, and tables as networks: for tests.

Arrays: transition [S, A, S'], reward [S, A], policy [S, A] (rows sum to 1), start [S]. Occupancies d [S, A] sum to 1:
d(s, a) = (1 - discount) sum_t discount^t P(s_t = s, a_t = a).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from jaxrl import networks
from jaxrl.types import Transition


class MDP(NamedTuple):
    transition: np.ndarray  # [S, A, S']
    reward: np.ndarray  # [S, A]
    start: np.ndarray  # [S]
    discount: float


def random_mdp(seed, num_states=5, num_actions=3, discount=0.8, branching=2):
    """Each (s, a) leads to `branching` random states; rewards are standard normal, starts uniform."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((num_states, num_actions, num_states))
    for s in range(num_states):
        for a in range(num_actions):
            successors = rng.choice(num_states, branching, replace=False)
            transition[s, a, successors] = rng.dirichlet(np.ones(branching))
    reward = rng.normal(size=(num_states, num_actions))
    return MDP(transition, reward, np.full(num_states, 1 / num_states), discount)


def random_policy(seed, num_states=5, num_actions=3, support=None):
    """Random probabilities; with `support` [S, A] bool, of the actions inside it only."""
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(num_actions), num_states)
    if support is not None:
        probabilities = np.where(support, probabilities + 0.05, 0.0)
    return probabilities / probabilities.sum(1, keepdims=True)


def q_of(mdp, value):
    """r(s, a) + discount E V(s')."""
    return mdp.reward + mdp.discount * mdp.transition @ value


def evaluate_policy(mdp, policy):
    """V [S] of a policy, from the linear system."""
    transition = np.einsum("sa,sat->st", policy, mdp.transition)
    return np.linalg.solve(np.eye(len(transition)) - mdp.discount * transition, (policy * mdp.reward).sum(1))


def solve_backup(mdp, backup, num_iterations=2000):
    """The fixed point V = backup(Q), Q = r + discount E V; backup: [S, A] -> [S]."""
    value = np.zeros(len(mdp.reward))
    for _ in range(num_iterations):
        value = backup(q_of(mdp, value))
    return value


def value_iteration(mdp, support=None):
    """V* [S]; with `support` [S, A] bool, of the best policy inside it."""
    support = np.ones(mdp.reward.shape, bool) if support is None else support
    return solve_backup(mdp, lambda q: np.where(support, q, -np.inf).max(1))


def occupancy(mdp, policy):
    """d [S, A] of a policy."""
    transition = np.einsum("sa,sat->st", policy, mdp.transition)
    states = np.linalg.solve(np.eye(len(transition)) - mdp.discount * transition.T, (1 - mdp.discount) * mdp.start)
    return states[:, None] * policy


def expectile(values, probabilities, tau, num_iterations=60):
    """The tau-expectile of a discrete distribution, by bisection on its first-order condition."""
    low, high = values.min(), values.max()
    for _ in range(num_iterations):
        middle = 0.5 * (low + high)
        pull = np.sum(probabilities * np.where(values > middle, tau, 1 - tau) * (values - middle))
        low, high = (middle, high) if pull > 0 else (low, middle)
    return 0.5 * (low + high)


def regularized_primal(mdp, f, f_prime, alpha, data):
    """max over occupancies d of sum d r - alpha sum data f(d / data), by SLSQP. Returns value, d."""
    num_states, num_actions = mdp.reward.shape
    flow = np.zeros((num_states, num_states, num_actions))
    for s in range(num_states):
        flow[s, s] += 1.0
        flow[s] -= mdp.discount * mdp.transition[:, :, s]
    flow, reward, q = flow.reshape(num_states, -1), mdp.reward.ravel(), data.ravel()
    constraint = {
        "type": "eq",
        "fun": lambda d: flow @ d - (1 - mdp.discount) * mdp.start,
        "jac": lambda d: flow,
    }
    result = scipy.optimize.minimize(
        lambda d: -(d @ reward) + alpha * np.sum(q * f(d / q)),
        q,  # the data's own occupancy is feasible
        jac=lambda d: -reward + alpha * f_prime(d / q),
        bounds=[(1e-12, None)] * len(q),
        constraints=[constraint],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert result.success, result.message
    return -result.fun, result.x.reshape(data.shape)


def total_variation_primal(mdp, alpha, data):
    """As `regularized_primal` with f(w) = |w - 1| / 2, exactly, as a linear program."""
    num_states, num_actions = mdp.reward.shape
    n, q = num_states * num_actions, data.ravel()
    flow = np.zeros((num_states, n))
    for s in range(num_states):
        flow[s] -= mdp.discount * mdp.transition[:, :, s].ravel()
        flow[s, s * num_actions : (s + 1) * num_actions] += 1.0
    eye = np.eye(n)  # variables d, t with t >= |d - q|
    result = scipy.optimize.linprog(
        np.concatenate([-mdp.reward.ravel(), np.full(n, 0.5 * alpha)]),
        A_ub=np.block([[eye, -eye], [-eye, -eye]]),
        b_ub=np.concatenate([q, -q]),
        A_eq=np.hstack([flow, np.zeros((num_states, n))]),
        b_eq=(1 - mdp.discount) * mdp.start,
    )
    assert result.success, result.message
    return -result.fun


def rows(mdp, state_action):
    """Every (s, a, s') once, as a `Transition` [S * A * S] whose weights are state_action(s, a) P(s' | s, a): weighted
    means over it are exact expectations. Rows of weight 0 hold NaN as their reward."""
    num_states, num_actions = mdp.reward.shape
    s, a, t = (x.ravel() for x in np.meshgrid(*map(np.arange, mdp.transition.shape), indexing="ij"))
    weight = (state_action[:, :, None] * mdp.transition).ravel()
    nothing = jnp.zeros(s.shape, bool)
    return Transition(
        jnp.asarray(s, jnp.int32),
        jnp.asarray(a, jnp.int32),
        jnp.asarray(np.where(weight > 0, mdp.reward[s, a], np.nan), jnp.float32),
        nothing,
        nothing,
        jnp.asarray(t, jnp.int32),
        {"weight": jnp.asarray(weight, jnp.float32)},
    )


def value_table(num_states):
    """V(s) as a network: params [S], observations are integers."""
    return networks.feed_forward(lambda key, observation: jnp.zeros(num_states), lambda params, s: params[s])


def critic_table(num_states, num_actions, size=1):
    """Q_i(s, a) of an ensemble: params [E, S, A], observations are tuples of integers, outputs [E, ...]."""
    shape = (size, num_states, num_actions)
    return networks.feed_forward(lambda key, observation: jnp.zeros(shape), lambda params, x: params[:, x[0], x[1]])


def logits_table(num_states, num_actions):
    """Logits [..., A] of a policy: params [S, A]."""
    shape = (num_states, num_actions)
    return networks.feed_forward(lambda key, observation: jnp.zeros(shape), lambda params, s: params[s])


def stack(trees):
    """A leading axis over pytrees of one structure."""
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)
