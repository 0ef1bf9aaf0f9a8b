"""The one exception of this package, carrying the exit status that the shell should see.

Exit statuses: 1 it failed, 2 wrong use, 3 this machine cannot do it (not root, packages missing),
130 stopped by Ctrl-C or its like.
"""

INTERRUPTED = 130


class ClusterError(Exception):
    """Says where, what was given, what is allowed and what to do next; shown without a traceback."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status
