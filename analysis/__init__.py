"""Offline analysis of ``results.h5``: it runs on a laptop that has neither Slurm nor torch nor MPI.

Imports only ``harness.model`` and ``harness.store``. Importing it costs nothing; numpy and h5py are imported by
``load``, scipy by what needs statistics, jinja2 by what draws, pandas and pyarrow by who asks for them.

>>> import analysis
>>> with analysis.load("results.h5") as results:
...     results.cases
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.results import CampaignResults

__all__ = ["CampaignResults", "load"]


def load(path: Path | str) -> CampaignResults:
    """Open a results file and read its small tables; ``analysis.results`` says what can be asked of it.

    Raises:
        StoreError: it is missing, truncated, foreign, damaged, or newer than this harness.
    """
    from analysis import results

    return results.load(path)


def __getattr__(name: str) -> Any:
    if name == "CampaignResults":
        from analysis import results

        return results.CampaignResults
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
