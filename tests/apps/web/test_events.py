"""What buttons do, without a browser.

Tests deepemd.apps.web.gallery, deepemd.apps.web.fragments.
"""

import json
import re
from html import unescape

import pytest

from deepemd.apps.samples import sample_classes, sample_queries
from deepemd.apps.web.events import VISITOR, Events
from deepemd.apps.web.uploads import Limits, Room, Upload
from deepemd.apps.web.visitors import Visitors
from deepemd.model.pretrained import pretrained

SAME = object()


class Person:
    """Somebody at the page, and what it shows to them."""

    def __init__(self, folder) -> None:
        self.visitors = Visitors(pretrained(), Room(folder, Limits(file=2**24)))
        self.events = Events(self.visitors, SAME)
        self.visit = self.visitors.open()
        self.headers = {VISITOR: self.visit.id}
        self.page = ["", "", "", ""]  # the messages, the classes, the gallery, the explanation

    def do(self, event, *values) -> "Person":
        for shown in event(self.headers, *values):
            parts = {3: shown} if isinstance(shown, str) else dict(enumerate(shown[:4]))
            for place, part in parts.items():
                if part is not SAME:
                    self.page[place] = part
        return self

    def act(self, **action: str) -> "Person":
        return self.do(self.events.act, json.dumps(action))

    def upload(self, picture, name: str) -> list[dict]:
        path = self.visitors.room.folder / f"{len(self.visit.uploads):032x}"
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            picture.save(path, "PNG")
        self.visitors.room.take(path.stat().st_size)
        self.visitors.keep(self.visit, [Upload(path, name, path.stat().st_size)])
        return [{"path": str(path)}]

    def actions(self, place: int) -> list[dict]:
        return [json.loads(unescape(one)) for one in re.findall(r'data-act="([^"]*)"', self.page[place])]

    def labels(self) -> list[str]:
        return re.findall(r"<b>([^<]*)</b>", self.page[2])


@pytest.fixture
def person(tmp_path) -> Person:
    return Person(tmp_path)


@pytest.fixture(scope="module")
def photos():
    return sample_classes()


def test_an_early_photo_waits_in_the_gallery_and_is_answered_when_there_are_two_classes(person, photos):
    person.do(person.events.ask, person.upload(sample_queries()[1], "mine.jpg"))
    assert person.labels() == ["waiting"]
    assert "there is none yet. Your photo is classified when there are two." in person.page[3]
    person.do(person.events.add, "weed", person.upload(photos["flower"][0], "1.jpg"), None)
    assert "there is only &#x27;weed&#x27;" in person.page[3]
    person.do(person.events.add, "temple", None, person.upload(photos["temple"][0], "2.jpg")[0])  # of the camera
    assert person.labels() == ["weed"]
    assert "At least two" not in person.page[3]
    assert '<svg class="match"' in person.page[3]
    assert list(person.visitors.room.folder.iterdir()) == []
    assert person.visitors.room.used == 0


def test_the_caption_says_what_decides(person, photos):
    for name in ("flower", "temple"):
        person.do(person.events.add, name, person.upload(photos[name][0], "1.jpg"), None)
    person.do(person.events.ask, person.upload(sample_queries()[1], "mine.jpg"))
    assert "How photos are compared: &quot;ridge" in person.page[1]
    assert "Bright parts of the query speak for flower; they decide." in person.page[3]
    assert "dark parts count little" not in person.page[3]
    assert "In 95 of 100 cases" not in person.page[3]  # for which there are too few photos


@pytest.fixture
def sampled(person) -> Person:
    return person.do(person.events.add_samples)


def test_a_gallery_shows_each_answer_and_a_click_its_explanation(sampled):
    assert sampled.labels() == ["temple", "flower", "portrait", "none of them"]
    assert sampled.page[2].count('aria-pressed="true"') == 1
    ids = re.findall(r'data-show="(\w+)"', sampled.page[2])
    assert f'data-of="{ids[0]}"' in sampled.page[3]
    sampled.do(sampled.events.show, ids[1])
    assert f'data-of="{ids[1]}"' in sampled.page[3]
    assert "example 2 (query) and the most similar photo of flower" in sampled.page[3]
    sampled.do(sampled.events.show, "no such photo")
    assert "<article" not in sampled.page[3]
    assert (
        "In 95 of 100 cases, the right class is among these: <b>temple</b>"
        in (sampled.do(sampled.events.show, ids[0]).page[3])
    )


