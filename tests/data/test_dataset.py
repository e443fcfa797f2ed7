from __future__ import annotations

import dataclasses
import gc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from lungseg.config import AugmentConfig
from lungseg.data import dataset
from lungseg.data.batch import unpack
from lungseg.data.cache import ImageCache
from lungseg.data.dataset import ShardSampler, TrainSampler, Visit
from lungseg.data.index import load_index
from lungseg.data.sample import Sample
from lungseg.errors import DataError

OFF = AugmentConfig(shift=0, scale=0, rotate=0, flip=0, brightness=0, contrast=0, gamma=0, noise=0)


class LungDataset(dataset.LungDataset):
    """Items as the network sees them."""

    def __getitem__(self, visit: Visit) -> dict[str, Any]:
        return {name: values[0] for name, values in unpack(default_collate([super().__getitem__(visit)])).items()}


@pytest.fixture
def samples(phantoms: Path) -> list[Sample]:
    return [sample for sample in load_index(phantoms) if sample.split == "train"]


def test_item_follows_the_contract(samples: list[Sample]) -> None:
    item = LungDataset(samples, 64, None, seed=0)[0, 0]
    for name in ("image", "lung", "infection"):
        assert item[name].shape == (1, 64, 64) and item[name].dtype == torch.float32
    assert 0 <= float(item["image"].min()) < float(item["image"].max()) <= 1
    assert set(item["lung"].unique().tolist()) == {0.0, 1.0}
    assert item["label"] == samples[0].label and item["id"] == samples[0].id
    assert item["has_lung"] and item["has_infection"] and item["has_label"]


def test_many_samples_are_few_objects_which_workers_need_not_copy(samples: list[Sample]) -> None:
    many = samples * 100
    gc.collect()
    before = len(gc.get_objects())
    data = LungDataset(many, 64, None, seed=0)
    gc.collect()
    # Other threads of the process may add a few of their own.
    assert len(gc.get_objects()) - before < len(many) and len(data) == len(many)
    assert data[0, len(many) - 1]["id"] == samples[-1].id


def test_a_missing_target_is_marked_and_not_invented(samples: list[Sample]) -> None:
    bare = dataclasses.replace(samples[0], lung=None, infection=None, label=None)
    item = LungDataset([bare], 64, None, seed=0)[0, 0]
    assert not (item["has_lung"] or item["has_infection"] or item["has_label"])
    assert not item["lung"].any() and item["label"] == -1


def test_an_empty_infection_mask_of_a_class_whose_nobody_drew_is_not_known(samples: list[Sample]) -> None:
    drawn = next(index for index, sample in enumerate(samples) if sample.label == 1)
    normal = next(index for index, sample in enumerate(samples) if sample.label == 2)
    samples = [samples[drawn], dataclasses.replace(samples[normal], label=1), samples[normal]]
    data = LungDataset(samples, 64, None, 0, infection_unknown=[1])
    assert [bool(data[0, index]["has_infection"]) for index in range(3)] == [True, False, True]
    assert [bool(data[0, index]["infection"].any()) for index in range(3)] == [True, False, False]


def test_augmentation_depends_on_seed_epoch_and_id_alone(samples: list[Sample]) -> None:
    data = LungDataset(samples, 64, AugmentConfig(), seed=3)
    first = data[1, 4]["image"]
    data[0, 2], data[5, 1]  # what was drawn before does not matter, nor where the sample stands
    again = LungDataset([samples[4]], 64, AugmentConfig(), seed=3)[1, 0]["image"]
    assert torch.equal(first, again)
    assert not torch.equal(first, data[2, 4]["image"])
    assert not torch.equal(first, LungDataset(samples, 64, AugmentConfig(), seed=4)[1, 4]["image"])


def test_the_cache_changes_no_bit(samples: list[Sample], tmp_path: Path) -> None:
    cache = ImageCache.open_or_build(samples, 64, folder=tmp_path)
    for config in (None, AugmentConfig()):
        decoded = LungDataset(samples, 64, config, 0)
        cached = LungDataset(samples, 64, config, 0, cache=cache)
        for name in ("image", "lung", "infection"):
            assert all(torch.equal(decoded[2, i][name], cached[2, i][name]) for i in range(len(samples)))


