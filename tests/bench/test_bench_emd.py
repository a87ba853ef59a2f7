"""The benchmark on tiny problems: its report, its errors and its chart. No test depends on how fast anything is.

Tests deepemd.bench.calls, deepemd.bench.measure, deepemd.bench.peers, deepemd.bench.picture, deepemd.bench.problems,
deepemd.bench.race, deepemd.bench.run, deepemd.bench.subprocesses, deepemd.bench.tables, deepemd.commands.bench,
deepemd.versions.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deepemd import InputError, cli, emd
from deepemd.bench import calls, race
from deepemd.bench.measure import peak_rise, ratios, summary, threads
from deepemd.bench.peers import PEERS, load_peers
from deepemd.bench.picture import speed_picture
from deepemd.bench.problems import KINDS
from deepemd.bench.race import Settings, batch_of
from deepemd.bench.run import run
from deepemd.bench.tables import markdown

ROOT = Path(__file__).parents[2]
SMALL = Settings(
    sizes=(3, 4), rounds=2, threads=(1,), peers=(), parts=("race",), peer_seconds=0.001, processes=1, pairs=3
)


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    """Batches of 120 problems instead of up to 26,041, which take seconds to draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race, "batch_of", lambda _: 120)
        yield


@pytest.fixture(scope="module")
def peers():
    """The exact peers that are installed, and one that is not exact."""
    pytest.importorskip("ot.batch")
    return load_peers(["opencv", "pot", "pot-core", "pot-batch", "highs"])[0]


@pytest.fixture(scope="module")
def report(peers):
    """A report as --out writes it."""
    return json.loads(json.dumps(run(replace(SMALL, peers=tuple(peers)))))


