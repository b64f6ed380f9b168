"""The folder tree is the architecture: a package imports from the layers below it and from nowhere else."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import robustmaps

SOURCE = Path(robustmaps.__file__).parent

# From the ground up. Packages of one layer do not import each other.
LAYERS = [
    {"engine"},
    {"tracing"},
    {"models", "data"},
    {"attacks", "enlarging"},
    {"defenses", "analysis"},
    {"evaluation"},
    {"training"},
    {"figures"},
    {"config"},
    {"networks"},
    {"runs"},
    {"studies"},
    {"report"},
    {"cli"},
]
LAYER = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
# They receive networks and need not know ours.
STRANGERS_TO_MODELS = {"attacks", "defenses", "training", "evaluation"}
MOST_FILES = 20


class Import(NamedTuple):
    """An import of something in robustmaps.

    Attributes:
        module: what is imported, or from which module.
        name: what is imported from it, None where the module itself is.
        for_types: below ``if TYPE_CHECKING``, which no program runs.
    """

    module: str
    name: str | None
    for_types: bool

    @property
    def package(self) -> str | None:
        """The package of robustmaps, None for a module beside the packages and for robustmaps itself."""
        parts = [*self.module.split("."), *([self.name] if self.name else [])]
        return parts[1] if len(parts) > 1 and parts[1] in LAYER else None

    @property
    def private(self) -> bool:
        """Whether it reaches for something whose name says that it is of no concern to others."""
        return any(part.startswith("_") and not part.endswith("__") for part in f"{self.module}.{self.name}".split("."))


def imports(file: Path) -> list[Import]:
    """All imports of robustmaps in a file, wherever in the file they are."""
    found = []

    def visit(node: ast.AST, for_types: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, None, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            found.extend(Import(str(node.module), alias.name, for_types) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, for_types)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, for_types)

    visit(ast.parse(file.read_text(encoding="utf-8")), False)
    return [each for each in found if each.module.split(".")[0] == "robustmaps"]


def packages() -> list[str]:
    return sorted(folder.name for folder in SOURCE.iterdir() if (folder / "__init__.py").exists())


def files_of(package: str) -> list[Path]:
    return sorted((SOURCE / package).rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(("robustmaps", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def circle(edges: Mapping[str, Iterable[str]]) -> list[str] | None:
    """The names along a circle, None where there is none."""
    done: set[str] = set()

    def search(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        for other in edges.get(name, ()):
            if found := search(other, [*way, name]):
                return found
        done.add(name)
        return None

    return next((found for name in edges if (found := search(name, []))), None)


def module_edges() -> dict[str, set[str]]:
    """Per module the modules that it imports when it runs.

    Imports for types alone are left out, since nothing is loaded by them: the ``__init__`` of a package with lazy names
    has its own modules there. A package's other modules may not go through that ``__init__``, though, so that the names
    it makes lazily never close a circle.
    """
    modules = {module_name(file) for package in packages() for file in files_of(package)}

    def targets(module: str, file: Path) -> Iterator[str]:
        for each in imports(file):
            if not each.for_types:
                inner = f"{each.module}.{each.name}"
                target = inner if inner in modules else each.module
                if target in modules and target != module:
                    yield target

    return {module_name(file): set(targets(module_name(file), file)) for p in packages() for file in files_of(p)}


def test_every_package_has_a_layer() -> None:
    assert set(packages()) == set(LAYER)


@pytest.mark.parametrize("package", packages())
def test_imports_point_down(package: str) -> None:
    upward = {
        f"{file.relative_to(SOURCE)} imports {each.package}"
        for file in files_of(package)
        for each in imports(file)
        if each.package not in (package, None) and LAYER[each.package] >= LAYER[package]
    }
    assert not upward


def test_nothing_below_imports_robustmaps_itself() -> None:
    """It has all packages, so that an import of a name of its own points up."""
    names = {"robustmaps", *(f"robustmaps.{name}" for name in robustmaps.__all__)} - {
        f"robustmaps.{package}" for package in packages()
    }
    wrong = {
        f"{module_name(file)} imports {each.name or each.module} from robustmaps"
        for package in packages()
        for file in files_of(package)
        for each in imports(file)
        if each.module == "robustmaps" and (each.name is None or f"robustmaps.{each.name}" in names)
    }
    assert not wrong


@pytest.mark.parametrize("package", packages())
def test_nothing_private_of_another_package_is_imported(package: str) -> None:
    reached = {
        f"{file.relative_to(SOURCE)} imports {each.module}.{each.name}"
        for file in files_of(package)
        for each in imports(file)
        if each.package not in (package, None) and each.private
    }
    assert not reached


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    edges = {
        package: {each.package for file in files_of(package) for each in imports(file) if each.package} - {package}
        for package in packages()
    }
    assert circle(edges) is None


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert circle(module_edges()) is None


@pytest.mark.parametrize("package", packages())
def test_a_module_does_not_go_through_its_own_package(package: str) -> None:
    own = {
        f"{file.relative_to(SOURCE)} imports {each.name} from {each.module}"
        for file in files_of(package)
        for each in imports(file)
        if each.module == f"robustmaps.{package}"
        and not (SOURCE / package / f"{each.name}.py").exists()
        and not (SOURCE / package / str(each.name)).is_dir()
    }
    assert not own


def test_no_folder_is_a_drawer() -> None:
    folders = {folder for folder in SOURCE.rglob("*") if (folder / "__init__.py").exists()}
    counts = {str(folder.relative_to(SOURCE)): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {name: count for name, count in counts.items() if count > MOST_FILES}


@pytest.mark.parametrize("package", packages())
def test_every_package_names_its_idea_in_a_sentence(package: str) -> None:
    text = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    first, *more = text.partition("\n\n")[0].splitlines() or [""]
    assert first.endswith(".")
    assert not more


@pytest.mark.parametrize("package", sorted(STRANGERS_TO_MODELS))
def test_they_never_import_models(package: str) -> None:
    assert not [file for file in files_of(package) if "models" in {each.package for each in imports(file)}]


def test_the_walk_sees_every_form_of_import(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "import os, robustmaps.models.vgg as v\nfrom robustmaps import data, _version\n"
        "if TYPE_CHECKING:\n    from robustmaps.report import Page\nelse:\n    import robustmaps.runs\n"
        "def f():\n    from robustmaps.attacks._pgd import PGD\n"
        "class C:\n    try:\n        from robustmaps.engine import view\n    except ImportError:\n        pass\n"
    )
    found = imports(file)
    assert {each.package for each in found} == {"models", "data", None, "report", "runs", "attacks", "engine"}
    assert [each.name for each in found if each.for_types] == ["Page"]
    assert [each.module for each in found if each.private and each.package] == ["robustmaps.attacks._pgd"]


def test_the_walk_refuses_relative_imports(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("from ._pgd import PGD\n")
    with pytest.raises(AssertionError, match="relative import"):
        imports(file)


def test_private_names_of_a_package_are_seen_in_every_form() -> None:
    assert Import("robustmaps.attacks._pgd", "PGD", False).private
    assert Import("robustmaps.attacks", "_pgd", False).private
    assert Import("robustmaps.attacks._pgd", None, False).private
    assert not Import("robustmaps", "__version__", False).private
    assert not Import("robustmaps.attacks", "PGD", False).private


def test_circles_are_found() -> None:
    assert circle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) is None


# Calls that write, move or remove; files are written through `robustmaps.engine.files`, into places claimed before.
WRITING_METHODS = {
    *("write_text", "write_bytes", "unlink", "rename", "rmdir", "mkdir", "touch", "symlink_to", "hardlink_to"),
    *("rmtree", "move", "copy", "copy2", "copyfile", "copytree", "makedirs", "removedirs", "remove", "link"),
    *("mkstemp", "mkdtemp", "TemporaryDirectory", "NamedTemporaryFile", "FileLock", "SummaryWriter", "save_file"),
}
OF_MODULES = {"copy", "copy2", "remove", "move", "link"}  # methods of many things; of files only in these modules
FILE_MODULES = {"os", "shutil"}
WRITERS = {
    "cli/_terminal/_streams.py": "standard streams that are closed, to nowhere",
    "data/memory_map.py": "arrays in a temporary folder of the cache",
    "data/store.py": "arrays in a temporary folder of the cache",
    "runs/_loaded/_hub.py": "a temporary folder, whose files are uploaded",
    "runs/_record.py": "tries whether a run's lock is free",
    "studies/_cluster/_worker.py": "a temporary folder of a machine that does not see that of the study",
    "training/loggers/_tensorboard.py": "events, whose names are new each time",
}


def written(file: Path) -> list[str]:
    """The calls in a file that write other than through the engine."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = (
            function.value.id if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) else ""
        )
        texts = [
            each.value for each in (*node.args, *(k.value for k in node.keywords)) if isinstance(each, ast.Constant)
        ]
        is_open = name == "open" and any(isinstance(t, str) and t[:1] in ("w", "a", "x") and len(t) < 4 for t in texts)
        is_replace = name == "replace" and (
            owner == "os" or (isinstance(function, ast.Attribute) and len(node.args) == 1 and not node.keywords)
        )
        writes = name in WRITING_METHODS and (name not in OF_MODULES or owner in FILE_MODULES)
        plain = isinstance(function, ast.Name) and name in ("write_text", "remove")
        if (is_open or is_replace or writes) and not plain:
            found.append(f"{name} in line {node.lineno}")
    return found


