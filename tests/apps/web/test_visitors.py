"""Who is who on the page, and when somebody is forgotten."""

import pytest

from deepemd.apps.web.uploads import Limits, Room, Upload
from deepemd.apps.web.visitors import _MAX_VISITORS, FORGOTTEN_AFTER, Visitors


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def visitors(tmp_path, clock) -> Visitors:
    return Visitors(None, Room(tmp_path, Limits(file=100, files=2, visitor=100)), clock)


def _uploaded(visitors: Visitors, number: int, size: int = 10) -> Upload:
    path = visitors.room.folder / f"{number:032x}"
    path.write_bytes(b"x" * size)
    visitors.room.take(size)
    return Upload(path, f"{number}.jpg", size)


def test_a_visitor_is_found_again_by_a_secret_and_only_by_it(visitors):
    one, other = visitors.open(), visitors.open()
    assert len({one.id, other.id}) == 2
    assert visitors.open(one.id) is one
    chosen = visitors.open("f" * 64)  # nobody can choose a secret for somebody else
    assert chosen.id not in ("f" * 64, one.id, other.id)


def test_who_comes_back_within_an_hour_is_known_and_later_is_informed(visitors, clock):
    visit = visitors.open()
    assert not visit.forgotten
    clock.now += FORGOTTEN_AFTER - 1
    assert visitors.open(visit.id) is visit
    upload = _uploaded(visitors, 1)
    visitors.keep(visit, [upload])
    clock.now += FORGOTTEN_AFTER + 1
    visitors.sweep()
    assert not upload.path.exists()
    assert visitors.room.used == 0
    again = visitors.open(visit.id)
    assert again is not visit
    assert again.forgotten
    assert again.id != visit.id


def test_when_there_are_too_many_the_empty_ones_are_forgotten_first_and_then_who_left_first(visitors, clock):
    first, second = visitors.open(), visitors.open()
    for visit in (first, second):
        visitors.keep(visit, [_uploaded(visitors, id(visit))])
    for _ in range(_MAX_VISITORS + 10):
        clock.now += 1
        visitors.open()
    assert visitors.open(first.id) is first
    assert visitors.open(second.id) is second
    for number in range(_MAX_VISITORS):
        clock.now += 1
        visitors.keep(visitors.open(), [_uploaded(visitors, number)])
        visitors.open(first.id)  # the page is open: it says so every two minutes
    assert visitors.open(first.id) is first
    assert visitors.open(second.id).forgotten


def test_a_waiting_photo_is_taken_once(visitors):
    visit = visitors.open()
    visit.waiting = [one, other] = [_uploaded(visitors, 1), _uploaded(visitors, 2)]
    assert [visitors.next_waiting(visit) for _ in range(3)] == [one, other, None]


def test_an_event_that_waited_while_its_visitor_was_forgotten_belongs_to_the_same_cookie(visitors, clock):
    visit = visitors.open()
    clock.now += 2 * FORGOTTEN_AFTER
    visitors.sweep()
    again = visitors.open(visit.id, issued=True)
    assert again.id == visit.id
    assert again.forgotten
    assert visitors.open(visit.id) is again


def test_too_many_photos_of_all_visitors_let_the_oldest_be_forgotten(visitors, clock):
    class Many:
        classifier, photos = "some", 9_000

    visits = []
    for _ in range(3):
        clock.now += 1
        visits.append(visitors.open())
        visitors.change(visits[-1], Many())
    assert [visitors.open(visit.id).forgotten for visit in visits] == [True, False, False]


def test_the_oldest_uploads_make_room(visitors):
    visit = visitors.open()
    uploads = [_uploaded(visitors, number, size=30) for number in range(5)]
    for upload in uploads:
        visitors.keep(visit, [upload])
    assert [upload.path.exists() for upload in uploads] == [False, False, True, True, True]
    assert visitors.room.used == 90
    taken = visitors.take(visit, [uploads[0].token, uploads[4].token, uploads[4].token, "nothing"])
    assert taken == [uploads[4]]
    visitors.done(taken)
    assert not uploads[4].path.exists()
    assert visitors.room.used == 60


def test_what_arrives_for_a_forgotten_visitor_is_removed(visitors, clock):
    visit = visitors.open()
    clock.now += 2 * FORGOTTEN_AFTER
    visitors.sweep()
    upload = _uploaded(visitors, 1)
    visitors.keep(visit, [upload])
    assert not upload.path.exists()
    assert visitors.room.used == 0
