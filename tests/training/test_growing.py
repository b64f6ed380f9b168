"""A network that is enlarged during training: weights, optimizer and averages go on, and no kill changes anything."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustmaps import defenses
from robustmaps.attacks import PGD
from robustmaps.data import Dataset
from robustmaps.defenses import AT, Standard
from robustmaps.engine.errors import InputError
from robustmaps.training import Earlier, FitResult, Interrupted, RunFolder, TrainOptions, fit, load_weights
from robustmaps.training._loop import Loop
from tests.helpers.same_runs import equal, timeless

MakeData = Callable[..., Dataset]
OPTIONS = TrainOptions(
    epochs=4,
    batch_size=8,
    lr=0.05,
    schedule="one-cycle",
    device="cpu",
    precision="fp32",
    checkpoint_every_s=0,
)
DEFENSE = AT(PGD(eps=0.1, steps=1))


def network(factor: float, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        larger = nn.Upsample(scale_factor=factor)
        body = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.AdaptiveAvgPool2d(3))
        return nn.Sequential(larger, *body, nn.Flatten(), nn.Linear(36, 2))


def growing(seed: int = 0) -> tuple[nn.Sequential, list[Earlier]]:
    """Four epochs: one plain, two with images half as large again, one with images of twice the size."""
    return network(2.0, seed), [Earlier(network(1.0, seed), 1), Earlier(network(1.5, seed), 3)]


def assert_same_run(a: tuple[nn.Module, FitResult], b: tuple[nn.Module, FitResult]) -> None:
    assert equal(a[0].state_dict(), b[0].state_dict())
    assert timeless(a[1].history) == timeless(b[1].history)
    assert a[1].best_epoch == b[1].best_epoch
    folders = [RunFolder(run[1].folder) for run in (a, b) if run[1].folder is not None]
    states = [folder.load_last(torch.device("cpu")) for folder in folders]
    assert equal(states[0]["model"], states[1]["model"])
    assert torch.equal(states[0]["random"], states[1]["random"])
    assert len(states) == 2
    if states[0]["average"] is not None:
        assert equal(states[0]["average"], states[1]["average"])
        assert states[0]["average_steps"] == states[1]["average_steps"]


VARIANTS = {
    "ema": (DEFENSE, replace(OPTIONS, ema=0.8, optimizer="adamw")),
    "swa": (DEFENSE, replace(OPTIONS, swa=0.25)),
    "momentum": (DEFENSE, OPTIONS),
    "awp": (defenses.create("at-awp", "linf", 0.1, steps=1), OPTIONS),
    "free": (defenses.create("free-at", "linf", 0.1, replays=2), OPTIONS),
}


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, make_dataset: MakeData
) -> Callable[[str], tuple[nn.Module, FitResult]]:
    done: dict[str, tuple[nn.Module, FitResult]] = {}

    def run(name: str) -> tuple[nn.Module, FitResult]:
        if name not in done:
            model, earlier = growing()
            folder = tmp_path_factory.mktemp("runs") / "run"
            done[name] = model, fit(model, make_dataset(), *VARIANTS[name], out=folder, earlier=earlier)
        return done[name]

    return run


# Steps of an epoch, then its validation: seven calls and one before each later epoch.
@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("calls", [{3, 9, 16, 26}, {7, 8, 24}, {6, 15, 25}], ids=str)
def test_a_stopped_run_goes_on_on_its_side_of_each_switch(
    name: str, calls: set[int], undisturbed: Any, tmp_path: Path, make_dataset: MakeData
) -> None:
    count, sittings = 0, 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count in calls

    while True:
        # Another initialisation each time: all that counts comes from the checkpoint.
        model, earlier = growing(seed=sittings)
        sittings += 1
        try:
            result = fit(
                model,
                make_dataset(),
                *VARIANTS[name],
                out=tmp_path / "run",
                resume=True,
                should_stop=stop,
                earlier=earlier,
            )
            break
        except Interrupted:
            continue
    assert sittings == len(calls) + 1
    assert_same_run(undisturbed(name), (model, result))


def test_a_checkpoint_of_before_the_switch_is_enough(undisturbed: Any, tmp_path: Path, make_dataset: MakeData) -> None:
    """The newest is lost with all that came after the switch; the one before it is of the smaller network."""
    stop = iter([False] * 7 + [True] + [False] * 100)  # at the beginning of the second epoch
    model, earlier = growing()
    with pytest.raises(Interrupted, match="epoch 2 of 4, step 0"):
        fit(
            model,
            make_dataset(),
            *VARIANTS["ema"],
            out=tmp_path / "run",
            should_stop=lambda: next(stop),
            earlier=earlier,
        )
    kept = RunFolder(tmp_path / "run").load_last(torch.device("cpu"))
    assert kept["state"]["network"] == 0
    model, earlier = growing(seed=1)
    result = fit(model, make_dataset(), *VARIANTS["ema"], out=tmp_path / "run", resume=True, earlier=earlier)
    assert_same_run(undisturbed("ema"), (model, result))


def test_only_epochs_of_the_last_network_can_be_the_best(undisturbed: Any) -> None:
    for name in ("ema", "momentum"):
        _, result = undisturbed(name)
        assert [record.get("before_enlarging") for record in result.history] == [1, 1, 1, None]
        assert result.best_epoch == 4
        folder = RunFolder(result.folder)
        assert "best epoch 4" in (folder.path / "log.txt").read_text()


def test_a_run_that_was_not_enlarged_yet_has_no_best_weights(tmp_path: Path, make_dataset: MakeData) -> None:
    stop = iter([False] * 10 + [True])
    model, earlier = growing()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(Interrupted):
        fit(
            model,
            make_dataset(),
            DEFENSE,
            OPTIONS,
            out=tmp_path / "run",
            should_stop=lambda: next(stop),
            earlier=earlier,
        )
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert equal(before, model.state_dict())


def test_weights_momentum_and_averages_go_on(
    make_dataset: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the network stays as it is, the switch changes nothing but the statistics, which are measured again."""
    options = replace(OPTIONS, ema=0.9)
    monkeypatch.setattr("robustmaps.training._loop.measure_statistics", lambda *_: None)
    plain, switched = network(2.0), network(2.0)
    one = fit(plain, make_dataset(), DEFENSE, options, out=tmp_path / "one")
    two = fit(switched, make_dataset(), DEFENSE, options, out=tmp_path / "two", earlier=[Earlier(network(2.0), 2)])
    last = [load_weights(tmp_path / name / "last.safetensors")[0] for name in ("one", "two")]
    # The optimizer's state, the average and the random numbers are those of a run without a switch.
    assert equal(*last)
    assert [r["train_loss"] for r in one.history] == [r["train_loss"] for r in two.history]


