"""The places that images come from, one file each."""

from robustmaps.data.sources.registry import SourceRow, forms, register, resolve

__all__ = ["SourceRow", "forms", "register", "resolve"]