def test_everything_off_leaves_the_image_as_it_is(samples: list[Sample]) -> None:
    assert torch.equal(
        LungDataset(samples, 64, OFF, 0)[3, 1]["image"], LungDataset(samples, 64, None, 0)[0, 1]["image"]
    )


@pytest.mark.parametrize("name", ["shift", "scale", "rotate", "flip", "brightness", "contrast", "gamma", "noise"])
def test_each_strength_switches_its_own_transform(samples: list[Sample], name: str) -> None:
    strong = {"rotate": 90.0, "flip": 1.0}.get(name, 0.3)
    item = LungDataset(samples, 64, dataclasses.replace(OFF, **{name: strong}), 0)[1, 0]
    plain = LungDataset(samples, 64, None, 0)[0, 0]
    geometric = name in ("shift", "scale", "rotate", "flip")
    assert not torch.equal(item["image"], plain["image"])
    assert torch.equal(item["lung"], plain["lung"]) != geometric


def test_masks_move_with_their_image(samples: list[Sample]) -> None:
    """A lung that is warped away from its image would no longer lie on dark pixels."""
    data = LungDataset(samples, 64, dataclasses.replace(OFF, shift=0.1, scale=0.1, rotate=20), 0)
    for index in range(4):
        item = data[1, index]
        lung = item["lung"] > 0.5
        assert set(item["lung"].unique().tolist()) == {0.0, 1.0}
        body = (item["image"] > 0.15) & ~lung
        assert float(item["image"][lung].mean()) < float(item["image"][body].mean())


def test_an_unreadable_image_names_its_file(samples: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(samples[0].image.read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.png"):
        LungDataset([dataclasses.replace(samples[0], image=broken)], 64, None, 0)[0, 0]


def test_a_mask_of_another_size_names_its_file(samples: list[Sample], tmp_path: Path) -> None:
    import cv2

    wrong = tmp_path / "wrong.png"
    cv2.imwrite(str(wrong), np.zeros((32, 48), np.uint8))
    with pytest.raises(DataError, match=r"wrong\.png"):
        LungDataset([dataclasses.replace(samples[0], lung=wrong)], 64, None, 0)[0, 0]


def test_train_order_is_seeded_new_each_epoch_and_complete() -> None:
    sampler = TrainSampler([0, 1, 2] * 4, seed=0, balanced=False)
    first = list(sampler)
    assert sorted(index for _, index in first) == list(range(12))
    sampler.set_epoch(1)
    assert [i for _, i in sampler] != [i for _, i in first] and {epoch for epoch, _ in sampler} == {1}
    assert list(TrainSampler([0, 1, 2] * 4, seed=0, balanced=False)) == first


def test_processes_share_an_epoch_in_equal_parts() -> None:
    parts = [list(TrainSampler([0] * 7, 0, False, rank, 2)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 4
    assert {index for part in parts for _, index in part} == set(range(7))


def test_balanced_order_draws_each_class_equally_often() -> None:
    labels: list[int | None] = [0] * 900 + [1] * 90 + [2] * 10
    counts = Counter(labels[index] for _, index in TrainSampler(labels, 0, balanced=True))
    assert all(250 < counts[label] < 420 for label in range(3))


def test_balancing_without_any_label_is_refused() -> None:
    with pytest.raises(DataError, match=r"data.balanced: no training image has a class label"):
        TrainSampler([None, None], 0, balanced=True)


def test_evaluation_shards_hold_each_sample_once() -> None:
    shards = [[index for _, index in ShardSampler(7, rank, 2)] for rank in range(2)]
    assert sorted(shards[0] + shards[1]) == list(range(7)) and len(shards[0]) == 4


def test_tensors_are_the_same_on_one_process_and_on_two(samples: list[Sample]) -> None:
    """What a process makes of a visit does not depend on which of the others it makes."""
    data = LungDataset(samples, 64, AugmentConfig(), seed=5)
    labels = [sample.label for sample in samples]

    def epoch(rank: int, processes: int) -> dict[str, torch.Tensor]:
        sampler = TrainSampler(labels, 5, False, rank, processes)
        sampler.set_epoch(3)
        return {data[visit]["id"]: data[visit]["image"] for visit in sampler}

    alone, together = epoch(0, 1), epoch(0, 2) | epoch(1, 2)
    assert alone.keys() == together.keys()
    assert all(torch.equal(alone[name], together[name]) for name in alone)
