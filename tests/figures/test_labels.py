"""Labels beside points: none over another or over a point, all of them inside."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from robustmaps.figures import Box, place_labels, text_width, wrapped

ROOM = Box(0, 0, 400, 300)
POINTS = st.tuples(st.floats(20, 380), st.floats(20, 280), st.floats(3, 12), st.text("ResNt-8 ×2·\n", max_size=24))


@given(st.lists(POINTS, max_size=12))
def test_no_label_is_over_anything(points):
    placed = [found[0] for found in place_labels(points, ROOM) if found]
    assert not any(one.meets(other) for one, other in itertools.combinations(placed, 2))
    dots = [Box(x - r, y - r, x + r, y + r) for x, y, r, _ in points]
    assert not any(box.meets(dot) for box in placed for dot in dots)
    assert all(ROOM.holds(box) for box in placed)


def test_few_points_close_together_are_all_labelled():
    points = [(200 + 15.0 * n, 150 + 4.0 * n, 6.0, f"ResNet-{n} ×2 · TRADES") for n in range(6)]
    assert all(place_labels(points, ROOM))


def test_a_long_name_is_wrapped_at_spaces_and_cut_at_the_end():
    assert wrapped("ResNet-20 ×2 · TRADES", 400, 13, 2) == ["ResNet-20 ×2 · TRADES"]
    lines = wrapped("ResNet-20 ×2 · TRADES · epochs 110 · lr 0.1", 150, 13, 2)
    assert lines[0] == "ResNet-20 ×2 ·"
    assert lines[1].endswith("…")
    assert all(text_width(line, 13) <= 150 for line in lines)
    assert wrapped("", 100, 13, 2) == [""]
