"""Pictures: files read back by another program, discs, texts, and that transforms keep those of an environment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import make, pictures, transforms


@pytest.mark.parametrize("count", [1, 5])
def test_files_are_read_back(tmp_path, count):
    image = pytest.importorskip("PIL.Image")
    frames = np.random.default_rng(0).integers(0, 256, (count, 7, 13, 3), np.uint8)
    size = pictures.write_png(tmp_path / "film.png", frames if count > 1 else frames[0], frames_per_second=25)
    assert size == (tmp_path / "film.png").stat().st_size
    film = image.open(tmp_path / "film.png")
    assert getattr(film, "n_frames", 1) == count
    for i, frame in enumerate(frames):
        film.seek(i)
        np.testing.assert_array_equal(np.asarray(film.convert("RGB")), frame)
    if count > 1:
        assert film.info["duration"] == 40 and film.info["loop"] == 0  # ms; for ever


def test_bad_files(tmp_path):
    picture = np.zeros((2, 2, 3), np.uint8)
    for frames, rate, message in (
        (np.zeros((2, 2, 3)), 20, r"float64\[1, 2, 2, 3\], must be uint8"),
        (picture[..., :2], 20, r"uint8\[1, 2, 2, 2\]"),
        (picture[:0], 20, r"uint8\[1, 0, 2, 3\]"),
        (picture, 0, "frames_per_second is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            pictures.write_png(tmp_path / "film.png", frames, rate)


def test_a_disc_has_its_area_and_place():
    board = pictures.board(pictures.frame(9, 11), scale=20)
    drawn = np.asarray(pictures.disc(board, jnp.array([3.0, 6.5]), 2.0, pictures.AGENT, scale=20))
    inside = (drawn == pictures.AGENT).all(-1)
    assert abs(inside.sum() / (np.pi * 40**2) - 1) < 0.01
    np.testing.assert_allclose(np.argwhere(inside).mean(0) + 0.5, [60, 130], atol=1e-3)
    assert (drawn[~inside] == np.asarray(board)[~inside]).all()
    assert tuple(drawn[0, 0]) == pictures.WALL and tuple(drawn[100, 30]) == pictures.FLOOR


def test_a_text_is_dark_where_the_picture_is():
    picture = np.full((40, 60, 3), 255, np.uint8)
    picture[:20, :30] = 0
    lines = pictures.text(picture, columns=30).split("\n")
    assert len(lines) == 10 and lines[0] == "@" * 15 and lines[-1] == ""
    assert len(pictures.text(picture[:, :7]).split("\n")) == 20 and len(pictures.text(np.uint8(picture[:1, :1]))) == 1


def test_transforms_keep_pictures():
    """Whatever wraps the state wraps the picture; what has none has none."""
    env = make("key_door", length=8)
    wrapped = transforms.frame_stack(transforms.sticky_actions(transforms.time_limit(env, 9), 0.0), 2)
    wrapped = transforms.scale_reward(transforms.observation_noise(wrapped, 0.1), 2.0)
    (state, _), (inner, _) = (e.reset(jax.random.key(0), e.params) for e in (wrapped, env))
    for _ in range(3):
        state, _ = wrapped.step(jax.random.key(1), state, jnp.int32(0), wrapped.params)
        inner, _ = env.step(jax.random.key(1), inner, jnp.int32(0), env.params)
        np.testing.assert_array_equal(wrapped.render(state, wrapped.params), env.render(inner, env.params))
    assert transforms.time_limit(make("bit_flip"), 3).render is None
