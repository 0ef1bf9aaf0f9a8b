"""A rank's page: what it writes is what its agent reads, and the agent's one word comes back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.runtime import page
from harness.runtime.page import GO_ON, Page, Progress


@pytest.fixture
def written(tmp_path: Path) -> Page:
    return Page(tmp_path / "3.page", 3)


def test_a_new_page_says_that_nothing_has_begun(written: Page, tmp_path: Path) -> None:
    now = time.monotonic_ns()
    read = page.read(tmp_path / "3.page")
    assert read is not None
    assert now - read.changed_mono_ns < 5e9
    assert read == Progress(
        os.getpid(), 3, page.STARTING, -1, -1, read.changed_mono_ns, section_mono_ns=read.section_mono_ns
    )
    assert [p.name for p in tmp_path.iterdir()] == ["3.page"]


def test_all_that_a_rank_says_is_read_back(written: Page, tmp_path: Path) -> None:
    view = page.view(tmp_path / "3.page")
    assert view is not None
    before = time.monotonic_ns()
    written.set(state=page.RUNNING, begun=7, finished=6, of=50, section=page.SAVE)
    written.advance()
    written.advance()
    wall_ns = time.time_ns()
    written.strike(fault=2, due=3)
    read = view.read()
    assert read is not None
    assert before <= read.section_mono_ns <= read.changed_mono_ns
    assert 0 <= read.fault_wall_ns - wall_ns < 1e9
    assert read == Progress(
        os.getpid(), 3, page.RUNNING, 7, 6, read.changed_mono_ns, 50, 2, page.SAVE, read.section_mono_ns, 2, 3,
        read.fault_wall_ns,
    )  # fmt: skip
    assert page.read(tmp_path / "3.page") == read
    view.close()


def test_a_section_begins_only_when_it_is_named(written: Page, tmp_path: Path) -> None:
    written.set(section=page.STEP)
    first = page.read(tmp_path / "3.page")
    written.set(finished=1)
    second = page.read(tmp_path / "3.page")
    assert first is not None
    assert second is not None
    assert (second.section, second.section_mono_ns) == (page.STEP, first.section_mono_ns)


def test_the_agents_word_comes_to_the_rank_until_it_is_obeyed(written: Page, tmp_path: Path) -> None:
    view = page.view(tmp_path / "3.page")
    assert view is not None
    assert written.command() == 0
    view.command(5 + GO_ON)
    written.set(begun=1)  # writing its own part leaves the agent's alone
    assert written.command() == 5 + GO_ON
    written.obeyed()
    assert written.command() == 0
    view.close()


@pytest.mark.parametrize("content", [b"", b"HPG3", b"x" * page.SIZE, b"HPG2" + bytes(page.SIZE - 4)])
def test_what_is_no_page_is_not_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "0.page"
    path.write_bytes(content)
    assert page.read(path) is None
    view = page.view(path)
    assert view is None or view.read() is None


def test_a_page_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert (page.read(tmp_path / "x"), page.view(tmp_path / "x")) == (None, None)


def test_a_state_that_nobody_knows_is_no_page(written: Page, tmp_path: Path) -> None:
    written.set(state=len(page.STATES))
    assert page.read(tmp_path / "3.page") is None
