"""Several findings an image: from manifests and published label files to 1, 0 and unknown."""

from pathlib import Path

import pytest

from lungseg.data.datamodule import LungDataModule
from lungseg.data.index import fingerprint, load_data_set
from lungseg.data.sample import spread_over_classes
from lungseg.errors import DataError, UserError


def write(folder: Path, text: str, *images: str) -> Path:
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(b"")
    (folder / "set.csv").write_text(text)
    return folder / "set.csv"


def found(path: Path, **how: object) -> tuple[tuple[str, ...], dict[str, tuple[int, ...] | None]]:
    reading = load_data_set(path, multi_label=True, **how)  # type: ignore[arg-type]
    assert all(sample.label is None for sample in reading.samples)
    return reading.classes, {sample.id: sample.findings for sample in reading.samples}


SPLITS = ("a.png", "b.png", "c.png", "d.png")


def test_names_between_bars_are_there_and_the_others_are_not(tmp_path: Path) -> None:
    text = "image,label,split\na.png,Oedema|Mass,train\nb.png,mass,train\nc.png,no finding,val\nd.png,,val\n"
    classes, marks = found(write(tmp_path, text, *SPLITS))
    assert classes == ("Mass", "Oedema")
    assert marks == {"a.png": (1, 1), "b.png": (1, 0), "c.png": (0, 0), "d.png": (-1, -1)}


def test_a_column_a_finding_with_blank_and_minus_one_unknown(tmp_path: Path) -> None:
    text = "image,Mass,Oedema,split\na.png,1.0,0.0,train\nb.png,,-1.0,train\nc.png,0,1,train\nd.png,1,1,val\n"
    classes, marks = found(write(tmp_path, text, *SPLITS))
    assert classes == ("Mass", "Oedema")
    assert marks == {"a.png": (1, 0), "b.png": (-1, -1), "c.png": (0, 1), "d.png": (1, 1)}


def test_findings_are_joined_dropped_and_ordered_by_the_config(tmp_path: Path) -> None:
    text = "image,Mass,Nodule,Cable,Oedema,split\na.png,0,1,1,0,train\nb.png,0,,0,1,train\nc.png,0,0,1,0,train\n"
    how = {"label_map": {"mass": "Lesion", "Nodule": "lesion", "Cable": ""}, "classes": ["Oedema", "Lesion"]}
    classes, marks = found(write(tmp_path, text, *SPLITS[:3]), **how)
    assert classes == ("Oedema", "Lesion")
    assert marks == {"a.png": (0, 1), "b.png": (1, -1), "c.png": (0, 0)}


def test_a_healthy_class_may_be_mapped_to_no_finding(tmp_path: Path) -> None:
    for name in ("Normal/a.png", "TB/b.png"):
        write(tmp_path, "", f"train/{name}")
    (tmp_path / "set.csv").unlink()
    assert found(tmp_path, label_map={"normal": ""})[1] == {"train/Normal/a.png": (0,), "train/TB/b.png": (1,)}


def test_labels_of_chestxray14_are_read_as_published(tmp_path: Path) -> None:
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,OriginalImage[Width,Height]\n"
    rows = [
        f"0000{n}_000.png,{label},0,{n},58,2682,2749"
        for n, label in enumerate(["Emphysema", "Cardiomegaly", "No Finding"] * 20)
    ]
    rows.append("00001_001.png,Cardiomegaly|Emphysema,1,1,58,2682,2749")
    files = [f"images_00{1 + n % 2}/images/{row.partition(',')[0]}" for n, row in enumerate(rows)]
    path = write(tmp_path, header + "\n".join(rows), *files)
    reading = load_data_set(path, multi_label=True, seed=1)
    assert reading.layout == "ChestX-ray14" and reading.classes == ("Cardiomegaly", "Emphysema")
    marks = {sample.image.name: (sample.findings, sample.group) for sample in reading.samples}
    assert marks["00001_001.png"] == ((1, 1), "1") and marks["00001_000.png"] == ((1, 0), "1")
    split = {sample.image.name: sample.split for sample in reading.samples}
    assert split["00001_001.png"] == split["00001_000.png"]  # one patient


def test_labels_of_chexpert_are_read_as_published(tmp_path: Path) -> None:
    folder = tmp_path / "CheXpert-v1.0-small"
    folder.mkdir()
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Support Devices\n"
    names = [f"train/patient0000{n}/study1/view1_frontal.jpg" for n in range(3)]
    rows = [
        f"CheXpert-v1.0-small/{name},Male,60,Frontal,AP,{end}"
        for name, end in zip(names, ["1.0,,", ",1.0,", ",-1.0,0.0"], strict=True)
    ]
    rows.append("CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg,Male,60,Lateral,,,1.0,")
    path = write(folder, header + "\n".join(rows), *names)
    reading = load_data_set(path, multi_label=True, seed=3)
    assert reading.classes == ("Edema", "Support Devices")
    marks = {sample.group: sample.findings for sample in reading.samples}
    assert marks == {"patient00000": (0, -1), "patient00001": (1, -1), "patient00002": (-1, 0)}


@pytest.mark.parametrize(
    ("text", "multi_label", "message"),
    [
        ("image,Mass\na.png,1\n", False, "a column a finding needs data.multi_label=true"),
        ("Image Index,Finding Labels\na.png,Mass\n", False, "labels of ChestX-ray14.*data.multi_label=true"),
        ("Path,Sex,Mass\na.png,Male,1\n", False, "labels of CheXpert.*data.multi_label=true"),
        ("image,Mass,split\na.png,2,train\n", True, "Mass other than 1, 0, -1 or nothing: 1 on line 2"),
        ("image,label,Mass,split\na.png,b,1,train\n", True, "or else `label` with"),
        ("image,label,split\na.png,Mass,train\nb.png,No Finding,val\n", True, None),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str, multi_label: bool, message: str | None) -> None:
    path = write(tmp_path, text, "a.png", "b.png")
    if message is None:
        assert load_data_set(path, multi_label=multi_label).classes == ("Mass",)
        return
    with pytest.raises(DataError, match=message):
        load_data_set(path, multi_label=multi_label)


def test_a_finding_that_is_no_class_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "image,label,split\na.png,Mass|Oedema,train\nb.png,Mass,val\n", "a.png", "b.png")
    with pytest.raises(DataError, match=r"names no class: 1 .*Oedema"):
        load_data_set(path, multi_label=True, classes=["Mass"])
    with pytest.raises(UserError, match="'Oedema' must map to one of Mass"):
        load_data_set(path, multi_label=True, classes=["Mass"], label_map={"Oedema": "Lesion"})


def test_findings_decide_fingerprint_stratum_and_weights(tmp_path: Path) -> None:
    text = "image,label,split\na.png,A|B,train\nb.png,No Finding,train\nc.png,No Finding,train\nd.png,B,train\n"
    path = write(tmp_path, text, *SPLITS)
    samples = load_data_set(path, multi_label=True).samples
    assert [sample.stratum for sample in samples] == [0, None, None, 1]
    assert spread_over_classes(samples, 3) == [0, 3, 1]
    data = LungDataModule(root=str(path), multi_label=True, cache=False)
    data.find_samples()
    assert data.balanced_class_weights() == [3.0, 1.0]
    path.write_text(text.replace("d.png,B", "d.png,A"))
    assert fingerprint(load_data_set(path, multi_label=True).samples) != fingerprint(samples)
