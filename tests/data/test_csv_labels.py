"""An image folder beside a CSV of labels: joined by name, or named in one line."""

from pathlib import Path

import pytest

from lungseg.data.index import load_data_set, read_index
from lungseg.data.sample import Sample
from lungseg.errors import DataError


def write(root: Path, table: str | None, *files: str, name: str = "labels.csv") -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    if table is not None:
        (root / name).write_text(table)
    return root


def told(samples: list[Sample]) -> dict[str, tuple[str | None, str | None]]:
    return {sample.id: (sample.class_name, sample.group) for sample in samples}


@pytest.mark.parametrize(
    "table",
    [
        "filename,class,patient\na.png,TB,1\nb.png,healthy,2\n",
        "image_id;label;group\na;TB;1\nb;healthy;2\n",
        "Age,Path,Finding,Patient ID\n50,images/a.png,TB,1\n60,images/b.png,healthy,2\n",
    ],
)
def test_rows_are_joined_with_images_by_name(tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, table, "images/a.png", "images/b.png", "images/c.png", "masks/a.png")
    found = read_index(root)
    assert found.layout == "plain folders, labels from a CSV file" and found.classes == ("healthy", "TB")
    assert told(found.samples) == {
        "images/a.png": ("TB", "1"),
        "images/b.png": ("healthy", "2"),
        "images/c.png": (None, None),
    }
    assert [sample.lung is not None for sample in found.samples] == [True, False, False]
    assert "labels from labels.csv for 2 of 3 images; 0 of its rows name no image here" in caplog.text


def test_a_name_of_two_rows_says_nothing_of_an_image(tmp_path: Path) -> None:
    root = write(tmp_path, "file,label\nx/a.png,TB\ny/a.png,healthy\nb.png,TB\n", "images/a.png", "images/b.png")
    assert told(read_index(root).samples) == {"images/a.png": (None, None), "images/b.png": ("TB", None)}


def test_columns_of_findings_are_taken_where_several_may_be_there(tmp_path: Path) -> None:
    root = write(tmp_path, "image,age,Mass,Oedema\na,50,1,0\nb,61,,1\n", "images/a.png", "images/b.png")
    found = read_index(root, multi_label=True)
    assert found.classes == ("Mass", "Oedema")
    assert [sample.findings for sample in found.samples] == [(1, 0), (-1, 1)]


def test_what_is_not_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write(tmp_path, "name,age\na,5\n", "images/a.png")
    assert read_index(root).classes == ()
    assert "not read: labels.csv: looked for the columns image or filename" in caplog.text
    caplog.clear()
    write(root, "file,label\na,TB\n", name="more.csv")
    assert read_index(root).classes == () and "labels.csv, more.csv: there are several" in caplog.text
    caplog.clear()
    folders = write(tmp_path / "other", "file,label\na,TB\n", "TB/a.png", "well/b.png")
    assert read_index(folders).classes == ("TB", "well") and "the folders name the classes" in caplog.text


def test_a_number_is_the_same_label_with_and_without_a_decimal(tmp_path: Path) -> None:
    root = write(tmp_path, "image,label\na,1.0\nb,1\nc,0.0\n", "a.png", "b.png", "c.png")
    assert told(read_index(root).samples) == {"a.png": ("1", None), "b.png": ("1", None), "c.png": ("0", None)}


def test_rows_that_end_early_or_late_are_told(tmp_path: Path) -> None:
    root = write(tmp_path, "image,label,patient\na,TB,1,5\nb\n", "a.png", "b.png")
    found = read_index(root)
    assert told(found.samples) == {"a.png": ("TB", "1"), "b.png": (None, None)}
    assert found.problems == ["labels.csv: more fields than columns (quote a comma in a name): 1 on line 2 ('5')"]


def test_rows_that_name_nothing_here_are_a_fault(tmp_path: Path) -> None:
    root = write(tmp_path, "file,label\nx.png,TB\ny.png,TB\n", "images/a.png")
    with pytest.raises(DataError, match=r"row of a CSV file of labels that names no image here: 2 \('x.png', 'y.png'"):
        load_data_set(root)


def test_a_folder_of_published_labels_is_read_by_them_and_not_by_its_folders(tmp_path: Path) -> None:
    files = ("images_001/images/a.png", "images_002/images/b.png")
    table = "Image Index,Finding Labels,Patient ID\na.png,Mass|Oedema,1\nb.png,No Finding,2\n"
    root = write(tmp_path, table, *files, name="Data_Entry_2017.csv")
    found = read_index(root, multi_label=True)
    assert found.layout == "ChestX-ray14" and [s.findings for s in found.samples] == [(1, 1), (0, 0)]
    with pytest.raises(DataError, match=r"data.multi_label=true"):
        read_index(root)
    write(root, "Path,Sex,Mass\nx.png,Male,1\n", name="train.csv")
    with pytest.raises(DataError, match=r"several label files \(Data_Entry_2017.csv, train.csv\)"):
        read_index(root, multi_label=True)