def test_a_click_corrects_and_another_undoes_it(sampled):
    ids = re.findall(r'data-show="(\w+)"', sampled.page[2])
    sampled.do(sampled.events.show, ids[3])
    actions = [one for one in sampled.actions(3) if one["do"] == "correct"]
    assert {one["class"] for one in actions} == {"temple", "flower", "portrait"}
    sampled.act(**next(one for one in actions if one["class"] == "flower"))
    assert "The photo was added to &#x27;flower&#x27;" in sampled.page[3]
    assert "flower <small>8 photos" in sampled.page[1]
    assert sampled.labels()[3] == "flower"
    assert "so its own answer is no test" in sampled.page[3]
    sampled.act(**actions[0], again="")  # as from a page that was not loaded anew: moves it
    assert "flower <small>7 photos" in sampled.page[1]
    sampled.act(do="undo")
    assert "flower <small>8 photos" in sampled.page[1]


def test_what_was_removed_comes_back(sampled):
    before = list(sampled.page)
    sampled.act(**{"do": "remove", "class": "temple"})
    assert "&#x27;temple&#x27; was removed." in sampled.page[0]
    assert sampled.labels()[0] != "temple"
    sampled.act(**next(one for one in sampled.actions(0)))
    assert sampled.page[1:] == before[1:]
    sampled.act(do="clear")
    assert sampled.labels() == []
    sampled.act(**next(one for one in sampled.actions(3)))
    assert sampled.labels() == ["temple", "flower", "portrait", "none of them"]
    photo = next(one for one in sampled.actions(1) if one["do"] == "remove photo")
    sampled.act(**photo)
    assert "temple <small>6 photos" in sampled.page[1]
    sampled.act(**photo)
    assert "not this photo" in sampled.page[0]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '"remove"', '{"do": 1}', '{"do": "remove photo", "photo": "²"}'])
def test_an_action_that_is_none_changes_nothing(sampled, text):
    visitor = sampled.visit.visitor
    sampled.do(sampled.events.act, text)
    assert sampled.visit.visitor is visitor


def test_photos_that_come_after_a_change_are_not_lost_when_it_is_undone(sampled):
    sampled.act(**{"do": "remove", "class": "temple"})
    sampled.do(sampled.events.ask, sampled.upload(sample_queries()[0], "later.jpg"))
    sampled.act(do="undo")
    assert sampled.labels() == ["temple", "flower", "portrait", "none of them", "temple"]


def test_a_file_that_is_no_photo_is_reported_among_the_answers(sampled):
    sampled.do(sampled.events.ask, [*sampled.upload(b"%PDF", "a.pdf"), *sampled.upload(sample_queries()[1], "b.jpg")])
    assert "a.pdf: not an image" in sampled.page[2]
    assert sampled.labels()[4:] == ["flower"]
    assert "b.jpg (query)" in sampled.page[3]


def test_too_many_photos_are_refused_and_the_others_stay(sampled, monkeypatch):
    monkeypatch.setattr("deepemd.apps.web.events.MAX_ASKED", 4)
    sampled.do(sampled.events.ask, sampled.upload(sample_queries()[1], "b.jpg"))
    assert "there is room for 0" in sampled.page[3]
    assert len(sampled.labels()) == 4
    assert sampled.visitors.room.used == 0


def test_opening_a_file_that_is_no_model_changes_nothing(sampled):
    visitor = sampled.visit.visitor
    sampled.do(sampled.events.open, sampled.upload(b"PK", "mine.zip"))
    assert "mine.zip: not a zip" in sampled.page[0]
    sampled.do(sampled.events.open, [])
    assert "Choose one zip" in sampled.page[0]
    assert sampled.visit.visitor is visitor
