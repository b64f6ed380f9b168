"""Layer 6: one thin command per verb. Nothing is decided here; it parses, calls layer 5 and prints."""

from robustmaps.cli._main import main

__all__ = ["main"]
