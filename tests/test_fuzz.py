"""Thousands of damaged files of every kind that the program reads: a right answer or an InputError, and nothing else.

`python benchmarks/fuzz.py --cases 10000 --seed 1` runs more of them.
"""

import os
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("limits of time and memory are POSIX", allow_module_level=True)

from fuzzing import Fuzzer

CASES = 1600


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Fuzzer:
    return Fuzzer(tmp_path_factory.mktemp("fuzz"), seed=0)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.usefixtures("one_thread")
def test_damaged_files_give_a_right_answer_or_an_input_error(fuzzer: Fuzzer, part: int) -> None:
    for number in range(part * CASES // 4, (part + 1) * CASES // 4):
        fuzzer.case(number)


def test_the_cases_reach_every_file(fuzzer: Fuzzer) -> None:
    """Each kind of file was read undamaged before, so a reader that always fails would show."""
    assert {target.folder.name for target in fuzzer.targets} == {
        *("model", "classifier", "index", "cache", "run", "recipe", "archives", "mini", "pickles", "weights"),
        *("birds", "tiered", "cifar", "letters", "pictures", "tables", "labels"),
        fuzzer.store.path.name,
    }
    assert all(target.answer for target in fuzzer.targets)
    fuzzer.case(0)
    assert Path(fuzzer.folder / "case").is_dir()
