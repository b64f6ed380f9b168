"""One thin command per verb: it parses, calls the packages below and prints, and decides nothing."""

from robustmaps.cli._main import main

__all__ = ["main"]
