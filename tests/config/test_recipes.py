"""Every recipe is a configuration, and the published ones are as published, value by value."""

import json
import math
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from robustmaps import models
from robustmaps.cli import main
from robustmaps.config import (
    RunConfig,
    departures,
    describe_recipe,
    find_recipe,
    from_mapping,
    in_effect,
    read_recipe,
    recipe_names,
    to_mapping,
)
from robustmaps.engine.errors import InputError
from robustmaps.networks import resolve
from robustmaps.runs import create_defense
from robustmaps.training._schedule import parse_schedule

# The defaults of the published programs, written down from their option parsers: weight decay, eps, length of a step,
# parameters of the defence, and the learning rate as (number of epochs, rate) from the first epoch to the last.
HUNDRED_AND_TEN = ((100, 0.1), (5, 0.01), (5, 0.001))
TWO_HUNDRED = ((100, 0.1), (50, 0.01), (50, 0.001))
PUBLISHED: dict[str, tuple[float, float | None, float | None, dict[str, Any], tuple[tuple[int, float], ...]]] = {
    "standard": (2e-4, None, None, {}, ((82, 0.1), (41, 0.01), (41, 0.001))),
    "at": (5e-4, 8 / 255, 2 / 255, {}, HUNDRED_AND_TEN),
    "alp": (5e-4, 8 / 255, 2 / 255, {"beta": 0.5}, HUNDRED_AND_TEN),
    "trades": (5e-4, 8 / 255, 0.007, {"beta": 6}, HUNDRED_AND_TEN),
    "at-awp": (5e-4, 8 / 255, 2 / 255, {"gamma": 0.01, "warmup": 0}, TWO_HUNDRED),
    "trades-awp": (5e-4, 8 / 255, 2 / 255, {"beta": 6, "gamma": 0.005, "warmup": 0.05}, TWO_HUNDRED),
    "mart": (3.5e-3, 8 / 255, 0.007, {"beta": 5, "form": "published"}, ((75, 0.01), (15, 0.001), (30, 0.0001))),
    "fat": (2e-4, 0.031, 2 / 255, {"step_noise": 0.001, "tau": None}, ((58, 0.1), (30, 0.01), (20, 1e-3), (12, 5e-4))),
    "fat-trades": (5e-4, 0.031, 0.007, {"beta": 6, "step_noise": 0, "tau": None}, ((73, 0.1), (12, 0.01))),
}
VARIANTS = {
    "alexnet": {
        "2222": ("2222", 1),
        "1122": ("1122", 1),
        "up2": ("2222", 2),
        "1122-up2": ("1122", 2),
    },
    "vgg16": {
        "22222": ("22222", 1),
        "11222": ("11222", 1),
        "up2": ("22222", 2),
        "11222-up2": ("11222", 2),
    },
    "resnet18": {"1222": ("1222", 1), "1122": ("1122", 1), "up2": ("1222", 2)},
    "preactresnet18": {"1222": ("1222", 1), "1122": ("1122", 1), "up2": ("1222", 2)},
}
NAMES = {
    f"{defense}-{network}-{variant}{'' if data == 'cifar10' else '-cifar100'}": (defense, network, *size, data)
    for defense in PUBLISHED
    for network, variants in VARIANTS.items()
    for variant, size in variants.items()
    for data in ("cifar10", "cifar100")
}


def rates(config: RunConfig) -> list[float]:
    schedule = parse_schedule(config.training.schedule, config.training.epochs)
    return [config.training.lr * schedule(epoch) for epoch in range(config.training.epochs)]


def parameter(defense: Any, name: str) -> Any:
    return getattr(defense, name) if hasattr(defense, name) else getattr(defense.defense, name)


@pytest.mark.parametrize("defense", PUBLISHED)
def test_published_recipes_are_as_published(defense: str) -> None:
    decay, eps, step, parameters, segments = PUBLISHED[defense]
    for name, (_, network, strides, upsample, data) in ((n, v) for n, v in NAMES.items() if v[0] == defense):
        config = read_recipe(name)
        assert config.model.model == ("vgg16_bn" if network == "vgg16" else network)
        assert (config.model.strides, config.model.upsample, config.model.upsample_mode) == (
            strides,
            upsample,
            "nearest",
        )
        assert (config.data.data, config.data.validation, config.data.train_samples) == (data, 0, None)
        assert (config.data.augment, config.model.init, config.training.precision) == ("published", "published", "fp32")
        training = config.training
        assert (training.optimizer, training.momentum, training.batch_size) == ("sgd", 0.9, 128)
        assert (training.weight_decay, training.ema, training.swa, training.label_smoothing) == (decay, 0, 0, 0)
        assert rates(config) == pytest.approx([rate for epochs, rate in segments for _ in range(epochs)], rel=1e-12)
        made: Any = create_defense(config.defense)
        assert made.name == defense
        assert {key: parameter(made, key) for key in parameters} == parameters
        if made.attack is not None:
            attack = made.attack
            assert (attack.norm, attack.steps, attack.restarts) == ("linf", 10, 1)
            assert (attack.eps, attack.step_length) == (pytest.approx(eps), pytest.approx(step))
            kl = "trades" in defense
            assert (attack.loss, attack.start) == (("kl", "normal") if kl else ("ce", "uniform"))


