"""Work in pieces: the results, the number of threads, and how an exception ends it."""

import threading
import time

import pytest
import torch

from deepemd.threads import single_threads, stopped, thread_count


def test_results_come_in_order_from_that_many_single_threads():
    before, meet, seen = torch.get_num_threads(), threading.Barrier(3, timeout=20), set()

    def work(piece):
        if piece < 3:
            meet.wait()  # passed by three at once only
        seen.add((threading.get_ident(), torch.get_num_threads()))
        time.sleep(0.01 * (piece % 2))
        return 10 * piece

    with single_threads(3) as run:
        assert list(run(work, range(8))) == [10 * piece for piece in range(8)]
    assert len({thread for thread, _ in seen}) == 3
    assert {count for _, count in seen} == {1}
    assert torch.get_num_threads() == before == thread_count(torch.device("cpu"))
    assert thread_count(torch.device("cuda")) == 1


@pytest.mark.parametrize("nested", [False, True])
def test_an_exception_stops_what_has_begun_and_nothing_else_begins(nested):
    """Pieces of a piece stop too, such as the fits of an evaluation."""
    before, begun, ended, inside = torch.get_num_threads(), [], [], threading.Event()

    def wait(piece):
        begun.append(piece)
        inside.set()
        for _ in range(2_000):  # twenty seconds, if nothing stops it
            if stopped():
                break
            time.sleep(0.01)
        ended.append(stopped())

    def cut(piece):
        with single_threads(thread_count(torch.device("cpu"))) as run:
            return list(run(wait, [piece]))

    with pytest.raises(KeyboardInterrupt), single_threads(2) as run:  # noqa: PT012
        run(cut if nested else wait, range(50))
        assert inside.wait(20)
        raise KeyboardInterrupt
    assert ended == [True] * len(begun)
    assert len(begun) <= 2
    assert torch.get_num_threads() == before
    with single_threads(2) as run:  # the next is not stopped
        assert list(run(lambda _: stopped(), range(4))) == [False] * 4
    assert not stopped()


def test_what_a_piece_raises_is_raised():
    def work(piece):
        if piece == 1:
            raise ValueError("piece 1")
        return piece

    with pytest.raises(ValueError, match="piece 1"), single_threads(2) as run:  # noqa: PT012
        found = run(work, range(4))
        assert next(found) == 0
        next(found)


def test_blocks_that_overlap_leave_the_number_of_threads_as_it_was():
    before, counts = torch.get_num_threads(), []

    def block():
        with single_threads(2) as run:
            list(run(lambda _: time.sleep(0.05), range(4)))
        counts.append(torch.get_num_threads())

    torch.set_num_threads(3)
    try:
        with single_threads(2):  # the others begin where PyTorch uses one thread already
            others = [threading.Thread(target=block) for _ in range(3)]
            for other in others:
                other.start()
            for other in others:
                other.join()
        assert torch.get_num_threads() == 3
        assert counts == [3] * 3
    finally:
        torch.set_num_threads(before)
