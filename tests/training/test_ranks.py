"""Training on several processes, which must be training on one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustmaps import defenses
from robustmaps.engine.errors import InputError
from robustmaps.training import fit
from tests.helpers.ranks import OPTIONS, VARIANTS, bright, finish, made, plain_net, start, trained

NORMS = "norms"  # whose statistics are a rank's own
EVERY = tuple(name for name in (*defenses.listed(), *VARIANTS) if name != NORMS)
_DEFENCES = ("at", "at-awp", "free-at", "fat", "dajat", "liet")
NAMES = (*_DEFENCES, "parts", "mixed", "tiny", "streamed", "synced", "synced tiny", "growing")
PARAMETERS = 4 * 9 + 4 + 64 * 2 + 2
FIGURES_AND_VOTES = 6


def shared(folder: Path, size: int, *names: str) -> dict[str, list[dict[str, Any]]]:
    """The results of each of the ranks."""
    for code, _, told in finish(start(size, ["tests.helpers.ranks", str(folder), *names])):
        assert code == 0, told
    return {name: [torch.load(folder / f"{name}-{rank}.pt") for rank in range(size)] for name in names}


def check_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name, weight in one["weights"].items():
        torch.testing.assert_close(other["weights"][name], weight, rtol=1e-4, atol=1e-5)
    for record, before in zip(other["history"], one["history"], strict=True):
        for name, value in before.items():
            if name.startswith(("train_", "validation_")) and not name.endswith("_s"):
                assert record[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return shared(tmp_path_factory.mktemp("two"), 2, *NAMES, NORMS)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name: str, two: dict[str, list[dict[str, Any]]]) -> None:
    """Uneven last batches, augmentation and noise included; both ranks have the same weights to the last bit."""
    first, second = two[name]
    for key, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][key])
    check_same(trained(name), first)


def test_each_process_reads_its_images_alone(two: dict[str, list[dict[str, Any]]]) -> None:
    """But for the first eight of the set, which each looks at before the first step."""
    assert all(result["read"][:8] == list(range(8)) for result in two["streamed"])
    read = [result["read"][8:] for result in two["streamed"]]
    assert abs(len(read[0]) - len(read[1])) <= 2 * 6
    assert sorted(read[0] + read[1]) == sorted([*range(37)] * 2)


@pytest.mark.parametrize(("name", "extra"), [("at", 0), ("dajat", 0), ("fat", 0), ("at-awp", 1)])
def test_a_step_makes_one_reduction_however_many_attack_steps(
    name: str, extra: int, two: dict[str, list[dict[str, Any]]]
) -> None:
    """Weight perturbation needs a gradient of its own, of the weights with two dimensions: 4 * 9 + 64 * 2."""
    steps = [PARAMETERS + FIGURES_AND_VOTES] * 6
    found = two[name][0]["reductions"]
    assert [size for size in found if size > PARAMETERS] == steps
    assert [size for size in found if size <= PARAMETERS] == [4 * 9 + 64 * 2] * 6 * extra


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_every_defence_trains_alike_on_several_processes(size: int, tmp_path: Path) -> None:
    names = [name for name in EVERY if "tiny" not in name or size < 4]  # batches of three images
    for name, results in shared(tmp_path, size, *names).items():
        check_same(trained(name), results[0])


def test_synchronised_batch_norms_see_the_whole_batch(two: dict[str, list[dict[str, Any]]]) -> None:
    """Which their own statistics do not, by far more than rounding."""
    one = trained("synced")["weights"]
    apart = {
        name: max(float((r["weights"][key] - one[key]).abs().max()) for key in one)
        for name, (r, _) in two.items()
        if name in ("norms", "synced")
    }
    assert apart["norms"] > 100 * apart["synced"]


def test_synchronising_needs_batch_norms_and_plain_passes() -> None:
    with pytest.raises(InputError, match="sync_batch_norm: the network has no batch-norm"):
        fit(plain_net(), bright(), made("at", "linf"), replace(OPTIONS, sync_batch_norm=True))
    with pytest.raises(InputError, match="sync_batch_norm with compile"):
        replace(OPTIONS, sync_batch_norm=True, compile=True)
    with pytest.raises(InputError, match="sync_batch_norm with checkpoint_stages=on"):
        replace(OPTIONS, sync_batch_norm=True, checkpoint_stages="on")


def test_batch_norms_end_with_the_statistics_of_rank_0(two: dict[str, list[dict[str, Any]]]) -> None:
    first, second = two["norms"]
    assert first["weights"]["1.running_mean"].abs().sum() > 0
    for key, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][key]), key
