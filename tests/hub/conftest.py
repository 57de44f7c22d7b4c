"""A stand-in for the hub, and its clients."""

import socket
from collections.abc import Iterator

import pytest
from hub_clients import DATA, FILE, Client
from hub_repositories import Fault
from hub_stand_in import HubStandIn


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as hub:
        yield hub


@pytest.fixture(scope="module")
def client(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(tmp_path_factory.mktemp("home"), hub.endpoint) as client:
        yield client


@pytest.fixture(scope="module")
def slow_clients(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Two slow clients, one without a hub and one with a hub that always cuts. They start early to save time."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    hub.add_commit("owner/cut", {FILE: DATA})
    hub.repositories["owner/cut"].fault = Fault("cut")
    with (
        Client(tmp_path_factory.mktemp("home"), closed) as unreachable,
        Client(tmp_path_factory.mktemp("home"), hub.endpoint) as cut,
    ):
        unreachable.ask(weights="hf-hub:owner/name")
        cut.ask(weights="hf-hub:owner/cut")
        yield {"unreachable": unreachable, "cut": cut}