@pytest.mark.parametrize("package", [name for name in packages() if name != "engine"])
def test_files_are_written_through_the_engine(package: str) -> None:
    found = {str(file.relative_to(SOURCE)): written(file) for file in files_of(package)}
    assert not {name: calls for name, calls in found.items() if calls and name not in WRITERS}


def test_the_walk_sees_every_form_of_writing(tmp_path: Path) -> None:
    assert all(written(SOURCE / name) for name in WRITERS)
    file = tmp_path / "module.py"
    lines = [
        *("open(p, 'w')", "p.open('ab')", "open(p, mode='x')", "p.write_text('')", "p.unlink()", "os.replace(p, q)"),
        *("p.replace(q)", "shutil.rmtree(p)", "os.remove(p)", "p.mkdir()", "tempfile.mkdtemp()", "save_file(t, p)"),
    ]
    file.write_text("\n".join(lines))
    assert len(written(file)) == len(lines)
    file.write_text(
        "open(p)\np.open('rb')\nt.replace('a', 'b')\nreplace(x, a=1)\nx.copy()\nl.remove(1)\nwrite_text(p, '')"
    )
    assert not written(file)


def test_importing_the_package_does_no_work() -> None:
    heavy = ["torch", "numpy", "matplotlib", "scipy", "sklearn"]
    code = f"import sys, robustmaps; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_importing_attacks_and_training_loads_no_plots() -> None:
    code = "import sys; from robustmaps import attacks, fit; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_the_configuration_needs_no_torch() -> None:
    code = (
        "import sys; from robustmaps import config; [getattr(config, name) for name in config.__all__]; "
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_every_public_name_is_there_and_documented() -> None:
    assert robustmaps.__doc__ is not None
    for name in robustmaps.__all__:
        assert getattr(robustmaps, name) is not None
        assert name == "__version__" or f"`{name}`" in robustmaps.__doc__, name
