"""Tables as text: readable in a log of 80 columns, with whole names."""

import pytest

from deepemd.apps.reports.tables import TextTable

LONG = "photos/of/a/holiday/in/a/folder/with/a/long/name/IMG_20260911_121212.jpg"


def test_a_log_has_no_lines_around_cells_and_numbers_end_below_each_other():
    rows = [["goose", "1,200", "+5.30 ± 0.96"], ["hound", "7", "-0.35 ± 0.73"]]
    assert TextTable("Each class", ["class", "photos", "gain"], rows).plain().splitlines() == [
        "Each class",
        "class  photos          gain",
        "---------------------------",
        "goose   1,200  +5.30 ± 0.96",
        "hound       7  -0.35 ± 0.73",
    ]


def test_names_stay_whole_and_what_follows_a_long_one_is_on_the_next_line():
    rows = [["a.jpg", "goose", "0.912", "hound"], [LONG, "goose", "0.912", "hound"]]
    lines = TextTable("2 photos", ["image", "label", "probability", "runner-up"], rows).plain().splitlines()
    assert max(map(len, lines)) <= 80
    place = lines[1].index("label")
    assert lines[3].index("goose") == place
    assert lines[4] == LONG
    assert lines[5].index("goose") == place
    assert lines[5].split() == ["goose", "0.912", "hound"]
    assert len(lines) == 6


@pytest.mark.parametrize(("name", "cells"), [("鶏の写真.jpg", 12), ("e\u0301te\u0301.jpg", 7)])
def test_columns_are_counted_as_a_terminal_shows_them(name, cells):
    head, rule, row = TextTable("photos", ["image", "label"], [[name, "x"]]).plain().splitlines()[1:]
    assert row == f"{name}  x"
    assert head.index("label") == cells + 2
    assert len(rule) == cells + 2 + 5


def test_names_cannot_act_on_a_terminal_and_an_empty_table_has_its_head():
    assert "\x1b" not in TextTable("\x1b[2J", ["\x1b[2J"], [["\x1b[2J"]]).plain()
    assert TextTable("nothing", ["a", "b"], []).plain().splitlines() == ["nothing", "a  b", "----"]


def test_a_table_is_plain_where_there_is_no_terminal(monkeypatch):
    table = TextTable("2 photos", ["image", "label"], [[LONG, "goose"], ["[b]a[/b]", "x"]])
    assert str(table.rich()) == table.plain() + "\n"
    monkeypatch.setenv("COLUMNS", "200")
    assert str(table.rich()) == table.plain(200) + "\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert not isinstance(table.rich(), str)
    assert [column.header.plain for column in table.rich().columns] == ["image", "label"]
