"""Films of episodes: `jaxrl evaluate RUN --render FOLDER`."""

from __future__ import annotations

import pathlib
from typing import Any

from jaxrl.cli.errors import BadInput, bad_input

MAX_PICTURES = 1000  # of an episode
_CHUNK = 64  # steps that are drawn in one program


def check(where: str, num_episodes: int) -> None:
    """Whether films can be written to `where`, before anything is loaded.

    Raises:
      BadInput: if it is not a folder, or the number of films is below 1.
    """
    if num_episodes < 1:
        raise BadInput(f"--films is {num_episodes}, must be >= 1")
    if where != "-" and pathlib.Path(where).exists() and not pathlib.Path(where).is_dir():
        raise BadInput(f"--render {where} is a file, must be a folder, or - for a text")


def write(where: str, key: Any, saved: Any, num_episodes: int, max_steps: int, greedy: bool) -> list[str]:
    """Plays episodes and writes a film of each, or, where `where` is "-", the last picture of each as a text.

    Returns:
      lines for people, one an episode.

    Raises:
      BadInput: if the environment has no pictures, or a file cannot be written.
    """
    from jaxrl.envs import pictures

    if saved.env.render is None:
        raise BadInput(f"--render: {saved.header['env']['name']} has no pictures (Env.render is None)")
    lines = []
    films = play(key, saved.agent, saved.state, saved.env, num_episodes, min(max_steps, MAX_PICTURES), greedy)
    for i, (frames, total) in enumerate(films):
        if where == "-":
            lines.append(f"episode {i}, {len(frames)} steps, return {total:g}\n{pictures.text(frames[-1])}")
            continue
        path = pathlib.Path(where) / f"episode_{i:02d}.png"
        with bad_input(OSError, what=f"--render {where}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            size = pictures.write_png(path, frames)
        lines.append(f"{path}  {len(frames)} steps, return {total:g}, {size:,} bytes")
    return lines


def play(key: Any, agent: Any, state: Any, env: Any, num_episodes: int, max_steps: int, greedy: bool) -> list[tuple]:
    """The pictures after each step of an episode, uint8 [T, H, W, 3], and what it returned; cut at `max_steps`.

    The loop is that of training: pictures are recorded with each step, as an environment records costs.
    """
    import jax
    import numpy as np

    from jaxrl.interaction import rollout, start
    from jaxrl.types import is_last

    def step(key, env_state, action, params):
        env_state, timestep = env.step(key, env_state, action, params)
        picture = {"picture": env.render(env_state, params)}
        return env_state, timestep._replace(extras={**timestep.extras, **picture})

    player = agent._replace(act=agent.act_greedy) if greedy else agent
    filmed = env._replace(step=step)
    start_key, play_key = jax.random.split(key)
    length = min(_CHUNK, max_steps)
    begin = jax.jit(lambda key, state: start(key, player, state, filmed, filmed.params, num_episodes))
    go_on = jax.jit(lambda key, state, now: rollout(key, player, state, filmed, now, length)[:2])
    now, chunks = begin(start_key, state), []
    open_ = np.ones(num_episodes, bool)
    while open_.any() and len(chunks) * length < max_steps:
        now, data = go_on(jax.random.fold_in(play_key, len(chunks)), state, now)
        ends, pictures, reward = jax.device_get((is_last(data), data.extras["picture"], data.reward))
        chunks.append((ends, pictures, reward))
        open_ &= ~ends.any(0)
    ends, pictures, reward = (np.concatenate(x)[:max_steps] for x in zip(*chunks))
    stops = np.where(ends.any(0), ends.argmax(0) + 1, len(ends))
    return [(pictures[:stop, i], reward[:stop, i].sum()) for i, stop in enumerate(stops)]
