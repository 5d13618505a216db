"""`make_agent`: the default networks and settings for an environment, as the command line uses them."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from jaxrl import presets
from jaxrl.combinators.demonstrations import with_demonstrations
from jaxrl.combinators.hierarchy import Levels
from jaxrl.combinators.multi_agent import team_env
from jaxrl.factory import (
    actor_critic,
    goals,
    hierarchy,
    joint,
    multi_agent,
    offline_learners,
    on_policy,
    online,
    skills,
    value_based,
)
from jaxrl.factory.online import normalized
from jaxrl.tree import field_names, get_field, replace_fields
from jaxrl.types import Agent, Env, PyTree, Transition


class Recipe(NamedTuple):
    """How an agent is made.

    Attributes:
      learner: (env, **static) -> the learner.
      online: (learner, env, **static) -> what `online` takes: replay and exploration around it. None: the learner
        learns from data alone.
      offline: whether the learner takes batches of a dataset.
      settings: static choices that differ from the defaults of these functions.
      numbers: hyperparameters that differ from the learner's defaults.
      batches: (learner, env, **static) -> what takes batches of a dataset, where there are any.
      looks_up: whether batches need all rows of the dataset to look things up in (`offline(shared=...)`).
      joint: whether the learner is one of many agents; others are lifted where an environment has many.
      outer: (agent, env, **static) -> what goes around all, for learners that take the agents for a team.
    """

    learner: Callable[..., Agent]
    online: Callable[..., Agent] | None = online.on_rollouts
    offline: bool = False
    settings: dict[str, Any] = {}
    numbers: dict[str, float] = {}
    batches: Callable[..., Agent] = normalized
    looks_up: bool = False
    joint: bool = False
    outer: Callable[..., Agent] | None = None


def _replayed(learner: Callable[..., Agent], explore: Callable, **settings: Any) -> Recipe:
    return Recipe(learner, online.on_replay(explore), True, settings)


def _from_data(learner: Callable[..., Agent], **settings: Any) -> Recipe:
    return Recipe(learner, None, True, settings)


def _of_goals(
    learner: Callable[..., Agent], batches: Callable[..., Agent] = goals.relabeled, **settings: Any
) -> Recipe:
    return Recipe(learner, None, True, settings, batches=batches, looks_up=True)


def _of_team(learner: Callable[..., Agent], online: Callable[..., Agent], **settings: Any) -> Recipe:
    return Recipe(learner, online, settings=settings, joint=True, outer=multi_agent.for_team)


AGENTS: dict[str, Recipe] = {
    "ppo": Recipe(on_policy.build_ppo),
    "ippo": Recipe(on_policy.build_ppo),
    "mappo": Recipe(joint.build_mappo, joint=True),
    "cabn": Recipe(joint.build_mappo, joint=True, settings={"correlated": True}),
    "vdn": _of_team(joint.build_mixed_dqn, online.on_replay(online.epsilon_greedy), mixer="additive"),
    "qmix": _of_team(joint.build_mixed_dqn, online.on_replay(online.epsilon_greedy)),
    "recurrent_vdn": _of_team(
        joint.build_mixed_r2d2, online.on_sequence_replay(online.epsilon_greedy), mixer="additive"
    ),
    "recurrent_qmix": _of_team(joint.build_mixed_r2d2, online.on_sequence_replay(online.epsilon_greedy)),
    "maddpg": Recipe(joint.build_maddpg, online.on_replay(online.gaussian), joint=True),
    "coma": Recipe(joint.build_coma, joint=True),
    "mdpo": Recipe(on_policy.build_mdpo),
    "props": Recipe(on_policy.build_props),
    "hierarchical": Recipe(hierarchy.build_hierarchical),
    "option_critic": Recipe(hierarchy.build_option_critic),
    "pqn": Recipe(value_based.build_pqn, online.on_explored_rollouts),
    "dqn": _replayed(value_based.build_dqn, online.epsilon_greedy),
    "c51": _replayed(value_based.build_dqn, online.epsilon_greedy, distribution="categorical"),
    "qrdqn": _replayed(value_based.build_dqn, online.epsilon_greedy, distribution="quantile"),
    "iqn": _replayed(value_based.build_dqn, online.epsilon_greedy, distribution="implicit_quantile"),
    "rainbow": _replayed(
        value_based.build_dqn,
        online.epsilon_greedy,
        distribution="categorical",
        dueling=True,
        n_step=3,
        prioritized=True,
    ),
    "rem": _replayed(value_based.build_dqn, online.epsilon_greedy, distribution="random_mixture", loss="huber"),
    "bcq": _replayed(value_based.build_dqn, online.epsilon_greedy, constrained=True),
    "discrete_cql": _replayed(value_based.build_dqn, online.epsilon_greedy)._replace(numbers={"conservative": 1.0}),
    "crr": _from_data(value_based.build_dqn, constrained=True, next_action="behavior")._replace(
        numbers={"inverse_temperature": 1.0, "threshold": 1.0}
    ),
    "bve": _from_data(value_based.build_dqn, next_action="data"),
    "mce": _from_data(value_based.build_dqn, next_action="none"),
    "r2d2": Recipe(value_based.build_r2d2, online.on_sequence_replay(online.epsilon_greedy)),
    "discrete_sac": _replayed(value_based.build_discrete_sac, online.warm_up),
    "sac": _replayed(actor_critic.build_sac, online.warm_up),
    "mdpo_off": _replayed(actor_critic.build_mdpo_off, online.warm_up),
    "td3": _replayed(actor_critic.build_td3, online.gaussian),
    "td3_bc": _replayed(actor_critic.build_td3, online.gaussian)._replace(numbers={"bc_coefficient": 0.4}),
    "ddpg": _replayed(actor_critic.build_ddpg, online.gaussian),
    "redq": _replayed(actor_critic.build_redq, online.warm_up, updates_per_step=20),
    "iql": _replayed(offline_learners.build_iql, online.warm_up),
    "xql": _replayed(offline_learners.build_xql, online.warm_up),
    "fdvl": _replayed(offline_learners.build_fdvl, online.warm_up),
    "awac": _replayed(actor_critic.build_awac, online.warm_up),
    "cql": _replayed(actor_critic.build_cql, online.warm_up),
    "odice": _replayed(offline_learners.build_odice, online.warm_up),
    "recoil": _from_data(offline_learners.build_recoil),
    "bc": _from_data(offline_learners.build_bc),
    "gcbc": _of_goals(offline_learners.build_bc)._replace(
        numbers={"p_current": 0.0, "p_trajectory": 1.0, "goal_discount": 1.0}
    ),
    "gciql": _of_goals(offline_learners.build_iql, layer_norm=True)._replace(numbers={"expectile": 0.9}),
    "hiql": _of_goals(goals.build_hiql, goals.relabeled_in_levels),
    "ota": _of_goals(goals.build_hiql, goals.relabeled_in_levels, option_value=True),
    "diayn": Recipe(skills.build_diayn, online.on_replay(online.warm_up), numbers={"initial_temperature": 0.1}),
    "metra": Recipe(skills.build_metra, online.on_replay(online.warm_up), numbers={"initial_temperature": 0.01}),
}


def make_agent(
    name: str,
    env: Env,
    *,
    preset: str | None = None,
    offline: bool = False,
    demonstrations: Transition | None = None,
    demonstration_fraction: float = 0.5,
    **static: Any,
) -> tuple[Agent, PyTree]:
    """An agent for an environment. One with many agents has a learner of one agent for all, or for each kind of them.

    Args:
      name: one of `AGENTS`.
      preset: name of an environment whose tuned settings are taken (`jaxrl.presets`); None takes the defaults.
      offline: the learner alone, as `jaxrl.offline` takes it, without replay and exploration.
      demonstrations: transitions [D] that are added to every batch of the learner; see `with_demonstrations`.
      demonstration_fraction: of a batch, in (0, 1).
      **static: keywords of the builder (`widths=(256, 256)`, `recurrent=True`, `num_epochs=8`), over the preset's.

    Returns:
      agent, hparams (the agent's defaults with the preset's numbers).

    Raises:
      ValueError: an unknown agent, keyword or preset, an agent that does not learn that way, or a space that it has no
        default network for.
    """
    if name not in AGENTS:
        raise ValueError(f"make_agent: no agent is called {name!r}; there are {', '.join(AGENTS)}")
    recipe = AGENTS[name]
    if offline and not recipe.offline:
        raise ValueError(f"make_agent: {name} learns from its own rollouts, not from a dataset")
    if not offline and recipe.online is None:
        raise ValueError(f"make_agent: {name} learns from a dataset alone: give offline=True")
    tuned = presets.lookup(name, preset) if preset is not None else {}
    allowed = static_arguments(recipe, offline, env)
    for keyword in static:
        if keyword not in allowed:
            raise ValueError(f"make_agent: {name} has no argument {keyword!r}; it has {', '.join(allowed)}")
    chosen = {**allowed, **{k: v for k, v in tuned.items() if k in allowed}, **static}

    def make(env: Env) -> Agent:
        first, *around = parts(recipe._replace(outer=None), offline)
        agent = first(env, **{k: chosen[k] for k in first.__kwdefaults__ or {}})
        if demonstrations is not None:
            if not recipe.offline:
                raise ValueError(f"make_agent: {name} learns from its own rollouts, not from demonstrations")
            agent = with_demonstrations(agent, demonstrations, demonstration_fraction)
        for wrap in around:
            agent = wrap(agent, env, **{k: chosen[k] for k in wrap.__kwdefaults__ or {}})
        # A static choice may leave out a part that the preset has numbers for (`normalize_reward=False`).
        hparams = replace_fields(agent.hparams, **recipe.numbers)
        names = field_names(hparams)
        numbers = {k: v for k, v in tuned.get("hparams", {}).items() if k.rpartition(".")[2] in names}
        hparams = replace_fields(hparams, **numbers)
        found = {k: v for k, v in discounts(hparams).items() if k not in numbers}
        return agent._replace(hparams=replace_fields(hparams, **found))

    if lifts(recipe, env):
        agent = multi_agent.lifted(env, make, **{k: chosen[k] for k in multi_agent.lifted.__kwdefaults__})
    elif recipe.outer is not None:
        multi_agent.require_alike(name, env)
        around = {k: chosen[k] for k in recipe.outer.__kwdefaults__}
        agent = recipe.outer(make(team_env(env)), env, **around)
    else:
        agent = make(env)
    return agent, agent.hparams


def lifts(recipe: Recipe, env: Env | None) -> bool:
    """Whether the learner is of one agent, and the environment of many."""
    return env is not None and not recipe.joint and multi_agent.has_many(env)


def parts(recipe: Recipe, offline: bool = False, env: Env | None = None) -> list[Callable[..., Agent]]:
    """The functions that make the agent, from the inside out; their keywords are its static arguments.

    Args:
      env: None: what makes an agent of one, whatever the environment.
    """
    found = [recipe.learner, *[recipe.batches] * recipe.offline, *[recipe.online] * (not offline)]
    around = [recipe.outer, *[multi_agent.lifted] * lifts(recipe, env)]
    return [part for part in [*found, *around] if part is not None]


def static_arguments(recipe: Recipe, offline: bool = False, env: Env | None = None) -> dict[str, Any]:
    """The static arguments and their defaults."""
    defaults = [part.__kwdefaults__ or {} for part in parts(recipe, offline, env)]
    merged = {name: value for keywords in defaults for name, value in keywords.items()}
    return {name: recipe.settings.get(name, value) for name, value in merged.items()}


def discounts(hparams: PyTree) -> dict[str, Any]:
    """What discounts around the learner (rewards within an n-step transition, scaled rewards) are to be: its own."""
    if isinstance(hparams, Levels):
        levels = [(part, getattr(hparams, part)) for part in ("manager", "worker")]
        inside = {f"{part}.{name}": value for part, numbers in levels for name, value in discounts(numbers).items()}
        return inside | {"own.segment_discount": get_field(hparams.manager, "discount")}
    if isinstance(hparams, tuple) and not hasattr(hparams, "_fields"):  # one entry a team
        return {f"{i}.{name}": value for i, part in enumerate(hparams) for name, value in discounts(part).items()}
    names = field_names(hparams) & {"n_step_discount", "return_discount"}
    return dict.fromkeys(names, get_field(hparams, "discount"))
