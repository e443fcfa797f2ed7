"""Layouts of other data sets, each as it is published, and the CSV manifest with all its faults."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize

import pytest

from lungseg.data.covidqu import CLASSES
from lungseg.data.folders import lung_files
from lungseg.data.index import fingerprint, load_data_set, load_index, read_index
from lungseg.data.sample import Sample
from lungseg.errors import DataError


def write(root: Path, *names: str) -> None:
    """The index opens no image, so any bytes do."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def told(samples: list[Sample]) -> list[tuple[str, int | None, str | None]]:
    """Id, label and name of the lung mask of each sample."""
    return [(s.id, s.label, s.lung.name if s.lung else None) for s in samples]


# COVID-19 Radiography Database


@pytest.mark.parametrize("above", ["", "COVID-19_Radiography_Dataset/"])
def test_radiography_folders_are_four_classes_or_the_three_of_covidqu(
    tmp_path: Path, above: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name, stem in (("COVID", "COVID"), ("Normal", "Normal"), ("Lung_Opacity", "Lung_Opacity")):
        write(tmp_path, f"{above}{name}/images/{stem}-1.png", f"{above}{name}/masks/{stem}-1.png")
    write(tmp_path, *(f"{above}Viral Pneumonia/{p}/Viral Pneumonia-1.png" for p in ("images", "masks")))
    write(tmp_path, f"{above}COVID.metadata.xlsx", f"{above}README.md.txt")
    own = read_index(tmp_path)
    assert own.classes == ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
    assert [sample.label for sample in own.samples] == [0, 1, 2, 3]
    caplog.clear()
    samples = load_index(tmp_path, classes=CLASSES)
    assert told(samples) == [
        (f"{above}COVID/images/COVID-1.png", 0, "COVID-1.png"),
        (f"{above}Lung_Opacity/images/Lung_Opacity-1.png", 1, "Lung_Opacity-1.png"),
        (f"{above}Normal/images/Normal-1.png", 2, "Normal-1.png"),
        (f"{above}Viral Pneumonia/images/Viral Pneumonia-1.png", 1, "Viral Pneumonia-1.png"),
    ]
    assert "COVID-19 Radiography Database without splits, divided by hash with seed 0" in caplog.text
    assert all(sample.fit_masks for sample in samples)


def test_radiography_classes_yield_to_the_label_map(tmp_path: Path) -> None:
    for number in range(20):
        write(tmp_path, *(f"Lung_Opacity/{part}/{number}.png" for part in ("images", "masks")))
    assert {s.label for s in read_index(tmp_path, {"lung_opacity": "Normal"}, CLASSES).samples} == {2}


def test_radiography_image_without_its_mask_is_kept_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, *(f"COVID/{p}/COVID-{n}.png" for p in ("images", "masks") for n in range(20)))
    (tmp_path / "COVID/masks/COVID-3.png").unlink()
    samples = load_index(tmp_path)
    assert [s.id for s in samples if s.lung is None] == ["COVID/images/COVID-3.png"]
    assert "image without a lung mask, used without: 1 ('COVID/images/COVID-3.png'" in caplog.text


# Plain folders


def test_shenzhen_masks_are_found_by_their_ending(tmp_path: Path) -> None:
    write(tmp_path, *(f"CXR_png/CHNCXR_{n:04d}_0.png" for n in range(20)))
    write(tmp_path, *(f"mask/CHNCXR_{n:04d}_0_mask.png" for n in range(15)), "ClinicalReadings/CHNCXR_0001_0.txt")
    samples = load_index(tmp_path)
    assert told(samples)[14:16] == [
        ("CXR_png/CHNCXR_0014_0.png", None, "CHNCXR_0014_0_mask.png"),
        ("CXR_png/CHNCXR_0015_0.png", None, None),
    ]


def montgomery(root: Path, count: int = 20) -> Path:
    for number in range(count):
        name = f"MCUCXR_{number:04d}_0.png"
        write(root, f"CXR_png/{name}", f"ManualMask/leftMask/{name}", f"ManualMask/rightMask/{name}")
    return root


