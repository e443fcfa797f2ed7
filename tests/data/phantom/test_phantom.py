"""Phantoms: what the label may change, exact masks, the planted shortcut, and the set on disk."""

from __future__ import annotations

import functools
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungseg.config import PhantomConfig
from lungseg.data.covidqu import CLASSES
from lungseg.data.phantom import phantom_set
from lungseg.data.phantom.generator import Phantom, draw_phantom
from lungseg.data.phantom.phantom_set import set_name, write_phantoms

COVID, NON_COVID, NORMAL = range(3)
LUNG_TREE = "Lung Segmentation Data/Lung Segmentation Data"
INFECTION_TREE = "Infection Segmentation Data/Infection Segmentation Data"


phantom_of = functools.cache(draw_phantom)  # tests ask for the same ones; none of them changes any


def small_set(folder: Path, **settings: object) -> PhantomConfig:
    values = {"train": 4, "val": 3, "test": 3, "size_px": 64, "dir": str(folder)} | settings
    return PhantomConfig(**values)  # type: ignore[arg-type]


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return picture


def halves(phantom: Phantom) -> list[float]:
    """Share of each lung that is infected, in order of the image from left to right."""
    count, lungs, _, centres = cv2.connectedComponentsWithStats(phantom.lung.astype(np.uint8))
    order = sorted(range(1, count), key=lambda lung: centres[lung][0])
    return [float(phantom.infection[lungs == lung].mean()) for lung in order]


