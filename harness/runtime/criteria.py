"""What a user's program must say or leave, on one rank: heard line by line, and judged when it has ended.

Each criterion and each required metric becomes one check; figures are recorded as they are heard. Which
ranks a criterion is asked of follows from the world, unless the campaign says it. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model import placeholders
from harness.runtime import page
from harness.runtime.output import LINE_BYTES, Lines
from harness.runtime.readings import Pattern, Reading, readings
from harness.runtime.recorder import Recorder

if TYPE_CHECKING:
    from harness.runtime.rank import Context

FILES_S = 5.0  # for a file to be seen: another rank may still write it, and shared storage lags
READ_BYTES = 1 << 20


class Criteria:
    """The criteria of one rank's program, its metrics and its progress.

    Args:
        command: JSON of ``harness.model.command.Command``.
        values: what placeholders stand for on this rank.
        folder: where the program runs.
    """

    def __init__(
        self,
        command: Mapping[str, Any],
        values: Mapping[str, str],
        folder: Path,
        context: Context,
        recorder: Recorder,
        position: page.Page,
    ) -> None:
        self.command, self.values, self.folder = command, values, folder
        self.context, self.recorder, self.position = context, recorder, position
        self.stepped = command["progress"] is not None
        mine = [
            {**m, "required": m["required"] and self._reads(m)}
            for m in command["metrics"]
            if m["from"] == "program" or self._reads(m)  # a program may record it on any rank
        ]
        self.metrics = list(zip(readings(mine, values, self.stepped), mine, strict=True))
        for reading, _ in self.metrics:
            recorder.define(reading.name, reading.columns)
        self.heard = [r for r, m in self.metrics if m["from"] == "output"]
        success = command["success"]
        wanted = success["output"] if self._is_of(success["ranks"]) else ()
        self.patterns = [
            *(Pattern(text, True, values) for text in wanted),
            *(Pattern(text, False, values) for text in success["no_output"]),
        ]
        self.progress: re.Pattern[str] | None = None
        position.of = page.SILENT  # until it says something, or should
        if self.stepped and self._is_of(None):
            self.progress = re.compile(placeholders.fill(command["progress"], values, re.escape))
            recorder.define("progress", ("step", "said_mono_ns"))
            position.of = 0

    @property
    def declared(self) -> dict[str, Reading]:
        """The metrics that the program records itself."""
        return {r.name: r for r, m in self.metrics if m["from"] == "program"}

    def _is_of(self, ranks: str | None, *names: str) -> bool:
        """Whether this rank is one of ``ranks``; without them, by the world, or by what a file's name says."""
        if ranks is None:
            each = any(n in placeholders.OF_A_RANK for name in names for n in placeholders.names(name))
            plain = self.command["world"] == "plain" and not names
            ranks = "all" if each or plain else "first"
        return ranks == "all" or self.context.rank == (0 if ranks == "first" else self.context.world - 1)

    def _reads(self, declared: Mapping[str, Any]) -> bool:
        """Whether this rank is to have a declared metric."""
        source = declared["from"]
        return self._is_of(declared["ranks"], *([source] if source.startswith("file:") else []))

    # --- while it runs ----------------------------------------------------------------------------------

    def hear(self, line: str) -> None:
        """One line of the program's output."""
        for pattern in self.patterns:
            pattern.take(line)
        if self.progress is not None and (match := self.progress.search(line)):
            self._advance(match.groupdict())
        for reading in self.heard:
            reading.take(line, self.recorder.sample, self._step())

    def _step(self) -> dict[str, int]:
        return {"step": max(self.position.begun, 0)} if self.stepped else {}

    def _advance(self, groups: Mapping[str, str | None]) -> None:
        """A line of progress; one whose number is none says nothing."""
        with contextlib.suppress(ValueError, TypeError):
            finished = int(str(groups["step"]))
            total = int(str(groups["steps"])) if groups.get("steps") is not None else self.position.of
            if 0 <= finished < 1 << 62 and 0 <= total < 1 << 62:
                self.position.set(begun=finished, finished=finished - 1, of=total)
                self.recorder.sample("progress", {"step": finished - 1, "said_mono_ns": time.monotonic_ns()})

    # --- when it has ended ------------------------------------------------------------------------------

    def is_good(self, code: int) -> bool:
        """Whether a return code is one of those that are no failure."""
        return code in self.command["success"]["exit_codes"]

    def judge(self, code: int, ended: str, *, in_time: bool) -> None:
        """One check for each criterion, and for each metric that is not as it should be or is required.

        Args:
            code: the program's return code.
            ended: the same for people: 3, or SIGSEGV.
            in_time: it kept its own time limit.
        """
        check, success = self.context.check, self.command["success"]
        good = self.is_good(code)
        check("exit code", good and in_time, " or ".join(map(str, success["exit_codes"])), ended)
        for pattern in self.patterns:
            kind = "output" if pattern.wanted else "no output"
            check(f"{kind} {pattern.text!r}", *pattern.verdict())
        patience_s = FILES_S if good else 0.0
        for text, patterns in success["files"].items():
            if self._is_of(None, text):
                self._judge_file(placeholders.fill(text, self.values), patterns, patience_s)
        for reading, m in self.metrics:
            if m["from"] == "exit_code":
                reading.add({reading.name: code}, self.recorder.sample, self._step())
            elif m["from"].startswith("file:"):
                self._read_file(reading, m, patience_s)
            passed, expected, observed = reading.verdict()
            if reading.required or not passed:
                check(f"metric {reading.name}", passed, expected, observed)

    def answer(self) -> None:
        """Record what the campaign declares as its answer: the last value of a metric, the digest of a file."""
        answers, words = self.command.get("answers") or {}, "what is compared with the undisturbed twin's"
        for reading, _ in self.metrics:
            if reading.name not in answers.get("metrics", ()):
                continue
            if reading.last is not None:
                self.context.result(reading.name, repr(reading.last))
            elif reading.required:
                self.context.check(f"answer {reading.name}", False, words, "it was never said")
        for text in answers.get("files", ()):
            if self._is_of(None, text):
                name = placeholders.fill(text, self.values)
                try:
                    self.context.result(f"file {name}", self._digest(name))
                except OSError as error:
                    self.context.check(f"answer {name}", False, words, error.strerror or error)

    def _digest(self, name: str) -> str:
        """Digest of a file of the program's folder.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        self._size(name, FILES_S)  # it may still come
        state = hashlib.sha256()
        with (self.folder / name).open("rb") as file:
            while data := file.read(READ_BYTES):
                state.update(data)
        return state.hexdigest()

    def _judge_file(self, name: str, patterns: Sequence[str], patience_s: float) -> None:
        size = self._size(name, patience_s)
        observed = f"{size} bytes" if size >= 0 else "no such file"
        self.context.check(f"file {name}", size > 0, "more than 0 bytes", observed)
        end = time.monotonic() + patience_s
        while True:
            wanted = [Pattern(text, True, self.values) for text in patterns]
            for line in self._lines(name) if wanted else ():
                for pattern in wanted:
                    pattern.take(line)
            if all(p.matched for p in wanted) or time.monotonic() > end:
                break
            time.sleep(0.1)
        for pattern in wanted:
            self.context.check(f"file {name} has {pattern.text!r}", *pattern.verdict())

    def _read_file(self, reading: Reading, declared: Mapping[str, Any], patience_s: float) -> None:
        name = placeholders.fill(declared["from"].removeprefix("file:"), self.values)
        if self._size(name, patience_s) <= 0:
            return
        texts = self._lines(name)
        if declared["regex"] is None and declared["json"] is None:
            with (self.folder / name).open("rb") as file:
                texts = iter([file.read(LINE_BYTES).decode("utf-8", errors="replace")])
        for text in texts:
            reading.take(text, self.recorder.sample, self._step())

    def _lines(self, name: str) -> Iterator[str]:
        """The lines of a file of the program's folder, read a part at a time; none of one that is not there."""
        found: list[str] = []
        lines = Lines(found.append)
        with contextlib.suppress(OSError), (self.folder / name).open("rb") as file:
            while data := file.read(READ_BYTES):
                lines.feed(data)
                yield from found
                found.clear()
        lines.close()
        yield from found

    def _size(self, name: str, patience_s: float) -> int:
        """Size of a file of the program's folder, -1 when there is none; an empty one may still be written."""
        end = time.monotonic() + patience_s
        while True:
            try:
                size = (self.folder / name).stat().st_size
            except OSError:
                size = -1
            if size > 0 or time.monotonic() > end:
                return size
            time.sleep(0.1)
