"""Which rows of a table count as corrections, and what becomes of them."""

import json
from pathlib import Path

import pytest
import torch
from pictures import encoded, photo

from deepemd import FCN, DeepEMD, InputError, conv4
from deepemd.apps.photos.corrections import Corrections, learn_corrections, read_corrections
from deepemd.apps.photos.predictions import sheet_label, sheet_path
from deepemd.classifier.classifier import PhotoClassifier
from deepemd.data.sources import Columns, PhotoSources

HEAD = "image,label,probability,runner_up,correct_label"
CLASSES = ["a", "b"]


@pytest.fixture
def folder(tmp_path) -> Path:
    for k in range(6):
        (tmp_path / f"{k}.jpg").write_bytes(encoded(photo(40, 30)))
    return tmp_path


def write(folder: Path, *rows: str, head: str = HEAD, name: str = "predictions.csv") -> Path:
    (folder / name).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8-sig")
    return folder / name


def predicted(folder: Path, **labels: str) -> None:
    rows = [{"image": f"{name.strip('_')}.jpg", "label": label} for name, label in labels.items()]
    (folder / "predictions.json").write_text(json.dumps({"predictions": rows}))


def read(path: Path, columns: Columns | None = None, classes: list[object] = CLASSES) -> Corrections:
    with PhotoSources.opened(columns or Columns()) as sources:
        return read_corrections(path, sources, classes)


def pairs(found: Corrections) -> list[tuple[str, str]]:
    return [(Path(row.photo).name, row.label) for row in found.rows]


def test_only_filled_in_rows_count(folder):
    path = write(folder, "0.jpg,a,0.9,b,", "1.jpg,a,0.6,b,b", "2.jpg,a,0.9,b,a", "3.jpg,b,0.9,a,new class")
    assert pairs(read(path)) == [("1.jpg", "b"), ("2.jpg", "a"), ("3.jpg", "new class")]


def test_an_edited_label_counts_if_the_json_shows_what_it_was(folder):
    path = write(folder, "0.jpg,b,0.9,b,", "1.jpg,a,0.6,b,", "2.jpg,b,0.9,a,a", "5.jpg,b,0.9,a,")
    with pytest.raises(InputError, match="no row is corrected"):
        read(write(folder, "0.jpg,a,0.9,b,", "1.jpg,b,0.6,b,", name="other.csv"))
    predicted(folder, _0="a", _1="a", _2="a")
    found = read(path)
    assert pairs(found) == [("0.jpg", "b"), ("2.jpg", "a")]  # 5.jpg is not in the JSON
    assert found.notes == []


def test_what_a_spreadsheet_makes_of_a_label_is_not_learned(folder):
    predicted(folder, _0="MAR1", _1="007", _2="a")
    path = write(folder, "0.jpg,1-Mar,0.9,b,", "1.jpg,7,0.6,b,", "2.jpg,b,0.9,a,")
    found = read(path, classes=["a", "b", "MAR1", "007"])
    assert pairs(found) == [("2.jpg", "b")]
    assert found.notes[0].title.startswith("2 labels were changed to what is no class, and not learned")
    assert found.notes[0].lines == ["line 2: 1-Mar", "line 3: 7"]


def test_names_that_the_sheet_writes_in_another_way(folder):
    (folder / "a\nb.jpg").write_bytes((folder / "0.jpg").read_bytes())
    cells = [sheet_path("a\nb.jpg"), sheet_label("=x")]
    path = write(folder, f"{cells[0]},{cells[1]},0.9,b,", f"1.jpg,{cells[1]},0.9,b,'=x")
    rows = [{"image": "a\nb.jpg", "label": "a"}, {"image": "1.jpg", "label": "=x"}]
    (folder / "predictions.json").write_text(json.dumps({"predictions": rows}))
    found = read(path, classes=["a", "=x"])
    assert pairs(found) == [("a\nb.jpg", "=x"), ("1.jpg", "=x")]


def test_label_next_is_learned_where_it_is_filled_in(folder):
    head = "image,label,suggested_label,probability"
    path = write(folder, "0.jpg,,a,0.5", "1.jpg,b,a,0.5", head=head, name="label_next.csv")
    assert pairs(read(path)) == [("1.jpg", "b")]


def test_another_table_needs_the_name_of_its_column(folder):
    path = write(folder, "0.jpg,a", "1.jpg,b", head="photo,species", name="labels.csv")
    with pytest.raises(InputError, match=r"has no column correct_label: .* such as --label_column species"):
        read(path)
    assert pairs(read(path, Columns(label="species"))) == [("0.jpg", "a"), ("1.jpg", "b")]


def test_without_corrections_it_says_so(folder):
    with pytest.raises(InputError, match="no row is corrected: write the right label of a photo into its column corr"):
        read(write(folder, "0.jpg,a,0.9,b,", "1.jpg,a,0.6,b,"))


