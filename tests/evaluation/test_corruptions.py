"""Accuracy on corrupted images, on a network whose answers are known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustmaps.data import CorruptedImages, open_corruptions
from robustmaps.engine.measured import Measured
from robustmaps.engine.progress import Progress
from robustmaps.evaluation import evaluate_corruptions, mean_accuracy

CLASSES, IMAGES = 4, 20


class ReadsItsPixel(nn.Module):
    """Sees the class that the first pixel's byte says."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.classes = classes
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.calls += 1
        return nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long(), self.classes).float()


@pytest.fixture
def corrupted(tmp_path: Path) -> CorruptedImages:
    """At severity s the first 2 * s images of ``fog`` and the first s of ``snow`` look like another class."""
    labels = np.arange(IMAGES) % CLASSES
    for name, hidden in (("fog", 2), ("snow", 1)):
        seen = np.stack([(labels + (np.arange(IMAGES) < hidden * s)) % CLASSES for s in range(1, 6)])
        images = np.broadcast_to(seen.reshape(-1, 1, 1, 1), (5 * IMAGES, 2, 2, 3)).astype(np.uint8)
        np.save(tmp_path / f"{name}.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(labels, 5))
    return open_corruptions(tmp_path)


def test_accuracies_by_corruption_and_severity(corrupted: CorruptedImages) -> None:
    model = ReadsItsPixel().train()
    result = evaluate_corruptions(model, corrupted, batch_size=7)
    assert model.training
    assert result.accuracies("fog") == tuple(Measured.share(IMAGES - 2 * s, IMAGES) for s in range(1, 6))
    assert result.accuracies("snow") == tuple(Measured.share(IMAGES - s, IMAGES) for s in range(1, 6))
    assert result.mean("fog").value == pytest.approx(1 - 30 / 100)
    assert result.mean().value == pytest.approx(1 - 45 / 200)
    assert [mean.value for mean in result.by_severity()] == pytest.approx([1 - 3 * s / 40 for s in range(1, 6)])
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert values["images"] == IMAGES
    assert values["corruptions"]["fog"]["severities"][4] == Measured.share(10, 20).to_dict()


def test_the_mean_counts_images_and_not_their_versions() -> None:
    """Fifty versions of an image that are all alike say no more than one."""
    one = np.array([[True, True, False, False, True, False, True, True]])
    assert mean_accuracy(np.repeat(one, 50, axis=0)) == mean_accuracy(one)
    assert mean_accuracy(one).interval == pytest.approx(Measured.share(5, 8).interval, abs=1e-6)
    assert mean_accuracy(one[:, :1]).interval == (0.0, 1.0)


def test_the_interval_of_a_mean_is_never_nothing_and_that_of_the_normal_for_many_images() -> None:
    for right in (True, False):
        whole = mean_accuracy(np.full((5, 20), right))
        assert whole.interval == pytest.approx(Measured.share(20 * right, 20).interval, abs=1e-6)
    many = np.random.default_rng(0).random((5, 20_000)) < np.linspace(0.2, 0.9, 20_000)
    mean = mean_accuracy(many)
    half = 1.959964 * many.mean(0).std() / np.sqrt(20_000)
    assert mean.interval == pytest.approx((mean.value - half, mean.value + half), abs=1e-4)


def test_a_sample_is_the_same_for_all_and_even(corrupted: CorruptedImages) -> None:
    result = evaluate_corruptions(ReadsItsPixel(), corrupted, samples=8)
    rows = evaluate_corruptions(ReadsItsPixel(), corrupted).correct["fog"]
    assert result.images == 8
    taken = [row for row in range(IMAGES) if row in _rows(corrupted, 8)]
    assert np.bincount(corrupted.labels[taken].numpy()).tolist() == [2, 2, 2, 2]
    assert np.array_equal(result.correct["fog"], rows[:, taken])


def _rows(corrupted: CorruptedImages, count: int) -> list[int]:
    from robustmaps.data import ImageSet

    images = ImageSet(torch.zeros(IMAGES, 1, 1, 1, dtype=torch.uint8), corrupted.labels)
    return images.rows(count).tolist()


def test_a_stopped_evaluation_goes_on_from_the_last_finished_corruption(
    corrupted: CorruptedImages, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == "snow" and progress.done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_corruptions(ReadsItsPixel(), corrupted, batch_size=10, state=tmp_path / "state", watcher=stop)
    model, reports = ReadsItsPixel(), []
    result = evaluate_corruptions(model, corrupted, batch_size=10, state=tmp_path / "state", watcher=reports.append)
    assert {report.phase for report in reports} == {"snow"}
    assert model.calls == 3 + 10  # two passes identify the network, one counts its classes
    expected = evaluate_corruptions(ReadsItsPixel(), corrupted)
    assert all(np.array_equal(result.correct[name], expected.correct[name]) for name in corrupted.names)
    assert reports[-1].done == reports[-1].total == 5 * IMAGES
    assert reports[-1].remaining_s == 0


def test_networks_for_other_images(corrupted: CorruptedImages) -> None:
    with pytest.raises(ValueError, match=r"labels of 4 classes; the network has only 3"):
        evaluate_corruptions(ReadsItsPixel(3), corrupted)
    evaluate_corruptions(ReadsItsPixel(7), corrupted)  # the last classes may be missing
    with pytest.raises(ValueError, match=r"can't take images of shape \(3, 2, 2\) \(Given groups=1"):
        evaluate_corruptions(nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten()), corrupted)
    with pytest.raises(ValueError, match=r"batch_size=0: expected a whole number"):
        evaluate_corruptions(ReadsItsPixel(), corrupted, batch_size=0)


@pytest.mark.parametrize("resumed", [False, True])
def test_nan_is_never_right_and_is_counted(corrupted: CorruptedImages, tmp_path: Path, resumed: bool) -> None:
    class Spoilt(ReadsItsPixel):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return torch.where(logits.argmax(1, keepdim=True) == 0, torch.nan, logits)

    for _ in range(1 + resumed):
        result = evaluate_corruptions(Spoilt(), corrupted, state=tmp_path / "state")
    seen = torch.cat([corrupted.images(name).flatten(0, 1)[:, 0, 0, 0] for name in corrupted.names])
    assert result.undecided == int((seen == 0).sum()) > 0
    assert not result.correct["fog"][:, np.asarray(corrupted.labels) == 0].any()
    assert "logits without a prediction" in result.to_dict()["warnings"][0]
