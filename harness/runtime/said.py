"""What a program says of itself through ``harness.program``: steps, figures, checks, checkpoints, states and faults.

It comes from the file to which the program appends.

The file is the program's, so nothing in it is trusted: a line that is not as it should be is counted,
never followed. Standard library only.
"""

from __future__ import annotations

import json
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.model import event as ev
from harness.model.metrics import METRICS, RESERVED, Metric
from harness.runtime import page, readings
from harness.runtime.armed import Armed
from harness.runtime.readings import Reading
from harness.runtime.recorder import Recorder
from harness.runtime.said_faults import SaidFaults, Tell

MAX_METRICS = 100
STEPS = ("step", "start_mono_ns", "step_time_ns")
BATCH = "batch_id"
CHECKPOINTS = ("step", "checkpoint_time_ns", "checkpoint_bytes")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
READ_BYTES = 1 << 24  # in one go; a line is shorter

Check = Callable[[str, bool, object, object], None]


class Said:
    """Reads the file as it grows.

    Args:
        path: the file.
        declared: metrics of the campaign that the program records.
        check: records a check.
        tell: records an event at a time of its own.
        node: where the program runs.
        case_id: of which case.
        armed: declared faults that it does or waits for.
        advance: counts one more thing that the program tried.
    """

    def __init__(
        self,
        path: Path,
        recorder: Recorder,
        declared: Mapping[str, Reading],
        check: Check,
        tell: Tell,
        node: str,
        case_id: str,
        armed: Armed,
        advance: Callable[[], None],
    ) -> None:
        self._path, self._recorder, self._check, self._tell = path, recorder, check, tell
        self._armed, self._advance = armed, advance
        self.faults = SaidFaults(tell, node, case_id)
        self._declared = declared  # of the campaign, that the program records
        self._own: dict[str, Reading] = {}
        self._offset = 0
        self.begun = self.finished = -1
        self.of = 0
        self.is_saving = False
        self.answered = False
        self._columns: tuple[str, ...] = ()  # of the table of steps, once it is known
        self._restoring: dict[str, Any] = {}  # restored, and the digest of the live state is still to be said
        self._kept: dict[str, Any] = {}  # the checkpoint that was saved or restored last
        self.strange = ""  # the first line that could not be followed, and why
        self.conflicts: dict[str, str] = {}

    @property
    def section(self) -> int | None:
        """Where the program is, as ``page`` counts; what it does behind its last step may take long."""
        if self.is_saving:
            return page.SAVE
        if self.begun < 0:
            return None
        return page.CLOSE if 0 < self.of == self.finished + 1 else page.STEP

    def read(self) -> bool:
        """Take the whole lines that are new; returns whether there were any."""
        before = self._offset
        for line in self._lines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error) as error:
                self.strange = self.strange or f"{line[:80]!r}: {type(error).__name__} {error}"
        if self._offset > before:
            self.faults.heard()
        return self._offset > before

    def _lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read(READ_BYTES)
        except FileNotFoundError:
            return
        whole = data.rfind(b"\n") + 1 or (READ_BYTES if len(data) == READ_BYTES else 0)
        self._offset += whole
        yield from (line for line in data[:whole].split(b"\n") if line)

    def _take(self, said: dict[str, Any]) -> None:
        for key, take in self._known.items():
            if key in said:
                take(said)
                return
        raise ValueError("says nothing that is known")

    @property
    def _known(self) -> dict[str, Callable[[dict[str, Any]], None]]:
        """The first key that a line has says what it is."""
        armed = self._armed
        return {
            "metric": self._metric,
            "end": self._ended,
            "begin": self._begun,
            "define": lambda said: self._define(str(said["define"]), said),
            "check": self._checked,
            "answer": self._answer,
            "state_digest": self._digest,
            "fault": self.faults.requested,
            "fault_over": self.faults.over,
            "tries": self._tries,
            "strike": lambda said: armed.struck(int(said["strike"])),
            "due": lambda said: armed.due(int(said["due"])),
            "felt": lambda said: armed.felt(int(said["felt"])),
            "saving": self._saving,
            "unsaved": self._saving,
            "saved": self._saved,
            "restored": self._restored,
            "refused": lambda said: self._event(ev.CHECKPOINT_REFUSED, said, why=str(said["why"])[:1000]),
        }

    def _metric(self, said: Mapping[str, Any]) -> None:
        reading = self._reading(str(said["metric"]))
        reading.add({reading.name: said["value"]}, self._recorder.sample, {"step": int(said["step"])})

    def _begun(self, said: Mapping[str, Any]) -> None:
        self.begun, self.of = int(said["begin"]), int(said["of"])

    def _ended(self, said: Mapping[str, Any]) -> None:
        row = {"step": int(said["end"])} | {key: int(said[key]) for key in STEPS[1:]}
        if not self._columns:
            self._columns = (*STEPS, BATCH) if "batch" in said else STEPS
            self._recorder.define("steps", self._columns)
        if BATCH in self._columns:
            row[BATCH] = int(said.get("batch", -1))
        self._recorder.sample("steps", row)
        if self.finished < 0:
            self._event(ev.FIRST_STEP, said, step=row["step"])
        self.finished = row["step"]

    def _checked(self, said: Mapping[str, Any]) -> None:
        words = [str(said[key])[:1000] for key in ("expected", "observed")]
        self._check(str(said["check"])[:200], bool(said["passed"]), *words)

    def _answer(self, said: Mapping[str, Any]) -> None:
        self.answered = True
        self._event(ev.RESULT, said, name=str(said["answer"])[:200], value=str(said["value"])[:400])

    def _digest(self, said: Mapping[str, Any]) -> None:
        step, digest = int(said["state_digest"]), str(said["value"])[:64]
        restoring, self._restoring = self._restoring, {}
        if restoring and restoring["step"] == step:
            restoring.pop("said")
            self._event(ev.CHECKPOINT_RESTORED, said, **{**restoring, "digest": digest})
        elif restoring:
            self._restoring = restoring
        self._event(ev.STATE_DIGEST, said, step=step, digest=digest)

    def _tries(self, said: Mapping[str, Any]) -> None:
        self._advance()
        self.faults.tries()

    def _saving(self, said: Mapping[str, Any]) -> None:
        self.is_saving = "saving" in said

    def _saved(self, said: Mapping[str, Any]) -> None:
        """The program counts the step that was done; the harness, how many were done."""
        self.is_saving = False
        row = dict(
            zip(CHECKPOINTS, (int(said["saved"]) + 1, int(said["time_ns"]), int(said["bytes"])), strict=True)
        )
        self._kept = {"step": row["step"], "digest": str(said["digest"])[:64]}
        self._recorder.define("checkpoints", CHECKPOINTS)
        self._recorder.sample("checkpoints", row)
        self._event(
            ev.CHECKPOINT_COMMITTED,
            said,
            step=row["step"],
            digest=str(said["digest"])[:64],
            bytes=row["checkpoint_bytes"],
            time_ns=row["checkpoint_time_ns"],
            path=str(said["path"])[:200],
            engine="program",
        )

    def _restored(self, said: Mapping[str, Any]) -> None:
        """Its digest is of what was read and compared with what was committed; or of the live state, said later."""
        state = str(said.get("state", ""))[:64]
        digest = state or str(said["digest"])[:64]
        data = {
            "step": int(said["restored"]) + 1,
            "digest": "" if state else digest,
            "committed_digest": digest,
            "path": str(said["path"])[:200],
            "engine": "program",
        }
        self._kept = {"step": data["step"], "digest": digest}
        if state:
            self._restoring = {**data, "said": dict(said)}
        else:
            self._event(ev.CHECKPOINT_RESTORED, said, **data)

    def _event(self, kind: str, said: Mapping[str, Any], **data: Any) -> None:
        self._tell(kind, int(said["wall_ns"]), int(said["mono_ns"]), data)

    def _reading(self, name: str) -> Reading:
        found = self._declared.get(name) or self._own.get(name)
        if found is None:
            raise ValueError("is recorded before it is defined")
        return found

    def _define(self, name: str, said: Mapping[str, Any]) -> None:
        """What is not said is as declared; a plain number without a direction where nothing is declared."""
        known = self._declared.get(name) or self._own.get(name)
        if known is not None:
            self._compare(known.columns[-1], said)
            return
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise ValueError("is no name of a metric")
        if len(self._own) >= MAX_METRICS:
            raise ValueError(f"is one metric too many, {MAX_METRICS} are allowed")
        direction = "" if said["direction"] in (None, "neither") else str(said["direction"])
        own = readings.metric(
            name,
            str(said["unit"] or "1")[:100],
            direction,
            str(said["definition"] or "recorded by the program itself")[:1000],
        )
        self._own[name] = Reading(name, False, (METRICS["step"], own), lambda line: iter(()))
        self._recorder.define(name, (METRICS["step"], own))
        self._compare(own, said)

    def _compare(self, own: Metric, said: Mapping[str, Any]) -> None:
        for key, value in (("unit", own.unit), ("direction", own.direction or "neither")):
            if said[key] is not None and said[key] != value:
                self.conflicts.setdefault(
                    own.name, f"{key} {str(said[key])[:100]!r}, but it is declared with {value!r}"
                )

    def finish(self) -> None:
        """The program has ended well: where it gave no answer, its last checkpoint is one."""
        while self.read():
            pass
        if self._kept and not self.answered:
            self._event(
                ev.RESULT,
                {"wall_ns": time.time_ns(), "mono_ns": time.monotonic_ns()},
                name=f"checkpoint after {self._kept['step']} steps",
                value=self._kept["digest"],
            )

    def close(self) -> None:
        """Record what was wrong with what was said."""
        while self.read():
            pass
        if restoring := self._restoring:
            self._event(ev.CHECKPOINT_RESTORED, restoring.pop("said"), **restoring)
            self._restoring = {}
        for name, words in sorted(self.conflicts.items()):
            self._check(f"metric {name} has one definition", False, "as declared", words)
        for name, reading in sorted(self._own.items()):
            good, expected, seen = reading.verdict()
            if not good:
                self._check(f"metric {name}", False, expected, seen)
        if self.strange:
            self._check(
                "what the program says is understood", False, "lines of harness.program", self.strange
            )