@pytest.mark.parametrize("ending", ["1222", "1122", "up2"])
def test_dajat_is_as_published(ending: str) -> None:
    for data, beta, smoothing in (("", 11, 0), ("-cifar100", 9, 0.1)):
        config = read_recipe(f"dajat-awp-resnet18-{ending}{data}")
        assert (config.training.weight_decay, config.training.ema, config.training.batch_size) == (5e-4, 0.9996, 128)
        assert (config.training.label_smoothing, config.data.validation) == (smoothing, 0)
        assert rates(config) == pytest.approx([0.1 * (1 + math.cos(math.pi * epoch / 200)) for epoch in range(200)])
        made: Any = create_defense(config.defense)
        assert (made.gamma, made.warmup) == (0.005, 0.05)
        assert (made.defense.beta, made.defense.copies, made.defense.consistency) == (beta, 2, 2)


def test_a_recipe_says_whether_it_is_published_and_what_is_open() -> None:
    families = {name: find_recipe(name).family for name in recipe_names()}
    for name, (defense, network, _, upsample, _) in NAMES.items():
        program = defense in ("standard", "at", "alp", "trades") or network != "alexnet"
        shown = upsample == 1 or network != "preactresnet18"
        assert families[name] == ("published" if program and shown else "extension"), name
        assert families[f"ours-{name}"] == "ours"
        assert ("whether upsampling starts from" in find_recipe(name).open) == (
            upsample == 2 and network in ("alexnet", "vgg16")
        )
    assert find_recipe("trades-awp-resnet18-up2").program == "AWP/TRADES.py"
    assert families["dajat-awp-resnet18-1122"] == "published"
    assert families["dajat-awp-resnet18-up2"] == "extension"
    assert "holds out 1,000" in find_recipe("dajat-awp-resnet18-1222").open
    small = [name for name, family in families.items() if family == "small"]
    assert len(small) == 37
    assert all("resnet8" in name for name in small)
    assert set(families) == {*NAMES, *(f"ours-{name}" for name in NAMES), *small} | {
        f"{ours}dajat-awp-resnet18-{variant}{data}"
        for ours in ("", "ours-")
        for variant in ("1222", "1122", "up2")
        for data in ("", "-cifar100")
    }


def test_ours_differ_from_the_published_ones_in_what_is_said() -> None:
    for name in NAMES:
        ours, published = to_mapping(read_recipe(f"ours-{name}")), to_mapping(read_recipe(name))
        other = {key: value for key, value in ours.items() if value != published[key]}
        assert other == {
            "validation": 1000,
            "ema": 0.999,
            "augment": "auto",
            "init": "kaiming",
            "precision": "auto",
            "recipe": f"ours-{name}",
        }


def test_every_recipe_can_be_made_and_has_a_name_of_its_own() -> None:
    names = set()
    known = models.names()
    for name in recipe_names():
        recipe = read_recipe(name)
        names.add(resolve(recipe).config.name)
        assert recipe.model.model in known
        assert recipe.origin.recipe == name
        assert create_defense(recipe.defense).name == recipe.defense.defense
        assert describe_recipe(name).endswith(".")
    assert len(names) == len(recipe_names()) == 553
    assert list(recipe_names()) == sorted(recipe_names())


