"""How files go through decoding, the network and writing: by which threads, how many a pass, in what order."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lungseg.inference import job
from lungseg.inference.backend import Outputs
from lungseg.inference.inputs import Input
from lungseg.inference.job import predict_files
from lungseg.inference.predictor import Predictor
from lungseg.runs.model_info import ModelInfo


class Passes:
    """A backend that predicts nothing, and knows how its passes came."""

    info = ModelInfo(("a", "b"), 64, True, 32)

    def __init__(self, concurrent: bool, meeting: threading.Barrier | None = None):
        self.concurrent, self.meeting = concurrent, meeting
        self.threads: set[int] = set()
        self.sizes: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> Outputs:
        self.threads.add(threading.get_ident())
        self.sizes.append(len(images))
        if self.meeting is not None:
            self.meeting.wait(timeout=30)  # BrokenBarrierError where a pass runs alone
        count = len(images)
        probs = np.full((count, 2), 0.5, np.float32)
        return Outputs(np.zeros((count, 64, 64), np.float32), probs, np.zeros((count, 2, 2, 2), np.float32))


@pytest.fixture
def files(tmp_path: Path) -> list[Input]:
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((64, 64), number, np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = [*(f"{number}.png" for number in range(8)), "broken.png"]
    return [Input(name, tmp_path / name) for name in names]


def _ids(backend: Passes, files: list[Input]) -> list[tuple[str, bool]]:
    rows = predict_files(Predictor(backend), files, lambda file, prediction: {"seen": int(prediction.image[0, 0])})
    return [(row["id"], row["error"] is None) for row in rows]


def test_concurrent_passes_run_at_the_same_time_and_rows_keep_their_order(
    files: list[Input], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "cores", lambda: 2)
    backend = Passes(concurrent=True, meeting=threading.Barrier(2))
    assert _ids(backend, files) == [(file.id, file.id != "broken.png") for file in files]
    assert backend.sizes == [4, 4]  # smaller than the 16 asked for; the broken file makes none of its own
    assert threading.get_ident() not in backend.threads


def test_passes_that_take_all_cores_come_one_after_the_other(files: list[Input]) -> None:
    backend = Passes(concurrent=False)
    assert len(_ids(backend, files)) == len(files)
    assert backend.threads == {threading.get_ident()} and backend.sizes == [8]
