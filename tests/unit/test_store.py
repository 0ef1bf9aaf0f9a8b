"""results.h5: written whole, read back whole, and every kind of damage refused in words."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from harness.store import ADDED, TABLES, TEXT, Results, StoreError, Writer

NODE = {"name": ["p1", "p2"], "facts": ["{}", '{"cpus": 4}']}
FACTS = {"step": {"unit": "1", "type": "i8", "direction": "", "definition": "index"}}


def _write(path: Path) -> None:
    with Writer(path, {"campaign": "c", "emulated": True}) as writer:
        writer.table("nodes", NODE)
        columns = {k: np.zeros(3, "i4") for k in ("case", "attempt", "rank", "node")}
        writer.samples("mpi.halo", "steps", {**columns, "step": np.arange(3)}, FACTS)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    _write(tmp_path / "r.h5")
    with Results(tmp_path / "r.h5") as results:
        assert results.rows("nodes") == [
            {"name": "p1", "facts": "{}"},
            {"name": "p2", "facts": '{"cpus": 4}'},
        ]
        assert results.samples("mpi.halo", "steps", ["step"])["step"].tolist() == [0, 1, 2]
        assert results.rows("cases") == []
        assert results.attributes["campaign"] == "c"
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def test_text_that_hdf5_cannot_hold_is_escaped(tmp_path: Path) -> None:
    with Writer(tmp_path / "r.h5", {"campaign": "nul \0"}) as writer:
        writer.table("nodes", {"name": ["a\0b \udcff"], "facts": [""]})
    with Results(tmp_path / "r.h5") as results:
        assert results.rows("nodes") == [{"name": "a\\x00b \\udcff", "facts": ""}]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    _write(tmp_path / "r.h5")
    before = (tmp_path / "r.h5").read_bytes()
    with pytest.raises(StoreError, match="columns differ in length"), Writer(tmp_path / "r.h5", {}) as writer:
        writer.table("nodes", {"name": ["p1"], "facts": []})
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]
    assert (tmp_path / "r.h5").read_bytes() == before


def test_a_changed_text_is_found(tmp_path: Path) -> None:
    _write(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        file["nodes/name"][1] = "p7"
    with (
        Results(tmp_path / "r.h5") as results,
        pytest.raises(StoreError, match="/nodes/name is not as it was written"),
    ):
        results.table("nodes")


def test_a_changed_number_is_found(tmp_path: Path) -> None:
    _write(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5", "r") as file:
        chunk = file["samples/mpi.halo/steps/step"].id.get_chunk_info(0)
    data = bytearray((tmp_path / "r.h5").read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 1
    (tmp_path / "r.h5").write_bytes(data)
    with (
        Results(tmp_path / "r.h5") as results,
        pytest.raises(StoreError, match=r"/samples/mpi\.halo/steps/step is damaged"),
    ):
        results.samples("mpi.halo", "steps")


def test_every_table_of_the_schema_is_in_every_file(tmp_path: Path) -> None:
    with Writer(tmp_path / "r.h5", {}):
        pass
    with h5py.File(tmp_path / "r.h5", "r") as file:
        assert sorted(file) == sorted(TABLES)


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    _write(tmp_path / "r.h5")
    data = (tmp_path / "r.h5").read_bytes()
    (tmp_path / "r.h5").write_bytes(data[: int(kept if kept >= 1 or kept == 0 else len(data) * kept)])
    with pytest.raises(StoreError, match="not a readable HDF5 file"):
        Results(tmp_path / "r.h5")


def test_a_foreign_and_a_newer_file_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "foreign.h5", "w"):
        pass
    with pytest.raises(StoreError, match="not one of the harness"):
        Results(tmp_path / "foreign.h5")
    _write(tmp_path / "r.h5")
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(
        StoreError, match="schema version 99, this harness reads \\[1, 2, 3, 4\\]; install a newer harness"
    ):
        Results(tmp_path / "r.h5")


def test_a_file_of_the_first_version_is_read_and_what_it_lacks_is_empty(tmp_path: Path) -> None:
    with Writer(tmp_path / "r.h5", {}) as writer:
        empty = {f.name: [""] if f.type == TEXT else [0] for f in TABLES["cases"]}
        writer.table("cases", {**empty, "case_id": ["a"], "axes": ["{}"]})
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        file.attrs["schema_version"] = 1
        for table, column in (*ADDED[2], *ADDED[3]):
            del file[f"{table}/{column}" if column else table]
    with Results(tmp_path / "r.h5") as results:
        results.verify()
        assert [(c["case_id"], c["axes"], c["partition"]) for c in results.rows("cases")] == [("a", "", "")]
        assert results.rows("starts") == []


def test_a_file_of_the_second_version_is_read_and_what_it_lacks_is_empty(tmp_path: Path) -> None:
    with Writer(tmp_path / "r.h5", {}) as writer:
        empty = {f.name: [""] if f.type == TEXT else [0] for f in TABLES["faults"]}
        writer.table("faults", {**empty, "fault_id": ["f0"], "policy": ["requeue"], "blamed_wall_ns": [7]})
    with h5py.File(tmp_path / "r.h5", "r+") as file:
        file.attrs["schema_version"] = 2
        for table, column in ADDED[3]:
            del file[f"{table}/{column}" if column else table]
    with Results(tmp_path / "r.h5") as results:
        results.verify()
        (fault,) = results.rows("faults")
        assert (fault["fault_id"], fault["policy"], fault["blamed_wall_ns"]) == ("f0", "", 0)
        assert [results.rows(name) for name in ("detections", "checkpoints", "digests")] == [[], [], []]


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_file_that_is_open_can_be_opened_with_h5py_in_the_same_process(
    tmp_path: Path, ours_first: bool
) -> None:
    with Writer(tmp_path / "r.h5", {}) as writer:
        writer.table("nodes", {"name": ["n1"], "facts": ["{}"]})

    def ours() -> Results:
        return Results(tmp_path / "r.h5")

    def theirs() -> h5py.File:
        return h5py.File(tmp_path / "r.h5")

    first = ours() if ours_first else theirs()
    second = theirs() if ours_first else ours()
    results, file = (first, second) if ours_first else (second, first)
    with results:
        with file:
            assert file["nodes/name"].asstr()[:].tolist() == ["n1"]
        assert [row["name"] for row in results.rows("nodes")] == ["n1"]


def test_a_file_that_cannot_be_locked_is_read_all_the_same(tmp_path: Path) -> None:
    """As on a file system without locks: here another has locked it, which HDF5 refuses alike."""
    with Writer(tmp_path / "r.h5", {}) as writer:
        writer.table("nodes", {"name": ["n1"], "facts": ["{}"]})
    program = (
        "import fcntl, sys\n"
        f"file = open({str(tmp_path / 'r.h5')!r}, 'rb+')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(OSError, match="lock"):
            h5py.File(tmp_path / "r.h5")
        with Results(tmp_path / "r.h5") as results:
            assert [row["name"] for row in results.rows("nodes")] == ["n1"]
        other.communicate(timeout=20)
