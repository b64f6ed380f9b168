"""Ready studies: what the package's files ask for, and how they are called."""

import pytest

from robustmaps.config import find_ready, find_recipe, ready_studies
from robustmaps.engine.errors import InputError

STUDIES = ready_studies()


@pytest.mark.parametrize("scale", ["full", "cpu"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_file_is_a_study_at_both_scales(name, scale):
    study = STUDIES[name].study(scale)
    assert study.name == f"{name}-{scale}"
    assert study.points
    assert study.evaluations
    assert not any("matches no combination" in note for note in study.notes)


@pytest.mark.parametrize("name", STUDIES)
def test_the_full_one_follows_the_published_protocol(name):
    for point in STUDIES[name].study("full").points:
        assert find_recipe(point.config.origin.recipe).family in ("published", "extension")
        assert (point.config.data.data, point.config.data.validation) == ("cifar10", 0)
        assert (point.config.training.precision, point.config.training.ema) == ("fp32", 0)


@pytest.mark.parametrize("name", STUDIES)
def test_the_small_one_needs_no_download_and_no_gpu(name):
    for point in STUDIES[name].study("cpu").points:
        assert (point.config.data.data, point.config.training.device) == ("digits", "cpu")
        assert point.config.training.epochs <= 5


def test_what_the_paper_compares_is_there():
    def values(name, *keys):
        found = {}
        for point in STUDIES[name].study("full").points:
            flat = {**vars(point.config.model), **vars(point.config.training), "defense": point.config.defense.defense}
            found.setdefault(tuple(flat[key] for key in keys), set()).add(flat["seed"])
        return found

    grid = values("defenses", "model", "strides", "upsample", "defense")
    assert len(grid) == 4 * 3 * 6
    assert {each[-1] for each in grid} == {"standard", "at", "alp", "trades", "at-awp", "trades-awp"}
    assert all(seeds == {0, 1, 2, 3, 4} for seeds in grid.values())
    assert {strides for (strides,) in values("strides", "strides")} == {"1222", "1122", "1112", "1111"}
    assert {factor for (factor,) in values("scale-factors", "upsample")} == {1, 2, 3, 4}
    assert {mode for (mode,) in values("upsampling", "upsample_mode")} == {"nearest", "bilinear", "bicubic", "area"}
    assert {pool for (pool,) in values("pooling", "pool")} == {"avg", "max"}
    assert len(STUDIES["radii"].study("full").evaluations[0].attack.eps) > 4


def test_names_and_numbers_are_each_given_once():
    also = [study.also for study in STUDIES.values()]
    assert len({*STUDIES, *also}) == 2 * len(STUDIES)
    for kind in ("table", "figure"):
        numbers = [each.removeprefix(f"{kind}-") for each in also if each.startswith(kind)]
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


@pytest.mark.parametrize("called", ["table-2", "Table 2", "table_2", "strides", "Strides "])
def test_a_study_is_found_by_name_or_number(called):
    assert find_ready(called).name == "strides"


@pytest.mark.parametrize(("called", "near"), [("stride", "strides"), ("table-20", "table-2"), ("figure", "figure-")])
def test_an_unknown_one_gets_the_nearest(called, near):
    with pytest.raises(InputError, match=f"unknown run folder or ready study '{called}'; did you mean '{near}"):
        find_ready(called)


def test_other_images_are_for_the_full_one():
    full = find_ready("strides").study("full", data="mine.tar")
    assert {point.config.data.data for point in full.points} == {"mine.tar"}
    assert any("other strides, data" in note or "other data" in note for note in full.notes), full.notes
    with pytest.raises(InputError, match=r"data=mine.tar: --scale cpu uses embedded images"):
        find_ready("strides").study("cpu", data="mine.tar")
