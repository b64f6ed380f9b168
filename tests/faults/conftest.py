"""The nursery of the commands that are killed."""

from collections.abc import Iterator

import pytest

from tests.helpers.faults import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Runs commands in processes of their own."""
    nursery = Nursery()
    yield nursery
    nursery.close()
