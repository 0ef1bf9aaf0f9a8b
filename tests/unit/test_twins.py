"""Which runs of a twin are the same, and what the cache believes, keeps and gives up."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import freeze, twins
from harness.model.case import Case, Job, Plan, Submission
from harness.twins import cache as caches
from harness.twins.cache import Cache, Damaged

TWIN = Case(
    "c0ffee",
    "g",
    "mpi.halo",
    1,
    2,
    0,
    1,
    20,
    1,
    {"rows": 8},
    checkpoint_every=5,
    digest_every=5,
    is_twin=True,
)
SITE: dict[str, Any] = {
    "name": "here",
    "kind": "production",
    "launcher": "slurm",
    "partition": "batch",
    "python": sys.executable,
    "container": None,
    "limits": {"max_nodes": 4},
    "scheduler": {"poll_s": 1},
    "description": "words",
    "environment": {},
    "partitions": {},
}
TEMPLATES = {"mpi.sh.j2": {"mpi.sh.j2": "11"}}
KEY = "0" * 40


def key(case: Case = TWIN, site: dict[str, Any] | None = None, code: str = "aa", template: str = "11") -> str:
    """The key of a twin; "" where it has none."""
    plan = Plan((case,), (Submission("0", (Job("0", 1, 2, 5, (case.case_id,), False),), "mpi.sh.j2"),))
    there = SITE if site is None else {**SITE, **site}
    templates = {"mpi.sh.j2": {"mpi.sh.j2": template}}
    found = twins.keys(plan, code_sha256=code, site=there, templates=templates)
    return found.get(case.case_id, "")


def changed(**values: Any) -> Case:
    return Case(**{**vars(TWIN), **values})


@pytest.mark.parametrize(
    "other",
    [
        {"case": changed(case_id="decaf")},
        {"case": changed(digest_every=4)},  # not in the id, and the proof needs the same steps
        {"code": "bb"},
        {"template": "22"},
        {"site": {"name": "there"}},
        {"site": {"kind": "staging"}},
        {"site": {"kind": "emulated"}},
        {"site": {"partition": "debug"}},
        {"site": {"environment": {"OMP_NUM_THREADS": "2"}}},
    ],
)
def test_another_case_code_or_site_has_another_key(other: dict[str, Any]) -> None:
    assert "" != key(**other) != key()


@pytest.mark.parametrize(
    "other",
    [
        {"case": changed(time_limit_min=9)},
        {"site": {"limits": {"max_nodes": 9}}},
        {"site": {"scheduler": {"poll_s": 9}}},
        {"site": {"description": "other words"}},
    ],
)
def test_limits_words_and_how_the_scheduler_is_asked_do_not_matter(other: dict[str, Any]) -> None:
    assert key(**other) == key() != ""


def test_another_interpreter_has_another_key(tmp_path: Path) -> None:
    """Another path, as of another environment; and the same path with other packages."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho torch==1\n")
    python.chmod(0o700)
    one = key(site={"python": str(python)})
    python.write_text("#!/bin/sh\necho torch==2\n")
    assert len({one, key(site={"python": str(python)}), key()}) == 3


@pytest.mark.parametrize(
    "other",
    [
        {"case": changed(is_twin=False)},
        {"case": changed(command={"world": "mpi"})},
        {"site": {"container": {"image": "x.sif"}}},
        {"site": {"python": "/only/on/nodes/python"}},
    ],
)
def test_what_is_no_twin_or_cannot_be_known_here_has_no_key(other: dict[str, Any]) -> None:
    assert key(**other) == ""


def test_a_partitions_own_values_count() -> None:
    parts = {"arm": {**SITE, "environment": {"A": "1"}}, "same": SITE}
    there = {"partitions": parts}
    assert key(changed(partition="arm"), there) != key(changed(partition="same"), there)


def test_the_code_is_known_without_writing_it(tmp_path: Path) -> None:
    assert freeze.code_sha256() == freeze.freeze(tmp_path / "harness.zip")


# ---- the cache ----


def filled(cache: Cache, name: str = KEY, size: int = 10) -> Path:
    stream = cache.root.parent / "n1.stream"
    stream.write_bytes(b"s" * size)
    files = {"attempts.jsonl": b"{}\n", "events.jsonl": b"", "attempt-0.0/n1.stream": stream}
    assert cache.add(name, {"case_id": "c0ffee"}, files)
    return cache.root / name


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "twins")


