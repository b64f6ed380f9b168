"""Every recipe is a configuration, and the paper's grid is whole."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import product

import pytest

from robustmaps import models
from robustmaps.cli import main
from robustmaps.config import RunConfig, describe_recipe, read_recipe, recipe_names, to_mapping
from robustmaps.engine.errors import InputError
from robustmaps.networks import resolve
from robustmaps.runs import create_defense

NETWORKS = {
    "alexnet": ("2222", "1122"),
    "vgg16": ("22222", "11222"),
    "resnet18": ("1222", "1122"),
    "preactresnet18": ("1222", "1122"),
}
DEFENSES = ("standard", "at", "alp", "trades", "at-awp", "trades-awp")


def test_the_papers_grid_is_whole_and_says_what_it_says() -> None:
    for (network, (own, shrunk)), defense, data in product(NETWORKS.items(), DEFENSES, ("cifar10", "cifar100")):
        for variant in (own, shrunk, "up2"):
            name = f"{defense}-{network}-{variant}" + ("" if data == "cifar10" else f"-{data}")
            recipe = read_recipe(name)
            assert recipe.model.model.startswith(network)
            assert recipe.model.strides == (own if variant == "up2" else shrunk if variant == shrunk else own)
            assert recipe.model.upsample == (2 if variant == "up2" else 1)
            assert (recipe.data.data, recipe.defense.defense) == (data, defense)
            assert (recipe.training.batch_size, recipe.training.lr, recipe.training.weight_decay) == (128, 0.1, 5e-4)
            length = (164, "step:82,123") if defense == "standard" else (110, "step:100,105")
            assert (recipe.training.epochs, recipe.training.schedule) == length
            assert (recipe.training.momentum, recipe.data.validation) == (0.9, 1000)
            if defense != "standard":
                made = create_defense(recipe.defense)
                assert getattr(made, "gamma", None) == {"at-awp": 0.01, "trades-awp": 0.005}.get(defense)
                assert getattr(getattr(made, "defense", made), "beta", None) == {"alp": 0.5, "trades": 6.0}.get(
                    defense.removesuffix("-awp")
                )
                assert (recipe.defense.eps, recipe.defense.steps) == (8 / 255, 10)
                assert recipe.defense.step_size == pytest.approx(2 / 255)


def test_every_recipe_can_be_made_and_has_a_name_of_its_own() -> None:
    names = set()
    for name in recipe_names():
        recipe = read_recipe(name)
        names.add(resolve(recipe).config.name)
        assert recipe.model.model in models.names()
        assert create_defense(recipe.defense).name == recipe.defense.defense
        assert describe_recipe(name).endswith(".")
    assert len(names) == len(recipe_names()) >= 144


def test_no_recipe_has_changed_since_each_was_a_file_of_its_own() -> None:
    usual = to_mapping(RunConfig())
    recipes = {
        name: [describe_recipe(name), {k: v for k, v in to_mapping(read_recipe(name)).items() if v != usual[k]}]
        for name in recipe_names()
    }
    assert len(recipes) == 180
    assert list(recipes) == sorted(recipes)
    text = json.dumps(recipes, sort_keys=True)
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "7149810a541af5ffee6cdc77786742102edada916191361c2189ec379d7546d0"
    )


@pytest.mark.parametrize(
    ("name", "description", "values"),
    [
        (
            "trades-vgg16-up2-cifar100",
            "VGG-16 with batch-norm, images upsampled by 2, TRADES, CIFAR-100 (arXiv 2202.12435).",
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
            "dajat-awp-resnet18-1222",
            "ResNet-18, strides 1222, DAJAT with AWP, CIFAR-10: the strongest recipe without extra data "
            "(arXiv 2210.15318).",
            {"beta": 11, "awp_gamma": 0.005, "ema": 0.9996, "epochs": 200, "schedule": "cosine", "lr": 0.2},
        ),
    ],
)
def test_recipes_spelled_out(name: str, description: str, values: dict[str, object]) -> None:
    assert describe_recipe(name) == description
    recipe = to_mapping(read_recipe(name))
    assert {key: recipe[key] for key in values} == values


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


def test_an_unknown_recipe_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="did you mean 'at-resnet18-1122'"):
        read_recipe("at-resnet18-112")
    with pytest.raises(SystemExit):
        main(["train", "--recipe"])
    assert "Missing value for argument '--recipe'" in capsys.readouterr().err


def test_the_list_can_be_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "vgg16", "trades-awp", "cifar100"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "vgg16" in line]
    assert len(lines) == 3
    assert all("trades-awp-vgg16" in line and "cifar100" in line for line in lines)


def test_listing_needs_no_torch() -> None:
    code = "import sys; from robustmaps.cli import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
