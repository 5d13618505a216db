"""`hierarchical`: an agent made of a manager that chooses goals and a worker that pursues them.

A *segment* is what happens under one goal. It ends with its episode, after `period` steps, or where `stop` says that
the goal is reached; then the manager chooses again. `act` records with every step the segment that it belongs to, so
that what manager and worker learn from is a function of the row alone (`views`): the same code on rollouts [T, N], also
where a segment straddles two of them, on shuffled batches [B] of a replay buffer, and on data.

    manager:  (s_start, goal, sum_i discount^i r_i, s_end), num_steps = its length, weight 0 in rows that end no
              segment; extras["reached"]: whether it ended by `stop`
    worker:   (embed(s, goal), a, intrinsic reward, embed(s', goal)), truncated where the segment ends, under the old
              goal; terminated where it is reached

so that targets `reward + bootstrap(data, discount) * next_value` are those of a semi-MDP (Sutton, Precup and Singh
1999, https://doi.org/10.1016/S0004-3702(99)00052-1) for the manager, exactly, whatever ends a segment.
"""

from __future__ import annotations

from typing import Callable

import jax
import jax.numpy as jnp

from jaxrl.combinators.hierarchy.relabel import Relabel
from jaxrl.combinators.hierarchy.segments import (
    HierarchicalHparams,
    HierarchicalMemory,
    HierarchicalState,
    Levels,
    Segment,
    advanced,
    as_reward_model,
    of_both,
    prefixed,
    written,
)
from jaxrl.combinators.lift import salted
from jaxrl.gradients import blank
from jaxrl.loop import merge_metrics
from jaxrl.rewards.core import RewardModel
from jaxrl.spaces import Space, zeros
from jaxrl.tree import as_arrays, find, select
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, is_last, weight

SALT = 0x100  # and 4 numbers more for each level: nested combinators salt the same key


