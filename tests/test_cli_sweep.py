"""`jaxrl sweep`: what it is over, its tables, members that are the runs of `jaxrl train`, stopping and going on."""

import csv
import json
import shutil
import signal

import numpy as np
import pytest

from jaxrl.cli import main, sweep_running
from jaxrl.cli.errors import BadInput
from jaxrl.cli.sweep_results import Journal, ranking
from jaxrl.cli.sweep_settings import Range, alternatives, groups, points, read_words, tokens
from jaxrl.statistics import bootstrap_interval, iqm

FAST = "--unroll-length 8 --widths 8 --num-epochs 1 --num-minibatches 1 --episodes 6".split()
CARTPOLE = ["ppo", "CartPole-v1", *FAST, "--num-envs", "4", "--steps", "960"]
TIMES = {"seconds", "compile_seconds", "steps_per_second"}


def rows_of(path):
    """Of a table, without times."""
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def tables(out):
    return rows_of(out / "results.csv"), rows_of(out / "ranking.csv")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Three learning rates, of which one diverges, and two seeds; the directory."""
    out = tmp_path_factory.mktemp("sweeps") / "deep" / "sweep"
    rates = "1e-2,1e30,1e-3"
    command = [
        "sweep",
        *CARTPOLE,
        "--hparams.learning-rate",
        rates,
        "--seeds",
        "2",
        "--seed",
        "3",
        "--evaluations",
        "3",
    ]
    assert main([*command, "--out", str(out)]) == 0
    return out


def test_a_row_for_each_setting_seed_and_evaluation(swept):
    rows = [json.loads(line) for line in (swept / "results.jsonl").read_text().splitlines()]
    assert [(r["setting"], r["seed"], r["evaluation"]) for r in rows] == [
        (i, s, k) for i in range(3) for s in (3, 4) for k in (1, 2, 3)
    ]
    assert [r["hparams.learning_rate"] for r in rows] == [1e-2] * 6 + [1e30] * 6 + [1e-3] * 6
    assert {r["steps"] for r in rows if r["evaluation"] == 2} == {640}
    assert [r["diverged"] for r in rows] == [6 <= i < 12 for i in range(18)]
    assert all(r["return"] is not None for r in rows if not r["diverged"])
    as_text = [{k: "" if v is None else str(v) for k, v in r.items() if k not in TIMES} for r in rows]
    assert as_text == rows_of(swept / "results.csv")
    assert sorted(p.name for p in swept.iterdir()) == [
        "jaxrl.lock",
        "ranking.csv",
        "results.csv",
        "results.jsonl",
        "states",
        "sweep.json",
    ]


def test_the_ranking_is_that_of_final_returns(swept):
    results, ranked = tables(swept)
    final = {
        i: [float(r["return"]) for r in results if r["setting"] == str(i) and r["evaluation"] == "3"] for i in (0, 2)
    }
    best = sorted(final, key=lambda i: -iqm(np.array(final[i])))
    assert [int(r["setting"]) for r in ranked] == [*best, 1] and [r["rank"] for r in ranked] == ["1", "2", "3"]
    assert float(ranked[0]["iqm"]) == iqm(np.array(final[best[0]]))
    np.testing.assert_allclose([float(ranked[0][k]) for k in ("low", "high")], bootstrap_interval(final[best[0]]))
    assert ranked[2]["iqm"] == "" and [r["diverged"] for r in ranked] == ["0", "0", "2"]


def test_a_member_is_the_run_that_train_is(swept, tmp_path):
    run = tmp_path / "run"
    command = ["train", *CARTPOLE, "--hparams.learning-rate", "1e-3", "--seed", "4", "--quiet", "--out", str(run)]
    assert main(command) == 0
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [r for r in rows_of(swept / "results.csv") if (r["setting"], r["seed"]) == ("2", "4")]
    result = json.loads((run / "result.json").read_text())
    np.testing.assert_allclose(float(rows[-1]["return"]), result["mean"], rtol=1e-6)
    assert rows[-1]["steps"] == "960" == str(metrics[-1]["steps"])
    for low, row in zip((0, 320, 640), rows):
        part = [m for m in metrics if low < m["steps"] <= low + 320 and m["episode/count"]]
        counts = [m["episode/count"] for m in part]
        assert float(row["training_episodes"]) == sum(counts)
        np.testing.assert_allclose(
            float(row["training_return"]), np.average([m["episode/return"] for m in part], weights=counts), rtol=1e-6
        )


@pytest.fixture
def added(monkeypatch):
    """Members whose results are written."""
    members, add = [], Journal.add
    monkeypatch.setattr(Journal, "add", lambda self, member, *a: (members.append(member), add(self, member, *a)))
    return members


def test_a_sweep_that_was_cut_goes_on(swept, tmp_path, added, capsys):
    """What a kill leaves behind: lines of some members, a torn line, temporary files."""
    text, before = (swept / "results.jsonl").read_bytes(), tables(swept)
    inside = sum(map(len, text.splitlines(keepends=True)[:10])) + 40  # of 1 setting and 1 seed, and 1 row and a bit
    for cut, missing in ((inside, [(1, 4), (2, 3), (2, 4)]), (len(text) - 1, [])):
        out = tmp_path / str(cut)
        shutil.copytree(swept, out)
        (out / "results.jsonl").write_bytes(text[:cut])
        (out / "ranking.csv").unlink()
        (out / ".results.csv.77.tmp").write_text("half")
        added.clear()
        assert main(["sweep", "--resume", str(out), "--quiet"]) == 0
        assert tables(out) == before and sorted(added) == missing
        assert not list(out.glob(".*")) and (out / "results.jsonl").read_bytes().count(b"\n") == 18
    assert main(["sweep", "--resume", str(out), "--seeds", "3"]) == 2
    assert "which --seeds would change" in capsys.readouterr().err
    saved = json.loads((out / "sweep.json").read_text())
    saved["flags"]["--hparams.learning-rate"] = ["1e-2,1e30,2e-3"]
    (out / "sweep.json").write_text(json.dumps(saved))
    assert main(["sweep", "--resume", str(out)]) == 2
    assert "its settings are not what they are here" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["{}", "[1]", "null", '{"setting": 99}', '{"setting": 0', "\x00\xff"])
def test_rows_that_are_not_of_the_sweep_are_not_believed(tmp_path, damage):
    journal = Journal(tmp_path, [{"rate": 1.0}, {"rate": 2.0}], [[8, 16], [8, 16]], [0])
    results = [{"return": r, "length": 1.0, "episode/count": 0.0, "bad": 0} for r in (1.0, np.nan)]
    journal.add((0, 0), results, 1.0, 2.0)
    good = (tmp_path / "results.jsonl").read_text()
    another = good.replace('"rate": 1.0', '"rate": 3.0').replace('"setting": 0', '"setting": 1')
    too_far = good.replace('"steps": 16', '"steps": 17').replace('"seed": 0', '"seed": 5')
    (tmp_path / "results.jsonl").write_text(damage + "\n" + another + good + too_far + damage)
    again = Journal(tmp_path, [{"rate": 1.0}, {"rate": 2.0}], [[8, 16], [8, 16]], [0])
    again.read(parts=False)
    assert again.rows == journal.rows and (tmp_path / "results.jsonl").read_text() == good
    assert [row["diverged"] for row in again.rows[0, 0]] == [False, True]
    assert np.isnan(again.returns([0, 1], 1)).all() and again.returns([0], 0) == 1
    for parts in (False, True):  # the first row alone: of a member that is to be trained again, or that goes on
        (tmp_path / "results.jsonl").write_text(good[: good.index("\n") + 20])
        again.rows = {}
        again.read(parts)
        assert again.done((0, 0)) == parts


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    out = tmp_path_factory.mktemp("halving") / "sweep"
    rates = ["--hparams.learning-rate", "1e-2,1e30,1e-3,1e-6,3e-3", "--seeds", "2"]
    command = ["sweep", *CARTPOLE, *rates, "--halving", "2", "--quiet", "--out", str(out)]
    assert main(command) == 0
    return out, command


def test_halving_gives_up_poor_settings_and_goes_on_with_good_ones(halved, swept, tmp_path):
    out, command = halved
    results, ranked = tables(out)
    reached = {i: max(int(r["steps"]) for r in results if r["setting"] == str(i)) for i in range(5)}
    assert sorted(reached.values()) == [256, 256, 256, 480, 960] and reached[1] == 256  # 7.5 updates are 8
    assert [reached[int(r["setting"])] for r in ranked] == [960, 480, 256, 256, 256] and ranked[-1]["setting"] == "1"
    first = {
        i: iqm(np.array([float(r["return"]) for r in results if (r["setting"], r["steps"]) == (str(i), "256")]))
        for i in (0, 2, 3, 4)
    }
    assert {i for i, steps in reached.items() if steps > 256} == set(sorted(first, key=first.get)[-2:])
    assert not list((out / "states").iterdir())
    # who got to the end is the run that it would have been without a stop
    winner = next(i for i, steps in reached.items() if steps == 960)
    rate = [r["hparams.learning_rate"] for r in results if r["setting"] == str(winner)][0]
    alone = ["sweep", *CARTPOLE, "--hparams.learning-rate", rate, "--seeds", "2", "--evaluations", "3", "--quiet"]
    assert main([*alone, "--out", str(tmp_path / "alone")]) == 0
    last = [r["return"] for r in results if r["setting"] == str(winner) and r["steps"] == "960"]
    assert [r["return"] for r in rows_of(tmp_path / "alone" / "results.csv") if r["steps"] == "960"] == last


@pytest.mark.parametrize("at, place", [(3, "rows"), (1, "state"), (12, "rows"), (15, "rows")])
def test_halving_goes_on_between_and_inside_of_rungs(halved, tmp_path, added, monkeypatch, at, place):
    """A stop before a member's state is saved, or between its state and its rows; in every rung."""
    done, command = halved

    def killing(function):
        def killed(*a):
            if len(added) == at:
                raise KeyError("killed")
            return function(*a)

        return killed

    with monkeypatch.context() as patch:
        owner, name = (Journal, "add") if place == "rows" else (sweep_running, "save_state")
        patch.setattr(owner, name, killing(getattr(owner, name)))
        with pytest.raises(KeyError, match="killed"):
            main([*command[:-1], str(tmp_path / "sweep")])
    assert len(added) == at
    assert main(["sweep", "--resume", str(tmp_path / "sweep"), "--quiet"]) == 0
    assert tables(tmp_path / "sweep") == tables(done)
    assert len(added) == 16
    assert not list((tmp_path / "sweep" / "states").iterdir())


