"""The end of a run: its final numbers by name, and the short table printed last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

HEADLINES = (
    ("dice", "dice, mean over images"),
    ("iou", "IoU, mean over images"),
    ("pixel_accuracy", "pixel accuracy"),
    ("accuracy", "accuracy (images)"),
    ("balanced_accuracy", "balanced accuracy"),
    ("auroc", "AUROC, mean over classes"),
    ("evidence_in_lungs", "evidence in lungs before crop"),
)


def final_numbers(
    rows: Sequence[dict[str, str]], best_epoch: int, test: dict[str, float], minutes: float, images_per_second: float
) -> dict[str, float]:
    """All final numbers by `stage/name`: the best epoch's `val/...`, the `test/...`, and the `fit/...` of the run."""
    trained = [int(row["epoch"]) for row in rows if row["epoch"] and row.get("train/loss")]  # not the row of the test
    numbers: dict[str, float] = {
        "fit/best_epoch": best_epoch,
        "fit/epochs": 1 + max(trained, default=-1),
        "fit/minutes": round(minutes, 3),
        "fit/images_per_second": round(images_per_second, 2),
    }
    for row in rows:
        if row["epoch"] == str(best_epoch):
            numbers |= {name: float(value) for name, value in row.items() if name.startswith("val/") and value}
    return numbers | {name: value for name, value in test.items() if name.startswith("test/")}


def summary_lines(numbers: dict[str, float], folder: Path, offline: Path | None) -> list[str]:
    """The closing lines: a table of Val and Test, and where everything lies."""
    stages = [stage for stage in ("val", "test") if any(name.startswith(f"{stage}/") for name in numbers)]
    lines = ["", f"{'best epoch ' + str(int(numbers['fit/best_epoch'])):<34}" + "".join(f"{s:>9}" for s in stages)]
    for name, title in HEADLINES:
        cells = [numbers.get(f"{stage}/{name}") for stage in stages]
        if any(cell is not None for cell in cells):
            lines.append(f"{title:<34}" + "".join("        -" if c is None else f"{c:>9.4f}" for c in cells))
    lines += ["", f"{numbers['fit/minutes']:.1f} minutes, {numbers['fit/images_per_second']:.0f} training images/s"]
    lines.append(f"run folder  {folder}   (metrics.csv, metrics.json, checkpoints/best.ckpt, overlays/)")
    sheets = sorted(folder.glob("overlays/*.png"))
    if sheets:
        lines.append(f"overlays    {sheets[-1]}")
    if offline is not None:
        lines.append(f"W&B         offline; send it with: wandb sync {offline}")
    lines.append("Research software, not a medical device.")
    return lines