@pytest.mark.parametrize(
    ("name", "description", "values"),
    [
        (
            "trades-vgg16-up2-cifar100",
            "VGG-16 with batch-norm, strides 22222, images upsampled by 2, TRADES, CIFAR-100.",
            {"model": "vgg16_bn", "strides": "22222", "upsample": 2, "data": "cifar100", "eps": "8/255", "epochs": 110},
        ),
        (
            "free-at-resnet8-122-digits",
            "ResNet-8, strides 122, free AT: digits, a minute or so on one core.",
            {"model": "resnet8", "strides": "122", "upsample": 1, "eps": 0.15, "steps": 10, "epochs": 5, "lr": 0.2},
        ),
        (
            "at-awp-resnet8-112-fashion_mnist",
            "ResNet-8, strides 112, AT-AWP: Fashion-MNIST at 14 pixels, a few minutes on one core.",
            {"strides": "112", "image_size": 14, "train_samples": 6400, "validation": 500, "eps": 0.1, "epochs": 8},
        ),
        (
            "ours-dajat-awp-resnet18-1222",
            "ResNet-18, strides 1222, DAJAT with AWP, CIFAR-10.",
            {"beta": 11, "awp_gamma": 0.005, "ema": 0.9996, "epochs": 200, "schedule": "cosine", "validation": 1000},
        ),
    ],
)
def test_recipes_spelled_out(name: str, description: str, values: dict[str, object]) -> None:
    assert describe_recipe(name) == description
    recipe = to_mapping(read_recipe(name))
    assert {key: recipe[key] for key in values} == values


@pytest.mark.parametrize("name", [name for name in recipe_names() if find_recipe(name).family == "small"])
def test_small_recipes_follow_the_one_cycle_schedule(name: str) -> None:
    config = read_recipe(name)
    (peak, epochs) = next(
        found
        for ending, found in {
            "free-at-resnet8-122-digits": (0.2, 5),
            "digits": (0.2, 20),
            "cifar10-small": (0.1, 4),
            "fashion_mnist": (0.1, 8),
        }.items()
        if name.endswith(ending)
    )
    # Up over the first three tenths, down over the rest.
    expected = [
        peak * (epoch / (0.3 * epochs) if epoch < 0.3 * epochs else (epochs - epoch) / (0.7 * epochs))
        for epoch in range(epochs)
    ]
    assert rates(config) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"recipe": "at-resnet18-1222"}, None),
        ({"recipe": "at-resnet18-1222", "seed": 4, "device": "cpu", "protocol": "published"}, None),
        ({"recipe": "at-resnet18-1222", "strides": 1122}, "this is the recipe at-resnet18-1122"),
        (
            {"recipe": "at-resnet18-1222", "epochs": 5, "strides": "1112"},
            "not the published recipe at-resnet18-1222 any more: strides 1112 instead of 1222, epochs 5 instead of 110",
        ),
        (
            {"recipe": "trades-vgg16-up2", "validation": 1000},
            "not the published recipe trades-vgg16-up2 any more: validation 1000 instead of 0",
        ),
        (
            {"recipe": "trades-preactresnet18-up2", "upsample_mode": "bicubic"},
            "not the recipe trades-preactresnet18-up2 any more: upsample_mode bicubic instead of nearest",
        ),
        ({"recipe": "ours-at-resnet18-1222", "epochs": 5}, None),
        ({"recipe": "at-resnet8-122-digits", "epochs": 5}, None),
        (
            {"protocol": "published", "model": "resnet20"},
            "not the published network of the name resnet20: that is resnet20_conv_shortcut here",
        ),
        ({"protocol": "published", "model": "resnet20_conv_shortcut"}, None),
        ({"protocol": "published", "model": "vgg16_bn", "strides": "11222"}, None),
        (
            {"protocol": "published", "model": "vgg16_bn", "strides": "11322"},
            "not the published network of the name vgg16_bn: that is vgg16_bn_pool2 here",
        ),
    ],
)
def test_what_departs_from_the_publication_is_said(values: dict[str, Any], line: str | None) -> None:
    assert departures(from_mapping(values)) == ([] if line is None else [line])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "at-resnet18-112"}, "unknown recipe 'at-resnet18-112'; did you mean 'at-resnet18-1122'"),
        (
            {"recipe": "at-resnet18-1222", "defense": "trades"},
            "defense=trades: the recipe at-resnet18-1222 is one of at; take trades-resnet18-1222, or leave defense out",
        ),
        (
            {"recipe": "ours-trades-awp-vgg16-up2", "defense": "mart"},
            "is one of trades-awp; take ours-mart-vgg16-up2, or leave defense out",
        ),
        ({"recipe": "at-resnet18-1222", "defense": "hat"}, "is one of at; leave defense out, or the recipe"),
        (
            {"recipe": "ours-at-resnet18-1222", "protocol": "published"},
            "the recipe ours-at-resnet18-1222 is ours, with validation images and averaged weights; take "
            "at-resnet18-1222, or leave the protocol out",
        ),
        ({"protocol": "published", "validation": 0.1}, "validation=0.1: the published protocol trains on all images"),
        ({"protocol": "published", "precision": "bf16"}, "precision=bf16: the published protocol computes in float32"),
        ({"protocol": "published", "swa": 0.5}, "swa=0.5: the published protocol keeps the weights of the last epoch"),
        ({"protocol": "published", "augment": "none"}, "augment=none: the published protocol augments as published"),
        ({"protocol": "published", "init": "kaiming"}, "init=kaiming: the published protocol begins with weights"),
        ({"recipe": "at-resnet18-1222", "protocol": "published", "ema": 0.9}, "ema=0.9: the published protocol keeps"),
        ({"protocol": "publisht"}, "protocol 'publisht'; did you mean 'published'"),
    ],
)
def test_what_contradicts_a_recipe_or_the_protocol_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        from_mapping(values)


