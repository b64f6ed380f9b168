"""Where the images come from changes how fast training is, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from robustmaps.attacks import FGSM
from robustmaps.data import Dataset, Extra
from robustmaps.defenses import AT
from robustmaps.engine.progress import Progress
from robustmaps.training import FitResult, Interrupted, TrainOptions, fit

OPTIONS = TrainOptions(epochs=2, batch_size=8, lr=0.05, device="cpu", precision="fp32", checkpoint_every_s=0)
DEFENSE = AT(FGSM(eps=0.1))


def make_model() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


def weights(model: nn.Module) -> list[list[float]]:
    return [value.flatten().tolist() for value in model.state_dict().values()]


def trained(data: Dataset, options: TrainOptions = OPTIONS, **more: object) -> tuple[list[list[float]], FitResult]:
    model = make_model()
    done = fit(model, data, DEFENSE, options, **more)  # type: ignore[arg-type]
    return weights(model), done


@pytest.fixture
def with_extra(make_dataset: Callable[..., Dataset]) -> Dataset:
    return replace(make_dataset(), extra=Extra(make_dataset(seed=5).train, 0.7, "extra of seed 5"))


@pytest.mark.parametrize("share", [None, 0.7])
def test_streamed_images_give_the_same_weights(share: float | None, with_extra: Dataset) -> None:
    data = replace(with_extra, extra=with_extra.extra if share else None)
    resident, _ = trained(data)
    for workers in (1, 3):
        streamed, _ = trained(data, replace(OPTIONS, memory_share=0, workers=workers))
        assert streamed == resident


def test_extra_images_are_learnt_from(with_extra: Dataset) -> None:
    assert trained(with_extra)[0] != trained(replace(with_extra, extra=None))[0]


def test_a_run_with_extra_images_resumes_to_the_same_weights(with_extra: Dataset, tmp_path) -> None:
    expected, _ = trained(with_extra)
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 3

    with pytest.raises(Interrupted):
        trained(with_extra, out=tmp_path, should_stop=stop)
    # What decides nothing may change on the way: here the rest is streamed.
    assert trained(with_extra, replace(OPTIONS, memory_share=0), out=tmp_path, resume=True)[0] == expected
    other = replace(with_extra, extra=replace(with_extra.extra, share=0.5))
    for changed, now in (
        (other, "0.5 of each batch from extra of seed 5"),
        (replace(with_extra, extra=None), "images"),
    ):
        with pytest.raises(ValueError, match=rf"0\.7 of each batch from extra of seed 5\) then, .*{now}\) now"):
            trained(changed, out=tmp_path, resume=True)


def test_time_spent_waiting_for_images_is_told(make_dataset: Callable[..., Dataset]) -> None:
    reports: list[Progress] = []
    _, done = trained(make_dataset(), watcher=reports.append)
    for record in done.history:
        assert 0 < record["data_s"] < record["train_s"]
        assert record["data_share"] == pytest.approx(record["data_s"] / record["train_s"])
    shares = [r.figures["data_share"] for r in reports if r.unit == "steps" and "data_share" in r.figures]
    assert shares
    assert all(0 < share < 1 for share in shares)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("memory_share", 1.5, r"memory_share=1\.5: expected a share of free memory"),
        ("memory_share", -0.1, r"memory_share=-0\.1: expected a share of free memory"),
        ("workers", 0, r"workers=0: expected a whole number of at least 1"),
    ],
)
def test_bad_options(name: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainOptions(**{name: value})