def test_what_is_kept_comes_back_whole_and_is_private(cache: Cache, tmp_path: Path) -> None:
    entry = filled(cache)
    found = cache.find(KEY, "c0ffee")
    assert found is not None
    found.copy(tmp_path / "copy")
    there = {
        str(f.relative_to(tmp_path / "copy")): f.read_bytes() for f in (tmp_path / "copy").rglob("*.*l*")
    }
    assert there == {"attempts.jsonl": b"{}\n", "events.jsonl": b""}
    assert (tmp_path / "copy" / "attempt-0.0" / "n1.stream").read_bytes() == b"s" * 10
    assert {oct(p.stat().st_mode & 0o777) for p in (cache.root, entry, entry / "attempt-0.0")} == {"0o700"}
    assert {oct(p.stat().st_mode & 0o777) for p in entry.rglob("*") if p.is_file()} == {"0o600"}
    assert cache.find("1" * 40, "c0ffee") is None


def _cut(entry: Path) -> None:
    os.truncate(entry / "attempt-0.0" / "n1.stream", 9)


def _lost(entry: Path) -> None:
    (entry / "events.jsonl").unlink()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (_cut, "attempt-0.0/n1.stream is not what was kept"),
        (_lost, "events.jsonl cannot be read (No such file"),
    ],
)
def test_damaged_records_are_refused(cache: Cache, tmp_path: Path, damage: Any, why: str) -> None:
    damage(filled(cache))
    found = cache.find(KEY, "c0ffee")
    assert found is not None
    with pytest.raises(Damaged) as caught:
        found.copy(tmp_path / "copy")
    assert str(caught.value).startswith(why)


def _forged(entry: Path) -> None:
    said = json.loads((entry / "source.json").read_text())
    said["files"]["../../x"] = said["files"]["events.jsonl"]
    (entry / "source.json").write_text(json.dumps(said))


def _torn(entry: Path) -> None:
    os.truncate(entry / "source.json", 20)


def _gone(entry: Path) -> None:
    (entry / "source.json").unlink()


@pytest.mark.parametrize("damage", [_forged, _torn, _gone])
def test_a_damaged_description_is_refused(cache: Cache, damage: Any) -> None:
    damage(filled(cache))
    with pytest.raises(Damaged):
        cache.find(KEY, "c0ffee")


def test_names_that_lead_out_of_the_folder_are_refused(cache: Cache) -> None:
    cache.add(KEY, {"case_id": "c0ffee"}, {"elsewhere/x.stream": b""})
    with pytest.raises(Damaged, match="names files that no twin has"):
        cache.find(KEY, "c0ffee")


def test_an_entry_of_another_twin_is_refused(cache: Cache) -> None:
    filled(cache)
    with pytest.raises(Damaged, match="of another twin"):
        cache.find(KEY, "decaf")


def test_the_entries_used_longest_ago_go_first(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "MOST_ENTRIES", 2)
    for number in range(2):
        os.utime(filled(cache, f"{number}" * 40), (1e9 + number, 1e9 + number))
    first = cache.find("0" * 40, "c0ffee")
    assert first is not None
    cache.used(first)
    filled(cache, "2" * 40)
    assert {p.name[0] for p in cache.root.iterdir()} == {"0", "2"}


def test_the_cache_stays_below_its_size(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "MOST_BYTES", 4000)
    for number in range(3):
        os.utime(filled(cache, f"{number}" * 40, 1000), (1e9 + number, 1e9 + number))
    assert {p.name[0] for p in cache.root.iterdir()} == {"1", "2"}


def test_one_that_is_too_large_is_not_kept(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "LARGEST_ENTRY_BYTES", 9)
    assert cache.add(KEY, {"case_id": "c0ffee"}, {"attempts.jsonl": b"0123456789"}) is False
    assert not cache.root.exists()


def test_what_was_begun_a_day_ago_goes_and_what_others_write_now_stays(cache: Cache) -> None:
    for name, age_s in ((".new.0123", 2 * 86400.0), (".new.4567", 0.0)):
        (cache.root / name).mkdir(parents=True)
        os.utime(cache.root / name, (time.time() - age_s,) * 2)
    filled(cache)
    assert {p.name for p in cache.root.iterdir()} == {KEY, ".new.4567"}


def test_a_failure_while_keeping_leaves_the_old_entry(cache: Cache, tmp_path: Path) -> None:
    filled(cache)
    with pytest.raises((OSError, Damaged)):
        cache.add(KEY, {"case_id": "c0ffee"}, {"attempts.jsonl": tmp_path / "nothing"})
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises((OSError, Damaged)):
        cache.add(KEY, {"case_id": "c0ffee"}, {"attempts.jsonl": folder})
    assert [p.name for p in cache.root.iterdir()] == [KEY]
    assert cache.find(KEY, "c0ffee") is not None


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HARNESS_TWINS": "off"}, None),
        ({"HARNESS_TWINS": "/a/b"}, "/a/b"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/hpc-harness/twins"),
        ({"HOME": "/home/u"}, "/home/u/.cache/hpc-harness/twins"),
    ],
)
def test_where_the_users_cache_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str | None
) -> None:
    for name in ("HARNESS_TWINS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    mine = Cache.of_user()
    assert (str(mine.root) if mine is not None else None) == folder
