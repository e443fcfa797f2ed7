from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungseg.evaluation.saved import read_evaluation
from lungseg.reporting.report_run import Reported
from lungseg.training.trackers.tensorboard_tracker import TensorBoardTracker
from lungseg.training.trackers.tracker import Picture

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no TensorBoard")
make_ndarray = pytest.importorskip("tensorboard.util.tensor_util").make_ndarray


def test_the_tab_of_hyper_parameters_has_the_settings_and_the_result(tmp_path: Path) -> None:
    tracker = TensorBoardTracker({"optim.lr": 0.5, "data.classes": ["a"]}, save_dir=tmp_path, name="tb", version="")
    tracker.log_metrics({"val/dice": 0.9, "epoch": 1}, 7)
    tracker.finalize("success")
    tracker.log_result({"fit/best_epoch": 1, "val/dice": 0.75, "test/dice": 0.5})
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("result/best/val/dice")] == [(0, 0.75)]
    assert events.Scalars("result/test/dice")[0].value == 0.5 and events.Scalars("result/best_epoch")[0].value == 1
    assert [event.step for event in events.Scalars("val/dice")] == [7], "the curve has no point of the result"
    held = str(events.PluginTagToContent("hparams"))
    assert "optim.lr" in held and "data.classes" in held


def test_each_class_has_a_precision_recall_curve(tmp_path: Path, reported: Reported) -> None:
    tracker = TensorBoardTracker({}, save_dir=tmp_path, name="tb", version="")
    tracker.log_evaluation(reported)
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    saved = read_evaluation(reported.folder, "test")
    for index, name in enumerate(saved.classes):
        (event,) = events.Tensors(f"evaluation_test/{name}")
        there = int((saved.label == index).sum())
        counts = make_ndarray(event.tensor_proto)  # of hits and of false alarms, at thresholds n / 126
        assert tuple(counts[:2, 0]) == (there, len(saved.rows) - there), "at 0 every image is called"
        for place in (20, 42, 63):
            called = np.floor(saved.probs[:, index] * 126) >= place
            hits = int((called & (saved.label == index)).sum())
            assert tuple(counts[:2, place]) == (hits, int(called.sum()) - hits)


def test_pictures_grey_and_coloured_have_the_epoch_as_their_step(tmp_path: Path) -> None:
    tracker = TensorBoardTracker({}, save_dir=tmp_path, name="tb", version="")
    shapes = [(4, 6), (4, 6, 3)]
    tracker.log_images("p", [Picture(np.zeros(shape, np.uint8), {}, "") for shape in shapes], 3)
    tracker.finalize("success")
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert {tag: events.Images(tag)[0].step for tag in events.Tags()["images"]} == {"p/1": 3, "p/2": 3}
