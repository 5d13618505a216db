"""`jaxrl evaluate --render`: films of known episodes, files, texts, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.cli import film, main
from jaxrl.envs.key_door import KeyDoorState, key_door
from jaxrl.types import Agent, no_memory, nothing

RUN = "train ppo key_door --steps 64 --num-envs 4 --unroll-length 8 --widths 8 --episodes 2"


def scripted(speed):
    """To the key, then to the door; `act` goes nowhere, so that a film shows whether it was the greedy one."""

    def greedy(key, state, memory, observation):
        return memory, jnp.where(observation[:, 1:2] > 0, speed, -speed), {}

    def still(key, state, memory, observation):
        return memory, jnp.zeros((observation.shape[0], 1)), {}

    return Agent(lambda *_: (), no_memory, still, greedy, nothing)


def test_a_film_shows_each_state_after_a_step_up_to_the_end():
    env = key_door(17, continuous=True, max_steps=100)
    films = film.play(jax.random.key(0), scripted(0.25), (), env, 2, 1000, True)
    positions = [*np.arange(7.75, 0.49, -0.25), *np.arange(0.75, 15.51, 0.25)]  # more steps than one chunk has
    assert len(positions) > 64
    number = jnp.arange(len(positions))
    states = KeyDoorState(jnp.float32(positions), number >= 29, number + 1)
    expected = jax.jit(jax.vmap(env.render, (0, None)))(states, env.params)
    for frames, total in films:
        assert total == 1.0
        np.testing.assert_array_equal(frames, expected)
    (frames, total), _ = film.play(jax.random.key(0), scripted(0.25), (), env, 2, 20, True)
    np.testing.assert_array_equal(frames, expected[:20])
    assert total == 0.0
    (frames, _), _ = film.play(jax.random.key(0), scripted(0.25), (), env, 2, 1000, False)
    assert len(frames) == 100 and (frames == frames[0]).all()


def test_the_command_line(folder, capsys):
    image = pytest.importorskip("PIL.Image")
    assert main([*RUN.split(), "--out", "run", "--quiet"]) == 0
    capsys.readouterr()
    assert main("evaluate run --episodes 2 --render films/first --films 2".split()) == 0
    out = capsys.readouterr().out
    paths = sorted((folder / "films" / "first").iterdir())
    assert [p.name for p in paths] == ["episode_00.png", "episode_01.png"]
    for path in paths:
        line = next(x for x in out.splitlines() if path.name in x)
        assert f"{image.open(path).n_frames} steps" in line and f"{path.stat().st_size:,} bytes" in line
    assert main("evaluate run --episodes 2 --render - --films 1 --max-steps 3".split()) == 0
    out = capsys.readouterr().out
    assert "episode 0, 3 steps, return 0" in out and "#" * 78 in out
    (folder / "file").write_text("")
    for arguments, message in {
        "--render file": "--render file is a file, must be a folder",
        "--render films --films 0": "--films is 0, must be >= 1",
        "--render file/films": "--render file/films: ",
    }.items():
        assert main(["evaluate", "run", "--episodes", "1", *arguments.split()]) == 2
        assert message in capsys.readouterr().err


def test_what_has_no_pictures_says_so(folder):
    class Saved:
        env = key_door()._replace(render=None)
        header = {"env": {"name": "dark"}}

    with pytest.raises(film.BadInput, match="dark has no pictures"):
        film.write("films", jax.random.key(0), Saved, 1, 10, True)
    assert not (folder / "films").exists()
