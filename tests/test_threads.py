"""Work in pieces: what comes back, on how many threads, and how an exception ends it."""

import threading
import time

import pytest
import torch

from deepemd.threads import at_once, stopped, threads_of_one


def test_results_come_in_order_from_so_many_threads_of_one():
    before, meet, seen = torch.get_num_threads(), threading.Barrier(3, timeout=20), set()

    def work(piece):
        if piece < 3:
            meet.wait()  # passed by three at once only
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.01 * (piece % 2))
        return 10 * piece

    with threads_of_one(3) as run:
        assert list(run(work, range(8))) == [10 * piece for piece in range(8)]
    assert len({thread for thread, _ in seen}) == 3
    assert {count for _, count in seen} == {1}
    assert torch.get_num_threads() == before == at_once(torch.device("cpu"))
    assert at_once(torch.device("cuda")) == 1


@pytest.mark.parametrize("nested", [False, True])
def test_an_exception_stops_what_has_begun_and_nothing_else_begins(nested):
    """Also the pieces of a piece: as the fits of an evaluation."""
    before, begun, ended, inside = torch.get_num_threads(), [], [], threading.Event()

    def wait(piece):
        begun.append(piece)
        inside.set()
        for _ in range(2_000):  # twenty seconds, if nobody says stop
            if stopped():
                break
            time.sleep(0.01)
        ended.append(stopped())

    def cut(piece):
        with threads_of_one(at_once(torch.device("cpu"))) as run:
            return list(run(wait, [piece]))

    with pytest.raises(KeyboardInterrupt), threads_of_one(2) as run:  # noqa: PT012
        run(cut if nested else wait, range(50))
        assert inside.wait(20)
        raise KeyboardInterrupt
    assert ended == [True] * len(begun)
    assert len(begun) <= 2
    assert torch.get_num_threads() == before
    with threads_of_one(2) as run:  # the next is not stopped
        assert list(run(lambda _: stopped(), range(4))) == [False] * 4
    assert not stopped()


def test_what_a_piece_raises_is_raised():
    def work(piece):
        if piece == 1:
            raise ValueError("piece 1")
        return piece

    with pytest.raises(ValueError, match="piece 1"), threads_of_one(2) as run:  # noqa: PT012
        found = run(work, range(4))
        assert next(found) == 0
        next(found)
