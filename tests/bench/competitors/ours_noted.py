"""``ours_noted.py NOTE harness-arguments...``: `harness`, and what it had cost when it began to collect.

Every case has ended by then; the rest (results.h5, report, verdicts) is work that the others do not do. It is
noticed by the first import of ``harness.collect``; nothing of the harness is changed.
"""

import importlib.abc
import json
import os
import resource
import sys


class _Notice(importlib.abc.MetaPathFinder):
    def __init__(self, path: str) -> None:
        self.path, self.noted = path, False

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        """Never finds anything; writes the note once."""
        if name == "harness.collect" and not self.noted:
            self.noted = True
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            note = {"cpu_s": sum(u.ru_utime + u.ru_stime for u in used), "peak_mb": used[0].ru_maxrss / 1024}
            with open(self.path, "w") as file:
                json.dump(note, file)
        return None


if __name__ == "__main__":
    sys.meta_path.insert(0, _Notice(os.path.abspath(sys.argv[1])))
    from harness.cli import main

    sys.exit(main(sys.argv[2:]))
