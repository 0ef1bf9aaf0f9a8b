"""Ranks wait for rank 0's store by knocking at its door."""

from __future__ import annotations

import socket
import threading
import time

import pytest

torch_world = pytest.importorskip("harness.workloads.torch_world", reason="needs torch")


def test_the_store_is_found_within_moments_of_its_start() -> None:
    with socket.socket() as store:
        store.bind(("127.0.0.1", 0))
        port = store.getsockname()[1]
        opened: list[float] = []

        def open_late() -> None:
            time.sleep(0.2)
            store.listen()
            opened.append(time.monotonic())

        thread = threading.Thread(target=open_late)
        thread.start()
        torch_world._await_store("127.0.0.1", port, 10.0)
        found = time.monotonic()
        thread.join()
    assert found >= opened[0] - 0.01


def test_who_never_finds_a_store_gives_up_in_time() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: every knock is refused
        start = time.monotonic()
        torch_world._await_store("127.0.0.1", nobody.getsockname()[1], 0.3)
        assert 0.3 <= time.monotonic() - start < 5


def test_a_socket_that_meets_itself_is_no_store_and_frees_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    class Itself(socket.socket):
        """Connects from the very port that it knocks at, as the kernel does now and then by itself."""

        def connect(self, address: object) -> None:
            self.bind(("127.0.0.1", port))
            super().connect(("127.0.0.1", port))

    monkeypatch.setattr(torch_world.socket, "socket", Itself)
    start = time.monotonic()
    torch_world._await_store("127.0.0.1", port, 0.3)
    assert time.monotonic() - start >= 0.3
    monkeypatch.undo()
    with socket.socket() as store:
        store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        store.bind(("127.0.0.1", port))
        store.listen()