def test_statistics_are_those_of_the_larger_maps(make_dataset: MakeData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    grow = Loop._grow

    def watched(loop: Loop) -> None:
        grow(loop)
        norm = loop.model[2]
        x = loop.data.train.tensors()[0]
        with torch.no_grad():
            maps = loop.model[1](loop.model[0](x))
        spread = maps.var(dim=(0, 2, 3))
        seen.extend([norm.running_var.clone(), spread])

    monkeypatch.setattr(Loop, "_grow", watched)
    # Without attack, so that it is known what is trained on; augmentation moves images by a pixel.
    fit(network(2.0), make_dataset(), Standard(), OPTIONS, earlier=[Earlier(network(1.0), 1)])
    measured, expected = seen
    torch.testing.assert_close(measured, expected, rtol=0.3, atol=1e-3)


@pytest.mark.parametrize("until", [(0,), (4,), (2, 2), (3, 1), (2, 5)], ids=str)
def test_each_network_needs_an_epoch(until: tuple[int, ...], make_dataset: MakeData) -> None:
    earlier = [Earlier(network(1.0), last) for last in until]
    with pytest.raises(InputError, match="of 4: expected ascending epochs that leave at least one to each"):
        fit(network(2.0), make_dataset(), DEFENSE, OPTIONS, earlier=earlier)


def test_networks_with_other_weights_are_refused(make_dataset: MakeData) -> None:
    other = network(1.0)
    other[1] = nn.Conv2d(1, 4, 5, padding=2)
    with pytest.raises(InputError, match=r"1\.weight is of shape \(4, 1, 5, 5\) there and of shape \(4, 1, 3, 3\)"):
        fit(network(2.0), make_dataset(), DEFENSE, OPTIONS, earlier=[Earlier(other, 2)])


def test_a_run_goes_on_with_no_other_switch(tmp_path: Path, make_dataset: MakeData) -> None:
    fit(network(2.0), make_dataset(), Standard(), OPTIONS, out=tmp_path / "run", earlier=[Earlier(network(1.0), 2)])
    for earlier in ([], [Earlier(network(1.0), 3)], [Earlier(network(1.5), 2)]):
        with pytest.raises(InputError, match=r"other settings.*earlier"):
            fit(network(2.0), make_dataset(), Standard(), OPTIONS, out=tmp_path / "run", resume=True, earlier=earlier)
