"""`options`: call-and-return options whose policies and terminations are learned (Bacon et al. 2017).

The option-critic (https://arxiv.org/abs/1609.05140) has two gradients. With beta_o(s) the termination of option o, mu
the policy over options, V(s) = sum_o mu(o|s) Q(s, o) and U(o, s') = (1 - beta_o(s')) Q(s', o) + beta_o(s') V(s'):

    intra-option policy:  grad log pi_o(a|s) (r + discount U(o, s') - Q(s, o))
    termination:          -grad beta_o(s') (Q(s', o) - V(s'))

Both are plain policy gradients of two MDPs that have the option in their state (Zhang and Whiteson 2019,
https://arxiv.org/abs/1904.12691), so that any agents learn them:

    gate:    state (s, last option), action o with probability (1 - beta_last(s)) 1(o = last) + beta_last(s) mu(o|s)
    worker:  state (s, o), action a; the next state has an option of the gate's choice: V(s', o') is U on average

Options whose policies and terminations are given are primitives of `sequencer`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Sequence

import jax
import jax.numpy as jnp

from jaxrl.combinators.hierarchy.segments import of_both
from jaxrl.combinators.hierarchy.switch import one_hot, switch
from jaxrl.combinators.lift import salted
from jaxrl.distributions import categorical
from jaxrl.loop import merge_metrics
from jaxrl.networks import policy, view
from jaxrl.networks.core import map_outputs
from jaxrl.spaces import Box, Dict, Space
from jaxrl.tree import as_arrays, find, select
from jaxrl.types import Agent, Array, Metrics, Network, Policy, PyTree, Transition, weight

SALT = 0x300  # and 4 numbers more for each level of options, as in `hierarchical`


class OptionsHparams(NamedTuple):
    """Numbers of `options`."""

    switch_cost: float = 0.0  # >= 0, what the gate pays for another option: without it options end at once


class GateAndWorker(NamedTuple):
    """Hyperparameters of `options`."""

    gate: PyTree
    worker: PyTree
    own: OptionsHparams = OptionsHparams()


class OptionsState(NamedTuple):
    """State of `options`."""

    hparams: OptionsHparams
    gate: PyTree
    worker: PyTree


class Choice(NamedTuple):
    """What the gate did in a row; `extras["option"]`."""

    before: Array  # [..., K] one-hot of the option before, zeros at the start of an episode
    action: Array  # [...] the option
    extras: PyTree  # what the gate recorded


class OptionsMemory(NamedTuple):
    """Memory of `options`."""

    gate: PyTree
    worker: PyTree
    option: Array  # [N, K] one-hot of the last option


def options(
    agents: Agent | Sequence[Agent], gate: Agent, num_options: int, *, hparams: OptionsHparams = OptionsHparams()
) -> Agent:
    """K options and a gate that keeps or replaces the current one in every step.

    Both learn from the environment's reward; metrics are under "gate/" and "worker/". Hyperparameters:
    `GateAndWorker(gate=..., worker=..., own=OptionsHparams)`. Where terminations are probabilities, evaluate with
    `greedy=False`: the greedy gate keeps an option unless another one is the most likely.

    Args:
      agents: one worker for observations {"observation", "option": [..., K], one-hot}, whose critic is then Q(s, o); or
        K agents that see the observation alone (`switch`), whose critics know of their own option only: another one
        counts as truncation.
      gate: for observations of the same structure, with the option before (zeros at the start of an episode), and
        actions in Discrete(K), without memory. Terminations are in its policy: `gate_policy`.
      num_options: K.

    Raises:
      ValueError: if num_options < 1, or is not the number of agents; while tracing, if the gate has memory.
    """
    if num_options < 1:
        raise ValueError(f"options: num_options is {num_options}, must be >= 1")
    if isinstance(agents, Agent):
        worker = agents
    elif len(agents) == num_options:
        worker = switch(agents)
    else:
        raise ValueError(f"options: {len(agents)} agents for num_options {num_options}, must be as many")
    salt = SALT + 4 * len(find(worker.hparams, GateAndWorker))

    def joined(observation: PyTree, option: Array) -> dict:
        return {"observation": observation, "option": option}

    def choose(key: Array, act: Any, state: OptionsState, observation: PyTree, option: Array):
        seen = joined(observation, option)
        memory = gate.init_memory(salted(key, salt + 1), state.gate, seen)
        if jax.tree.leaves(memory):
            raise ValueError("options: the gate has memory, needs one that chooses by the observation alone")
        return act(salted(key, salt), state.gate, memory, seen)[1:]

    def init(key: Array, hparams: GateAndWorker, example: Transition) -> OptionsState:
        if "option" not in example.extras:
            now = jnp.zeros_like(example.reward, jnp.int32)
            example = example._replace(
                extras={**example.extras, "option": Choice(one_hot(now, num_options), now, {}), "worker": {}}
            )
        state = OptionsState(as_arrays(hparams.own), (), ())
        return state._replace(
            gate=gate.init(salted(key, salt), hparams.gate, above(state, example)),
            worker=worker.init(key, hparams.worker, below(example, example.extras["option"].action)),
        )

    def init_memory(key: Array, state: OptionsState, observation: PyTree) -> OptionsMemory:
        option = jnp.zeros((jax.tree.leaves(observation)[0].shape[0], num_options))
        seen = joined(observation, option)
        upper = gate.init_memory(salted(key, salt), state.gate, seen)
        return OptionsMemory(upper, worker.init_memory(key, state.worker, seen), option)

    def act(key: Array, state: OptionsState, memory: OptionsMemory, observation: PyTree):
        option, upper = choose(key, gate.act, state, observation, memory.option)
        chosen = one_hot(option, num_options)
        inner, action, lower = worker.act(key, state.worker, memory.worker, joined(observation, chosen))
        extras = {"option": Choice(memory.option, option, upper), "worker": lower}
        return OptionsMemory(memory.gate, inner, chosen), action, extras

    def act_greedy(key: Array, state: OptionsState, memory: OptionsMemory, observation: PyTree):
        option, upper = choose(key, gate.act_greedy, state, observation, memory.option)
        chosen = one_hot(option, num_options)
        inner, action, lower = worker.act_greedy(key, state.worker, memory.worker, joined(observation, chosen))
        return OptionsMemory(memory.gate, inner, chosen), action, {"gate": upper, "worker": lower}

    def above(state: OptionsState, data: Transition) -> Transition:
        """What the gate learns from."""
        before, action, extras = data.extras["option"]
        chosen = one_hot(action, num_options)
        switched = jnp.sum(before, -1) * (1.0 - jnp.sum(before * chosen, -1))
        recorded = {"weight": data.extras["weight"]} if "weight" in data.extras else {}
        recorded |= {"num_steps": data.extras["num_steps"]} if "num_steps" in data.extras else {}
        return data._replace(
            observation=joined(data.observation, before),
            next_observation=joined(data.next_observation, chosen),
            action=action,
            reward=data.reward - state.hparams.switch_cost * switched,
            extras={**extras, **recorded},
        )

    def below(data: Transition, option_after: Array) -> Transition:
        """What the worker learns from."""
        others = {name: x for name, x in data.extras.items() if name not in ("option", "worker")}
        return data._replace(
            observation=joined(data.observation, one_hot(data.extras["option"].action, num_options)),
            next_observation=joined(data.next_observation, one_hot(option_after, num_options)),
            extras=merge_metrics(others, data.extras["worker"]),
        )

    def views(key: Array, state: OptionsState, data: Transition) -> tuple[Transition, Transition]:
        if "option" not in data.extras:
            raise ValueError(f"options: data has no extras['option'], which act records; it has {[*data.extras]}")
        seen, shape = data.next_observation, data.reward.shape
        option = one_hot(data.extras["option"].action, num_options)
        seen, option = jax.tree.map(lambda x: x.reshape(-1, 1, *x.shape[len(shape) :]), (seen, option))
        after = jax.vmap(lambda k, s, o: choose(k, gate.act, state, s, o)[0][0])(row_keys(key, shape), seen, option)
        after = after.reshape(shape)
        return above(state, data), below(data, after)

    def remember(state: OptionsState, memory: OptionsMemory, step: Transition) -> OptionsMemory:
        others = {name: x for name, x in step.extras.items() if name not in ("option", "gate", "worker")}
        step = step._replace(
            observation=joined(step.observation, memory.option),
            next_observation=joined(step.next_observation, memory.option),
            extras=merge_metrics(others, step.extras["worker"]),
        )
        inner = worker.remember(state.worker, memory.worker, step)
        return select(weight(step) > 0, memory._replace(worker=inner), memory)

    def learn(learn_gate: Any, learn_worker: Any) -> Any:
        def learning(key: Array, state: OptionsState, data: Transition) -> tuple[OptionsState, Metrics]:
            upper, lower = views(salted(key, salt + 2), state, data)
            above, gated = learn_gate(salted(key, salt), state.gate, upper)
            below, worked = learn_worker(key, state.worker, lower)
            return state._replace(gate=above, worker=below), of_both("gate", gated, "worker", worked)

        return learning

    def actor(state: OptionsState) -> OptionsState:
        return state._replace(gate=gate.actor(state.gate), worker=worker.actor(state.worker))

    return Agent(
        init,
        init_memory,
        act,
        act_greedy,
        learn(gate.update, worker.update),
        remember,
        learn(gate.observe, worker.observe),
        actor,
        GateAndWorker(gate.hparams, worker.hparams, hparams),
    )


def row_keys(key: Array, shape: tuple[int, ...]) -> Array:
    """A key for each row [prod(shape)], by its place: what others there are does not change it."""
    keys = key[None]
    for size in shape:
        keys = jax.vmap(lambda k, n=size: jax.vmap(jax.random.fold_in, (None, 0))(k, jnp.arange(n)))(keys).reshape(-1)
    return keys


def gate_policy(torso: Network, num_options: int) -> Policy:
    """A gate's policy: a linear head on `torso` makes K logits of mu and K of beta.

        p(o | s, last) = (1 - beta_last(s)) 1(o = last) + beta_last(s) mu(o|s);  mu(o|s) at the start of an episode

    Args:
      torso: for the environment's observations.
    """
    head = policy(
        view(torso, lambda seen: seen["observation"]), categorical(num_options)._replace(num_params=2 * num_options)
    )
    network = map_outputs(head.network, lambda logits, seen: call_and_return(logits, seen["option"]))
    return Policy(network, categorical(num_options))


def call_and_return(logits: Array, before: Array) -> Array:
    """log p(o | s, last) [..., K] from logits of mu and of beta [..., 2 K] and the last option [..., K], one-hot."""
    over, ends = jnp.split(logits, 2, -1)
    end = jnp.sum(ends * before, -1, keepdims=True)
    under_way = jnp.sum(before, -1, keepdims=True) > 0
    log_end = jnp.where(under_way, jax.nn.log_sigmoid(end), 0.0)
    log_stay = jnp.where(before > 0, jax.nn.log_sigmoid(-end), -1e9)
    return jnp.logaddexp(log_end + jax.nn.log_softmax(over), log_stay)


def option_space(observation_space: Space, num_options: int) -> Dict:
    """Of what gates and workers see."""
    return Dict({"observation": observation_space, "option": Box(0.0, 1.0, (num_options,))})