def test_the_report_holds_what_the_docs_say(report, peers):
    assert report["benchmark"] == "deepemd bench emd"
    assert report["interrupted"] is False
    assert report["machine"]["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]  # +cpu, +cu130
    assert report["settings"]["sizes"] == [3, 4]
    assert [(row["kind"], row["n"]) for row in report["race"]] == [(k, n) for k in KINDS for n in (3, 4)]
    for row in report["race"]:
        assert set(row["us"]) == {"emd, 1 thread", *peers}
        assert set(row["times_ours"]) == set(row["error"]) == set(peers)
        assert set(row["problems"]) == set(row["us"])
        assert row["disagree"] == {}
        assert row["duality_gap"] < 1e-6
        assert all(found["median"] > 0 and found["rounds"] == 2 for found in row["us"].values())
        assert all(row["error"][name] <= (PEERS[name].agree or 1) for name in peers)


def test_ratios_are_taken_within_a_round(monkeypatch, peers):
    """With two rounds the median is the mean, so it can be checked against the times of both."""
    laps = []
    own = race._lap
    monkeypatch.setattr(race, "_lap", lambda *a: laps.append(own(*a)) or laps[-1])
    rows = []
    race.race(replace(SMALL, sizes=(3,), kinds=("uniform",)), {"pot-core": peers["pot-core"]}, rows, lambda _: None)
    expected = np.mean([lap["pot-core"] / lap["emd, 1 thread"] for lap in laps])
    assert rows[0]["times_ours"]["pot-core"]["median"] == pytest.approx(expected)
    assert rows[0]["us"]["pot-core"]["median"] == pytest.approx(1e6 * np.mean([lap["pot-core"] for lap in laps]))


def test_a_peer_that_answers_wrongly_is_not_timed(report):
    rows = []
    settings = replace(SMALL, sizes=(3,), kinds=("embedding",))
    race.race(settings, {"highs": lambda problems: [0.5 for _ in problems]}, rows, lambda _: None)
    (row,) = rows
    assert row["disagree"]["highs"] == row["error"]["highs"] > 1e-3
    assert "highs" not in row["us"]
    assert "highs" not in row["times_ours"]
    text = markdown({**report, "race": rows, "settings": {**report["settings"], "kinds": ["embedding"]}})
    assert "| n | emd, 1 thread | HiGHS |" in text
    assert "| wrong |" in text
    assert "wrong, so not timed, at n = 3" in text


def test_a_peer_that_fails_drops_out_and_is_reported():
    def solve(problems):
        if len(rounds) == 3:
            raise RuntimeError("singular matrix")
        rounds.append(1)
        return emd(*problems).value.tolist()

    rounds, rows = [], []
    solvers = {"sinkhorn": solve, "highs": lambda problems: [float("nan")] * len(problems)}
    settings = replace(SMALL, sizes=(3,), kinds=("embedding",), rounds=4, peer_seconds=10.0)
    race.race(settings, solvers, rows, lambda _: None)
    (row,) = rows
    assert row["failed"] == {
        "sinkhorn": "RuntimeError: singular matrix",
        "highs": "ValueError: a value that is not a finite number",
    }
    assert row["us"]["sinkhorn"]["rounds"] == 1  # the first two calls were to warm up
    assert "highs" not in row["us"]


def test_a_slow_peer_takes_part_in_fewer_rounds():
    rows = []
    settings = replace(SMALL, sizes=(3,), kinds=("embedding",), rounds=9, peer_seconds=1e-9)
    race.race(settings, {"sinkhorn": lambda problems: [0.0] * len(problems.a)}, rows, lambda _: None)
    assert rows[0]["us"]["sinkhorn"]["rounds"] == rows[0]["times_ours"]["sinkhorn"]["rounds"] == 3
    assert rows[0]["us"]["emd, 1 thread"]["rounds"] == 9


def test_ctrl_c_keeps_the_rounds_that_are_whole(monkeypatch, capsys, tmp_path):
    own, done = race._lap, []

    def lap(*arguments):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(own(*arguments))
        return done[-1]

    monkeypatch.setattr(race, "_lap", lap)
    out = tmp_path / "emd.json"
    words = ["bench", "emd", "--sizes", "3,4,5", "--rounds", "2", "--threads", "1", "--peers", "", "--out", str(out)]
    assert cli.main(words) == 130
    report = json.loads(out.read_text())
    assert report["interrupted"] is True
    assert [(row["n"], row["us"]["emd, 1 thread"]["rounds"]) for row in report["race"]] == [(3, 2), (4, 1)]
    assert "| 4 |" in capsys.readouterr().out


def test_calls(monkeypatch):
    monkeypatch.setattr(calls, "N", 3)
    monkeypatch.setattr(calls, "ENOUGH", 2)
    found = run(replace(SMALL, parts=("calls",)))["calls"]
    assert found["n"] == 3
    assert set(found["us_a_problem"]) == {str(batch) for batch in calls.BATCHES}
    for name in ("one_problem_us", "one_tiny_problem_us", "float64_over_float32"):
        assert found[name]["median"] > 0
        assert found[name]["rounds"] == 2


def test_gradient_and_start_in_processes_of_their_own():
    pytest.importorskip("ot")
    report = run(replace(SMALL, parts=("gradient", "start"), peers=("pot",)))
    assert [row["solver"] for row in report["gradient"]] == ["emd", "pot"]
    for row in report["gradient"]:
        assert row["problems"] == row["measured_problems"] == 3
        assert row["value_error"] < 1e-6
        assert row["ms"]["median"] > 0
        assert row["mb"] is None or row["mb"]["median"] >= 0
    start = report["start"]
    assert start["total_s"]["median"] == pytest.approx(start["import_s"]["median"] + start["first_call_s"]["median"])
    text = markdown(report)
    assert "POT emd2 in a loop" in text
    assert "A new process" in text


def test_a_missing_peer_is_left_out_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)  # what Python does for a module that is not there
    found, missing = load_peers(["highs"])
    assert not found
    assert missing["highs"].startswith("HiGHS is left out: ")
    assert missing["highs"].endswith("'pip install --upgrade scipy' installs it")
    report = run(replace(SMALL, sizes=(3,), kinds=("uniform",), peers=("highs",)))
    assert report["left_out"] == missing
    assert "'pip install --upgrade scipy' installs it" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sizes", "nine"], "sizes: 'nine' is not a list of whole numbers; separate them by commas"),
        (["--sizes", "0,9"], "sizes holds 0; give whole numbers from 1 to 2,000"),
        (["--sizes", ""], "sizes is empty; give"),
        (["--threads", "1,4096"], "threads holds 4096; give whole numbers from 1 to"),
        (["--rounds", "0"], "rounds is 0; at least 1 is needed"),
        (["--peers", "opencv,cplex"], "peers holds 'cplex'; choose from opencv, pot, pot-core"),
        (["--parts", "all"], "parts holds 'all'; choose from race, calls, gradient, start"),
        (["--parts", "calls", "--picture", "p.png"], "picture shows the part 'race': add race to --parts"),
        (["--report", "/no/such.json"], "/no/such.json cannot be read"),
        (["--out", "."], "out: . is a folder; name a file in it, such as emd.json"),
    ],
)
def test_bad_options_are_one_clear_message(capsys, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "emd", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_file_that_is_no_report(capsys, tmp_path):
    for content in ("[]", "{}", "not JSON"):
        (tmp_path / "x.json").write_text(content)
        assert cli.main(["bench", "emd", "--report", str(tmp_path / "x.json")]) == 2
        assert "pass a file that --out has written" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [lambda r: r.pop("race"), lambda r: r["race"][0].update(us=""), lambda r: r.clear()])
