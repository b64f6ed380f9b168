"""The options of a section that were given. No PyTorch here."""

from dataclasses import fields
from typing import Any


def unusual(config: Any, apart: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a section that are not as usual, but for some."""
    values = {item.name: getattr(config, item.name) for item in fields(config) if item.name not in apart}
    return {name: value for name, value in values.items() if value != getattr(type(config), name)}
