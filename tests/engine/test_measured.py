"""Bands are drawn only where they can be told apart."""

import pytest

from robustmaps.engine.measured import Measured, told_apart


@pytest.mark.parametrize(("gap", "apart"), [(0.0, False), (0.05, False), (0.3, True)])
def test_bands_that_overlap_at_most_places_are_not_told_apart(gap, apart):
    one = {float(x): Measured(0.5, 0.4, 0.6) for x in range(4)}
    other = {x: Measured(0.5 + gap, 0.4 + gap, 0.6 + gap) for x in one}
    assert told_apart([one, other]) is apart
    assert told_apart([one])
    assert told_apart([one, {0.0: one[0.0], **{x: other[x] for x in (1.0, 2.0, 3.0)}}]) is apart
