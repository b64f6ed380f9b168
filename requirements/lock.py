"""Write the lock files beside this script, exact versions with their hashes (`make lock`).

`run.lock` has the package's own requirements but PyTorch, `dev.lock` also those of its tests, `docs.lock` what makes
the site in the same environment, `tools.lock` what makes a release. PyTorch has two files: `torch-cpu.lock` is its CPU
build, found in the folders of `PIP_FIND_LINKS`, and `torch.lock` the build of PyPI with the CUDA libraries that it
needs on Linux. Versions stay as they are unless `--upgrade` is passed to this script.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = re.compile(r"(torch==|(nvidia|cuda|triton)\b)")


def entries(output: Path, *arguments: str) -> list[str]:
    """Resolve for every platform; each entry is `name==version ; marker` with a line for each hash."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--no-header", "--no-annotate", "--output-file", str(output), *arguments, *sys.argv[1:]]
    if "--upgrade" not in sys.argv:
        command += ["--constraint", str(HERE / "torch.lock")]
    subprocess.run(command, check=True, cwd=HERE.parent)
    return re.split(r"\n(?=\S)", output.read_text().strip())


def cpu_builds(version: str) -> list[str]:
    """The hash of each CPU build of this version of PyTorch."""
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    wheels = [wheel for folder in folders for wheel in sorted(Path(folder).glob(f"torch-{version}+cpu-*.whl"))]
    if not wheels:
        raise SystemExit(f"PIP_FIND_LINKS={' '.join(folders)!r}: expected a folder with a CPU build of torch {version}")
    return [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]


def main() -> None:
    """Resolve each set of requirements and write its file."""
    sets = {
        "run": ["pyproject.toml", str(HERE / "backend.in")],
        "dev": ["pyproject.toml", str(HERE / "backend.in"), "--extra", "dev", "--group", "peers"],
        "docs": ["--group", "docs", "--constraint", str(HERE / "dev.lock")],
        "tools": ["--group", "tools"],
    }
    torch: set[str] = set()
    for name, arguments in sets.items():
        output = HERE / f"{name}.lock"
        kept = []
        for entry in entries(output, *arguments):
            (torch.add if TORCH.match(entry) else kept.append)(entry)
        output.write_text("\n".join(kept) + "\n")
    (version,) = (entry.split()[0].removeprefix("torch==") for entry in torch if entry.startswith("torch=="))
    hashes = [f"    --hash=sha256:{digest}" for digest in cpu_builds(version)]
    (HERE / "torch-cpu.lock").write_text(" \\\n".join([f"torch=={version}+cpu", *hashes]) + "\n")
    # Where a CPU build is found, pip takes it for `torch==VERSION`, too.
    builds = [" \\\n".join([entry, *hashes]) if entry.startswith("torch==") else entry for entry in sorted(torch)]
    (HERE / "torch.lock").write_text("\n".join(builds) + "\n")


if __name__ == "__main__":
    main()
