"""The process that torch ranks are forked from, started as an agent starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.runtime.forkserver import RANK


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[bytes]]:
    """One for all tests, which takes its time to import what ranks are made of."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.runtime.forkserver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    assert heard(process)["type"] == "ready"
    yield process
    process.kill()
    process.communicate()


def ask(server: subprocess.Popen[bytes], **request: Any) -> None:
    assert server.stdin is not None
    server.stdin.write(json.dumps(request).encode() + b"\n")
    server.stdin.flush()


def heard(server: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert server.stdout is not None
    return dict(json.loads(server.stdout.readline()))


def _runs(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # gone, reaped
        return False


def rank_request(tmp_path: Path, **environment: str) -> dict[str, Any]:
    log, spec = str(tmp_path / "rank.log"), tmp_path / "attempt.json"
    spec.write_text("{}")  # a rank ends at once over an attempt without a case
    return {"spec": str(spec), "rank": 0, "log": log, "environment": environment}


def test_what_ranks_are_made_of_is_imported_once_and_a_rank_is_forked(
    server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    ask(server, modules=[RANK, "harness.workloads.torch_train", "xxhash"])
    ask(server, **rank_request(tmp_path))
    forked = heard(server)
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    ended = heard(server)

    assert forked["type"] == "forked"
    assert "_xxhash" in maps
    assert ended == {"type": "exited", "pid": forked["pid"], "status": 1}
    assert "KeyError: 'case'" in (tmp_path / "rank.log").read_text()


def test_a_module_that_cannot_be_imported_is_left_to_the_rank(
    server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    ask(server, modules=["harness.no_such_module"])
    ask(server, **rank_request(tmp_path))
    assert [heard(server)["type"], heard(server)["type"]] == ["forked", "exited"]


def test_the_end_of_a_rank_is_told_at_once(server: subprocess.Popen[bytes], tmp_path: Path) -> None:
    ask(server, modules=[RANK])
    delays = []
    for _ in range(5):
        ask(server, **rank_request(tmp_path))
        pid = heard(server)["pid"]
        while _runs(pid):
            time.sleep(0.001)
        ended = time.monotonic()
        assert heard(server)["type"] == "exited"
        delays.append(time.monotonic() - ended)
    assert min(delays) < 0.5  # without a wake-up it would look once a second
