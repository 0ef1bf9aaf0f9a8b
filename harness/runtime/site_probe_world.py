"""One rank of ``harness site check``: says how large a world MPI made of it. Needs mpi4py."""

from __future__ import annotations

import json

from mpi4py import MPI

from harness.runtime.site_probe import MARK

if __name__ == "__main__":
    world = MPI.COMM_WORLD
    library = MPI.Get_library_version().splitlines()[0][:80].strip()
    # One write a rank, so that lines of ranks are not printed into each other.
    print(
        f"{MARK}{json.dumps({'size': world.size, 'rank': world.rank, 'library': library})}\n",
        end="",
        flush=True,
    )
    world.Barrier()
