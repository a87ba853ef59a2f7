"""Names of classes that look alike, and characters that cannot be seen."""

import unicodedata

import pytest

from deepemd.data.class_names import name_warnings, visible

CAFE = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        CAFE,
        ("rose", "Rose"),
        ("rose", "rose "),
        ("rose", " rose"),
        ("red rose", "red  rose"),
        ("red rose", "red\u00a0rose"),
        ("red rose", "red\u3000rose"),
        ("rose", "ro\u200bse"),
        ("rose", "rose\u200f"),
        ("rose", "\ufeffrose"),
        ("rose", "ro\u00adse"),
        ("rose", "r\u200cose"),
        ("heart ❤", "heart ❤\ufe0f"),
        ("STRASSE", "straße"),
        ("ﬁg", "fig"),
        ("Ａ", "A"),
        ("rose", "rоse"),  # the second has a Cyrillic o
        ("日本", "日本 "),
    ],
)
def test_names_that_look_alike_are_shown_apart(one, other):
    (warning,) = name_warnings([one, other, "tulip"])
    assert "are different, but look alike: rename one, or put their photos into one folder" in warning
    first, second = warning.removeprefix("the classes ").split(" are different")[0].split("' and '")
    assert unicodedata.normalize("NFC", first.strip("'")) != unicodedata.normalize("NFC", second.strip("'"))
    if one.casefold() != other.casefold():
        assert not {*"\u200b\u200f\ufeff\u00ad\u200c\u00a0\ufe0f\u0301"} & set(warning)


def test_three_that_look_alike_are_one_warning():
    assert len(name_warnings(["rose", "Rose", "ROSE", "tulip"])) == 1


@pytest.mark.parametrize("name", ["rose\u200b", "\u202erose", "rose ", "\u00adrose", "rose\ufeff"])
def test_characters_that_cannot_be_seen_are_reported_alone(name):
    (warning,) = name_warnings([name, "tulip"])
    assert f"the name of the class '{visible(name)}' holds characters that cannot be seen" in warning


def test_ordinary_names_of_all_languages_pass():
    names = [
        "rose",
        "red rose",
        "redrose",
        "red_rose",
        CAFE[0],
        "日本",
        "हिन्दी",
        "می\u200cخواهم",
        "👨\u200d👩\u200d👧",
        "❤\ufe0f",
        "пион",
        "O",
        "0",
    ]
    assert name_warnings(names) == []
