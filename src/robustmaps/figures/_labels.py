"""Labels beside points, none over another or over a point."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_SIZE = 12
_HEIGHT = 4 / 3
_DISTANCES = (3.0, 14.0, 30.0, 50.0)
_EIGHTHS = (-1, 1, -3, 3, 0, 4, -2, 2)
"""Between the directions of bars first, then right and left, then above and below."""
_DIRECTIONS = tuple((math.cos(turn * math.pi / 4), math.sin(turn * math.pi / 4)) for turn in _EIGHTHS)
_WIDE = frozenset("mwMWGOQ%@—…")
_THIN = frozenset("iljtfrI.,:;'|()[]·- ")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from the top left."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether they have a part in common."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        """Whether the other is inside."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


def text_width(text: str, size: float) -> float:
    """About the width of a text in pixels, rather more than less."""
    units = (0.9 if c in _WIDE else 0.38 if c in _THIN else 0.7 if c.isupper() else 0.6 for c in text)
    return size * sum(units)


def wrapped(text: str, limit: float, size: float, most: int) -> list[str]:
    """The text in at most so many lines of a width, the last with an ellipsis if it does not fit."""
    lines, rest = list[str](), text
    while rest and len(lines) < most:
        end = next((n for n in range(len(rest), 0, -1) if text_width(rest[:n], size) <= limit), 1)
        space = rest.rfind(" ", 0, end + 1)
        end = space if space > 0 and end < len(rest) else end
        lines.append(rest[:end].strip())
        rest = rest[end:].strip()
    if rest:
        last = lines[-1]
        while last and text_width(f"{last}…", size) > limit:
            last = last[:-1]
        lines[-1] = f"{last.rstrip()}…"
    return lines or [""]


def place_labels(
    points: Sequence[tuple[float, float, float, str]], room: Box, size: float = _SIZE
) -> list[tuple[Box, bool] | None]:
    """Find a place for the label of each point.

    Args:
        points: pixels, radius and label; an empty label needs no place.
        room: where labels may be.
        size: of the letters.

    Returns:
        For each point the box of its label, and whether it is so far away that it needs a line to its point; None
        where there is no room.
    """
    dots = [Box(x - r, y - r, x + r, y + r) for x, y, r, _ in points]
    taken: list[Box] = []
    placed: list[tuple[Box, bool] | None] = []
    for x, y, radius, label in points:
        free = None
        for distance in _DISTANCES if label else ():
            boxes = (_beside(x, y, radius + distance, direction, label, size) for direction in _DIRECTIONS)
            free = next((b for b in boxes if room.holds(b) and not any(map(b.meets, [*dots, *taken]))), None)
            if free is not None:
                taken.append(free)
                placed.append((free, distance > _DISTANCES[0]))
                break
        if free is None:
            placed.append(None)
    return placed


def _beside(x: float, y: float, distance: float, direction: tuple[float, float], label: str, size: float) -> Box:
    """A label whose nearest edge is at a distance from a place."""
    lines = label.split("\n")
    width, height = max(text_width(line, size) for line in lines) + 4, _HEIGHT * size * len(lines)
    towards_x, towards_y = direction
    at_x, at_y = x + distance * towards_x, y + distance * towards_y
    left = at_x - width / 2 * (1 - (towards_x > 0.3) + (towards_x < -0.3))
    top = at_y - height / 2 * (1 - (towards_y > 0.3) + (towards_y < -0.3))
    return Box(left, top, left + width, top + height)
