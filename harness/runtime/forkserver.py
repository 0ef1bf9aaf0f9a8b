"""Forks torch ranks from a process that has imported torch, and what the ranks are made of, and done nothing else.

Imports are nearly all that starting a rank costs. The process must own one thread and no CUDA
context when it forks; that is checked before each fork, and a violation is an error, not a hang later.
Speaks JSON lines on its standard input and output with the agent that started it; ends with it.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from harness.runtime.processes import die_with_parent

RANK = "harness.runtime.rank"  # imported late: this process says that it is ready as soon as torch is there


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _say(**message: Any) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def _import(modules: list[str]) -> None:
    """Import, once for all ranks to come, what each would have to import itself."""
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # the rank meets it again, and says it where a rank's errors are looked for
            return


def _fork(request: dict[str, Any], parent: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request["environment"])
        rank = importlib.import_module(RANK)
        code = rank.run(Path(request["spec"]), request["rank"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)  # no clean-up of a world that may be broken; everything recorded is already written


def main() -> int:
    """Serve until standard input ends."""
    die_with_parent()
    started = time.monotonic_ns()
    import torch
    import torch._dynamo  # making a DDP imports it: over a second for each rank, if not here
    import torch.distributed
    import torch.nn.parallel

    _say(
        type="ready",
        torch=torch.__version__,
        import_ns=time.monotonic_ns() - started,
        cuda=torch.version.cuda is not None,
    )
    me = os.getpid()
    ended, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only a signal with a handler wakes up
    children: set[int] = set()
    pending = b""
    while True:
        ready = select.select([0, ended], [], [], 1.0)[0]
        if ended in ready:
            os.read(ended, 4096)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return 0
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if "modules" in request:
                    _import(request["modules"])
                    continue
                if _threads() != 1:
                    _say(
                        type="refused",
                        rank=request["rank"],
                        why=f"the fork server has {_threads()} threads; importing torch must not start any",
                    )
                    continue
                pid = _fork(request, me)
                children.add(pid)
                _say(type="forked", rank=request["rank"], pid=pid)
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            children.discard(pid)
            _say(type="exited", pid=pid, status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
