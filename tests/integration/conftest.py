"""Fixtures of what is read: a product in this process with events at hand, and its API."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from projections.fold.state import ORDER_CAP
from tests.api_server import ApiServer, api_server
from tests.conftest import Databases
from tests.reading_world import ReadingWorld, reading_world


@pytest.fixture
def world(databases: Databases, request: pytest.FixtureRequest) -> Iterator[ReadingWorld]:
    """A parameter is the cap of orders (decision 0020), None for none."""
    with reading_world(databases, order_cap=getattr(request, "param", ORDER_CAP)) as world:
        yield world


@pytest.fixture
def client(world: ReadingWorld, tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(world, tmp_path) as client:
        yield client