def test_montgomery_sample_names_the_left_mask_and_lung_files_gives_both(tmp_path: Path) -> None:
    samples = load_index(montgomery(tmp_path))
    assert len(samples) == 20 and samples[0].lung == tmp_path / "ManualMask/leftMask/MCUCXR_0000_0.png"
    sides = (samples[0].lung, tmp_path / "ManualMask/rightMask/MCUCXR_0000_0.png")
    assert tuple(lung_files(samples[0].lung)) == sides
    before = fingerprint(samples)
    sides[1].write_bytes(b"longer than it was, by far, far, far")
    assert fingerprint(samples) != before


def test_lung_files_of_an_ordinary_mask_is_the_mask(tmp_path: Path) -> None:
    assert tuple(lung_files(tmp_path / "lung masks/left.png")) == (tmp_path / "lung masks/left.png",)


def test_montgomery_mask_of_one_side_only_is_refused(tmp_path: Path) -> None:
    montgomery(tmp_path)
    (tmp_path / "ManualMask/rightMask/MCUCXR_0003_0.png").unlink()
    with pytest.raises(DataError, match=r"one side without the other: 1 \('ManualMask/leftMask/MCUCXR_0003_0\.png'"):
        load_index(tmp_path)


def test_jsrt_style_pairs_images_and_masks_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path, *(f"{part}/JPCLN{n:03d}.png" for part in ("images", "masks") for n in range(20)))
    assert told(load_index(tmp_path))[7] == ("images/JPCLN007.png", None, "JPCLN007.png")


def test_images_right_in_the_root_have_no_targets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{n:02d}.dcm" for n in range(20)), "notes.txt")
    samples = load_index(tmp_path)
    assert told(samples) == [(f"{n:02d}.dcm", None, None) for n in range(20)]
    (warning,) = [r.getMessage() for r in caplog.records]
    assert warning.endswith("0 of 20 have a lung mask, 0 a class")


def test_class_folders_give_labels_with_or_without_masks(tmp_path: Path) -> None:
    write(tmp_path, *(f"normal/{n}.jpg" for n in range(20)))
    write(
        tmp_path,
        *(f"COVID-19/{part}/{n}.png" for part in ("images", "lung masks", "infection masks") for n in range(20)),
    )
    samples = load_index(tmp_path)
    assert {(s.label, s.lung is None, s.infection is None) for s in samples} == {(1, True, True), (0, False, False)}
    assert len(samples) == 40


def test_class_folders_below_split_folders_keep_their_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "train/NORMAL/a.jpeg", "train/PNEUMONIA/b.jpeg", "test/NORMAL/a.jpeg", "val/NORMAL/c.jpeg")
    found = load_data_set(tmp_path, label_map={"Pneumonia": "Non-COVID"})
    assert found.classes == ("NORMAL", "Non-COVID")
    assert [(s.id, s.label, s.split) for s in found.samples] == [
        ("test/NORMAL/a.jpeg", 0, "test"),
        ("train/NORMAL/a.jpeg", 0, "train"),
        ("train/PNEUMONIA/b.jpeg", 1, "train"),
        ("val/NORMAL/c.jpeg", 0, "val"),
    ]
    assert not caplog.records


def test_class_folders_are_the_classes_unless_others_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{n}.png" for name in ("Normal", "Tuberculosis", "Oedema/images") for n in range(20)))
    write(tmp_path, "docs/readme.txt")
    found = load_data_set(tmp_path)
    assert found.classes == ("Normal", "Oedema", "Tuberculosis")
    assert {(s.class_name, s.label) for s in found.samples} == {("Normal", 0), ("Oedema", 1), ("Tuberculosis", 2)}
    with pytest.raises(DataError, match=r"names no class: 2 \('Oedema', 'Tuberculosis'; .*label_map") as error:
        load_index(tmp_path, classes=["Normal", "Sick"])
    assert "\n" not in str(error.value) and "docs" not in str(error.value)
    how = {"classes": ["sick", "normal"], "label_map": {"oedema": "Sick", "Tuberculosis": ""}}
    two = load_data_set(tmp_path, **how)
    assert (len(two.samples), two.classes) == (40, ("sick", "normal"))
    assert {(s.class_name, s.label) for s in two.samples} == {("normal", 1), ("sick", 0)}


