"""A user's own program on one rank: started, listened to, ended to its last process, judged by its own words.

The program is a child of this process, argument by argument and without a shell; it inherits what the
launcher gave (srun's and mpiexec's descriptors and variables, by which MPI finds its world). Whatever it
writes goes to the rank's log and is read line by line. When it has ended, what it left running is ended
too. Whether it has succeeded is told by what it said (``harness.runtime.criteria``), never by its exit code alone.
Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model import event as ev
from harness.model import placeholders
from harness.model.event import Event
from harness.rundir import PROMISED_S
from harness.runtime import armed, memory, page, processes, world
from harness.runtime.criteria import Criteria
from harness.runtime.output import Lines, Log
from harness.runtime.readings import Searching, TooSlow, bounded
from harness.runtime.recorder import Recorder
from harness.runtime.said import Said

if TYPE_CHECKING:
    from harness.runtime.rank import Context, Spec

POLL_S = 0.1  # between two looks at what the program said through harness.program
DRAIN_S = 1.0  # for output that is still on its way when the program has ended
END_S = 5  # what this may still take when it is to end
GRACE_S = 2.0  # between SIGTERM and SIGKILL at its own time limit
LAST_LINES = 3
READ_BYTES = 1 << 16

# Signals that somebody sends; a program that they end has not crashed.
_SENT = {signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
ENDED_FROM_OUTSIDE = "its program was ended by "


class ProgramFailed(Exception):
    """The program could not be started, or ended badly; the message says how."""


def how_it_ended(code: int) -> str:
    """A return code of ``subprocess`` in words."""
    if code >= 0:
        return f"its program ended with exit code {code}"
    if -code in _SENT:
        return f"{ENDED_FROM_OUTSIDE}{signal_name(-code)}"
    return f"its program crashed, killed by {signal_name(-code)}"


def signal_name(number: int) -> str:
    """SIGSEGV of 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Program:
    """The program of one rank."""

    def __init__(self, spec: Spec, context: Context, recorder: Recorder, position: page.Page) -> None:
        assert spec.case.command is not None  # whoever starts this has looked
        self.command: Any = spec.case.command
        self.context, self.recorder, self.position = context, recorder, position
        self._of = spec.case.case_id, spec.attempt
        # With a recovery, what a broken attempt lacks the next may say.
        self._is_final = spec.case.recovery == "none"
        self.folder = Path(spec.program_folder)
        local = Path(spec.node_folders[context.node]) / f"rank-{context.rank}.said"
        self.values = world.values(spec, context)
        self.environment = world.environment(spec, context, self.values, local)
        self.log = Log(Path(spec.folder) / f"rank-{context.rank}.log")
        self.last: list[str] = []
        self.code = 0
        self.overdue = self._to_end = False
        self._child: subprocess.Popen[bytes] | None = None
        self.left = 0  # processes that the program left running
        self.criteria = Criteria(self.command, self.values, self.folder, context, recorder, position)
        told = self.criteria.declared, context.check, self._tell, context.node, spec.case.case_id
        self.armed = armed.Armed(armed.of_rank(spec, context.rank), local, position)
        self.said = Said(local, recorder, *told, self.armed, position.advance)
        recorder.define("program", ("exit_code", "program_time_ns"))

    def _hear(self, line: str) -> None:
        """One line of the program's output."""
        if line.strip():
            self.last = [*self.last, line.strip()[:200]][-LAST_LINES:]
        with Searching(self.command["progress"] or ""):  # those of figures and criteria name themselves
            self.criteria.hear(line)

    def _look(self) -> None:
        """Take what the program said through ``harness.program``."""
        begun = self.said.begun
        if self.said.read():
            if self.said.section not in (None, self.position.section):
                self.position.set(section=self.said.section)
            if self.said.begun >= 0:
                self.position.set(begun=self.said.begun, finished=self.said.finished, of=self.said.of)
            if self.said.begun > begun:
                self.position.advance()
        self.said.faults.look()
        self.armed.look()

    def _tell(self, kind: str, wall_ns: int, mono_ns: int, data: Mapping[str, Any]) -> None:
        """Record what the program says happened then."""
        case_id, attempt = self._of
        where = self.context.node, "rank", case_id, attempt, self.context.rank
        self.recorder.event(Event(kind, wall_ns, mono_ns, *where, data))

    # --- the course of it -------------------------------------------------------------------------------

    def go(self) -> None:
        """From the start of the program to the last check.

        Raises:
            ProgramFailed: it could not be started, or ended badly.
        """
        try:
            with bounded():
                self._go()
        except TooSlow as slow:
            raise ProgramFailed(str(slow)) from None
        finally:  # whatever went wrong, nothing of the program is left
            if processes.has_children():
                processes.end_descendants(os.getpid())

    def _go(self) -> None:
        self._await_files()
        arguments = self._arguments()
        counter = memory.counter_of(os.getpid())
        kills = memory.kills(counter)
        self._mind_signals()
        processes.adopt_orphans()
        self.context.event(ev.PROGRAM_STARTED, program=arguments, folder=str(self.folder))
        start = time.monotonic_ns()
        self._start(arguments)
        self.context.event(ev.RANK_RUNNING)
        self.position.set(state=page.RUNNING, begun=max(0, self.position.begun))
        self._listen()
        took_ns = self._ended_ns - start
        self._end_the_rest()
        self._look()
        if self._to_end:
            os._exit(1)  # what its program said last is recorded; why it was ended, others know
        self.said.faults.ended(self.code)
        self.position.set(state=page.CLOSING)
        self.context.event(
            ev.PROGRAM_ENDED,
            exit_code=self.code,
            words=how_it_ended(self.code),
            time_ns=took_ns,
            left_running=self.left,
            killed_for_memory=memory.kills(counter) - kills,
        )
        self.recorder.sample("program", {"exit_code": self.code, "program_time_ns": took_ns})
        ended = str(self.code) if self.code >= 0 else signal_name(-self.code)
        words = self._failure(took_ns / 1e9)
        if not words or self._is_final:
            self.criteria.judge(self.code, ended, in_time=not self.overdue)
        if not words:
            self._answer()
        self.said.close()
        self.log.close()
        if words and not self.overdue and memory.kills(counter) > kills:
            words = f"killed for memory: its cgroup reached the job's limit on this node; {words}"
        if words:
            raise ProgramFailed(words)

    def _answer(self) -> None:
        """What is compared with the undisturbed twin's."""
        self.criteria.answer()
        if self.command.get("answers"):
            self.said.answered = True
        self.said.finish()
        if self.command.get("cooperates") and self.said.begun < 0:
            words = "the campaign says that it cooperates, and it began none"
            self.context.check("counts its steps by harness.program", False, "a step that began", words)

    def _await_files(self) -> None:
        """Wait for what the batch host wrote for the program: shared storage may show it late."""
        names = (*self.command["programs"], *self.command["inputs"])
        wanted = [self.folder, *(self.folder / name for name in names)]
        if self.command["script"] is not None:
            wanted.append(world.script_of(self.folder))
        end = time.monotonic() + PROMISED_S
        while missing := [path for path in wanted if not path.exists()]:
            if time.monotonic() > end:
                raise ProgramFailed(
                    f"{missing[0]}: not to be seen on node {self.context.node}, {PROMISED_S:g} s after it was written "
                    "on another; is the run folder on shared storage?"
                )
            time.sleep(0.05)

    def _arguments(self) -> list[str]:
        if self.command["script"] is not None:
            given = ["bash", str(world.script_of(self.folder))]
        else:
            given = [placeholders.fill(a, self.values) for a in self.command["run"]]
        return [find_program(given[0], self.environment, self.folder, self.context.node), *given[1:]]

    def _start(self, arguments: list[str]) -> None:
        node = self.context.node
        try:
            self._child = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=self.folder,
                env=self.environment,
                close_fds=False,  # MPI's way to its launcher (PMI_FD) is inherited; ours are closed on exec
                start_new_session=True,
                preexec_fn=processes.die_with_parent,  # this process has one thread
            )
        except OSError as error:
            hint = f"{error.strerror or error}"
            if error.errno == errno.ENOENT:
                hint = "the interpreter that its first line names is not there"
            elif error.errno == errno.ENOEXEC:
                hint = "it is no program of this machine, nor a script with #! in its first line"
            elif error.errno == errno.E2BIG:
                hint = "its arguments are too long; write them into a file by `inputs`"
            raise ProgramFailed(f"{arguments[0]}: cannot be run on node {node}: {hint}") from None

    def _listen(self) -> None:
        """Read everything until the program has ended and its output too, or a little longer."""
        assert self._child is not None
        assert self._child.stdout is not None and self._child.stderr is not None  # asked for as pipes
        selector = selectors.DefaultSelector()
        ended = os.pidfd_open(self._child.pid)
        selector.register(ended, selectors.EVENT_READ)
        for pipe in (self._child.stdout, self._child.stderr):
            selector.register(pipe, selectors.EVENT_READ, Lines(self._hear))
        limit_s = self.command["time_limit_s"]
        deadline = time.monotonic() + limit_s if limit_s is not None else None
        until, looked = None, 0.0
        try:
            while selector.get_map():
                for key, _ in selector.select(POLL_S):
                    if key.data is not None:
                        self._read(selector, key)
                        continue
                    self.code = self._child.wait()
                    self._ended_ns = time.monotonic_ns()
                    until = time.monotonic() + DRAIN_S
                    selector.unregister(ended)
                now = time.monotonic()
                if now - looked >= POLL_S:
                    looked = now
                    self._look()
                if until is None and deadline is not None and now > deadline:
                    deadline = None
                    self._stop()
                if until is not None and now > until:
                    if not self._end_the_rest():  # they held the pipes
                        break
                    until = now + DRAIN_S
        finally:
            os.close(ended)
            for key in list(selector.get_map().values()):
                if key.data is not None:
                    key.data.close()
            selector.close()

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, READ_BYTES)
        if data:
            self.log.write(data)
            key.data.feed(data)
        else:
            key.data.close()
            selector.unregister(key.fileobj)

    def _stop(self) -> None:
        """Its own time limit: asked to end first, then made to."""
        assert self._child is not None
        self.overdue = True
        self.log.note(f"not finished within {self.command['time_limit_s']:g} s: ended")
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE_S
        while self._child.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        processes.end_descendants(os.getpid())

    def _end_the_rest(self) -> bool:
        """End what the program left running; returns whether there was anything."""
        processes.reap()
        if not processes.has_children():
            return False
        left = len(processes.descendants(os.getpid()))
        alive = processes.end_descendants(os.getpid())
        processes.reap()
        if left:
            words = f"the program left {left} processes running; they were ended"
            self.log.note(words + (f", but for {alive}" if alive else ""))
        self.left += left
        return bool(left)

    def _mind_signals(self) -> None:
        """SIGTERM is the program's to die of; what it means for the case, the supervisor decides.

        SIGUSR1 is the agent's, to end the program and to record what it said last. Where an agent started this
        process, the agent's end is the same.
        """
        signal.signal(signal.SIGTERM, lambda number, frame: None)

        def end(number: int, frame: object) -> None:
            if self._child is None:
                os._exit(1)
            self._to_end = True
            signal.alarm(END_S)
            processes.end_descendants(os.getpid())

        signal.signal(signal.SIGUSR1, end)
        if os.environ.get("HARNESS_LAUNCHER") == "agent":
            processes.die_with_parent(signal.SIGUSR1)

    def _failure(self, took_s: float) -> str:
        """Why the rank has failed, whatever its program said; "" where it has not."""
        if self.overdue:
            words = f"its program was not finished within {self.command['time_limit_s']:g} s"
        elif self.criteria.is_good(self.code):
            return ""
        else:
            allowed = ", ".join(str(c) for c in self.command["success"]["exit_codes"])
            words = f"{how_it_ended(self.code)} after {took_s:.3g} s"
            words += f", allowed: {allowed}" if self.code >= 0 else ""
        said = " | ".join(self.last)[-500:]
        return f"{words}; " + (f"it ended with: {said}" if said else "it said nothing")


def find_program(name: str, environment: dict[str, str], folder: Path, node: str) -> str:
    """The program's path on this node.

    Raises:
        ProgramFailed: it is not there, or is no program; the message names path and node.
    """
    if "/" not in name:
        search = environment.get("PATH", os.defpath)
        found = shutil.which(name, path=search)
        if found is None:
            raise ProgramFailed(
                f"{name}: no such program on node {node}; it is in no folder of PATH there ({search}); "
                "give its whole path, or add a module to the site file"
            )
        return found
    path = folder / name  # an absolute name stays what it is
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ProgramFailed(
            f"{path}: not on node {node} ({error.strerror}); is it on shared storage?"
        ) from None
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        raise ProgramFailed(
            f"{path}: on node {node} it is no program that may be run (mode {stat.filemode(mode)}); chmod +x it"
        )
    return str(path)
