"""Fuzz the readers with coverage, by Atheris (libFuzzer), for as long as you like.

    pip install atheris
    python -m tests.faults.fuzz_readers evaluation -max_total_time=600

The first argument names a reader of `tests.helpers.readers`; the rest goes to libFuzzer.
"""

import sys
import tempfile
from pathlib import Path

from robustmaps.engine.errors import InputError

MISSING = "atheris is not installed: pip install atheris (it has wheels for Linux, and for some versions of Python)"


def main(arguments: list[str]) -> str | None:
    """Fuzz one reader; returns why not, if so."""
    try:
        import atheris
    except ImportError:
        return MISSING
    with atheris.instrument_imports():
        from tests.helpers.readers import READERS
    if not arguments or arguments[0] not in READERS:
        return f"expected one of: {', '.join(READERS)}"
    reader = READERS[arguments[0]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / reader.name

        def try_it(data: bytes) -> None:
            for other in path.parent.iterdir():
                other.unlink()
            path.write_bytes(data)
            try:
                reader.read(path)
            except InputError:
                return

        corpus = Path(folder).with_suffix(".corpus")
        corpus.mkdir()
        reader.write(path)
        path.rename(corpus / reader.name)
        atheris.Setup([sys.argv[0], str(corpus), *arguments[1:]], try_it)
        atheris.Fuzz()
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