def test_the_protocol_works_with_any_options_and_recipes() -> None:
    plain = from_mapping({"protocol": "published", "data": "mnist", "defense": "trades", "epochs": 3})
    small = from_mapping({"protocol": "published", "recipe": "at-resnet8-112-cifar10-small"})
    dajat = from_mapping({"protocol": "published", "recipe": "dajat-awp-resnet18-1222"})
    for config in (plain, small, dajat):
        assert (config.data.validation, config.data.augment) == (0, "published")
        assert (config.model.init, config.training.precision) == ("published", "fp32")
    assert (plain.training.epochs, plain.defense.defense) == (3, "trades")
    assert (small.data.train_samples, small.training.schedule) == (5000, "one-cycle")
    assert dajat.training.ema == 0.9996
    # In whatever order they are given.
    first = from_mapping({"protocol": "published"})
    assert from_mapping({"recipe": "at-resnet8-112-cifar10-small"}, first) == small
    again = from_mapping({"protocol": "published"}, read_recipe("at-resnet8-112-cifar10-small"))
    assert again == small
    with pytest.raises(InputError, match="the recipe ours-at-resnet18-1222 is ours"):
        from_mapping({"recipe": "ours-at-resnet18-1222"}, first)


def test_the_values_name_a_run_not_where_they_come_from() -> None:
    recipe = read_recipe("at-resnet18-1122")
    keys = {"model": "resnet18", "strides": "1122", "data": "cifar10", "step_size": "2/255"}
    assert from_mapping({"protocol": "published", "schedule": "step:100,105", **keys}).name == recipe.name
    assert from_mapping(to_mapping(recipe)) == recipe


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["at-awp-resnet8-112-cifar10-small", "trades-resnet8-up2-cifar10-small"])
def test_a_recipe_takes_its_images_from_an_archive(tmp_path, recipe: str) -> None:
    archive = os.environ.get("ROBUSTMAPS_CIFAR10")
    if archive is None:
        pytest.skip("ROBUSTMAPS_CIFAR10 is not set to a tar archive of CIFAR-10 in class folders")
    given = ["--epochs", "1", "--steps", "1", "--train-samples", "500", "--device", "cpu"]
    assert main(["train", "--recipe", recipe, "--data", archive, *given, "--out", str(tmp_path)]) == 0
    (run,) = tmp_path.iterdir()
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_recipe_is_trained_and_the_command_line_wins(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--epochs", "1", "--steps", "1", "--train-samples", "64", "--device", "cpu"]
    assert main(["train", "--recipe", "at-resnet8-up2-digits", *given, "--out", str(tmp_path)]) == 0
    (run,) = tmp_path.iterdir()
    assert run.name.startswith("digits-resnet8-122-up2-at-seed0")
    text = (run / "config.yaml").read_text()
    assert "eps: 0.15" in text
    assert "epochs: 1\n" in text
    capsys.readouterr()
    config = tmp_path / "more.yaml"
    config.write_text("seed: 3")
    assert (
        main(
            [
                "train",
                "--recipe",
                "at-resnet8-122-digits",
                "--config",
                str(config),
                *given,
                "--out",
                str(tmp_path / "b"),
            ]
        )
        == 0
    )
    assert "seed3" in next((tmp_path / "b").iterdir()).name


def test_an_option_without_its_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--recipe"])
    assert "Missing value for argument '--recipe'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--recipe at-resnet18-1222 --defense trades", "take trades-resnet18-1222"),
        ("--recipe at-resnet18-12222", "did you mean 'at-resnet18-1222'"),
        ("--protocol published --validation 0.1", "leave validation or the protocol out"),
        ("--recipe ours-at-resnet18-1222 --protocol published", "take at-resnet18-1222"),
        ("--config file.yaml --protocol published", "precision=bf16: the published protocol"),
        ("--config file.yaml --recipe at-resnet18-1222", "the recipe at-resnet18-1222 is given already"),
        ("--model timm:resnet18 --init published", "is no built-in network; leave init out"),
    ],
)
def test_contradictions_on_the_command_line_write_nothing(
    line: str, message: str, tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text("recipe: at-resnet18-1122\nprecision: bf16\n")
    assert main(["train", *line.split(), "--out", "runs"]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file.yaml"]


def test_a_run_of_the_protocol_keeps_the_last_epoch(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--epochs", "2", "--steps", "1", "--train-samples", "64", "--model", "resnet8_conv_shortcut"]
    assert main(["train", "--protocol", "published", *given, "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert "The weights are those of the last epoch, 2, since no images were held out" in capsys.readouterr().out
    (run,) = tmp_path.iterdir()
    text = (run / "config.yaml").read_text()
    for line in ("protocol: published", "validation: 0.0", "precision: fp32", "init: published", "recipe: null"):
        assert f"\n{line}\n" in text
    # It goes on with the same word, and from its own folder.
    assert main(["train", "--resume", str(run)]) == 0
    assert "validation" not in (run / "metrics.jsonl").read_text()


def test_departures_are_said_and_recorded(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", "digits", "--epochs", "1", "--steps", "1", "--train-samples", "32", "--device", "cpu"]
    recipe = ["--recipe", "at-resnet18-1222", "--model", "resnet8", "--strides", "122", "--schedule", "constant"]
    assert main(["train", *recipe, *given, "--out", str(tmp_path)]) == 0
    line = "not the published recipe at-resnet18-1222 any more: model resnet8 instead of resnet18"
    assert f"note: {line}" in capsys.readouterr().err
    (run,) = tmp_path.iterdir()
    assert line in (run / "log.txt").read_text()
    assert "\nrecipe: at-resnet18-1222\n" in (run / "config.yaml").read_text()


def test_the_list_says_family_program_and_open_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "published", "at-alexnet-up2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["recipes"]) == ["at-alexnet-up2", "at-alexnet-up2-cifar100"]
    about = found["about"]["at-alexnet-up2"]
    assert (about["family"], about["program"]) == ("published", "Major/AT.py")
    assert about["open"] == "whether upsampling starts from strides 2222 or 1122; 1122 is offered too"
    assert main(["recipes", "extension", "at-awp-alexnet-1122"]) == 0
    out = capsys.readouterr().out
    assert "AWP/AT.py" in out
    assert "Open: whether upsampling starts from" in out


def test_the_list_can_be_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "published", "vgg16", "trades-awp", "cifar100"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "vgg16" in line]
    assert len(lines) == 4
    assert all("trades-awp-vgg16" in line and "cifar100" in line for line in lines)


def test_listing_needs_no_torch() -> None:
    code = "import sys; from robustmaps.cli import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_words_are_whole_parts_of_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "at", "small"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " small " in line]
    assert names
    assert all("at" in name.split("-") for name in names)
    assert main(["recipes", "at", "resnet18-1122", "cifar10", "published", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["recipes"]) == {"at-resnet18-1122", "at-awp-resnet18-1122"}
    assert main(["recipes", "resnt18"]) == 2
    assert "did you mean 'resnet18'" in capsys.readouterr().err


def test_the_list_fits_and_says_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines if " published " in line or " ours " in line) < 165
    notes = [line for line in lines if "Open:" in line]
    assert len(notes) == len(set(notes)) == 6


@pytest.mark.parametrize(
    ("recipe", "without", "kept"),
    [
        ("standard-resnet18-1222", {"eps", "norm", "steps", "step_size", "beta", "upsample_mode"}, {"lr"}),
        ("dajat-awp-resnet18-1222", {"steps", "step_size", "tau"}, {"eps", "beta", "awp_gamma", "awp_warmup"}),
        ("at-resnet18-1222", {"beta", "awp_gamma", "tau", "replays", "helper"}, {"eps", "steps", "step_size"}),
        ("free-at-resnet8-122-digits", {"steps", "beta"}, {"eps", "replays"}),
        ("trades-resnet18-up2", {"tau"}, {"upsample_mode", "beta", "steps"}),
    ],
)
def test_only_what_has_an_effect_is_listed(recipe: str, without: set[str], kept: set[str]) -> None:
    listed = in_effect(read_recipe(recipe))
    assert not without & set(listed)
    assert kept <= set(listed)


def test_no_none_among_choices_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["train", "--pool", "x"], ["reproduce", "strides", "--scale", "x"], ["evaluate", "r", "--norm", "x"]):
        with pytest.raises(SystemExit):
            main(words)
        text = capsys.readouterr().err
        assert "Expected one of" in text
        assert "None" not in text
    config = from_mapping({"recipe": "at-resnet18-1122", "pool": "max", "strides": None})
    (note,) = departures(config)
    assert "pool max instead of default" in note
    assert "strides default instead of 1122" in note
