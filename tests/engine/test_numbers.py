"""Numbers, names, random streams and files."""

import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustmaps.engine.device import device_of, resolve_device, resolve_precision
from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.files import atomic, sha256, write_json, write_text
from robustmaps.engine.numbers import as_fraction, check_at_least, check_eps, check_whole, human, parse_number
from robustmaps.engine.random import derive_seed, stream
from robustmaps.engine.reading.plain import read_json


@pytest.mark.parametrize(
    ("text", "number"),
    [("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("0.5", 0.5), ("1e-3", 1e-3), (3, 3.0), ("-1/4", -0.25)],
)
def test_numbers_are_read_as_people_write_them(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "8/0", "8/255/2", "nan", "inf", "eight", "1/inf/", True, None])
def test_what_is_no_number_is_refused(text: object) -> None:
    with pytest.raises(InputError, match=r"eps=.*expected a finite number or a fraction such as 8/255"):
        parse_number(text, "eps")  # type: ignore[arg-type]


@given(st.integers(1, 254))
def test_budgets_survive_being_written(levels: int) -> None:
    assert parse_number(as_fraction(levels / 255)) == levels / 255


def test_eps_in_the_wrong_unit_gets_a_hint() -> None:
    with pytest.raises(InputError, match=r"did you mean 8/255\?"):
        check_eps(8.0, "linf")
    check_eps(8.0, "l2")


@pytest.mark.parametrize("eps", [0, -0.1, float("nan"), float("inf"), "8/255"])
def test_a_budget_that_is_none_is_refused(eps: float) -> None:
    with pytest.raises(InputError, match="expected a positive number"):
        check_eps(eps, "linf")


def test_bounds_are_named() -> None:
    check_at_least("lr", 0.1, 0, exclusive=True)
    with pytest.raises(InputError, match="lr=0: expected a number above 0"):
        check_at_least("lr", 0, 0, exclusive=True)
    with pytest.raises(InputError, match="momentum=nan"):
        check_at_least("momentum", float("nan"), 0)
    for value in (0, 1.5, True, "3"):
        with pytest.raises(InputError, match=rf"steps={value!r}: expected a whole number of at least 1"):
            check_whole("steps", value, 1)  # type: ignore[arg-type]


def test_large_numbers_are_shortened() -> None:
    assert [human(n, "B") for n in (0, 999, 999.9, 12_500_000)] == ["0 B", "999 B", "1 kB", "12.5 MB"]


def test_an_unknown_name_lists_the_nearest_and_all() -> None:
    assert "did you mean 'vgg16'? Choices: resnet18, vgg16" in str(unknown("model", "vgg61", ["resnet18", "vgg16"]))
    assert "did you mean" not in str(unknown("model", "xyz", ["resnet18", "vgg16"]))
    many = str(unknown("recipe", "r-50", [f"r-{k}" for k in range(100, 300)]))
    assert "did you mean 'r-" in many
    assert many.endswith(", and 188 more")


def test_streams_are_told_apart_by_seed_and_name() -> None:
    names = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 11), (0, "a", 1, 1), (0, "a/1/1")]
    assert len({derive_seed(*name) for name in names[:-1]}) == 6
    assert all(0 <= derive_seed(*name) < 2**63 for name in names)


def test_a_stream_is_not_moved_by_other_draws() -> None:
    before = torch.rand(3, generator=stream(0, "attack", 1))
    torch.rand(100, generator=stream(0, "order"))
    state = torch.get_rng_state()
    assert torch.equal(before, torch.rand(3, generator=stream(0, "attack", 1)))
    assert torch.equal(state, torch.get_rng_state())


def test_a_seed_is_the_same_on_every_machine() -> None:
    # The first eight bytes of SHA-256("0/attack"), little endian, halved.
    assert derive_seed(0, "attack") == int.from_bytes(bytes.fromhex("f78d960ad2f63417"), "little") // 2


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    write_text(target, "old")

    def fail() -> None:
        with atomic(target, "w") as file:
            file.write("half of the ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(target.parent) == ["file.txt"]


def test_a_failing_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "file", "old")

    def replace(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no space left"):
        write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "atomic", "")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


def test_json_holds_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"x": 1}
    write_text(tmp_path / "empty", "")
    assert sha256(tmp_path / "empty").startswith("e3b0c44298fc1c14")


def test_devices_by_name() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "meta"):
        with pytest.raises(InputError, match=f"unknown device '{name}'"):
            resolve_device(name)
    with pytest.raises(InputError, match=r"this machine has \d+ CUDA devices; use 'cpu' or 'auto'"):
        resolve_device("cuda:99")


def test_precision_by_name() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("bf16", cpu) == "bf16"
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(InputError, match="unknown precision 'fp16'; did you mean 'bf16'"):
        resolve_precision("fp16", cpu)


def test_the_device_of_a_network_without_tensors_is_the_cpu() -> None:
    assert device_of(torch.nn.ReLU()) == torch.device("cpu")
    assert device_of(torch.nn.Linear(1, 1, device="meta")) == torch.device("meta")
