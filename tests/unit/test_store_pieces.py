"""results.h5 written piece by piece: whatever the pieces, whatever storage does meanwhile, in little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.store import Results, StoreError, Writer
from harness.store.steady import SteadyFile
from harness.store.writer import CHUNK
from tests.conftest import fill_up

FACTS = {"step": {"unit": "1", "type": "i8", "direction": "", "definition": "index"}}


def _rows(case: int, count: int, first: int = 0) -> dict[str, np.ndarray]:
    keys = {name: np.full(count, case, "i4") for name in ("case", "attempt", "rank", "node")}
    return {**keys, "step": np.arange(first, first + count)}


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.sampled_from([0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]), max_size=6))
def test_pieces_of_any_size_are_read_back_in_their_order(
    sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("pieces") / "r.h5"
    with Writer(path, {}) as writer:
        for number, size in enumerate(sizes):
            writer.samples("w", "steps", _rows(number, size, 1000 * number), FACTS)
    with Results(path) as results:
        found = results.samples("w", "steps") if sizes else {"case": np.empty(0), "step": np.empty(0)}
        assert found["case"].tolist() == np.repeat(np.arange(len(sizes)), sizes).tolist()
        assert found["step"].tolist() == [
            s for n, size in enumerate(sizes) for s in range(1000 * n, 1000 * n + size)
        ]
        if sizes:
            begins, cases = results.case_runs("w", "steps")
            assert cases.tolist() == [n for n, size in enumerate(sizes) if size]
            assert begins.tolist() == [sum(sizes[:n]) for n, size in enumerate(sizes) if size]


def test_a_column_that_comes_later_or_not_any_more_is_refused(tmp_path: Path) -> None:
    more = {**_rows(1, 5), "loss": np.zeros(5)}
    words = r"samples of w/steps: columns \['attempt', .* before"
    with pytest.raises(StoreError, match=words), Writer(tmp_path / "r.h5", {}) as writer:
        writer.samples("w", "steps", _rows(0, 5), FACTS)
        writer.samples("w", "steps", more, {**FACTS, "loss": {**FACTS["step"], "type": "f8"}})
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_samples(tmp_path: Path) -> None:
    """Four times as many samples of 28 to 40 bytes, in as many more cases: 150 MB of them, and no 40 MB of memory."""
    program = (
        "import resource, sys; from pathlib import Path; from tests.bench import big_results\n"
        "big_results.make(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[2]) * 10_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )

    def peak_kb(cases: int) -> int:
        command = [sys.executable, "-c", program, str(tmp_path / "r.h5"), str(cases)]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout)

    assert peak_kb(500) - peak_kb(120) < 40_000


@pytest.mark.parametrize("free", [0, 4096, 65536, 300_000])
def test_a_disk_that_fills_up_on_the_way_leaves_the_old_file_and_a_healthy_process(
    free: int, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    """In a process of its own, since HDF5 in disorder aborts when its process ends."""
    folder = small_disk("1m")
    (folder / "r.h5").write_bytes(b"of yesterday")
    fill_up(folder, free)
    program = f"""
import sys
from pathlib import Path
import numpy as np
from harness.store import Results, Writer
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store_pieces import FACTS, _rows
full, good = Path(sys.argv[1]), Path(sys.argv[2])
rng = np.random.default_rng(1)
try:
    with Writer(full, {{"note": "x"}}) as writer:
        for number in range(40):
            rows = {{**_rows(number, 20_000), "step": rng.integers(0, 2**62, 20_000)}}
            writer.samples("w", "steps", rows, FACTS)
except OSError as error:
    print(error.errno, error.filename)
with Writer(good, {{}}) as writer:
    writer.samples("w", "steps", _rows(0, 50_000), FACTS)
with Results(good) as results:
    print(results.length("w", "steps"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "r.h5"), str(tmp_path / "good.h5")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"28 {folder / 'r.h5'}\n50000\n"
    assert (folder / "r.h5").read_bytes() == b"of yesterday"
    assert sorted(p.name for p in folder.iterdir()) == ["filler", "r.h5"]


def test_what_storage_did_not_take_is_read_back_until_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = SteadyFile(tmp_path / "r.h5")
    file.write(b"a" * 100)

    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pwrite", fails)
    file.seek(50)
    file.write(b"b" * 100)
    file.seek(70)
    file.write(b"c" * 10)
    file.seek(0)
    assert file.read() == b"a" * 50 + b"b" * 20 + b"c" * 10 + b"b" * 70
    with pytest.raises(OSError, match="Input/output error"):
        file.raise_error()
    file.close()


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".r.h5.0123.tmp").write_bytes(b"of a killed one")
    (tmp_path / ".other.h5.0123.tmp").write_bytes(b"of another file")
    with Writer(tmp_path / "r.h5", {"n": 1}), Writer(tmp_path / "r.h5", {"n": 2}):
        assert len(list(tmp_path.glob(".r.h5.*.tmp"))) == 2
    with Results(tmp_path / "r.h5") as results:
        assert results.attributes["n"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.h5.0123.tmp", "r.h5"]
