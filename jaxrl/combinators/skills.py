"""`with_skills`: an agent that learns skills from a reward of its own, told in each episode which one to follow."""

from __future__ import annotations

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.combinators import observations
from jaxrl.combinators.frozen import frozen
from jaxrl.combinators.lift import salted
from jaxrl.loop import merge_metrics
from jaxrl.rewards.core import SkillModel
from jaxrl.spaces import Dict, Space
from jaxrl.types import Agent, Array, Metrics, PyTree, Transition, Wrapped

SKILL = 0x51C11  # of keys, beside the buffers and transforms around that salt the same key


class WithSkillsState(NamedTuple):
    """State of `with_skills`."""

    agent: PyTree
    model: PyTree  # of the skill model


class WithSkillsMemory(NamedTuple):
    """Memory of `with_skills`."""

    agent: PyTree
    skill: Array  # [N, K] since the reset


def with_skills(agent: Agent, model: SkillModel, *, num_model_updates: int = 1) -> Agent:
    """Draws a skill z at every reset, shows it to `agent` in the observation, and rewards it for following it.

    `agent` sees `join(observation, z)` and learns from model.reward(...) in place of the environment's reward, which
    stays in the data outside. In each update the model learns first, and then rewards the same rows: inside of
    `with_replay`, stored steps have today's reward. Skills are in extras["skill"], which stored data must hold; a row
    is one step, not the several of `buffers.n_step`, whose ends alone would be rewarded.
    Hyperparameters: `Wrapped(agent=the agent's, own=the model's)`; metrics of the model are under "skill/".

    Args:
      agent: made for observations of `joined_space(env.observation_space, model.skills.space)`.
      num_model_updates: of the model for each one of the agent.

    Raises:
      ValueError: if num_model_updates < 1.
    """
    if num_model_updates < 1:
        raise ValueError(f"with_skills: num_model_updates is {num_model_updates}, must be >= 1")

    def view(data: Transition) -> Transition:
        """What the agent sees; the skill of a row is also that of its successor."""
        skill = data.extras["skill"]
        return data._replace(
            observation=join(data.observation, skill), next_observation=join(data.next_observation, skill)
        )

    def rewarded(model_state: PyTree, data: Transition) -> Transition:
        return view(data)._replace(reward=model.reward(model_state, data))

    def init(key: Array, hparams: Wrapped, example: Transition) -> WithSkillsState:
        skill = jnp.zeros((*example.reward.shape, *model.skills.space.shape))
        example = example._replace(extras={**example.extras, "skill": skill})
        return WithSkillsState(
            agent.init(key, hparams.agent, view(example)), model.init(salted(key, SKILL), hparams.own, example)
        )

    def init_memory(key: Array, state: WithSkillsState, observation: PyTree) -> WithSkillsMemory:
        skill = model.skills.sample(salted(key, SKILL), jax.tree.leaves(observation)[0].shape[0])
        return WithSkillsMemory(agent.init_memory(key, state.agent, join(observation, skill)), skill)

    def forward(act: Callable) -> Callable:
        def acting(key: Array, state: WithSkillsState, memory: WithSkillsMemory, observation: PyTree):
            seen = join(observation, memory.skill)
            inner, action, extras = act(key, state.agent, memory.agent, seen)
            return memory._replace(agent=inner), action, {**extras, "skill": memory.skill}

        return acting

    def remember(state: WithSkillsState, memory: WithSkillsMemory, step: Transition) -> WithSkillsMemory:
        return memory._replace(agent=agent.remember(state.agent, memory.agent, rewarded(state.model, step)))

    def observe(key: Array, state: WithSkillsState, fresh: Transition) -> tuple[WithSkillsState, Metrics]:
        agent_state, metrics = agent.observe(key, state.agent, rewarded(state.model, fresh))
        return state._replace(agent=agent_state), metrics

    def update(key: Array, state: WithSkillsState, data: Transition) -> tuple[WithSkillsState, Metrics]:
        def learn(model_state: PyTree, key: Array):
            return model.update(key, model_state, data)

        model_state, learned = jax.lax.scan(learn, state.model, jax.random.split(salted(key, SKILL), num_model_updates))
        agent_state, metrics = agent.update(key, state.agent, rewarded(model_state, data))
        named = {f"skill/{name}": jnp.mean(x) for name, x in learned.items()}
        return WithSkillsState(agent_state, model_state), merge_metrics(metrics, named)

    return Agent(
        init,
        init_memory,
        forward(agent.act),
        forward(agent.act_greedy),
        update,
        remember,
        observe,
        actor=lambda state: WithSkillsState(agent.actor(state.agent), model.actor(state.model)),
        hparams=Wrapped(agent.hparams, model.hparams),
    )


def choose_skills(agent: Agent, choose: Callable[[PyTree, PyTree], Array]) -> Agent:
    """The agent inside of `with_skills`, on its states, with the skill of every step chosen instead of drawn.

    METRA reaches goals that it was not trained on with `choose=lambda state, observation: model.toward(state,
    observation, goal)`. For acting: `update` and `observe` leave the state as it is.

    Args:
      choose: (state of the skill model, observation [N]) -> skill [N, K].
    """

    def seen(state: WithSkillsState, observation: PyTree) -> PyTree:
        return join(observation, choose(state.model, observation))

    def remember(state: WithSkillsState, memory: PyTree, step: Transition) -> PyTree:
        """With the skill that was followed at both ends of the step."""
        skill = choose(state.model, step.observation)
        step = step._replace(
            observation=join(step.observation, skill), next_observation=join(step.next_observation, skill)
        )
        return agent.remember(state.agent, memory, step)

    return frozen(
        agent._replace(
            init_memory=lambda key, state, obs: agent.init_memory(key, state.agent, seen(state, obs)),
            act=lambda key, state, memory, obs: agent.act(key, state.agent, memory, seen(state, obs)),
            act_greedy=lambda key, state, memory, obs: agent.act_greedy(key, state.agent, memory, seen(state, obs)),
            remember=remember,
            actor=lambda state: state._replace(agent=agent.actor(state.agent)),
        )
    )


def join(observation: PyTree, skill: Array) -> dict[str, PyTree]:
    """What an agent with skills sees: a dict of the observation (its parts, where it is a dict itself) and "skill"."""
    return observations.join(observation, "skill", skill)


def joined_space(space: Space, skill: Space) -> Dict:
    """The space of `join`.

    Raises:
      ValueError: if the observation has a part of that name already.
    """
    return observations.joined_space(space, "skill", skill)
