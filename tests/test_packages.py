"""The packages: what is in them, that they work in an environment of their own, and which Pythons run the source."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LIBRARIES = sysconfig.get_path("purelib")
DECLARED = [
    found[1]
    for each in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
]


def interpreter(version):
    """A Python of this version, None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for each in filter(None, candidates):
        asked = subprocess.run([each, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if asked.returncode == 0 and asked.stdout.strip() == str(tuple(map(int, version.split(".")))):
            return each
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


def test_the_wheel_has_the_pages_and_nothing_that_it_does_not_need(built):
    names = zipfile.ZipFile(built["wheel"]).namelist()
    pages = {name.removeprefix("robustmaps/pages/") for name in names if name.startswith("robustmaps/pages/")}
    assert pages == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert "robustmaps/py.typed" in names
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == {"robustmaps"}


def test_the_sdist_has_what_builds_tests_and_documents_it(built):
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ("LICENSE", "README.md", "CITATION.cff", "SECURITY.md", "mkdocs.yml", "website/hooks.py", "Makefile")
    assert set(wanted) <= names
    assert any(name.startswith("tests/") for name in names)
    assert not [name for name in names if name.startswith((".venv", "build/", "dist/", "runs/"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_works_in_an_environment_of_its_own(kind, built, tmp_path):
    """The package is installed there; the libraries that it needs are those of this environment."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(LIBRARIES + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    install += ["--ignore-installed", str(built[kind])]
    subprocess.run(install, check=True, env=environment, cwd=tmp_path)

    def command(*words):
        done = subprocess.run(
            [str(tmp_path / "venv" / "bin" / "robustmaps"), *words],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [str(python), "-c", "import robustmaps; print(robustmaps.__file__)"]
    place = subprocess.run(where, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout
    assert Path(place.strip()).is_relative_to(tmp_path)
    assert "Does the loss have a gradient?" in command("explain", "zero-gradients")
    assert "at-resnet18-1122" in command("recipes", "published", "resnet18")
    train = [
        "--data",
        "digits",
        "--model",
        "resnet8",
        "--eps",
        "0.1",
        "--steps",
        "1",
        "--epochs",
        "1",
        "--device",
        "cpu",
    ]
    run = json.loads(command("train", *train, "--json"))["run"]
    command("evaluate", run, "--attack", "fgsm", "--samples", "20", "--device", "cpu")
    assert (tmp_path / run / "config.yaml").exists()


def test_the_oldest_python_is_the_first_that_is_declared():
    assert PROJECT["requires-python"] == f">={DECLARED[0]}"
    assert DECLARED == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("version", DECLARED)
def test_each_declared_python_runs_what_needs_no_compiled_library(version):
    """All of the source compiles there without a warning, and commands run that need none of PyTorch and NumPy."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} is here")
    source = (
        "import sys, pathlib\nfor f in pathlib.Path(sys.argv[1]).rglob('*.py'): compile(f.read_bytes(), str(f), 'exec')"
    )
    subprocess.run([python, "-W", "error", "-c", source, str(ROOT / "src")], check=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), LIBRARIES])}
    for words in (
        ["--help"],
        ["explain", "chance"],
        ["recipes", "published"],
        ["train", "--help"],
        ["evaluate", "--help"],
    ):
        done = subprocess.run([python, "-m", "robustmaps", *words], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert done.stdout


def test_the_citation_is_that_of_the_readme():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"https://doi.org/{cited['doi']}" in readme
    assert ", ".join(author["family-names"] for author in cited["authors"]) in readme
    assert cited["title"] in " ".join(readme.split())
    assert cited["identifiers"][0]["value"].removeprefix("arXiv:") in readme
    assert PROJECT["urls"]["Paper"] == f"https://doi.org/{cited['doi']}"
