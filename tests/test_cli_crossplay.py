"""`jaxrl crossplay`: its table, its files, a diagonal that is what `jaxrl evaluate` prints, what is overwritten."""

import json
import shutil

import numpy as np
import pytest

from jaxrl.cli import crossplay, main
from jaxrl.cli.heat_map import heat_map, number

TRAIN = "train ppo games/matching_pennies --env.num-steps 3 --steps 64 --num-envs 4 --unroll-length 8 --widths 8"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two short runs of one kind, and one of another."""
    folder = tmp_path_factory.mktemp("trained")
    for i, more in enumerate(("", "--seed 1", "--sharing independent")):
        command = [*TRAIN.split(), *more.split(), "--episodes", "1", "--no-checkpoints", "--quiet"]
        assert main([*command, "--out", str(folder / f"run{i}")]) == 0
    return folder


@pytest.fixture
def runs(trained, folder, capsys):
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    capsys.readouterr()
    return folder


def test_the_command_line(runs, capsys):
    assert main("crossplay run0 run1 run2/policy.safetensors --episodes 8 --out new/folder --sample".split()) == 0
    out = capsys.readouterr().out
    content = json.loads((runs / "new" / "folder" / "crossplay.json").read_text())
    assert content["environment"] == {"name": "games/matching_pennies", "params": {"num_steps": 3}}
    assert [x["run"] for x in content["runs"]] == ["run0", "run1", "run2/policy.safetensors"]
    assert (content["seats"], content["episodes"], content["cut"], content["mean_length"]) == ([0], 8, 0, 3.0)
    mean, error = np.array(content["row"]["mean"]), np.array(content["row"]["error"])
    assert mean.shape == error.shape == (3, 3) and content["rewards"] == "constant sum"
    np.testing.assert_allclose(content["column"]["mean"], -mean)
    np.testing.assert_allclose(content["all"]["mean"], np.zeros((3, 3)))
    shown = [line.split() for line in out.splitlines() if line[:5].strip() in ("0", "1", "2")]
    np.testing.assert_allclose(np.array(shown, float)[:, 1:4], mean, atol=0.005)
    np.testing.assert_allclose(np.array(shown, float)[:, 4], content["elo"], atol=0.5)
    gap, gap_error = content["row"]["gap"]
    np.testing.assert_allclose(gap, np.trace(mean) / 3 - (mean.sum() - np.trace(mean)) / 6, atol=1e-9)
    assert f"gap                 {gap:.2f}  (standard error {gap_error:.2f})" in out
    assert "policy 2            run2/policy.safetensors  (ppo)" in out and "new/folder/crossplay.png" in out
    assert (runs / "new" / "folder" / "crossplay.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_diagonal_is_what_evaluate_prints(runs, capsys):
    """And without --out there is a folder in runs/."""
    assert main("crossplay run0 run1 --episodes 4 --seed 5 --seats 1".split()) == 0
    (out,) = (runs / "runs").iterdir()
    assert out.name.startswith("crossplay-games_matching_pennies-5-")
    content = json.loads((out / "crossplay.json").read_text())
    capsys.readouterr()
    for i in range(2):
        assert main(f"evaluate run{i} --episodes 4 --seed 5".split()) == 0
        agents = f"{content['column']['mean'][i][i]:.2f}  {content['row']['mean'][i][i]:.2f}"
        assert f"of each agent       {agents}\n" in capsys.readouterr().out


def test_files_that_are_there(runs, capsys):
    command = "crossplay run0 --episodes 1 --out run0"
    assert main(command.split()) == 0  # beside other files
    assert "cross-play          -\n" in capsys.readouterr().out
    content = json.loads((runs / "run0" / "crossplay.json").read_text())
    assert content["row"]["cross_play"] == [None, None] and content["row"]["error"] == [[None]]
    assert main(command.split()) == 2
    assert "--out run0 has a crossplay.json; choose another, or add --overwrite" in capsys.readouterr().err
    assert main([*command.split(), "--overwrite", "--seed", "7"]) == 0
    assert json.loads((runs / "run0" / "crossplay.json").read_text())["seed"] == 7


def test_the_table_of_teams_and_of_others():
    def lines(returns):
        played = type("Played", (), {"returns": returns, "lengths": np.ones((2, 2, 3, 2)), "finished": returns > 0})
        about = {"environment": {"name": "here"}, "runs": [{"run": "a", "agent": "b"}] * 2, "seats": [0]}
        return "\n".join(crossplay.table(about | {"episodes": 3, "max_steps": 9}, crossplay.results(played, [0])))

    returns = np.random.default_rng(0).uniform(1, 2, (2, 2, 3, 2))
    general, team = lines(returns), lines(returns[..., :1].repeat(2, -1))
    assert "of all agents (sum)" in general and general.count("self-play") == 2
    assert "mean return of each agent; the row's policy plays 0" in team and "(sum)" not in team
    assert "Elo" not in general + team and "cut" not in general
    assert "3 of each pair  (12 cut at 9 steps)" in lines(-returns)
    assert "nan" not in lines(returns * np.nan) and "  0  -  -" in lines(returns * np.nan)


def test_the_picture():
    """Cells are darker the larger, with a number and on the diagonal a frame, or grey where there is no number."""
    picture = heat_map(np.array([[-1.0, 0.0], [1.0, np.nan]]))
    assert picture.dtype == np.uint8 and picture.shape == (27 + 2 * 45, 21 + 2 * 75, 3)
    corner = [[picture[27 + 45 * i + 4, 21 + 75 * j + 4] for j in range(2)] for i in range(2)]
    light = np.array(corner, float).sum(-1)
    assert light[0, 0] > light[0, 1] > light[1, 0] and (corner[1][1] == 200).all()
    frame = [[picture[27 + 45 * i, 21 + 75 * j].sum() for j in range(2)] for i in range(2)]
    assert frame[0][0] == frame[1][1] == 95 and frame[0][1] == frame[1][0] == 765
    ink = [
        [(np.abs(picture[27 + 45 * i :, 21 + 75 * j :][6:39, 6:69] - corner[i][j]) > 0).any() for j in range(2)]
        for i in range(2)
    ]
    assert ink == [[True, True], [True, False]]
    for alike in (np.zeros((1, 1)), np.full((1, 1), np.nan), np.full((12, 12), -1e30)):
        assert len(np.unique(heat_map(alike).reshape(-1, 3), axis=0)) >= 2


def test_numbers_of_the_picture():
    assert [number(x) for x in (0.125, -99.999, 1234.5, -1e7, 3e-9)] == ["0.12", "-100.00", "1234", "-1.0e+07", "0.00"]