def test_names_that_differ_in_case_alone_are_one_class(tmp_path: Path) -> None:
    write(tmp_path, "train/TB/a.png", "train/ok/b.png", "val/tb/a.png", "val/OK/b.png")
    found = load_data_set(tmp_path)
    assert found.classes == ("OK", "TB")
    assert [sample.label for sample in found.samples] == [1, 0, 0, 1]


def test_fifty_classes_are_sorted_and_numbers_as_numbers(tmp_path: Path) -> None:
    write(tmp_path, *(f"train/{number}/a.png" for number in range(50)))
    assert load_data_set(tmp_path).classes == tuple(map(str, range(50)))


def test_a_class_that_is_asked_for_must_be_in_train(tmp_path: Path) -> None:
    write(tmp_path, "train/TB/a.png", "train/ok/b.png", "val/sick/c.png")
    with pytest.raises(DataError, match=r"class without an image in Train: 1 \('sick'"):
        load_index(tmp_path, classes=["TB", "ok", "sick"])
    write(tmp_path / "divided", *(f"{name}/{n}.png" for name in ("TB", "ok") for n in range(20)))
    with pytest.raises(DataError, match=r"class without an image in Train: 1 \('sick'; .*, and of data\.classes\)"):
        load_index(tmp_path / "divided", classes=["TB", "ok", "sick"])


def test_names_are_one_class_however_their_accents_are_written_and_can_be_shown(tmp_path: Path) -> None:
    names = ("Lungenentzündung", normalize("NFD", "Lungenentzündung"), "結核", "a/b", "<b>x</b>", "a,b", "=1", "&|")
    rows = [f'{n}.png,"{name}",train' for n, name in enumerate(names)]
    write(tmp_path, *(f"{n}.png" for n in range(len(names) + 1)))
    (tmp_path / "m.csv").write_text("\n".join(["image,label,split", *rows]), encoding="utf-8")
    found = load_data_set(tmp_path / "m.csv")
    assert set(found.classes) == {*names[:1], *names[2:]} and found.samples[0].label == found.samples[1].label
    (tmp_path / "m.csv").write_text("\n".join(["image,label,split", *rows, '8.png,"a\nb",train']), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"class whose name holds what cannot be shown: 1 \('a\\nb'; rename it"
    ) as error:
        load_index(tmp_path / "m.csv")
    assert "\n" not in str(error.value)


def test_images_beside_split_folders_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "train/Normal/a.png", "extra/b.png")
    with pytest.raises(DataError, match=r"folder of images beside the split folders: 1 \('extra'"):
        load_index(tmp_path)


def test_masks_of_which_none_fits_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, "images/a.png", "masks/lung-a.png")
    with pytest.raises(DataError, match=r"without a mask named as an image: 1 \('masks'; name masks as their images"):
        load_index(tmp_path)


@pytest.mark.parametrize("mark", ["{}_mask", "{}-mask", "mask_{}", "{} seg", "seg-{}", "{}_segmentation"])
def test_masks_among_the_images_are_their_masks(tmp_path: Path, mark: str) -> None:
    write(tmp_path, *(f"sick/{name}.png" for n in range(4) for name in (f"a{n}", mark.format(f"A{n}"))), "well/b.png")
    found = read_index(tmp_path)
    assert found.layout == "plain folders, lung masks among the images" and not found.problems
    masks = [(f"sick/a{n}.png", 0, f"{mark.format(f'A{n}')}.png") for n in range(4)]
    assert told(found.samples) == [*masks, ("well/b.png", 1, None)]
    write(tmp_path, "sick/masks/a0.png")
    with pytest.raises(DataError, match=r"masks among the images, by their names: 4 \('sick/"):
        load_index(tmp_path)


