"""Every benchmark: its class lists are sorted, and a message says which files to get.

Tests deepemd.data.benchmarks.published.
"""

import pytest

from deepemd.cli import main
from deepemd.data import DATASETS, prepare
from deepemd.data.benchmarks import BENCHMARKS
from deepemd.data.benchmarks.published import FILES, Counts, check_split, class_list
from deepemd.data.drafts import from_arrays
from deepemd.errors import InputError


@pytest.mark.parametrize("name", ["miniimagenet", "tieredimagenet", "cub", "fc100", "cifar-fs", "omniglot"])
def test_class_lists_are_sorted_and_disjoint(name):
    lists = [class_list(name, split) for split in FILES]
    assert all(list(names) == sorted(set(names)) for names in lists)
    assert sum(map(len, lists)) == len(set().union(*lists))
    assert all(label and label == label.strip() for names in lists for label in names)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_without_a_source_it_says_what_to_get(tmp_path, capsys, name):
    assert name in DATASETS
    assert main(["data", "prepare", name, "--root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert f"{name}: not prepared in {tmp_path}: " in message
    assert " PATH" in message.split("then run")[0]
    assert f"then run `deepemd data prepare {name} --source PATH`" in message


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_source_that_is_not_there(tmp_path, name):
    for source in (tmp_path / "gone", tmp_path / "x.zip", tmp_path / "x.tar"):
        if source.suffix:
            source.write_bytes(b"no archive")
        with pytest.raises(InputError, match=source.name):
            prepare(name, source, root=tmp_path / "root")
    assert not list((tmp_path / "root").iterdir())


def test_refusals_tell_the_difference():
    """Classes, then numbers; an empty split is no exception."""
    names = class_list("fc100", "val")
    counts = Counts(20, 1, 1)

    def draft(labels):
        return from_arrays("x", list(labels), [None] * len(labels))

    check_split("x", "fc100", "val", draft(names), counts, "Get it")
    for labels, message in [
        ((), rf"found 0 classes of 0 images, 0 in all; {names[0]} is absent\. Get it, or pass --strict false"),
        (names[1:], rf"found 19 classes of 1 images, 19 in all; {names[0]} is absent"),
        ((*names, "unicorn"), r"found 21 classes of 1 images, 21 in all, 1 of them other classes \(unicorn is one\)"),
        ((*names, names[3]), r"found 20 classes of 1 to 2 images, 21 in all\."),
        ((*names[1:], names[3]), rf"found 19 classes of 1 to 2 images, 20 in all; {names[0]} is absent"),
    ]:
        with pytest.raises(InputError, match=rf"^x: not the val split of fc100, which has 20 given .*{message}"):
            check_split("x", "fc100", "val", draft(labels), counts, "Get it")