def test_static_choices_are_groups(folder, capsys):
    command = ["sweep", "ppo", "toys:clock", *FAST[:2], *FAST[4:], "--steps", "64", "--num-envs", "4"]
    command += ["--widths", "4", "4,", "8", "--hparams.discount", "0.9,0.99"]
    command += ["--seeds", "1", "--evaluations", "2", "--out", "sweep"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert printed.count("2 members, 1 in a program, 2 at once") == 2 and "toys:clock, widths 4 4: 2" in printed
    results, ranked = tables(folder / "sweep")
    assert list(results[0])[1:3] == ["widths", "hparams.discount"]
    assert [r["widths"] for r in results] == ["4 4"] * 4 + ["8"] * 4 and len(ranked) == 4
    assert {r["return"] for r in results} == {"3.0"} and {r["steps"] for r in results} == {"32", "64"}
    assert [g["static"]["widths"] for g in json.loads((folder / "sweep/sweep.json").read_text())["groups"]] == [
        [4, 4],
        [8],
    ]
    assert main(["sweep", "--resume", "sweep"]) == 2  # its environment is code, which a file does not choose
    assert "give it again, as in jaxrl sweep ppo toys:clock --resume sweep" in capsys.readouterr().err
    assert main(["sweep", "ppo", "toys:clock", "--resume", "sweep", "--quiet"]) == 0


def test_what_does_not_fit_in_memory_is_one_line(folder, capsys, monkeypatch):
    from jaxrl.cli import programs

    monkeypatch.setattr(programs, "free_memory", lambda: 1000)
    assert main(["sweep", *CARTPOLE, "--evaluations", "3", "--out", "sweep", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "sweep: one member takes" in err and "bytes, and 1,000 may be used" in err and err.count("\n") == 1


def test_ctrl_c_waits_for_members_that_run(folder, capsys, monkeypatch, added):
    add = Journal.add

    def interrupted(*a):
        add(*a)
        if len(added) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Journal, "add", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main(["sweep", *CARTPOLE, "--evaluations", "3", "--seeds", "40", "--out", "sweep", "--quiet"]) == 130
    assert signal.getsignal(signal.SIGINT) == before
    done = len(added)
    assert 1 <= done < 40 and f"stopped by SIGINT; {done} members are in sweep" in capsys.readouterr().err
    assert len(rows_of(folder / "sweep/results.csv")) == 3 * done and not (folder / "sweep/ranking.csv").exists()
    assert main(["sweep", "--resume", "sweep"]) == 0 and sorted(added) == [(0, seed) for seed in range(40)]
    assert f"  {done} members are there already" in capsys.readouterr().out


def test_alternatives():
    given = read_words("a b --widths 64 64, 8 --x=1,2 --flag --y -1".split())
    assert given == (["a", "b"], {"--widths": ["64", "64,", "8"], "--x": ["1,2"], "--flag": [], "--y": ["-1"]})
    assert alternatives("--widths", ["64", "64,", "8"]) == [("64", "64"), ("8",)]
    assert alternatives("--flag", []) == [()] and alternatives("--dataset", ["a,b"]) == [("a,b",)]
    assert alternatives("--hparams.x", ["1e-4..1e-2"]) == Range(1e-4, 1e-2, True)
    assert alternatives("--hparams.x", [".9...99"]) == Range(0.9, 0.99, False)
    assert alternatives("--hparams.x", ["1..50:linear"]) == Range(1, 50, False)
    assert tokens("--recurrent", ("true",)) == ["--recurrent"] and tokens("--recurrent", ("false",)) == [
        "--no-recurrent"
    ]
    assert tokens("--env.slip", ("true",)) == ["--env.slip", "true"] and tokens("--widths", ("4", "4")) == [
        "--widths",
        "4",
        "4",
    ]
    for bad in ("2..1", "1..2:cubic", "-1..1:log", "1..inf"):
        with pytest.raises(BadInput, match="must be LOW..HIGH, LOW..HIGH:log or"):
            alternatives("--hparams.x", [bad])


def test_points_of_a_grid_and_at_random():
    choices = {"--a": [("1",), ("2",)], "--b": [("x", "y")], "--c": [("3",), ("4",)]}
    assert [(p["--a"], p["--c"]) for p in points(choices, 0, 0)] == [
        (a, c) for a in choices["--a"] for c in choices["--c"]
    ]
    choices |= {"--hparams.x": Range(1e-6, 1e-2, True), "--hparams.y": Range(-1.0, 1.0, False)}
    drawn = points(choices, 400, 5)
    assert drawn == points(choices, 400, 5) != points(choices, 400, 6)
    x, y = (np.array([float(p[f"--hparams.{name}"][0]) for p in drawn]) for name in "xy")
    for u in (np.log(x / 1e-6) / np.log(1e4), (y + 1) / 2):  # uniform in [0, 1], but for four digits
        assert 0 <= u.min() < 0.02 and 0.98 < u.max() <= 1 and abs(u.mean() - 0.5) < 0.05
        assert abs(np.histogram(u, 4, (0, 1))[0] - 100).max() < 40
    assert {p["--a"] for p in drawn} == {("1",), ("2",)} and all(p["--b"] == ("x", "y") for p in drawn)
    with pytest.raises(BadInput, match="is a range: say how many to draw"):
        points(choices, 0, 0)
    with pytest.raises(BadInput, match="no flag has alternatives"):
        points({"--b": [("x",)]}, 3, 0)


def test_numbers_of_settings_are_those_of_train():
    from jaxrl.cli.train import read_settings

    common = {"--widths": ("4",), "--hparams.learning-rate": ("2e-3",), "--n-step": ("3",)}
    settings = [{**common, "--hparams.discount": (x,)} for x in ("0.9", "0.95")]
    (group,) = groups(["dqn", "CartPole-v1"], settings)
    for i, setting in enumerate(settings):
        alone = read_settings(["dqn", "CartPole-v1", *(w for f, words in setting.items() for w in (f, *words))])
        import jax

        here = jax.tree.map(lambda x: float(x[i]), group.hparams)
        np.testing.assert_allclose(jax.tree.leaves(here), jax.tree.leaves(alone.hparams), rtol=1e-6)
    assert group.members == [0, 1] and group.static == {}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("", "write jaxrl sweep AGENT ENV"),
        ("ppo", "write jaxrl sweep AGENT ENV"),
        ("ppo CartPole-v1 --seeds 0", "--seeds is 0, must be >= 1"),
        ("ppo CartPole-v1 --seeds many", "--seeds"),
        ("ppo CartPole-v1 --seeds 2 --seeds 3", "--seeds is given twice"),
        ("ppo CartPole-v1 --seed -1", "--seed is -1, must be in"),
        ("ppo CartPole-v1 --halving 1", "--halving is 1, must be >= 2"),
        ("ppo CartPole-v1 --halving 2 --evaluations 3", "leave --evaluations out"),
        ("ppo CartPole-v1 --halving 2 --steps 9000,10000", "give one"),
        ("ppo CartPole-v1 --layout wide", "--layout is 'wide', must be one of auto, vmap, threads"),
        ("ppo CartPole-v1 --debug", "does not take --debug"),
        ("ppo CartPole-v1 --num-envs 4,,8", "nothing stands beside a comma"),
        ("ppo CartPole-v1 --num-envs 4,x", "--num-envs"),
        ("ppo CartPole-v1 --num-envs 4..8", "--num-envs"),
        ("ppo CartPole-v1 --hparams.learning-rate 1e-4..1e-2", "--hparams.learning-rate 0.0001..0.01 (log) is a range"),
        ("ppo CartPole-v1 --hparams.learning-rate 1e-3,-1", "--hparams.learning-rate is -1.0, must be finite and >= 0"),
        ("ppo CartPole-v1 --hparams.learning-rate 1e-3,fast", "--hparams.learning-rate is 'fast', must be a number"),
        ("ppo CartPole-v1 --hparams.lerning-rate 1e-3,1", "did you mean --hparams.learning-rate"),
        ("ppo CartPole-v1 --random 3", "no flag has alternatives or a range"),
        ("ppo CartPole-v1 --steps 8192 --evaluations 100", "--evaluations is 100, and the run has"),
        ("ppo CartPole-v1 --steps 1024 --hparams.discount .9,.8 --halving 2", "updates are too few"),
        ("ppo CartPole-v1 --out .", "exists; choose another"),
        ("--resume nowhere", "nowhere/sweep.json: there is no such file"),
        ("ppo Nowhere-v1", "Nowhere-v1"),
        ("bc CartPole-v1", "learns from a dataset alone"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, arguments, message):
    assert main(["sweep", *arguments.split()]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1 and err.startswith("jaxrl: ")
    assert not list(folder.iterdir())


def test_ranking_of_rungs_puts_who_went_on_first(tmp_path):
    journal = Journal(tmp_path, [{"a": i} for i in range(3)], [[1, 2]] * 3, [0])
    for i, returns in enumerate([[5.0, 1.0], [9.0], [np.inf]]):
        journal.add((i, 0), [{"return": r, "length": 1.0, "bad": 0} for r in returns], 1.0, 0.0)
    rows = ranking(journal, [[0, 1, 2], [0]])
    assert [r["setting"] for r in rows] == [0, 1, 2] and [r["iqm"] for r in rows] == [1.0, 9.0, None]
    assert [r["steps"] for r in rows] == [2, 1, 1] and rows[0]["steps_per_second"] == 2.0
