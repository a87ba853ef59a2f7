"""The files of one result: written by one run at a time, and there together or not at all."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepemd.errors import InputError
from deepemd.files import contents
from deepemd.results import Output, ResultFiles, output_lock, shared_output_lock

posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL, forks and limits are POSIX")


def outputs(folder: Path, *names: str) -> list[Output]:
    return [Output("out", folder / name, name) for name in names or ("a.csv", "b.json", "c.html")]


HOLDING = """
import sys, time
from pathlib import Path
from deepemd.results import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_has_ended_however_it_ends(tmp_path):
    place = tmp_path / "new" / "r.json"
    other = subprocess.Popen([sys.executable, "-c", HOLDING, str(place)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    message = rf"r\.json: another run is writing there now \(process {other.pid}\): wait .* another place for --o"
    for claim in (output_lock, shared_output_lock):
        with pytest.raises(InputError, match=message), claim(place, option="--o"):
            pass
    with pytest.raises(InputError, match="another run"):
        ResultFiles(*outputs(place.parent, "x", "r.json"), force=True)
    with output_lock(place.with_name("s.json")):  # another output in the same folder
        pass
    other.kill()
    other.communicate()
    with output_lock(place):
        assert contents(place.parent) == []
    assert list(place.parent.iterdir()) == []


def test_a_lock_leaves_nothing_and_can_be_taken_twice_by_one_process(tmp_path):
    with output_lock(tmp_path / "a" / "b" / "c"), shared_output_lock(tmp_path / "a" / "b" / "c"):
        assert len(list((tmp_path / "a" / "b").iterdir())) == 1
    assert not (tmp_path / "a").exists()
    with output_lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").touch()
    assert list((tmp_path / "a").iterdir()) == [tmp_path / "a" / "b"]


@posix
def test_a_forked_child_does_not_hold_the_lock_of_a_parent_that_is_gone(tmp_path):
    code = "import os, sys, time\n" + HOLDING.replace("time.sleep(60)", "os.fork() or time.sleep(60)\n    os._exit(0)")
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "held\n"
    parent.wait(30)  # its child sleeps on
    with output_lock(tmp_path / "r"):
        pass
    parent.stdout.close()


@posix
def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog):
    def no_locks(_: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("deepemd.results.lock_file", no_locks)
    with output_lock(tmp_path / "r"):
        pass
    assert "files cannot be locked there (Function not implemented): let no other run write" in caplog.text
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    with output_lock(tmp_path / "r"):
        (name,) = tmp_path.iterdir()
    (tmp_path / "precious").write_text("work")
    name.symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="cannot be written"), output_lock(tmp_path / "r"):
        pass
    assert (tmp_path / "precious").read_text() == "work"


def test_processes_that_lock_and_sweep_at_once_never_write_together(tmp_path):
    """Whoever has the lock is alone, while others come, go and remove leftovers."""
    code = """
import sys
from pathlib import Path
from deepemd.errors import InputError
from deepemd.files import remove_leftovers
from deepemd.results import output_lock
place, alone = Path(sys.argv[1]), Path(sys.argv[1] + ".alone")
done = 0
while done < 30:
    remove_leftovers(place.parent)
    try:
        with output_lock(place):
            alone.mkdir()  # fails if another one is here
            alone.rmdir()
            done += 1
    except InputError:
        pass
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "r")], stderr=subprocess.PIPE) for _ in "abc"]
    results = [(run.communicate()[1].decode(), run.returncode) for run in runs]
    assert results == [("", 0)] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_result_appears_as_a_whole_and_replaces_nothing_unasked(tmp_path):
    with ResultFiles(*outputs(tmp_path), force=False) as result:
        for name in ("a.csv", "b.json"):
            result.draft(tmp_path / name).write_text("1")
        (tmp_path / "adopted").write_text("1")
        result.adopt(tmp_path / "c.html", tmp_path / "adopted")
        assert contents(tmp_path) == ["adopted"]
        result.commit()
    assert contents(tmp_path) == [path.name for path in sorted(tmp_path.iterdir())] == ["a.csv", "b.json", "c.html"]
    with pytest.raises(InputError, match=r"a\.csv already exists: .* with --out, or pass --force"):
        ResultFiles(*outputs(tmp_path), force=False)
    with ResultFiles(*outputs(tmp_path), force=True) as result:
        result.draft(tmp_path / "a.csv").write_text("2")
    assert (tmp_path / "a.csv").read_text() == "1"  # not committed
    assert len(list(tmp_path.iterdir())) == 3
    with ResultFiles(Output("out", None, "a"), force=False) as result:
        result.commit()


@posix
@pytest.mark.parametrize("name", ["folder", "fifo", "/dev/null"])
def test_what_is_not_a_file_is_no_place_for_a_result(tmp_path, name):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match=r"out: .* is (a folder|not a regular file)"):
        ResultFiles(*outputs(tmp_path, name), force=True)
    assert not Path("/dev/null").is_file()


COMMIT = """
import os, signal, sys
from pathlib import Path
from deepemd import files, results
at, folder, force = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "force"
steps = 0
def step(function):
    def counted(*arguments, **settings):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **settings)
    return counted
