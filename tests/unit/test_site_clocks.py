"""How far clocks are apart, and what a node's own network is."""

from __future__ import annotations

import socket

import pytest

from harness.runtime import clocks
from harness.runtime.clocks import Offset, Server, measure, of_trips
from harness.runtime.network import addresses, interface_of


def test_the_shortest_trip_gives_the_offset_and_half_of_it_the_uncertainty() -> None:
    assert of_trips([(0, 1_000_500, 1_000), (10, 5_000, 90_010), (2_000, 1_002_040, 2_100)]) == Offset(
        999_990, 50, 3
    )


def test_two_clocks_of_one_machine_do_not_differ() -> None:
    with Server("secret") as server:
        offset, own = measure("127.0.0.1", server.port, "secret", 5.0)
    assert abs(offset.offset_ns) <= offset.uncertainty_ns + 1_000_000
    assert (own, offset.round_trips) == ("127.0.0.1", clocks.ROUND_TRIPS)


def test_who_does_not_know_the_token_is_not_answered() -> None:
    with Server("secret") as server, pytest.raises(OSError, match="did not answer as it should"):
        measure("127.0.0.1", server.port, "guess", 5.0)


def test_nobody_there_is_an_error_within_the_deadline() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(OSError):
        measure("127.0.0.1", port, "secret", 1.0)


def test_the_interface_of_an_address_is_named() -> None:
    assert addresses()["lo"] == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.9") == ""