@pytest.mark.parametrize("folder", ["masks", "mask", "lung masks", "Labels"])
def test_a_folder_of_masks_may_bear_the_usual_names(tmp_path: Path, folder: str) -> None:
    write(tmp_path, *(f"{part}/{n}.png" for n in range(20) for part in ("images", folder)))
    assert all(s.lung == tmp_path / folder / s.image.name for s in load_index(tmp_path))


@pytest.mark.parametrize(
    ("left", "right"),
    [("left", "right"), ("masks/left", "masks/right"), ("Left Mask", "Right Mask"), ("left_lung", "right_lung")],
)
def test_one_mask_a_side_in_folders_of_usual_names(tmp_path: Path, left: str, right: str) -> None:
    write(tmp_path, *(f"{part}/{n}.png" for n in range(20) for part in ("img", left, right)))
    samples = load_index(tmp_path)
    assert len(samples) == 20
    assert lung_files(samples[3].lung) == (
        tmp_path / left / samples[3].image.name,
        tmp_path / right / samples[3].image.name,
    )


def test_pictures_of_a_kind_that_is_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path, "Normal/images/a.png", "Normal/images/b.WEBP", "Normal/masks/a.png", "Normal/masks/b.gif", "c/d.jp2"
    )
    assert [sample.id for sample in load_index(tmp_path)] == ["Normal/images/a.png"]
    expected = "left out, of a kind that is not read: 3 ('Normal/images/b.WEBP', 'Normal/masks/b.gif', 'c/d.jp2'; save"
    assert expected in caplog.text


def test_an_accented_name_is_one_however_it_is_written(tmp_path: Path) -> None:
    write(tmp_path, "images/caf\u00e9.png", "masks/cafe\u0301.png")
    (sample,) = load_index(tmp_path)
    assert sample.lung == tmp_path / "masks/cafe\u0301.png"


def test_test_fraction_and_fold_apply_where_there_is_no_split(tmp_path: Path) -> None:
    write(tmp_path, *(f"Normal/{n}.png" for n in range(400)))
    share = sum(s.split == "test" for s in load_index(tmp_path, test_fraction=0.4)) / 400
    assert abs(share - 0.4) < 4 * (0.4 * 0.6 / 400) ** 0.5
    vals = [s.id for fold in range(3) for s in load_index(tmp_path, fold=fold, folds=3) if s.split == "val"]
    rest = [s.id for s in load_index(tmp_path) if s.split != "test"]
    assert sorted(vals) == rest


# CSV manifest


