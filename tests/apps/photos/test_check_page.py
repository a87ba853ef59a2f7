"""The page of a check: the confusion matrix of few and of many classes, whatever their names.

Tests deepemd.apps.photos.check_page, deepemd.apps.reports.page.
"""

import re

import numpy as np
import pytest

from deepemd.apps.photos import check_page
from deepemd.apps.photos.check import Check
from deepemd.apps.reports.page import name, standalone

USED = {
    "classes": {"a": 3}, "familiar_from": None, "model": {"backbone": {"name": "resnet12"}, "regions": {}},
    "compared_by": "none", "temperature": 1.0, "model_sha256": "0", "versions": {},
}  # fmt: skip
NAMES = ("<script>alert(1)</script>", "x" * 200, "تفاح أحمر", "👩‍🌾 apple", "a&b\n=c")


def _page(classes, mistakes):
    """Return the page for so many classes of ten photos, some of which were taken for another class."""
    names = [*NAMES, *(f"class {k:03d}" for k in range(classes))][:classes]
    confusion = 10 * np.eye(classes, dtype=np.int64)
    for i, j, count in mistakes:
        confusion[i, j] += count
        confusion[i, i] -= count
    check = Check(names, confusion, [], [], [])
    return "".join(standalone("Check", check_page._body(None, check, [], USED, 10)))


def _headings(page):
    (matrix,) = re.findall(r'<table class="matrix">.*?</table>', page)
    return re.findall(r'<th scope="col"><bdi title="(.*?)">', matrix), re.findall(r'<th scope="row">', matrix)


@pytest.mark.parametrize("classes", [5, 20, 30])
def test_a_matrix_of_few_classes_is_whole(classes):
    page = _page(classes, [(0, 1, 3), (2, 4, 1)])
    columns, rows = _headings(page)
    assert len(columns) == len(rows) == classes
    assert "are shown" not in page


@pytest.mark.parametrize("classes", [31, 100])
def test_a_matrix_of_many_classes_shows_those_that_are_confused(classes):
    page = _page(classes, [(7, 9, 2), (28, 7, 1)])
    columns, rows = _headings(page)
    assert columns == ["class 002", "class 004", "class 023"]
    assert len(rows) == 3
    assert f"The 3 classes that are confused most are shown; the JSON of --out holds all {classes}." in page


def test_a_hundred_classes_that_are_all_confused_fit_a_page():
    page = _page(100, [(k, (k + 1) % 100, 1 + k % 5) for k in range(100)])
    assert [len(part) for part in _headings(page)] == [30, 30]
    assert "and 90 more pairs" in page
    pairs = re.findall(r"<li>.* photos</li>", page.replace("</li>", "</li>\n"))
    assert len(pairs) == 10
    assert pairs[0].endswith(": 5 of 10 photos</li>")  # the most confused first


def test_without_a_mistake_there_is_no_matrix():
    page = _page(40, [])
    assert "No photo was given the label of another class." in page
    assert '<table class="matrix">' not in page


def test_names_are_escaped_set_apart_and_cut():
    page = _page(5, [(k, (k + 1) % 5, 1) for k in range(5)])
    assert "<script>alert" not in page
    assert f'<bdi title="{"x" * 200}">xxxxxxx…xxxxxxxx</bdi>' in page
    assert page.count('<bdi title="تفاح أحمر">تفاح أحمر</bdi>') >= 5
    assert 'name="viewport" content="width=device-width' in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


@pytest.mark.parametrize("most", range(3, 9))
def test_a_cut_name_leaves_no_half_of_an_emoji(most):
    shown = re.sub(r"<bdi title=\".*?\">|</bdi>", "", name("👩\u200d🌾👋\U0001f3fd" * 3, most))
    head, tail = shown.split("…")
    assert not head.endswith("\u200d")
    assert not tail.startswith(("\u200d", "\U0001f3fd"))
    assert len(shown) <= most