def hierarchical(
    manager: Agent,
    worker: Agent,
    *,
    goal_space: Space,
    embed: Callable[[PyTree, PyTree], PyTree],
    period: int | Callable[[PyTree], Array],
    stop: Callable[[PyTree, PyTree], Array] | None = None,
    intrinsic: Callable[[Transition, PyTree], Array] | RewardModel | None = None,
    resolve: Callable[[PyTree, PyTree], PyTree] = lambda start, action: action,
    relabel: Relabel | None = None,
    hparams: HierarchicalHparams = HierarchicalHparams(),
) -> Agent:
    """A manager over a worker; either may be any agent, one made by this function among them.

    With replay inside (`hierarchical(with_replay(...), worker)`), a part learns from whole batches of its own rows.
    With replay outside (`with_replay(hierarchical(...), buffer)`), rewards, goals and relabelling are those of today,
    and the manager learns from the rows of a batch that end a segment. Metrics are under "manager/" and "worker/".
    Hyperparameters: `Levels(manager=..., worker=..., intrinsic=..., own=HierarchicalHparams)`. Who acts outside of the
    loops calls `remember` after each step, which ends segments.

    Args:
      manager: sees the environment's observations, and acts in `goal_space`. Not recurrent: `Network.unroll` takes rows
        of weight 0 for steps; `with_history` gives it its last goals.
      worker: sees `embed(observation, goal)`, and acts in the environment.
      goal_space: of the manager's actions.
      period: steps after which a segment ends at the latest, or (manager's action) -> steps, where the manager chooses
        these too.
      stop: (next observation, goal) -> bool, or the probability, that the goal is reached: the segment ends, and the
        worker's income with it. None: never. Acting greedily, it ends where the probability is above 1/2.
      intrinsic: the worker's reward for a step: (step, goal) -> [...] of the environment's step, elementwise; or a
        `RewardModel`, which finds the goal in extras["goal"] and learns in `observe`. None: the environment's.
      resolve: (start, manager's action) -> the goal, for goals that are relative to where a segment starts.
      relabel: what the manager's actions are replaced by in `update`, for managers that learn from batches.

    Raises:
      ValueError: if a fixed period is below 1, or shorter than the steps that `relabel` reads; while tracing, for data
        without segments.
    """
    length = 0 if relabel is None else relabel.length
    if not callable(period) and period < 1:
        raise ValueError(f"hierarchical: period is {period}, must be >= 1")
    if not callable(period) and 0 < length < period:
        raise ValueError(f"hierarchical: relabel reads {length} steps of a segment, must be >= the period, {period}")
    model = as_reward_model(intrinsic)
    salt = SALT + 4 * len(find(worker.hparams, Levels))

    def init(key: Array, hparams: Levels, example: Transition) -> HierarchicalState:
        hp = as_arrays(hparams.own)
        if "segment" not in example.extras:
            axes, now = example.reward.shape, jnp.zeros_like(example.reward, jnp.int32)
            action = jax.tree.map(lambda x: jnp.zeros((*axes, *x.shape), x.dtype), zeros(goal_space))
            segment = Segment(example.observation, action, {}, now, now, example.reward, (), ())
            segment = segment._replace(draw=() if stop is None else example.reward)
            example = example._replace(extras={**example.extras, "segment": segment, "worker": {}})
        state = HierarchicalState(hp, (), (), model.init(salted(key, salt + 1), hparams.intrinsic, shown(example)))
        upper, lower = views(state, example)
        return state._replace(
            manager=manager.init(salted(key, salt), hparams.manager, upper),
            worker=worker.init(key, hparams.worker, lower),
        )

    def init_memory(key: Array, state: HierarchicalState, observation: PyTree) -> HierarchicalMemory:
        memory = manager.init_memory(salted(key, salt), state.manager, observation)
        action, extras = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype),
            jax.eval_shape(manager.act, jax.random.key(0), state.manager, memory, observation)[1:],
        )
        now = jnp.zeros(jax.tree.leaves(observation)[0].shape[0], jnp.int32)
        segment = Segment(observation, action, extras, now, now, now.astype(jnp.float32), (), ())
        seen = embed(observation, resolve(observation, action))
        lower = worker.init_memory(key, state.worker, seen)
        segment = segment._replace(draw=() if stop is None else segment.total)
        if length:
            done = jax.eval_shape(worker.act, jax.random.key(0), state.worker, lower, seen)[1]
            segment = segment._replace(
                trace=jax.tree.map(
                    lambda x: jnp.zeros((x.shape[0], length, *x.shape[1:]), x.dtype), (observation, done)
                )
            )
        return HierarchicalMemory(memory, lower, segment, jnp.ones(now.shape, bool))

    def choose(key: Array, state: HierarchicalState, memory: HierarchicalMemory, observation: PyTree, chosen, draw):
        """The segments that the next step belongs to, and the worker's memory: new ones where the last one ended."""
        above, action, extras = chosen
        before = memory.segment
        now = jnp.zeros_like(before.age)
        fresh = before._replace(start=observation, action=action, extras=extras, age=now, elapsed=now, draw=draw)
        fresh = fresh._replace(total=jnp.zeros_like(before.total))
        above, segment = select(memory.ended, (above, fresh), (memory.manager, before))
        if stop is not None:
            segment = segment._replace(draw=draw)
        seen = embed(observation, resolve(segment.start, segment.action))
        below = worker.init_memory(salted(key, salt + 1), state.worker, seen)
        return HierarchicalMemory(above, select(memory.ended, below, memory.worker), segment, memory.ended), seen

    def acted(memory: HierarchicalMemory, below: PyTree, observation: PyTree, action: PyTree) -> HierarchicalMemory:
        """The memory after the worker has acted, with the step in the trace."""
        segment = memory.segment
        if length:
            segment = segment._replace(trace=written(segment.trace, segment.age, (observation, action)))
        return HierarchicalMemory(memory.manager, below, segment, jnp.zeros_like(memory.ended))

    def act(key: Array, state: HierarchicalState, memory: HierarchicalMemory, observation: PyTree):
        chosen = manager.act(salted(key, salt), state.manager, memory.manager, observation)
        draw = () if stop is None else jax.random.uniform(salted(key, salt + 2), memory.ended.shape)
        memory, seen = choose(key, state, memory, observation, chosen, draw)
        below, action, extras = worker.act(key, state.worker, memory.worker, seen)
        memory = acted(memory, below, observation, action)
        return memory, action, {"segment": memory.segment, "worker": extras}

    def act_greedy(key: Array, state: HierarchicalState, memory: HierarchicalMemory, observation: PyTree):
        above, action, upper = manager.act_greedy(salted(key, salt), state.manager, memory.manager, observation)
        draw = () if stop is None else jnp.full(memory.ended.shape, 0.5)
        memory, seen = choose(key, state, memory, observation, (above, action, memory.segment.extras), draw)
        below, action, lower = worker.act_greedy(key, state.worker, memory.worker, seen)
        return acted(memory, below, observation, action), action, {"manager": upper, "worker": lower}

    def ends(data: Transition) -> tuple[Array, Array]:
        """Whether the segment of each row ends with it, and whether because the goal is reached."""
        segment = data.extras["segment"]
        limit = period(segment.action) if callable(period) else period
        reached = jnp.zeros_like(data.terminated)
        if stop is not None:
            probability = stop(data.next_observation, resolve(segment.start, segment.action))
            reached = segment.draw < probability.astype(jnp.float32)
        return is_last(data) | reached | (segment.age + 1 >= limit), reached

    def shown(data: Transition) -> Transition:
        """What the reward model sees."""
        segment = data.extras["segment"]
        return data._replace(extras={**data.extras, "goal": resolve(segment.start, segment.action)})

    def views(state: HierarchicalState, data: Transition) -> tuple[Transition, Transition]:
        """What the manager and what the worker learn from, elementwise."""
        if "segment" not in data.extras:
            raise ValueError(f"hierarchical: data has no extras['segment'], which act records; it has {[*data.extras]}")
        segment = data.extras["segment"]
        end, reached = ends(data)
        total, elapsed = advanced(state.hparams, data)
        extras = {**segment.extras, "weight": weight(data) * end, "num_steps": elapsed, "reached": reached}
        upper = blank(data._replace(observation=segment.start, action=segment.action, reward=total, extras=extras))
        goal = resolve(segment.start, segment.action)
        others = {name: x for name, x in data.extras.items() if name not in ("segment", "worker")}
        lower = data._replace(
            observation=embed(data.observation, goal),
            next_observation=embed(data.next_observation, goal),
            reward=model.reward(state.intrinsic, shown(data)),
            terminated=data.terminated | reached,
            truncated=data.truncated | end,
            extras=merge_metrics(others, data.extras["worker"]),
        )
        return upper, lower

    def remember(state: HierarchicalState, memory: HierarchicalMemory, step: Transition) -> HierarchicalMemory:
        recorded = {"segment": memory.segment, "worker": step.extras.get("worker", {})}
        step = step._replace(extras={k: x for k, x in step.extras.items() if k != "manager"} | recorded)
        upper, lower = views(state, step)
        end, there = ends(step)[0], weight(step) > 0
        total, elapsed = advanced(state.hparams, step)
        above = select(end, manager.remember(state.manager, memory.manager, upper), memory.manager)
        segment = memory.segment._replace(age=memory.segment.age + 1, elapsed=elapsed, total=total)
        below = worker.remember(state.worker, memory.worker, lower)
        return select(there, HierarchicalMemory(above, below, segment, end), memory)

    def observe(key: Array, state: HierarchicalState, fresh: Transition) -> tuple[HierarchicalState, Metrics]:
        learned, modeled = model.update(salted(key, salt + 1), state.intrinsic, shown(fresh))
        state = state._replace(intrinsic=learned)
        upper, lower = views(state, fresh)
        above, managed = manager.observe(salted(key, salt), state.manager, upper)
        below, worked = worker.observe(key, state.worker, lower)
        metrics = merge_metrics(prefixed("manager", managed), prefixed("worker", worked), prefixed("reward", modeled))
        return state._replace(manager=above, worker=below), metrics

    def update(key: Array, state: HierarchicalState, data: Transition) -> tuple[HierarchicalState, Metrics]:
        upper, lower = views(state, data)
        if relabel is not None:

            def policy(start: PyTree, action: PyTree, observation: PyTree) -> PyTree:
                seen = embed(observation, resolve(start, action))
                memory = worker.init_memory(jax.random.key(0), state.worker, seen)
                return worker.act_greedy(jax.random.key(0), state.worker, memory, seen)[1]

            trace = {"trace": data.extras["segment"].trace, "age": data.extras["segment"].age}
            traced = upper._replace(extras={**upper.extras, **trace})
            upper = upper._replace(action=relabel.action(salted(key, salt + 1), policy, traced))
        above, managed = manager.update(salted(key, salt), state.manager, upper)
        below, worked = worker.update(key, state.worker, lower)
        return state._replace(manager=above, worker=below), of_both("manager", managed, "worker", worked)

    def actor(state: HierarchicalState) -> HierarchicalState:
        return state._replace(manager=manager.actor(state.manager), worker=worker.actor(state.worker))

    defaults = Levels(manager.hparams, worker.hparams, model.hparams, hparams)
    return Agent(init, init_memory, act, act_greedy, update, remember, observe, actor, defaults)
