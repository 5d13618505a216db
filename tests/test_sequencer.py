"""`sequencer`: primitives that end by themselves or by their horizon, what the gate sees, retries, imitation."""

import hierarchies
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.combinators.frozen import frozen
from jaxrl.combinators.hierarchy import Primitive, history_space, scripted, sequencer, with_history
from jaxrl.interaction import rollout, start
from jaxrl.loop import example_data
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Env, TimeStep

KEY = jax.random.key(0)
STAGES, HORIZON, CHANCE = 3, 2, 0.4


def stages():
    """Action i works in stage i only, with a chance of 0.4 a step; the observation says whether it just did, not which
    stage this is. After the last stage the episode ends and pays 1."""

    def reset(key, params):
        return jnp.zeros(2, jnp.int32), jnp.zeros(1)

    def step(key, state, action, params):
        stage, time = state
        works = (action == stage) & (jax.random.uniform(key) < CHANCE)
        stage, time = stage + works, time + 1
        over = stage == STAGES
        observation = works[None].astype(jnp.float32)
        state = jnp.stack([stage, time])
        return state, TimeStep(observation, over.astype(jnp.float32), over, ~over & (time >= 40))

    return Env(reset, step, (), Box(0.0, 1.0, (1,)), Discrete(STAGES))


def primitives(horizons=(HORIZON,) * STAGES, deaf=None):
    """Primitive i takes action i until it worked; the one that is `deaf` does not see that it did."""

    def play(i):
        return scripted(lambda key, observation: jnp.full(observation.shape[0], i, jnp.int32))

    def termination(i):
        return lambda observation: (observation[..., 0] > 0) & (i != deaf)

    return [Primitive(play(i), termination(i), h) for i, h in enumerate(horizons)]


def retrying(key, seen):
    """What worked is followed by the next one, what did not is tried again."""
    last, reached = jnp.argmax(seen["history"][:, 0, :STAGES], -1), seen["history"][:, 0, STAGES]
    return jnp.minimum(last + (reached > 0), STAGES - 1).astype(jnp.int32)


def plodding(key, seen):
    """One after the other, whatever happens, then the last one for ever."""
    tried = jnp.sum(seen["history"][..., :STAGES], (1, 2)).astype(jnp.int32)
    return jnp.minimum(tried, STAGES - 1)


def test_segments_and_histories_of_a_plain_loop():
    env, horizons = stages(), (1, 2, 3)
    gate = hierarchies.keeper(STAGES, "chosen")
    agent = sequencer(primitives(horizons, deaf=1), gate, history=2)

    @jax.jit
    def play(key):
        state = agent.init(key, agent.hparams, example_data(env, 3, 50))
        now = start(key, agent, state, env, env.params, 3)
        data = rollout(key, agent, state, env, now, 50)[1]
        return data, agent.update(key, state, data)[0].manager.data

    data, upper = jax.tree.map(np.asarray, play(KEY))
    retries = 0
    for i in range(3):
        history, age = np.zeros((2, STAGES + 1)), 0
        for t in range(50):
            option = data.action[t, i]
            reached = data.next_observation[t, i, 0] > 0 and option != 1
            last = data.terminated[t, i] | data.truncated[t, i]
            end, age = last or reached or age + 1 == horizons[option], age + 1
            assert (upper.extras["weight"][t, i] > 0) == end
            if not end:
                continue
            assert upper.action[t, i] == option and upper.extras["num_steps"][t, i] == age
            np.testing.assert_array_equal(upper.observation["history"][t, i], history)
            retries += history[0, option] > 0 and history[0, STAGES] == 0
            history = np.stack([[*np.eye(STAGES)[option], reached], history[0]])
            np.testing.assert_array_equal(upper.next_observation["history"][t, i], history)
            age = 0
            if last:
                history = np.zeros_like(history)
    assert retries > 3


@pytest.fixture(scope="module")
def evaluated():
    """(gate) -> share of episodes that pass all stages within as many primitives as they are."""

    def share(gate, state=None, steps=10_000):
        agent = sequencer(primitives(), frozen(gate, state) if state is not None else gate)
        env = stages()

        @jax.jit
        def play(key):
            whole = agent.init(key, agent.hparams, example_data(env, 256, 2))
            return jaxrl.evaluate(key, agent, whole, env, max_steps=steps, num_episodes=256).returns.mean()

        return float(play(KEY))

    return share


def test_retries_pass_where_a_fixed_order_does_not(evaluated):
    """In a fixed order all three must work at the first try, but for the last: p^2 = (1 - 0.6^2)^2 = 0.41."""
    chance = 1 - (1 - CHANCE) ** HORIZON
    assert abs(evaluated(scripted(plodding)) - chance**2) < 4 * np.sqrt(0.25 / 256)
    assert evaluated(scripted(retrying)) > 0.95


def test_a_gate_learns_by_imitation(evaluated):
    """Behavior cloning of the segments that another gate recorded, through the same `sequencer`."""
    env = stages()
    expert = sequencer(primitives(), scripted(retrying))
    seen = env._replace(observation_space=history_space(env.observation_space, STAGES), action_space=Discrete(STAGES))
    bc, hparams = jaxrl.make_agent("bc", seen, offline=True, widths=(16,))
    learner = sequencer(primitives(), bc)
    numbers = learner.hparams._replace(manager=jaxrl.tree.replace_fields(hparams, learning_rate=3e-2))

    @jax.jit
    def learn(key):
        state = expert.init(key, expert.hparams, example_data(env, 16, 64))
        now = start(key, expert, state, env, env.params, 16)
        data = rollout(key, expert, state, env, now, 64)[1]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), data)
        loop = jaxrl.offline(learner, flat, batch_size=256)
        return jaxrl.run(loop, loop.init(key, numbers), 100)[0].agent.manager

    assert evaluated(bc, learn(KEY)) > 0.95


def test_bad_arguments():
    gate = hierarchies.keeper(2, "a")
    with pytest.raises(ValueError, match="needs at least one primitive"):
        sequencer([], gate)
    with pytest.raises(ValueError, match="the horizon of primitive 1 is 0"):
        sequencer(primitives((1, 0)), gate)
    with pytest.raises(ValueError, match="length is 0, must be >= 1"):
        with_history(gate, 2, 0)
