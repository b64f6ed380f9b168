"""The folder tree is the architecture: a package imports from the layers below it and from nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import robustmaps

SOURCE = Path(robustmaps.__file__).parent

# Packages of one layer do not import each other. Report is told apart from experiments, which makes reports.
LAYERS = [
    {"engine"},
    {"models", "data"},
    {"attacks", "enlarging"},
    {"defenses", "analysis"},
    {"evaluation"},
    {"training"},
    {"report"},
    {"experiments"},
    {"cli"},
]
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
# They receive networks and need not know ours.
STRANGERS_TO_MODELS = {"attacks", "defenses", "training", "evaluation"}


def imported_packages(file: Path) -> set[str]:
    """The packages of robustmaps that a file imports, wherever in the file it does so."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    inside = {name.split(".")[1] for name in names if name.startswith("robustmaps.")}
    return {name for name in inside if not name.startswith("_")}


def packages() -> list[str]:
    return sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists())


def test_every_package_has_a_layer() -> None:
    assert set(packages()) <= set(LAYER)
    assert {"engine", "attacks", "training"} <= set(packages())


@pytest.mark.parametrize("package", packages())
def test_imports_point_down(package: str) -> None:
    upward = {
        f"{file.relative_to(SOURCE)} imports {other}"
        for file in (SOURCE / package).rglob("*.py")
        for other in imported_packages(file) - {package}
        if LAYER.get(other, len(LAYERS)) >= LAYER[package]
    }
    assert not upward


@pytest.mark.parametrize("package", sorted(STRANGERS_TO_MODELS))
def test_they_never_import_models(package: str) -> None:
    assert not [file for file in (SOURCE / package).rglob("*.py") if "models" in imported_packages(file)]


def test_the_walk_sees_every_form_of_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import robustmaps.models.vgg as v\nfrom robustmaps import data, _version\n"
        "def f():\n    from robustmaps.attacks._pgd import PGD\n"
    )
    assert imported_packages(file) == {"models", "data", "attacks"}


def test_importing_the_package_does_no_work() -> None:
    heavy = ["torch", "numpy", "matplotlib", "scipy", "sklearn"]
    code = f"import sys, robustmaps; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_importing_attacks_and_training_loads_no_plots() -> None:
    code = "import sys; from robustmaps import attacks, fit; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