def test_a_label_that_looks_like_a_class_is_refused(folder):
    with pytest.raises(InputError, match=r"line 2: the label 'A' looks like the class 'a' and is another: write it"):
        read(write(folder, "0.jpg,b,0.9,b,A"))


def test_absent_photos_and_two_labels_of_one(folder):
    found = read(write(folder, "0.jpg,a,0.9,b,b", "gone.jpg,a,0.9,b,b"))
    assert "line 3: gone.jpg: there is no such file" in str(found.missing[0])
    with pytest.raises(InputError, match="'b' in line 2, 'a' in line 3"):
        read(write(folder, "0.jpg,a,0.9,b,b", "0.jpg,a,0.9,b,a"))


def test_a_damaged_json_is_named(folder):
    (folder / "predictions.json").write_text("{")
    with pytest.raises(InputError, match=r"predictions\.json: damaged, .*: move it away to learn from"):
        read(write(folder, "0.jpg,a,0.9,b,b"))


@pytest.fixture
def classifier(folder) -> PhotoClassifier:
    """Photos 0 and 1 are of class a, 2 and 3 of class b."""
    torch.manual_seed(0)
    encoder = DeepEMD(conv4(channels=8, pools=2), FCN(), image_size=16, resize=16).eval()
    made = PhotoClassifier(encoder, cache=False)
    return made.fit([folder / f"{k}.jpg" for k in range(4)], ["a", "a", "b", "b"])


def held(classifier: PhotoClassifier) -> dict[str, list[str]]:
    classes, labels = classifier.classes_.tolist(), classifier.support_.labels.tolist()
    found: dict[str, list[str]] = {str(label): [] for label in classes}
    for example, label in zip(classifier.support_.examples, labels, strict=True):
        found[str(classes[label])].append(Path(example.name).name)
    return found


def test_photos_are_added_moved_and_left(folder, classifier):
    (folder / "copy.jpg").write_bytes((folder / "1.jpg").read_bytes())  # of a photo of class a
    rows = ["4.jpg,x,0,y,b", "copy.jpg,x,0,y,b", "2.jpg,x,0,y,b", "5.jpg,x,0,y,new"]
    learned = learn_corrections(classifier, read(write(folder, *rows)))
    assert held(classifier) == {"a": ["0.jpg"], "b": ["2.jpg", "3.jpg", "4.jpg", "copy.jpg"], "new": ["5.jpg"]}
    assert (learned.added, learned.moved, learned.known, learned.new, learned.gone) == (2, 1, 1, ["new"], [])
    assert classifier.support_.count.tolist() == [1, 4, 1]
    again = learn_corrections(classifier, read(folder / "predictions.csv", classes=["a", "b", "new"]))
    assert (again.added, again.moved, again.known, again.changed) == (0, 0, 4, False)
    assert classifier.support_.count.tolist() == [1, 4, 1]


def test_a_class_whose_last_photo_moves_is_removed(folder, classifier):
    learned = learn_corrections(classifier, read(write(folder, "0.jpg,x,0,y,b", "1.jpg,x,0,y,c")))
    assert {label: sorted(names) for label, names in held(classifier).items()} == {
        "b": ["0.jpg", "2.jpg", "3.jpg"], "c": ["1.jpg"],
    }  # fmt: skip
    assert (learned.moved, learned.new, learned.gone) == (2, ["c"], ["a"])
    assert "without a photo left, removed: a" in learned.sentence(classifier)


def test_one_photo_under_two_names_and_labels_names_both_lines(folder, classifier):
    (folder / "copy.jpg").write_bytes((folder / "4.jpg").read_bytes())
    with pytest.raises(InputError, match="lines 2 and 3 name the same photo, as 'a' and 'b': remove one"):
        learn_corrections(classifier, read(write(folder, "4.jpg,x,0,y,a", "copy.jpg,x,0,y,b")))
    learned = learn_corrections(classifier, read(write(folder, "4.jpg,x,0,y,a", "copy.jpg,x,0,y,a")))
    assert (learned.added, learned.known) == (1, 1)


def test_a_photo_that_cannot_be_read_is_listed(folder, classifier):
    (folder / "bad.jpg").write_text("milk")
    learned = learn_corrections(classifier, read(write(folder, "bad.jpg,x,0,y,a", "4.jpg,x,0,y,a", "no.jpg,x,0,y,a")))
    assert (learned.added, len(learned.bad)) == (1, 2)


def test_labels_that_are_numbers(folder, classifier):
    numbers = PhotoClassifier(classifier.model_, cache=False)
    numbers.fit([folder / f"{k}.jpg" for k in range(4)], [1, 1, 2, 2])
    learned = learn_corrections(numbers, read(write(folder, "4.jpg,x,0,y,2", "5.jpg,x,0,y,3"), classes=[1, 2]))
    assert (numbers.classes_.tolist(), learned.new) == ([1, 2, 3], ["3"])
    with pytest.raises(InputError, match="the label 'rose' is no number"):
        learn_corrections(numbers, read(write(folder, "0.jpg,x,0,y,rose"), classes=[1, 2]))