def manifest(root: Path, *rows: str, header: str = "image,lung,infection,label,split,group") -> Path:
    write(root, "a.png", "b.png", "sub/c.png", "masks/a.png", "masks/i.png")
    (root / "m.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root / "m.csv"


def test_manifest_gives_every_field_and_leaves_what_is_empty_missing(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "sub\\c.png,,,2.0,Validation,",
        " a.png , masks/a.png ,masks/i.png,non-covid,TRAIN,p1",
        "",
        "b.png,,,0,test,p2",
    )
    found = read_index(path, classes=CLASSES)
    assert [replace(sample, class_name=None) for sample in found.samples] == [
        Sample("a.png", tmp_path / "a.png", tmp_path / "masks/a.png", tmp_path / "masks/i.png", 1, "train", "p1"),
        Sample("b.png", tmp_path / "b.png", None, None, 0, "test", "p2"),
        Sample("sub/c.png", tmp_path / "sub/c.png", None, None, 2, "val", None),
    ]
    # without classes, a number beside a name could mean anything
    with pytest.raises(DataError, match=r"names no class: 2 \('0', '2'; classes are non-covid;"):
        load_index(path)


def test_manifest_needs_only_the_image_column(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{n}.png" for n in range(30)))
    path = manifest(tmp_path, *(f"{n}.png" for n in range(30)), header="Image")
    samples = load_index(path)
    assert {s.split for s in samples} == {"train", "val", "test"}
    assert "CSV manifest without splits" in caplog.text


def test_manifest_of_a_spreadsheet_with_semicolons_and_a_mark_at_its_start_is_read(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    path.write_bytes(b"\xef\xbb\xbfimage;label;split\r\na.png;Normal;train\r\n")
    assert told(read_index(path, classes=CLASSES).samples) == [("a.png", 2, None)]


def test_manifest_takes_class_names_of_the_label_map(tmp_path: Path) -> None:
    path = manifest(tmp_path, "a.png,,,Healthy,train,")
    assert [s.label for s in read_index(path, {"healthy": "Normal"}, CLASSES).samples] == [2]


def test_manifest_keeps_a_patient_in_one_split(tmp_path: Path) -> None:
    write(tmp_path, *(f"{n}.png" for n in range(200)))
    path = manifest(tmp_path, *(f"{n}.png,{n % 3},p{n // 5}" for n in range(200)), header="image,label,group")
    splits: dict[str | None, set[str]] = {}
    for sample in load_index(path):
        splits.setdefault(sample.group, set()).add(sample.split)
    assert len(splits) == 40 and all(len(one) == 1 for one in splits.values())


def test_manifest_reports_every_bad_row_at_once_with_its_line(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "a.png,,,covdi,train,p1",  # 2
        "gone.png,,,,train,",  # 3
        "lost.png,,,,train,",  # 4
        "b.png,masks/gone.png,masks/gone.png,,train,",  # 5
        "sub/c.png,,,,nowhere,",  # 6
        ",masks/a.png,,3,val,",  # 7
        "./a.png,,,,val,p1",  # 8
        "away.png,,,,,",  # 9
        "b.png,,,,train,,more",  # 10
    )
    with pytest.raises(DataError, match=r"m\.csv: ") as error:
        load_index(path, classes=CLASSES)
    message = str(error.value)
    assert "\n" not in message
    for fault in (
        "folder or label that names no class: 2 ('3', 'covdi'; classes are COVID-19, Non-COVID, Normal",
        "image file not found: 4 on line 3-4, 7, 9 ('gone.png', 'lost.png', '', ...)",
        "lung file not found: 1 on line 5 ('masks/gone.png')",
        "infection file not found: 1 on line 5 ('masks/gone.png')",
        "split other than train, val, test (in every row or in none): 2 on line 6, 9 ('nowhere', '')",
        "image named before: 2 on line 8, 10 ('a.png', 'b.png')",
        "group that an earlier line puts into another split: 1 on line 8 ('p1')",
        "more fields than columns (quote a comma in a name): 1 on line 10 ('more')",
    ):
        assert fault in message
    assert len(read_index(path).problems) == 7


def test_manifest_header_with_a_typo_is_answered_with_the_right_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"header must be image,lung,.* \('lable': did you mean 'label'\?\)"):
        load_index(manifest(tmp_path, "a.png,0", header="image,lable"))
    with pytest.raises(DataError, match=r"only image is required\), each once, got \['lung'\]"):
        load_index(manifest(tmp_path, "a.png", header="lung"))
    with pytest.raises(DataError, match=r"each once, got \['image', 'image'\]"):
        load_index(manifest(tmp_path, "a.png,a.png", header="image,image"))


def test_manifest_without_rows_or_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.csv: no images in it; a manifest names one a line"):
        load_index(manifest(tmp_path))
    path = manifest(tmp_path)
    path.write_bytes(b"image\nr\xf6ntgen.png\n")
    with pytest.raises(DataError, match=r"m\.csv: cannot be read as CSV .* save it as CSV in UTF-8"):
        load_index(path)
    path.write_bytes(b'image\na.png\n"b.png\n')
    with pytest.raises(DataError, match=r"cannot be read as CSV after 1 rows: unexpected end of data"):
        load_index(path)


def test_manifest_explicit_gaps_are_not_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load_index(manifest(tmp_path, "a.png,masks/a.png,,,train,", "b.png,,,0,train,"))
    assert not caplog.records
