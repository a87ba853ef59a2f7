"""Compiling ahead: what is found, what is compiled, and where it is stored.

Tests deepemd.transport._compile_ahead, deepemd.commands.warmup.
"""

import pytest
import torch

from deepemd import cli
from deepemd.transport import SIZES, CompiledCode, _compile, compile_ahead
from deepemd.transport._resume import resume_batch
from deepemd.transport._solve import solve_batch


@pytest.mark.parametrize("warm_start", [False, True])
def test_what_is_compiled_is_found_and_its_file_is_there(capsys, warm_start):
    compile_ahead(9, torch.float64, warm_start=warm_start)
    again = compile_ahead(SIZES[0], torch.float64, warm_start=warm_start)  # the same range of sizes
    assert again.found
    assert again.file.is_file()
    assert again.file.name.startswith("resume_batch" if warm_start else "solve_batch")
    assert capsys.readouterr().err == ""


def test_each_range_of_sizes_and_each_dtype_has_its_own_code():
    found = [compile_ahead(size, dtype) for dtype in (torch.float32, torch.float64) for size in (16, 17)]
    assert len({result.file for result in found}) == 4


def test_the_code_is_what_emd_and_warm_starts_use():
    """After ``compile_ahead``, calls compile nothing more."""
    from deepemd.transport import WarmStart, emd

    problem = torch.rand(5, 20, 17), torch.ones(20), torch.full((17,), 20 / 17)
    caches = [_compile.code_cache(entry) for entry in (solve_batch, resume_batch)]
    for warm_start in (False, True):
        compile_ahead(20, warm_start=warm_start)
    before = [set(cache.files) for cache in caches]
    emd(*problem)
    WarmStart()(*problem)
    assert [set(cache.files) for cache in caches] == before


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((0,), ValueError, "size must be at least 1 node, got 0; try"),
        ((2.5,), TypeError, "size must be a whole number of nodes, got 2.5; try"),
        ((True,), TypeError, "got True"),
        ((9, torch.float16), ValueError, "dtype must be torch.float32 or torch.float64, got torch.float16"),
    ],
)
def test_bad_arguments(arguments, error, says):
    with pytest.raises(error, match=says):
        compile_ahead(*arguments)


def test_warmup_compiles_one_size_of_each_range(monkeypatch, capsys, tmp_path):
    asked = []

    def ahead(size, dtype, *, warm_start):
        asked.append((size, dtype, warm_start))
        (tmp_path / str(len(asked))).write_bytes(bytes(500_000))
        return CompiledCode(found=warm_start, seconds=2.0, file=tmp_path / str(len(asked)))

    monkeypatch.setattr("deepemd.commands.warmup.compile_ahead", ahead)
    assert cli.main(["warmup", "--dtype", "float64", "--sizes", "20,25,300,1000"]) == 0
    out, err = capsys.readouterr()
    assert asked == [(size, torch.float64, warm) for warm in (False, True) for size in (25, 1000)]
    assert err.splitlines()[0] == f"{'transport, float64, up to 32 x 32':<42}compiled in 2.0 s"
    assert err.splitlines()[3] == f"{'warm start, float64, larger':<42}already there"
    assert out.startswith("2 compiled, 2 already there, in ")
    assert out.endswith(f"{tmp_path}: 4 files, 2.0 MB\n")
    asked.clear()
    assert cli.main(["warmup"]) == 0
    assert len(asked) == len(set(asked)) == 2 * 2 * (len(SIZES) + 1)


def test_warmup_fails_if_nothing_could_be_stored(monkeypatch, capsys):
    monkeypatch.setattr("deepemd.commands.warmup.compile_ahead", lambda *_, **__: CompiledCode(False, 1.0, None))
    assert cli.main(["warmup", "--sizes", "9", "--dtype", "float32"]) == 2
    message = "2 results could not be stored, see above; set NUMBA_CACHE_DIR to a writable folder"
    assert message in capsys.readouterr().err