def test_a_damaged_report_is_one_clear_message(report, tmp_path, capsys, damage):
    spoiled = json.loads(json.dumps(report))
    damage(spoiled)
    path, picture = tmp_path / "emd.json", tmp_path / "emd.png"
    path.write_text(json.dumps(spoiled))
    assert cli.main(["bench", "emd", "--report", str(path), "--picture", str(picture)]) == 2
    assert "pass a file that --out has written" in capsys.readouterr().err
    assert not picture.exists()


def test_tables_and_picture_come_from_the_report_alone(report, tmp_path, capsys):
    path, picture = tmp_path / "emd.json", tmp_path / "new" / "emd.png"
    path.write_text(json.dumps(report))
    assert cli.main(["bench", "emd", "--report", str(path), "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert out.strip() == markdown(report).strip()
    assert out.count("| 4 | ") == 4  # times and ratios, for both kinds
    with Image.open(picture) as image:
        assert min(image.size) > 500
        assert np.asarray(image.convert("L")).std() > 10
    with pytest.raises(InputError, match="no race on nosuch costs"):
        speed_picture(report, picture, "nosuch")


def test_the_docs_show_the_committed_report():
    page, committed = ROOT / "docs" / "speed.md", ROOT / "benchmarks" / "results" / "emd.json"
    if not page.is_file() or not committed.is_file():
        pytest.skip("needs the source's docs and benchmarks, which a source distribution does not hold")
    assert markdown(json.loads(committed.read_text())) in page.read_text(), "run python benchmarks/docs.py"


@pytest.mark.parametrize("kind", KINDS)
def test_problems(kind):
    cost, a, b = KINDS[kind](torch.Generator().manual_seed(0), 5, 7)
    assert cost.shape == (5, 7, 7)
    assert cost.dtype == torch.float32
    assert 0 <= float(cost.min()) <= float(cost.max()) <= 2
    torch.testing.assert_close(a.sum(-1), torch.ones(5))
    torch.testing.assert_close(b.sum(-1), torch.ones(5))
    again = KINDS[kind](torch.Generator().manual_seed(0), 5, 7)
    assert torch.equal(cost, again.cost)


def test_a_batch_is_an_episode_with_more_small_problems_and_fewer_large_ones():
    assert [batch_of(n) for n in (3, 9, 25, 100, 256, 2000)] == [26041, 2893, 375, 375, 57, 16]


def test_summaries():
    assert summary([5.0]) == {"median": 5.0, "iqr": 0.0, "rounds": 1}
    assert ratios([2.0, 9.0, 8.0], [1.0, 3.0, 2.0])["median"] == 3.0


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_peak_memory_sees_what_is_allocated_and_freed_again():
    rise = peak_rise(lambda: torch.ones(16, 2**20))
    if rise is None:
        pytest.skip("needs Linux's account of a process's memory")
    assert 60 < rise < 90


def test_the_measuring_process_imports_nothing_before_its_clock_runs():
    code = "import sys, deepemd.bench.subprocesses; print(sorted({'torch', 'numba', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