@pytest.mark.parametrize("size_px", [64, 100, 300])
def test_same_arguments_give_same_bytes(size_px: int) -> None:
    first, second = draw_phantom(3, COVID, size_px), draw_phantom(3, COVID, size_px)
    assert first.image.shape == (size_px, size_px) and first.image.dtype == np.uint8
    assert first.lung.dtype == first.infection.dtype == np.bool_
    for name in ("image", "lung", "infection"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_another_seed_is_another_patient() -> None:
    first, second = phantom_of(1, NORMAL, 64), phantom_of(2, NORMAL, 64)
    assert (first.lung != second.lung).mean() > 0.01


@pytest.mark.parametrize("size_px", [64, 128, 256])
def test_label_changes_pixels_inside_the_lungs_only(size_px: int) -> None:
    for seed in range(6):
        drawn = [phantom_of(seed, label, size_px) for label in range(len(CLASSES))]
        outside = ~drawn[0].lung
        for other in drawn[1:]:
            assert np.array_equal(other.lung, drawn[0].lung)
            assert np.array_equal(other.image[outside], drawn[0].image[outside])
            assert (other.image != drawn[0].image).any()


def test_lungs_are_two_of_plausible_size() -> None:
    for seed in range(8):
        lung = phantom_of(seed, NORMAL, 128).lung
        count, _, stats, _ = cv2.connectedComponentsWithStats(lung.astype(np.uint8))
        assert count - 1 == 2
        assert 0.14 < lung.mean() < 0.38
        assert stats[1:, cv2.CC_STAT_AREA].min() > 0.3 * lung.sum()


def test_lungs_of_a_size_are_those_of_another_size() -> None:
    coarse, fine = phantom_of(5, NORMAL, 64).lung, phantom_of(5, NORMAL, 256).lung
    average = cv2.resize(fine.astype(np.float32), (64, 64), interpolation=cv2.INTER_AREA) > 0.5
    assert (coarse != average).mean() < 0.004


def test_covid_is_bilateral_lobar_is_one_sided_normal_is_clear() -> None:
    for seed in range(8):
        covid, lobar, normal = (phantom_of(seed, label, 128) for label in (COVID, NON_COVID, NORMAL))
        assert min(halves(covid)) > 0.02
        assert min(halves(lobar)) == 0 and 0.18 < max(halves(lobar)) < 0.5
        assert not normal.infection.any()
        assert not (covid.infection & ~covid.lung).any() and not (lobar.infection & ~lobar.lung).any()


def test_infection_mask_is_where_the_opacity_shows() -> None:
    for seed in range(6):
        clear = phantom_of(seed, NORMAL, 128)
        for label in (COVID, NON_COVID):
            ill = phantom_of(seed, label, 128)
            added = ill.image.astype(int) - clear.image
            assert added[ill.infection].mean() > 25
            assert abs(added[ill.lung & ~ill.infection].mean()) < 0.3 * added[ill.infection].mean()


def test_label_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label must be an index.*got 3"):
        draw_phantom(0, 3)


@pytest.mark.parametrize("size_px", [64, 128])
def test_shortcut_adds_one_mark_outside_the_lungs_that_tells_the_class(size_px: int) -> None:
    centres: list[list[np.ndarray]] = [[], [], []]
    for seed in range(18):
        label = seed % 3
        plain, marked = phantom_of(seed, label, size_px), phantom_of(seed, label, size_px, shortcut=True)
        mark = plain.image != marked.image
        assert not (mark & marked.lung).any()
        rows, columns = np.nonzero(mark)
        assert min(rows.min(), columns.min()) >= 0.03 * size_px
        assert max(rows.max(), columns.max()) < 0.97 * size_px
        assert marked.image[mark].max() > 225
        centres[label].append(np.array([rows.mean(), columns.mean()]) / size_px)
    means = [np.mean(points, axis=0) for points in centres]
    for label, points in enumerate(centres):
        assert all(np.argmin([np.linalg.norm(point - mean) for mean in means]) == label for point in points)


def test_set_has_the_layout_of_covid_qu_ex(tmp_path: Path) -> None:
    root = write_phantoms(small_set(tmp_path, train=5))
    assert root == tmp_path / "5-3-3_64px_seed0_v1"
    assert [p.name for p in tmp_path.iterdir()] == [root.name]
    names = []
    for split, count in (("Train", 5), ("Val", 3), ("Test", 3)):
        sizes = []
        for name in CLASSES:
            files = {
                tree: sorted((root / tree / split / name / "images").iterdir()) for tree in (LUNG_TREE, INFECTION_TREE)
            }
            assert [p.name for p in files[LUNG_TREE]] == [p.name for p in files[INFECTION_TREE]]
            sizes.append(len(files[LUNG_TREE]))
            names += [p.name for p in files[LUNG_TREE]]
        assert sum(sizes) == count and max(sizes) - min(sizes) <= 1
    numbers = sorted(int("".join(c for c in name if c.isdigit())) for name in names)
    assert numbers == list(range(1, 12))
    assert {"covid_1.png", "non_COVID (2).png", "Normal (3).png"} <= set(names)
    assert len(list(root.rglob("*.png"))) == 11 * 5


def test_set_holds_grey_images_and_exact_masks(tmp_path: Path) -> None:
    root = write_phantoms(small_set(tmp_path))
    for image_path in sorted((root / INFECTION_TREE).rglob("images/*.png")):
        folder = image_path.parent.parent
        image, lung = read(image_path), read(folder / "lung masks" / image_path.name)
        infection = read(folder / "infection masks" / image_path.name)
        assert image.shape == (64, 64) and image.dtype == np.uint8 and image.std() > 20
        assert set(np.unique(lung)) == {0, 255} and set(np.unique(infection)) <= {0, 255}
        assert (infection <= lung).all() and infection.any() == (folder.name != "Normal")
        for path in (image_path, folder / "lung masks" / image_path.name):
            assert (root / LUNG_TREE / path.relative_to(root / INFECTION_TREE)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("shortcut", "marked_splits"), [("train", {"Train", "Val"}), ("all", {"Train", "Val", "Test"})]
)
def test_shortcut_marks_the_chosen_splits_and_nothing_else(
    tmp_path: Path, shortcut: str, marked_splits: set[str]
) -> None:
    plain = write_phantoms(small_set(tmp_path))
    marked = write_phantoms(small_set(tmp_path, shortcut=shortcut))
    assert marked.name == f"4-3-3_64px_seed0_shortcut-{shortcut}_v1"
    for path in sorted((plain / LUNG_TREE).rglob("*.png")):
        relative = path.relative_to(plain)
        expected = relative.parts[2] in marked_splits and path.parent.name == "images"
        assert (path.read_bytes() != (marked / relative).read_bytes()) == expected


def test_set_name_tells_every_setting_apart() -> None:
    settings: list[dict[str, object]] = [{}, {"train": 5}, {"val": 5}, {"test": 5}, {"size_px": 96}, {"seed": 1}]
    settings += [{"shortcut": "train"}, {"shortcut": "all"}]
    names = {set_name(small_set(Path("phantoms"), **setting)) for setting in settings}
    assert len(names) == len(settings)


def test_standing_set_is_returned_untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_phantoms(small_set(tmp_path))
    monkeypatch.setattr(phantom_set, "draw_phantom", lambda *args, **kwargs: pytest.fail("drawn again"))
    assert write_phantoms(small_set(tmp_path)) == root


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw_two(seed: int, label: int, size_px: int, shortcut: bool) -> Phantom:
        if label == 2:
            raise KeyboardInterrupt("stop")
        return draw_phantom(seed, label, size_px, shortcut)

    monkeypatch.setattr(phantom_set, "draw_phantom", draw_two)
    with pytest.raises(KeyboardInterrupt, match="stop"):
        write_phantoms(small_set(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_slower_of_two_writers_takes_the_set_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, write_images = small_set(tmp_path), phantom_set._write_images

    def overtaken(config: PhantomConfig, root: Path) -> None:
        write_images(config, root)
        monkeypatch.setattr(phantom_set, "_write_images", write_images)
        write_phantoms(config)

    monkeypatch.setattr(phantom_set, "_write_images", overtaken)
    root = write_phantoms(config)
    assert [p.name for p in tmp_path.iterdir()] == [root.name]
    assert len(list(root.rglob("*.png"))) == 10 * 5


def test_two_processes_write_one_set(tmp_path: Path) -> None:
    config = small_set(tmp_path)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        roots = pool.map(write_phantoms, [config, config], chunksize=1)
    assert roots[0] == roots[1] and [p.name for p in tmp_path.iterdir()] == [roots[0].name]
    drawn = write_phantoms(small_set(tmp_path / "again"))
    assert len(list(roots[0].rglob("*.png"))) == 10 * 5
    for path in drawn.rglob("*.png"):
        assert path.read_bytes() == (roots[0] / path.relative_to(drawn)).read_bytes()
