"""Offline analysis of ``results.h5``: it runs on a laptop that has neither Slurm nor torch nor MPI.

Imports only ``harness.model`` and ``harness.store``. Importing it costs numpy and h5py; matplotlib and
jinja2 are imported by the modules that draw.

>>> import analysis
>>> with analysis.load("results.h5") as results:
...     results.cases
"""

from __future__ import annotations

from analysis.load import CampaignResults, load

__all__ = ["CampaignResults", "load"]
