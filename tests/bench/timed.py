"""``timed.py RESULT TIMEOUT_S -- COMMAND...``: run a command and write what it cost to RESULT, as JSON.

It counts the command, its children and theirs: orphans come to this process, which waits for them too. It
dies with whoever started it, and the command with it. Standard library only; run where the command runs.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ORPHANS_S = 5.0


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def main(result: str, timeout_s: float, command: list[str]) -> int:
    """Run it; the exit code is always 0 when there is a result."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    begin = time.monotonic()
    process = subprocess.Popen(
        command, start_new_session=True, preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    )
    timed_out = False
    try:
        process.wait(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    wall_s = time.monotonic() - begin
    end = time.monotonic() + ORPHANS_S
    while time.monotonic() < end:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            break
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "user_s": used.ru_utime,
        "system_s": used.ru_stime,
        "wall_s": wall_s,
        "peak_mb": used.ru_maxrss / 1024,
        "exit_code": process.returncode,
        "timed_out": timed_out,
    }
    with open(result, "w") as file:
        json.dump(cost, file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[4:]))