os.fsync, Path.replace, Path.unlink = step(os.fsync), step(Path.replace), step(Path.unlink)
names = "a.csv", "b.json", "c.html"
with results.ResultFiles(*(results.Output("out", folder / name, name) for name in names), force=force) as result:
    for name in names:
        result.draft(folder / name).write_text("new")
    result.commit()
    if at == -1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
@pytest.mark.parametrize("force", ["force", "no"])
def test_killed_at_every_step_the_same_command_finishes_and_nothing_old_stands_next_to_anything_new(
    tmp_path, force, forks
):
    seen = set()
    for at in range(1, 60):
        place = tmp_path / str(at)
        place.mkdir()
        if force == "force":
            for name in ("a.csv", "b.json", "c.html"):
                (place / name).write_text("old")
        code = forks.run(COMMIT, at, place, force).returncode
        found = {(place / name).read_text() for name in contents(place) if not name.startswith(".")}
        assert len(found) <= 1
        seen.add((len(contents(place)), *found))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        done = len([name for name in contents(place) if not name.startswith(".")]) == 3 and found == {"new"}
        again = forks.run(COMMIT, 0, place, force)
        if again.returncode:  # complete: the kill came after the last step
            assert done
            assert "pass --force" in again.stderr
        assert [f"{path.name} {path.read_text()}" for path in sorted(place.iterdir()) if path.name[0] != "."] == [
            "a.csv new", "b.json new", "c.html new"
        ]  # fmt: skip
    assert code == 0
    assert len(seen) > 3


def test_a_mark_allows_only_the_files_that_it_names(tmp_path):
    with ResultFiles(*outputs(tmp_path), force=False) as result:
        mark = result._mark
    assert mark is not None
    (tmp_path / "c.html").write_text("another run's")
    for content in (json.dumps(["a.csv", "b.json"]), "{", "7"):
        mark.write_text(content)
        with pytest.raises(InputError, match=r"c\.html already exists"):
            ResultFiles(*outputs(tmp_path), force=False)
    mark.write_text(json.dumps(["a.csv", "c.html"]))
    ResultFiles(*outputs(tmp_path), force=False).__exit__(None, None, None)


def test_two_outputs_in_one_file_are_refused_by_whatever_name(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("a.csv", "b/../a.csv", "link/a.csv"):
        with pytest.raises(InputError, match=r"page: .* is also the file of --out: choose another place"):
            ResultFiles(*outputs(tmp_path, "a.csv"), Output("page", tmp_path / name, "c.html"), force=True)
    ResultFiles(*outputs(tmp_path), force=False).__exit__(None, None, None)
