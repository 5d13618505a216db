"""Building blocks of the evidence for risk-averse equilibria."""

import pathlib
import sys

import numpy as np
import pytest

from jaxrl import game_theory as gt
from jaxrl.envs import games

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "evidence"))

import rae  # noqa: E402
import rae_merge  # noqa: E402


@pytest.mark.parametrize("name", ["stag_hunt", "chicken", "prisoners_dilemma", "matching_pennies"])
def test_all_equilibria_by_supports(name):
    game = games.GAMES[name]()
    found = [np.concatenate(x) for x in rae.equilibria(*game.payoffs.astype(float))]
    pure = [np.concatenate([np.eye(n)[a] for n, a in zip(game.payoffs.shape[1:], joint)]) for joint in game.pure]
    want = pure + [np.concatenate(x) for x in game.mixed]
    assert len(found) == len(want)
    for x in want:
        assert min(np.abs(x - y).max() for y in found) < 1e-6


def test_every_equilibrium_of_random_games_is_one():
    draws = np.random.default_rng(0)
    for shape in ((2, 4), (3, 3), (5, 4)):
        game = draws.normal(size=(2, *shape))
        found = list(rae.equilibria(*game))
        assert len(found) % 2 == 1  # Wilson: but for ties their number is odd
        for sigma in found:
            assert gt.nash_conv(game.astype("f4"), [s.astype("f4") for s in sigma]) < 1e-5


def test_measures_of_a_known_profile():
    """Stag against stag with trembles: payoff, variance and what a neutral answer would vary."""
    game, sigma = np.float32(games.stag_hunt().payoffs), [np.float32([0.8, 0.2])] * 2
    found = rae.measures(game, sigma, 0.0, 0.1)
    mean = 0.8 * 4 * 0.8 + 0.2 * 3
    np.testing.assert_allclose(found["payoff"], mean, rtol=1e-6)
    np.testing.assert_allclose(found["variance"], 0.8**2 * 16 * 0.16, rtol=1e-5)
    np.testing.assert_allclose(found["neutral"], 0.9**2 * 16 * 0.16, rtol=1e-5)


def test_mixtures_of_cars_without_their_trembles(monkeypatch):
    np.testing.assert_allclose(rae_merge.firm(np.array([0.03, 0.5, 0.47]), 0.03), [0.0, 0.47 / 0.91, 0.44 / 0.91])
    monkeypatch.setattr(rae_merge, "drive", lambda key, pair, team: (pair[0], pair[1], pair[0] * pair[1]))
    found = rae_merge.meet(([0.25, 0.75], [1.0, 2.0]), ([0.5, 0.5], [0.0, 4.0]))
    np.testing.assert_allclose(found, [1.75, 2.0, 3.5])
    rarely = rae_merge.meet(([1.0], [1.0]), ([0.992, 0.008], [0.0, 100.0]))
    np.testing.assert_allclose(rarely, [1.0, 0.0, 0.0])  # what has less than 1 % is left out
