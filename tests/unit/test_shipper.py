"""Records move from a node to shared storage once each, however many ask for it at a time."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.runtime import shipper as shipper_module
from harness.runtime.recorder import Recorder, read_stream
from harness.runtime.shipper import Shipper


def test_shippings_that_meet_ship_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local").mkdir()
    recorder = Recorder(tmp_path / "local/rank-0.rec", 0)
    recorder.define("steps", ("step",))
    write_all = shipper_module.write_all

    def slow(descriptor: int, data: bytes) -> None:
        for byte in range(0, len(data), 64):  # gives way to the others in the midst of it
            write_all(descriptor, data[byte : byte + 64])

    monkeypatch.setattr(shipper_module, "write_all", slow)
    shipper = Shipper(tmp_path / "local", tmp_path / "stream")
    with ThreadPoolExecutor(8) as pool:
        for step in range(200):
            recorder.sample("steps", {"step": step})
            list(pool.map(lambda _: shipper.ship(sync=False), range(4)))
    recorder.close()
    shipper.ship(sync=True)
    assert (tmp_path / "stream").read_bytes() == (tmp_path / "local/rank-0.rec").read_bytes()
    ranks, damage, _ = read_stream((tmp_path / "stream").read_bytes())
    assert (ranks[0].problems, damage) == ([], [])
