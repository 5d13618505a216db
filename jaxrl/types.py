"""The contract: bundles of pure functions, and the data that flows between them.

A *bundle* is a `NamedTuple` of functions (as `optax.GradientTransformation` is for optimisers). Environments, agents,
networks, transforms, buffers, curricula and loops are bundles; everything that changes lives in the states that their
functions take and return, so `jit`, `vmap`, `grad` and `shard_map` apply to all of it.

Axes are written `[T, N]`: T time, N environments, B batch, A agents, P population, L segment. Data is time-major.
Arguments come in the order `key, state, inputs..., params`; a key is split at the top of a function and consumed.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxrl import parallel
from jaxrl.spaces import Space

Array = jax.Array
PyTree = Any
Metrics = dict[str, Array]


class TimeStep(NamedTuple):
    """What `Env.step` returns for one environment.

    Attributes:
      observation: the true successor s', never the observation of a reset.
      reward: [] float32; [A] with many agents (a team reward is repeated).
      terminated: [] bool (or [A]); the MDP ended: the value of s' is 0.
      truncated: [] bool (or [A]); the clock ended: the value of s' is V(s').
      extras: costs, further objectives, a global state: merged into `Transition.extras`.
    """

    observation: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    extras: dict[str, PyTree] = {}


class Transition(NamedTuple):
    """What agents learn from. Leaves [T, N, ...] from a rollout, [B, ...] from a buffer; [T, N, A, ...] with agents.

    Attributes:
      next_observation: the true successor, also where the episode ended.
      extras: what `act` and the environment recorded (`log_prob`, `value`, costs). Two names are a law for everybody:
        `weight` (0 means that the row is not there) and `num_steps` (how many primitive steps the row spans).
    """

    observation: PyTree
    action: PyTree
    reward: Array
    terminated: Array
    truncated: Array
    next_observation: PyTree
    extras: dict[str, PyTree] = {}


def is_last(data: Transition | TimeStep) -> Array:
    """Whether the episode ended with this step, by termination or by truncation."""
    return data.terminated | data.truncated


def weight(data: Transition) -> Array:
    """`extras["weight"]`, or ones: shape and dtype of the reward."""
    return data.extras["weight"] if "weight" in data.extras else jnp.ones_like(data.reward)


def num_steps(data: Transition) -> Array | int:
    """`extras["num_steps"]`, or 1: the number of primitive steps that the transition spans."""
    return data.extras.get("num_steps", 1)


def bootstrap(data: Transition, discount: Array | float) -> Array:
    """discount ** num_steps * (1 - terminated): TD targets are `reward + bootstrap(data, discount) * next_value`."""
    return discount ** num_steps(data) * (1.0 - data.terminated)


def trace(data: Transition, discount: Array | float, lambda_: Array | float) -> Array:
    """What carries a recursion from step t + 1 to t: discount ** num_steps * lambda * (1 - is_last)."""
    return discount ** num_steps(data) * lambda_ * (1.0 - is_last(data))


def weighted_mean(x: Array, data: Transition) -> Array:
    """sum(weight * x) / sum(weight) over all axes; rows of weight 0 do not count, not even if x is not finite there.

    `x` has the shape of the reward; 0 where all weights are 0. The denominator is the mean of all shards'.
    """
    if "weight" not in data.extras:
        return jnp.mean(x)
    w = data.extras["weight"]
    return jnp.sum(jnp.where(w > 0, w * x, 0.0)) / jnp.maximum(parallel.mean(jnp.sum(w)), jnp.finfo(w.dtype).tiny)


def item(data: PyTree) -> PyTree:
    """The first entry along the leading axis of every leaf."""
    return jax.tree.map(lambda x: x[0], data)


class ResetFn(Protocol):
    def __call__(self, key: Array, params: PyTree) -> tuple[PyTree, PyTree]:
        """Starts an episode of one environment. Returns `state, observation`."""


class StepFn(Protocol):
    def __call__(self, key: Array, state: PyTree, action: PyTree, params: PyTree) -> tuple[PyTree, TimeStep]:
        """Advances one environment; never resets it. `state` keeps its structure, shapes and dtypes."""


class Env(NamedTuple):
    """One environment; the loop maps it over N with `vmap`.

    Attributes:
      params: traced. A level, a physical constant, a task, a prompt, an opponent's weights live here; `vmap` over it is
        domain randomisation.
      observation_space, action_space: static.
      render: (state, params) -> picture uint8 [H, W, 3], or None. What wraps the state wraps this, too.
    """

    reset: ResetFn
    step: StepFn
    params: PyTree
    observation_space: Space
    action_space: Space
    render: Any = None


class Network(NamedTuple):
    """A function approximator. Agents see these four functions, never the library that made them.

    Attributes:
      init: (key, observation [B, ...]) -> params. Only shapes and dtypes of the observation matter.
      apply: (params, memory, observation [..., obs]) -> memory, outputs [..., out]. Elementwise over leading axes.
      init_memory: (params, observation [..., obs]) -> memory [..., m]; () if feed-forward.
      unroll: (params, memory [N, m], observation [T, N, ...], is_first [T, N]) -> outputs [T, N, ...]. Runs from
        `memory`; where `is_first[t]`, the memory is `init_memory` again before step t is seen.
    """

    init: Any
    apply: Any
    init_memory: Any
    unroll: Any


class Distribution(NamedTuple):
    """A family of distributions over actions, parametrised by the outputs of a network, `params` [..., num_params].

    Samples are *raw*: `transform` turns them into actions of the environment (squashes, scales, clips) and
    `log_prob`, where the transform is a bijection, is the density of the action, evaluated exactly at the raw sample.

    Attributes:
      num_params: size of the last axis of `params`.
      num_scale: how many of its last entries are (log) scales, which a head may hold as state-independent weights.
      sample: (key, params) -> raw.
      mode: (params) -> raw, the most likely (for squashed families: the mode before squashing).
      log_prob: (params, raw) -> [...].
      entropy: (params, raw=None) -> [...], exact, or the documented estimate; given raw where parts depend on others.
      kl: (params, other) -> [...], KL(params || other).
      transform: (raw) -> action, always inside the action space.
      inverse: (action) -> raw, for data that holds actions alone.
    """

    num_params: int
    num_scale: int
    sample: Any
    mode: Any
    log_prob: Any
    entropy: Any
    kl: Any
    transform: Any
    inverse: Any


class Policy(NamedTuple):
    """A network together with the family of distributions that its outputs parametrise."""

    network: Network
    distribution: Distribution


class AgentInit(Protocol):
    def __call__(self, key: Array, hparams: PyTree, example: Transition) -> PyTree:
        """Makes the state. `example` has the leading axes of the data that `update` will see; only shapes matter.

        The state keeps `hparams` (float32 arrays) in a field of that name: sweeps, populations and meta-gradients edit
        it there. A wrapper's state keeps the inner agent's state in a field called `agent`.
        """
        ...


class Act(Protocol):
    def __call__(self, key: Array, state: PyTree, memory: PyTree, observation: PyTree) -> tuple[PyTree, PyTree, dict]:
        """Returns `memory, action, extras` for observations [N, ...]; extras go into `Transition.extras`."""
        ...


class Update(Protocol):
    def __call__(self, key: Array, state: PyTree, data: PyTree) -> tuple[PyTree, Metrics]:
        """Learns from a batch. The returned state has the structure, shapes and dtypes of the given one."""
        ...


class Remember(Protocol):
    def __call__(self, state: PyTree, memory: PyTree, step: Transition) -> PyTree:
        """Takes the outcome of a step [N] (its reward, its end) into memory; runs before a reset."""
        ...


def no_memory(key, state, observation):
    """`init_memory` of feed-forward agents."""
    return ()


def keep(state, memory, step):
    """`remember` of agents whose memory does not need the outcome."""
    return memory


def nothing(key, state, data):
    """`observe` of agents that learn in `update` alone."""
    return state, {}


def identity(x):
    """`actor` of agents that act with all of their state."""
    return x


class Agent(NamedTuple):
    """A learner and actor. Batched: `act` takes observations [N, ...] and one key.

    Attributes:
      init, act, update, remember: see their protocols.
      init_memory: (key, state, observation [N]) -> memory [N], at the loop's init and at every reset.
      act_greedy: signature of `act`, without exploration.
      observe: (key, state, fresh [T, N]) -> state, metrics. Once a rollout, before `update`: what must learn from whole
        fresh trajectories (normalisers, buffers, reward models), whatever the data that `update` is then given.
      actor: (state) -> state without what acting does not need; `act` takes either.
      hparams: defaults, nested as `init` wants them.
    """

    init: AgentInit
    init_memory: Any
    act: Act
    act_greedy: Act
    update: Update
    remember: Remember = keep
    observe: Update = nothing
    actor: Any = identity
    hparams: PyTree = ()


class Wrapped(NamedTuple):
    """Hyperparameters of a combinator: its own, and those of the agent inside. Each layer stores only its own."""

    agent: PyTree
    own: PyTree


class Transform(NamedTuple):
    """Rewrites data on its way to `update`."""

    init: Any  # (key, hparams, example) -> state
    apply: Any  # (key, state, data) -> data
    observe: Any  # (key, state, fresh [T, N]) -> state, metrics
    hparams: PyTree = ()  # defaults


class Buffer(NamedTuple):
    """A store of transitions that learners draw batches from."""

    init: Any  # (hparams, example [T, N]) -> state
    add: Any  # (state, fresh [T, N]) -> state
    sample: Any  # (key, state) -> data [B], or [L, B] of sequences; extras may gain weight, num_steps, index
    is_ready: Any  # (state) -> [] bool: there is enough to learn from
    prioritize: Any = keep  # (state, data, priority [B]) -> state; learners report priorities where data has an index
    hparams: PyTree = ()  # defaults


class Curriculum(NamedTuple):
    """Hands environment parameters to resets."""

    init: Any  # (key, params) -> state
    sample: Any  # (key, state, agent_state, num_envs) -> params, [N] along `axes`
    update: Any  # (key, state, agent_state, data [T, N]) -> state, metrics
    axes: int | None = 0  # 0 gives each environment its own params, None shares one


class Loop(NamedTuple):
    """Something that trains: `init(key, hparams=None) -> state`, `step(state) -> state, metrics`.

    One `step` of the online loop is one rollout and one update. Metrics are a flat dict of scalars; what is counted is
    reported as sums and counts (`episode/return_sum`, `episode/count`), so that a host may add up any number of steps.
    """

    init: Any
    step: Any
